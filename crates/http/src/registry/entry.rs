//! A device as operators' tools send it, alone or among others.

use cvm_interchange::{AttestationDocument, Authentication, Extension, Keys, optional_object, present};
use cvm_provisioning::{Attestation, Device, ReasonText, Scope, Settings, StatusSetting};
use serde::Deserialize;

use super::failure::Failure;

/// What is set of a device. What is left out stays as it is; what tools send beside it is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DeviceEntry {
    status: Option<String>,
    #[serde(deserialize_with = "present")]
    status_reason: Option<Option<String>>,
    #[serde(deserialize_with = "optional_object")]
    authentication: Option<Authentication>,
    #[serde(deserialize_with = "optional_object")]
    capabilities: Option<CapabilitiesEntry>,
    #[serde(deserialize_with = "present")]
    device_scope: Option<Option<String>>,
    parent_scopes: Option<Vec<Scope>>,
    #[serde(deserialize_with = "optional_object")]
    cvm: Option<Extension>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CapabilitiesEntry {
    iot_edge: Option<bool>,
}

impl DeviceEntry {
    /// What this sets of a device that is `current`, or of a new one, with the keys that may be told in the answer.
    pub(super) fn settings(&self, current: Option<&Device>) -> Result<(Settings, Keys), Failure> {
        let known = current.map(|device| &device.attestation);
        let (attestation, mut keys) = match (&self.authentication, current) {
            (Some(authentication), _) => authentication.attestation(known)?,
            (None, Some(_)) => (None, Keys::default()),
            (None, None) if self.has_attestation() => (None, Keys::default()),
            (None, None) => Authentication::default().attestation(None)?,
        };
        let scope = self.device_scope.as_ref().map(|scope| {
            let scope = scope.as_deref().filter(|scope| !scope.is_empty());
            scope.map(str::parse::<Scope>).transpose()
        });
        let mut settings = Settings {
            status: self.status(current)?,
            attestation: attestation.clone(),
            edge: self.capabilities.as_ref().and_then(|capabilities| capabilities.iot_edge),
            scope: scope.transpose().map_err(|error| Failure::argument(format!("deviceScope: {error}")))?,
            parents: self.parent_scopes.clone(),
            ..Settings::default()
        };
        if let Some(extension) = &self.cvm {
            let mut extension = extension.clone();
            if says_what_is(&extension, known) {
                extension.attestation = None;
            }
            extension.apply(&mut settings)?;
        }
        if settings.attestation != attestation {
            keys = Keys::default();
        }
        Ok((settings, keys))
    }

    /// How it is said to prove itself, in the words of the identity registry.
    pub(super) const fn authentication(&self) -> Option<&Authentication> {
        self.authentication.as_ref()
    }

    /// How `cvm` says that a new device or a module proves itself.
    pub(super) fn attestation_in_full(&self) -> Result<Option<Attestation>, Failure> {
        let said = self.cvm.as_ref().filter(|_| self.has_attestation()).and_then(|cvm| cvm.attestation.as_ref());
        Ok(said.map(AttestationDocument::attestation).transpose()?)
    }

    /// Whether `cvm` says how the device proves itself.
    fn has_attestation(&self) -> bool {
        let said = self.cvm.as_ref().and_then(|extension| extension.attestation.as_ref());
        said.is_some_and(|document| document.kind != "token" || document.token_digest.is_some())
    }

    fn status(&self, current: Option<&Device>) -> Result<Option<StatusSetting>, Failure> {
        let was = current.is_none_or(|device| device.status.enabled);
        let enabled = match self.status.as_deref() {
            None if self.status_reason.is_none() => return Ok(None),
            None => was,
            Some(status) if status.eq_ignore_ascii_case("enabled") => true,
            Some(status) if status.eq_ignore_ascii_case("disabled") => false,
            Some(_) => return Err(Failure::argument("status is enabled or disabled")),
        };
        let reason = match &self.status_reason {
            Some(reason) => reason.as_deref().filter(|reason| !reason.is_empty()).map(str::parse::<ReasonText>),
            None => {
                let kept = current.filter(|_| enabled == was).and_then(|device| device.status.reason.clone());
                kept.map(Ok)
            }
        };
        let reason = reason.transpose().map_err(|error| Failure::argument(format!("statusReason: {error}")))?;
        Ok(Some(StatusSetting { enabled, reason }))
    }
}

/// Whether `cvm` only says again what an answer said of the device, so that it does not outdo `authentication`.
fn says_what_is(extension: &Extension, known: Option<&Attestation>) -> bool {
    let shown = |attestation: &Attestation| AttestationDocument::from(attestation);
    match (&extension.attestation, known) {
        (Some(said), Some(known)) => *said == shown(known),
        _ => false,
    }
}
