//! Lifecycle notifications on EventBridge.

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use cvm_provisioning::{AuditEntry, Bus, BusError};
use serde::Serialize;

/// The most events that PutEvents takes (Amazon EventBridge API reference).
const BATCH: usize = 10;
/// The `detail-type` of what a rule of the stack sends to the dead-letter queue.
const PUT_ASIDE: &str = "Write Put Aside";
/// The `source` of every event.
const SOURCE: &str = "cvm";

/// An event bus of EventBridge.
#[derive(Clone, Debug)]
pub struct EventBridge {
    client: Client,
    bus: String,
}

impl EventBridge {
    /// The bus of this name or ARN.
    pub fn new(client: Client, bus: impl Into<String>) -> Self {
        Self { client, bus: bus.into() }
    }
}

/// The `detail` of an event; `schemas/lifecycle-event.schema.json` says what the fields are.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    id: &'a str,
    action: &'a str,
    /// What Azure IoT Hub calls it, where it has a word for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    op_type: Option<&'static str>,
    operation_timestamp: String,
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_name: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    changed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    door: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
}

impl Bus for EventBridge {
    async fn tell(&self, entries: &[AuditEntry]) -> Result<(), BusError> {
        for batch in entries.chunks(BATCH) {
            let events = batch.iter().map(|entry| self.event(entry)).collect::<Result<_, _>>();
            let events = events.map_err(|error| BusError { source: error.into() })?;
            self.put(events).await?;
        }
        Ok(())
    }

    async fn put_aside(&self, write: &str, reason: &str) -> Result<(), BusError> {
        let detail =
            serde_json::to_string(&Aside { write, reason }).map_err(|error| BusError { source: error.into() })?;
        let event = PutEventsRequestEntry::builder()
            .event_bus_name(&self.bus)
            .source(SOURCE)
            .detail_type(PUT_ASIDE)
            .detail(detail)
            .build();
        self.put(vec![event]).await
    }
}

/// What stands in the dead-letter queue for a write that nothing can be done about.
#[derive(Serialize)]
struct Aside<'a> {
    write: &'a str,
    reason: &'a str,
}

impl EventBridge {
    async fn put(&self, events: Vec<PutEventsRequestEntry>) -> Result<(), BusError> {
        let output = self.client.put_events().set_entries(Some(events)).send().await;
        let output = output.map_err(|error| BusError { source: error.into() })?;
        // One that failed is told again with all beside it: whoever listens knows an event by its id.
        match output.entries().iter().find_map(|entry| entry.error_code()) {
            Some(failed) => Err(BusError { source: format!("EventBridge says {failed}").into() }),
            None => Ok(()),
        }
    }

    fn event(&self, entry: &AuditEntry) -> Result<PutEventsRequestEntry, serde_json::Error> {
        let detail = serde_json::to_string(&Detail::from(entry))?;
        let subject = if entry.module.is_some() { "Module" } else { "Device" };
        let what = entry.action.strip_prefix("module-").unwrap_or(&entry.action);
        let mut letters = what.chars();
        let what: String = letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
        Ok(PutEventsRequestEntry::builder()
            .event_bus_name(&self.bus)
            .source(SOURCE)
            .detail_type(format!("{subject} {what}"))
            .time(DateTime::from_secs(entry.at.seconds()))
            .detail(detail)
            .build())
    }
}

impl<'a> From<&'a AuditEntry> for Detail<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        Self {
            id: &entry.id,
            action: &entry.action,
            op_type: match entry.action.as_str() {
                "created" => Some("createDeviceIdentity"),
                "deleted" => Some("deleteDeviceIdentity"),
                "module-created" => Some("createModuleIdentity"),
                "module-deleted" => Some("deleteModuleIdentity"),
                _ => None,
            },
            operation_timestamp: entry.at.to_string(),
            device_id: entry.device.as_str(),
            generation_id: entry.generation.map(|generation| generation.to_string()),
            module_id: entry.module.as_ref().map(|module| module.as_str()),
            reason: entry.reason.as_deref(),
            key: entry.key.map(|key| key.to_string()),
            certificate_id: entry.certificate.map(|certificate| certificate.to_string()),
            thing_name: entry.thing.as_ref().map(|thing| thing.as_str()),
            changed: &entry.changed,
            count: Some(entry.count).filter(|count| *count > 1),
            door: entry.door.as_deref(),
            request_id: entry.request_id.as_deref(),
            actor: entry.actor.as_deref(),
        }
    }
}
