//! A CA's key in AWS KMS, against the service's documented answers.

use aws_sdk_kms::Client;
use aws_sdk_kms::error::ErrorMetadata;
use aws_sdk_kms::operation::get_public_key::GetPublicKeyOutput;
use aws_sdk_kms::operation::sign::{SignError, SignOutput};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyUsageType, MessageType, SigningAlgorithmSpec};
use aws_smithy_mocks::{Rule, mock, mock_client};
use cvm_authority::{Curve, LocalSigner, Signer, SignerError};
use cvm_aws::{KmsKeyError, KmsSigner};

const ARN: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd";

/// AWS KMS says that the alias is this key.
fn says(signer: &LocalSigner, usage: KeyUsageType) -> Rule {
    let spki = signer.public_key().spki().to_vec();
    mock!(Client::get_public_key).match_requests(|request| request.key_id() == Some("alias/ca")).then_output(
        move || {
            let said = GetPublicKeyOutput::builder().key_id(ARN).key_usage(usage.clone());
            said.public_key(Blob::new(spki.clone())).build()
        },
    )
}

fn fails(code: &'static str) -> Rule {
    mock!(Client::sign).then_error(move || SignError::generic(ErrorMetadata::builder().code(code).build()))
}

#[tokio::test]
async fn the_digest_alone_is_sent_and_the_signature_is_the_keys() {
    for (curve, specification) in
        [(Curve::P256, SigningAlgorithmSpec::EcdsaSha256), (Curve::P384, SigningAlgorithmSpec::EcdsaSha384)]
    {
        let (there, bytes) = (LocalSigner::generate(curve).unwrap(), vec![7; 10_000]);
        let (digest, signature) = (there.algorithm().digest(&bytes), there.sign(&bytes).await.unwrap());
        let sign = mock!(Client::sign)
            .match_requests(move |request| {
                request.key_id() == Some(ARN)
                    && request.message_type() == Some(&MessageType::Digest)
                    && request.signing_algorithm() == Some(&specification)
                    && request.message().map(Blob::as_ref) == Some(digest.as_slice())
            })
            .then_output(move || SignOutput::builder().signature(Blob::new(signature.clone())).build());
        let client = mock_client!(aws_sdk_kms, [&says(&there, KeyUsageType::SignVerify), &sign]);
        let signer = KmsSigner::open(client, "alias/ca").await.unwrap();
        assert_eq!(signer.public_key(), there.public_key());
        let signature = signer.sign(&bytes).await.unwrap();
        assert!(signer.algorithm().verifies(there.public_key(), &bytes, &signature));
    }
}

#[tokio::test]
async fn a_throttle_is_asked_again_and_a_key_that_is_off_is_not() {
    for (code, is_for_now) in [
        ("ThrottlingException", true),
        ("KMSInternalException", true),
        ("KeyUnavailableException", true),
        ("DependencyTimeoutException", true),
        ("DisabledException", false),
        ("KMSInvalidStateException", false),
        ("AccessDeniedException", false),
        ("InvalidKeyUsageException", false),
    ] {
        let there = LocalSigner::generate(Curve::P256).unwrap();
        let client = mock_client!(aws_sdk_kms, [&says(&there, KeyUsageType::SignVerify), &fails(code)]);
        let error = KmsSigner::open(client, "alias/ca").await.unwrap().sign(b"bytes").await.unwrap_err();
        assert_eq!(error.is_for_now(), is_for_now, "{code}: {error}");
        assert!(matches!(error, SignerError::Refused { .. }) != is_for_now);
    }
}

#[tokio::test]
async fn a_key_that_does_not_sign_is_no_cas() {
    let there = LocalSigner::generate(Curve::P256).unwrap();
    let client = mock_client!(aws_sdk_kms, [&says(&there, KeyUsageType::KeyAgreement)]);
    assert!(matches!(KmsSigner::open(client, "alias/ca").await, Err(KmsKeyError::Usage)));
}
