//! The doors that the platform opens: first connections, claims, and what is done when nobody comes back.

#![expect(clippy::large_futures, clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use cvm_provisioning::{
    Admission, Attestation, Certificate, CertificateId, Changes as _, Claim, ClaimError, ClaimRequest, ClaimStore as _,
    ClientIds, Device, Door, FirstConnectError, KeyOrigin, Origin, RefusedCertificates, RefusedKeys, Standing, State,
    Status, Timestamp,
};
use cvm_testkit::fixture::{NOW, csr, device, id, later, origin, request};
use cvm_testkit::scenario::claims::{self, claimed_device, question};
use cvm_testkit::scenario::first_connect::{self, connection, registration};
use cvm_testkit::scenario::{World, reconcile};
use cvm_testkit::{Factory, Fault, MemoryRegistry, Script};

mod first_connections {
    use super::*;

    #[tokio::test]
    async fn threat_43_a_registration_that_fails_anywhere_ends_with_one_certificate_in_power() {
        first_connect::fault_matrix(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn threat_04_a_clone_never_joins() {
        first_connect::a_clone_never_joins(MemoryRegistry::default).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn threat_47_an_event_delivered_fifty_times_at_once_is_one_registration() {
        first_connect::fifty_deliveries_at_once(MemoryRegistry::default()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_is_seven_calls_in_six_steps_and_a_duplicate_is_one() {
        let factory = Factory::new("factory");
        let (device, certificate) = factory.device("sn-1");
        let world = World::new(MemoryRegistry::default(), device).await;
        world.show(&certificate, &factory);
        for (calls, steps, expected) in [(7, 6, Admission::Admitted), (1, 1, Admission::Ignored)] {
            let script = Script::paced(Duration::from_secs(1));
            let start = tokio::time::Instant::now();
            let admitted = world.first_connect(&script).admit(registration(&certificate, &factory, NOW)).await;
            assert_eq!(admitted.unwrap(), expected);
            assert_eq!((script.calls(), start.elapsed().as_secs()), (calls, steps));
        }
    }

    /// What becomes of a first connection with `certificate` of a device that is registered as `device`.
    async fn admission(device: Device, certificate: &Certificate, factory: &Factory) -> (Admission, Option<Standing>) {
        let world = World::new(MemoryRegistry::default(), device).await;
        world.show(certificate, factory);
        let door = world.first_connect(&Script::default());
        let admission = door.admit(registration(certificate, factory, NOW)).await.unwrap();
        (admission, world.platform.standing(certificate.id()))
    }

    #[tokio::test]
    async fn threat_49_what_the_registry_item_does_not_accept_stays_without_power() {
        let (factory, foreign) = (Factory::new("factory"), Factory::new("foreign factory"));
        let (registered, certificate) = factory.device("sn-1");
        let by = |attestation| Device { attestation, ..registered.clone() };
        let powerless = (Admission::Refused, Some(Standing::Pending));
        let admitted = (Admission::Admitted, Some(Standing::Active));
        let other = CertificateId::of(b"another");
        let mut disabled = registered.clone();
        disabled.disable("stolen".parse().ok(), NOW);
        for (device, certificate, factory, expected) in [
            (registered.clone(), &certificate, &factory, admitted),
            (by(Attestation::Certificate { id: *certificate.id(), second: None }), &certificate, &factory, admitted),
            (by(Attestation::PublicKey { key: *certificate.key() }), &certificate, &factory, admitted),
            (by(Attestation::Certificate { id: other, second: None }), &certificate, &factory, powerless),
            (by(Attestation::Claim { certificate: None }), &certificate, &factory, powerless),
            (device("sn-1"), &certificate, &factory, powerless),
            (device("sn-2"), &certificate, &factory, powerless),
            (disabled, &certificate, &factory, powerless),
            (registered.clone(), &foreign.made("sn-1"), &foreign, powerless),
            (registered.clone(), &factory.certificate("not an id", &csr("sn-1")), &factory, powerless),
        ] {
            assert_eq!(admission(device.clone(), certificate, factory).await, expected, "{device:?}");
        }
    }

    #[tokio::test]
    async fn threat_47_an_event_that_is_late_or_forged_changes_nothing() {
        let factory = Factory::new("factory");
        let (registered, certificate) = factory.device("sn-1");
        for standing in [Standing::Active, Standing::Inactive, Standing::Revoked] {
            let world = World::new(MemoryRegistry::default(), registered.clone()).await;
            world.platform.register(&certificate, Some(factory.ca), standing);
            let door = world.first_connect(&Script::default());
            assert_eq!(door.admit(registration(&certificate, &factory, NOW)).await.unwrap(), Admission::Ignored);
            assert_eq!(world.platform.standing(certificate.id()), Some(standing));
            assert_eq!(world.stored("sn-1").await, registered);
        }
        // The event names a CA of ours; the platform knows better.
        let (world, foreign) = (World::new(MemoryRegistry::default(), registered).await, Factory::new("foreign"));
        let forged = foreign.made("sn-1");
        world.show(&forged, &foreign);
        let mut door = world.first_connect(&Script::default());
        door.refused_certificates = RefusedCertificates::Revoke;
        assert_eq!(door.admit(registration(&forged, &factory, NOW)).await.unwrap(), Admission::Refused);
        assert!(world.audit.take().concat().contains("other-ca"));
        assert_eq!(world.platform.standing(forged.id()), Some(Standing::Pending), "a forged event revokes nothing");
        let gone = registration(&factory.made("sn-1"), &factory, NOW);
        assert_eq!(door.admit(gone).await.unwrap(), Admission::Ignored);
        assert_eq!(world.platform.powerful(), []);
    }

    #[tokio::test]
    async fn threat_29_a_factory_certificate_that_has_expired_gets_no_power() {
        let factory = Factory::new("factory");
        let (registered, certificate) = factory.device("sn-1");
        let last = Timestamp::from(certificate.not_after());
        for (now, expected) in [(last, Admission::Admitted), (last.after(Duration::from_secs(1)), Admission::Refused)] {
            let world = World::new(MemoryRegistry::default(), registered.clone()).await;
            world.show(&certificate, &factory);
            let door = world.first_connect(&Script::default());
            assert_eq!(door.admit(registration(&certificate, &factory, now)).await.unwrap(), expected);
            assert_eq!(world.audit.take().concat().contains("certificate-expired"), expected == Admission::Refused);
        }
    }

    #[tokio::test]
    async fn a_refused_certificate_goes_as_far_as_it_was_configured_to() {
        let factory = Factory::new("factory");
        for (choice, unknown, disabled) in [
            (RefusedCertificates::Leave, Standing::Pending, Standing::Pending),
            (RefusedCertificates::Deactivate, Standing::Inactive, Standing::Pending),
            (RefusedCertificates::Revoke, Standing::Revoked, Standing::Pending),
        ] {
            let (mut registered, certificate) = factory.device("sn-1");
            registered.disable("on hold".parse().ok(), NOW);
            let stranger = factory.made("stranger");
            let world = World::new(MemoryRegistry::default(), registered).await;
            let mut door = world.first_connect(&Script::default());
            door.refused_certificates = choice;
            for (certificate, expected) in [(&stranger, unknown), (&certificate, disabled)] {
                world.show(certificate, &factory);
                let admitted = door.admit(registration(certificate, &factory, NOW)).await.unwrap();
                assert_eq!(admitted, Admission::Refused);
                assert_eq!(world.platform.standing(certificate.id()), Some(expected), "{choice:?}");
            }
        }
    }

    #[tokio::test]
    async fn threat_20_a_refused_key_stays_without_power() {
        let factory = Factory::new("factory");
        let (registered, certificate) = factory.device("sn-1");
        let world = World::new(MemoryRegistry::default(), registered).await;
        world.show(&certificate, &factory);
        let mut door = world.first_connect(&Script::default());
        door.refused_keys = RefusedKeys::from_iter([*certificate.key()]);
        assert_eq!(door.admit(registration(&certificate, &factory, NOW)).await.unwrap(), Admission::Refused);
        assert_eq!(world.platform.powerful(), []);
    }

    #[tokio::test]
    async fn threat_49_junk_of_one_ca_costs_three_calls_each_and_makes_nothing() {
        let factory = Factory::new("factory");
        let (registered, _) = factory.device("sn-1");
        let world = World::new(MemoryRegistry::default(), registered).await;
        for number in 0..20 {
            let junk = factory.made(&format!("junk-{number}"));
            world.show(&junk, &factory);
            let script = Script::default();
            assert_eq!(
                world.first_connect(&script).admit(registration(&junk, &factory, NOW)).await.unwrap(),
                Admission::Refused
            );
            assert_eq!(script.calls(), 3);
        }
        assert_eq!((world.platform.things().len(), world.platform.active()), (0, 0));
    }

    #[tokio::test]
    async fn another_certificate_waits_for_the_first_ones_lease() {
        let factory = Factory::new("factory");
        let (registered, certificate) = factory.device("sn-1");
        let world = World::new(MemoryRegistry::default(), registered).await;
        let clone = factory.made("sn-1");
        for shown in [&certificate, &clone] {
            world.show(shown, &factory);
        }
        let door = world.first_connect(&Script::default());
        assert_eq!(door.admit(registration(&certificate, &factory, NOW)).await.unwrap(), Admission::Admitted);
        let waits = door.admit(registration(&clone, &factory, later(5))).await;
        assert!(matches!(waits, Err(FirstConnectError::InProgress { until }) if until == later(30)), "{waits:?}");
    }

    #[tokio::test]
    async fn threat_48_yes_no_yes_no_in_one_process() {
        let factory = Factory::new("factory");
        let world = World::new(MemoryRegistry::default(), factory.device("sn-1").0).await;
        world.registry.add(&factory.device("sn-3").0, &origin()).await.unwrap();
        let door = world.first_connect(&Script::default());
        for (name, expected) in [
            ("sn-1", Admission::Admitted),
            ("sn-2", Admission::Refused),
            ("sn-3", Admission::Admitted),
            ("sn-4", Admission::Refused),
        ] {
            let certificate = factory.made(name);
            world.show(&certificate, &factory);
            assert_eq!(door.admit(registration(&certificate, &factory, NOW)).await.unwrap(), expected, "{name}");
        }
    }
}

mod hook {
    use super::*;

    #[tokio::test]
    async fn a_hook_that_fails_anywhere_blocks_nobody_and_counts_once() {
        claims::fault_matrix(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_lost_answer_bricks_nobody() {
        claims::a_lost_answer_bricks_nobody(MemoryRegistry::default()).await;
    }

    #[tokio::test]
    async fn a_failed_provisioning_blocks_nobody() {
        claims::a_failed_provisioning_blocks_nobody(MemoryRegistry::default()).await;
    }

    #[tokio::test]
    async fn threat_04_a_clone_claims_nothing() {
        claims::a_clone_claims_nothing(MemoryRegistry::default()).await;
    }

    #[tokio::test]
    async fn threat_04_the_first_to_connect_stays() {
        claims::the_first_to_connect_stays(MemoryRegistry::default()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_is_a_read_and_a_write_a_duplicate_is_a_read() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
        for calls in [2, 1] {
            let script = Script::default();
            assert!(world.hook(&script).answer(&question(&certificate, &claim, NOW)).await.is_ok());
            assert_eq!(script.calls(), calls);
        }
    }

    #[tokio::test]
    async fn threat_15_all_that_is_said_about_a_device_agrees() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
        let good = || question(&certificate, &claim, NOW);
        let with = |parameters: &[(&str, &str)]| {
            let owned = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect::<BTreeMap<_, _>>()
        };
        let named = |name| Factory::new("x").certificate(name, &csr("sn-1"));
        let of = |certificate: &Certificate| {
            let mut question = question(certificate, &claim, NOW);
            question.pem = certificate.pem().to_owned();
            question
        };
        let hook = world.hook(&Script::default());
        for (bad, reason) in [
            (cvm_provisioning::ProvisioningRequest { claim: None, ..good() }, "no-claim"),
            (
                cvm_provisioning::ProvisioningRequest { template: "foreign".parse().unwrap(), ..good() },
                "foreign-template",
            ),
            (cvm_provisioning::ProvisioningRequest { client_id: Some("sn-2".into()), ..good() }, "client-id-differs"),
            (cvm_provisioning::ProvisioningRequest { client_id: None, ..good() }, "client-id-differs"),
            (
                cvm_provisioning::ProvisioningRequest { certificate: CertificateId::of(b"x"), ..good() },
                "certificate-id-differs",
            ),
            (cvm_provisioning::ProvisioningRequest { pem: "garbage".into(), ..good() }, "certificate-id-differs"),
            (cvm_provisioning::ProvisioningRequest { parameters: with(&[]), ..good() }, "no-serial-number"),
            (
                cvm_provisioning::ProvisioningRequest {
                    parameters: with(&[("SerialNumber", "sn-1"), ("DeviceId", "sn-2")]),
                    ..good()
                },
                "serial-numbers-differ",
            ),
            (
                cvm_provisioning::ProvisioningRequest {
                    parameters: with(&[("SerialNumber", "${iot:ClientId}")]),
                    ..good()
                },
                "malformed-serial-number",
            ),
            (of(&named("sn-2")), "common-name-differs"),
            (of(&named("some/+/thing")), "common-name-differs"),
        ] {
            let before = world.stored("sn-1").await;
            assert!(hook.answer(&bad).await.is_err(), "{reason}");
            assert!(world.audit.take().concat().contains(reason), "{reason}");
            assert_eq!(world.stored("sn-1").await, before, "{reason}: nobody was asked");
        }
        // A name that everybody shares names nobody.
        for fine in [good(), of(&named("sn-1")), of(&named("Fleet Provisioning Demo"))] {
            let world = World::new(MemoryRegistry::default(), claimed_device()).await;
            let claim = world.claim(None).await;
            let fine = cvm_provisioning::ProvisioningRequest { claim: Some(claim), ..fine };
            assert!(world.hook(&Script::default()).answer(&fine).await.is_ok());
        }
        let aws = of(&named("AWS IoT Certificate"));
        let mut any = world.hook(&Script::default());
        any.client_ids = ClientIds::Any;
        let random = cvm_provisioning::ProvisioningRequest { client_id: Some("221a6d10".into()), ..aws };
        assert!(any.answer(&random).await.is_ok());
    }

    #[tokio::test]
    async fn threat_11_a_claim_that_is_unknown_revoked_expired_or_used_up_claims_nothing() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let hook = world.hook(&Script::default());
        let certificate = world.made_for_claim().await;
        let unknown = CertificateId::of(b"unknown");
        let revoked = world.claim(None).await;
        let expired = world.claim(None).await;
        let used_up = world.claim(Some(0)).await;
        let claim = world.registry.find_claim(&revoked).await.unwrap().unwrap();
        let status = Status::disabled("leaked".parse().ok(), NOW);
        let ended = Claim { status, ..claim.clone() };
        assert!(world.registry.put_claim(&ended, Some(&claim)).await.unwrap());
        let claim = world.registry.find_claim(&expired).await.unwrap().unwrap();
        let ended = Claim { expires_at: Some(NOW), ..claim.clone() };
        assert!(world.registry.put_claim(&ended, Some(&claim)).await.unwrap());
        for (claim, reason) in [
            (unknown, "unknown-claim"),
            (revoked, "claim-revoked"),
            (expired, "claim-expired"),
            (used_up, "claim-used-up"),
        ] {
            assert!(hook.answer(&question(&certificate, &claim, NOW)).await.is_err(), "{reason}");
            assert!(world.audit.take().concat().contains(reason), "{reason}");
            assert_eq!(world.stored("sn-1").await.state, State::Registered);
        }
    }

    #[tokio::test]
    async fn threat_29_a_certificate_that_has_expired_is_not_let_through() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
        let hook = world.hook(&Script::default());
        let last = Timestamp::from(certificate.not_after());
        assert!(hook.answer(&question(&certificate, &claim, last)).await.is_ok());
        assert!(hook.answer(&question(&certificate, &claim, last.after(Duration::from_secs(1)))).await.is_err());
        assert!(world.audit.take().concat().contains("certificate-expired"));
    }

    #[tokio::test]
    async fn threat_13_a_device_that_is_not_let_in_is_refused_and_the_reason_is_kept() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
        let hook = world.hook(&Script::default());
        let mut disabled = world.stored("sn-1").await;
        disabled.disable("stolen".parse().ok(), NOW);
        for (stored, reason) in [
            (disabled, "disabled"),
            (Device { state: State::Revoked, ..claimed_device() }, "revoked"),
            (device("sn-1"), "wrong-proof"),
            (
                Device {
                    attestation: Attestation::Claim { certificate: Some(CertificateId::of(b"x")) },
                    ..claimed_device()
                },
                "wrong-proof",
            ),
            (Device { template: Some("cameras".parse().unwrap()), ..claimed_device() }, "other-template"),
        ] {
            let there = world.stored("sn-1").await;
            let (version, tombstone) = (there.version, there.bury(NOW));
            world.registry.remove(&tombstone, version, &origin()).await.unwrap();
            world.registry.add(&stored, &origin()).await.unwrap();
            assert!(hook.answer(&question(&certificate, &claim, NOW)).await.is_err(), "{reason}");
            assert!(world.audit.take().concat().contains(reason), "{reason}");
            assert_eq!(world.stored("sn-1").await.last_refusal.unwrap().denial.code(), reason);
        }
    }

    #[tokio::test]
    async fn a_device_cannot_choose_what_its_item_does_not_let_it_choose() {
        let overrides = async |device: Device, sent: &[(&str, &str)]| {
            let world = World::new(MemoryRegistry::default(), device).await;
            let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
            let mut question = question(&certificate, &claim, NOW);
            question.parameters.extend(sent.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            world.hook(&Script::default()).answer(&question).await.ok()
        };
        let map = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Some(owned.collect::<BTreeMap<_, _>>())
        };
        let with_site =
            |site: &str| Device { parameters: [("Site".to_owned(), site.to_owned())].into(), ..claimed_device() };
        let free = Device { settable_parameters: ["Site".to_owned()].into(), ..claimed_device() };
        assert_eq!(overrides(claimed_device(), &[]).await, map(&[("SerialNumber", "sn-1")]));
        assert_eq!(
            overrides(claimed_device(), &[("Site", "theirs"), ("Undeclared", "x")]).await,
            map(&[("SerialNumber", "sn-1"), ("Site", "nowhere")]),
            "the template's default takes its place"
        );
        assert_eq!(
            overrides(with_site("ours"), &[("Site", "theirs")]).await,
            map(&[("SerialNumber", "sn-1"), ("Site", "ours")])
        );
        assert_eq!(overrides(with_site("ours"), &[]).await, map(&[("SerialNumber", "sn-1"), ("Site", "ours")]));
        assert_eq!(overrides(free.clone(), &[("Site", "theirs")]).await, map(&[("SerialNumber", "sn-1")]));
        assert_eq!(overrides(free, &[("Site", "not an attribute value")]).await, None);
    }

    #[tokio::test]
    async fn threat_48_yes_no_yes_no_in_one_process() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let claim = world.claim(None).await;
        let hook = world.hook(&Script::default());
        let certificate = world.made_for_claim().await;
        for allowed in [true, false, true, false] {
            let claim = if allowed { claim } else { CertificateId::of(b"unknown") };
            assert_eq!(hook.answer(&question(&certificate, &claim, NOW)).await.is_ok(), allowed);
        }
    }
}

mod trusted_users {
    use super::*;

    fn asked(user: &str, device: &str, now: Timestamp) -> ClaimRequest {
        let origin = Origin::new(Door::Claim, "test".to_owned());
        ClaimRequest { user: user.parse().unwrap(), device: id(device), origin, now }
    }

    fn vouched() -> Device {
        Device { attestation: Attestation::TrustedUser { claim: None }, ..device("sn-1") }
    }

    #[tokio::test]
    async fn a_claim_is_for_its_own_device_until_it_expires() {
        let world = World::new(MemoryRegistry::default(), vouched()).await;
        world.registry.add(&Device { id: id("sn-2"), ..vouched() }, &origin()).await.unwrap();
        let made = world.trusted_users(&Script::default()).make_out(&asked("anna", "sn-1", NOW)).await.unwrap();
        assert_eq!(made.template.as_str(), "fleet");
        let claim = made.claim.certificate;
        let certificate = world.made_for_claim().await;
        let mut foreign = question(&certificate, &claim, later(1));
        foreign.parameters.insert("SerialNumber".to_owned(), "sn-2".to_owned());
        foreign.client_id = Some("sn-2".to_owned());
        let hook = world.hook(&Script::default());
        assert!(hook.answer(&foreign).await.is_err());
        assert!(world.audit.take().concat().contains("claim-for-another-device"));
        assert!(hook.answer(&question(&certificate, &claim, later(300))).await.is_err(), "it has expired");
        assert!(world.register_thing(&certificate, &claim, later(299)).await);
    }

    #[tokio::test]
    async fn threat_61_a_claims_key_is_not_shown_by_accident() {
        let world = World::new(MemoryRegistry::default(), vouched()).await;
        let made = world.trusted_users(&Script::default()).make_out(&asked("anna", "sn-1", NOW)).await.unwrap();
        let key = made.claim.private_key.lines().nth(1).unwrap();
        assert!(!format!("{made:?}").contains(key));
    }

    #[tokio::test]
    async fn a_newer_claim_takes_the_place_of_an_older_one() {
        let world = World::new(MemoryRegistry::default(), vouched()).await;
        let door = world.trusted_users(&Script::default());
        let older = door.make_out(&asked("anna", "sn-1", NOW)).await.unwrap().claim.certificate;
        let newer = door.make_out(&asked("bert", "sn-1", later(1))).await.unwrap().claim.certificate;
        let certificate = world.made_for_claim().await;
        assert!(!world.register_thing(&certificate, &older, later(2)).await);
        assert!(world.register_thing(&certificate, &newer, later(2)).await);
    }

    #[tokio::test]
    async fn only_a_device_that_waits_for_a_trusted_user_gets_a_claim() {
        let mut disabled = vouched();
        disabled.disable("on hold".parse().ok(), NOW);
        for (device, reason) in [
            (device("sn-2"), "unknown-device"),
            (device("sn-1"), "not-by-trusted-user"),
            (disabled, "disabled"),
            (Device { state: State::Quarantined, ..vouched() }, "provisioned"),
        ] {
            let world = World::new(MemoryRegistry::default(), device).await;
            let script = Script::default();
            let refused = world.trusted_users(&script).make_out(&asked("anna", "sn-1", NOW)).await;
            assert!(matches!(refused, Err(ClaimError::Refused)), "{reason}");
            assert!(world.audit.take().concat().contains(reason), "{reason}");
            assert_eq!(script.calls(), 1, "no claim was made");
        }
    }

    #[tokio::test]
    async fn a_user_has_so_many_claims_a_day() {
        let world = World::new(MemoryRegistry::default(), vouched()).await;
        let door = world.trusted_users(&Script::default());
        for allowed in [true, true, false] {
            let answer = door.make_out(&asked("anna", "sn-1", NOW)).await;
            assert_eq!(answer.is_ok(), allowed);
            if let Err(error) = answer {
                let until = Timestamp::from_seconds((NOW.day() + 1) * Timestamp::DAY);
                assert!(matches!(error, ClaimError::TooMany { until: end } if end == until), "{error:?}");
            }
        }
        assert!(door.make_out(&asked("bert", "sn-1", NOW)).await.is_ok());
        assert!(door.make_out(&asked("anna", "sn-1", later(24 * 60 * 60))).await.is_ok());
    }

    #[tokio::test]
    async fn a_claim_that_the_registry_never_learned_of_claims_nothing() {
        for n in 1..=4 {
            for fault in Fault::FAILURES {
                let world = World::new(MemoryRegistry::default(), vouched()).await;
                let script = Script::fail(n, fault);
                let door = world.trusted_users(&script);
                let first = script.run(door.make_out(&asked("anna", "sn-1", NOW))).await;
                assert!(!matches!(first, Some(Ok(_))), "{fault:?} at call {n}: {first:?}");
                let known = world.registry.claims().await.unwrap();
                assert!(known.len() <= usize::from(n == 4), "{fault:?} at call {n}");
                let again = world.trusted_users(&Script::default()).make_out(&asked("anna", "sn-1", later(1))).await;
                let certificate = world.made_for_claim().await;
                assert!(world.register_thing(&certificate, &again.unwrap().claim.certificate, later(2)).await);
            }
        }
    }
}

mod first_use {
    use super::*;

    #[tokio::test]
    async fn threat_58_a_key_made_here_that_was_used_is_not_replaced() {
        let world = World::new(MemoryRegistry::default(), Device { key_origin: KeyOrigin::Service, ..device("sn-1") });
        let world = world.await;
        let vend = world.vend(&Script::default());
        let first = vend.vend(request("sn-1", 1, None, NOW)).await.unwrap().credential.certificate;
        let confirm = world.confirm(&Script::default());
        confirm.connected(&connection(&first, "sn-1", later(10))).await.unwrap();
        assert!(world.stored("sn-1").await.is_used(&first));
        assert!(vend.vend(request("sn-1", 2, None, later(20))).await.is_err(), "the device has its answer");
        assert_eq!(world.platform.powerful(), [first]);
    }

    #[tokio::test]
    async fn a_connection_with_a_certificate_that_is_known_is_one_read_and_one_presence() {
        let world = World::new(MemoryRegistry::default(), device("sn-1")).await;
        let vended = world.vend(&Script::default()).vend(request("sn-1", 1, Some(&csr("sn-1")), NOW)).await.unwrap();
        let event = connection(&vended.credential.certificate, "sn-1", later(10));
        for calls in [4, 2] {
            let script = Script::default();
            world.confirm(&script).connected(&event).await.unwrap();
            assert_eq!(script.calls(), calls);
        }
    }

    #[tokio::test]
    async fn a_connection_of_somebody_elses_certificate_changes_nothing() {
        let world = World::new(MemoryRegistry::default(), device("sn-1")).await;
        let before = world.stored("sn-1").await;
        for client in ["sn-1", "nobody", "no device id"] {
            let event = connection(&CertificateId::of(b"foreign"), client, NOW);
            world.confirm(&Script::default()).connected(&event).await.unwrap();
        }
        assert_eq!(world.stored("sn-1").await, before);
    }
}

mod reconciler {
    use super::*;

    #[tokio::test]
    async fn threat_45_what_a_dead_vend_left_is_removed_however_the_reconciler_fails() {
        reconcile::fault_matrix(MemoryRegistry::default, &Fault::FAILURES).await;
    }

    #[tokio::test]
    async fn a_reservation_is_confirmed_or_released() {
        reconcile::a_reservation_is_confirmed_or_released(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn foreign_things_are_told_and_left() {
        reconcile::foreign_things_are_told_and_left(MemoryRegistry::default()).await;
    }

    #[tokio::test]
    async fn a_revoked_device_has_no_power() {
        reconcile::a_revoked_device_has_no_power(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn drift_is_told() {
        reconcile::drift_is_told(MemoryRegistry::default).await;
    }

    #[tokio::test]
    async fn a_factory_certificate_is_never_removed() {
        reconcile::a_factory_certificate_is_never_removed(MemoryRegistry::default).await;
    }
}
