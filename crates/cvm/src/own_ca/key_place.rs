use std::path::{Path, PathBuf};

use cvm_authority::{Curve, KeyFile, LocalSigner, Passphrase, public_key};
use cvm_provisioning::Certificate;

use super::OwnCaError;
use crate::ca_key::CaKey;
use crate::file;

/// What a name of a key in AWS KMS begins with, wherever a file could stand.
const KMS: &str = "kms:";
/// The longest file that names a key in AWS KMS, in bytes.
const MAX_NAME: usize = 2_048;

/// Where the key of a CA is.
#[derive(Clone, Debug)]
pub(crate) enum KeyPlace {
    File(PathBuf),
    /// In AWS KMS, by this id, ARN or alias.
    Kms(String),
}

impl KeyPlace {
    /// The place that somebody names: a file, or a key in AWS KMS with `kms:` before its name.
    pub(crate) fn named(place: &Path) -> Self {
        match place.to_str().and_then(|text| text.strip_prefix(KMS)) {
            Some(name) => Self::Kms(name.to_owned()),
            None => Self::File(place.to_owned()),
        }
    }

    /// Where the key of a CA in a folder is: in AWS KMS where `NAME.kms` says which key, else in `NAME.key`. `None` where
    /// neither is there.
    pub(super) fn beside(key: &Path) -> Result<Option<Self>, OwnCaError> {
        let reference = key.with_extension("kms");
        if reference.exists() {
            let text = file::read_text(&reference, MAX_NAME)?;
            let name = text.trim();
            return match name.is_empty() || name.contains(char::is_whitespace) {
                true => Err(OwnCaError::KmsName { path: reference }),
                false => Ok(Some(Self::Kms(name.to_owned()))),
            };
        }
        Ok(key.exists().then(|| Self::File(key.to_owned())))
    }

    /// The key of the CA with this certificate.
    pub(super) async fn open(
        &self,
        certificate: &Certificate,
        passphrase: Option<&Passphrase>,
    ) -> Result<CaKey, OwnCaError> {
        match self {
            Self::File(path) => Ok(KeyFile::new(path).read(passphrase)?.into()),
            Self::Kms(name) => {
                let unfit = |source| OwnCaError::KmsUnfit { name: name.clone(), source };
                Ok(CaKey::known_to_kms(name, public_key(certificate).map_err(unfit)?).await)
            }
        }
    }

    /// The key of a CA that has no certificate yet: the one there is, or a new one in this file.
    pub(super) async fn open_or_make(key: &Path, passphrase: Option<&Passphrase>) -> Result<CaKey, OwnCaError> {
        match Self::beside(key)? {
            Some(Self::Kms(name)) => Ok(CaKey::of_kms(&name).await?),
            Some(Self::File(path)) => Ok(KeyFile::new(path).read(passphrase)?.into()),
            None => {
                let signer = LocalSigner::generate(Curve::P256).map_err(|_| OwnCaError::Randomness)?;
                KeyFile::new(key).create(&signer, passphrase)?;
                Ok(signer.into())
            }
        }
    }
}
