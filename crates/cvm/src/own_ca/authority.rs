use std::time::Duration;

use cvm_authority::{
    Authorities, Authority, AuthorityProfile, Curve, KeyFile, LocalSigner, Passphrase, SharedAuthorities, Signer as _,
    SubjectText, Tier,
};
use cvm_provisioning::{Certificate, Timestamp};

use super::folder::{self, CaFolder, IssuingCa, Look};
use super::{OwnCaError, PassphraseArguments};
use crate::file;

/// The CA of a server that runs: a root and, below it, those that issue, with their keys at hand.
pub(crate) struct OwnAuthority {
    /// Those that issue now, have issued and will.
    pub(crate) authorities: SharedAuthorities<LocalSigner>,
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
    authority: Option<Authority<LocalSigner>>,
}

impl Root {
    /// The root of this certificate, with its key where it is there.
    pub(crate) fn open(
        folder: &CaFolder,
        key: &KeyFile,
        is_there: bool,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self, OwnCaError> {
        let certificate = folder.root()?.ok_or_else(|| OwnCaError::NoCa { folder: folder.path().to_owned() })?;
        let unfit = |source| OwnCaError::Unfit { path: folder.root_certificate_path(), source };
        let authority = match is_there {
            true => Some(Authority::new(certificate.clone(), Vec::new(), key.read(passphrase)?).map_err(unfit)?),
            false => None,
        };
        Ok(Self { certificate, authority })
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The root with its key, where that is at hand.
    pub(crate) fn authority(&self) -> Option<&Authority<LocalSigner>> {
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
        let Opened { authorities, root, changes_at } = read(&folder, secret.as_ref(), now)?;
        if secret.is_some() && !folder.issuing_key(1).is_encrypted().unwrap_or(true) {
            tracing::warn!(
                "there is a passphrase, and a key of the CA is not under it: `cvm ca passphrase` puts it there"
            );
        }
        let authorities = SharedAuthorities::new(authorities);
        Ok(Self { authorities, root, folder, passphrase, look, changes_at })
    }

    /// Reads the folder again if there is something new in it, or if another CA issues from now on. Says whether it did.
    pub(crate) fn refresh(&mut self, now: Timestamp) -> Result<bool, OwnCaError> {
        let look = self.folder.look()?;
        if look == self.look && self.changes_at.is_none_or(|moment| now < moment) {
            return Ok(false);
        }
        let Opened { authorities, root, changes_at } = read(&self.folder, self.passphrase.read()?.as_ref(), now)?;
        tracing::info!(issuing = %authorities.current().certificate().id(), "the CAs were read again");
        self.authorities.store(authorities);
        (self.root, self.look, self.changes_at) = (root, look, changes_at);
        Ok(true)
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
struct Opened {
    authorities: Authorities<LocalSigner>,
    root: Root,
    changes_at: Option<Timestamp>,
}

fn read(folder: &CaFolder, passphrase: Option<&Passphrase>, now: Timestamp) -> Result<Opened, OwnCaError> {
    let root_key = folder.root_key_path();
    let root = Root::open(folder, &KeyFile::new(&root_key), root_key.exists(), passphrase)?;
    let all = folder.issuing()?;
    let current = folder::current(&all, now).ok_or_else(|| OwnCaError::Ended { folder: folder.path().to_owned() })?;
    let ends = all.iter().map(|ca| Timestamp::from(ca.certificate.not_after()).after(Duration::from_secs(1)));
    let changes_at = all.iter().filter_map(|ca| ca.issues_from).chain(ends).filter(|moment| *moment > now).min();
    let mut others = Vec::new();
    let mut issuing = None;
    for ca in all.into_iter().filter(|ca| !ca.has_ended(now)) {
        let number = ca.number;
        let authority = unite(folder, ca, &root, passphrase)?;
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

fn unite(
    folder: &CaFolder,
    ca: IssuingCa,
    root: &Root,
    passphrase: Option<&Passphrase>,
) -> Result<Authority<LocalSigner>, OwnCaError> {
    let (certificate, key) = (folder.issuing_path(ca.number, "pem"), folder.issuing_path(ca.number, "key"));
    if !key.exists() {
        return Err(OwnCaError::NoKey { certificate, path: key });
    }
    let signer = folder.issuing_key(ca.number).read(passphrase)?;
    let authority = Authority::new(ca.certificate, vec![root.certificate().clone()], signer);
    authority.map_err(|source| OwnCaError::Unfit { path: certificate, source })
}

async fn make_what_is_missing(
    folder: &CaFolder,
    passphrase: Option<&Passphrase>,
    now: Timestamp,
) -> Result<(), OwnCaError> {
    let root_key = KeyFile::new(folder.root_key_path());
    if folder.root()?.is_none() {
        // With a CA below it there was a root, and another one would vouch for nothing.
        if folder.issuing_path(1, "pem").exists() {
            return Err(OwnCaError::NoCa { folder: folder.path().to_owned() });
        }
        let signer = key(&root_key, folder.root_key_path().exists(), passphrase)?;
        let root = Authority::create(&profile("cvm root", Tier::Root, ROOT_VALIDITY), signer, now).await?;
        file::create(&folder.root_certificate_path(), root.certificate().pem())?;
    }
    if folder.issuing()?.is_empty() {
        let path = folder.root_key_path();
        let root = Root::open(folder, &root_key, path.exists(), passphrase)?;
        let root = root.authority().ok_or(OwnCaError::NoRootKey { path })?;
        let signer = key(&folder.issuing_key(1), folder.issuing_path(1, "key").exists(), passphrase)?;
        let profile = profile("cvm issuing", Tier::Issuing, ISSUING_VALIDITY);
        let certificate = root.certify_authority(&profile, signer.public_key(), now).await?;
        file::create(&folder.issuing_path(1, "pem"), certificate.pem())?;
    }
    Ok(())
}

/// The next CA, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// How long it is trusted before it issues. One that is needed at once, because none issues, is not waited for.
    pub(crate) overlap: Duration,
    /// How long it is valid; it ends with the root at the latest.
    pub(crate) validity: Duration,
}

/// Makes the next CA, below this root, and puts its certificate where brokers read it.
pub(crate) async fn rotate(
    folder: &CaFolder,
    root: &Authority<LocalSigner>,
    passphrase: Option<&Passphrase>,
    Rotation { overlap, validity }: Rotation,
    now: Timestamp,
) -> Result<IssuingCa, OwnCaError> {
    let all = folder.issuing()?;
    if let Some(from) = all.iter().filter_map(|ca| ca.issues_from).find(|from| *from > now) {
        return Err(OwnCaError::Pending { from });
    }
    let issues_from = if folder::current(&all, now).is_some() { now.after(overlap) } else { now };
    let number = folder.next_number()?;
    // The last second of the root counts too.
    let validity = validity.min(now.until(root.certificate().not_after().into()) + Duration::from_secs(1));
    // It is the only one of its name, by which revocation lists are found.
    let profile = profile(&format!("cvm issuing {number}"), Tier::Issuing, validity);
    let signer = LocalSigner::generate(Curve::P256).map_err(|_| OwnCaError::Randomness)?;
    let certificate = root.certify_authority(&profile, signer.public_key(), now).await?;
    // The certificate comes last: without it, nobody looks at the others.
    folder.issuing_key(number).create(&signer, passphrase)?;
    folder::write_moment(&folder.issuing_path(number, "from"), issues_from)?;
    file::create(&folder.issuing_path(number, "pem"), certificate.pem())?;
    folder.publish(now)?;
    Ok(IssuingCa { number, certificate, issues_from: Some(issues_from) })
}

fn key(file: &KeyFile, is_there: bool, passphrase: Option<&Passphrase>) -> Result<LocalSigner, OwnCaError> {
    if is_there {
        return Ok(file.read(passphrase)?);
    }
    let signer = LocalSigner::generate(Curve::P256).map_err(|_| OwnCaError::Randomness)?;
    file.create(&signer, passphrase)?;
    Ok(signer)
}

fn profile(name: &str, tier: Tier, validity: Duration) -> AuthorityProfile {
    #[expect(clippy::expect_used, reason = "the names are a few letters and a number")]
    let name: SubjectText = name.parse().expect("a name");
    AuthorityProfile { name, organization: None, tier, validity }
}
