use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cvm_provisioning::{
    Attempt, Credential, Csr, DeviceId, IssuedCertificate, Leftover, Platform, PlatformError, PolicyName, Refusal,
    RegistryError, ReservationLost, Reservations, Reserve, Thing, ThingGroupName, ThingName, ThingPrincipalType,
};
use tokio::sync::Notify;

/// What goes wrong at one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The call returns an error.
    Error(Effect),
    /// Nothing goes wrong, but the call waits for [`Script::resume`] before it does anything.
    Hold,
    /// This call and every later one returns an error and does nothing.
    Outage,
    /// The service asks for a slower pace, and does nothing.
    Throttle,
    /// The process dies at once.
    Kill(Effect),
    /// The process dies when every call that was made at the same time has come back.
    KillLate(Effect),
}

impl Fault {
    /// Every way to fail.
    pub const FAILURES: [Self; 8] = [
        Self::Error(Effect::After),
        Self::Error(Effect::Before),
        Self::Kill(Effect::After),
        Self::Kill(Effect::Before),
        Self::KillLate(Effect::After),
        Self::KillLate(Effect::Before),
        Self::Outage,
        Self::Throttle,
    ];
}

/// Whether a call that fails has done what it was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// The failure came after the effect.
    After,
    /// The failure came before it.
    Before,
}

/// Counts the calls of a run through all ports, and makes one of them fail.
#[derive(Clone, Debug, Default)]
pub struct Script(Arc<State>);

#[derive(Debug, Default)]
struct State {
    calls: AtomicUsize,
    fault: Option<(usize, Fault)>,
    hold_commit: bool,
    killed: Notify,
    held: Notify,
    resumed: Notify,
    pace: Duration,
}

impl Script {
    /// Call number `n`, counted from 1, fails.
    pub fn fail(n: usize, fault: Fault) -> Self {
        Self(Arc::new(State { fault: Some((n, fault)), ..State::default() }))
    }

    /// The commit is held, whichever call it is.
    pub fn hold_commit() -> Self {
        Self(Arc::new(State { hold_commit: true, ..State::default() }))
    }

    /// Nothing fails, and every call takes this long: under a paused clock the time that passes counts the steps that
    /// follow each other.
    pub fn paced(pace: Duration) -> Self {
        Self(Arc::new(State { pace, ..State::default() }))
    }

    /// Calls made so far.
    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// Comes back when the call is held.
    pub async fn held(&self) {
        self.0.held.notified().await;
    }

    /// Lets the call that is held go on.
    pub fn resume(&self) {
        self.0.resumed.notify_one();
    }

    /// Runs `work` as the process that this script may kill; `None` when it was.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let late = matches!(self.0.fault, Some((_, Fault::KillLate(_))));
        let death = async {
            self.0.killed.notified().await;
            // Work is polled between the turns, so that what runs beside the killed call comes to its end.
            for _ in 0..if late { 64 } else { 0 } {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = death => None,
            output = work => Some(output),
        }
    }

    async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        broken: impl Fn() -> E,
        throttled: impl Fn() -> E,
    ) -> Result<T, E> {
        let n = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if !self.0.pace.is_zero() {
            tokio::time::sleep(self.0.pace).await;
        }
        let due = |(at, fault): &(usize, Fault)| *at == n || (*at < n && *fault == Fault::Outage);
        let Some((_, fault)) = self.0.fault.filter(due) else { return call.await };
        match fault {
            Fault::Error(Effect::After) | Fault::Kill(Effect::After) | Fault::KillLate(Effect::After) => {
                call.await?;
            }
            Fault::Hold => {
                self.0.held.notify_one();
                self.0.resumed.notified().await;
                return call.await;
            }
            _ => {}
        }
        match fault {
            Fault::Kill(_) | Fault::KillLate(_) => {
                self.0.killed.notify_one();
                std::future::pending().await
            }
            Fault::Throttle => Err(throttled()),
            _ => Err(broken()),
        }
    }
}

/// A port whose calls follow a [`Script`].
#[derive(Clone, Debug)]
pub struct Faulty<T> {
    /// The port itself.
    pub inner: T,
    /// What happens to its calls.
    pub script: Script,
}

impl<R: Reservations> Faulty<R> {
    async fn registry_call<T>(&self, call: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        let broken = || RegistryError::Unavailable { source: "scripted".into() };
        let throttled = || RegistryError::Throttled { source: "scripted".into() };
        self.script.call(call, broken, throttled).await
    }
}

impl<R: Reservations> Reservations for Faulty<R> {
    async fn reserve(&self, attempt: &Attempt) -> Result<Reserve, RegistryError> {
        self.registry_call(self.inner.reserve(attempt)).await
    }

    async fn commit(
        &self,
        attempt: &Attempt,
        credential: &Credential,
    ) -> Result<Result<(), ReservationLost>, RegistryError> {
        if self.script.0.hold_commit {
            self.script.0.held.notify_one();
            self.script.0.resumed.notified().await;
        }
        self.registry_call(self.inner.commit(attempt, credential)).await
    }

    async fn release(&self, attempt: &Attempt, left: &Leftover) -> Result<(), RegistryError> {
        self.registry_call(self.inner.release(attempt, left)).await
    }

    async fn refuse(&self, device: &DeviceId, refusal: &Refusal) -> Result<(), RegistryError> {
        self.registry_call(self.inner.refuse(device, refusal)).await
    }
}

impl<P: Platform> Faulty<P> {
    async fn platform_call<T>(&self, call: impl Future<Output = Result<T, PlatformError>>) -> Result<T, PlatformError> {
        let action = "follow the script";
        let broken = || PlatformError::Unavailable { action, source: "scripted".into() };
        let throttled = || PlatformError::Throttled { action, source: "scripted".into() };
        self.script.call(call, broken, throttled).await
    }
}

impl<P: Platform> Platform for Faulty<P> {
    async fn issue(&self, csr: &Csr) -> Result<IssuedCertificate, PlatformError> {
        self.platform_call(self.inner.issue(csr)).await
    }

    async fn ensure_thing(&self, thing: &Thing) -> Result<(), PlatformError> {
        self.platform_call(self.inner.ensure_thing(thing)).await
    }

    async fn attach_thing(
        &self,
        thing: &ThingName,
        certificate_name: &str,
        kind: ThingPrincipalType,
    ) -> Result<(), PlatformError> {
        self.platform_call(self.inner.attach_thing(thing, certificate_name, kind)).await
    }

    async fn attach_policy(&self, policy: &PolicyName, certificate_name: &str) -> Result<(), PlatformError> {
        self.platform_call(self.inner.attach_policy(policy, certificate_name)).await
    }

    async fn join_group(&self, thing: &ThingName, group: &ThingGroupName) -> Result<(), PlatformError> {
        self.platform_call(self.inner.join_group(thing, group)).await
    }

    async fn certificates_of(&self, thing: &ThingName) -> Result<Vec<IssuedCertificate>, PlatformError> {
        self.platform_call(self.inner.certificates_of(thing)).await
    }

    async fn retire(&self, thing: &ThingName, certificate_name: &str) -> Result<(), PlatformError> {
        self.platform_call(self.inner.retire(thing, certificate_name)).await
    }
}
