//! AWS IoT as the platform: certificates, things and policies through its control plane.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_iot::Client;
use aws_sdk_iot::config::retry::RetryConfig;
use aws_sdk_iot::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_iot::operation::create_thing::CreateThingError;
use aws_sdk_iot::types::{AttributePayload, CertificateStatus, ThingPrincipalType as AwsPrincipalType};
use cvm_provisioning::{
    Certificate, Csr, IssuedCertificate, KeyFingerprint, Override, Platform, PlatformError, PolicyName,
    RegisteredCertificate, Standing, Thing, ThingGroupName, ThingName, ThingPrincipalType,
};

use crate::OwnCa;
use crate::error::platform_error;

/// The control plane of AWS IoT.
#[derive(Clone, Debug)]
pub struct AwsIot {
    pub(crate) client: Client,
    /// The data plane, where connections are ended; a function that ends none has no use for it.
    pub(crate) connections: Option<aws_sdk_iotdataplane::Client>,
    /// Who signs certificates, where that is not AWS IoT.
    pub(crate) own_ca: Option<Arc<OwnCa>>,
}

impl AwsIot {
    /// The platform behind this client.
    pub const fn new(client: Client) -> Self {
        Self { client, connections: None, own_ca: None }
    }

    /// The same platform, which can end connections through its data plane.
    #[must_use]
    pub fn with_connections(self, connections: aws_sdk_iotdataplane::Client) -> Self {
        Self { connections: Some(connections), ..self }
    }

    /// The region that the client is for, where it has one. Without one every call fails.
    pub fn region(&self) -> Option<&str> {
        self.client.config().region().map(AsRef::as_ref).filter(|region| !region.is_empty())
    }

    /// The endpoint that the devices of this account and region connect to, whose certificate Amazon's root CAs vouch for.
    ///
    /// # Errors
    ///
    /// [`PlatformError`].
    pub async fn endpoint(&self) -> Result<String, PlatformError> {
        let action = "say which endpoint devices connect to";
        let answer = self.client.describe_endpoint().endpoint_type("iot:Data-ATS").send().await;
        let address = answer.map_err(platform_error(action))?.endpoint_address;
        address.ok_or_else(|| refused(action, "the answer has no endpoint"))
    }

    /// Has a certificate made for the CSR's key, let in at once or not yet.
    pub(crate) async fn make(&self, csr: &Csr, active: bool) -> Result<IssuedCertificate, PlatformError> {
        let action = "make a certificate from the CSR";
        let output = self
            .client
            .create_certificate_from_csr()
            .certificate_signing_request(csr.pem())
            .set_as_active(active)
            // Each try may make a certificate, so there is one: whoever does not know what became of it is told so.
            .customize()
            .config_override(aws_sdk_iot::config::Builder::new().retry_config(RetryConfig::disabled()))
            .send()
            .await
            .map_err(platform_error(action))?;
        issued(output.certificate_arn, output.certificate_pem.as_deref(), action)
    }

    /// Makes the thing that is there into what it should be, or says why not, as the template's override settings
    /// have it.
    async fn reconcile(&self, thing: &Thing) -> Result<(), PlatformError> {
        let found = self
            .client
            .describe_thing()
            .thing_name(thing.name.as_str())
            .send()
            .await
            .map_err(platform_error("describe the thing"))?;
        let there = found.attributes().cloned().unwrap_or_default();
        let wanted = thing.attributes.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let same_attributes = wanted.clone().all(|(name, value)| there.get(&name) == Some(&value))
            && there.len() == thing.attributes.len();
        let same_type = thing.type_name.as_ref().is_none_or(|wanted| found.thing_type_name() == Some(wanted.as_str()));

        let merge = match thing.override_settings.attribute_payload {
            _ if same_attributes => None,
            Override::DoNothing => None,
            Override::Fail => return Err(differs("attributes")),
            Override::Merge => Some(true),
            Override::Replace => Some(false),
        };
        let retype = match thing.override_settings.thing_type_name {
            _ if same_type => false,
            Override::DoNothing => false,
            Override::Fail | Override::Merge => return Err(differs("thing type")),
            Override::Replace => true,
        };
        if merge.is_none() && !retype {
            return Ok(());
        }
        let mut update = self.client.update_thing().thing_name(thing.name.as_str());
        if let Some(merge) = merge {
            let attributes = AttributePayload::builder().set_attributes(Some(wanted.collect())).merge(merge);
            update = update.attribute_payload(attributes.build());
        }
        if retype {
            update = update.set_thing_type_name(thing.type_name.as_ref().map(ToString::to_string));
        }
        update.send().await.map_err(platform_error("update the thing"))?;
        Ok(())
    }
}

impl Platform for AwsIot {
    async fn issue(&self, csr: &Csr, _: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        self.make(csr, true).await
    }

    fn prepares(&self) -> bool {
        self.own_ca.is_some()
    }

    fn has_key(&self, key: &KeyFingerprint) -> bool {
        self.own_ca.as_ref().is_some_and(|own_ca| own_ca.authority.has_key(key))
    }

