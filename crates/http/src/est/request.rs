//! An EST request out of HTTP: parsed once, here, into what the domain takes.

use std::sync::Arc;

use axum::http::{HeaderMap, Uri};
use cvm_provisioning::{Certificate, Csr, DeviceId, DeviceIdFrom, EnrolmentToken, KeyRequest};

use super::credential::Credential;
use crate::Problem;
use crate::door::{ClientCertificate, without_query};
use crate::media::BodyType;
use crate::request::{expect_subject, pkcs10};

/// What all bodies are (RFC 7030 section 4.2.1).
const TYPE: &str = "application/pkcs10";

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
        from: DeviceIdFrom,
        client: Option<&ClientCertificate>,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, Problem> {
        without_query(uri)?;
        let Credential { device, token, shown } = Credential::of(headers, client, from)?;
        if BodyType::one_of(headers, TYPE)? != BodyType::Pkcs10 {
            return Err(Problem::content_type_unsupported(format!("send the body as {TYPE}")));
        }
        let csr = match wanted {
            Wanted::Certificate => {
                let csr = pkcs10(body, Csr::from_der, Csr::parse)?;
                expect_subject(from, csr.subject(), &device)?;
                Some(csr)
            }
            Wanted::Key => {
                let request = pkcs10(body, KeyRequest::from_der, KeyRequest::parse)?;
                expect_subject(from, request.subject(), &device)?;
                None
            }
        };
        Ok(Self { csr, device, shown, token })
    }
}
