use std::error::Error;

use cvm_provisioning::{CertificateLedger, RegistryError, Timestamp};

use super::request::{OcspRequest, RequestedCertificate};
use super::response::{CertificateStatus, Failure, OcspResponse};
use crate::{Authority, RevokedCertificate, SharedAuthorities, Signer, SigningError};

/// Answers for our own CAs, out of the ledger: what was decided is answered from that moment on. Clones share the CAs.
#[derive(Debug)]
pub struct OcspResponder<S, L> {
    authorities: SharedAuthorities<S>,
    ledger: L,
}

impl<S, L: Clone> Clone for OcspResponder<S, L> {
    fn clone(&self) -> Self {
        Self { authorities: self.authorities.clone(), ledger: self.ledger.clone() }
    }
}

impl<S: Signer, L: CertificateLedger> OcspResponder<S, L> {
    /// Answers for the certificates that these CAs have issued and entered into this ledger.
    pub fn new(authorities: SharedAuthorities<S>, ledger: L) -> Self {
        Self { authorities, ledger }
    }

    /// The answer to a request in DER, which may be anything. Where there is none, the answer says so, and the log says
    /// why if that is for an operator to know.
    pub async fn answer(&self, request: &[u8], now: Timestamp) -> OcspResponse {
        let Ok(request) = OcspRequest::parse(request) else {
            return OcspResponse::failure(Failure::MalformedRequest);
        };
        // Of somebody else's certificates we have nothing to say (RFC 5019 section 2.2.3), and one answer has one
        // signature.
        let authorities = self.authorities.load();
        let mut all = authorities.iter();
        let is_meant = |authority: &&Authority<S>| request.certificates().iter().all(|one| authority.is_meant(one));
        let Some(authority) = all.find(is_meant) else {
            return OcspResponse::failure(Failure::Unauthorized);
        };
        self.sign(authority, &request, now).await.unwrap_or_else(|error| {
            let cause: &dyn Error = &error;
            tracing::error!(error = cause, "a question for a certificate's status was not answered");
            OcspResponse::failure(if error.is_for_now() { Failure::TryLater } else { Failure::InternalError })
        })
    }

    async fn sign(
        &self,
        authority: &Authority<S>,
        request: &OcspRequest,
        now: Timestamp,
    ) -> Result<OcspResponse, OcspError> {
        let mut answers = Vec::with_capacity(request.certificates().len());
        for requested in request.certificates() {
            answers.push((requested, self.status(authority, requested).await?));
        }
        Ok(authority.sign_ocsp(&answers, request.nonce(), now).await?)
    }

    async fn status(
        &self,
        authority: &Authority<S>,
        requested: &RequestedCertificate,
    ) -> Result<CertificateStatus, RegistryError> {
        let issuer = authority.certificate().key().to_string();
        let entry = self.ledger.entry_of_serial(&issuer, &requested.serial_number().to_string()).await?;
        Ok(entry.map_or(CertificateStatus::Unknown, |entry| match RevokedCertificate::of_entry(&entry) {
            Some(revoked) => CertificateStatus::Revoked(revoked),
            None => CertificateStatus::Good { since: entry.since },
        }))
    }
}

/// Why a request that can be answered was not.
#[derive(Debug, thiserror::Error)]
enum OcspError {
    #[error("the ledger did not answer")]
    Ledger(#[from] RegistryError),
    #[error("the answer was not signed")]
    Signing(#[from] SigningError),
}

impl OcspError {
    const fn is_for_now(&self) -> bool {
        match self {
            Self::Ledger(_) => true,
            Self::Signing(error) => error.is_for_now(),
        }
    }
}
