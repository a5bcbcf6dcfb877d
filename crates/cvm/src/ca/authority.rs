//! A CA that is at hand: its certificate and its private key.

use std::path::{Path, PathBuf};

use aws_lc_rs::error::Unspecified;
use cvm_provisioning::{
    BadCertificate, BadKey, Certificate, CertificateDefect, DeviceId, KeyFingerprint, PublicKey, Timestamp,
};
use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use super::profile::{self, SubjectText, Validity};
use crate::file::{self, FileError};
use crate::output::shell_word;

/// A CA whose key belongs to its certificate, and whose certificate lets it sign device certificates now.
pub(super) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    subject: Vec<u8>,
}

impl Authority {
    /// The longest key that is read, in bytes: several times RSA-4096 in PEM.
    const MAX_KEY: usize = 16_384;

    /// Reads a CA.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] says which of the two files cannot be used and why. Others must not be able to read the key.
    pub(super) fn open(certificate_path: &Path, key_path: &Path, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let certificate = read_certificate(certificate_path)?;
        let key = Zeroizing::new(file::read_private_text(key_path, Self::MAX_KEY)?);
        let key = KeyPair::from_pem(&key).map_err(|_| AuthorityError::Key { path: key_path.to_owned() })?;
        PublicKey::from_spki(&key.subject_public_key_info())
            .map_err(|source| AuthorityError::WeakKey { path: key_path.to_owned(), source })?;
        if KeyFingerprint::of(&key.subject_public_key_info()) != *certificate.key() {
            return Err(AuthorityError::OtherKey {
                key: key_path.to_owned(),
                certificate: certificate_path.to_owned(),
            });
        }
        let at = |problem| AuthorityError::Unfit { path: certificate_path.to_owned(), problem };
        if certificate.not_after() <= now {
            return Err(at(Unfit::Expired { at: certificate.not_after().into() }));
        }
        if certificate.not_before() > now {
            return Err(at(Unfit::NotYet { until: certificate.not_before().into() }));
        }
        Self::new(certificate, key).map_err(at)
    }

    fn new(certificate: Certificate, key: KeyPair) -> Result<Self, Unfit> {
        let (_, block) = parse_x509_pem(certificate.pem().as_bytes()).map_err(|_| Unfit::Encoding)?;
        let parsed = block.parse_x509().map_err(|_| Unfit::Encoding)?;
        may_sign_certificates(&parsed)?;
        // The library takes one attribute for each part of a name.
        if parsed.subject().iter().any(|part| part.iter().count() != 1) {
            return Err(Unfit::Name);
        }
        let subject = parsed.subject().as_raw().to_vec();
        let issuer = Issuer::from_ca_cert_der(&block.contents.as_slice().into(), key).map_err(|_| Unfit::Name)?;
        Ok(Self { certificate, issuer, subject })
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Signs a device's certificate, and looks at the result before it is handed out.
    pub(super) fn certify(
        &self,
        id: &DeviceId,
        key: &PublicKey,
        validity: Validity,
    ) -> Result<Certificate, SigningError> {
        if key.fingerprint() == self.certificate.key() {
            return Err(SigningError::OwnKey);
        }
        let certificate = self.sign(
            &profile::device(id, validity.within(&self.certificate))?,
            &SubjectPublicKeyInfo::from_der(key.spki())?,
        )?;
        certificate.lint(key.fingerprint())?;
        if certificate.common_name() != Ok(Some(id.clone())) {
            return Err(SigningError::Name);
        }
        Ok(certificate)
    }

    /// Signs the proof for AWS IoT that the CA's key is at hand, with a key that is thrown away.
    pub(super) fn certify_registration_code(&self, code: &str, now: OffsetDateTime) -> Result<String, SigningError> {
        let key = KeyPair::generate()?;
        let validity = Validity::of_days(1, now).within(&self.certificate);
        Ok(self.sign(&profile::verification(code, validity)?, &key)?.pem().to_owned())
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, SigningError> {
        let signed = params.signed_by(key, &self.issuer)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(signed.der()).map_err(|_| SigningError::Encoding)?;
        // Names are compared byte by byte on the way from a certificate to its CA.
        if parsed.issuer().as_raw() != self.subject {
            return Err(SigningError::Issuer);
        }
        Certificate::parse(&signed.pem()).map_err(|_| SigningError::Encoding)
    }
}

/// Makes a CA: its key in PEM, and its certificate.
pub(super) fn create(
    name: &SubjectText,
    organization: Option<&SubjectText>,
    algorithm: &'static rcgen::SignatureAlgorithm,
    validity: Validity,
) -> Result<(Zeroizing<String>, Certificate), SigningError> {
    let key = KeyPair::generate_for(algorithm)?;
    let signed = profile::authority(name, organization, validity)?.self_signed(&key)?;
    let pem = Zeroizing::new(key.serialize_pem());
    let certificate = Certificate::parse(&signed.pem()).map_err(|_| SigningError::Encoding)?;
    // It has to be one that every other command takes.
    Authority::new(certificate.clone(), key).map_err(|_| SigningError::Encoding)?;
    Ok((pem, certificate))
}

/// Reads a certificate, whatever it may be used for.
pub(super) fn read_certificate(path: &Path) -> Result<Certificate, AuthorityError> {
    let text = file::read_text(path, Certificate::MAX_TEXT)?;
    Certificate::parse(&text).map_err(|source| AuthorityError::Certificate { path: path.to_owned(), source })
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

/// Why a CA cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AuthorityError {
    #[error("{path} holds no certificate that can be used", path = path.display())]
    Certificate { path: PathBuf, source: BadCertificate },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{path} holds no private key that can be used: expected one PEM block with an elliptic curve or RSA key, not \
         encrypted",
        path = path.display()
    )]
    Key { path: PathBuf },
    #[error("the key in {key} does not belong to the certificate in {certificate}", key = key.display(), certificate = certificate.display())]
    OtherKey { key: PathBuf, certificate: PathBuf },
    #[error("the certificate in {path} cannot be used: {problem}", path = path.display())]
    Unfit { path: PathBuf, problem: Unfit },
    #[error("the key in {path} must not be used", path = path.display())]
    WeakKey { path: PathBuf, source: BadKey },
}

