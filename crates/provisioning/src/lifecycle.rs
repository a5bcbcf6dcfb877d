//! What follows from a write to the registry, whoever made it: it is written down for good, whoever listens is told, and
//! the platform is brought in line.

use std::error::Error;
use std::time::Duration;

use crate::{
    Actor, Audit, CertificateId, Certificates, Departures, DeviceId, DeviceStore, Enforce, EnforceError, GenerationId,
    KeyFingerprint, ModuleId, Notice, NoticeKind, Origin, Platform, PlatformError, Presences, RecentActivity,
    RegistryError, RegistryWrite, ThingName, Timestamp, Tombstones,
};

/// The lifecycle of devices, with what it needs.
#[derive(Debug)]
pub struct Lifecycle<R, P, A, T, B> {
    /// The device registry.
    pub registry: R,
    /// The platform.
    pub platform: P,
    /// The log.
    pub audit: A,
    /// Where everything that happened is kept.
    pub trail: T,
    /// Where everything that happened is told.
    pub bus: B,
}

/// One thing that happened, as it is kept: who, what, by which door, why, with which key. Nothing secret has a field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEntry {
    /// Tells it from every other, and is the same however often the same thing is told.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// The device.
    pub device: DeviceId,
    /// Which of those that have had the id.
    pub generation: Option<GenerationId>,
    /// The module that it is about.
    pub module: Option<ModuleId>,
    /// What happened: the name of a [`NoticeKind`].
    pub action: String,
    /// Why.
    pub reason: Option<String>,
    /// The key that was shown, or that the certificate is for.
    pub key: Option<KeyFingerprint>,
    /// The certificate that it is about.
    pub certificate: Option<CertificateId>,
    /// The thing that it is about.
    pub thing: Option<ThingName>,
    /// What an operator changed.
    pub changed: Vec<String>,
    /// How many times it happened since the entry before it that is of the same.
    pub count: u32,
    /// The door.
    pub door: Option<String>,
    /// The request's id at that door.
    pub request_id: Option<String>,
    /// The network address that it came from.
    pub source: Option<String>,
    /// Who asked.
    pub actor: Option<String>,
}

impl AuditEntry {
    /// What is kept of a write, in its order.
    pub fn of(write: &RegistryWrite) -> Vec<Self> {
        let notices = write.notices().into_iter().enumerate();
        notices.map(|(number, notice)| Self::new(write, number, notice)).collect()
    }

    /// What is kept of `notice`, number `number` of those that `write` means.
    fn new(write: &RegistryWrite, number: usize, notice: Notice) -> Self {
        let by = write.by.as_ref();
        Self {
            id: format!("{}-{number}", write.id),
            at: write.at,
            device: notice.device,
            generation: Some(notice.generation),
            module: notice.module,
            action: notice.kind.name().to_owned(),
            reason: notice.reason,
            key: notice.key,
            certificate: notice.certificate,
            thing: notice.thing,
            changed: notice.changed.into_iter().map(str::to_owned).collect(),
            count: notice.count,
            door: by.map(|by| by.door.name().to_owned()),
            request_id: by.map(|by| by.request_id.clone()),
            source: by.and_then(|by| by.source.clone()),
            actor: by.and_then(|by| by.actor.as_ref()).map(|actor: &Actor| actor.as_str().to_owned()),
        }
    }
}

/// Where everything that happened is kept: written once, read by device or by time, never changed.
pub trait AuditTrail: Send + Sync {
    /// Keeps these. One that is there already stays as it is.
    fn append(&self, entries: &[AuditEntry]) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// At most `limit` entries, the latest first.
    fn entries(
        &self,
        query: &AuditQuery,
        after: Option<&str>,
        limit: u16,
    ) -> impl Future<Output = Result<AuditPage, RegistryError>> + Send;

    /// Whether a text has the form of where a page of this trail ends: a number and `#`, and what the trail adds.
    fn is_place(&self, text: &str) -> bool {
        let number = text.split_once('#').map(|(number, _)| number);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// What happened in the last day, of which at most the latest [`MAX_COUNTED`](Self::MAX_COUNTED) entries are counted. A
    /// trail that can count faster than by reading every entry does.
    fn recently(&self, now: Timestamp) -> impl Future<Output = Result<RecentActivity, RegistryError>> + Send {
        async move {
            let query = AuditQuery::of_last_day(now);
            let mut recently = RecentActivity::default();
            let (mut after, mut seen) = (None::<String>, 0);
            loop {
                let page = self.entries(&query, after.as_deref(), 1_000).await?;
                page.entries.iter().for_each(|entry| recently.add(entry, now));
                seen += page.entries.len();
                after = page.next;
                if after.is_none() || seen >= Self::MAX_COUNTED {
                    return Ok(recently);
                }
            }
        }
    }

    /// The most entries that [`recently`](Self::recently) counts: a day of a fleet in trouble.
    const MAX_COUNTED: usize = 100_000;
}

/// Which entries of the trail are asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditQuery {
    /// Those of this device; `None` is those of all.
    pub device: Option<DeviceId>,
    /// From this moment on.
    pub since: Timestamp,
    /// Up to this moment, and not at it.
    pub until: Timestamp,
}

