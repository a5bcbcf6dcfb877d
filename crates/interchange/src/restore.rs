//! `cvm.restore`: what the service has made of a device, for a registry that was lost. No secret is in it.

use std::collections::{BTreeMap, BTreeSet};

use cvm_provisioning::{
    Certificate, CertificateDefect, CertificateId, Credential, Denial, Device, DeviceId, KeyFingerprint, LastRefusal,
    Module, ModuleId, ModuleManager, State, SubjectAttribute, Superseded, ThingName, Timestamp, Unsettled,
};
use serde::{Deserialize, Serialize};

use crate::object::{object, object_list, object_map};
use crate::{AttestationDocument, InvalidExtension, optional_object};

/// The object as it is written. Moments are in seconds since 1970-01-01.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Restore {
    /// How far its provisioning has come. A reservation is not kept: whoever held it asks again.
    pub state: String,
    /// Which of those that have had the id.
    pub generation: String,
    /// The number of changes.
    pub version: u64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When an operator last said whether it is let in.
    pub status_since: Timestamp,
    /// Its certificate, and what else it was given.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialDocument>,
    /// Its earlier certificates that are still in power, the oldest first.
    #[serde(default, deserialize_with = "object_list", skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededDocument>,
    /// The identities on it.
    #[serde(default, deserialize_with = "object_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<ModuleId, ModuleDocument>,
    /// The last attempt that was not let in.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<RefusalDocument>,
    /// What attempts may have left on the platform.
    #[serde(default, deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<UnsettledDocument>,
}

/// A [`Credential`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the credential")]
pub struct CredentialDocument {
    pub certificate_id: CertificateId,
    pub certificate_name: String,
    pub pem: String,
    pub key: KeyFingerprint,
    pub key_made_here: bool,
    pub not_after: Timestamp,
    pub issued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolled_with: Option<String>,
    pub thing: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration: BTreeMap<String, String>,
}

/// A [`Superseded`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the superseded certificate")]
pub struct SupersededDocument {
    pub certificate_id: CertificateId,
    pub certificate_name: String,
    pub key: KeyFingerprint,
    pub thing: String,
    pub since: Timestamp,
}

