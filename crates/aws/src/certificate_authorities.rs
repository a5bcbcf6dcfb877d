//! The CAs of one's own that AWS IoT knows (AWS IoT Developer Guide, *Register your CA certificate*).

use std::error::Error;

use aws_sdk_iot::Client;
use aws_sdk_iot::error::ProvideErrorMetadata;
use aws_sdk_iot::primitives::DateTime;
use aws_sdk_iot::types::{AutoRegistrationStatus, CaCertificateStatus, CertificateMode, RegistrationConfig};
use cvm_provisioning::{Certificate, CertificateId, PlatformError, TemplateName, Timestamp};

use crate::error::platform_error;

/// The CAs that are registered with AWS IoT in one account and region.
#[derive(Clone, Debug)]
pub struct CertificateAuthorities {
    client: Client,
}

/// A CA as AWS IoT describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateAuthority {
    /// Its id: the SHA-256 of its certificate's DER.
    pub id: CertificateId,
    /// Whether certificates that it signed are taken.
    pub is_active: bool,
    /// Whether a certificate that it signed is registered when a device first connects with it.
    pub auto_registration: bool,
    /// What AWS IoT itself does with such a certificate; without it, it is left to a rule.
    pub provisioning: Option<JustInTimeProvisioning>,
    /// The first moment of its validity.
    pub not_before: Option<Timestamp>,
    /// The last moment of its validity.
    pub not_after: Option<Timestamp>,
    /// Its certificate in PEM.
    pub pem: Option<String>,
}

/// What makes a device of a certificate that was registered automatically (AWS IoT Developer Guide, *Just-in-time
/// provisioning*).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JustInTimeProvisioning {
    /// The provisioning template's name; none where the CA has a template of its own.
    pub template: Option<TemplateName>,
    /// The role with which AWS IoT runs the template.
    pub role_arn: String,
}

/// What a CA is to be at AWS IoT. Certificates that it signed are always registered automatically.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// Whether certificates that it signed are taken.
    pub is_active: bool,
    /// What AWS IoT itself does with them.
    pub provisioning: Option<JustInTimeProvisioning>,
}

