//! `/devices/{id}/modules`: the identities on a device.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::{Authentication, Keys, Moment, optional_object, present};
use cvm_provisioning::{
    Attestation, DeviceId, DeviceStore, ETag, Module, ModuleId, ModuleManager, ModuleSettings, OperationError,
    Precondition,
};
use serde::{Deserialize, Serialize};

use super::Registry;
use super::call::Call;
use super::conditions::{self, Put};
use super::failure::Failure;
use super::tagged::{read, tagged};

/// Lost races before a change is given up.
const TRIES: usize = 8;

/// The body of a PUT.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    device_id: Option<String>,
    module_id: Option<String>,
    #[serde(default, deserialize_with = "optional_object")]
    authentication: Option<Authentication>,
    #[serde(default, deserialize_with = "present")]
    managed_by: Option<Option<ModuleManager>>,
}

/// A module as it is told. It has no connection of its own here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ModuleDocument<'a> {
    device_id: &'a DeviceId,
    module_id: &'a ModuleId,
    managed_by: Option<&'a ModuleManager>,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    connection_state_updated_time: Moment,
    last_activity_time: Moment,
    cloud_to_device_message_count: u32,
    authentication: Authentication,
}

impl<'a> ModuleDocument<'a> {
    fn new(device_id: &'a DeviceId, module_id: &'a ModuleId, module: &'a Module, keys: &Keys) -> Self {
        Self {
            device_id,
            module_id,
            managed_by: module.managed_by.as_ref(),
            generation_id: module.generation.to_string(),
            etag: module.etag().to_string(),
            connection_state: "Disconnected",
            connection_state_updated_time: Moment::UNKNOWN,
            last_activity_time: Moment::UNKNOWN,
            cloud_to_device_message_count: 0,
            authentication: Authentication::of(&module.attestation, keys),
        }
    }
}

impl<R: DeviceStore, T> Registry<R, T> {
    pub(super) async fn list_modules(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let device = registry.operations.find(&call.device()?).await?;
        let keys = Keys::default();
        let modules = device.modules.iter().map(|(id, module)| ModuleDocument::new(&device.id, id, module, &keys));
        Ok(Json(modules.collect::<Vec<_>>()).into_response())
    }

    pub(super) async fn read_module(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let (device, id) = (call.device()?, call.module()?);
        let module = registry.module(&device, &id).await?;
        read(&call.headers, &module.etag(), ModuleDocument::new(&device, &id, &module, &Keys::default()))
    }

    pub(super) async fn put_module(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let (device, id) = (call.device()?, call.module()?);
        let put = conditions::put(&call.headers)?;
        let body: Body = call.json()?;
        if body.device_id.as_ref().is_some_and(|named| named != device.as_str())
            || body.module_id.as_ref().is_some_and(|named| named != id.as_str())
        {
            return Err(Failure::argument("the body and the address name two modules"));
        }
        let action = if matches!(put, Put::Create) { "create" } else { "change" };
        let (module, keys) = match put {
            Put::Create => {
                let (attestation, keys) = attestation(body.authentication.as_ref(), None)?;
                let settings = ModuleSettings { attestation, managed_by: body.managed_by };
                let made = registry.operations.create_module(&device, &id, &settings, &call.origin, call.now);
                (made.await?, keys)
            }
            Put::Update(precondition) => registry.change_module(&device, &id, &body, &precondition, &call).await?,
        };
        call.log_decision(action, &device, Some(&id));
        Ok(tagged(&module.etag(), ModuleDocument::new(&device, &id, &module, &keys)))
    }

    pub(super) async fn delete_module(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let (device, id) = (call.device()?, call.module()?);
        let precondition = conditions::delete(&call.headers)?;
        registry.operations.delete_module(&device, &id, &precondition, &call.origin, call.now).await?;
        call.log_decision("delete", &device, Some(&id));
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// What a body means depends on what is there, so the change is for that very state.
    async fn change_module(
        &self,
        device: &DeviceId,
        id: &ModuleId,
        body: &Body,
        precondition: &Precondition,
        call: &Call,
    ) -> Result<(Module, Keys), Failure> {
        for _ in 0..TRIES {
            let found = self.module(device, id).await?;
            let etag: ETag = found.etag();
            if !precondition.holds(&etag) {
                return Err(OperationError::PreconditionFailed.into());
            }
            let (attestation, keys) = attestation(body.authentication.as_ref(), Some(&found))?;
            let settings = ModuleSettings { attestation, managed_by: body.managed_by.clone() };
            let this = Precondition::IsOneOf(vec![etag]);
            let changed = self.operations.change_module(device, id, &this, &settings, &call.origin, call.now).await;
            match changed {
                Ok(module) => return Ok((module, keys)),
                // Somebody else was first; whether that is an error is what the caller's own condition says.
                Err(OperationError::PreconditionFailed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(OperationError::Contended.into())
    }

    async fn module(&self, device: &DeviceId, id: &ModuleId) -> Result<Module, Failure> {
        let mut device = self.operations.find(device).await?;
        Ok(device.modules.remove(id).ok_or(OperationError::ModuleNotFound)?)
    }
}

/// What `authentication` sets of a module that is `current`, or of a new one, with the keys that may be told.
pub(super) fn attestation(
    authentication: Option<&Authentication>,
    current: Option<&Module>,
) -> Result<(Option<Attestation>, Keys), Failure> {
    match (authentication, current) {
        (None, Some(_)) => Ok((None, Keys::default())),
        (authentication, current) => {
            let made = Authentication::default();
            let known = current.map(|module| &module.attestation);
            Ok(authentication.unwrap_or(&made).attestation(known)?)
        }
    }
}
