use std::time::Duration;

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use cvm_provisioning::{PublicKey, Timestamp};
use pkcs8::ObjectIdentifier;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::request::{IssuerHash, NONCE, RequestedCertificate};
use crate::contents::tlv;
use crate::moment::moment;
use crate::{Authority, Defect, Profile, RevokedCertificate, SignatureAlgorithm, Signer, SigningError};

/// How a certificate stands (RFC 6960 section 2.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateStatus {
    /// It was issued, and is not revoked.
    Good {
        /// Since when that is known.
        since: Timestamp,
    },
    /// It is not to be trusted, for now or for good.
    Revoked(RevokedCertificate),
    /// The CA has issued none of that number.
    Unknown,
}

/// An answer, in DER.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OcspResponse {
    der: Vec<u8>,
    is_cacheable: bool,
}

impl OcspResponse {
    /// How long an answer is believed.
    pub const VALIDITY: Duration = Duration::from_secs(60 * 60);

    /// The answer itself.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether somebody else who asks the same may be given it: it is signed, and repeats no nonce.
    pub fn is_cacheable(&self) -> bool {
        self.is_cacheable
    }

    /// An answer that says nothing of any certificate, which is not signed.
    pub(super) fn failure(failure: Failure) -> Self {
        let status = tlv(ENUMERATED, &[&[failure as u8]]);
        Self { der: tlv(SEQUENCE, &[&status]), is_cacheable: false }
    }
}

/// Why there is no other answer (RFC 6960 section 4.2.1, OCSPResponseStatus).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Failure {
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    Unauthorized = 6,
}

impl<S: Signer> Authority<S> {
    /// Whether this is the CA that is meant.
    pub(super) fn is_meant(&self, requested: &RequestedCertificate) -> bool {
        let algorithm = match requested.hash {
            IssuerHash::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            IssuerHash::Sha256 => &SHA256,
        };
        key_hash(algorithm, self.signer().public_key()).is_some_and(|hash| hash == requested.key_hash)
            && digest(algorithm, self.subject()).as_ref() == requested.name_hash
    }

    /// Signs what is said of these certificates, with the CA's own key: whoever asks has its certificate.
    pub(super) async fn sign_ocsp(
        &self,
        answers: &[(&RequestedCertificate, CertificateStatus)],
        nonce: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<OcspResponse, SigningError> {
        let answers: Vec<u8> = answers.iter().flat_map(|(requested, status)| single(requested, status, now)).collect();
        let key = key_hash(&SHA1_FOR_LEGACY_USE_ONLY, self.signer().public_key()).ok_or(Defect::Key)?;
        let nonce = nonce.map(|nonce| {
            let nonce = tlv(OCTET_STRING, &[&tlv(OCTET_STRING, &[nonce])]);
            tlv(0xa1, &[&tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&oid(NONCE), &nonce])])])
        });
        let to_be_signed = tlv(
            SEQUENCE,
            &[
                // The responder, by its key.
                &tlv(0xa2, &[&tlv(OCTET_STRING, &[&key])]),
                &time(now),
                &tlv(SEQUENCE, &[&answers]),
                nonce.as_deref().unwrap_or_default(),
            ],
        );
        let signature = self.signer().sign(&to_be_signed).await?;
        if !self.signer().algorithm().verifies(self.signer().public_key(), &to_be_signed, &signature) {
            return Err(Defect::Signature.into());
        }
        let signature = tlv(BIT_STRING, &[&[0], &signature]);
        let basic = tlv(SEQUENCE, &[&to_be_signed, &algorithm(self.signer().algorithm()), &signature]);
        let bytes = tlv(SEQUENCE, &[&oid(BASIC), &tlv(OCTET_STRING, &[&basic])]);
        let der = tlv(SEQUENCE, &[&tlv(ENUMERATED, &[&[SUCCESSFUL]]), &tlv(0xa0, &[&bytes])]);
        Ok(OcspResponse { der, is_cacheable: nonce.is_none() })
    }
}

/// What is said of one certificate.
fn single(requested: &RequestedCertificate, status: &CertificateStatus, now: Timestamp) -> Vec<u8> {
    // Backdated for clocks that are slow, but not to a time at which it was not so.
    let backdated = now.before(Profile::BACKDATED);
    let (status, this_update) = match status {
        CertificateStatus::Good { since } => (tlv(0x80, &[]), backdated.max(*since)),
        CertificateStatus::Revoked(RevokedCertificate { revoked_at, reason, .. }) => {
            let reason = reason.code().map(|code| tlv(0xa0, &[&tlv(ENUMERATED, &[&[code]])])).unwrap_or_default();
            (tlv(0xa1, &[&time(*revoked_at), &reason]), backdated.max(*revoked_at))
        }
        CertificateStatus::Unknown => (tlv(0x82, &[]), backdated),
    };
    let null: &[u8] = if requested.has_null { &[0x05, 0] } else { &[] };
    let hash = tlv(SEQUENCE, &[&oid(requested.hash.object_identifier()), null]);
    // A positive INTEGER begins with a bit that is not set.
    let serial = requested.serial_number.as_bytes();
    let zero: &[u8] = if serial.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    let certificate = tlv(
        SEQUENCE,
        &[
            &hash,
            &tlv(OCTET_STRING, &[&requested.name_hash]),
            &tlv(OCTET_STRING, &[&requested.key_hash]),
            &tlv(INTEGER, &[zero, serial]),
        ],
    );
    let next_update = tlv(0xa0, &[&time(now.after(OcspResponse::VALIDITY))]);
    tlv(SEQUENCE, &[&certificate, &status, &time(this_update.min(now)), &next_update])
}

/// The digest of a public key without what says of which kind it is (RFC 6960 section 4.2.1, KeyHash).
fn key_hash(algorithm: &'static Algorithm, key: &PublicKey) -> Option<Vec<u8>> {
    let (_, info) = SubjectPublicKeyInfo::from_der(key.spki()).ok()?;
    Some(digest(algorithm, &info.subject_public_key.data).as_ref().to_vec())
}

/// A GeneralizedTime, in the form of RFC 5280 section 4.1.2.5.2.
fn time(timestamp: Timestamp) -> Vec<u8> {
    let moment = moment(timestamp);
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    let (hour, minute, second) = (moment.hour(), moment.minute(), moment.second());
    tlv(GENERALIZED_TIME, &[format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z").as_bytes()])
}

/// An AlgorithmIdentifier: with NULL for RSA (RFC 4055 section 5), with nothing for ECDSA (RFC 5758 section 3.2).
fn algorithm(algorithm: SignatureAlgorithm) -> Vec<u8> {
    let null: &[u8] = if algorithm == SignatureAlgorithm::RsaSha256 { &[0x05, 0] } else { &[] };
    tlv(SEQUENCE, &[&oid(algorithm.object_identifier()), null])
}

fn oid(identifier: ObjectIdentifier) -> Vec<u8> {
    tlv(0x06, &[identifier.as_bytes()])
}

/// id-pkix-ocsp-basic (RFC 6960 section 4.2.1).
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const SUCCESSFUL: u8 = 0;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
