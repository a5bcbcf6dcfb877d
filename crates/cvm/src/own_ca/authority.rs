use std::time::{Duration, SystemTime};

use cvm_authority::{
    Authorities, Authority, AuthorityProfile, Curve, LocalSigner, Passphrase, SetError, SharedAuthorities, Signer as _,
    SubjectText, Tier,
};
use cvm_provisioning::{Certificate, KeyFingerprint, Timestamp};

use super::folder::{self, CaFolder, IssuingCa, Look};
use super::{KeyPlace, OwnCaError, PassphraseArguments};
use crate::ca_key::CaKey;
use crate::clock;
use crate::file;

/// The CA of a server that runs: a root and, below it, those that issue, with their keys at hand.
pub(crate) struct OwnAuthority {
    /// Those that issue now, have issued and will.
    pub(crate) authorities: SharedAuthorities<CaKey>,
    pub(crate) root: Root,
    pub(crate) folder: CaFolder,
    passphrase: PassphraseArguments,
    /// What the folder looked like when it was read.
    look: Look,
    /// When another of them issues, or one has ended.
    changes_at: Option<Timestamp>,
}

/// The root, whose key may be somewhere else.
#[derive(Debug)]
pub(crate) struct Root {
    certificate: Certificate,
    authority: Option<Authority<CaKey>>,
}

