//! Signing with a key that may be elsewhere.
//!
//! The library that encodes asks its key for the signature in the middle of it, and does not wait for an answer from a
//! network. So with a key that is elsewhere everything is encoded twice: once to see which bytes are to be signed, and
//! again with their signature, where it is checked that the bytes are the same. A key in this process signs on the way.

use std::cell::RefCell;

use aws_lc_rs::error::Unspecified;
use rcgen::{Issuer, PublicKeyData, SubjectPublicKeyInfo};

use crate::{Defect, LocalSigner, Signer, SignerError};

/// The CA that signs, in one pass.
pub(crate) type LibraryIssuer<'a> = Issuer<'a, &'a Pass<'a>>;

/// Has the signer, whose public key is `key`, sign what `encode` encodes.
pub(crate) async fn sign<S: Signer, T>(
    signer: &S,
    key: &SubjectPublicKeyInfo,
    encode: impl Fn(&Pass<'_>) -> Result<T, rcgen::Error>,
) -> Result<T, SigningError> {
    let pass = |step| Pass { key, algorithm: signer.algorithm().of_library(), step };
    if let Some(signer) = signer.in_memory() {
        return encode(&pass(Step::Sign(signer))).map_err(|error| match error {
            rcgen::Error::RingUnspecified => SigningError::Randomness(Unspecified),
            other => other.into(),
        });
    }
    let to_be_signed = capture(signer, key, &encode)?;
    let signature = signer.sign(&to_be_signed).await?;
    let place = pass(Step::Place { to_be_signed: &to_be_signed, signature: &signature });
    encode(&place).map_err(|error| match error {
        rcgen::Error::RemoteKeyError => SigningError::Changed,
        other => other.into(),
    })
}

/// The bytes that the signer would have to sign.
pub(crate) fn capture<S: Signer, T>(
    signer: &S,
    key: &SubjectPublicKeyInfo,
    encode: impl Fn(&Pass<'_>) -> Result<T, rcgen::Error>,
) -> Result<Vec<u8>, rcgen::Error> {
    let to_be_signed = RefCell::default();
    encode(&Pass { key, algorithm: signer.algorithm().of_library(), step: Step::Capture(&to_be_signed) })?;
    Ok(to_be_signed.into_inner())
}

/// One time that something is encoded: what the library takes for the CA's key.
pub(crate) struct Pass<'a> {
    key: &'a SubjectPublicKeyInfo,
    algorithm: &'static rcgen::SignatureAlgorithm,
    step: Step<'a>,
}

enum Step<'a> {
    Capture(&'a RefCell<Vec<u8>>),
    Place { to_be_signed: &'a [u8], signature: &'a [u8] },
    Sign(&'a LocalSigner),
}

impl PublicKeyData for Pass<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl rcgen::SigningKey for Pass<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.step {
            Step::Capture(bytes) => {
                bytes.replace(message.to_vec());
                Ok(Vec::new())
            }
            Step::Place { to_be_signed, signature } if *to_be_signed == message => Ok(signature.to_vec()),
            Step::Place { .. } => Err(rcgen::Error::RemoteKeyError),
            Step::Sign(signer) => signer.sign_at_once(message).map_err(|_| rcgen::Error::RingUnspecified),
        }
    }
}

/// Why nothing was signed, or nothing that may be handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// What was encoded is not what was signed, which is a defect of this program.
    #[error("what was encoded with the signature is not what was signed, and was not handed out")]
    Changed,
    /// What was made is not what the profile says, which is a defect of this program or of the key.
    #[error("what was made is defective, and was not handed out")]
    Defect(#[from] Defect),
    /// It could not be encoded.
    #[error("the library could not encode what was to be signed")]
    Library(#[from] rcgen::Error),
    /// There are no random numbers for a serial number or a key.
    #[error("the system has no randomness to give: try again")]
    Randomness(#[from] Unspecified),
    /// The key did not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

impl SigningError {
    /// Whether it may go well if it is asked for again.
    pub const fn is_for_now(&self) -> bool {
        match self {
            Self::Randomness(_) => true,
            Self::Signer(error) => error.is_for_now(),
            Self::Changed | Self::Defect(_) | Self::Library(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use cvm_provisioning::Timestamp;
    use rcgen::SigningKey;

    use super::*;
    use crate::testing::{Recorded, p256};
    use crate::{Authority, AuthorityProfile, Profile, Tier};

    #[tokio::test]
    async fn what_is_encoded_with_the_signature_is_what_was_signed() {
        let signer = Recorded::new(p256());
        let passes = RefCell::new(Vec::new());
        let key = SubjectPublicKeyInfo::from_der(signer.public_key().spki()).unwrap();
        let signature = sign(&signer, &key, |pass| {
            let signature = pass.sign(b"to be signed")?;
            passes.borrow_mut().push(signature.clone());
            Ok(signature)
        });
        let signature = signature.await.unwrap();
        assert_eq!(signer.signed(), [b"to be signed"]);
        assert_eq!(*passes.borrow(), [Vec::new(), signature.clone()]);
        assert!(signer.algorithm().verifies(signer.public_key(), b"to be signed", &signature));
    }

    #[tokio::test]
    async fn what_changes_after_it_was_signed_is_not_handed_out() {
        let times = Cell::new(0_u8);
        let signer = Recorded::new(p256());
        let key = SubjectPublicKeyInfo::from_der(signer.public_key().spki()).unwrap();
        let signed = sign(&signer, &key, |pass| pass.sign(&[times.replace(times.get() + 1)])).await;
        assert!(matches!(signed, Err(SigningError::Changed)));
        assert_eq!(signer.signed(), [[0]]);
    }

    #[tokio::test]
    async fn of_every_kind_the_bytes_that_were_signed_are_those_that_are_handed_out() {
        let now = Timestamp::from_seconds(1_800_000_000);
        let day = Duration::from_secs(24 * 60 * 60);
        let profile = AuthorityProfile {
            name: "Root".parse().unwrap(),
            organization: None,
            tier: Tier::Root,
            validity: 100 * day,
        };
        let authority = Authority::create(&profile, Recorded::new(p256()), now).await.unwrap();
        let below = AuthorityProfile { name: "Devices".parse().unwrap(), tier: Tier::Issuing, ..profile };
        let below = authority.certify_authority(&below, p256().public_key(), now).await.unwrap();
        let id = "sn-0001".parse().unwrap();
        let issued = authority.issue(&Profile::new(day), &id, p256().public_key(), now).await.unwrap();
        let crl = authority.sign_crl(Vec::new(), 1, day, now).await.unwrap();

        let mut handed_out: Vec<Vec<u8>> = [authority.certificate(), &below, issued.certificate()]
            .map(|certificate| {
                let (_, block) = x509_parser::pem::parse_x509_pem(certificate.pem().as_bytes()).unwrap();
                block.parse_x509().unwrap().tbs_certificate.as_ref().to_vec()
            })
            .into();
        handed_out.push(x509_parser::parse_x509_crl(crl.der()).unwrap().1.tbs_cert_list.as_ref().to_vec());
        assert_eq!(authority.signer().signed(), handed_out, "each was signed once, as it is");
    }
}
