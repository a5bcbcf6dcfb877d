use cvm_aws::CertificateAuthority;
use cvm_provisioning::CertificateId;
use serde::Serialize;
use x509_parser::pem::parse_x509_pem;

/// A CA as `cvm ca` shows it. Every field is always there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CaView {
    pub(super) ca_id: CertificateId,
    pub(super) name: Option<String>,
    pub(super) status: &'static str,
    pub(super) auto_registration: bool,
    pub(super) template: Option<String>,
    pub(super) role_arn: Option<String>,
    pub(super) not_before: Option<String>,
    pub(super) not_after: Option<String>,
}

impl From<&CertificateAuthority> for CaView {
    fn from(authority: &CertificateAuthority) -> Self {
        let provisioning = authority.provisioning.as_ref();
        Self {
            ca_id: authority.id,
            name: authority.pem.as_deref().and_then(common_name),
            status: if authority.is_active { "active" } else { "inactive" },
            auto_registration: authority.auto_registration,
            template: provisioning.map(|provisioning| match &provisioning.template {
                Some(name) => name.to_string(),
                None => "(its own)".to_owned(),
            }),
            role_arn: provisioning.map(|provisioning| provisioning.role_arn.clone()),
            not_before: authority.not_before.map(|moment| moment.to_string()),
            not_after: authority.not_after.map(|moment| moment.to_string()),
        }
    }
}

/// The common name of a CA's certificate, which may be any text.
pub(super) fn common_name(pem: &str) -> Option<String> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = block.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