impl AuthorityError {
    /// The stable word for it in JSON.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Certificate { .. } | Self::Unfit { .. } => "ca-certificate",
            Self::File(_) => "file",
            Self::Key { .. } | Self::OtherKey { .. } | Self::WeakKey { .. } => "ca-key",
        }
    }

    /// What to do next.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Certificate { path, .. } => {
                format!("`openssl x509 -in {}` writes the certificate alone", shell_word(&path.to_string_lossy()))
            }
            Self::File(error) => error.advice(),
            Self::Key { path } => format!(
                "`openssl pkcs8 -topk8 -nocrypt -in {} -out ca.key` writes the key alone and readable",
                shell_word(&path.to_string_lossy())
            ),
            Self::OtherKey { .. } => "give the key and the certificate of one CA".to_owned(),
            Self::Unfit { .. } | Self::WeakKey { .. } => {
                "give another CA, or make one with `cvm ca create --name NAME --out DIR`".to_owned()
            }
        }
    }
}

/// Why a CA's certificate does not let it sign.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Unfit {
    #[error("its extensions cannot be read")]
    Encoding,
    #[error("it expired at {at}")]
    Expired { at: Timestamp },
    #[error("it is a CA's whose key usage has no keyCertSign")]
    KeyUsage,
    #[error("its subject has a part of several attributes, or of a kind that cannot be repeated as an issuer")]
    Name,
    #[error("it is no CA's: expected the basic constraint CA:TRUE")]
    NoAuthority,
    #[error("it is not valid before {until}")]
    NotYet { until: Timestamp },
}

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SigningError {
    #[error("the certificate that was made is defective, and was not written")]
    Defect(#[from] CertificateDefect),
    #[error("the certificate that was made cannot be read, and was not written")]
    Encoding,
    #[error("the CA's name cannot be repeated byte for byte as the issuer of a certificate")]
    Issuer,
    #[error("the cryptographic library could not sign")]
    Library(#[from] rcgen::Error),
    #[error("the certificate that was made has another name than the device's, and was not written")]
    Name,
    #[error("the CA's own key is no device's key")]
    OwnKey,
    #[error("the system has no randomness to give")]
    Randomness(#[from] Unspecified),
}