/// A page of the list of CAs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuthorityPage {
    /// The CAs on it.
    pub authorities: Vec<CertificateAuthority>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl CertificateAuthorities {
    /// CAs listed at once. Each of them costs a call of its own, of which AWS IoT takes 10 a second.
    const PAGE: i32 = 25;

    /// The CAs behind this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The CA of this id, if it is registered.
    ///
    /// # Errors
    ///
    /// [`PlatformError`], as of all calls here.
    pub async fn find(&self, id: &CertificateId) -> Result<Option<CertificateAuthority>, PlatformError> {
        let output = match self.client.describe_ca_certificate().certificate_id(id.to_string()).send().await {
            Ok(output) => output,
            Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
            Err(error) => return Err(platform_error("describe the CA")(error)),
        };
        let Some(description) = output.certificate_description else { return Ok(None) };
        let moment = |moment: Option<DateTime>| moment.map(|moment| Timestamp::from_seconds(moment.secs()));
        let validity = description.validity;
        Ok(Some(CertificateAuthority {
            id: *id,
            is_active: description.status == Some(CaCertificateStatus::Active),
            auto_registration: description.auto_registration_status == Some(AutoRegistrationStatus::Enable),
            provisioning: output.registration_config.and_then(provisioning),
            not_before: moment(validity.as_ref().and_then(|validity| validity.not_before)),
            not_after: moment(validity.as_ref().and_then(|validity| validity.not_after)),
            pem: description.certificate_pem,
        }))
    }

    /// A page of the CAs, from the beginning or from where the page before ended.
    ///
    /// # Errors
    ///
    /// As of [`CertificateAuthorities::find`].
    pub async fn list(&self, after: Option<String>) -> Result<AuthorityPage, PlatformError> {
        let action = "list the CAs";
        let output = self
            .client
            .list_ca_certificates()
            .page_size(Self::PAGE)
            .set_marker(after)
            .send()
            .await
            .map_err(platform_error(action))?;
        let mut page = AuthorityPage { next: output.next_marker, ..AuthorityPage::default() };
        for certificate in output.certificates.unwrap_or_default() {
            let id = certificate.certificate_id.as_deref().and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| refused(action, "the answer has a CA without an id"))?;
            // One that was deleted meanwhile is no longer listed.
            page.authorities.extend(self.find(&id).await?);
        }
        Ok(page)
    }

    /// The code that AWS IoT wants to see certified before it takes a CA: the proof that the CA's key is at hand.
    ///
    /// # Errors
    ///
    /// As of [`CertificateAuthorities::find`].
    pub async fn registration_code(&self) -> Result<String, PlatformError> {
        let action = "give a registration code";
        let output = self.client.get_registration_code().send().await.map_err(platform_error(action))?;
        output.registration_code.ok_or_else(|| refused(action, "the answer has no registration code"))
    }

    /// Registers a CA, and returns whether it is new: one that is there is left as it is.
    ///
    /// `verification` is a certificate in PEM, signed by the CA, whose common name is the registration code.
    ///
    /// # Errors
    ///
    /// As of [`CertificateAuthorities::find`].
    pub async fn register(
        &self,
        authority: &Certificate,
        verification: &str,
        registration: &Registration,
    ) -> Result<bool, PlatformError> {
        let result = self
            .client
            .register_ca_certificate()
            .ca_certificate(authority.pem())
            .verification_certificate(verification)
            .certificate_mode(CertificateMode::Default)
            .set_as_active(registration.is_active)
            .allow_auto_registration(true)
            .set_registration_config(registration.provisioning.as_ref().map(registration_config))
            .send()
            .await;
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ResourceAlreadyExistsException") => Ok(false),
            Err(error) => Err(platform_error("register the CA")(error)),
        }
    }

    /// Makes a CA that is registered what it is to be, and returns whether anything had to be changed.
    ///
    /// # Errors
    ///
    /// As of [`CertificateAuthorities::find`].
    pub async fn update(
        &self,
        found: &CertificateAuthority,
        registration: &Registration,
    ) -> Result<bool, PlatformError> {
        let same_provisioning = found.provisioning == registration.provisioning;
        if found.is_active == registration.is_active && found.auto_registration && same_provisioning {
            return Ok(false);
        }
        if registration.provisioning.is_none() && found.provisioning.is_some() {
            // The template goes with the automatic registration, which the next call switches on again.
            self.client
                .update_ca_certificate()
                .certificate_id(found.id.to_string())
                .remove_auto_registration(true)
                .send()
                .await
                .map_err(platform_error("take its template from the CA"))?;
        }
        self.client
            .update_ca_certificate()
            .certificate_id(found.id.to_string())
            .new_status(if registration.is_active {
                CaCertificateStatus::Active
            } else {
                CaCertificateStatus::Inactive
            })
            .new_auto_registration_status(AutoRegistrationStatus::Enable)
            .set_registration_config(registration.provisioning.as_ref().map(registration_config))
            .send()
            .await
            .map_err(platform_error("update the CA"))?;
        Ok(true)
    }

    /// Takes no certificate of this CA any more that is not registered yet; again is the same as once.
    ///
    /// # Errors
    ///
    /// As of [`CertificateAuthorities::find`].
    pub async fn deactivate(&self, id: &CertificateId) -> Result<(), PlatformError> {
        self.client
            .update_ca_certificate()
            .certificate_id(id.to_string())
            .new_status(CaCertificateStatus::Inactive)
            .new_auto_registration_status(AutoRegistrationStatus::Disable)
            .send()
            .await
            .map_err(platform_error("deactivate the CA"))?;
        Ok(())
    }
}

fn registration_config(provisioning: &JustInTimeProvisioning) -> RegistrationConfig {
    RegistrationConfig::builder()
        .set_template_name(provisioning.template.as_ref().map(ToString::to_string))
        .role_arn(&provisioning.role_arn)
        .build()
}

/// AWS IoT answers with an empty object where nothing is configured.
fn provisioning(config: RegistrationConfig) -> Option<JustInTimeProvisioning> {
    if config.template_name.is_none() && config.template_body.is_none() && config.role_arn.is_none() {
        return None;
    }
    let template = config.template_name.and_then(|name| name.parse().ok());
    Some(JustInTimeProvisioning { template, role_arn: config.role_arn.unwrap_or_default() })
}

fn refused(action: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> PlatformError {
    PlatformError::Refused { action, source: source.into() }
}
