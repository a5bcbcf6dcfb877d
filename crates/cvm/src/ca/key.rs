use std::path::Path;

use cvm_authority::{KeyFile, KeyFileError, LocalSigner, Signer, SignerError};
use cvm_aws::{Clients, KmsSigner};
use cvm_provisioning::PublicKey;
use zeroize::Zeroizing;

use super::authority::AuthorityError;
use crate::file;

/// A CA's private key: in the memory of this process, or in AWS KMS.
#[derive(Debug)]
pub(super) enum CaKey {
    Kms(Box<KmsSigner>),
    Local(Box<LocalSigner>),
}

impl CaKey {
    /// The key in this file, on stdin for `-`, or with `kms:` before its id, ARN or alias in AWS KMS.
    pub(super) async fn open(place: &Path) -> Result<Self, AuthorityError> {
        if let Some(id) = place.to_str().and_then(|text| text.strip_prefix("kms:")) {
            return Self::of_kms(id).await;
        }
        if place != Path::new("-") {
            return Ok(Self::Local(Box::new(KeyFile::new(place).read(None)?)));
        }
        let text = Zeroizing::new(file::read_text(place, LocalSigner::MAX_TEXT)?);
        let signer = LocalSigner::from_pem(&text, None);
        let signer = signer.map_err(|source| KeyFileError::Key { path: place.to_owned(), source })?;
        Ok(Self::Local(Box::new(signer)))
    }

    /// The key with this id, ARN or alias in AWS KMS.
    pub(super) async fn of_kms(id: &str) -> Result<Self, AuthorityError> {
        let client = Clients::kms_from_environment().await;
        Ok(Self::Kms(Box::new(Box::pin(KmsSigner::open(client, id)).await?)))
    }
}

impl Signer for CaKey {
    fn public_key(&self) -> &PublicKey {
        match self {
            Self::Kms(signer) => signer.public_key(),
            Self::Local(signer) => signer.public_key(),
        }
    }

    async fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self {
            Self::Kms(signer) => Box::pin(signer.sign(to_be_signed)).await,
            Self::Local(signer) => signer.sign(to_be_signed).await,
        }
    }

    fn in_memory(&self) -> Option<&LocalSigner> {
        match self {
            Self::Kms(_) => None,
            Self::Local(signer) => signer.in_memory(),
        }
    }
}
