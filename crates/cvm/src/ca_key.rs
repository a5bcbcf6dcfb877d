use cvm_authority::{LocalSigner, Signer, SignerError};
use cvm_aws::{Clients, KmsKeyError, KmsSigner};
use cvm_provisioning::PublicKey;

/// A CA's private key: in the memory of this process, or in AWS KMS.
#[derive(Debug)]
pub(crate) enum CaKey {
    Kms(Box<KmsSigner>),
    Local(Box<LocalSigner>),
}

impl CaKey {
    /// The key with this id, ARN or alias in AWS KMS.
    pub(crate) async fn of_kms(id: &str) -> Result<Self, KmsKeyError> {
        let client = Clients::kms_from_environment().await;
        Ok(Self::Kms(Box::new(Box::pin(KmsSigner::open(client, id)).await?)))
    }

    /// The same where its public half is known from its certificate: AWS KMS is not asked before it is to sign.
    pub(crate) async fn known_to_kms(id: &str, public_key: PublicKey) -> Self {
        let client = Clients::kms_from_environment().await;
        Self::Kms(Box::new(KmsSigner::known(client, id, public_key)))
    }
}

impl From<LocalSigner> for CaKey {
    fn from(signer: LocalSigner) -> Self {
        Self::Local(Box::new(signer))
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
