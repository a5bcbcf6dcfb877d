//! Whole vends over any registry, with everything that can go wrong.

use std::time::Duration;

use cvm_provisioning::{
    Attempt, Certificate, Changes as _, Csr, KeyFingerprint, KeyOrigin, Platform as _, State, Timestamp, VendError,
    Vended,
};

use super::{PLATFORMS, Registry, World};
use crate::fixture::{NOW, csr, device, origin, request};
use crate::{Effect, Fault, MemoryPlatform, Script};

impl<R: Registry> World<R> {
    /// What a device does that got no certificate: it asks again, after the time that it was told.
    async fn ask_until_answered(&self, name: &str, csr: Option<&Csr>, from: Timestamp) -> Vended {
        let mut now = from;
        for number in 1_000..1_005 {
            match self.vend(&Script::default()).vend(request(name, number, csr, now)).await {
                Ok(vended) => return vended,
                Err(VendError::InProgress { until }) => now = until,
                Err(error) => panic!("a retry ended with {error:?}"),
            }
        }
        panic!("five retries were not enough");
    }

    /// One certificate works: the one that the registry has and the device was given, for the key that the device has.
    async fn assert_provisioned(&self, name: &str, key: Option<&Csr>, given: &Vended, context: &str) {
        let key = match (key, &given.private_key) {
            (Some(csr), None) => *csr.key().fingerprint(),
            (None, Some(key)) => {
                let pair = rcgen::KeyPair::from_pem(key.pem()).expect("the key is one");
                KeyFingerprint::of(&rcgen::PublicKeyData::subject_public_key_info(&pair))
            }
            _ => panic!("{context}: a key came that was not asked for, or none that was"),
        };
        let certificate = Certificate::parse(&given.credential.pem).expect("the platform makes certificates");
        assert_eq!((certificate.key(), &given.credential.key), (&key, &key), "{context}");
        assert_eq!(self.platform.powerful(), [given.credential.certificate], "{context}");
        assert_eq!(self.platform.things(), [name], "{context}");
        let stored = self.stored(name).await;
        assert_eq!(stored.state, State::Provisioned, "{context}");
        assert_eq!(stored.credential.as_ref(), Some(&given.credential), "{context}");
    }
}

/// A vend that fails at every call in every way, and the retry after it: by the same key, by another key (a device that
/// lost its key with its power), and with a key made here. What clears up after a failure fails itself, too, at every
/// call, before the last retry.
pub async fn fault_matrix<R: Registry>(registry: impl Fn() -> R) {
    matrix(registry, PLATFORMS[0], &Fault::FAILURES).await;
}

/// The same with a CA of our own, and these ways to fail.
pub async fn own_ca_fault_matrix<R: Registry>(registry: impl Fn() -> R, faults: &[Fault]) {
    matrix(registry, PLATFORMS[1], faults).await;
}

/// A vend that fails at every call in every way, one with another key that dies at every call, and then the first key
/// again.
pub async fn keys_in_turn<R: Registry>(registry: impl Fn() -> R) {
    for (platform, calls) in PLATFORMS {
        for fault in Fault::FAILURES {
            for n in 1..=calls {
                for m in 1.. {
                    let failures = Failures { platform, retry: Retry::OtherKeyAndBack, fault, n, m };
                    if !Box::pin(two_failures(registry(), failures)).await {
                        break;
                    }
                }
            }
        }
    }
}

async fn matrix<R: Registry>(
    registry: impl Fn() -> R,
    (platform, calls): (fn() -> MemoryPlatform, usize),
    faults: &[Fault],
) {
    for retry in [Retry::SameKey, Retry::OtherKey, Retry::KeyMadeHere] {
        for fault in faults.iter().copied() {
            for n in 1..=calls {
                for m in 0.. {
                    let failures = Failures { platform, retry, fault, n, m };
                    let failed_twice = Box::pin(two_failures(registry(), failures)).await;
                    if m > 0 && !failed_twice {
                        break;
                    }
                }
            }
        }
    }
}

/// What goes wrong, and who asks again.
#[derive(Clone, Copy)]
struct Failures {
    platform: fn() -> MemoryPlatform,
    retry: Retry,
    fault: Fault,
    n: usize,
    m: usize,
}

