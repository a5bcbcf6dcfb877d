//! The CAs at AWS IoT, against the service's documented answers.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use aws_sdk_iot::Client;
use aws_sdk_iot::error::ErrorMetadata;
use aws_sdk_iot::operation::describe_ca_certificate::{DescribeCACertificateError, DescribeCaCertificateOutput};
use aws_sdk_iot::operation::get_registration_code::GetRegistrationCodeOutput;
use aws_sdk_iot::operation::list_ca_certificates::ListCaCertificatesOutput;
use aws_sdk_iot::operation::register_ca_certificate::{RegisterCACertificateError, RegisterCaCertificateOutput};
use aws_sdk_iot::operation::update_ca_certificate::UpdateCaCertificateOutput;
use aws_sdk_iot::primitives::DateTime;
use aws_sdk_iot::types::error::{LimitExceededException, ResourceAlreadyExistsException, ResourceNotFoundException};
use aws_sdk_iot::types::{
    AutoRegistrationStatus, CaCertificate, CaCertificateDescription, CaCertificateStatus, CertificateMode,
    CertificateValidity, RegistrationConfig,
};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use cvm_aws::{CertificateAuthorities, CertificateAuthority, JustInTimeProvisioning, Registration};
use cvm_provisioning::{Certificate, CertificateId, PlatformError, Timestamp};
use cvm_testkit::MemoryPlatform;
use cvm_testkit::fixture::csr;

const ROLE: &str = "arn:aws:iam::123456789012:role/jitp";

fn id(text: &str) -> CertificateId {
    CertificateId::of(text.as_bytes())
}

fn provisioning() -> JustInTimeProvisioning {
    JustInTimeProvisioning { template: Some("fleet".parse().unwrap()), role_arn: ROLE.to_owned() }
}

/// An active CA without a template.
fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority {
        id: id(name),
        is_active: true,
        auto_registration: true,
        provisioning: None,
        not_before: Some(Timestamp::from_seconds(1_000)),
        not_after: Some(Timestamp::from_seconds(2_000)),
        pem: None,
    }
}

fn described(authority: &CertificateAuthority) -> Rule {
    let (wanted, authority) = (authority.id.to_string(), authority.clone());
    mock!(Client::describe_ca_certificate)
        .match_requests(move |request| request.certificate_id() == Some(wanted.as_str()))
        .then_output(move || {
            let validity = CertificateValidity::builder()
                .not_before(DateTime::from_secs(1_000))
                .not_after(DateTime::from_secs(2_000));
            let (active, automatic) = (authority.is_active, authority.auto_registration);
            let description = CaCertificateDescription::builder()
                .status(if active { CaCertificateStatus::Active } else { CaCertificateStatus::Inactive })
                .auto_registration_status(if automatic {
                    AutoRegistrationStatus::Enable
                } else {
                    AutoRegistrationStatus::Disable
                })
                .validity(validity.build());
            let mut config = RegistrationConfig::builder();
            if let Some(provisioning) = &authority.provisioning {
                config = config.template_name("fleet").role_arn(&provisioning.role_arn);
            }
            DescribeCaCertificateOutput::builder()
                .certificate_description(description.build())
                .registration_config(config.build())
                .build()
        })
}

fn unknown() -> Rule {
    mock!(Client::describe_ca_certificate).then_error(|| {
        let code = ErrorMetadata::builder().code("ResourceNotFoundException").build();
        DescribeCACertificateError::ResourceNotFoundException(ResourceNotFoundException::builder().meta(code).build())
    })
}

async fn certificate() -> Certificate {
    MemoryPlatform::default().issue(&csr("sn-1")).await.unwrap().certificate
}

#[tokio::test]
async fn a_ca_is_described_with_all_that_it_is_configured_for() {
    let found = CertificateAuthority { provisioning: Some(provisioning()), ..authority("a") };
    for ca in [authority("a"), found, CertificateAuthority { is_active: false, ..authority("a") }] {
        let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, [&described(&ca)]));
        assert_eq!(authorities.find(&ca.id).await.unwrap(), Some(ca));
    }
    let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, [&unknown()]));
    assert_eq!(authorities.find(&id("a")).await.unwrap(), None);
}

#[tokio::test]
async fn every_page_is_listed_and_each_ca_described() {
    let listed = |name: &'static str, marker: Option<&'static str>, next: Option<&'static str>| {
        mock!(Client::list_ca_certificates).match_requests(move |request| request.marker() == marker).then_output(
            move || {
                let certificate = CaCertificate::builder().certificate_id(id(name).to_string());
                ListCaCertificatesOutput::builder()
                    .certificates(certificate.build())
                    .set_next_marker(next.map(str::to_owned))
                    .build()
            },
        )
    };
    let rules = [
        listed("a", None, Some("more")),
        described(&authority("a")),
        listed("b", Some("more"), None),
        described(&authority("b")),
    ];
    let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, rules.iter().collect::<Vec<_>>()));
    let first = authorities.list(None).await.unwrap();
    assert_eq!(first.authorities, [authority("a")]);
    let second = authorities.list(first.next).await.unwrap();
    assert_eq!((second.authorities, second.next), (vec![authority("b")], None));
}

