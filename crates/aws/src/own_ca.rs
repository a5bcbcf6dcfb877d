use std::sync::Arc;

use aws_sdk_iot::error::ProvideErrorMetadata as _;
use aws_sdk_iot::types::CertificateStatus;
use cvm_authority::{Authority, IssueError, Profile};
use cvm_provisioning::{
    Certificate, Certificates as _, Csr, DeviceId, IssuedCertificate, PlatformError, Standing, ThingName, Timestamp,
};

use crate::error::platform_error;
use crate::platform::refused;
use crate::{AwsIot, KmsSigner};

const ISSUE: &str = "issue a certificate with the CA of one's own";
const REGISTER: &str = "register a certificate";

/// A CA of our own, whose certificates AWS IoT takes as they are. It need not know the CA itself.
#[derive(Debug)]
pub struct OwnCa {
    /// Who signs.
    pub authority: Authority<KmsSigner>,
    /// What certificates say.
    pub profile: Profile,
    /// What an ARN of a certificate has before the certificate's id: `arn:<partition>:iot:<region>:<account>:cert/`.
    pub arn_prefix: String,
    /// What time it is.
    pub clock: fn() -> Timestamp,
}

impl OwnCa {
    /// A certificate that nobody knows yet, and the name that AWS IoT will have for it: the id of a certificate is the
    /// SHA-256 of its DER.
    pub(crate) async fn sign(&self, csr: &Csr, thing: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        let id: DeviceId = thing.as_str().parse().map_err(|error| refused(ISSUE, error))?;
        let issued = self.authority.issue(&self.profile, &id, csr.key(), (self.clock)()).await.map_err(failed)?;
        let certificate = issued.certificate().clone();
        Ok(IssuedCertificate { name: format!("{}{}", self.arn_prefix, certificate.id()), certificate })
    }
}

fn failed(error: IssueError) -> PlatformError {
    match error.is_for_now() {
        true => PlatformError::Unavailable { action: ISSUE, source: error.into() },
        false => refused(ISSUE, error),
    }
}

impl AwsIot {
    /// The same platform, where certificates are signed by a CA of our own.
    #[must_use]
    pub fn with_own_ca(self, own_ca: OwnCa) -> Self {
        Self { own_ca: Some(Arc::new(own_ca)), ..self }
    }

    /// Has AWS IoT let in a certificate that it has not made. What was registered before is let in again.
    pub(crate) async fn register_certificate(&self, pem: &str) -> Result<(), PlatformError> {
        let registration = self.client.register_certificate_without_ca();
        match registration.certificate_pem(pem).status(CertificateStatus::Active).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ResourceAlreadyExistsException") => {
                let certificate = Certificate::parse(pem).map_err(|error| refused(REGISTER, error))?;
                self.set_standing(certificate.id(), Standing::Active).await
            }
            Err(error) => Err(platform_error(REGISTER)(error)),
        }
    }
}
