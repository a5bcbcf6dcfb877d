//! The pre-provisioning hook: AWS IoT asks whether a device that connected with a claim may have the certificate that
//! was made for it.
//!
//! The allow path is one read and one conditional write, which reserves the device for the certificate and counts it on
//! the claim, both or neither. The hook never hears what became of its yes. So it only *reserves*: the same certificate
//! is let through again, another one has to wait for the lease to run out, and what makes the reservation final is the
//! device's first connection ([`Confirm`](crate::Confirm)), or the reconciler.

use std::collections::BTreeMap;
use std::error::Error;

use crate::vend::decide;
use crate::{
    Attempt, AttemptId, Audit, AuditRecord, Certificate, CertificateId, Changes as _, ClaimStore, Decision, Denial,
    Device, DeviceId, DeviceIdFrom, DeviceStore, GroupCredential, InvalidDeviceId, Origin, Outcome, ParametersError,
    Proof, Put, Refusal, RefusedKeys, RegistryError, TemplateName, Templates, Timestamp,
};

/// The pre-provisioning hook, with what it needs.
#[derive(Debug)]
pub struct PreProvisioning<R, A> {
    /// The device registry and the claims.
    pub registry: R,
    /// Where decisions are written down.
    pub audit: A,
    /// What devices become, by the names that AWS IoT has for the templates.
    pub templates: Templates,
    /// The name that AWS IoT has for the default template.
    pub default_template: TemplateName,
    /// Keys that no device may have.
    pub refused_keys: RefusedKeys,
    /// What a device's MQTT client id says about it.
    pub client_ids: ClientIds,
    /// How a device's signing request names it: AWS IoT copies the subject into the certificate.
    pub device_id_from: DeviceIdFrom,
}

/// What the MQTT client id of a device that claims says about it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientIds {
    /// It is the device's serial number.
    #[default]
    Serial,
    /// Nothing.
    Any,
}

/// AWS IoT's question.
#[derive(Debug)]
pub struct ProvisioningRequest {
    /// The provisioning template that the device asks for.
    pub template: TemplateName,
    /// The claim certificate that it is connected with.
    pub claim: Option<CertificateId>,
    /// The id of the certificate that was made for it.
    pub certificate: CertificateId,
    /// That certificate.
    pub pem: String,
    /// The client id that it is connected as.
    pub client_id: Option<String>,
    /// The template parameters that it sent.
    pub parameters: BTreeMap<String, String>,
    /// Where the question came in.
    pub origin: Origin,
    /// When it came in.
    pub now: Timestamp,
}

/// No. AWS IoT's caller learns no more than this; the audit record has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the device must not be provisioned")]
pub struct NotAllowed;

/// What is wrong with a question, before anybody is asked about it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
enum Contradiction {
    #[error("the certificate's id is not that of the certificate")]
    Certificate,
    #[error("the client id is not the serial number")]
    ClientId,
    #[error("the subject of the certificate names another device, or is ambiguous")]
    CommonName,
    #[error("the certificate has expired")]
    Expired,
    #[error("the key must not be used by a device")]
    Key,
    #[error("no claim certificate was used")]
    NoClaim,
    #[error("there is no serial number")]
    NoSerial,
    #[error("the serial number is no device id")]
    Serial(#[source] InvalidDeviceId),
    #[error("the parameters have two serial numbers that differ")]
    TwoSerials,
    #[error("the template is none of ours")]
    Template,
}

impl Contradiction {
    const fn code(&self) -> &'static str {
        match self {
            Self::Certificate => "certificate-id-differs",
            Self::ClientId => "client-id-differs",
            Self::CommonName => "common-name-differs",
            Self::Expired => "certificate-expired",
            Self::Key => "key-refused",
            Self::NoClaim => "no-claim",
            Self::NoSerial => "no-serial-number",
            Self::Serial(_) => "malformed-serial-number",
            Self::TwoSerials => "serial-numbers-differ",
            Self::Template => "foreign-template",
        }
    }

