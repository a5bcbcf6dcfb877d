//! `cvm`: what the identity registry's JSON has no word for.

use std::collections::{BTreeMap, BTreeSet};

use cvm_provisioning::{
    Attestation, CertificateId, Device, GroupName, KeyFingerprint, KeyOrigin, Settings, TemplateName, Timestamp,
    TokenDigest,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;
use crate::{Restore, optional_object, present};

/// The object as it is written. What only the service sets is told and never taken.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Extension {
    /// How far the device's provisioning has come. Never taken.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// How it proves itself, in full; takes the place of `authentication`.
    #[serde(deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationDocument>,
    /// Its enrolment group, or batch; `null` takes it away.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub group: Option<Option<GroupName>>,
    /// Whether its key may be made by the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_origin: Option<KeyOrigin>,
    /// Its provisioning template; `null` takes it away.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub template: Option<Option<TemplateName>>,
    /// Values of template parameters that the operator chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Template parameters that the device may set for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settable_parameters: Option<BTreeSet<String>>,
    /// What an export says beside it, so that the device can be put back as it was. No change to a device takes it.
    #[serde(deserialize_with = "optional_object", skip_serializing_if = "Option::is_none")]
    pub restore: Option<Box<Restore>>,
    /// What else came.
    #[serde(flatten, skip_serializing)]
    pub others: BTreeMap<String, IgnoredAny>,
}

/// What an answer says under `cvm` and no change takes: whoever sends an answer back, changed, need not take it out.
const TOLD: [&str; 12] = [
    "certificate",
    "claim",
    "createdAt",
    "enrolledWith",
    "lastRefusal",
    "reservation",
    "state",
    "superseded",
    "unsettledSince",
    "updatedAt",
    "version",
    "wrongProofs",
];

/// An attestation in full. A digest is no secret that could be used, but nothing is lost either where it is left out.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AttestationDocument {
    /// `token`, `publicKey`, `certificate`, `ca`, `claim`, `trustedUser` or `nothing`.
    pub kind: String,
    /// The digest of the token: SHA-256 in base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<TokenDigest>,
    /// That of the second token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_token_digest: Option<TokenDigest>,
    /// When the tokens end, in seconds since 1970-01-01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The fingerprint of the public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<KeyFingerprint>,
    /// The certificate: the device's own, its CA's, or the claim's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_id: Option<CertificateId>,
    /// The second certificate of the device's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_certificate_id: Option<CertificateId>,
}

impl From<&Attestation> for AttestationDocument {
    fn from(attestation: &Attestation) -> Self {
        let of = |kind: &str| Self { kind: kind.to_owned(), ..Self::default() };
        match attestation {
            Attestation::Token { digest, second, expires_at } => Self {
                token_digest: Some(*digest),
                second_token_digest: *second,
                expires_at: *expires_at,
                ..of("token")
            },
            Attestation::PublicKey { key } => Self { public_key: Some(*key), ..of("publicKey") },
            Attestation::Certificate { id, second } => {
                Self { certificate_id: Some(*id), second_certificate_id: *second, ..of("certificate") }
            }
            Attestation::Ca { id } => Self { certificate_id: *id, ..of("ca") },
            Attestation::Claim { certificate } => Self { certificate_id: *certificate, ..of("claim") },
            // The claim itself lasts for minutes.
            Attestation::TrustedUser { .. } => of("trustedUser"),
            Attestation::Nothing => of("nothing"),
        }
    }
}

impl AttestationDocument {
    /// How this attestation is written, with digests where `digests` says so.
    pub fn of(attestation: &Attestation, digests: bool) -> Self {
        let document = Self::from(attestation);
        if digests { document } else { Self { token_digest: None, second_token_digest: None, ..document } }
    }

    /// The attestation that is written.
    ///
    /// # Errors
    ///
    /// [`InvalidExtension`].
    pub fn attestation(&self) -> Result<Attestation, InvalidExtension> {
        let lacks = |field| InvalidExtension::Lacks { field };
        Ok(match self.kind.as_str() {
            "token" => Attestation::Token {
                digest: self.token_digest.ok_or_else(|| lacks("tokenDigest"))?,
                second: self.second_token_digest,
                expires_at: self.expires_at,
            },
            "publicKey" => Attestation::PublicKey { key: self.public_key.ok_or_else(|| lacks("publicKey"))? },
            "certificate" => Attestation::Certificate {
                id: self.certificate_id.ok_or_else(|| lacks("certificateId"))?,
                second: self.second_certificate_id,
            },
            "ca" => Attestation::Ca { id: self.certificate_id },
            "claim" => Attestation::Claim { certificate: self.certificate_id },
            "trustedUser" => Attestation::TrustedUser { claim: None },
            "nothing" => Attestation::Nothing,
            _ => return Err(InvalidExtension::Kind),
        })
    }
}

