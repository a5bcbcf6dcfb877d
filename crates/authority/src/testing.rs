//! What several modules' tests need.

use std::sync::Mutex;

use cvm_provisioning::PublicKey;

use crate::{Curve, LocalSigner, Signer, SignerError};

pub(crate) fn p256() -> LocalSigner {
    LocalSigner::generate(Curve::P256).unwrap()
}

/// A key that remembers what it has signed.
pub(crate) struct Recorded {
    signer: LocalSigner,
    signed: Mutex<Vec<Vec<u8>>>,
}

impl Recorded {
    pub(crate) fn new(signer: LocalSigner) -> Self {
        Self { signer, signed: Mutex::default() }
    }

    pub(crate) fn signed(&self) -> Vec<Vec<u8>> {
        self.signed.lock().unwrap().clone()
    }
}

impl Signer for Recorded {
    fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    async fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.signed.lock().unwrap().push(to_be_signed.to_vec());
        // Elsewhere takes its time.
        tokio::task::yield_now().await;
        self.signer.sign(to_be_signed).await
    }
}
