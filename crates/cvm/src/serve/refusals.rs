//! Refused devices, counted and, where they are not registered, kept for operators to see.
//!
//! A door only logs a refusal and puts it into a queue, whatever its reason: the rest is done by a task beside it, so that the
//! time an answer takes says nothing about the device.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cvm_provisioning::{
    Audit, AuditRecord, Denial, LogAudit, Outcome, RegistryError, Timestamp, UnknownAttempt, UnknownDeviceStore,
    UnknownDevices,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::metrics::Metrics;
use super::now;

/// How often unknown devices are written to the registry.
const INTERVAL: Duration = Duration::from_secs(10);
/// Refusals that wait to be looked at. Of more than that only the number is kept.
const WAITING: usize = 4_096;

/// Logs decisions, and passes refusals on to the [`Recorder`]. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Refusals {
    queue: mpsc::Sender<Message>,
    lost: Arc<AtomicU64>,
    metrics: Metrics,
}

/// Keeps what [`Refusals`] pass on.
#[derive(Debug)]
pub(super) struct Recorder {
    queue: mpsc::Receiver<Message>,
    lost: Arc<AtomicU64>,
    noted: UnknownDevices,
}

#[derive(Debug)]
enum Message {
    /// A device was refused; `is_unknown` says whether because it is not registered.
    Refused { is_unknown: bool, attempt: UnknownAttempt },
    /// Somebody asks for the unknown devices.
    Read(oneshot::Sender<Result<UnknownDevices, RegistryError>>),
}

pub(super) fn refusals(metrics: Metrics) -> (Refusals, Recorder) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let lost = Arc::<AtomicU64>::default();
    let recorder = Recorder { queue: receiver, lost: Arc::clone(&lost), noted: UnknownDevices::default() };
    (Refusals { queue: sender, lost, metrics }, recorder)
}

impl Refusals {
    /// The unknown devices, the very last one included. Afterwards they are in the registry.
    pub(super) async fn unknown_devices(&self) -> Result<UnknownDevices, RegistryError> {
        let ended = || RegistryError::Unavailable { source: "the server is being ended".into() };
        let (answer, answered) = oneshot::channel();
        self.queue.send(Message::Read(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Audit for Refusals {
    fn record(&self, record: &AuditRecord<'_>) {
        LogAudit.record(record);
        let reason = match record.outcome {
            Outcome::Refused { reason, .. } => reason,
            Outcome::Quarantined { .. } => Denial::Cloned.code(),
            _ => return,
        };
        let denial = Denial::from_code(reason);
        let door = record.origin.door.name();
        self.metrics.refused(door, denial.map_or("other", Denial::code));
        let Some(device) = record.device else { return };
        let attempt = UnknownAttempt {
            device: device.clone(),
            door: door.to_owned(),
            source: record.origin.source.clone(),
            at: now(),
        };
        let message = Message::Refused { is_unknown: denial == Some(Denial::Unknown), attempt };
        if self.queue.try_send(message).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Recorder {
    /// Works until all [`Refusals`] are gone.
    pub(super) async fn work(mut self, store: impl UnknownDeviceStore) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.queue.recv() => match message {
                    Some(Message::Refused { is_unknown: true, attempt }) => self.noted.note(attempt),
                    Some(Message::Refused { is_unknown: false, .. }) => {}
                    Some(Message::Read(answer)) => {
                        self.write(&store).await;
                        let _ = answer.send(self.read(&store).await);
                    }
                    None => return self.write(&store).await,
                },
                _ = interval.tick() => self.write(&store).await,
            }
        }
    }

    /// Moves what was noted into the registry. If that fails, it is kept, within its bounds, until the next time.
    async fn write(&mut self, store: &impl UnknownDeviceStore) {
        self.noted.note_lost(self.lost.swap(0, Ordering::Relaxed), now());
        if self.noted.is_empty() {
            return;
        }
        match store.note_unknown(&self.noted, now()).await {
            Ok(()) => self.noted = UnknownDevices::default(),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "could not record devices that are not registered; retrying");
            }
        }
    }

    async fn read(&self, store: &impl UnknownDeviceStore) -> Result<UnknownDevices, RegistryError> {
        let mut unknown = store.unknown_devices().await?;
        unknown.merge(&self.noted, now());
        Ok(unknown)
    }
}

/// Unknown devices in the memory of this server, where its registry is a table that has no place for them.
#[derive(Debug, Default)]
pub(super) struct InMemory(Mutex<UnknownDevices>);

impl UnknownDeviceStore for InMemory {
    async fn note_unknown(&self, newer: &UnknownDevices, now: Timestamp) -> Result<(), RegistryError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).merge(newer, now);
        Ok(())
    }

    async fn unknown_devices(&self) -> Result<UnknownDevices, RegistryError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{DeviceId, Door, Origin};

    use super::*;

    fn refuse(refusals: &Refusals, device: &str, denial: Denial) {
        let device: DeviceId = device.parse().unwrap();
        let origin = Origin { source: Some("192.0.2.1".to_owned()), ..Origin::new(Door::Vend, "request".to_owned()) };
        let outcome = Outcome::Refused { reason: denial.code(), advice: denial.advice() };
        refusals.record(&AuditRecord { origin: &origin, device: Some(&device), key: None, outcome });
    }

    #[tokio::test]
    async fn a_device_that_is_not_registered_is_kept_and_another_is_not() {
        let (refusals, recorder) = refusals(Metrics::new());
        let task = tokio::spawn(recorder.work(InMemory::default()));
        refuse(&refusals, "sn-1", Denial::Unknown);
        refuse(&refusals, "sn-2", Denial::WrongProof);
        refuse(&refusals, "sn-1", Denial::Unknown);
        let unknown = refusals.unknown_devices().await.unwrap();
        let [(id, device)] = unknown.latest()[..] else { panic!("{unknown:?}") };
        assert_eq!((id.as_str(), device.attempts, device.door.as_str()), ("sn-1", 2, "vend"));
        drop(refusals);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn threat_02_more_than_the_queue_takes_is_counted_and_holds_nobody_up() {
        let (refusals, recorder) = refusals(Metrics::new());
        for number in 0..WAITING + 100 {
            refuse(&refusals, &format!("sn-{number}"), Denial::Unknown);
        }
        tokio::spawn(recorder.work(InMemory::default()));
        let unknown = refusals.unknown_devices().await.unwrap();
        assert_eq!(unknown.since(now()).attempts, WAITING as u64 + 100);
        assert_eq!(unknown.devices.len(), UnknownDevices::MAX_DEVICES);
        assert_eq!(unknown.since(now()).evicted, (WAITING + 100 - UnknownDevices::MAX_DEVICES) as u64);
    }

    #[tokio::test]
    async fn what_the_registry_did_not_take_is_written_again() {
        struct Broken;
        impl UnknownDeviceStore for Broken {
            async fn note_unknown(&self, _: &UnknownDevices, _: Timestamp) -> Result<(), RegistryError> {
                Err(RegistryError::Unavailable { source: "scripted".into() })
            }

            async fn unknown_devices(&self) -> Result<UnknownDevices, RegistryError> {
                Ok(UnknownDevices::default())
            }
        }
        let (refusals, recorder) = refusals(Metrics::new());
        tokio::spawn(recorder.work(Broken));
        refuse(&refusals, "sn-1", Denial::Unknown);
        for _ in 0..2 {
            assert_eq!(refusals.unknown_devices().await.unwrap().devices.len(), 1);
        }
    }
}
