//! The vend over the ports in memory: what it costs, what it survives, and whom it lets in.

#![expect(clippy::large_futures, reason = "a test has one of them")]

use cvm_provisioning::{
    AuditEntry, Changes as _, Decision, DeviceStore as _, KeyOrigin, RefusedKeys, State, VendError,
};
use cvm_testkit::fixture::{NOW, csr, device, id, later, origin, request};
use cvm_testkit::{Effect, Fault, MemoryPlatform, MemoryRegistry, Script, contract, scenario};
use std::time::Duration;

#[tokio::test]
async fn the_registry_in_memory_keeps_the_contract() {
    contract::registry(&MemoryRegistry::default()).await;
    contract::fifty_reservations_at_once(&MemoryRegistry::default()).await;
}

#[tokio::test]
async fn threat_33_a_vend_that_fails_anywhere_ends_with_one_certificate_that_works() {
    Box::pin(scenario::vend::fault_matrix(MemoryRegistry::default)).await;
    Box::pin(scenario::vend::own_ca_fault_matrix(MemoryRegistry::default, &Fault::FAILURES)).await;
}

#[tokio::test]
async fn threat_33_two_keys_that_fail_in_turn_end_with_one_certificate_that_works() {
    Box::pin(scenario::vend::keys_in_turn(MemoryRegistry::default)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_07_fifty_callers_at_once_get_one_certificate() {
    scenario::vend::fifty_callers_with_one_key(MemoryRegistry::default()).await;
    scenario::vend::fifty_callers_with_fifty_keys(MemoryRegistry::default()).await;
}

#[tokio::test]
async fn threat_33_a_certificate_that_the_registry_may_yet_lose_is_not_given_again() {
    let world = scenario::World::new(MemoryRegistry::default(), device("sn-1")).await;
    let key = csr("sn-1");
    let first = world.vend(&Script::default()).vend(request("sn-1", 1, Some(&key), NOW)).await.unwrap();
    let again = world.vend(&Script::forgets()).vend(request("sn-1", 2, Some(&key), later(1))).await;
    assert!(matches!(again, Err(VendError::InProgress { until }) if until == later(2)), "{again:?}");
    let recorded = world.vend(&Script::default()).vend(request("sn-1", 3, Some(&key), later(2))).await.unwrap();
    assert_eq!((recorded.credential, recorded.replayed), (first.credential, true));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_vend_is_seven_calls_in_five_steps_and_a_replay_is_one() {
    let world = scenario::World::new(MemoryRegistry::default(), device("sn-1")).await;
    let key = csr("sn-1");
    let script = Script::paced(Duration::from_secs(1));
    let begin = tokio::time::Instant::now();
    let first = world.vend(&script).vend(request("sn-1", 1, Some(&key), NOW)).await.unwrap();
    assert!(!first.replayed);
    assert_eq!((script.calls(), begin.elapsed().as_secs()), (7, 5));

    let script = Script::paced(Duration::from_secs(1));
    let again = world.vend(&script).vend(request("sn-1", 2, Some(&key), later(5))).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.credential, first.credential);
    assert_eq!(script.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn with_an_own_ca_a_fresh_vend_is_eight_calls_in_six_steps_and_strangers_cost_no_signature() {
    let platform = MemoryPlatform::with_own_ca();
    let world = scenario::World::on(platform, MemoryRegistry::default(), device("sn-1")).await;
    let key = csr("sn-1");
    for (number, calls, steps, is_fresh) in [(1, 8, 6, true), (2, 1, 1, false)] {
        let script = Script::paced(Duration::from_secs(1));
        let begin = tokio::time::Instant::now();
        let vended = world.vend(&script).vend(request("sn-1", number, Some(&key), NOW)).await.unwrap();
        assert_eq!(vended.replayed, !is_fresh);
        assert_eq!((script.calls(), begin.elapsed().as_secs()), (calls, steps));
    }
    let script = Script::default();
    let stranger = request("sn-2", 3, Some(&csr("sn-2")), NOW);
    assert!(matches!(world.vend(&script).vend(stranger).await, Err(VendError::Refused)));
    assert_eq!(script.calls(), 2, "a look, and the refusal that is written down");
}

#[tokio::test]
async fn threat_33_what_an_own_ca_signs_is_recorded_before_the_platform_knows_it() {
    let platform = MemoryPlatform::with_own_ca();
    let world = scenario::World::on(platform, MemoryRegistry::default(), device("sn-1")).await;
    let key = csr("sn-1");
    // The fourth call registers it.
    let script = Script::fail(4, Fault::Kill(Effect::Before));
    let vend = world.vend(&script);
    assert!(script.run(vend.vend(request("sn-1", 1, Some(&key), NOW))).await.is_none());
    let recorded = world.stored("sn-1").await.reservation.unwrap().left.unwrap().certificate;
    assert_eq!(world.platform.standing(&recorded), None);
    let next = world.vend(&Script::default()).vend(request("sn-1", 2, Some(&key), later(30))).await.unwrap();
    assert_eq!(next.credential.certificate, recorded, "the next attempt goes on with it");
}

#[tokio::test(start_paused = true)]
async fn threat_01_every_refusal_costs_the_same_two_calls() {
    let disabled = |mut device: cvm_provisioning::Device| {
        device.disable("stolen".parse().ok(), NOW);
        device
    };
    let revoked = |mut device: cvm_provisioning::Device| {
        device.state = State::Revoked;
        device
    };
    let wrong_token = |mut request: cvm_provisioning::VendRequest| {
        request.token = Some("another-token-0123456789-0123456789".parse().unwrap());
        request
    };
    let key = csr("sn-1");
    let right = || request("sn-1", 1, Some(&key), NOW);
    let unknown = cvm_provisioning::VendRequest { device: id("sn-2"), ..right() };
    for (device, request) in [
        (device("sn-1"), unknown),
        (device("sn-1"), wrong_token(right())),
        (disabled(device("sn-1")), right()),
        (revoked(device("sn-1")), right()),
        (device("sn-1"), cvm_provisioning::VendRequest { csr: None, ..right() }),
    ] {
        let world = scenario::World::new(MemoryRegistry::default(), device).await;
        let script = Script::paced(Duration::from_secs(1));
        let begin = tokio::time::Instant::now();
        let error = world.vend(&script).vend(request).await.unwrap_err();
        assert!(matches!(error, VendError::Refused), "{error}");
        assert_eq!((script.calls(), begin.elapsed().as_secs()), (2, 2));
        assert_eq!(world.platform.active(), 0);
        assert_eq!(world.audit.take().len(), 1);
    }
}

#[tokio::test]
async fn threat_04_another_key_on_a_provisioned_device_quarantines_it_and_touches_nothing() {
    let world = scenario::World::new(MemoryRegistry::default(), device("sn-1")).await;
    let vend = world.vend(&Script::default());
    let (own, clone) = (csr("sn-1"), csr("sn-1"));
    let first = vend.vend(request("sn-1", 1, Some(&own), NOW)).await.unwrap();
    let refused = vend.vend(request("sn-1", 2, Some(&clone), later(1))).await.unwrap_err();
    assert!(matches!(refused, VendError::Refused));
    assert_eq!(world.platform.powerful(), [first.credential.certificate]);
    let stored = world.registry.find(&id("sn-1")).await.unwrap().unwrap();
    assert_eq!(stored.state, State::Quarantined);
    assert_eq!(stored.last_refusal.unwrap().key, *clone.key().fingerprint());

    // Even the true key has to wait for a person now.
    assert!(matches!(vend.vend(request("sn-1", 3, Some(&own), later(2))).await, Err(VendError::Refused)));
    let waiting = world.registry.find(&id("sn-1")).await.unwrap().unwrap();
    assert_eq!(waiting, stored, "whoever else asks, the clone's key stays for that person to see");
}

#[tokio::test]
async fn threat_48_yes_no_yes_no_in_one_process() {
    let world = scenario::World::new(MemoryRegistry::default(), device("sn-1")).await;
    world.registry.add(&device("sn-3"), &origin()).await.unwrap();
    let vend = world.vend(&Script::default());
    for (number, (name, allowed)) in
        [("sn-1", true), ("sn-2", false), ("sn-3", true), ("sn-4", false)].iter().enumerate()
    {
        let answer = vend.vend(request(name, number as u128, Some(&csr(name)), NOW)).await;
        assert_eq!(answer.is_ok(), *allowed, "{name}");
    }
}

#[tokio::test]
async fn threat_03_a_guesser_keeps_nobody_out() {
    scenario::vend::a_guesser_keeps_nobody_out(MemoryRegistry::default(), 45).await;
}

#[tokio::test]
async fn threat_03_guesses_are_counted_and_told_once_an_hour() {
    let registry = MemoryRegistry::default();
    let world = scenario::World::new(registry.clone(), device("sn-1")).await;
    let vend = world.vend(&Script::default());
    let key = csr("sn-1");
    let registered = world.stored("sn-1").await;
    registry.take_writes();
    for number in 0..200 {
        let mut guess = request("sn-1", number, Some(&key), later(number as u64 * 60));
        guess.token = Some(format!("a-guess-0123456789-0123456789-{number}").parse().unwrap());
        assert!(matches!(vend.vend(guess).await, Err(VendError::Refused)));
    }
    let stored = world.stored("sn-1").await;
    assert_eq!((stored.wrong_proofs, stored.etag()), (200, registered.etag()));
    let entries: Vec<_> = registry.take_writes().iter().flat_map(AuditEntry::of).collect();
    let told: Vec<_> = entries.iter().map(|entry| (entry.action.as_str(), entry.at, entry.count)).collect();
    let hour = |hour: u64| later(hour * 3_600);
    assert_eq!(told, [(0, 1), (1, 60), (2, 60), (3, 60)].map(|(number, count)| ("refused", hour(number), count)));
    let mut ids: Vec<_> = entries.iter().map(|entry| &entry.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4, "{ids:?}");

    // What another reason is for is told at once, with what was counted before it.
    let mut disabled = stored.clone();
    disabled.disable(None, later(12_000));
    assert!(world.registry.replace(&disabled, stored.version, &origin()).await.unwrap());
    registry.take_writes();
    assert!(vend.vend(request("sn-1", 300, Some(&key), later(12_001))).await.is_err());
    let entries: Vec<_> = registry.take_writes().iter().flat_map(AuditEntry::of).collect();
    let told: Vec<_> = entries.iter().map(|entry| (entry.reason.as_deref().unwrap(), entry.count)).collect();
    assert_eq!(told, [("wrong-proof", 19), ("disabled", 1)]);
}

#[tokio::test]
async fn threat_58_a_key_made_here_is_given_once_and_replaced_only_right_after() {
    let mut with_service_key = device("sn-1");
    with_service_key.key_origin = KeyOrigin::Service;
    let world = scenario::World::new(MemoryRegistry::default(), with_service_key).await;
    let vend = world.vend(&Script::default());
    let first = vend.vend(request("sn-1", 1, None, NOW)).await.unwrap();
    let second = vend.vend(request("sn-1", 2, None, later(60))).await.unwrap();
    assert_ne!(first.private_key.unwrap().pem(), second.private_key.unwrap().pem());
    assert_eq!(world.platform.powerful(), [second.credential.certificate], "the unused one is retired");
    assert_eq!(world.platform.active(), 1);

    assert!(matches!(vend.vend(request("sn-1", 3, None, later(60 + 300))).await, Err(VendError::Refused)));
    assert_eq!(world.platform.powerful(), [second.credential.certificate]);
    assert_eq!(world.registry.find(&id("sn-1")).await.unwrap().unwrap().state, State::Quarantined);
}

#[tokio::test]
async fn threat_20_a_refused_key_gets_nothing_and_asks_nobody() {
    let world = scenario::World::new(MemoryRegistry::default(), device("sn-1")).await;
    let key = csr("sn-1");
    let script = Script::default();
    let mut vend = world.vend(&script);
    vend.refused_keys = RefusedKeys::from_iter([*key.key().fingerprint()]);
    assert!(matches!(vend.vend(request("sn-1", 1, Some(&key), NOW)).await, Err(VendError::KeyRefused)));
    assert_eq!(script.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_08_a_key_is_one_devices() {
    contract::a_key_is_one_devices(&MemoryRegistry::default()).await;
}

#[tokio::test]
async fn threat_08_a_second_device_with_a_key_gets_nothing_and_the_reason_is_kept() {
    let world = scenario::World::new(MemoryRegistry::default(), device("sn-1")).await;
    assert!(world.registry.add(&device("sn-2"), &origin()).await.unwrap());
    let vend = world.vend(&Script::default());
    let key = csr("sn-1");
    let first = vend.vend(request("sn-1", 1, Some(&key), NOW)).await.unwrap();
    world.audit.take();
    let second = vend.vend(request("sn-2", 2, Some(&key), later(1))).await;
    assert!(matches!(second, Err(VendError::KeyRefused)), "{second:?}");
    assert!(world.audit.take().concat().contains("key-in-use"));
    assert_eq!(world.stored("sn-2").await.last_refusal.unwrap().denial.code(), "key-in-use");
    assert_eq!(world.platform.powerful(), [first.credential.certificate]);
    assert!(vend.vend(request("sn-1", 3, Some(&key), later(2))).await.unwrap().replayed);
    assert!(vend.vend(request("sn-2", 4, Some(&csr("sn-2")), later(3))).await.is_ok(), "with a key of its own");
}

#[tokio::test]
async fn a_device_sets_only_the_parameters_that_it_may() {
    let mut free = device("sn-1");
    free.settable_parameters = ["Site".to_owned(), "SerialNumber".to_owned(), "Undeclared".to_owned()].into();
    for (name, allowed) in
        [("Site", true), ("SerialNumber", false), ("Undeclared", false), ("AWS::IoT::Certificate::Id", false)]
    {
        let world = scenario::World::new(MemoryRegistry::default(), free.clone()).await;
        let mut asked = request("sn-1", 1, Some(&csr("sn-1")), NOW);
        asked.parameters = [(name.to_owned(), "Ulm".to_owned())].into();
        let answer = world.vend(&Script::default()).vend(asked).await;
        assert_eq!(answer.is_ok(), allowed, "{name}");
        assert_eq!(world.platform.active(), usize::from(allowed));
        if !allowed {
            let stored = world.registry.find(&id("sn-1")).await.unwrap().unwrap();
            let next = stored.decide(&cvm_testkit::fixture::attempt("sn-1", 2, &csr("sn-1"), NOW));
            assert_eq!(next, Decision::Provision, "the device need not wait to ask again without it");
        }
    }
}

#[tokio::test]
async fn a_device_disabled_in_the_middle_of_a_vend_ends_without_power() {
    scenario::vend::disabled_at_every_call(MemoryRegistry::default).await;
}

#[tokio::test]
async fn an_attempt_that_wakes_up_after_its_lease_harms_nobody() {
    Box::pin(scenario::vend::a_sleeper_harms_nobody(MemoryRegistry::default)).await;
}