#[tokio::test]
async fn a_ca_is_registered_with_the_proof_that_its_key_is_at_hand() {
    let certificate = certificate().await;
    let code = mock!(Client::get_registration_code)
        .then_output(|| GetRegistrationCodeOutput::builder().registration_code("c0de").build());
    let sent = certificate.pem().to_owned();
    let register = mock!(Client::register_ca_certificate)
        .match_requests(move |request| {
            let config = request.registration_config();
            request.ca_certificate() == Some(sent.as_str())
                && request.verification_certificate() == Some("proof")
                && request.certificate_mode() == Some(&CertificateMode::Default)
                && (request.set_as_active(), request.allow_auto_registration()) == (Some(true), Some(true))
                && config.and_then(RegistrationConfig::template_name) == Some("fleet")
                && config.and_then(RegistrationConfig::role_arn) == Some(ROLE)
        })
        .then_output(|| RegisterCaCertificateOutput::builder().build());
    let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, [&code, &register]));
    assert_eq!(authorities.registration_code().await.unwrap(), "c0de");
    let registration = Registration { is_active: true, provisioning: Some(provisioning()) };
    assert!(authorities.register(&certificate, "proof", &registration).await.unwrap());
}

#[tokio::test]
async fn a_ca_that_is_there_is_no_error_and_one_that_is_refused_is() {
    let registration = Registration { is_active: true, provisioning: None };
    let there = mock!(Client::register_ca_certificate).then_error(|| {
        let code = ErrorMetadata::builder().code("ResourceAlreadyExistsException").build();
        let exists = ResourceAlreadyExistsException::builder().meta(code).build();
        RegisterCACertificateError::ResourceAlreadyExistsException(exists)
    });
    let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, [&there]));
    assert!(!authorities.register(&certificate().await, "proof", &registration).await.unwrap());

    let full = mock!(Client::register_ca_certificate).then_error(|| {
        let code = ErrorMetadata::builder().code("LimitExceededException").build();
        RegisterCACertificateError::LimitExceededException(LimitExceededException::builder().meta(code).build())
    });
    let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, RuleMode::MatchAny, [&full]));
    let refused = authorities.register(&certificate().await, "proof", &registration).await;
    assert!(matches!(refused, Err(PlatformError::Throttled { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_ca_is_changed_only_where_it_differs() {
    let update = |remove: Option<bool>, active: Option<CaCertificateStatus>, template: Option<&'static str>| {
        mock!(Client::update_ca_certificate)
            .match_requests(move |request| {
                request.remove_auto_registration() == remove
                    && request.new_status() == active.as_ref()
                    && request.registration_config().and_then(RegistrationConfig::template_name) == template
                    && (remove.is_some()
                        || request.new_auto_registration_status() == Some(&AutoRegistrationStatus::Enable))
            })
            .then_output(|| UpdateCaCertificateOutput::builder().build())
    };
    let with_template = CertificateAuthority { provisioning: Some(provisioning()), ..authority("a") };
    let inactive = CertificateAuthority { is_active: false, ..authority("a") };
    let plain = Registration { is_active: true, provisioning: None };
    let templated = Registration { is_active: true, provisioning: Some(provisioning()) };
    for (found, wanted, rules) in [
        (authority("a"), &plain, vec![]),
        (with_template.clone(), &templated, vec![]),
        (inactive, &plain, vec![update(None, Some(CaCertificateStatus::Active), None)]),
        (authority("a"), &templated, vec![update(None, Some(CaCertificateStatus::Active), Some("fleet"))]),
        (
            with_template,
            &plain,
            vec![update(Some(true), None, None), update(None, Some(CaCertificateStatus::Active), None)],
        ),
    ] {
        let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, rules.iter().collect::<Vec<_>>()));
        assert_eq!(authorities.update(&found, wanted).await.unwrap(), !rules.is_empty());
        assert!(rules.iter().all(|rule| rule.num_calls() == 1));
    }
}

#[tokio::test]
async fn a_deactivated_ca_takes_no_new_certificates() {
    let update = mock!(Client::update_ca_certificate)
        .match_requests(|request| {
            request.new_status() == Some(&CaCertificateStatus::Inactive)
                && request.new_auto_registration_status() == Some(&AutoRegistrationStatus::Disable)
                && request.remove_auto_registration().is_none()
        })
        .then_output(|| UpdateCaCertificateOutput::builder().build());
    let authorities = CertificateAuthorities::new(mock_client!(aws_sdk_iot, [&update]));
    authorities.deactivate(&id("a")).await.unwrap();
}