/// One vend that fails at call `n`, one that fails at call `m` (none where that is 0), and then whatever retries it
/// takes. Says whether there was a call `m` to fail.
async fn two_failures<R: Registry>(registry: R, Failures { platform, retry, fault, n, m }: Failures) -> bool {
    const NAME: &str = "sn-1";
    let platform = platform();
    let own_ca = platform.prepares();
    let context = &format!("own CA: {own_ca}, {retry:?}, {fault:?} at call {n} and then at call {m}");
    let mut registered = device(NAME);
    if retry == Retry::KeyMadeHere {
        registered.key_origin = KeyOrigin::Service;
    }
    let world = World::on(platform, registry, registered).await;
    let first_key = (retry != Retry::KeyMadeHere).then(|| csr(NAME));
    let second_key = match retry {
        Retry::KeyMadeHere => None,
        Retry::OtherKey | Retry::OtherKeyAndBack => Some(csr(NAME)),
        Retry::SameKey => first_key.clone(),
    };

    let script = Script::fail(n, fault);
    let vend = world.vend(&script);
    let first = script.run(vend.vend(request(NAME, 1, first_key.as_ref(), NOW))).await;
    assert!(script.calls() >= n && !matches!(first, Some(Ok(_))), "{context}: {first:?}");
    // The lease of an attempt that died has to run out.
    let mut now = NOW.after(Attempt::LEASE);
    let stored = world.stored(NAME).await;
    let committed = stored.credential.filter(|_| stored.state == State::Provisioned);
    let mut key = match committed {
        // The crash came when the registry had the certificate: the key it is for has won.
        Some(credential) if !credential.key_made_here => &first_key,
        _ => &second_key,
    };
    let mut failed_twice = false;
    if m > 0 {
        let script = Script::fail(m, if retry == Retry::OtherKeyAndBack { Fault::Kill(Effect::After) } else { fault });
        let vend = world.vend(&script);
        let second = script.run(vend.vend(request(NAME, 2, key.as_ref(), now))).await;
        failed_twice = script.calls() >= m;
        if let Some(Ok(vended)) = second {
            world.assert_provisioned(NAME, key.as_ref(), &vended, context).await;
            return failed_twice;
        }
        now = now.after(Duration::from_secs(1));
        if retry == Retry::OtherKeyAndBack && world.stored(NAME).await.state != State::Provisioned {
            (key, now) = (&first_key, now.after(Attempt::LEASE));
        }
    }
    let vended = world.ask_until_answered(NAME, key.as_ref(), now).await;
    world.assert_provisioned(NAME, key.as_ref(), &vended, context).await;
    failed_twice
}

/// Who asks after a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Retry {
    KeyMadeHere,
    OtherKey,
    OtherKeyAndBack,
    SameKey,
}

/// Somebody who knows the serial number sends a wrong proof each second for this long, and the device, which asks once a
/// minute as docs/vending.md has it, is in within two tries: it is registered, it has lost an answer, and it lost its
/// key and an operator lets it renew.
pub async fn a_guesser_keeps_nobody_out<R: Registry>(registry: R, minutes: u64) {
    const NAME: &str = "guessed";
    let world = World::new(registry, device(NAME)).await;
    let vend = world.vend(&Script::default());
    let (own, other, stranger) = (csr(NAME), csr(NAME), csr(NAME));
    let mut now = NOW;
    for (number, key) in [(0, &own), (1, &own), (2, &other)] {
        for second in 0..60 * u128::from(minutes) {
            now = now.after(Duration::from_secs(1));
            let mut guess = request(NAME, number << 64 | second, Some(&stranger), now);
            guess.token = Some(format!("a-guess-0123456789-0123456789-{second}").parse().expect("a token"));
            assert!(matches!(vend.vend(guess).await, Err(VendError::Refused)));
        }
        if number == 2 {
            let mut renewable = world.stored(NAME).await;
            let version = renewable.version;
            renewable.renew(now).expect("it has a certificate");
            assert!(world.registry.replace(&renewable, version, &origin()).await.expect("the store answers"));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match vend.vend(request(NAME, number << 64 | 1 << 32 | tries, Some(key), now)).await {
                Ok(_) => break,
                Err(error) => assert!(tries < 2, "case {number}: {error}"),
            }
            now = now.after(Duration::from_secs(60));
        }
    }
}

/// Fifty callers for one device with one key.
pub async fn fifty_callers_with_one_key<R>(registry: R)
where
    R: Registry + 'static,
{
    for (platform, _) in PLATFORMS {
        fifty_callers_on(platform(), registry.clone()).await;
    }
}

