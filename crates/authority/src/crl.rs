use std::collections::BTreeMap;
use std::time::Duration;

use cvm_provisioning::Timestamp;
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use crate::contents::tlv;
use crate::lint;
use crate::moment::moment;
use crate::{Authority, Defect, Profile, RevokedCertificate, SerialNumber, Signer, SigningError, Unfit};

/// A revocation list, signed (RFC 5280 section 5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crl {
    der: Vec<u8>,
    pem: String,
    entries: usize,
    next_update: Timestamp,
}

impl Crl {
    /// The list in DER, which is what is served at a distribution point (RFC 5280 section 4.2.1.13).
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The list in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// How many certificates are listed.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// When there has to be the next one: after that, this one is not believed any more.
    pub fn next_update(&self) -> Timestamp {
        self.next_update
    }
}

impl<S: Signer> Authority<S> {
    /// Signs the list of the certificates of this CA that are revoked. `number` is greater than that of every list that
    /// it has signed before, and the list is believed for so long from now on.
    ///
    /// All that were ever revoked may be given: those that need not be listed any more are left out. One that is given
    /// twice was revoked the first time, and one that is revoked in the future is revoked now.
    ///
    /// # Errors
    ///
    /// [`CrlError`].
    pub async fn sign_crl(
        &self,
        revoked: impl IntoIterator<Item = RevokedCertificate>,
        number: u64,
        validity: Duration,
        now: Timestamp,
    ) -> Result<Crl, CrlError> {
        self.check(now)?;
        if !self.may_sign_crls() {
            return Err(CrlError::KeyUsage);
        }
        let next_update = Timestamp::from(moment(now.after(validity)));
        if next_update <= now {
            return Err(CrlError::NoValidity);
        }
        // Whoever has a clock that is slow would believe no certificate at all with a list of the future.
        let this_update = now.before(Profile::BACKDATED);
        let entries = entries(revoked, validity, now);
        let params = CertificateRevocationListParams {
            this_update: moment(this_update),
            next_update: moment(next_update),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: entries.values().map(in_library).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_identifier().to_vec()),
        };
        let signed = self.sign(|issuer| params.signed_by(issuer)).await?;
        self.lint_crl(signed.der(), &entries, number, [this_update, next_update]).map_err(SigningError::from)?;
        Ok(Crl {
            der: signed.der().to_vec(),
            pem: signed.pem().map_err(SigningError::from)?,
            entries: entries.len(),
            next_update,
        })
    }

    fn lint_crl(
        &self,
        der: &[u8],
        entries: &BTreeMap<SerialNumber, RevokedCertificate>,
        number: u64,
        times: [Timestamp; 2],
    ) -> Result<(), Defect> {
        let (rest, crl) = x509_parser::parse_x509_crl(der).map_err(|_| Defect::Encoding)?;
        if !rest.is_empty() {
            return Err(Defect::Encoding);
        }
        let signed = &crl.tbs_cert_list;
        let found = [Some(signed.this_update), signed.next_update];
        let rules = [
            (crl.signature_value.unused_bits == 0, Defect::Encoding),
            (signed.version == Some(X509Version::V2), Defect::Version),
            (signed.issuer.as_raw() == self.subject(), Defect::Issuer),
            (
                found.map(|time| time.map(|time| time.timestamp())) == times.map(|time| Some(time.seconds())),
                Defect::Validity,
            ),
            (self.has_extensions(&crl, number), Defect::Extensions),
            (lists(&crl, entries), Defect::Entries),
        ];
        rules.into_iter().try_for_each(|(holds, defect)| if holds { Ok(()) } else { Err(defect) })?;
        lint::signature(
            self.signatory(),
            [&signed.signature, &crl.signature_algorithm],
            signed.as_ref(),
            &crl.signature_value.data,
        )
    }

    /// The identifier of the CA's key and the list's number, neither of them critical.
    fn has_extensions(&self, crl: &CertificateRevocationList<'_>, number: u64) -> bool {
        // A positive INTEGER begins with a bit that is not set.
        let number = number.to_be_bytes();
        let bytes = [&[0], &number[..]].concat();
        let zeros = bytes.windows(2).take_while(|pair| pair[0] == 0 && pair[1] < 0x80).count();
        let expected = [
            ("2.5.29.35", tlv(0x30, &[&tlv(0x80, &[self.key_identifier()])])),
            ("2.5.29.20", tlv(0x02, &[&bytes[zeros..]])),
        ];
        let found = crl.extensions();
        found.len() == expected.len()
            && expected.iter().all(|(identifier, value)| {
                found.iter().any(|found| {
                    found.oid.to_id_string() == *identifier && !found.critical && found.value == value.as_slice()
                })
            })
    }
}

/// Those that are listed, in the order of their numbers.
fn entries(
    revoked: impl IntoIterator<Item = RevokedCertificate>,
    validity: Duration,
    now: Timestamp,
) -> BTreeMap<SerialNumber, RevokedCertificate> {
    let mut entries: BTreeMap<SerialNumber, RevokedCertificate> = BTreeMap::new();
    for mut revoked in revoked {
        if !revoked.is_listed(validity, now) {
            continue;
        }
        revoked.revoked_at = revoked.revoked_at.min(now);
        match entries.get_mut(&revoked.serial_number) {
            Some(known) if known.revoked_at <= revoked.revoked_at => {}
            Some(known) => *known = revoked,
            None => {
                entries.insert(revoked.serial_number.clone(), revoked);
            }
        }
    }
    entries
}

fn in_library(revoked: &RevokedCertificate) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: rcgen::SerialNumber::from_slice(revoked.serial_number.as_bytes()),
        revocation_time: moment(revoked.revoked_at),
        reason_code: Some(revoked.reason.of_library()),
        invalidity_date: None,
    }
}

/// Whether exactly these are listed, with their times and reasons and nothing else.
fn lists(crl: &CertificateRevocationList<'_>, entries: &BTreeMap<SerialNumber, RevokedCertificate>) -> bool {
    let mut found = crl.iter_revoked_certificates();
    let are_listed = entries.values().all(|entry| {
        found.next().is_some_and(|found| {
            let code = found.reason_code().map(|(_, code)| code.0);
            SerialNumber::from_bytes(found.raw_serial()).as_ref() == Ok(&entry.serial_number)
                && found.revocation_date.timestamp() == moment(entry.revoked_at).unix_timestamp()
                && code == entry.reason.code()
                && found.extensions().len() == usize::from(code.is_some())
        })
    });
    are_listed && found.next().is_none()
}

/// Why no revocation list was signed. The one before stays what is believed, until its time is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// The CA may sign certificates only.
    #[error("the CA's key usage has no cRLSign: issue from a CA that has it")]
    KeyUsage,
    /// The list would be believed for less than a second.
    #[error("the list would not be valid for a second")]
    NoValidity,
    /// It could not be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The CA is not valid now.
    #[error("the CA's certificate cannot be used: {0}")]
    Unfit(#[from] Unfit),
}
