//! A line of an import or an export, as the identity registry's jobs write it to `devices.txt` (Azure IoT Hub
//! developer guide, "Import and export IoT Hub device identities in bulk").

use cvm_provisioning::{
    Device, ETag, GenerationId, ImportEntry, ImportMode, InvalidDeviceId, InvalidETag, InvalidImportMode,
    InvalidReason, InvalidRegistryName, InvalidScope, InvalidSettings, ModuleManager, ModuleSettings, ReasonText,
    Scope, Settings, StatusSetting,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;
use crate::{
    AttestationDocument, Authentication, Extension, InvalidAuthentication, InvalidExtension, InvalidRestore, Keys,
    Restore, optional_object,
};

/// The object as it is written. Fields that are not known are left alone: other tools add some.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IdentityLine {
    /// The device.
    #[serde(alias = "deviceId")]
    pub id: String,
    /// The module on it, where the line is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// The state that it was in, or has to be in.
    #[serde(alias = "etag", skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
    /// What is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_mode: Option<String>,
    /// `enabled` or `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// How it proves itself.
    #[serde(deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// What it can do.
    #[serde(deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Its scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_scope: Option<String>,
    /// The scopes above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_scopes: Option<Vec<String>>,
    /// Who manages the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// What the registry has no word for.
    #[serde(deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub cvm: Option<Extension>,
    #[serde(rename = "twinETag", skip_serializing)]
    twin_etag: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    tags: Option<IgnoredAny>,
    #[serde(skip_serializing)]
    properties: Option<IgnoredAny>,
}

/// What a device can do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Capabilities {
    /// Whether it is a gateway.
    pub iot_edge: bool,
}

impl IdentityLine {
    /// How a device is exported, with the digests of its tokens where `digests` says so: whoever reads the line creates
    /// the device, or puts it back as it was.
    pub fn of(device: &Device, digests: bool) -> Self {
        let restore = Some(Box::new(Restore::of(device, digests)));
        Self {
            id: device.id.to_string(),
            e_tag: Some(device.etag().to_string()),
            status: Some(device.status.name().to_owned()),
            status_reason: device.status.reason.as_ref().map(ToString::to_string),
            authentication: Some(Authentication::of(&device.attestation, &Keys::default())),
            capabilities: Some(Capabilities { iot_edge: device.hierarchy.edge }),
            device_scope: device.hierarchy.scope.as_ref().map(ToString::to_string),
            parent_scopes: Some(device.hierarchy.parents.iter().map(ToString::to_string).collect()),
            cvm: Some(Extension { restore, ..Extension::of(device, digests) }),
            ..Self::default()
        }
    }

    /// How what is asked for is written: whoever reads the line is asked for the same. The digests of tokens are in it.
    pub fn asking(entry: &ImportEntry) -> Self {
        let ImportEntry { id, module, etag, mode, settings } = entry;
        let (module, module_settings) = module.clone().unzip();
        let ModuleSettings { attestation, managed_by } = module_settings.unwrap_or_default();
        let attestation = attestation.or_else(|| settings.attestation.clone());
        let text = |scope: &Option<Scope>| scope.as_ref().map(ToString::to_string).unwrap_or_default();
        Self {
            id: id.to_string(),
            module_id: module.map(|id| id.to_string()),
            e_tag: etag.as_ref().map(ToString::to_string),
            import_mode: Some(mode.name().to_owned()),
            status: settings
                .status
                .as_ref()
                .map(|status| if status.enabled { "enabled" } else { "disabled" }.to_owned()),
            // An empty one takes away the reason that is there.
            status_reason: settings
                .status
                .as_ref()
                .map(|status| status.reason.as_ref().map(ToString::to_string).unwrap_or_default()),
            capabilities: settings.edge.map(|iot_edge| Capabilities { iot_edge }),
            device_scope: settings.scope.as_ref().map(text),
            parent_scopes: settings.parents.as_ref().map(|all| all.iter().map(ToString::to_string).collect()),
            managed_by: managed_by.flatten().map(|name| name.to_string()),
            cvm: Some(Extension {
                attestation: attestation.as_ref().map(AttestationDocument::from),
                group: settings.group.clone(),
                key_origin: settings.key_origin,
                template: settings.template.clone(),
                parameters: settings.parameters.clone(),
                settable_parameters: settings.settable_parameters.clone(),
                ..Extension::default()
            }),
            ..Self::default()
        }
    }