impl AuditQuery {
    /// The last day of all devices, this second included.
    pub fn of_last_day(now: Timestamp) -> Self {
        Self { device: None, since: now.before(RecentActivity::DAY), until: now.after(Duration::from_secs(1)) }
    }
}

/// A page of the trail.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditPage {
    /// What is on it; there may be nothing although more pages follow.
    pub entries: Vec<AuditEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Whoever listens.
pub trait Bus: Send + Sync {
    /// Tells what happened, in this order. It may be told again, with the same ids.
    fn tell(&self, entries: &[AuditEntry]) -> impl Future<Output = Result<(), BusError>> + Send;

    /// Puts a write aside that nothing can be done about, for a person to look at, so that those after it go on.
    fn put_aside(&self, write: &str, reason: &str) -> impl Future<Output = Result<(), BusError>> + Send;
}

/// Nobody could be told.
#[derive(Debug, thiserror::Error)]
#[error("the event bus did not take an event")]
pub struct BusError {
    /// What happened.
    pub source: Box<dyn Error + Send + Sync>,
}

/// Where, in a row of writes, the lifecycle got stuck.
#[derive(Debug, thiserror::Error)]
#[error("write {index} of a row was not followed up")]
pub struct Stuck {
    /// The first write that has to be told again; those before it are done.
    pub index: usize,
    /// Why.
    pub source: LifecycleError,
}

/// Why a write was not followed up yet; it can be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// Nobody could be told.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The platform was not brought in line.
    #[error(transparent)]
    Enforce(#[from] EnforceError),
    /// It was not written down.
    #[error(transparent)]
    Trail(#[from] RegistryError),
}

impl<R, P, A, T, B> Lifecycle<R, P, A, T, B>
where
    R: DeviceStore + Presences + Tombstones,
    P: Certificates + Departures + Platform,
    A: Audit,
    T: AuditTrail,
    B: Bus,
{
    /// Follows up some writes, in their order. Again is the same as once, but for what is told twice under one id. What
    /// the platform refuses however often it is asked is put aside: the reconciler comes back to it.
    ///
    /// # Errors
    ///
    /// [`Stuck`], with the first write that is to be followed up again.
    pub async fn follow_up(&self, writes: &[RegistryWrite], origin: &Origin) -> Result<(), Stuck> {
        let stuck = |index| move |source: LifecycleError| Stuck { index, source };
        let entries: Vec<_> = writes.iter().flat_map(AuditEntry::of).collect();
        // The log has refusals and what became of attempts already, from the doors; what operators did is only here.
        let by_operator =
            |entry: &&AuditEntry| NoticeKind::of_name(&entry.action).is_some_and(NoticeKind::is_by_operator);
        for entry in entries.iter().filter(by_operator) {
            tracing::info!(
                target: "audit",
                outcome = entry.action,
                door = entry.door,
                request_id = entry.request_id,
                source = entry.source,
                actor = entry.actor,
                device = %entry.device,
                reason = entry.reason,
            );
        }
        self.trail.append(&entries).await.map_err(|error| stuck(0)(error.into()))?;
        self.bus.tell(&entries).await.map_err(|error| stuck(0)(error.into()))?;
        for (index, write) in writes.iter().enumerate().filter(|(_, write)| write.is_to_be_enforced()) {
            match Box::pin(self.enforce(write, origin)).await {
                Err(EnforceError::Platform(
                    error @ (PlatformError::Refused { .. } | PlatformError::Defective { .. }),
                )) => {
                    let cause: &dyn Error = &error;
                    tracing::error!(write = write.id, error = cause, "an operator's decision was not enforced");
                    let reason = error.to_string();
                    let aside = self.bus.put_aside(&write.id, &reason).await;
                    aside.map_err(|error| stuck(index)(error.into()))?;
                }
                enforced => enforced.map_err(|error| stuck(index)(error.into()))?,
            }
        }
        Ok(())
    }

    async fn enforce(&self, write: &RegistryWrite, origin: &Origin) -> Result<(), EnforceError> {
        let enforce = Enforce { registry: &self.registry, platform: &self.platform, audit: &self.audit };
        match (&write.before, &write.after) {
            (_, Some(device)) => enforce.status(&device.id, origin).await,
            (Some(deleted), None) => enforce.deletion(&deleted.id, deleted.generation, origin).await,
            (None, None) => Ok(()),
        }
    }
}
