//! What AWS IoT says when something happens, and what it asks: the JSON of the AWS IoT Developer Guide. Fields that
//! nothing here needs, and fields that the guide does not name, are passed over.

use std::collections::BTreeMap;

use cvm_provisioning::{CertificateId, Connection, Origin, ProvisioningRequest, TemplateName, Timestamp};
use serde::{Deserialize, Serialize};

/// A certificate of a registered CA was shown for the first time, or is shown again and still pending (page *Just-in-time
/// registration*).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRegistered {
    /// The certificate.
    pub certificate_id: CertificateId,
    /// The CA that issued it.
    pub ca_certificate_id: CertificateId,
    /// The address that the connection came from; not in the guide, and not always there.
    #[serde(default)]
    pub source_ip: Option<String>,
}

/// A client connected, or disconnected (page *Lifecycle events*, connect and disconnect events).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceChanged {
    /// `connected` or `disconnected`.
    pub event_type: String,
    /// The MQTT client id.
    pub client_id: String,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub timestamp: i64,
    /// Who: the certificate's id for a client that has one, else something that has another form.
    pub principal_identifier: String,
    /// The address that the connection came from.
    #[serde(default)]
    pub ip_address: Option<String>,
}

impl PresenceChanged {
    /// Whether it is connected now; `None` for an event that is neither.
    pub fn is_connected(&self) -> Option<bool> {
        match self.event_type.as_str() {
            "connected" => Some(true),
            "disconnected" => Some(false),
            _ => None,
        }
    }

    /// The connection, where the client had a certificate.
    pub fn connection(self, origin: Origin) -> Option<Connection> {
        let certificate = self.principal_identifier.parse().ok()?;
        let (at, order) = (self.at(), self.timestamp.max(0).cast_unsigned());
        let origin = Origin { source: self.ip_address, ..origin };
        Some(Connection { certificate, client_id: self.client_id, origin, at, order })
    }

    /// When it was made, or ended.
    const fn at(&self) -> Timestamp {
        Timestamp::from_seconds(self.timestamp.div_euclid(1_000))
    }
}

/// The question that a pre-provisioning hook is asked (page *Pre-provisioning hooks*, payload version 2020-04-01).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookQuestion {
    #[serde(default)]
    claim_certificate_id: Option<CertificateId>,
    certificate_id: CertificateId,
    certificate_pem: String,
    template_arn: String,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

impl HookQuestion {
    /// The name at the end of the template's ARN, `arn:<partition>:iot:<region>:<account>:provisioningtemplate/<name>`.
    fn template(&self) -> Option<TemplateName> {
        let mut parts = self.template_arn.splitn(6, ':');
        if (parts.next(), parts.nth(1)) != (Some("arn"), Some("iot")) {
            return None;
        }
        parts.nth(2)?.strip_prefix("provisioningtemplate/")?.parse().ok()
    }

    /// What the decision takes; `None` when the question names no provisioning template.
    pub fn request(self, origin: Origin, now: Timestamp) -> Option<ProvisioningRequest> {
        Some(ProvisioningRequest {
            template: self.template()?,
            claim: self.claim_certificate_id,
            certificate: self.certificate_id,
            pem: self.certificate_pem,
            client_id: self.client_id,
            parameters: self.parameters,
            origin,
            now,
        })
    }
}

/// The answer of a pre-provisioning hook. A `null` in it would leave the parameter without a value, so there is none.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookAnswer {
    /// Whether AWS IoT goes on.
    pub allow_provisioning: bool,
    /// Values that take the place of what the device sent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameter_overrides: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::Door;

    use super::*;

    fn question(template_arn: &str) -> HookQuestion {
        let id = "ab".repeat(32);
        let json = serde_json::json!({
            "claimCertificateId": id, "certificateId": id, "certificatePem": "pem", "templateArn": template_arn,
            "clientId": "sn-1", "parameters": {"SerialNumber": "sn-1"}, "templateName": "x"
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_template_is_the_name_in_its_arn() {
        let ours = question("arn:aws-cn:iot:cn-north-1:123456789012:provisioningtemplate/fleet");
        assert_eq!(ours.template(), Some("fleet".parse().unwrap()));
        for foreign in [
            "fleet",
            "",
            "arn:aws:s3:::provisioningtemplate/fleet",
            "arn:aws:iot:eu-central-1:123456789012:provisioningtemplate/",
            "arn:aws:iot:eu-central-1:123456789012:thing/fleet",
            "arn:aws:iot:eu-central-1:123456789012:provisioningtemplate/fleet/x",
        ] {
            assert_eq!(question(foreign).template(), None, "{foreign}");
        }
    }

    #[test]
    fn an_answer_has_no_nulls() {
        let no = serde_json::to_string(&HookAnswer::default()).unwrap();
        assert_eq!(no, r#"{"allowProvisioning":false}"#);
        let parameter_overrides = BTreeMap::from([("Site".to_owned(), "Ulm".to_owned())]);
        let yes = serde_json::to_string(&HookAnswer { allow_provisioning: true, parameter_overrides }).unwrap();
        assert_eq!(yes, r#"{"allowProvisioning":true,"parameterOverrides":{"Site":"Ulm"}}"#);
    }

    #[test]
    fn an_event_is_read_with_fields_that_the_guide_does_not_name_and_without_those_it_does_not_promise() {
        let id = "ab".repeat(32);
        let event = serde_json::json!({
            "certificateId": id, "caCertificateId": id, "timestamp": 1, "certificateStatus": "PENDING_ACTIVATION",
            "awsAccountId": 123_456_789_012_u64, "certificateRegistrationTimestamp": null, "new": {}
        });
        assert!(serde_json::from_value::<CertificateRegistered>(event).is_ok());
        let connected = |principal: &str| PresenceChanged {
            event_type: "connected".to_owned(),
            client_id: "sn-1".to_owned(),
            timestamp: 1_800_000_000_999,
            principal_identifier: principal.to_owned(),
            ip_address: None,
        };
        let connection = |principal: &str| connected(principal).connection(Origin::new(Door::Confirm, String::new()));
        assert_eq!(connection(&id).map(|connection| connection.certificate), Some(id.parse().unwrap()));
        assert_eq!(connection(&id).map(|connection| connection.order), Some(1_800_000_000_999));
        assert!(connection("AIDAEXAMPLE:session").is_none());
        let left = PresenceChanged { event_type: "disconnected".to_owned(), ..connected(&id) };
        assert_eq!((connected(&id).is_connected(), left.is_connected()), (Some(true), Some(false)));
        assert_eq!(connected(&id).at(), Timestamp::from_seconds(1_800_000_000));
    }
}