    /// What the line asks for, with the keys that were made for it: they are known to nobody yet.
    ///
    /// # Errors
    ///
    /// [`InvalidIdentityLine`].
    pub fn entry(&self, default_mode: ImportMode) -> Result<(ImportEntry, Keys), InvalidIdentityLine> {
        let mode = match self.import_mode.as_deref() {
            None | Some("") => default_mode,
            Some(mode) => mode.parse()?,
        };
        let (settings, keys) = match mode {
            ImportMode::Delete | ImportMode::DeleteIfMatchETag => (Settings::default(), Keys::default()),
            _ => self.settings(mode)?,
        };
        let module = self.module_id.as_ref().map(|id| {
            let managed_by = self.managed_by.as_ref().filter(|name| !name.is_empty());
            let managed_by = managed_by.map(|name| name.parse::<ModuleManager>()).transpose()?.map(Some);
            Ok::<_, InvalidRegistryName>((
                id.parse()?,
                ModuleSettings { attestation: settings.attestation.clone(), managed_by },
            ))
        });
        let etag = self.e_tag.as_ref().filter(|etag| !etag.is_empty());
        let entry = ImportEntry {
            id: self.id.parse()?,
            module: module.transpose()?,
            etag: etag.map(|etag| etag.parse::<ETag>()).transpose()?,
            mode,
            settings,
        };
        Ok((entry, keys))
    }

    /// The device as it was when it was exported, with the keys that were made for it where the export has none.
    ///
    /// # Errors
    ///
    /// [`InvalidIdentityLine`].
    pub fn device(&self) -> Result<(Device, Keys), InvalidIdentityLine> {
        let restore = self.cvm.as_ref().and_then(|cvm| cvm.restore.as_ref()).ok_or(InvalidIdentityLine::NoRestore)?;
        let (entry, keys) = self.entry(ImportMode::Create)?;
        if entry.module.is_some() {
            return Err(InvalidIdentityLine::NoRestore);
        }
        let mut device = entry.settings.new_device(entry.id, GenerationId::new(0), restore.created_at)?;
        restore.apply(&mut device)?;
        Ok((device, keys))
    }

    /// The field that this problem is about and the beginning of its value, unless it may be a secret.
    pub(crate) fn offending(&self, problem: &InvalidIdentityLine) -> Option<(&'static str, String)> {
        let (field, value) = match problem {
            InvalidIdentityLine::ETag(_) => ("eTag", self.e_tag.as_ref()),
            InvalidIdentityLine::Id(_) => ("id", Some(&self.id)),
            InvalidIdentityLine::Mode(_) => ("importMode", self.import_mode.as_ref()),
            InvalidIdentityLine::Name(_) => ("moduleId", self.module_id.as_ref()),
            InvalidIdentityLine::Reason(_) => ("statusReason", self.status_reason.as_ref()),
            InvalidIdentityLine::Status => ("status", self.status.as_ref()),
            InvalidIdentityLine::Authentication(_)
            | InvalidIdentityLine::Extension(_)
            | InvalidIdentityLine::NoRestore
            | InvalidIdentityLine::Restore(_)
            | InvalidIdentityLine::Scope(_)
            | InvalidIdentityLine::Settings(_) => return None,
        };
        Some((field, excerpt(value?)))
    }

    /// Whether it says something of a twin, which is not kept here.
    pub const fn has_twin(&self) -> bool {
        self.twin_etag.is_some() || self.tags.is_some() || self.properties.is_some()
    }

    fn settings(&self, mode: ImportMode) -> Result<(Settings, Keys), InvalidIdentityLine> {
        let mut settings = Settings {
            status: self.status_setting()?,
            edge: self.capabilities.map(|capabilities| capabilities.iot_edge),
            scope: self.device_scope.as_deref().map(scope).transpose()?,
            parents: match &self.parent_scopes {
                Some(parents) => Some(parents.iter().map(|parent| parent.parse()).collect::<Result<_, _>>()?),
                None => None,
            },
            ..Settings::default()
        };
        if let Some(cvm) = &self.cvm {
            cvm.apply(&mut settings)?;
        }
        let creates =
            matches!(mode, ImportMode::Create | ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag);
        let Some(authentication) = self.authentication.as_ref().filter(|_| settings.attestation.is_none()) else {
            return Ok((settings, Keys::default()));
        };
        let sent = authentication.symmetric_key.clone().unwrap_or_default();
        let is_token = authentication.kind.as_deref().is_none_or(|kind| kind == "sas");
        if !creates && is_token && sent.primary_key.is_none() && authentication.x509_thumbprint.is_none() {
            // Keys that are not told stay as they are.
            return Ok((settings, Keys::default()));
        }
        let (mut attestation, mut keys) = authentication.attestation(None)?;
        let brought = |key: &Option<String>| key.as_ref().is_some_and(|key| !key.is_empty());
        if brought(&sent.primary_key) {
            keys.primary = None;
            // A second key is made for whoever brings none at all, or asks for it.
            if let (None, Some(cvm_provisioning::Attestation::Token { second, .. })) =
                (&sent.secondary_key, &mut attestation)
            {
                (*second, keys.secondary) = (None, None);
            }
        }
        if brought(&sent.secondary_key) {
            keys.secondary = None;
        }
        settings.attestation = attestation;
        Ok((settings, keys))
    }

