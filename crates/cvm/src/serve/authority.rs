//! The server's own CA: a root and, below it, the one that issues, in a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cvm_authority::{Authorities, Authority, AuthorityProfile, Curve, KeyFile, LocalSigner, SubjectText, Tier};
use cvm_provisioning::{Certificate, Timestamp};

use super::ServeError;
use crate::file;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
const ISSUING_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The longest certificate, in bytes.
const MAX_PEM: usize = 16 * 1024;

/// The CA, with its keys at hand.
pub(super) struct OwnAuthority {
    pub(super) authorities: Arc<Authorities<LocalSigner>>,
    /// The root signs a list of its own, so that those who ask for one of every CA have it.
    pub(super) root: Authority<LocalSigner>,
    pub(super) folder: PathBuf,
}

impl OwnAuthority {
    /// Opens it, and makes what is missing: each file is whole or not there, so that a first start which was cut off is
    /// gone on with.
    pub(super) async fn open(folder: &Path, now: Timestamp) -> Result<Self, ServeError> {
        file::private_folder(folder)?;
        let root_path = folder.join("root.pem");
        let root_key = key(folder, "root.key")?;
        let root = match certificate(&root_path)? {
            Some(certificate) => unite(certificate, Vec::new(), root_key, &root_path)?,
            None => {
                let root = Authority::create(&profile("cvm root", Tier::Root, ROOT_VALIDITY), root_key, now).await?;
                file::create(&root_path, root.certificate().pem())?;
                root
            }
        };
        let path = folder.join("issuing.pem");
        let issuing_key = key(folder, "issuing.key")?;
        let issued = match certificate(&path)? {
            Some(certificate) => certificate,
            None => {
                let profile = profile("cvm issuing", Tier::Issuing, ISSUING_VALIDITY);
                let certificate = root.certify_authority(&profile, signer_key(&issuing_key), now).await?;
                file::create(&path, certificate.pem())?;
                certificate
            }
        };
        let issuing = unite(issued, vec![root.certificate().clone()], issuing_key, &path)?;
        let left = now.until(issuing.certificate().not_after().into());
        if left < YEAR {
            tracing::warn!(days = left.as_secs() / 86_400, "the CA ends soon, and certificates with it");
        }
        let bundle = format!("{}{}", issuing.certificate().pem(), root.certificate().pem());
        file::replace(&folder.join("ca.pem"), &bundle)?;
        Ok(Self { authorities: Arc::new(Authorities::new(issuing, Vec::new())?), root, folder: folder.to_owned() })
    }
}

fn signer_key(signer: &LocalSigner) -> &cvm_provisioning::PublicKey {
    cvm_authority::Signer::public_key(signer)
}

fn profile(name: &'static str, tier: Tier, validity: Duration) -> AuthorityProfile {
    #[expect(clippy::expect_used, reason = "the names are constants of a few letters")]
    let name: SubjectText = name.parse().expect("a name");
    AuthorityProfile { name, organization: None, tier, validity }
}

fn key(folder: &Path, name: &str) -> Result<LocalSigner, ServeError> {
    let path = folder.join(name);
    let file = KeyFile::new(&path);
    if path.exists() {
        return Ok(file.read(None)?);
    }
    let signer = LocalSigner::generate(Curve::P256).map_err(|_| ServeError::Randomness)?;
    file.create(&signer, None)?;
    Ok(signer)
}

fn certificate(path: &Path) -> Result<Option<Certificate>, ServeError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = file::read_text(path, MAX_PEM)?;
    let certificate = Certificate::parse(&text);
    certificate.map(Some).map_err(|source| ServeError::OwnCa { source: source.into() })
}

fn unite(
    certificate: Certificate,
    above: Vec<Certificate>,
    signer: LocalSigner,
    path: &Path,
) -> Result<Authority<LocalSigner>, ServeError> {
    let path = path.to_owned();
    Authority::new(certificate, above, signer).map_err(|source| ServeError::Unfit { path, source })
}