impl Root {
    /// The root of this certificate, with its key where it is there.
    pub(crate) async fn open(
        folder: &CaFolder,
        key: Option<KeyPlace>,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self, OwnCaError> {
        let certificate = folder.root()?.ok_or_else(|| OwnCaError::NoCa { folder: folder.path().to_owned() })?;
        let unfit = |source| OwnCaError::Unfit { path: folder.root_certificate_path(), source };
        let authority = match key {
            Some(key) => {
                let signer = key.open(&certificate, passphrase).await?;
                Some(Authority::new(certificate.clone(), Vec::new(), signer).map_err(unfit)?)
            }
            None => None,
        };
        Ok(Self { certificate, authority })
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The root with its key, where that is at hand.
    pub(crate) fn authority(&self) -> Option<&Authority<CaKey>> {
        self.authority.as_ref()
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
const ISSUING_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl OwnAuthority {
    /// Opens it, and makes what is missing at a first start: each file is whole or not there, so that a first start which
    /// was cut off is gone on with.
    pub(crate) async fn open(
        folder: CaFolder,
        passphrase: PassphraseArguments,
        now: Timestamp,
    ) -> Result<Self, OwnCaError> {
        file::private_folder(folder.path())?;
        let secret = passphrase.read()?;
        make_what_is_missing(&folder, secret.as_ref(), now).await?;
        let look = folder.look()?;
        let Opened { authorities, root, changes_at } = read(&folder, secret.as_ref(), now).await?;
        if secret.is_some() && !folder.issuing_key(1).is_encrypted().unwrap_or(true) {
            tracing::warn!(
                "there is a passphrase, and a key of the CA is not under it: `cvm ca passphrase` puts it there"
            );
        }
        let authorities = SharedAuthorities::new(authorities);
        Ok(Self { authorities, root, folder, passphrase, look, changes_at })
    }

    /// Reads the folder again if there is something new in it, or if another CA issues from now on. Says whether it did.
    pub(crate) async fn refresh(&mut self, now: Timestamp) -> Result<bool, OwnCaError> {
        let look = self.folder.look()?;
        if look == self.look && self.changes_at.is_none_or(|moment| now < moment) {
            return Ok(false);
        }
        let passphrase = self.passphrase.read()?;
        let Opened { authorities, root, changes_at } = read(&self.folder, passphrase.as_ref(), now).await?;
        tracing::info!(issuing = %authorities.current().certificate().id(), "the CAs were read again");
        self.authorities.store(authorities);
        (self.root, self.look, self.changes_at) = (root, look, changes_at);
        Ok(true)
    }

    /// What an operator does when [`refresh`](Self::refresh) fails in a running server.
    pub(crate) fn advice(&self, error: &OwnCaError) -> String {
        match (error, self.passphrase.file()) {
            (OwnCaError::Encrypted { .. } | OwnCaError::WrongPassphrase { .. }, Some(path)) => format!(
                "write the passphrase that the CA's keys have now into {}: the server reads it again within seconds",
                path.display()
            ),
            (OwnCaError::Encrypted { .. }, None) => {
                "restart the server with --ca-passphrase-file, the file with the passphrase of the CA's keys".to_owned()
            }
            _ => error.advice(),
        }
    }

    /// Puts the certificates where brokers read them, and returns them.
    pub(crate) fn publish(&self, now: Timestamp) -> Result<String, OwnCaError> {
        let left = now.until(self.authorities.load().current().certificate().not_after().into());
        if left < YEAR {
            tracing::warn!(
                days = left.as_secs() / 86_400,
                "the CA ends soon, and certificates with it: `cvm ca rotate`"
            );
        }
        self.folder.publish(now)
    }
}

/// What was read of a folder.
pub(super) struct Opened {
    pub(super) authorities: Authorities<CaKey>,
    root: Root,
    changes_at: Option<Timestamp>,
}

pub(super) async fn read(
    folder: &CaFolder,
    passphrase: Option<&Passphrase>,
    now: Timestamp,
) -> Result<Opened, OwnCaError> {
    let root = Root::open(folder, folder.root_key()?, passphrase).await?;
    let all = folder.issuing()?;
    let current = folder::current(&all, now).ok_or_else(|| OwnCaError::Ended { folder: folder.path().to_owned() })?;
    let ends = all.iter().map(|ca| Timestamp::from(ca.certificate.not_after()).after(Duration::from_secs(1)));
    let changes_at = all.iter().filter_map(|ca| ca.issues_from).chain(ends).filter(|moment| *moment > now).min();
    let mut others = Vec::new();
    let mut issuing = None;
    for ca in all.into_iter().filter(|ca| !ca.has_ended(now)) {
        let number = ca.number;
        let authority = unite(folder, ca, &root, passphrase).await?;
        match number == current {
            true => issuing = Some(authority),
            false => others.push(authority),
        }
    }
    // The latest first, as whoever rotates without a folder has them.
    others.reverse();
    let issuing = issuing.ok_or_else(|| OwnCaError::Ended { folder: folder.path().to_owned() })?;
    Ok(Opened { authorities: Authorities::new(issuing, others)?, root, changes_at })
}

async fn unite(
    folder: &CaFolder,
    ca: IssuingCa,
    root: &Root,
    passphrase: Option<&Passphrase>,
) -> Result<Authority<CaKey>, OwnCaError> {
    let (certificate, key) = (folder.issuing_path(ca.number, "pem"), folder.issuing_path(ca.number, "key"));
    let Some(place) = KeyPlace::beside(&key)? else {
        return Err(OwnCaError::NoKey { certificate, path: key });
    };
    let signer = place.open(&ca.certificate, passphrase).await?;
    let authority = Authority::new(ca.certificate, vec![root.certificate().clone()], signer);
    authority.map_err(|source| OwnCaError::Unfit { path: certificate, source })
}

async fn make_what_is_missing(
    folder: &CaFolder,
    passphrase: Option<&Passphrase>,
    now: Timestamp,
) -> Result<(), OwnCaError> {
    if folder.root()?.is_none() {
        // With a CA below it there was a root, and another one would vouch for nothing.
        if folder.issuing_path(1, "pem").exists() {
            return Err(OwnCaError::NoCa { folder: folder.path().to_owned() });
        }
        clock::check(now)?;
        let signer = KeyPlace::open_or_make(&folder.root_key_path(), passphrase).await?;
        let name = format!("cvm root {}", installation(signer.public_key().fingerprint()));
        let root = Authority::create(&profile(&name, Tier::Root, ROOT_VALIDITY), signer, now).await?;
        file::create(&folder.root_certificate_path(), root.certificate().pem())?;
    }
    if folder.issuing()?.is_empty() {
        clock::check(now)?;
        let root = Root::open(folder, folder.root_key()?, passphrase).await?;
        let root = root.authority().ok_or_else(|| OwnCaError::NoRootKey { path: folder.root_key_path() })?;
        let signer = KeyPlace::open_or_make(&folder.issuing_path(1, "key"), passphrase).await?;
        let name = format!("cvm issuing {}", installation(root.certificate().key()));
        let profile = profile(&name, Tier::Issuing, ISSUING_VALIDITY);
        let certificate = root.certify_authority(&profile, signer.public_key(), now).await?;
        file::create(&folder.issuing_path(1, "pem"), certificate.pem())?;
    }
    Ok(())
}

/// The next CA, as it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// How long it is trusted before it issues. One that is needed at once, because none issues, is not waited for.
    pub(crate) overlap: Duration,
    /// How long it is valid; it ends with the root at the latest.
    pub(crate) validity: Duration,
    /// The id, ARN or alias of its key in AWS KMS; `None` has one made here.
    pub(crate) kms_key: Option<String>,
}

/// Makes the next CA, below this root, and puts its certificate where brokers read it.
pub(crate) async fn rotate(
    folder: &CaFolder,
    root: &Authority<CaKey>,
    passphrase: Option<&Passphrase>,
    Rotation { overlap, validity, kms_key }: Rotation,
    now: Timestamp,
) -> Result<IssuingCa, OwnCaError> {
    clock::check(now)?;
    let all = folder.issuing()?;
    if let Some(from) = all.iter().filter_map(|ca| ca.issues_from).find(|from| *from > now) {
        return Err(OwnCaError::Pending { from });
    }
    let issues_from = if folder::current(&all, now).is_some() { now.after(overlap) } else { now };
    let number = folder.next_number()?;
    folder.remove_leftovers(SystemTime::now())?;
    // The last second of the root counts too.
    let validity = validity.min(now.until(root.certificate().not_after().into()) + Duration::from_secs(1));
    // It is the only one of its name, by which revocation lists are found.
    let name = format!("cvm issuing {} {number}", installation(root.certificate().key()));
    let profile = profile(&name, Tier::Issuing, validity);
    let signer = match kms_key {
        Some(id) => CaKey::of_kms(&id).await?,
        None => LocalSigner::generate(Curve::P256).map_err(|_| OwnCaError::Randomness)?.into(),
    };
    // What the server would refuse is not begun.
    let known = all.iter().map(|ca| &ca.certificate).chain([root.certificate()]);
    if let Some(same) = known.into_iter().find(|certificate| certificate.key() == signer.public_key().fingerprint()) {
        return Err(SetError::SameKey { id: *same.id() }.into());
    }
    let certificate = root.certify_authority(&profile, signer.public_key(), now).await?;
    // The certificate comes last: without it, nobody looks at the others.
    match &signer {
        CaKey::Local(signer) => folder.issuing_key(number).create(signer, passphrase)?,
        CaKey::Kms(signer) => file::create(&folder.issuing_path(number, "kms"), &format!("{}\n", signer.key_id()))?,
    }
    folder::write_moment(&folder.issuing_path(number, "from"), issues_from)?;
    file::create(&folder.issuing_path(number, "pem"), certificate.pem())?;
    folder.publish(now)?;
    Ok(IssuingCa { number, certificate, issues_from: Some(issues_from) })
}

/// The name of an installation in the names of its CAs, so that the CAs of two servers can be told apart where both are
/// trusted: the first 8 digits of the root key's fingerprint.
fn installation(root_key: &KeyFingerprint) -> String {
    root_key.to_string().chars().take(8).collect()
}

fn profile(name: &str, tier: Tier, validity: Duration) -> AuthorityProfile {
    #[expect(clippy::expect_used, reason = "the names are a few letters and a number")]
    let name: SubjectText = name.parse().expect("a name");
    AuthorityProfile { name, organization: None, tier, validity }
}
