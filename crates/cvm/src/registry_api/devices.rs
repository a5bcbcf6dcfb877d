//! `cvm device` on a server.

use cvm_bulk::ExportFormat;
use cvm_interchange::{DeviceDocument, IdentityLine, UnknownDeviceTold, spreadsheet_row};
use cvm_provisioning::{DeviceFilter, DeviceId, ETag, ImportEntry, ImportMode, Settings, State, Timestamp, Verdict};
use reqwest::{Method, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;

use super::ask::{Answer, Ask, Repeat};
use super::refusal::{Changing, of_device};
use super::{ApiError, RegistryApi};
use crate::device::{Change, DeviceError, DeviceRegistry, Exported, Listed};
use crate::output::shell_word;

impl DeviceRegistry for RegistryApi<'_> {
    fn vending_words(&self) -> String {
        let url = shell_word(&self.address.to_string());
        match &self.root_ca {
            Some(path) => format!("--url {url} --root-ca {}", shell_word(&path.display().to_string())),
            None => format!("--url {url}"),
        }
    }

    async fn add(&self, id: &DeviceId, settings: &Settings) -> Result<DeviceDocument, DeviceError> {
        let entry = ImportEntry {
            id: id.clone(),
            module: None,
            etag: None,
            mode: ImportMode::Create,
            settings: settings.clone(),
        };
        self.create(&entry).await?;
        let found = self.find(id).await;
        found.map_err(|source| DeviceError::Unread { id: id.clone(), source: Box::new(source) })
    }

    async fn find(&self, id: &DeviceId) -> Result<DeviceDocument, DeviceError> {
        let ask = self.request(Method::GET, &of_device(id, None));
        self.device(id, &ask, Repeat::Safe, Changing::Other).await
    }

    async fn unknown(&self, id: &DeviceId) -> Result<Option<UnknownDeviceTold>, DeviceError> {
        let unknown = self.unknown_devices(Some(id), 1).await?;
        Ok(unknown.and_then(|unknown| unknown.devices.into_iter().find(|device| device.device_id == *id)))
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&str>, limit: u16) -> Result<Listed, DeviceError> {
        let ask = filtered(self.request(Method::GET, &["devices"]), filter, after, limit);
        let answer = self.ask(&ask, Repeat::Safe).await?.done()?;
        let devices: Vec<DeviceDocument> = answer.json()?;
        devices.iter().try_for_each(understood)?;
        Ok(Listed { devices, next: answer.next(after)? })
    }

    async fn export(
        &self,
        filter: &DeviceFilter,
        after: Option<&str>,
        limit: u16,
        format: ExportFormat,
        digests: bool,
    ) -> Result<Exported, DeviceError> {
        if format == ExportFormat::Csv {
            let Listed { devices, next } = self.list(filter, after, limit).await?;
            let text = devices.iter().map(spreadsheet_row).collect::<String>().into_bytes();
            return Ok(Exported { text, devices: devices.len() as u64, next });
        }
        let ask = filtered(self.request(Method::POST, &["devices", "export"]), filter, after, limit);
        let ask = ask.json(json!({ "excludeDigests": !digests }).to_string());
        let answer = self.ask(&ask, Repeat::Safe).await?.done()?;
        let (text, devices) = lines(&answer)?;
        Ok(Exported { text, devices, next: answer.next(after)? })
    }

    async fn change(
        &self,
        id: &DeviceId,
        change: &Change,
        expected: Option<&ETag>,
    ) -> Result<DeviceDocument, DeviceError> {
        let post = |verb| self.request(Method::POST, &of_device(id, Some(verb))).if_match(expected);
        let (ask, repeat, changing) = match change {
            Change::Approve(verdict) => {
                let body = json!({ "keepCertificate": *verdict == Verdict::KeepCertificate });
                (post("approve").json(body.to_string()), Repeat::Unsafe, Changing::Approve)
            }
            Change::Disable(reason) => {
                let body = json!({ "reason": reason.to_string() });
                (post("disable").json(body.to_string()), Repeat::Safe, Changing::Other)
            }
            Change::Enable => (post("enable"), Repeat::Safe, Changing::Other),
            Change::Renew => (post("renew"), Repeat::Unsafe, Changing::Renew),
            Change::Revoke(reason) => {
                let body = json!({ "reason": reason.to_string() });
                (post("revoke").json(body.to_string()), Repeat::Safe, Changing::Revoke)
            }
        };
        // Asked again, a change that was made would find another entity tag.
        let repeat = if expected.is_some() { Repeat::Unsafe } else { repeat };
        self.device(id, &ask, repeat, changing).await
    }

    async fn delete(&self, id: &DeviceId, expected: Option<&ETag>) -> Result<(), DeviceError> {
        let ask = self.request(Method::DELETE, &of_device(id, None)).if_match(expected);
        let answer = self.ask(&ask, Repeat::Unsafe).await?;
        of(id, &answer, Changing::Other)?;
        match answer.done()?.status() {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(ApiError::not_understood("it does not say that the device is gone").into()),
        }
    }
}

