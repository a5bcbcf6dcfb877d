//! What each door can make of a template.

use std::fmt;

use clap::ValueEnum;
use cvm_provisioning::{FeatureKind, ProvisioningTemplate, Severity, Templates, lint_policy};

use super::finding::Finding;

/// Who runs a template.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum TemplateUse {
    /// The vending API
    Vend,
    /// AWS IoT, for fleet provisioning
    Fleet,
    /// AWS IoT, for just-in-time provisioning
    Jitp,
}

impl TemplateUse {
    pub(super) const ALL: [Self; 3] = [Self::Vend, Self::Fleet, Self::Jitp];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vend => "vend",
            Self::Fleet => "fleet",
            Self::Jitp => "jitp",
        }
    }

    /// What in the template this door cannot do, or does so that its author should know.
    pub(super) fn findings(self, template: &ProvisioningTemplate) -> Vec<Finding> {
        let mut findings = Vec::new();
        for feature in template.features() {
            if let Some((severity, message, advice)) = self.objection(&feature.kind) {
                let (message, advice) = (message.to_owned(), advice.to_owned());
                findings.push(Finding { path: feature.path, severity, message, advice });
            }
        }
        if self != Self::Jitp && !Templates::ID_PARAMETERS.iter().any(|name| template.declares(name)) {
            findings.push(Finding {
                path: "/Parameters".to_owned(),
                severity: Severity::Warning,
                message: "there is neither SerialNumber nor DeviceId, by which a door gives the device's id".to_owned(),
                advice: "declare SerialNumber and name the thing by it".to_owned(),
            });
        }
        findings
    }

    fn objection(self, kind: &FeatureKind) -> Option<(Severity, &'static str, &'static str)> {
        let parameter = "declare a parameter and refer to that";
        Some(match (self, kind) {
            (Self::Vend, FeatureKind::CertificateField) => {
                (Severity::Error, "nobody gives this value: the certificate is made together with the thing", parameter)
            }
            (Self::Jitp, FeatureKind::CertificateField) => (
                Severity::Warning,
                "AWS IoT does not provision a device whose certificate lacks this field",
                "make sure that the CA puts it into every certificate, or remove the parameter",
            ),
            (Self::Fleet, FeatureKind::CertificateField) => {
                (Severity::Error, "nobody gives this value: AWS IoT does so for just-in-time provisioning", parameter)
            }
            (Self::Vend, FeatureKind::CertificateId) => (
                Severity::Error,
                "the certificate's id is not known yet: thing and certificate are made side by side",
                parameter,
            ),
            (Self::Fleet | Self::Jitp, FeatureKind::CertificateSource(_)) => (
                Severity::Error,
                "the certificate is there already, and is named by its id",
                "write \"CertificateId\": {\"Ref\": \"AWS::IoT::Certificate::Id\"}",
            ),
            (Self::Jitp, FeatureKind::DeviceConfiguration) => (
                Severity::Error,
                "nobody tells the device its configuration: AWS IoT does so for fleet provisioning",
                "take it away, or use fleet provisioning or a vend",
            ),
            (Self::Vend, FeatureKind::InactiveCertificate) => {
                (Severity::Error, "a vend hands out active certificates only", "take the Status away")
            }
            (_, FeatureKind::InactiveCertificate) => (
                Severity::Warning,
                "the device cannot connect until somebody activates its certificate",
                "if it is not meant, take the Status away",
            ),
            (Self::Vend, FeatureKind::NoThing) => {
                (Severity::Error, "every device of a vend becomes a thing", "add an AWS::IoT::Thing")
            }
            (Self::Fleet, FeatureKind::NoThing) => (
                Severity::Warning,
                "no thing is made, and cvm follows a device by its thing",
                "if devices of the registry use this template, add an AWS::IoT::Thing",
            ),
            (Self::Jitp, FeatureKind::NoThing) => {
                (Severity::Warning, "no thing is made", "if it is not meant, add an AWS::IoT::Thing")
            }
            (Self::Vend, FeatureKind::PackageVersions) => {
                (Severity::Error, "a vend registers no packages", "take them away, or use fleet provisioning")
            }
            (Self::Jitp, FeatureKind::Parameter) => (
                Severity::Error,
                "nobody gives this value: AWS IoT knows the certificate's fields only",
                "use AWS::IoT::Certificate::CommonName or another field, or give it a default",
            ),
            (Self::Vend, FeatureKind::PolicyDocument { .. }) => (
                Severity::Error,
                "a vend makes no policies, so that they do not pile up",
                "make one policy for all devices and name it with PolicyName",
            ),
            (_, FeatureKind::PolicyDocument { per_device: true, .. }) => (
                Severity::Warning,
                "each device gets a policy of its own, which stays when the device is gone",
                "make one policy for all devices, with ${iot:Connection.Thing.ThingName}, and name it with PolicyName",
            ),
            _ => return None,
        })
    }
}

impl fmt::Display for TemplateUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with the template whoever runs it.
pub(super) fn general_findings(template: &ProvisioningTemplate) -> Vec<Finding> {
    let mut findings = Vec::new();
    for feature in template.features() {
        match feature.kind {
            FeatureKind::OneThing => findings.push(Finding {
                path: feature.path,
                severity: Severity::Error,
                message: "every device becomes this one thing".to_owned(),
                advice: "refer to a parameter, such as {\"Ref\": \"SerialNumber\"}".to_owned(),
            }),
            FeatureKind::CertificateIdParameter(name) => findings.push(Finding {
                path: feature.path,
                severity: Severity::Error,
                message: format!(
                    "the CertificateId comes from {name}: a device could name the certificate of another one"
                ),
                advice: "write \"CertificateId\": {\"Ref\": \"AWS::IoT::Certificate::Id\"}".to_owned(),
            }),
            FeatureKind::PolicyDocument { draft: Ok(draft), .. } => {
                let problems = lint_policy(&draft);
                findings.extend(problems.iter().map(|problem| Finding::in_policy(&feature.path, problem)));
            }
            FeatureKind::PolicyDocument { draft: Err(_), .. } => findings.push(Finding {
                path: feature.path,
                severity: Severity::Warning,
                message: "what this policy allows depends on the parameters, and was not looked at".to_owned(),
                advice: "put parameters into resources only, or check the policies that devices have".to_owned(),
            }),
            _ => {}
        }
    }
    findings
}
