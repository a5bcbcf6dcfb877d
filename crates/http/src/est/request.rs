//! An EST request out of HTTP: parsed once, here, into what the domain takes.

use std::sync::Arc;

use axum::http::{HeaderMap, Uri};
use cvm_provisioning::{Certificate, Csr, DeviceId, EnrolmentToken, KeyRequest};

use super::credential::Credential;
use crate::Problem;
use crate::door::{ClientCertificate, without_query};
use crate::media::BodyType;
use crate::request::pkcs10;

/// What the client asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// A certificate for its key.
    Certificate,
    /// A key, and a certificate for it.
    Key,
}

/// What a client said, as far as it can be understood without the registry.
#[derive(Debug)]
pub(super) struct EstRequest {
    pub(super) csr: Option<Csr>,
    pub(super) device: DeviceId,
    pub(super) shown: Option<Arc<Certificate>>,
    pub(super) token: Option<EnrolmentToken>,
}

impl EstRequest {
    /// The largest body taken, in bytes.
    pub(super) const MAX_BODY: usize = Csr::MAX_TEXT;

    /// Who does not say who they are is asked to before anything else is looked at: many clients send a first request
    /// without a credential, to see which one is wanted.
    ///
    /// The CSR's name is the device's, or there is none. That is all of *the same subject as in the certificate that is
    /// renewed* (RFC 7030 section 4.2.2): our certificates have no other subject, and alternative names of our own
    /// choice.
    pub(super) fn parse(
        wanted: Wanted,
        client: Option<&ClientCertificate>,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, Problem> {
        without_query(uri)?;
        let Credential { device, token, shown } = Credential::of(headers, client)?;
        if BodyType::of(headers)? != BodyType::Pkcs10 {
            return Err(Problem::content_type_unsupported("send application/pkcs10"));
        }
        let (csr, claimed) = match wanted {
            Wanted::Certificate => {
                let csr = pkcs10(body, Csr::from_der, Csr::parse)?;
                let claimed = csr.common_name().cloned();
                (Some(csr), claimed)
            }
            Wanted::Key => (None, pkcs10(body, KeyRequest::from_der, KeyRequest::parse)?.common_name().cloned()),
        };
        if claimed.is_some_and(|claimed| claimed != device) {
            return Err(Problem::device_id_mismatch("leave the CSR's common name out, or make it the device id"));
        }
        Ok(Self { csr, device, shown, token })
    }
}
