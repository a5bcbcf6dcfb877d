use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cvm_bulk::{Fetched, Job, JobId, JobStore, ObjectError, ObjectPath, Objects};
use cvm_provisioning::State::Provisioned;
use cvm_provisioning::{
    CertificateAuthority, CertificateId, CertificateIndex, CertificateLedger, CertificateOwner, CertificateSummary,
    Certificates, Change, Claim, ClaimIssuer, ClaimStore, Csr, Cursors, Departures, Device, DeviceCounts, DeviceFilter,
    DeviceId, DeviceStore, GenerationId, Inventory, InventoryPage, IssuedCertificate, IssuedClaim, KeyFingerprint,
    LedgerEntry, NotRestored, Origin, Page, Platform, PlatformError, PolicyName, Presence, Presences, Put, Refusal,
    RegisteredCertificate, RegistryError, Standing, TemplateName, Thing, ThingGroupName, ThingName, ThingPrincipalType,
    Timestamp, Tombstone, Tombstones, TrustedUser, UnsettledDevice,
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
    hold_commit: AtomicBool,
    forgets: bool,
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

    /// The first commit is held, whichever call it is.
    pub fn hold_commit() -> Self {
        Self(Arc::new(State { hold_commit: AtomicBool::new(true), ..State::default() }))
    }

    /// What the registry shows did not outlive a crash of it.
    pub fn forgets() -> Self {
        Self(Arc::new(State { forgets: true, ..State::default() }))
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

impl<T> Faulty<T> {
    async fn registry_call<O>(&self, call: impl Future<Output = Result<O, RegistryError>>) -> Result<O, RegistryError> {
        let broken = || RegistryError::Unavailable { source: "scripted".into() };
        let throttled = || RegistryError::Throttled { source: "scripted".into() };
        self.script.call(call, broken, throttled).await
    }

    async fn platform_call<O>(&self, call: impl Future<Output = Result<O, PlatformError>>) -> Result<O, PlatformError> {
        let action = "follow the script";
        let broken = || PlatformError::Unavailable { action, source: "scripted".into() };
        let throttled = || PlatformError::Throttled { action, source: "scripted".into() };
        self.script.call(call, broken, throttled).await
    }
}

impl<T> Faulty<T> {
    async fn object_call<O>(&self, call: impl Future<Output = Result<O, ObjectError>>) -> Result<O, ObjectError> {
        let broken = || ObjectError::Unavailable { source: "scripted".into() };
        self.script.call(call, broken, broken).await
    }
}

impl<C: CertificateAuthority> CertificateAuthority for Faulty<C> {
    async fn certify(&self, csr: &Csr, thing: &ThingName) -> Result<(IssuedCertificate, LedgerEntry), PlatformError> {
        self.platform_call(self.inner.certify(csr, thing)).await
    }

    fn has_key(&self, key: &KeyFingerprint) -> bool {
        self.inner.has_key(key)
    }
}

impl<P: Platform> Platform for Faulty<P> {
    async fn issue(&self, csr: &Csr, thing: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        self.platform_call(self.inner.issue(csr, thing)).await
    }

    fn prepares(&self) -> bool {
        self.inner.prepares()
    }

    fn has_key(&self, key: &KeyFingerprint) -> bool {
        self.inner.has_key(key)
    }

    async fn prepare(&self, csr: &Csr, thing: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        self.platform_call(self.inner.prepare(csr, thing)).await
    }

    async fn register(&self, pem: &str) -> Result<(), PlatformError> {
        self.platform_call(self.inner.register(pem)).await
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

    async fn certificates_of(&self, thing: &ThingName) -> Result<Vec<RegisteredCertificate>, PlatformError> {
        self.platform_call(self.inner.certificates_of(thing)).await
    }

    async fn retire(&self, thing: &ThingName, certificate_name: &str) -> Result<(), PlatformError> {
        self.platform_call(self.inner.retire(thing, certificate_name)).await
    }
}

impl<T: DeviceStore> DeviceStore for Faulty<T> {
    async fn put(&self, change: &Change) -> Result<Put, RegistryError> {
        let gives = change.after().is_some_and(|device| device.state == Provisioned);
        if gives && self.script.0.hold_commit.swap(false, Ordering::SeqCst) {
            self.script.0.held.notify_one();
            self.script.0.resumed.notified().await;
        }
        self.registry_call(self.inner.put(change)).await
    }

    async fn count_refusal(&self, device: &DeviceId, refusal: &Refusal, by: &Origin) -> Result<(), RegistryError> {
        self.registry_call(self.inner.count_refusal(device, refusal, by)).await
    }

    async fn is_recorded(&self, device: &DeviceId, certificate: &CertificateId) -> Result<bool, RegistryError> {
        Ok(!self.script.0.forgets && self.inner.is_recorded(device, certificate).await?)
    }

    async fn restore(
        &self,
        device: &Device,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Result<bool, NotRestored>, RegistryError> {
        self.registry_call(self.inner.restore(device, by, now)).await
    }

    async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        self.registry_call(self.inner.find(id)).await
    }

    async fn owner_of(&self, key: &KeyFingerprint) -> Result<Option<DeviceId>, RegistryError> {
        self.registry_call(self.inner.owner_of(key)).await
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
        self.registry_call(self.inner.list(filter, after, limit)).await
    }

    async fn count(&self) -> Result<DeviceCounts, RegistryError> {
        self.registry_call(self.inner.count()).await
    }
}

impl<T: Tombstones> Tombstones for Faulty<T> {
    async fn tombstone(&self, id: &DeviceId, generation: GenerationId) -> Result<Option<Tombstone>, RegistryError> {
        self.registry_call(self.inner.tombstone(id, generation)).await
    }

    async fn forget(&self, id: &DeviceId, generation: GenerationId) -> Result<(), RegistryError> {
        self.registry_call(self.inner.forget(id, generation)).await
    }
}

impl<T: Presences> Presences for Faulty<T> {
    async fn note_presence(&self, device: &DeviceId, presence: &Presence) -> Result<(), RegistryError> {
        self.registry_call(self.inner.note_presence(device, presence)).await
    }

    async fn presences(&self, devices: &[DeviceId]) -> Result<BTreeMap<DeviceId, Presence>, RegistryError> {
        self.registry_call(self.inner.presences(devices)).await
    }

    async fn forget_presence(&self, device: &DeviceId) -> Result<(), RegistryError> {
        self.registry_call(self.inner.forget_presence(device)).await
    }

    async fn count_connected(&self) -> Result<u64, RegistryError> {
        self.registry_call(self.inner.count_connected()).await
    }
}

impl<T: Departures> Departures for Faulty<T> {
    async fn disconnect(&self, client_id: &str) -> Result<(), PlatformError> {
        self.platform_call(self.inner.disconnect(client_id)).await
    }

    async fn remove_thing(&self, thing: &ThingName) -> Result<bool, PlatformError> {
        self.platform_call(self.inner.remove_thing(thing)).await
    }
}

impl<T: ClaimStore> ClaimStore for Faulty<T> {
    async fn look_up(
        &self,
        claim: &CertificateId,
        device: &DeviceId,
    ) -> Result<(Option<Claim>, Option<Device>), RegistryError> {
        self.registry_call(self.inner.look_up(claim, device)).await
    }

    async fn count_claim(&self, user: &TrustedUser, day: i64, quota: u64) -> Result<bool, RegistryError> {
        self.registry_call(self.inner.count_claim(user, day, quota)).await
    }

    async fn find_claim(&self, id: &CertificateId) -> Result<Option<Claim>, RegistryError> {
        self.registry_call(self.inner.find_claim(id)).await
    }

    async fn put_claim(&self, claim: &Claim, found: Option<&Claim>) -> Result<bool, RegistryError> {
        self.registry_call(self.inner.put_claim(claim, found)).await
    }

    async fn claims(&self) -> Result<Vec<Claim>, RegistryError> {
        self.registry_call(self.inner.claims()).await
    }
}

impl<T: CertificateIndex> CertificateIndex for Faulty<T> {
    async fn device_of(&self, certificate: &CertificateId) -> Result<Option<CertificateOwner>, RegistryError> {
        self.registry_call(self.inner.device_of(certificate)).await
    }

    async fn unsettled(&self, limit: u16) -> Result<Vec<UnsettledDevice>, RegistryError> {
        self.registry_call(self.inner.unsettled(limit)).await
    }
}

impl<T: CertificateLedger> CertificateLedger for Faulty<T> {
    async fn enter(&self, entry: &LedgerEntry) -> Result<(), RegistryError> {
        self.registry_call(self.inner.enter(entry)).await
    }

    async fn entry(&self, id: &CertificateId) -> Result<Option<LedgerEntry>, RegistryError> {
        self.registry_call(self.inner.entry(id)).await
    }

    async fn entry_of_serial(&self, issuer: &str, serial: &str) -> Result<Option<LedgerEntry>, RegistryError> {
        self.registry_call(self.inner.entry_of_serial(issuer, serial)).await
    }

    async fn entries_of(&self, thing: &ThingName) -> Result<Vec<LedgerEntry>, RegistryError> {
        self.registry_call(self.inner.entries_of(thing)).await
    }

    async fn set_standing(&self, id: &CertificateId, standing: Standing, now: Timestamp) -> Result<(), RegistryError> {
        self.registry_call(self.inner.set_standing(id, standing, now)).await
    }

    async fn successions_due(&self, now: Timestamp, limit: u16) -> Result<Vec<DeviceId>, RegistryError> {
        self.registry_call(self.inner.successions_due(now, limit)).await
    }

    async fn without_power(&self, issuer: &str, ends_after: Timestamp) -> Result<Vec<LedgerEntry>, RegistryError> {
        self.registry_call(self.inner.without_power(issuer, ends_after)).await
    }
}

impl<T: Cursors> Cursors for Faulty<T> {
    async fn place(&self, name: &str) -> Result<Option<String>, RegistryError> {
        self.registry_call(self.inner.place(name)).await
    }

    async fn move_to(&self, name: &str, place: Option<&str>) -> Result<(), RegistryError> {
        self.registry_call(self.inner.move_to(name, place)).await
    }
}

impl<T: Certificates> Certificates for Faulty<T> {
    async fn describe(&self, certificate: &CertificateId) -> Result<Option<RegisteredCertificate>, PlatformError> {
        self.platform_call(self.inner.describe(certificate)).await
    }

    async fn set_standing(&self, certificate: &CertificateId, standing: Standing) -> Result<(), PlatformError> {
        self.platform_call(self.inner.set_standing(certificate, standing)).await
    }

    async fn things_of(&self, certificate_name: &str) -> Result<Vec<ThingName>, PlatformError> {
        self.platform_call(self.inner.things_of(certificate_name)).await
    }
}

impl<T: Inventory> Inventory for Faulty<T> {
    async fn certificates(
        &self,
        after: Option<&str>,
        limit: u16,
    ) -> Result<InventoryPage<CertificateSummary>, PlatformError> {
        self.platform_call(self.inner.certificates(after, limit)).await
    }

    async fn things(&self, after: Option<&str>, limit: u16) -> Result<InventoryPage<ThingName>, PlatformError> {
        self.platform_call(self.inner.things(after, limit)).await
    }

    async fn all_certificates_of(&self, thing: &ThingName) -> Result<Vec<CertificateId>, PlatformError> {
        self.platform_call(self.inner.all_certificates_of(thing)).await
    }

    async fn has_policy(&self, certificate_name: &str) -> Result<bool, PlatformError> {
        self.platform_call(self.inner.has_policy(certificate_name)).await
    }

    async fn remove(&self, certificate: &CertificateId) -> Result<(), PlatformError> {
        self.platform_call(self.inner.remove(certificate)).await
    }
}

impl<T: ClaimIssuer> ClaimIssuer for Faulty<T> {
    async fn issue_claim(&self, template: &TemplateName) -> Result<IssuedClaim, PlatformError> {
        self.platform_call(self.inner.issue_claim(template)).await
    }
}

impl<T: JobStore> JobStore for Faulty<T> {
    async fn create(&self, job: &Job) -> Result<(), RegistryError> {
        self.registry_call(self.inner.create(job)).await
    }

    async fn find(&self, id: JobId) -> Result<Option<Job>, RegistryError> {
        self.registry_call(self.inner.find(id)).await
    }

    async fn replace(&self, job: &Job, version: u64) -> Result<bool, RegistryError> {
        self.registry_call(self.inner.replace(job, version)).await
    }

    async fn list(&self) -> Result<Vec<Job>, RegistryError> {
        self.registry_call(self.inner.list()).await
    }
}

impl<T: Objects> Objects for Faulty<T> {
    async fn fetch(&self, object: &ObjectPath, etag: Option<&str>, file: &mut File) -> Result<Fetched, ObjectError> {
        self.object_call(self.inner.fetch(object, etag, file)).await
    }

    async fn get(&self, object: &ObjectPath) -> Result<Option<Vec<u8>>, ObjectError> {
        self.object_call(self.inner.get(object)).await
    }

    async fn put(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.object_call(self.inner.put(object, bytes)).await
    }

    async fn put_new(&self, object: &ObjectPath, bytes: Vec<u8>) -> Result<bool, ObjectError> {
        self.object_call(self.inner.put_new(object, bytes)).await
    }

    async fn begin(&self, object: &ObjectPath, job: JobId) -> Result<String, ObjectError> {
        self.object_call(self.inner.begin(object, job)).await
    }

    async fn part(
        &self,
        object: &ObjectPath,
        upload: &str,
        number: usize,
        bytes: Vec<u8>,
    ) -> Result<String, ObjectError> {
        self.object_call(self.inner.part(object, upload, number, bytes)).await
    }

    async fn complete(
        &self,
        object: &ObjectPath,
        upload: &str,
        parts: &[String],
        job: JobId,
    ) -> Result<(), ObjectError> {
        self.object_call(self.inner.complete(object, upload, parts, job)).await
    }

    async fn abort(&self, object: &ObjectPath, upload: &str) -> Result<(), ObjectError> {
        self.object_call(self.inner.abort(object, upload)).await
    }
}