    async fn prepare(&self, csr: &Csr, thing: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        match &self.own_ca {
            Some(own_ca) => Box::pin(own_ca.sign(csr, thing)).await,
            None => Err(refused("prepare a certificate", "AWS IoT makes its certificates itself")),
        }
    }

    async fn register(&self, pem: &str) -> Result<(), PlatformError> {
        self.register_certificate(pem).await
    }

    async fn ensure_thing(&self, thing: &Thing) -> Result<(), PlatformError> {
        let mut attributes = AttributePayload::builder();
        for (name, value) in &thing.attributes {
            attributes = attributes.attributes(name.to_string(), value.to_string());
        }
        let result = self
            .client
            .create_thing()
            .thing_name(thing.name.as_str())
            .attribute_payload(attributes.build())
            .set_thing_type_name(thing.type_name.as_ref().map(ToString::to_string))
            .set_billing_group_name(thing.billing_group.as_ref().map(ToString::to_string))
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            // Answered only where the thing that is there differs; the same thing again is a success.
            Err(error)
                if matches!(error.as_service_error(), Some(CreateThingError::ResourceAlreadyExistsException(_))) =>
            {
                self.reconcile(thing).await
            }
            Err(error) => Err(platform_error("create the thing")(error)),
        }
    }

    async fn attach_thing(
        &self,
        thing: &ThingName,
        certificate_name: &str,
        kind: ThingPrincipalType,
    ) -> Result<(), PlatformError> {
        // The other kind is the service's default, and left out it works where the parameter is not known yet.
        let exclusive = (kind == ThingPrincipalType::Exclusive).then_some(AwsPrincipalType::ExclusiveThing);
        self.client
            .attach_thing_principal()
            .thing_name(thing.as_str())
            .principal(certificate_name)
            .set_thing_principal_type(exclusive)
            .send()
            .await
            .map_err(platform_error("attach the certificate to the thing"))?;
        Ok(())
    }

    async fn attach_policy(&self, policy: &PolicyName, certificate_name: &str) -> Result<(), PlatformError> {
        self.client
            .attach_policy()
            .policy_name(policy.as_str())
            .target(certificate_name)
            .send()
            .await
            .map_err(platform_error("attach the policy to the certificate"))?;
        Ok(())
    }

    async fn join_group(&self, thing: &ThingName, group: &ThingGroupName) -> Result<(), PlatformError> {
        self.client
            .add_thing_to_thing_group()
            .thing_name(thing.as_str())
            .thing_group_name(group.as_str())
            .send()
            .await
            .map_err(platform_error("add the thing to the group"))?;
        Ok(())
    }

    async fn certificates_of(&self, thing: &ThingName) -> Result<Vec<RegisteredCertificate>, PlatformError> {
        let mut certificates = Vec::new();
        for name in self.principals_of(thing).await? {
            let Some(id) = certificate_id(&name) else { continue };
            certificates.extend(self.describe_id(id).await?.filter(|there| there.standing == Standing::Active));
        }
        Ok(certificates)
    }

    async fn retire(&self, thing: &ThingName, certificate_name: &str) -> Result<(), PlatformError> {
        let Some(id) = certificate_id(certificate_name) else {
            return Err(refused("retire a certificate", "its name is not an ARN of AWS IoT"));
        };
        // Power goes first.
        let deactivated =
            self.client.update_certificate().certificate_id(id).new_status(CertificateStatus::Inactive).send().await;
        match deactivated {
            Ok(_) => {}
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(platform_error("deactivate a certificate")(error)),
        }
        let detached =
            self.client.detach_thing_principal().thing_name(thing.as_str()).principal(certificate_name).send().await;
        match detached {
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(platform_error("detach a certificate from the thing")(error)),
        }
        // Detaching takes seconds to be seen; a certificate that cannot be deleted yet is inactive and harmless.
        if let Err(error) = self.client.delete_certificate().certificate_id(id).force_delete(true).send().await {
            tracing::info!(certificate = id, code = error.code(), "a retired certificate was left inactive");
        }
        Ok(())
    }
}

/// A certificate out of an answer.
pub(crate) fn issued(
    name: Option<String>,
    pem: Option<&str>,
    action: &'static str,
) -> Result<IssuedCertificate, PlatformError> {
    let (Some(name), Some(pem)) = (name, pem) else {
        return Err(refused(action, "the answer has no certificate"));
    };
    let certificate = Certificate::parse(pem).map_err(|error| PlatformError::Defective { source: error.into() })?;
    Ok(IssuedCertificate { name, certificate })
}

/// The id at the end of a certificate's ARN, `arn:<partition>:iot:<region>:<account>:cert/<id>`.
pub(crate) fn certificate_id(name: &str) -> Option<&str> {
    name.starts_with("arn:").then(|| name.split_once(":cert/").map(|(_, id)| id))?
}

pub(crate) fn is_gone<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

fn differs(what: &'static str) -> PlatformError {
    refused("create the thing", format!("there is a thing of this name with other {what}"))
}

pub(crate) fn refused(action: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> PlatformError {
    PlatformError::Refused { action, source: source.into() }
}
