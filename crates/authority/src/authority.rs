use std::fmt;

use cvm_provisioning::{Certificate, KeyFingerprint, PublicKey, Timestamp};
use rcgen::{CertificateParams, Issuer, SubjectPublicKeyInfo};
use x509_parser::certificate::{TbsCertificate, X509Certificate};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::FromDer;

use crate::contents::{Contents, Validity, key_identifier};
use crate::library_issuer::library_issuer;
use crate::lint::{self, Defect, Signatory};
use crate::sign::{LibraryIssuer, capture, sign};
use crate::{Signer, SigningError, Unfit};

/// A CA: its certificate, those above it, and the key that signs for it.
pub struct Authority<S> {
    certificate: Certificate,
    above: Vec<Certificate>,
    /// The certificates that a device sends behind its own.
    chain: Vec<Certificate>,
    /// What the library takes for it, but for its key.
    issuer: CertificateParams,
    /// Its key, as the library has it.
    library_key: SubjectPublicKeyInfo,
    subject: Vec<u8>,
    key_identifier: Vec<u8>,
    /// How many CAs there may be below it, if that is bounded.
    path_length: Option<u32>,
    may_sign_crls: bool,
    signer: S,
}

impl<S: Signer> Authority<S> {
    /// A CA of this certificate and key. `above` are the certificates on the way up from it: each has signed the one
    /// before, the first one has signed the CA's, and the last one may be a root. Whether it is valid at this time is
    /// asked with [`Authority::check`].
    ///
    /// # Errors
    ///
    /// [`Unfit`] if the key does not belong to the certificate, or the certificates do not let it sign others.
    pub fn new(certificate: Certificate, above: Vec<Certificate>, signer: S) -> Result<Self, Unfit> {
        if signer.public_key().fingerprint() != certificate.key() {
            return Err(Unfit::OtherKey);
        }
        let block = block(&certificate)?;
        let parsed = block.parse_x509().map_err(|_| Unfit::Encoding)?;
        may_sign_certificates(&parsed)?;
        let key_identifier =
            subject_key_identifier(&parsed).unwrap_or_else(|| key_identifier(signer.public_key()).to_vec());
        let may_sign_crls = parsed.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.crl_sign()));
        let authority = Self {
            chain: chain(&certificate, &above)?,
            above,
            issuer: library_issuer(parsed.subject(), &key_identifier, may_sign_crls).ok_or(Unfit::Name)?,
            library_key: SubjectPublicKeyInfo::from_der(signer.public_key().spki()).map_err(|_| Unfit::Encoding)?,
            subject: parsed.subject().as_raw().to_vec(),
            key_identifier,
            path_length: parsed
                .basic_constraints()
                .map_err(|_| Unfit::Encoding)?
                .and_then(|constraints| constraints.value.path_len_constraint),
            may_sign_crls,
            certificate,
            signer,
        };
        authority.repeats_its_name()?;
        Ok(authority)
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificates on the way up from the CA's, as they were given.
    pub fn above(&self) -> &[Certificate] {
        &self.above
    }

    /// The certificates that a device sends behind its own: the CA's and those above it. A root is left out (RFC 8446
    /// section 4.4.2), unless it is the CA itself, which AWS IoT wants to see in the first TLS connect.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// Its key.
    pub fn signer(&self) -> &S {
        &self.signer
    }

    /// Checks that the CA is valid at this time.
    ///
    /// # Errors
    ///
    /// [`Unfit::Expired`] and [`Unfit::NotYet`].
    pub fn check(&self, now: Timestamp) -> Result<(), Unfit> {
        let Validity { not_before, not_after } = self.validity();
        if now > not_after {
            return Err(Unfit::Expired { at: not_after });
        }
        if now < not_before {
            return Err(Unfit::NotYet { until: not_before });
        }
        Ok(())
    }

    pub(crate) fn validity(&self) -> Validity {
        Validity { not_before: self.certificate.not_before().into(), not_after: self.certificate.not_after().into() }
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(crate) fn path_length(&self) -> Option<u32> {
        self.path_length
    }

    pub(crate) fn may_sign_crls(&self) -> bool {
        self.may_sign_crls
    }

    pub(crate) fn key_identifier(&self) -> &[u8] {
        &self.key_identifier
    }

    /// Whether this is the key of the CA, or of one above it.
    pub fn has_key(&self, key: &KeyFingerprint) -> bool {
        self.certificate.key() == key || self.above.iter().any(|certificate| certificate.key() == key)
    }

    pub(crate) fn signatory(&self) -> Signatory<'_> {
        Signatory {
            algorithm: self.signer.algorithm(),
            key: self.signer.public_key(),
            name: &self.subject,
            key_identifier: Some(&self.key_identifier),
            is_checked: self.signer.in_memory().is_none(),
        }
    }

    /// Has the CA sign what `encode` encodes.
    pub(crate) async fn sign<T>(
        &self,
        encode: impl Fn(&LibraryIssuer<'_>) -> Result<T, rcgen::Error>,
    ) -> Result<T, SigningError> {
        sign(&self.signer, &self.library_key, |pass| encode(&Issuer::from_params(&self.issuer, pass))).await
    }

    /// Signs a certificate for this key, and looks at the result before anybody gets it.
    pub(crate) async fn certify(&self, contents: &Contents<'_>, key: &PublicKey) -> Result<Certificate, SigningError> {
        let mut params = contents.params()?;
        params.use_authority_key_identifier_extension = true;
        let subject_key = SubjectPublicKeyInfo::from_der(key.spki())?;
        let signed = self.sign(|issuer| params.signed_by(&subject_key, issuer)).await?;
        lint::certificate(signed.der(), contents, key, self.signatory())?;
        Ok(Certificate::from_der(signed.der()).map_err(|_| Defect::Encoding)?)
    }

    /// The library reads a name and writes it again: two attributes of one kind become one, for example.
    fn repeats_its_name(&self) -> Result<(), Unfit> {
        let params = CertificateParams::default();
        let to_be_signed = capture(&self.signer, &self.library_key, |pass| {
            params.signed_by(pass, &Issuer::from_params(&self.issuer, pass))
        });
        let to_be_signed = to_be_signed.map_err(|_| Unfit::Name)?;
        let (_, repeated) = TbsCertificate::from_der(&to_be_signed).map_err(|_| Unfit::NameBytes)?;
        if repeated.issuer.as_raw() != self.subject {
            return Err(Unfit::NameBytes);
        }
        Ok(())
    }
}