/// A [`Module`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the module")]
pub struct ModuleDocument {
    pub generation: String,
    pub version: u64,
    #[serde(deserialize_with = "object")]
    pub attestation: AttestationDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<ModuleManager>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A [`LastRefusal`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is that of the refusal")]
pub struct RefusalDocument {
    pub reason: String,
    pub key: KeyFingerprint,
    pub at: Timestamp,
}

/// An [`Unsettled`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is that of what is unsettled")]
pub struct UnsettledDocument {
    pub since: Timestamp,
    pub keys: BTreeSet<KeyFingerprint>,
}

impl Restore {
    /// What is told of a device, with the digests of its modules' tokens where `digests` says so.
    pub fn of(device: &Device, digests: bool) -> Self {
        // Whatever an attempt was about to make of it, it is what it was.
        let from = device.reservation.as_ref().map_or(State::Registered, |held| held.from);
        let state = if device.state == State::Reserved { from } else { device.state };
        Self {
            state: state.name().to_owned(),
            generation: device.generation.to_string(),
            version: device.version,
            created_at: device.created_at,
            updated_at: device.updated_at,
            status_since: device.status.since,
            credential: device.credential.as_ref().map(CredentialDocument::from),
            superseded: device.superseded.iter().map(SupersededDocument::from).collect(),
            modules: device
                .modules
                .iter()
                .map(|(id, module)| (id.clone(), ModuleDocument::of(module, digests)))
                .collect(),
            last_refusal: device.last_refusal.as_ref().map(|refusal| RefusalDocument {
                reason: refusal.denial.code().to_owned(),
                key: refusal.key,
                at: refusal.at,
            }),
            unsettled: device
                .unsettled
                .as_ref()
                .map(|unsettled| UnsettledDocument { since: unsettled.since, keys: unsettled.keys.clone() }),
        }
    }

    /// Makes `device`, which has just been made from the rest of its line, what it was.
    ///
    /// # Errors
    ///
    /// [`InvalidRestore`].
    pub fn apply(&self, device: &mut Device) -> Result<(), InvalidRestore> {
        let state = State::from_name(&self.state).filter(|state| *state != State::Reserved);
        device.state = state.ok_or(InvalidRestore::Unknown { field: "state" })?;
        let [created, updated] = [("createdAt", self.created_at), ("updatedAt", self.updated_at)];
        for (field, moment) in [created, updated, ("statusSince", self.status_since)] {
            in_range(field, moment)?;
        }
        if self.version == 0 || self.version > MAX_VERSION {
            return Err(InvalidRestore::Range { field: "version" });
        }
        if self.updated_at < self.created_at {
            return Err(InvalidRestore::Range { field: "updatedAt" });
        }
        device.generation = self.generation.parse().map_err(|_| InvalidRestore::Unknown { field: "generation" })?;
        device.version = self.version;
        device.created_at = self.created_at;
        device.updated_at = self.updated_at;
        device.status.since = self.status_since;
        let is_given = matches!(device.state, State::Provisioned | State::Quarantined | State::Revoked);
        if self.credential.is_none() && (is_given || !self.superseded.is_empty()) {
            return Err(InvalidRestore::NoCertificate);
        }
        device.credential = self.credential.as_ref().map(|credential| credential.credential(&device.id)).transpose()?;
        if self.superseded.len() > Device::MAX_SUPERSEDED {
            return Err(InvalidRestore::Unknown { field: "superseded" });
        }
        let mut known: BTreeSet<_> = self.credential.iter().map(|credential| credential.certificate_id).collect();
        if !self.superseded.iter().all(|superseded| known.insert(superseded.certificate_id)) {
            return Err(InvalidRestore::Range { field: "superseded" });
        }
        device.superseded = self.superseded.iter().map(SupersededDocument::superseded).collect::<Result<_, _>>()?;
        if self.modules.len() > Module::MAX_PER_DEVICE {
            return Err(InvalidRestore::Unknown { field: "modules" });
        }
        let modules = self.modules.iter().map(|(id, module)| Ok((id.clone(), module.module()?)));
        device.modules = modules.collect::<Result<_, InvalidRestore>>()?;
        device.last_refusal = self.last_refusal.as_ref().map(RefusalDocument::refusal).transpose()?;
        self.unsettled.as_ref().map_or(Ok(()), |there| in_range("unsettled.since", there.since))?;
        device.unsettled =
            self.unsettled.as_ref().map(|there| Unsettled { since: there.since, keys: there.keys.clone() });
        Ok(())
    }
}

impl From<&Credential> for CredentialDocument {
    fn from(credential: &Credential) -> Self {
        Self {
            certificate_id: credential.certificate,
            certificate_name: credential.certificate_name.clone(),
            pem: credential.pem.clone(),
            key: credential.key,
            key_made_here: credential.key_made_here,
            not_after: credential.not_after,
            issued_at: credential.issued_at,
            used_at: credential.used_at,
            enrolled_with: credential.group.map(|group| group.to_string()),
            thing: credential.thing.to_string(),
            configuration: credential.configuration.clone(),
        }
    }
}

impl CredentialDocument {
    /// The credential of this device, if it is what its certificate says.
    fn credential(&self, device: &DeviceId) -> Result<Credential, InvalidRestore> {
        let certificate = self.certificate(device)?;
        in_range("credential.issuedAt", self.issued_at)?;
        self.used_at.map_or(Ok(()), |used_at| in_range("credential.usedAt", used_at))?;
        if self.issued_at > self.not_after {
            return Err(InvalidRestore::Range { field: "credential.issuedAt" });
        }
        name("credential.certificateName", &self.certificate_name)?;
        let thing = ThingName::try_from(self.thing.clone())
            .map_err(|_| InvalidRestore::Unknown { field: "credential.thing" })?;
        let group = self.enrolled_with.as_deref().map(str::parse).transpose();
        Ok(Credential {
            certificate: self.certificate_id,
            certificate_name: self.certificate_name.clone(),
            pem: certificate.pem().to_owned(),
            key: self.key,
            key_made_here: self.key_made_here,
            not_after: self.not_after,
            issued_at: self.issued_at,
            used_at: self.used_at,
            group: group.map_err(|_| InvalidRestore::Unknown { field: "credential.enrolledWith" })?,
            thing,
            configuration: self.configuration.clone(),
        })
    }
}

impl CredentialDocument {
    /// The certificate, which has to be the one that the other fields describe, and not another device's.
    fn certificate(&self, device: &DeviceId) -> Result<Certificate, InvalidRestore> {
        let certificate = Certificate::parse(&self.pem);
        let certificate = certificate.map_err(|_| InvalidRestore::Unknown { field: "credential.pem" })?;
        let defect = certificate.lint(&self.key).err();
        let is_of_another = match certificate.common_name() {
            Ok(Some(named)) if named != *device => {
                // A CA that names its devices by their serial number has something else there.
                let serial_number = certificate.subject_text(SubjectAttribute::SerialNumber);
                !serial_number.is_ok_and(|number| number.is_some_and(|number| number == device.as_str()))
            }
            // AWS IoT's own name for every certificate is no device id.
            _ => false,
        };
        let contradictions = [
            (*certificate.id() != self.certificate_id, "credential.certificateId"),
            (matches!(defect, Some(CertificateDefect::OtherKey { .. })), "credential.key"),
            (defect.is_some(), "credential.pem"),
            (Timestamp::from(certificate.not_after()) != self.not_after, "credential.notAfter"),
            (is_of_another, "credential"),
        ];
        match contradictions.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, field)) => Err(InvalidRestore::Contradiction { field }),
            None => Ok(certificate),
        }
    }
}

