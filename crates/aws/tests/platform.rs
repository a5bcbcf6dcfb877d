//! AWS IoT as the platform, against the service's documented answers.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use aws_sdk_iot::Client;
use aws_sdk_iot::error::ErrorMetadata;
use aws_sdk_iot::operation::attach_policy::{AttachPolicyError, AttachPolicyOutput};
use aws_sdk_iot::operation::attach_thing_principal::AttachThingPrincipalOutput;
use aws_sdk_iot::operation::create_certificate_from_csr::CreateCertificateFromCsrOutput;
use aws_sdk_iot::operation::create_thing::{CreateThingError, CreateThingOutput};
use aws_sdk_iot::operation::delete_certificate::DeleteCertificateError;
use aws_sdk_iot::operation::describe_certificate::DescribeCertificateOutput;
use aws_sdk_iot::operation::describe_thing::DescribeThingOutput;
use aws_sdk_iot::operation::detach_thing_principal::DetachThingPrincipalOutput;
use aws_sdk_iot::operation::list_certificates::ListCertificatesOutput;
use aws_sdk_iot::operation::list_thing_principals::ListThingPrincipalsOutput;
use aws_sdk_iot::operation::register_certificate_without_ca::{
    RegisterCertificateWithoutCAError, RegisterCertificateWithoutCaOutput,
};
use aws_sdk_iot::operation::update_certificate::{UpdateCertificateError, UpdateCertificateOutput};
use aws_sdk_iot::operation::update_thing::UpdateThingOutput;
use aws_sdk_iot::primitives::DateTime;
use aws_sdk_iot::types::error::{
    DeleteConflictException, ResourceAlreadyExistsException, ResourceNotFoundException, ThrottlingException,
};
use aws_sdk_iot::types::{Certificate as AwsCertificate, CertificateDescription, CertificateStatus};
use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
use cvm_aws::AwsIot;
use cvm_provisioning::{
    Csr, Inventory, IssuedCertificate, Override, Platform, PlatformError, RegisteredCertificate, Standing, Thing,
};
use cvm_testkit::MemoryPlatform;
use cvm_testkit::fixture::{csr, device, templates};

const ARN: &str = "arn:aws:iot:eu-central-1:123456789012:cert/abc";

/// The thing that the test template makes of `sn-1`.
fn thing() -> Thing {
    templates().evaluate(&device("sn-1"), &std::collections::BTreeMap::new()).unwrap().thing
}

async fn certificate(csr: &Csr) -> IssuedCertificate {
    MemoryPlatform::default().issue(csr).await.unwrap()
}

fn existing_thing() -> Rule {
    mock!(Client::create_thing).match_requests(|request| request.thing_name() == Some("sn-1")).then_error(|| {
        CreateThingError::ResourceAlreadyExistsException(ResourceAlreadyExistsException::builder().build())
    })
}

fn described(site: &'static str) -> Rule {
    mock!(Client::describe_thing)
        .then_output(move || DescribeThingOutput::builder().thing_name("sn-1").attributes("site", site).build())
}

#[tokio::test]
async fn a_certificate_is_made_active_from_the_csr_as_it_was_read() {
    let key = csr("sn-1");
    let (issued, sent) = (certificate(&key).await, key.pem().to_owned());
    let pem = issued.certificate.pem().to_owned();
    let create = mock!(Client::create_certificate_from_csr)
        .match_requests(move |request| {
            request.certificate_signing_request() == Some(sent.as_str()) && request.set_as_active() == Some(true)
        })
        .then_output(move || {
            CreateCertificateFromCsrOutput::builder().certificate_arn(ARN).certificate_pem(pem.clone()).build()
        });
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, [&create]));
    let made = platform.issue(&key, &"sn-1".to_owned().try_into().unwrap()).await.unwrap();
    assert_eq!(made, IssuedCertificate { name: ARN.to_owned(), ..issued });
    assert_eq!(create.num_calls(), 1);
}