    fn status_setting(&self) -> Result<Option<StatusSetting>, InvalidIdentityLine> {
        let Some(status) = &self.status else { return Ok(None) };
        let enabled = match status.to_ascii_lowercase().as_str() {
            "enabled" => true,
            "disabled" => false,
            _ => return Err(InvalidIdentityLine::Status),
        };
        let reason = self.status_reason.as_ref().filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| reason.parse::<ReasonText>()).transpose()?;
        Ok(Some(StatusSetting { enabled, reason }))
    }
}

/// An empty scope is none.
fn scope(text: &str) -> Result<Option<Scope>, InvalidScope> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdentityLine {
    /// How it proves itself.
    #[error(transparent)]
    Authentication(#[from] InvalidAuthentication),
    /// The entity tag.
    #[error(transparent)]
    ETag(#[from] InvalidETag),
    /// What stands under `cvm`.
    #[error(transparent)]
    Extension(#[from] InvalidExtension),
    /// The device's id.
    #[error(transparent)]
    Id(#[from] InvalidDeviceId),
    /// What is to be done.
    #[error(transparent)]
    Mode(#[from] InvalidImportMode),
    /// The module's id, or who manages it.
    #[error(transparent)]
    Name(#[from] InvalidRegistryName),
    /// The line is to be put back as it was, and does not say how it was.
    #[error("the line has no cvm.restore: only what `cvm device export` has written can be put back as it was")]
    NoRestore,
    /// The reason of the status.
    #[error(transparent)]
    Reason(#[from] InvalidReason),
    /// What the service had made of it.
    #[error(transparent)]
    Restore(#[from] InvalidRestore),
    /// A scope.
    #[error(transparent)]
    Scope(#[from] InvalidScope),
    /// A device cannot be like that.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// The status.
    #[error("status is enabled or disabled")]
    Status,
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{
        Attestation, CertificateId, Credential, Denial, LastRefusal, Module, Superseded, ThingName, Unsettled,
    };
    use cvm_testkit::fixture::{NOW, TOKEN, csr, device, later, token};
    use serde_json::{Value, json};

    use super::*;
    use crate::Object;

    fn line(json: &str) -> IdentityLine {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_line_of_another_hub_is_taken_with_its_keys() {
        let json = format!(
            r#"{{"id":"d1","eTag":"MA==","status":"Enabled","authentication":{{"symmetricKey":{{"primaryKey":"{TOKEN}"}}}},"twinETag":"AA==","tags":{{}},"properties":{{"desired":{{}}}}}}"#
        );
        let (entry, keys) = line(&json).entry(ImportMode::CreateOrUpdate).unwrap();
        assert!(keys.primary.is_none() && keys.secondary.is_none(), "a key that was brought is not made");
        let expected = Attestation::Token { digest: token().digest(), second: None, expires_at: None };
        assert_eq!(entry.settings.attestation, Some(expected));
        assert!(line(&json).has_twin());
        assert_eq!((entry.id.as_str(), entry.mode), ("d1", ImportMode::CreateOrUpdate));
    }

    #[test]
    fn both_keys_of_another_hub_are_tokens_here() {
        let second = TOKEN.chars().rev().collect::<String>();
        let json = format!(
            r#"{{"id":"d1","authentication":{{"symmetricKey":{{"primaryKey":"{TOKEN}","secondaryKey":"{second}"}},"x509Thumbprint":{{"primaryThumbprint":null,"secondaryThumbprint":null}},"type":"sas"}}}}"#
        );
        let (entry, keys) = line(&json).entry(ImportMode::CreateOrUpdate).unwrap();
        let second = second.parse::<cvm_provisioning::EnrolmentToken>().unwrap().digest();
        let expected = Attestation::Token { digest: token().digest(), second: Some(second), expires_at: None };
        assert_eq!(entry.settings.attestation, Some(expected));
        assert!(keys.primary.is_none() && keys.secondary.is_none());
    }

    #[test]
    fn a_redacted_key_is_refused_and_not_repeated() {
        let json = r#"{"id":"d1","authentication":{"symmetricKey":{"primaryKey":"******","secondaryKey":"******"},"type":"sas"}}"#;
        let refused = line(json).entry(ImportMode::CreateOrUpdate).unwrap_err().to_string();
        assert!(refused.contains("symmetricKey") && !refused.contains("***"), "{refused}");
    }

    #[test]
    fn a_device_as_the_sdks_write_it_is_read() {
        let json = r#"{"deviceId":"d1","generationId":"","eTag":"","connectionState":"Disconnected","status":"enabled","statusReason":"","lastActivityTime":"0001-01-01T00:00:00","cloudToDeviceMessageCount":0,"authentication":{"symmetricKey":{"primaryKey":null,"secondaryKey":null},"type":"sas"},"capabilities":{"iotEdge":false}}"#;
        let (entry, _) = line(json).entry(ImportMode::CreateOrUpdate).unwrap();
        assert_eq!((entry.id.as_str(), entry.etag, entry.settings.edge), ("d1", None, Some(false)));
    }

    #[test]
    fn an_id_with_characters_that_only_a_hub_has_is_refused() {
        for id in ["pump#7", "a+b", "a@b", "o'brien", "$x", "a%20b", "a(b)", "a=b"] {
            let refused = line(&format!(r#"{{"id":"{id}"}}"#)).entry(ImportMode::Create).unwrap_err();
            assert!(matches!(refused, InvalidIdentityLine::Id(_)), "{id}");
        }
        for id in ["sn:1", "sn.2", "sn_3", "sn-4"] {
            assert_eq!(line(&format!(r#"{{"id":"{id}"}}"#)).entry(ImportMode::Create).unwrap().0.id.as_str(), id);
        }
    }

    #[test]
    fn what_is_asked_for_survives_its_line() {
        let settings = Settings {
            status: Some(StatusSetting { enabled: false, reason: None }),
            attestation: Some(Attestation::Token {
                digest: token().digest(),
                second: None,
                expires_at: Some(later(9)),
            }),
            template: Some(None),
            group: Some("berlin".parse().ok()),
            parameters: Some([("Site".to_owned(), "a".to_owned())].into()),
            edge: Some(true),
            scope: Some(None),
            parents: Some(Vec::new()),
            ..Settings::default()
        };
        let module = ModuleSettings { attestation: settings.attestation.clone(), managed_by: None };
        let of_device = ImportEntry {
            id: "sn-1".parse().unwrap(),
            module: None,
            etag: Some("1-a".parse().unwrap()),
            mode: ImportMode::UpdateIfMatchETag,
            settings: settings.clone(),
        };
        let of_module = ImportEntry {
            module: Some(("camera".parse().unwrap(), module)),
            settings: Settings { attestation: settings.attestation, ..Settings::default() },
            ..of_device.clone()
        };
        let delete = ImportEntry { mode: ImportMode::Delete, settings: Settings::default(), ..of_device.clone() };
        for asked in [of_device, of_module, delete] {
            let json = serde_json::to_string(&IdentityLine::asking(&asked)).unwrap();
            assert_eq!(line(&json).entry(ImportMode::Create).unwrap().0, asked, "{json}");
        }
    }

    #[test]
    fn an_update_without_keys_leaves_them() {
        let json =
            r#"{"id":"d1","importMode":"Update","authentication":{"type":"sas","symmetricKey":{"primaryKey":null}}}"#;
        assert_eq!(line(json).entry(ImportMode::Create).unwrap().0.settings, Settings::default());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for json in
            [r#"{"id":"a","id":"b"}"#, r#"{"id":"a","deviceId":"b"}"#, r#"{"id":7}"#, "{", "[]", r#"{"id":"a"}x"#]
        {
            let read = serde_json::from_str::<IdentityLine>(json);
            assert!(read.is_err() || read.unwrap().entry(ImportMode::Create).is_err(), "{json}");
        }
        for json in [
            "{}",
            r#"{"id":"a b"}"#,
            r#"{"id":"a","importMode":"updateTwin"}"#,
            r#"{"id":"a","status":"on"}"#,
            r#"{"id":"a","eTag":"a b"}"#,
            r#"{"id":"a","moduleId":""}"#,
            r#"{"id":"a","authentication":{"type":"?"}}"#,
        ] {
            assert!(line(json).entry(ImportMode::Create).is_err(), "{json}");
        }
    }

    #[test]
    fn an_exported_device_is_put_back_as_it_was() {
        let mut device = device("sn-1");
        device.group = Some("berlin".parse().unwrap());
        device.parameters.insert("Site".to_owned(), "a".to_owned());
        device.disable(Some("lost".parse().unwrap()), later(5));
        device.hierarchy.edge = true;
        device.hierarchy.scope = Some(Scope::of_gateway(&device.id, device.generation));
        let key = *csr("sn-1").key().fingerprint();
        let module = Module::new(GenerationId::new(3), device.attestation.clone(), later(6));
        device.put_module("camera".parse().unwrap(), module, later(6));
        device.last_refusal = Some(LastRefusal::new(Denial::Cloned, key, later(7)));
        device.unsettled = Some(Unsettled { since: later(7), keys: [key].into() });
        let json = serde_json::to_string(&IdentityLine::of(&device, true)).unwrap();
        assert_eq!(line(&json).device().unwrap().0, device, "{json}");
        let imported = line(&json).entry(ImportMode::Create).unwrap().0.settings;
        assert_eq!(imported.attestation, Some(device.attestation), "without restore it is an import like any other");
    }

    /// The places of the objects in a document.
    fn objects(value: &Value, place: &str, found: &mut Vec<String>) {
        let inner: Vec<(String, &Value)> = match value {
            Value::Object(fields) => {
                found.push(place.to_owned());
                fields.iter().map(|(name, field)| (name.clone(), field)).collect()
            }
            Value::Array(elements) => elements.iter().enumerate().map(|(at, it)| (at.to_string(), it)).collect(),
            _ => Vec::new(),
        };
        inner.into_iter().for_each(|(name, value)| objects(value, &format!("{place}/{name}"), found));
    }

    #[test]
    fn an_array_in_the_place_of_an_object_is_refused() {
        let mut device = device("sn-1");
        let key = *csr("sn-1").key().fingerprint();
        let module = Module::new(GenerationId::new(3), device.attestation.clone(), NOW);
        device.put_module("camera".parse().unwrap(), module, NOW);
        device.last_refusal = Some(LastRefusal::new(Denial::Cloned, key, NOW));
        device.unsettled = Some(Unsettled { since: NOW, keys: [key].into() });
        let thing: ThingName = "sn-1".to_owned().try_into().unwrap();
        let (certificate, certificate_name) = (CertificateId::of(b"certificate"), "arn".to_owned());
        let superseded = Superseded {
            certificate,
            certificate_name: certificate_name.clone(),
            key,
            thing: thing.clone(),
            since: NOW,
        };
        device.superseded.push(superseded);
        device.credential = Some(Credential {
            certificate,
            certificate_name,
            pem: String::new(),
            key,
            key_made_here: false,
            not_after: later(9),
            issued_at: NOW,
            used_at: None,
            group: None,
            thing,
            configuration: [("a".to_owned(), "b".to_owned())].into(),
        });
        let mut line = serde_json::to_value(IdentityLine::of(&device, true)).unwrap();
        line["authentication"]["x509Thumbprint"] = json!({ "primaryThumbprint": null });
        line["authentication"]["symmetricKey"] = json!({ "primaryKey": null });
        let read = |line: Value| serde_json::from_value::<Object<IdentityLine>>(line);
        read(line.clone()).unwrap();
        let mut places = Vec::new();
        objects(&line, "", &mut places);
        assert!(places.len() >= 14, "{places:?}");
        for place in places {
            let mut line = line.clone();
            let object = line.pointer_mut(&place).unwrap();
            *object = object.as_object().unwrap().values().cloned().collect();
            assert!(read(line).is_err(), "{place}");
        }
    }

    #[test]
    fn an_export_without_digests_has_none() {
        let mut device = device("sn-1");
        let module = Module::new(GenerationId::new(3), device.attestation.clone(), later(6));
        device.put_module("camera".parse().unwrap(), module, later(6));
        let json = serde_json::to_string(&IdentityLine::of(&device, false)).unwrap();
        assert!(!json.contains(&token().digest().to_string()), "{json}");
        let (restored, keys) = line(&json).device().unwrap();
        assert!(keys.primary.is_some(), "it has to prove itself with something");
        assert!(restored.modules.values().all(|module| module.attestation == Attestation::Nothing));
    }
}