/// The key stays out of logs, whatever the signer shows of it.
impl<S> fmt::Debug for Authority<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// CA:TRUE, and keyCertSign where there is a key usage (RFC 5280 sections 4.2.1.3 and 4.2.1.9).
fn may_sign_certificates(certificate: &X509Certificate<'_>) -> Result<(), Unfit> {
    let constraints = certificate.basic_constraints().map_err(|_| Unfit::Encoding)?;
    let usage = certificate.key_usage().map_err(|_| Unfit::Encoding)?;
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(Unfit::NoAuthority);
    }
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(Unfit::KeyUsage);
    }
    Ok(())
}

fn subject_key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    })
}

/// The identifier of its issuer's key, as the certificate names it (RFC 5280 section 4.2.1.1).
pub(crate) fn authority_key_identifier(certificate: &Certificate) -> Option<Vec<u8>> {
    let der = certificate.der();
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => Some(identifier.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    })
}

/// The key that a certificate is about.
///
/// # Errors
///
/// [`Unfit::Encoding`], also for a key that no CA and no device may have.
pub fn public_key(certificate: &Certificate) -> Result<PublicKey, Unfit> {
    let block = block(certificate)?;
    let parsed = block.parse_x509().map_err(|_| Unfit::Encoding)?;
    PublicKey::from_spki(parsed.public_key().raw).map_err(|_| Unfit::Encoding)
}

/// The PEM of the certificates that a device sends, after it was checked that each has signed the one before.
fn chain(certificate: &Certificate, above: &[Certificate]) -> Result<Vec<Certificate>, Unfit> {
    let mut chain = vec![certificate.clone()];
    let mut below = block(certificate)?;
    for (position, certificate) in above.iter().enumerate() {
        let block = block(certificate)?;
        let parsed = block.parse_x509().map_err(|_| Unfit::Encoding)?;
        let child = below.parse_x509().map_err(|_| Unfit::Encoding)?;
        may_sign_certificates(&parsed).map_err(|_| Unfit::Chain { position })?;
        let constraints = parsed.basic_constraints().map_err(|_| Unfit::Encoding)?;
        let path_length = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        // Between it and a device's certificate there are the CA's and those before this one.
        let is_allowed = path_length.is_none_or(|length| position < length as usize);
        let is_signed = child.issuer().as_raw() == parsed.subject().as_raw()
            && child.verify_signature(Some(parsed.public_key())).is_ok();
        if !is_allowed || !is_signed {
            return Err(Unfit::Chain { position });
        }
        if parsed.subject().as_raw() != parsed.issuer().as_raw() {
            chain.push(certificate.clone());
        }
        below = block;
    }
    Ok(chain)
}

fn block(certificate: &Certificate) -> Result<Pem, Unfit> {
    parse_x509_pem(certificate.pem().as_bytes()).map(|(_, block)| block).map_err(|_| Unfit::Encoding)
}