impl From<&Superseded> for SupersededDocument {
    fn from(superseded: &Superseded) -> Self {
        Self {
            certificate_id: superseded.certificate,
            certificate_name: superseded.certificate_name.clone(),
            key: superseded.key,
            thing: superseded.thing.to_string(),
            since: superseded.since,
        }
    }
}

impl SupersededDocument {
    fn superseded(&self) -> Result<Superseded, InvalidRestore> {
        let thing = ThingName::try_from(self.thing.clone());
        in_range("superseded.since", self.since)?;
        name("superseded.certificateName", &self.certificate_name)?;
        Ok(Superseded {
            certificate: self.certificate_id,
            certificate_name: self.certificate_name.clone(),
            key: self.key,
            thing: thing.map_err(|_| InvalidRestore::Unknown { field: "superseded.thing" })?,
            since: self.since,
        })
    }
}

impl ModuleDocument {
    fn of(module: &Module, digests: bool) -> Self {
        Self {
            generation: module.generation.to_string(),
            version: module.version,
            attestation: AttestationDocument::of(&module.attestation, digests),
            managed_by: module.managed_by.clone(),
            created_at: module.created_at,
            updated_at: module.updated_at,
        }
    }

    fn module(&self) -> Result<Module, InvalidRestore> {
        let attestation = match self.attestation.attestation() {
            // Its token was left out of the export: it needs a new one.
            Err(InvalidExtension::Lacks { field: "tokenDigest" }) => cvm_provisioning::Attestation::Nothing,
            attestation => attestation.map_err(|_| InvalidRestore::Unknown { field: "modules.attestation" })?,
        };
        if self.version == 0 || self.version > MAX_VERSION {
            return Err(InvalidRestore::Range { field: "modules.version" });
        }
        in_range("modules.createdAt", self.created_at)?;
        in_range("modules.updatedAt", self.updated_at)?;
        Ok(Module {
            generation: self.generation.parse().map_err(|_| InvalidRestore::Unknown { field: "modules.generation" })?,
            version: self.version,
            attestation,
            managed_by: self.managed_by.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl RefusalDocument {
    fn refusal(&self) -> Result<LastRefusal, InvalidRestore> {
        let denial = Denial::from_code(&self.reason);
        let denial = denial.ok_or(InvalidRestore::Unknown { field: "lastRefusal.reason" })?;
        in_range("lastRefusal.at", self.at)?;
        Ok(LastRefusal::new(denial, self.key, self.at))
    }
}

/// The largest version: every JSON reader has integers up to 2^53 (RFC 8259 section 6).
const MAX_VERSION: u64 = 1 << 53;
/// The last second of the year 9999, the last that RFC 3339 can write.
const LAST_SECOND: i64 = 253_402_300_799;
/// The longest name of a certificate: that of an ARN (AWS IAM, "Amazon Resource Names").
const MAX_NAME: usize = 2048;

fn in_range(field: &'static str, moment: Timestamp) -> Result<(), InvalidRestore> {
    if (0..=LAST_SECOND).contains(&moment.seconds()) { Ok(()) } else { Err(InvalidRestore::Range { field }) }
}

fn name(field: &'static str, name: &str) -> Result<(), InvalidRestore> {
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_name { Ok(()) } else { Err(InvalidRestore::Range { field }) }
}

/// An export was changed since it was written, or a newer version wrote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRestore {
    /// The certificate says something else.
    #[error("cvm.restore.{field} contradicts the certificate in cvm.restore.credential.pem")]
    Contradiction {
        /// The field.
        field: &'static str,
    },
    /// A device of this state has a certificate, and so has one with earlier certificates.
    #[error("cvm.restore lacks credential, which a device of this state has")]
    NoCertificate,
    /// A number or a name is not in its range.
    #[error("cvm.restore.{field} is out of range")]
    Range {
        /// The field.
        field: &'static str,
    },
    /// A value is none that this version exports.
    #[error("cvm.restore.{field} is nothing that this version of cvm exports")]
    Unknown {
        /// The field.
        field: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::IssuedCertificate;
    use cvm_testkit::fixture::{NOW, device, later};
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use serde_json::{Value, json};

    use super::*;
    use crate::IdentityLine;

    fn certificate(names: &[(DnType, &str)]) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), *name));
        Certificate::parse(&params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()).unwrap()
    }