impl RegistryApi<'_> {
    /// The device that is answered.
    async fn device(
        &self,
        id: &DeviceId,
        ask: &Ask,
        repeat: Repeat,
        changing: Changing,
    ) -> Result<DeviceDocument, DeviceError> {
        let answer = self.ask(ask, repeat).await?;
        of(id, &answer, changing)?;
        let device: DeviceDocument = answer.done()?.json()?;
        understood(&device)?;
        match device.device_id == *id {
            true => Ok(device),
            false => Err(ApiError::not_understood("it is about another device").into()),
        }
    }
}

/// What the registry has to say of a device that it did not change, as a table says it.
fn of(id: &DeviceId, answer: &Answer, changing: Changing) -> Result<(), DeviceError> {
    match answer.refusal().and_then(|refusal| refusal.as_operation_error(changing)) {
        Some(error) => Err(DeviceError::of(id)(error)),
        None => Ok(()),
    }
}

/// What is shown of a device has to be known here, or else a newer server would be shown wrongly.
pub(super) fn understood(device: &DeviceDocument) -> Result<(), ApiError> {
    let kind = device.cvm.extension.attestation.as_ref().map(|attestation| attestation.kind.as_str());
    let known = ["token", "publicKey", "certificate", "ca", "claim", "trustedUser", "nothing"];
    if State::from_name(&device.cvm.state).is_none() {
        return Err(ApiError::not_understood("a device has an unknown state"));
    }
    if !matches!(device.status.as_str(), "enabled" | "disabled") {
        return Err(ApiError::not_understood("a device has an unknown status"));
    }
    match kind {
        Some(kind) if known.contains(&kind) => Ok(()),
        _ => Err(ApiError::not_understood("a device proves itself in an unknown way")),
    }
}

/// The lines of an export, as they came: a newer server may say more than is known here, and nothing of it is lost.
fn lines(answer: &Answer) -> Result<(Vec<u8>, u64), ApiError> {
    let lines: Vec<Box<RawValue>> = answer.json()?;
    let mut text = Vec::new();
    for line in &lines {
        let line = line.get();
        let read: IdentityLine = serde_json::from_str(line).map_err(ApiError::not_understood)?;
        if line.contains('\n') || read.cvm.is_none_or(|cvm| cvm.restore.is_none()) {
            return Err(ApiError::not_understood("it is no export"));
        }
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    Ok((text, lines.len() as u64))
}

fn filtered(ask: Ask, filter: &DeviceFilter, after: Option<&str>, limit: u16) -> Ask {
    let DeviceFilter { state, enabled, group, template, changed_since, prefix, refused_since, expires_before } = filter;
    let time = |time: &Option<Timestamp>| time.map(|time| time.to_string());
    ask.query("top", Some(limit.to_string()))
        .query("state", state.map(|state| state.name()))
        .query("status", enabled.map(|enabled| if enabled { "enabled" } else { "disabled" }))
        .query("group", group.as_ref().map(ToString::to_string))
        .query("template", template.as_ref().map(ToString::to_string))
        .query("changedSince", time(changed_since))
        .query("prefix", prefix.as_ref().map(ToString::to_string))
        .query("refusedSince", time(refused_since))
        .query("expiresBefore", time(expires_before))
        .query("continuation", after)
}