#[tokio::test]
async fn a_certificate_that_is_registered_again_is_let_in_again() {
    let issued = certificate(&csr("sn-1")).await.certificate;
    let (pem, id) = (issued.pem().to_owned(), issued.id().to_string());
    let sent = pem.clone();
    let register = mock!(Client::register_certificate_without_ca)
        .match_requests(move |request| {
            request.certificate_pem() == Some(sent.as_str()) && request.status() == Some(&CertificateStatus::Active)
        })
        .sequence()
        .output(|| RegisterCertificateWithoutCaOutput::builder().build())
        .error(|| {
            let code = ErrorMetadata::builder().code("ResourceAlreadyExistsException").build();
            let exists = ResourceAlreadyExistsException::builder().meta(code).build();
            RegisterCertificateWithoutCAError::ResourceAlreadyExistsException(exists)
        })
        .build();
    let activate = mock!(Client::update_certificate)
        .match_requests(move |request| {
            request.certificate_id() == Some(id.as_str()) && request.new_status() == Some(&CertificateStatus::Active)
        })
        .then_output(|| UpdateCertificateOutput::builder().build());
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::MatchAny, [&register, &activate]));
    for activations in [0, 1] {
        platform.register(&pem).await.unwrap();
        assert_eq!(activate.num_calls(), activations);
    }
}

#[tokio::test]
async fn threat_44_a_thing_that_is_there_counts_only_if_it_is_the_same() {
    for (site, same) in [("nowhere", true), ("elsewhere", false)] {
        let platform = AwsIot::new(mock_client!(aws_sdk_iot, [&existing_thing(), &described(site)]));
        let result = platform.ensure_thing(&thing()).await;
        assert_eq!(result.is_ok(), same, "{site}");
        assert!(same || matches!(result, Err(PlatformError::Refused { .. })));
    }
}

#[tokio::test]
async fn override_settings_say_what_becomes_of_a_thing_that_differs() {
    for (setting, merge) in
        [(Override::DoNothing, None), (Override::Merge, Some(true)), (Override::Replace, Some(false))]
    {
        let (create, describe) = (existing_thing(), described("elsewhere"));
        let update = mock!(Client::update_thing)
            .match_requests(move |request| {
                let payload = request.attribute_payload();
                payload.and_then(|payload| payload.attributes()?.get("site")).map(String::as_str) == Some("nowhere")
                    && payload.map(|payload| payload.merge()) == merge
            })
            .then_output(|| UpdateThingOutput::builder().build());
        let mut thing = thing();
        thing.override_settings.attribute_payload = setting;
        let platform = AwsIot::new(mock_client!(aws_sdk_iot, [&create, &describe, &update]));
        platform.ensure_thing(&thing).await.unwrap();
        assert_eq!(update.num_calls(), usize::from(merge.is_some()), "{setting:?}");
    }
}

#[tokio::test]
async fn threat_43_a_throttle_is_known_by_its_code_and_not_by_its_status() {
    let throttle = mock!(Client::attach_policy).then_error(|| {
        let code = ErrorMetadata::builder().code("ThrottlingException").build();
        AttachPolicyError::ThrottlingException(ThrottlingException::builder().meta(code).build())
    });
    let resources = templates().evaluate(&device("sn-1"), &std::collections::BTreeMap::new()).unwrap();
    let cvm_provisioning::Policy::Name(policy) = &resources.policies[0] else { panic!("the template names a policy") };
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::MatchAny, [&throttle]));
    assert!(matches!(platform.attach_policy(policy, ARN).await, Err(PlatformError::Throttled { .. })));

    let missing = mock!(Client::attach_policy).then_error(|| {
        let code = ErrorMetadata::builder().code("ResourceNotFoundException").build();
        AttachPolicyError::ResourceNotFoundException(ResourceNotFoundException::builder().meta(code).build())
    });
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::MatchAny, [&missing]));
    assert!(matches!(platform.attach_policy(policy, ARN).await, Err(PlatformError::Refused { .. })));
}

#[tokio::test]
async fn only_active_certificates_of_the_thing_are_found() {
    let issued = certificate(&csr("sn-1")).await;
    let pem = issued.certificate.pem().to_owned();
    let list = mock!(Client::list_thing_principals).then_output(|| {
        ListThingPrincipalsOutput::builder()
            .principals(format!("{ARN}1"))
            .principals("eu-central-1:some-cognito-identity")
            .principals(format!("{ARN}2"))
            .build()
    });
    let describe = |id: &'static str, status: CertificateStatus| {
        let pem = pem.clone();
        mock!(Client::describe_certificate)
            .match_requests(move |request| request.certificate_id() == Some(id))
            .then_output(move || {
                let description = CertificateDescription::builder()
                    .certificate_arn(format!("arn:aws:iot:eu-central-1:123456789012:cert/{id}"))
                    .certificate_pem(pem.clone())
                    .status(status.clone());
                DescribeCertificateOutput::builder().certificate_description(description.build()).build()
            })
    };
    let (active, inactive) =
        (describe("abc1", CertificateStatus::Active), describe("abc2", CertificateStatus::Inactive));
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::MatchAny, [&list, &active, &inactive]));
    let found = platform.certificates_of(&thing().name).await.unwrap();
    let issued = IssuedCertificate { name: format!("{ARN}1"), ..issued };
    assert_eq!(found, [RegisteredCertificate { issued, ca: None, standing: Standing::Active }]);
}