    const fn advice(&self) -> &'static str {
        match self {
            Self::Certificate | Self::NoClaim => "find out who calls the hook; AWS IoT does not ask like this",
            Self::ClientId => "have the device connect with its serial number as client id, or set CLIENT_ID to `any`",
            Self::CommonName => {
                "have the device put its serial number into the CSR's subject, or nothing, or set CSR_DEVICE_ID_FROM"
            }
            Self::Expired => "find out who asks for a certificate that has expired; AWS IoT makes a new one each time",
            Self::Key => "the device needs a new key",
            Self::NoSerial => "have the device send the template parameter SerialNumber",
            Self::Serial(_) => "a device id has 1 to 128 characters of A-Z a-z 0-9 : _ . -",
            Self::TwoSerials => "have the device send SerialNumber or DeviceId, not both",
            Self::Template => "set FLEET_TEMPLATE or PROVISIONING_TEMPLATE_<name> if it is one of yours",
        }
    }
}

/// Why the answer is no.
enum Reason {
    Denied(Denial),
    Parameters(ParametersError),
    Registry(RegistryError),
    Wait,
}

impl From<Denial> for Reason {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<RegistryError> for Reason {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl<R: ClaimStore + DeviceStore, A: Audit> PreProvisioning<R, A> {
    /// Lost races before the device is told to come back.
    const TRIES: usize = 3;

    /// Answers one question: the parameters to put in the place of those that the device sent, or no.
    ///
    /// # Errors
    ///
    /// [`NotAllowed`] for every reason there is, a registry that does not answer among them.
    pub async fn answer(&self, request: &ProvisioningRequest) -> Result<BTreeMap<String, String>, NotAllowed> {
        let (attempt, claim) = match self.attempt(request) {
            Ok(attempt) => attempt,
            Err(contradiction) => {
                let (reason, advice) = (contradiction.code(), contradiction.advice());
                self.record(request, None, Outcome::Refused { reason, advice });
                return Err(NotAllowed);
            }
        };
        let mut found = None;
        let reason = match self.decide(request, &attempt, &claim, &mut found).await {
            Ok(overrides) => {
                let outcome = Outcome::Reserved { certificate: &request.certificate, claim: &claim };
                self.record(request, Some(&attempt), outcome);
                return Ok(overrides);
            }
            Err(reason) => reason,
        };
        match reason {
            Reason::Wait => self.record(request, Some(&attempt), Outcome::Waited),
            Reason::Registry(error) => {
                let error: &dyn Error = &error;
                tracing::error!(device = %attempt.device, error, "the registry did not answer");
                self.record(request, Some(&attempt), Outcome::Failed { reason: "registry" });
            }
            Reason::Parameters(error) => {
                let error: &dyn Error = &error;
                tracing::warn!(device = %attempt.device, error, "the parameters cannot be used");
                self.record(request, Some(&attempt), Outcome::Failed { reason: "parameters" });
            }
            Reason::Denied(denial) => {
                let kept = found.as_ref().and_then(|device| device.credential.as_ref());
                let outcome = match denial {
                    Denial::Cloned => Outcome::Quarantined {
                        certificate: kept.map(|credential| &credential.certificate),
                        provisioned_key: kept.map(|credential| &credential.key),
                    },
                    _ => Outcome::Refused { reason: denial.code(), advice: denial.advice() },
                };
                self.record(request, Some(&attempt), outcome);
                let refusal = Refusal::new(denial, found.as_ref(), &attempt);
                if let Err(error) =
                    self.registry.refuse(&attempt.device, found.as_ref(), &refusal, &attempt.origin).await
                {
                    let error: &dyn Error = &error;
                    tracing::warn!(device = %attempt.device, error, "a refusal was not counted");
                }
            }
        }
        Err(NotAllowed)
    }