async fn fifty_callers_on<R>(platform: MemoryPlatform, registry: R)
where
    R: Registry + 'static,
{
    let world = World::on(platform, registry, device("one-key")).await;
    let key = csr("one-key");
    let keys = vec![key.clone(); 50];
    let answers = all_at_once(&world, "one-key", keys).await;
    for answer in &answers {
        match answer {
            Ok(_) | Err(VendError::InProgress { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(answers.iter().flatten().filter(|vended| !vended.replayed).count(), 1);
    let vended = world.ask_until_answered("one-key", Some(&key), NOW).await;
    assert!(vended.replayed);
    world.assert_provisioned("one-key", Some(&key), &vended, "one key").await;
    assert_eq!(world.platform.active(), 1);
}

/// Fifty callers for one device with fifty keys.
pub async fn fifty_callers_with_fifty_keys<R>(registry: R)
where
    R: Registry + 'static,
{
    let world = World::new(registry, device("fifty-keys")).await;
    let keys = (0..50).map(|_| csr("fifty-keys")).collect();
    let answers = all_at_once(&world, "fifty-keys", keys).await;
    for answer in &answers {
        match answer {
            Ok(_) | Err(VendError::InProgress { .. } | VendError::Refused) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let winners: Vec<_> = answers.iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(world.platform.powerful(), [winners[0].credential.certificate]);
    assert_eq!(world.platform.active(), 1);
}

async fn all_at_once<R>(world: &World<R>, name: &'static str, keys: Vec<Csr>) -> Vec<Result<Vended, VendError>>
where
    R: Registry + 'static,
{
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(keys.len()));
    let mut tasks = Vec::new();
    for (number, key) in (1..).zip(keys) {
        let (vend, barrier) = (world.vend(&Script::default()), barrier.clone());
        tasks.push(tokio::spawn(async move {
            barrier.wait().await;
            vend.vend(request(name, number, Some(&key), NOW)).await
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("no panic"));
    }
    answers
}

/// An operator disables the device before each call of its vend.
pub async fn disabled_at_every_call<R: Registry>(registry: impl Fn() -> R) {
    const NAME: &str = "sn-1";
    let calls = PLATFORMS.iter().flat_map(|(platform, calls)| (1..=*calls).map(move |n| (platform, n)));
    for (platform, n) in calls {
        let world = World::on(platform(), registry(), device(NAME)).await;
        let script = Script::fail(n, Fault::Hold);
        let key = csr(NAME);
        let vend = world.vend(&script);
        let operator = async {
            script.held().await;
            let mut device = world.stored(NAME).await;
            let version = device.version;
            device.disable("stolen".parse().ok(), NOW);
            assert!(world.registry.replace(&device, version, &origin()).await.expect("the store answers"));
            script.resume();
        };
        let (answer, ()) = tokio::join!(vend.vend(request(NAME, 1, Some(&key), NOW)), operator);
        assert!(matches!(answer, Err(VendError::InProgress { .. } | VendError::Refused)), "call {n}: {answer:?}");
        assert!(world.platform.powerful().is_empty(), "call {n}");
        let again = world.vend(&Script::default()).vend(request(NAME, 2, Some(&key), NOW.after(Attempt::LEASE))).await;
        assert!(matches!(again, Err(VendError::Refused)), "call {n}: {again:?}");
    }
}

/// An attempt that sleeps at any of its calls beyond its lease, while another attempt does the work, and then wakes up:
/// before that one's commit, or after it.
pub async fn a_sleeper_harms_nobody<R: Registry>(registry: impl Fn() -> R) {
    const NAME: &str = "sn-1";
    for same_key in [true, false] {
        let calls = PLATFORMS.iter().flat_map(|(platform, calls)| (1..=*calls).map(move |n| (platform, n)));
        for (platform, n) in calls {
            for wakes_before_commit in [true, false] {
                let world = World::on(platform(), registry(), device(NAME)).await;
                let own_ca = world.platform.prepares();
                let context =
                    format!("own CA: {own_ca}, same key: {same_key}, asleep at call {n}, early: {wakes_before_commit}");
                let sleeping = csr(NAME);
                let key = if same_key { sleeping.clone() } else { csr(NAME) };
                let script = Script::fail(n, Fault::Hold);
                let sleeper = world.vend(&script);
                let awake = tokio::sync::Notify::new();
                let worker = async {
                    script.held().await;
                    let now = NOW.after(Attempt::LEASE);
                    let vended = if wakes_before_commit {
                        let last = Script::hold_commit();
                        let vend = world.vend(&last);
                        let waker = async {
                            last.held().await;
                            script.resume();
                            awake.notified().await;
                            last.resume();
                        };
                        let (vended, ()) = tokio::join!(vend.vend(request(NAME, 2, Some(&key), now)), waker);
                        vended
                    } else {
                        let vended = world.vend(&Script::default()).vend(request(NAME, 2, Some(&key), now)).await;
                        script.resume();
                        vended
                    };
                    vended.unwrap_or_else(|error| panic!("{context}: {error:?}"))
                };
                let sleep = async {
                    let slept = sleeper.vend(request(NAME, 1, Some(&sleeping), NOW)).await;
                    awake.notify_one();
                    slept
                };
                let (slept, worked) = tokio::join!(sleep, worker);
                let stored = world.stored(NAME).await;
                assert!(matches!(stored.state, State::Provisioned | State::Quarantined), "{context}");
                let kept = stored.credential.expect("a provisioned device has one");
                assert_eq!(kept.certificate, worked.credential.certificate, "{context}");
                let powerful = world.platform.powerful();
                assert!(powerful.contains(&kept.certificate), "{context}: the device is bricked");
                match slept {
                    Ok(vended) => assert_eq!(vended.credential.certificate, kept.certificate, "{context}"),
                    // Its certificate may have been retired under its hands.
                    Err(VendError::InProgress { .. } | VendError::Platform(_) | VendError::Refused) => {}
                    Err(error) => panic!("{context}: {error:?}"),
                }
                // What is left over is in nobody's hands, and for the very key that the device has.
                assert!(powerful.len() == 1 || (same_key && wakes_before_commit), "{context}");
            }
        }
    }
}
