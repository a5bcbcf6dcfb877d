//! The certificates that AWS IoT has, whoever made them, and its claims for trusted users.

use std::cmp::Reverse;

use aws_sdk_iot::types::CertificateStatus;
use cvm_provisioning::{
    Certificate, CertificateId, CertificateSummary, Certificates, ClaimIssuer, Inventory, InventoryPage, IssuedClaim,
    PlatformError, RegisteredCertificate, Standing, TemplateName, ThingName, Timestamp,
};

use crate::error::platform_error;
use crate::platform::{AwsIot, certificate_id, is_gone, issued, refused};

/// The attribute, and its value, by which the things of this project are found; the template says that they have it.
const MADE_BY: (&str, &str) = ("provisionedBy", "cvm");

impl AwsIot {
    /// A certificate by its id; `None` where it is gone.
    pub(crate) async fn describe_id(&self, id: &str) -> Result<Option<RegisteredCertificate>, PlatformError> {
        let action = "describe a certificate";
        let output = match self.client.describe_certificate().certificate_id(id).send().await {
            Ok(output) => output,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(platform_error(action)(error)),
        };
        let description = output.certificate_description.ok_or_else(|| refused(action, "the answer is empty"))?;
        // AWS IoT's own certificates have no CA certificate id.
        let ca = description.ca_certificate_id().map(str::parse).transpose();
        let ca = ca.map_err(|_| refused(action, "the CA certificate's id is no SHA-256"))?;
        let standing = standing(description.status.as_ref());
        let issued = issued(description.certificate_arn, description.certificate_pem.as_deref(), action)?;
        Ok(Some(RegisteredCertificate { issued, ca, standing }))
    }

    /// The names of what is attached to a thing; nothing where there is no thing.
    pub(crate) async fn principals_of(&self, thing: &ThingName) -> Result<Vec<String>, PlatformError> {
        let pages = self.client.list_thing_principals().thing_name(thing.as_str()).into_paginator();
        match pages.items().send().collect::<Result<_, _>>().await {
            Ok(principals) => Ok(principals),
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            Err(error) => Err(platform_error("list the thing's certificates")(error)),
        }
    }
}

impl Certificates for AwsIot {
    async fn describe(&self, certificate: &CertificateId) -> Result<Option<RegisteredCertificate>, PlatformError> {
        self.describe_id(&certificate.to_string()).await
    }

    async fn set_standing(&self, certificate: &CertificateId, standing: Standing) -> Result<(), PlatformError> {
        let (status, action) = match standing {
            Standing::Active => (CertificateStatus::Active, "activate a certificate"),
            Standing::Inactive => (CertificateStatus::Inactive, "deactivate a certificate"),
            Standing::Revoked => (CertificateStatus::Revoked, "revoke a certificate"),
            // AWS IoT keeps this status to itself (AWS IoT API reference, UpdateCertificate).
            Standing::Pending => return Err(refused("make a certificate pending", "only the service can")),
        };
        let update = self.client.update_certificate().certificate_id(certificate.to_string()).new_status(status);
        match update.send().await {
            Ok(_) => Ok(()),
            Err(error) if standing != Standing::Active && is_gone(&error) => Ok(()),
            Err(error) => Err(platform_error(action)(error)),
        }
    }

    async fn things_of(&self, certificate_name: &str) -> Result<Vec<ThingName>, PlatformError> {
        let action = "list the things of a certificate";
        let pages = self.client.list_principal_things().principal(certificate_name).into_paginator();
        let names: Vec<String> = match pages.items().send().collect::<Result<_, _>>().await {
            Ok(names) => names,
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(platform_error(action)(error)),
        };
        let names = names.into_iter().map(ThingName::try_from);
        names.collect::<Result<_, _>>().map_err(|error| refused(action, error))
    }
}

