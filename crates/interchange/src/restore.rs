//! `cvm.restore`: what the service has made of a device, for a registry that was lost. No secret is in it.

use std::collections::{BTreeMap, BTreeSet};

use cvm_provisioning::{
    CertificateId, Credential, Denial, Device, KeyFingerprint, LastRefusal, Module, ModuleId, ModuleManager, State,
    Superseded, ThingName, Timestamp, Unsettled,
};
use serde::{Deserialize, Serialize};

use crate::{AttestationDocument, InvalidExtension};

/// The object as it is written. Moments are in seconds since 1970-01-01.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialDocument>,
    /// Its earlier certificates that are still in power, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededDocument>,
    /// The identities on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<ModuleId, ModuleDocument>,
    /// The last attempt that was not let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<RefusalDocument>,
    /// What attempts may have left on the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<UnsettledDocument>,
}

/// A [`Credential`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is that of the module")]
pub struct ModuleDocument {
    pub generation: String,
    pub version: u64,
    pub attestation: AttestationDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<ModuleManager>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A [`LastRefusal`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each field is that of the refusal")]
pub struct RefusalDocument {
    pub reason: String,
    pub key: KeyFingerprint,
    pub at: Timestamp,
}

/// An [`Unsettled`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
        device.state = state.ok_or(InvalidRestore { field: "state" })?;
        device.generation = self.generation.parse().map_err(|_| InvalidRestore { field: "generation" })?;
        device.version = self.version;
        device.created_at = self.created_at;
        device.updated_at = self.updated_at;
        device.status.since = self.status_since;
        device.credential = self.credential.as_ref().map(CredentialDocument::credential).transpose()?;
        if self.superseded.len() > Device::MAX_SUPERSEDED {
            return Err(InvalidRestore { field: "superseded" });
        }
        device.superseded = self.superseded.iter().map(SupersededDocument::superseded).collect::<Result<_, _>>()?;
        if self.modules.len() > Module::MAX_PER_DEVICE {
            return Err(InvalidRestore { field: "modules" });
        }
        let modules = self.modules.iter().map(|(id, module)| Ok((id.clone(), module.module()?)));
        device.modules = modules.collect::<Result<_, InvalidRestore>>()?;
        device.last_refusal = self.last_refusal.as_ref().map(RefusalDocument::refusal).transpose()?;
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
    fn credential(&self) -> Result<Credential, InvalidRestore> {
        let thing =
            ThingName::try_from(self.thing.clone()).map_err(|_| InvalidRestore { field: "credential.thing" })?;
        let group = self.enrolled_with.as_deref().map(str::parse).transpose();
        Ok(Credential {
            certificate: self.certificate_id,
            certificate_name: self.certificate_name.clone(),
            pem: self.pem.clone(),
            key: self.key,
            key_made_here: self.key_made_here,
            not_after: self.not_after,
            issued_at: self.issued_at,
            used_at: self.used_at,
            group: group.map_err(|_| InvalidRestore { field: "credential.enrolledWith" })?,
            thing,
            configuration: self.configuration.clone(),
        })
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
        Ok(Superseded {
            certificate: self.certificate_id,
            certificate_name: self.certificate_name.clone(),
            key: self.key,
            thing: thing.map_err(|_| InvalidRestore { field: "superseded.thing" })?,
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
            attestation => attestation.map_err(|_| InvalidRestore { field: "modules.attestation" })?,
        };
        Ok(Module {
            generation: self.generation.parse().map_err(|_| InvalidRestore { field: "modules.generation" })?,
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
        let denial = Denial::from_code(&self.reason).ok_or(InvalidRestore { field: "lastRefusal.reason" })?;
        Ok(LastRefusal::new(denial, self.key, self.at))
    }
}

/// What an export wrote was changed since, or is a newer version's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cvm.restore.{field} is nothing that this version of cvm exports")]
pub struct InvalidRestore {
    /// The field.
    pub field: &'static str,
}
