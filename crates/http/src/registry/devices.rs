//! `/devices/{id}`: one device.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use cvm_interchange::{DeviceDocument, Keys};
use cvm_provisioning::{Device, DeviceStore, OperationError, Presences, ReasonText, Verdict};
use serde::Deserialize;

use super::Registry;
use super::call::Call;
use super::conditions::{self, Put};
use super::entry::DeviceEntry;
use super::failure::Failure;
use super::tagged::{read, tagged};

/// The body of a PUT.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    device_id: Option<String>,
    #[serde(flatten)]
    entry: DeviceEntry,
}

/// What a person decides about a device in quarantine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Approval {
    keep_certificate: bool,
}

/// Why a device is refused from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: String,
}

impl Why {
    fn of(call: &Call) -> Result<ReasonText, Failure> {
        let Self { reason } = call.json()?;
        reason.parse().map_err(|error| Failure::argument(format!("reason: {error}")))
    }
}

impl<R: DeviceStore + Presences, T> Registry<R, T> {
    pub(super) async fn read_device(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let device = registry.operations.find(&call.device()?).await?;
        let presences = registry.operations.registry.presences(std::slice::from_ref(&device.id)).await?;
        let document = DeviceDocument::new(&device, presences.get(&device.id), &Keys::default());
        read(&call.headers, &device.etag(), document)
    }

    pub(super) async fn put_device(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let id = call.device()?;
        let put = conditions::put(&call.headers)?;
        let body: Body = call.json()?;
        if body.device_id.is_some_and(|named| named != id.as_str()) {
            return Err(Failure::argument("the body and the address name two devices"));
        }
        let action = if matches!(put, Put::Create) { "create" } else { "change" };
        let (device, keys) = match put {
            Put::Create => {
                let (settings, keys) = body.entry.settings(None)?;
                (registry.operations.create(id, settings, &call.origin, call.now).await?, keys)
            }
            Put::Update(precondition) => {
                let (mut keys, mut invalid) = (Keys::default(), None);
                let changed = registry.operations.change(&id, &precondition, &call.origin, |device| {
                    let settings = match body.entry.settings(Some(device)) {
                        Ok((settings, set)) => {
                            keys = set;
                            settings
                        }
                        Err(failure) => {
                            invalid = Some(failure);
                            // It ends the change; what is answered is why.
                            return Err(OperationError::PreconditionFailed);
                        }
                    };
                    Ok(settings.apply(device, call.now)?)
                });
                let changed = changed.await;
                if let Some(failure) = invalid {
                    return Err(failure);
                }
                (changed?, keys)
            }
        };
        call.log_decision(action, &device.id, None);
        Ok(registry.written(&device, &keys).await)
    }

    pub(super) async fn delete_device(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        call.takes(&[])?;
        let id = call.device()?;
        let precondition = conditions::delete(&call.headers)?;
        registry.operations.delete(&id, &precondition, &call.origin, call.now).await?;
        call.log_decision("delete", &id, None);
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    pub(super) async fn approve(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        let Approval { keep_certificate } = call.json()?;
        let (verdict, action) = match keep_certificate {
            true => (Verdict::KeepCertificate, "approve-keep"),
            false => (Verdict::AdmitNextKey, "approve"),
        };
        registry.decide(&call, action, |device| Ok(device.approve(verdict, call.now)?)).await
    }

    pub(super) async fn disable(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        let reason = Why::of(&call)?;
        registry
            .decide(&call, "disable", |device| {
                device.disable(Some(reason.clone()), call.now);
                Ok(())
            })
            .await
    }

    pub(super) async fn enable(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        registry
            .decide(&call, "enable", |device| {
                device.enable(None, call.now);
                Ok(())
            })
            .await
    }

    pub(super) async fn renew(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        registry.decide(&call, "renew", |device| Ok(device.renew(call.now)?)).await
    }

    pub(super) async fn revoke(State(registry): State<Arc<Self>>, call: Call) -> Result<Response, Failure> {
        let reason = Why::of(&call)?;
        registry.decide(&call, "revoke", |device| Ok(device.revoke(reason.clone(), call.now)?)).await
    }

    async fn decide(
        &self,
        call: &Call,
        action: &'static str,
        change: impl FnMut(&mut Device) -> Result<(), OperationError>,
    ) -> Result<Response, Failure> {
        call.takes(&[])?;
        let precondition = conditions::optional(&call.headers)?;
        let device = self.operations.change(&call.device()?, &precondition, &call.origin, change).await?;
        call.log_decision(action, &device.id, None);
        Ok(self.written(&device, &Keys::default()).await)
    }

    /// The answer to a write. It is given even where it cannot be told who is connected: the keys in it are told once.
    async fn written(&self, device: &Device, keys: &Keys) -> Response {
        let presences = self.operations.registry.presences(std::slice::from_ref(&device.id)).await;
        let presences = presences.unwrap_or_else(|error| {
            let error: &dyn Error = &error;
            tracing::warn!(error, "who is connected was not told");
            BTreeMap::new()
        });
        tagged(&device.etag(), DeviceDocument::new(device, presences.get(&device.id), keys))
    }
}
