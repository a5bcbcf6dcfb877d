//! `POST /devices`: up to a hundred devices and modules at once, each done by itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::present;
use cvm_provisioning::{
    DeviceId, DeviceStore, ETag, ImportEntry, ImportMode, ModuleId, ModuleManager, ModuleSettings, Settings,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Registry;
use super::call::Call;
use super::entry::DeviceEntry;
use super::failure::{Code, Failure};
use super::modules::attestation;

/// The most entries in a request.
const MAX_ENTRIES: usize = 100;

/// One entry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: String,
    module_id: Option<String>,
    e_tag: Option<String>,
    import_mode: Option<String>,
    #[serde(default, deserialize_with = "present")]
    managed_by: Option<Option<ModuleManager>>,
    tags: Option<IgnoredAny>,
    properties: Option<IgnoredAny>,
    #[serde(flatten)]
    device: DeviceEntry,
}

/// What became of all of them.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    is_successful: bool,
    errors: Vec<EntryError>,
    warnings: Vec<EntryWarning>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryError {
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    error_code: &'static str,
    error_status: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryWarning {
    device_id: String,
    warning_code: &'static str,
    warning_status: &'static str,
}

impl<R: DeviceStore, T> Registry<R, T> {
    pub(super) async fn import(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let entries: Vec<Entry> = call.json()?;
        if entries.is_empty() || entries.len() > MAX_ENTRIES {
            let code = if entries.is_empty() { Code::ArgumentInvalid } else { Code::TooManyDevices };
            return Err(Failure::new(code, format!("send 1 to {MAX_ENTRIES} entries")));
        }
        let mut answer = Answer::default();
        let mut passing: Option<Failure> = None;
        // One after the other: two of them may be about the same device.
        for (number, entry) in entries.iter().enumerate() {
            // Where the registry has no time for one, it has none for the rest of them now.
            let done = match &passing {
                Some(failure) => Err(failure.clone()),
                None => registry.import_entry(entry, &call).await,
            };
            match done {
                Ok(()) => answer.warnings.extend(entry.warning()),
                Err(failure) => {
                    answer.errors.push(entry.error(number, &failure));
                    passing = passing.or_else(|| failure.code.is_for_now().then_some(failure));
                }
            }
        }
        answer.is_successful = answer.errors.is_empty();
        let status = if answer.is_successful { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        Ok((status, Json(answer)).into_response())
    }

    async fn import_entry(&self, entry: &Entry, call: &Call) -> Result<(), Failure> {
        let id = entry.id()?;
        let module = entry.module()?;
        let mode: ImportMode = match entry.import_mode.as_deref() {
            None => ImportMode::default(),
            Some(mode) => mode.parse().map_err(|error| Failure::argument(format!("{error}")))?,
        };
        let etag: Option<ETag> = match entry.e_tag.as_deref().filter(|etag| !etag.is_empty()) {
            None => None,
            Some(etag) => Some(etag.parse().map_err(|error| Failure::argument(format!("{error}")))?),
        };
        let current = self.operations.registry.find(&id).await?;
        let (module, settings) = match module {
            None => (None, entry.device.settings(current.as_ref())?.0),
            Some(module) => {
                let known = current.as_ref().and_then(|device| device.modules.get(&module));
                let (attestation, _) = attestation(entry.device.authentication(), known)?;
                let managed_by = entry.managed_by.clone();
                (Some((module, ModuleSettings { attestation, managed_by })), Settings::default())
            }
        };
        let entry = ImportEntry { id, module, etag, mode, settings };
        self.operations.import(&entry, &call.origin, call.now).await?;
        Ok(())
    }
}

impl Entry {
    fn id(&self) -> Result<DeviceId, Failure> {
        self.id.parse().map_err(|error| Failure::argument(format!("{error}")))
    }

    fn module(&self) -> Result<Option<ModuleId>, Failure> {
        let named = self.module_id.as_deref().filter(|id| !id.is_empty());
        named.map(str::parse).transpose().map_err(|error| Failure::argument(format!("{error}")))
    }

    /// What cannot be an id is not said again.
    fn error(&self, number: usize, failure: &Failure) -> EntryError {
        EntryError {
            device_id: self.id().map(String::from).unwrap_or_default(),
            module_id: self.module().ok().flatten().map(String::from),
            error_code: failure.code.name(),
            error_status: format!("entry {}: {}", number + 1, failure.message),
        }
    }

    fn warning(&self) -> Option<EntryWarning> {
        let has_twin = self.tags.is_some() || self.properties.is_some();
        has_twin.then(|| EntryWarning {
            device_id: self.id.clone(),
            warning_code: "DeviceRegisteredWithoutTwin",
            warning_status: "tags and properties are not kept here",
        })
    }
}
