//! Claim certificates on AWS IoT, against the service's documented answers.

use aws_sdk_iot::Client;
use aws_sdk_iot::error::ErrorMetadata;
use aws_sdk_iot::operation::create_certificate_from_csr::CreateCertificateFromCsrOutput;
use aws_sdk_iot::operation::update_certificate::{UpdateCertificateError, UpdateCertificateOutput};
use aws_sdk_iot::types::CertificateStatus;
use aws_sdk_iot::types::error::{CertificateStateException, ResourceNotFoundException};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use cvm_aws::AwsIot;
use cvm_provisioning::{CertificateId, IssuedCertificate, PlatformError};
use cvm_testkit::MemoryPlatform;
use cvm_testkit::fixture::csr;

const ARN: &str = "arn:aws:iot:eu-central-1:123456789012:cert/abc";

/// The service takes this status for this certificate.
fn takes(id: CertificateId, status: CertificateStatus) -> Rule {
    mock!(Client::update_certificate)
        .match_requests(move |request| {
            request.certificate_id() == Some(id.to_string().as_str()) && request.new_status() == Some(&status)
        })
        .then_output(|| UpdateCertificateOutput::builder().build())
}

fn refuses(status: CertificateStatus, error: impl Fn() -> UpdateCertificateError + Send + Sync + 'static) -> Rule {
    mock!(Client::update_certificate)
        .match_requests(move |request| request.new_status() == Some(&status))
        .then_error(error)
}

fn wrong_state() -> UpdateCertificateError {
    let code = ErrorMetadata::builder().code("CertificateStateException").build();
    UpdateCertificateError::CertificateStateException(CertificateStateException::builder().meta(code).build())
}

fn gone() -> UpdateCertificateError {
    let code = ErrorMetadata::builder().code("ResourceNotFoundException").build();
    UpdateCertificateError::ResourceNotFoundException(ResourceNotFoundException::builder().meta(code).build())
}

#[tokio::test]
async fn a_claim_certificate_is_not_let_in_when_it_is_made() {
    let csr = csr("claim");
    let issued = MemoryPlatform::default().issue(&csr).await.unwrap();
    let pem = issued.certificate.pem().to_owned();
    let create = mock!(Client::create_certificate_from_csr)
        .match_requests(|request| request.set_as_active() == Some(false))
        .then_output(move || {
            CreateCertificateFromCsrOutput::builder().certificate_arn(ARN).certificate_pem(pem.clone()).build()
        });
    let iot = AwsIot::new(mock_client!(aws_sdk_iot, [&create]));
    assert_eq!(iot.issue_inactive(&csr).await.unwrap(), IssuedCertificate { name: ARN.to_owned(), ..issued });
}

#[tokio::test]
async fn threat_11_a_certificate_is_shut_out_before_it_is_revoked() {
    let id = CertificateId::of(b"claim");
    let steps = [takes(id, CertificateStatus::Inactive), takes(id, CertificateStatus::Revoked)];
    let iot = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::Sequential, [&steps[0], &steps[1]]));
    assert!(iot.revoke(&id).await.unwrap());
    assert_eq!(steps.map(|step| step.num_calls()), [1, 1]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_deactivated_is_still_revoked() {
    let id = CertificateId::of(b"claim");
    let steps = [refuses(CertificateStatus::Inactive, wrong_state), takes(id, CertificateStatus::Revoked)];
    let iot = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::Sequential, [&steps[0], &steps[1]]));
    assert!(iot.revoke(&id).await.unwrap());

    let steps = [takes(id, CertificateStatus::Inactive), refuses(CertificateStatus::Revoked, wrong_state)];
    let iot = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::Sequential, [&steps[0], &steps[1]]));
    assert!(matches!(iot.revoke(&id).await, Err(PlatformError::Refused { action: "revoke a certificate", .. })));
}

#[tokio::test]
async fn a_certificate_that_is_not_there_needs_no_revocation() {
    let iot = AwsIot::new(mock_client!(aws_sdk_iot, [&refuses(CertificateStatus::Inactive, gone)]));
    assert!(!iot.revoke(&CertificateId::of(b"claim")).await.unwrap());
}
