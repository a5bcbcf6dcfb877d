//! A CA of one's own, and what is kept of its certificates.

use crate::{
    CertificateId, Csr, DeviceId, IssuedCertificate, KeyFingerprint, PlatformError, RegistryError, Standing, ThingName,
    Timestamp,
};

/// A CA of our own, which can say what a certificate will be before anything is written.
pub trait CertificateAuthority: Send + Sync {
    /// Signs a certificate for the CSR's key and for this thing, and says what the ledger is to have of it.
    fn certify(
        &self,
        csr: &Csr,
        thing: &ThingName,
    ) -> impl Future<Output = Result<(IssuedCertificate, LedgerEntry), PlatformError>> + Send;

    /// Whether this is the key of one of the CAs, or of a CA above them: no device may have it.
    fn has_key(&self, key: &KeyFingerprint) -> bool;
}

/// The certificates that a platform of one's own has issued, and how they stand.
pub trait CertificateLedger: Send + Sync {
    /// Enters a certificate; one that is there already stays as it is.
    fn enter(&self, entry: &LedgerEntry) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// What is known of a certificate.
    fn entry(&self, id: &CertificateId) -> impl Future<Output = Result<Option<LedgerEntry>, RegistryError>> + Send;

    /// The certificate of this issuer that has this serial number, both in hexadecimal digits.
    fn entry_of_serial(
        &self,
        issuer: &str,
        serial: &str,
    ) -> impl Future<Output = Result<Option<LedgerEntry>, RegistryError>> + Send;

    /// The certificates that were made for this thing.
    fn entries_of(&self, thing: &ThingName) -> impl Future<Output = Result<Vec<LedgerEntry>, RegistryError>> + Send;

    /// Writes how a certificate stands from this moment on. One that is revoked stays so.
    fn set_standing(
        &self,
        id: &CertificateId,
        standing: Standing,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send;

    /// At most `limit` devices whose superseded certificates have to lose their power at `now`, the longest due first.
    fn successions_due(
        &self,
        now: Timestamp,
        limit: u16,
    ) -> impl Future<Output = Result<Vec<DeviceId>, RegistryError>> + Send;

    /// The certificates of this issuer that nobody may let in, and that end after this moment.
    fn without_power(
        &self,
        issuer: &str,
        ends_after: Timestamp,
    ) -> impl Future<Output = Result<Vec<LedgerEntry>, RegistryError>> + Send;
}

/// A certificate that a platform of one's own has issued.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LedgerEntry {
    /// Which.
    pub id: CertificateId,
    /// The key id of the CA that issued it, in hexadecimal digits.
    pub issuer: String,
    /// Its serial number there, in hexadecimal digits.
    pub serial: String,
    /// The certificate in PEM.
    pub pem: String,
    /// The thing that it was made for.
    pub thing: ThingName,
    /// The last moment of its validity.
    pub not_after: Timestamp,
    /// Whether it is to be let in.
    pub standing: Standing,
    /// Since when.
    pub since: Timestamp,
}
