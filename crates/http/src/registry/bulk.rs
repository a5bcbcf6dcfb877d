//! `POST /devices`: up to a hundred devices and modules at once, each done by itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::{BulkAnswer, BulkError, BulkWarning, IdentityLine, present};
use cvm_provisioning::{
    DeviceId, DeviceStore, ETag, ImportEntry, ImportMode, Imported, ModuleId, ModuleManager, ModuleSettings,
    OperationError, Settings,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

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

impl<R: DeviceStore, T> Registry<R, T> {
    pub(super) async fn import(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&["again", "restore"])?;
        let (again, restores) = (call.flag("again")?, call.flag("restore")?);
        call.check_restore(restores)?;
        let entries: Vec<Entry> = call.json_list()?;
        if entries.is_empty() || entries.len() > MAX_ENTRIES {
            let code = if entries.is_empty() { Code::ArgumentInvalid } else { Code::TooManyDevices };
            return Err(Failure::new(code, format!("send 1 to {MAX_ENTRIES} entries")));
        }
        let exported: Vec<IdentityLine> = if restores { call.json_list()? } else { Vec::new() };
        let mut answer = BulkAnswer::default();
        let mut passing: Option<Failure> = None;
        // One after the other: two of them may be about the same device.
        for (number, entry) in entries.iter().enumerate() {
            let done = match (&passing, exported.get(number)) {
                // Where the registry has no time for one, it has none for the rest of them now.
                (Some(failure), _) => Err(failure.clone()),
                (None, Some(exported)) => registry.restore(exported, &call).await,
                (None, None) => registry.import_entry(entry, again, &call).await,
            };
            if let (Some(action), Ok(id), Ok(module)) =
                (done.as_ref().ok().and_then(action), entry.id(), entry.module())
            {
                call.log_decision(action, &id, module.as_ref());
            }
            answer.cvm.entries.push(done.as_ref().ok().copied());
            match done {
                Ok(_) => answer.warnings.extend(entry.warning()),
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

    /// Does what an entry asks for. Where it may have been done `again`, one that is as it says already is no error.
    async fn import_entry(&self, entry: &Entry, again: bool, call: &Call) -> Result<Imported, Failure> {
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
                let attestation = match entry.device.attestation_in_full()? {
                    None => attestation(entry.device.authentication(), known)?.0,
                    in_full => in_full,
                };
                let managed_by = entry.managed_by.clone();
                (Some((module, ModuleSettings { attestation, managed_by })), Settings::default())
            }
        };
        let entry = ImportEntry { id, module, etag, mode, settings };
        match self.operations.import(&entry, &call.origin, call.now).await {
            Err(OperationError::Registry(error)) => Err(error.into()),
            Err(error) if again => self.operations.was_done(&entry, call.now).await?.ok_or_else(|| error.into()),
            done => Ok(done?),
        }
    }

    /// Puts a device back as an export wrote it.
    async fn restore(&self, exported: &IdentityLine, call: &Call) -> Result<Imported, Failure> {
        let (device, made) = exported.device().map_err(|error| Failure::argument(format!("{error}")))?;
        if made.primary.is_some() || made.secondary.is_some() {
            // Nobody would ever know them.
            return Err(Failure::argument("cvm.attestation lacks tokenDigest, and keys are not made here"));
        }
        Ok(self.operations.restore(&device, &call.origin, call.now).await?)
    }
}

/// What was decided, where something was.
const fn action(imported: &Imported) -> Option<&'static str> {
    match imported {
        Imported::Created => Some("create"),
        Imported::Deleted => Some("delete"),
        Imported::Unchanged => None,
        Imported::Updated => Some("change"),
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
    fn error(&self, number: usize, failure: &Failure) -> BulkError {
        BulkError {
            device_id: self.id().map(String::from).unwrap_or_default(),
            module_id: self.module().ok().flatten().map(String::from),
            error_code: failure.code.name().to_owned(),
            error_status: BulkError::status(number + 1, &failure.message),
        }
    }

    fn warning(&self) -> Option<BulkWarning> {
        let has_twin = self.tags.is_some() || self.properties.is_some();
        has_twin.then(|| BulkWarning {
            device_id: self.id.clone(),
            warning_code: "DeviceRegisteredWithoutTwin".to_owned(),
            warning_status: "tags and properties are not kept here".to_owned(),
        })
    }
}
