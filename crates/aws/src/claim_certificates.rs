//! The claim certificates that operators have AWS IoT make and revoke, and the templates that claims are for.

use aws_sdk_iot::error::ProvideErrorMetadata;
use aws_sdk_iot::types::CertificateStatus;
use cvm_provisioning::{CertificateId, Csr, IssuedCertificate, PlatformError, TemplateName};

use crate::error::platform_error;
use crate::platform::{AwsIot, is_gone};

impl AwsIot {
    /// Has a certificate made for the CSR's key that is not let in yet, so that what it may do can be settled before.
    /// Asking twice makes two.
    ///
    /// # Errors
    ///
    /// [`PlatformError`]; a certificate that was made all the same is inactive and without a policy.
    pub async fn issue_inactive(&self, csr: &Csr) -> Result<IssuedCertificate, PlatformError> {
        self.make(csr, false).await
    }

    /// Whether a provisioning template has a pre-provisioning hook. Without one AWS IoT lets in whatever shows a claim.
    ///
    /// # Errors
    ///
    /// [`PlatformError`], where there is no such template, too.
    pub async fn has_hook(&self, template: &TemplateName) -> Result<bool, PlatformError> {
        let answer = self.client.describe_provisioning_template().template_name(template.as_str()).send().await;
        let found = answer.map_err(platform_error("show a provisioning template"))?;
        Ok(found.pre_provisioning_hook.is_some())
    }

    /// Revokes a certificate for good; `false` where AWS IoT does not have it, as it is with the claims that it makes
    /// for trusted users. Again is the same as once.
    ///
    /// The certificate is deactivated first, which shuts it out even where a revocation is not allowed.
    ///
    /// # Errors
    ///
    /// [`PlatformError`]; the call may be repeated.
    pub async fn revoke(&self, certificate: &CertificateId) -> Result<bool, PlatformError> {
        for (status, action) in [
            (CertificateStatus::Inactive, "deactivate a certificate"),
            (CertificateStatus::Revoked, "revoke a certificate"),
        ] {
            let deactivates = status == CertificateStatus::Inactive;
            let update = self.client.update_certificate().certificate_id(certificate.to_string()).new_status(status);
            match update.send().await {
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Ok(false),
                // A status that does not lead to INACTIVE, such as one of a transfer (AWS IoT API reference,
                // UpdateCertificate), may still lead to REVOKED.
                Err(error) if deactivates && error.code() == Some("CertificateStateException") => {}
                Err(error) => return Err(platform_error(action)(error)),
            }
        }
        Ok(true)
    }
}