    fn provisioned(name: &str, certificate: Certificate) -> Device {
        let issued = IssuedCertificate { name: "arn:aws:iot:cert".to_owned(), certificate };
        let credential = Credential::of(&issued, name.to_owned().try_into().unwrap(), NOW);
        let earlier = Superseded {
            certificate: CertificateId::of(b"earlier"),
            certificate_name: "earlier".to_owned(),
            key: KeyFingerprint::of(b"earlier"),
            thing: name.to_owned().try_into().unwrap(),
            since: NOW,
        };
        Device {
            state: State::Provisioned,
            credential: Some(credential),
            superseded: vec![earlier],
            updated_at: later(9),
            ..device(name)
        }
    }

    fn restored(line: &Value) -> Result<Device, String> {
        let line: IdentityLine = serde_json::from_value(line.clone()).map_err(|error| error.to_string())?;
        line.device().map(|(device, _)| device).map_err(|error| error.to_string())
    }

    fn line(device: &Device) -> Value {
        serde_json::to_value(IdentityLine::of(device, true)).unwrap()
    }

    #[test]
    fn a_certificate_is_restored_that_names_its_device_or_none() {
        let named = [
            vec![(DnType::CommonName, "sn-1")],
            vec![(DnType::CommonName, "AWS IoT Certificate")],
            vec![(DnType::CommonName, "factory-3"), (DnType::CustomDnType(vec![2, 5, 4, 5]), "sn-1")],
        ];
        for names in named {
            let device = provisioned("sn-1", certificate(&names));
            assert_eq!(restored(&line(&device)), Ok(device));
        }
        let thief = provisioned("sn-2", certificate(&[(DnType::CommonName, "sn-1")]));
        assert!(restored(&line(&thief)).unwrap_err().contains("contradicts the certificate"));
    }

    #[test]
    fn a_device_that_was_given_a_certificate_is_not_restored_without_it() {
        let device = provisioned("sn-1", certificate(&[(DnType::CommonName, "sn-1")]));
        let without = |state: State, superseded: bool| {
            let mut line = line(&device);
            let restore = line["cvm"]["restore"].as_object_mut().unwrap();
            restore.remove("credential");
            restore["state"] = json!(state.name());
            if !superseded {
                restore.remove("superseded");
            }
            restored(&line)
        };
        for state in [State::Provisioned, State::Quarantined, State::Revoked] {
            assert!(without(state, false).unwrap_err().contains("lacks credential"), "{state:?}");
        }
        assert!(without(State::Registered, true).unwrap_err().contains("lacks credential"));
        assert!(without(State::Registered, false).is_ok());
    }

    #[test]
    fn what_an_export_cannot_have_written_is_refused() {
        let device = provisioned("sn-1", certificate(&[(DnType::CommonName, "sn-1")]));
        let other = certificate(&[(DnType::CommonName, "sn-1")]);
        let own = device.credential.as_ref().unwrap();
        let changes = [
            ("credential/pem", json!("hello"), "credential.pem"),
            ("credential/pem", json!(other.pem()), "credential.certificateId"),
            ("credential/certificateId", json!(other.id()), "credential.certificateId"),
            ("credential/key", json!(other.key()), "credential.key"),
            ("credential/notAfter", json!(own.not_after.seconds() + 1), "credential.notAfter"),
            ("credential/issuedAt", json!(own.not_after.seconds() + 1), "credential.issuedAt"),
            ("credential/issuedAt", json!(-1), "credential.issuedAt"),
            ("credential/certificateName", json!(""), "credential.certificateName"),
            ("credential/certificateName", json!("a b"), "credential.certificateName"),
            ("superseded/0/certificateId", json!(own.certificate), "superseded"),
            ("superseded/0/since", json!(i64::MAX), "superseded.since"),
            ("version", json!(0), "version"),
            ("version", json!(u64::MAX), "version"),
            ("createdAt", json!(-1), "createdAt"),
            ("updatedAt", json!(0), "updatedAt"),
            ("statusSince", json!(253_402_300_800_i64), "statusSince"),
        ];
        for (field, value, told) in changes {
            let mut line = line(&device);
            *line.pointer_mut(&format!("/cvm/restore/{field}")).unwrap() = value.clone();
            let error = restored(&line).unwrap_err();
            assert!(error.contains(&format!("cvm.restore.{told} ")), "{field} {value}: {error}");
        }
    }
}