    /// What the device asks for, checked as far as it can be without the registry: all that is said about it agrees.
    fn attempt(&self, request: &ProvisioningRequest) -> Result<(Attempt, CertificateId), Contradiction> {
        let claim = request.claim.ok_or(Contradiction::NoClaim)?;
        if request.template != self.default_template && !self.templates.has(&request.template) {
            return Err(Contradiction::Template);
        }
        let device = serial_number(&request.parameters)?;
        if self.client_ids == ClientIds::Serial && request.client_id.as_deref() != Some(device.as_str()) {
            return Err(Contradiction::ClientId);
        }
        let certificate = Certificate::parse(&request.pem).map_err(|_| Contradiction::Certificate)?;
        if *certificate.id() != request.certificate {
            return Err(Contradiction::Certificate);
        }
        if Timestamp::from(certificate.not_after()) < request.now {
            return Err(Contradiction::Expired);
        }
        if !self.device_id_from.allows(&certificate.subject(), &device) {
            return Err(Contradiction::CommonName);
        }
        let key = *certificate.key();
        if self.refused_keys.contains(&key) {
            return Err(Contradiction::Key);
        }
        let proof = Proof::of_certificate(request.certificate, key, GroupCredential::Claim(claim));
        let (id, origin, now) = (AttemptId::of(&request.certificate), request.origin.clone(), request.now);
        Ok((Attempt { id, device, proof, origin, now, prepared: None }, claim))
    }

    async fn decide(
        &self,
        request: &ProvisioningRequest,
        attempt: &Attempt,
        claim: &CertificateId,
        found: &mut Option<Device>,
    ) -> Result<BTreeMap<String, String>, Reason> {
        for _ in 0..Self::TRIES {
            let (claim, device) = self.registry.look_up(claim, &attempt.device).await?;
            found.clone_from(&device);
            let claim = claim.ok_or(Denial::ClaimUnknown)?;
            claim.admits(&attempt.device, attempt.now)?;
            let reserved = match decide(device.as_ref(), attempt) {
                Decision::Provision => device.as_ref().is_some_and(|device| device.is_held_by(attempt)),
                Decision::Replay(_) => true,
                Decision::Wait { .. } => return Err(Reason::Wait),
                Decision::Quarantine => return Err(Denial::Cloned.into()),
                Decision::Deny(denial) => return Err(denial.into()),
            };
            let mut device = device.ok_or(Denial::Unknown)?;
            if *device.template.as_ref().unwrap_or(&self.default_template) != request.template {
                return Err(Denial::OtherTemplate.into());
            }
            let overrides = self.templates.overrides(&device, &request.parameters).map_err(Reason::Parameters)?;
            if reserved {
                return Ok(overrides);
            }
            claim.has_quota()?;
            let version = device.version;
            device.reserve(attempt);
            match self.registry.reserve_with_claim(&claim, &device, version, &attempt.origin).await? {
                Put::Done => return Ok(overrides),
                Put::KeyInUse { owner, .. } => {
                    let key = attempt.proof.key;
                    tracing::warn!(device = %attempt.device, %owner, %key, "the key is another device's");
                    return Err(Denial::KeyInUse.into());
                }
                Put::Changed => {}
            }
        }
        Err(Reason::Wait)
    }

    fn record(&self, request: &ProvisioningRequest, attempt: Option<&Attempt>, outcome: Outcome<'_>) {
        let key = attempt.map(|attempt| &attempt.proof.key);
        let device = attempt.map(|attempt| &attempt.device);
        self.audit.record(&AuditRecord { origin: &request.origin, device, key, outcome });
    }
}

/// The one device that the parameters name.
fn serial_number(parameters: &BTreeMap<String, String>) -> Result<DeviceId, Contradiction> {
    let mut named = Templates::ID_PARAMETERS.iter().filter_map(|name| parameters.get(*name));
    let first = named.next().ok_or(Contradiction::NoSerial)?;
    if named.any(|other| other != first) {
        return Err(Contradiction::TwoSerials);
    }
    first.parse().map_err(Contradiction::Serial)
}