impl Extension {
    /// What is told of a device, with digests where `digests` says so.
    pub fn of(device: &Device, digests: bool) -> Self {
        Self {
            state: Some(device.state.name()),
            attestation: Some(AttestationDocument::of(&device.attestation, digests)),
            group: device.group.clone().map(Some),
            key_origin: Some(device.key_origin),
            template: device.template.clone().map(Some),
            parameters: Some(device.parameters.clone()),
            settable_parameters: Some(device.settable_parameters.clone()),
            restore: None,
            others: BTreeMap::new(),
        }
    }

    /// Adds what is said here to `settings`. A token without its digest, as an answer shows it, says nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidExtension`].
    pub fn apply(&self, settings: &mut Settings) -> Result<(), InvalidExtension> {
        if let Some(unknown) = self.others.keys().find(|name| !TOLD.contains(&name.as_str())) {
            return Err(InvalidExtension::Field { field: excerpt(unknown) });
        }
        let shown = |document: &&AttestationDocument| document.kind == "token" && document.token_digest.is_none();
        if let Some(document) = self.attestation.as_ref().filter(|document| !shown(document)) {
            settings.attestation = Some(document.attestation()?);
        }
        settings.group = self.group.clone().or_else(|| settings.group.take());
        settings.key_origin = self.key_origin.or(settings.key_origin);
        settings.template = self.template.clone().or_else(|| settings.template.take());
        settings.parameters = self.parameters.clone().or_else(|| settings.parameters.take());
        settings.settable_parameters = self.settable_parameters.clone().or_else(|| settings.settable_parameters.take());
        Ok(())
    }
}

/// Why `cvm` cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidExtension {
    /// A field that is none.
    #[error(
        "cvm has no field {field}: it has attestation, group, keyOrigin, parameters, settableParameters and template"
    )]
    Field {
        /// Its name, as far as it is shown.
        field: String,
    },
    /// An unknown kind of attestation.
    #[error("cvm.attestation.kind is token, publicKey, certificate, ca, claim, trustedUser or nothing")]
    Kind,
    /// The kind asks for a field that did not come.
    #[error("cvm.attestation lacks {field}")]
    Lacks {
        /// The field.
        field: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use cvm_testkit::fixture::device;
    use serde_json::json;

    use super::*;
    use crate::DeviceTold;

    #[test]
    fn every_attestation_survives_its_document() {
        let id = "ab".repeat(32).parse().unwrap();
        let key = "cd".repeat(32).parse().unwrap();
        for attestation in [
            device("sn-1").attestation,
            Attestation::PublicKey { key },
            Attestation::Certificate { id, second: Some(id) },
            Attestation::Ca { id: None },
            Attestation::Ca { id: Some(id) },
            Attestation::Claim { certificate: None },
            Attestation::TrustedUser { claim: None },
            Attestation::Nothing,
        ] {
            let json = serde_json::to_string(&AttestationDocument::from(&attestation)).unwrap();
            let read: AttestationDocument = serde_json::from_str(&json).unwrap();
            assert_eq!(read.attestation(), Ok(attestation), "{json}");
        }
    }

    #[test]
    fn a_field_that_is_none_is_refused_and_one_that_only_answers_have_is_not() {
        let device = device("sn-1");
        let read = |json: serde_json::Value| serde_json::from_value::<Extension>(json);
        let answer = serde_json::to_value(DeviceTold::from(&device)).unwrap();
        assert_eq!(read(answer.clone()).unwrap().apply(&mut Settings::default()), Ok(()));
        let told = |name: &&str| answer.get(*name).is_some();
        assert!(TOLD.iter().all(told), "each of these is in an answer");
        let misspelt = read(json!({"setableParameters": ["a"]})).unwrap().apply(&mut Settings::default());
        assert!(misspelt.unwrap_err().to_string().contains(r#"no field "setableParameter"#));
        let misspelt = json!({"attestation": {"kind": "nothing", "expiresat": 1}});
        assert!(read(misspelt).unwrap_err().to_string().contains("expiresat"));
    }

    #[test]
    fn an_answer_that_is_written_back_changes_nothing() {
        let mut device = device("sn-1");
        device.group = Some("berlin".parse().unwrap());
        let before = device.clone();
        let mut settings = Settings::default();
        Extension::of(&device, false).apply(&mut settings).unwrap();
        settings.apply(&mut device, before.created_at).unwrap();
        assert_eq!(device, before);
    }
}