impl Inventory for AwsIot {
    async fn certificates(
        &self,
        after: Option<&str>,
        limit: u16,
    ) -> Result<InventoryPage<CertificateSummary>, PlatformError> {
        let output = self
            .client
            .list_certificates()
            .ascending_order(false)
            .page_size(limit.into())
            .set_marker(after.map(str::to_owned))
            .send()
            .await
            .map_err(platform_error("list certificates"))?;
        let items = output.certificates().iter().filter_map(|certificate| {
            Some(CertificateSummary {
                id: certificate.certificate_id()?.parse().ok()?,
                standing: standing(certificate.status()),
                created_at: Timestamp::from_seconds(certificate.creation_date()?.secs()),
            })
        });
        let mut items: Vec<_> = items.collect();
        // The service has them in this order; a stand-in for it need not, and the end of a search hangs on it.
        items.sort_by_key(|certificate| Reverse(certificate.created_at));
        Ok(InventoryPage { items, next: output.next_marker().map(str::to_owned) })
    }

    async fn things(&self, after: Option<&str>, limit: u16) -> Result<InventoryPage<ThingName>, PlatformError> {
        let (attribute, value) = MADE_BY;
        let output = self
            .client
            .list_things()
            .attribute_name(attribute)
            .attribute_value(value)
            .max_results(limit.into())
            .set_next_token(after.map(str::to_owned))
            .send()
            .await
            .map_err(platform_error("list things"))?;
        let names = output.things().iter().filter_map(|thing| thing.thing_name());
        let items = names.filter_map(|name| ThingName::try_from(name.to_owned()).ok()).collect();
        Ok(InventoryPage { items, next: output.next_token().map(str::to_owned) })
    }

    async fn all_certificates_of(&self, thing: &ThingName) -> Result<Vec<CertificateId>, PlatformError> {
        let names = self.principals_of(thing).await?;
        Ok(names.iter().filter_map(|name| certificate_id(name)?.parse().ok()).collect())
    }

    async fn has_policy(&self, certificate_name: &str) -> Result<bool, PlatformError> {
        let output = self.client.list_attached_policies().target(certificate_name).page_size(1).send().await;
        match output {
            Ok(output) => Ok(!output.policies().is_empty()),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(platform_error("list the policies of a certificate")(error)),
        }
    }

    async fn remove(&self, certificate: &CertificateId) -> Result<(), PlatformError> {
        // Only an inactive certificate can be deleted.
        self.set_standing(certificate, Standing::Inactive).await?;
        match self.client.delete_certificate().certificate_id(certificate.to_string()).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(platform_error("delete a certificate")(error)),
        }
    }
}

impl ClaimIssuer for AwsIot {
    async fn issue_claim(&self, template: &TemplateName) -> Result<IssuedClaim, PlatformError> {
        let action = "make a provisioning claim";
        let output = self
            .client
            .create_provisioning_claim()
            .template_name(template.as_str())
            .send()
            .await
            .map_err(platform_error(action))?;
        let key = output.key_pair.and_then(|pair| pair.private_key);
        let (Some(pem), Some(key), Some(end)) = (output.certificate_pem, key, output.expiration) else {
            return Err(refused(action, "the answer lacks the certificate, the key or the end"));
        };
        let certificate =
            Certificate::parse(&pem).map_err(|error| PlatformError::Defective { source: error.into() })?;
        Ok(IssuedClaim {
            certificate: *certificate.id(),
            pem: certificate.pem().to_owned(),
            private_key: key.into(),
            expires_at: Timestamp::from_seconds(end.secs()),
        })
    }
}

/// What the service's status comes to. A certificate in transfer, or registered inactive, is let in nowhere.
fn standing(status: Option<&CertificateStatus>) -> Standing {
    match status {
        Some(CertificateStatus::Active) => Standing::Active,
        Some(CertificateStatus::PendingActivation) => Standing::Pending,
        Some(CertificateStatus::Revoked) => Standing::Revoked,
        _ => Standing::Inactive,
    }
}
