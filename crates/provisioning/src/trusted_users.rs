//! Claims for trusted users: an installer's app asks for a claim for the one device that it is about to set up.
//!
//! The claim comes first and the registry second, in one write for claim and device: a claim that the registry never
//! learned of claims nothing, and ends by itself within minutes.

use std::error::Error;
use std::time::Duration;

use crate::{
    Attestation, Audit, AuditRecord, Changes as _, Claim, ClaimIssuer, ClaimStore, Device, DeviceId, DeviceStore,
    IssuedClaim, MadeOut, Origin, Outcome, PlatformError, RegistryError, State, TemplateName, Timestamp, TrustedUser,
    TrustedUserClaim,
};

/// Claims for trusted users, with what they need.
#[derive(Debug)]
pub struct TrustedUsers<R, P, A> {
    /// The device registry and the claims.
    pub registry: R,
    /// Where claims are made.
    pub platform: P,
    /// Where decisions are written down.
    pub audit: A,
    /// The name that AWS IoT has for the default template.
    pub default_template: TemplateName,
    /// How many claims one user may ask for in a day (UTC).
    pub claims_per_day: u64,
}

/// A trusted user's request. Who they are is the platform's word, not theirs.
#[derive(Debug)]
pub struct ClaimRequest {
    /// Who asks.
    pub user: TrustedUser,
    /// The device that the claim is for.
    pub device: DeviceId,
    /// Where the request came in.
    pub origin: Origin,
    /// When it came in.
    pub now: Timestamp,
}

/// What a trusted user gets.
#[derive(Debug)]
pub struct MadeOutClaim {
    /// The claim certificate and its key.
    pub claim: IssuedClaim,
    /// The provisioning template that it serves.
    pub template: TemplateName,
}

/// Why a trusted user gets nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Others wrote to the device each time.
    #[error("the device is written to by others at the moment")]
    Contended,
    /// The platform did not do its part.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The device may not, or there is none. Whoever asked learns no more than this.
    #[error("the device was refused")]
    Refused,
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The user has asked for as many claims as one may in a day.
    #[error("the user has had as many claims as one may have in a day")]
    TooMany {
        /// When the next day begins.
        until: Timestamp,
    },
}

impl<R: ClaimStore + DeviceStore, P: ClaimIssuer, A: Audit> TrustedUsers<R, P, A> {
    /// Lost races before the user is told to come back.
    const TRIES: usize = 4;

    /// Makes a claim out.
    ///
    /// # Errors
    ///
    /// [`ClaimError`]; the user may ask again after any of them.
    pub async fn make_out(&self, request: &ClaimRequest) -> Result<MadeOutClaim, ClaimError> {
        let found = self.registry.find(&request.device).await.map_err(|error| self.failed(request, error.into()))?;
        let device = match eligible(found) {
            Ok(device) => device,
            Err((reason, advice)) => {
                self.record(request, Outcome::Refused { reason, advice });
                return Err(ClaimError::Refused);
            }
        };
        let day = request.now.day();
        if !self.counted(request, day).await? {
            let advice = "raise the claims per user and day (CLAIMS_PER_USER_PER_DAY, or claims-per-user-per-day of the \
                          server) if this user is to set up more devices";
            self.record(request, Outcome::Refused { reason: "user-quota", advice });
            return Err(ClaimError::TooMany { until: Timestamp::from_seconds((day + 1) * Timestamp::DAY) });
        }
        let template = device.template.as_ref().unwrap_or(&self.default_template).clone();
        let claim = self.platform.issue_claim(&template).await.map_err(|error| self.failed(request, error.into()))?;
        self.bind(device, &claim, request).await.map_err(|error| self.failed(request, error))?;
        self.record(request, Outcome::Vouched { claim: &claim.certificate, user: &request.user });
        Ok(MadeOutClaim { claim, template })
    }

    async fn counted(&self, request: &ClaimRequest, day: i64) -> Result<bool, ClaimError> {
        let counted = self.registry.count_claim(&request.user, day, self.claims_per_day).await;
        counted.map_err(|error| self.failed(request, error.into()))
    }

    /// Enters the claim and the device that it is for.
    async fn bind(&self, device: Device, issued: &IssuedClaim, request: &ClaimRequest) -> Result<(), ClaimError> {
        let ClaimRequest { user, now, origin, .. } = request;
        let made_out = MadeOut { user: user.clone(), device: device.id.clone() };
        let claim = Claim {
            expires_at: Some(issued.expires_at),
            made_out: Some(made_out),
            ..Claim::new(issued.certificate, *now)
        };
        let mut device = Some(device);
        for _ in 0..Self::TRIES {
            let found = match device.take() {
                Some(device) => device,
                None => eligible(self.registry.find(&request.device).await?).map_err(|_| ClaimError::Refused)?,
            };
            let version = found.version;
            let mut bound = found;
            bound.vouch(
                TrustedUserClaim { certificate: issued.certificate, user: user.clone(), expires_at: issued.expires_at },
                *now,
            );
            if self.registry.make_out(&claim, &bound, version, origin).await? {
                return Ok(());
            }
        }
        Err(ClaimError::Contended)
    }

    fn failed(&self, request: &ClaimRequest, error: ClaimError) -> ClaimError {
        let reason = match &error {
            ClaimError::Contended => "contended",
            ClaimError::Platform(PlatformError::Throttled { .. }) => "platform-throttled",
            ClaimError::Platform(_) => "platform",
            ClaimError::Registry(RegistryError::Throttled { .. }) => "registry-throttled",
            ClaimError::Registry(_) => "registry",
            ClaimError::Refused | ClaimError::TooMany { .. } => "refused",
        };
        let cause: &dyn Error = &error;
        tracing::warn!(device = %request.device, error = cause, "a claim was not made out");
        self.record(request, Outcome::Failed { reason });
        error
    }

    fn record(&self, request: &ClaimRequest, outcome: Outcome<'_>) {
        let ClaimRequest { device, origin, .. } = request;
        self.audit.record(&AuditRecord { origin, device: Some(device), key: None, outcome });
    }
}

/// The device, if a trusted user may vouch for it; else a word for the reason and what an operator can do.
fn eligible(found: Option<Device>) -> Result<Device, (&'static str, &'static str)> {
    let Some(device) = found else {
        return Err(("unknown-device", "`cvm device add ID --trusted-user` puts it on the allowlist"));
    };
    match (device.status.enabled, &device.attestation, &device.state) {
        (false, ..) => Err(("disabled", "`cvm device enable ID` lets it in")),
        (_, Attestation::TrustedUser { .. }, State::Registered | State::Reserved) => Ok(device),
        (_, Attestation::TrustedUser { .. }, _) => {
            Err(("provisioned", "`cvm device show ID` says how far it is; a second set-up needs an operator"))
        }
        _ => Err(("not-by-trusted-user", "register the device with `cvm device add ID --trusted-user`")),
    }
}

impl Device {
    /// Takes a trusted user's word for this device; an earlier one no longer counts.
    pub fn vouch(&mut self, claim: TrustedUserClaim, now: Timestamp) {
        self.attestation = Attestation::TrustedUser { claim: Some(claim) };
        self.touch(now);
    }
}

impl Timestamp {
    /// The seconds of a day.
    pub const DAY: i64 = Duration::from_secs(24 * 60 * 60).as_secs().cast_signed();

    /// Whole days since 1970-01-01.
    pub const fn day(self) -> i64 {
        self.seconds().div_euclid(Self::DAY)
    }
}