#[tokio::test]
async fn the_youngest_certificates_come_first() {
    let listed = |digit: &str, seconds| {
        AwsCertificate::builder()
            .certificate_id(digit.repeat(64))
            .status(CertificateStatus::Active)
            .creation_date(DateTime::from_secs(seconds))
            .build()
    };
    let list = mock!(Client::list_certificates).then_output(move || {
        let page = ListCertificatesOutput::builder().certificates(listed("a", 1)).certificates(listed("b", 3));
        page.certificates(listed("c", 2)).next_marker("more").build()
    });
    let page = AwsIot::new(mock_client!(aws_sdk_iot, [&list])).certificates(None, 250).await.unwrap();
    let created: Vec<_> = page.items.iter().map(|certificate| certificate.created_at.seconds()).collect();
    assert_eq!((created, page.next.as_deref()), (vec![3, 2, 1], Some("more")));
}

#[tokio::test]
async fn a_certificate_loses_its_power_first_and_may_linger_without_it() {
    let deactivate = mock!(Client::update_certificate)
        .match_requests(|request| {
            request.certificate_id() == Some("abc") && request.new_status() == Some(&CertificateStatus::Inactive)
        })
        .then_output(|| UpdateCertificateOutput::builder().build());
    let detach = mock!(Client::detach_thing_principal)
        .match_requests(|request| request.principal() == Some(ARN))
        .then_output(|| DetachThingPrincipalOutput::builder().build());
    let delete = mock!(Client::delete_certificate)
        .match_requests(|request| request.force_delete() == Some(true))
        .then_error(|| DeleteCertificateError::DeleteConflictException(DeleteConflictException::builder().build()));
    // The default mode holds the calls to this order.
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, [&deactivate, &detach, &delete]));
    platform.retire(&thing().name, ARN).await.unwrap();
    assert_eq!([deactivate.num_calls(), detach.num_calls(), delete.num_calls()], [1, 1, 1]);

    let gone = mock!(Client::update_certificate).then_error(|| {
        let code = ErrorMetadata::builder().code("ResourceNotFoundException").build();
        UpdateCertificateError::ResourceNotFoundException(ResourceNotFoundException::builder().meta(code).build())
    });
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, [&gone]));
    platform.retire(&thing().name, ARN).await.unwrap();
}

#[tokio::test]
async fn what_a_fresh_vend_asks_of_the_platform_is_one_call_each() {
    let key = csr("sn-1");
    let pem = certificate(&key).await.certificate.pem().to_owned();
    let create = mock!(Client::create_certificate_from_csr).then_output(move || {
        CreateCertificateFromCsrOutput::builder().certificate_arn(ARN).certificate_pem(pem.clone()).build()
    });
    let thing_made = mock!(Client::create_thing).then_output(|| CreateThingOutput::builder().build());
    let attach = mock!(Client::attach_thing_principal)
        .match_requests(|request| request.principal() == Some(ARN) && request.thing_principal_type().is_none())
        .then_output(|| AttachThingPrincipalOutput::builder().build());
    let policy = mock!(Client::attach_policy)
        .match_requests(|request| request.target() == Some(ARN) && request.policy_name() == Some("device"))
        .then_output(|| AttachPolicyOutput::builder().build());
    let rules = [&create, &thing_made, &attach, &policy];
    let platform = AwsIot::new(mock_client!(aws_sdk_iot, RuleMode::MatchAny, rules));

    let registry = cvm_testkit::MemoryRegistry::default();
    let vend = cvm_testkit::scenario::World::new(registry, device("sn-1")).await.vend_on(platform);
    let request = cvm_testkit::fixture::request("sn-1", 1, Some(&key), cvm_testkit::fixture::NOW);
    vend.vend(request).await.unwrap();
    assert_eq!(rules.map(Rule::num_calls), [1, 1, 1, 1]);
}
