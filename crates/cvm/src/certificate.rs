//! Certificates on the command line: by their id or in a file.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cvm_provisioning::{BadCertificate, Certificate, CertificateId};

use crate::file::{self, FileError};
use crate::pem;

/// A certificate: a SHA-256 in hexadecimal digits is its id, everything else is a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum CertificateArgument {
    Id(CertificateId),
    File(PathBuf),
}

impl FromStr for CertificateArgument {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Id))
    }
}

impl CertificateArgument {
    /// The certificate's id.
    pub(crate) fn id(&self) -> Result<CertificateId, CertificateError> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::File(path) => Ok(*read(path)?.id()),
        }
    }
}

/// The device's certificate in this file, in PEM or DER, with its chain or without.
pub(crate) fn read(path: &Path) -> Result<Certificate, CertificateError> {
    let bytes = file::read(path, Certificate::MAX_TEXT)?;
    let all = parse_all(&bytes).map_err(|source| CertificateError::Unusable { path: path.to_owned(), source })?;
    let ca = all.first().map(|first| *first.id());
    let mut devices = all.into_iter().filter(|certificate| !certificate.is_ca());
    match (devices.next(), devices.next(), ca) {
        (Some(device), None, _) => Ok(device),
        (Some(_), Some(_), _) => Err(CertificateError::Several { path: path.to_owned() }),
        (None, _, Some(id)) => Err(CertificateError::Authority { path: path.to_owned(), id }),
        (None, _, None) => Err(CertificateError::Unusable { path: path.to_owned(), source: BadCertificate::Encoding }),
    }
}

/// The certificates in a file, in their order: those in PEM, whatever stands around them, or one in DER.
pub(crate) fn parse_all(bytes: &[u8]) -> Result<Vec<Certificate>, BadCertificate> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(vec![Certificate::from_der(bytes)?]) };
    let all: Vec<Certificate> = pem::blocks(text, "CERTIFICATE").map(Certificate::parse).collect::<Result<_, _>>()?;
    if all.is_empty() { Ok(vec![Certificate::parse(text)?]) } else { Ok(all) }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    #[error("{path} holds the certificate of a CA, whose id is {id}", path = path.display())]
    Authority { path: PathBuf, id: CertificateId },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} holds the certificates of several devices", path = path.display())]
    Several { path: PathBuf },
    #[error("{path} holds no certificate that can be used", path = path.display())]
    Unusable { path: PathBuf, source: BadCertificate },
}

impl CertificateError {
    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Authority { id, .. } => {
                format!("`cvm device add ID --ca {id}` takes all its certificates; else give one that it issued")
            }
            Self::File(error) => {
                format!("a certificate is named by its 64 hexadecimal digits or by a file; {}", error.advice())
            }
            Self::Several { .. } => "give a file with the certificate of one device and its chain".to_owned(),
            Self::Unusable { .. } => {
                "give the certificate in PEM or DER; `openssl pkcs12 -in FILE -nokeys` takes it out of \
                                      a PKCS #12 file"
                    .to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    #[test]
    fn what_is_not_64_hexadecimal_digits_is_a_file() {
        let id = CertificateId::of(b"certificate");
        assert_eq!(id.to_string().parse(), Ok(CertificateArgument::Id(id)));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(CertificateArgument::Id(id)));
        let with_colons: Vec<_> = id.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(with_colons.join(":").parse(), Ok(CertificateArgument::Id(id)), "as openssl prints it");
        for file in ["claim.pem", &id.to_string()[1..], ""] {
            assert_eq!(file.parse(), Ok(CertificateArgument::File(file.into())));
        }
    }

    /// A CA and a certificate of each of these devices that it issued, in PEM.
    fn issued(devices: &[&str]) -> (String, Vec<String>) {
        let key = || KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key()).unwrap().pem();
        let issuer = Issuer::new(params, key());
        let device = |name: &&str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, *name);
            params.signed_by(&key(), &issuer).unwrap().pem()
        };
        (ca, devices.iter().map(device).collect())
    }

    #[test]
    fn a_devices_certificate_is_found_beside_its_chain_and_bag_attributes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read(&path)
        };
        let (ca, devices) = issued(&["sn-1", "sn-2"]);
        let expected = Certificate::parse(&devices[0]).unwrap();
        let bag = format!("Bag Attributes\n    localKeyID: 54\nsubject=CN = sn-1\n{}", devices[0]);
        let key = "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n";
        for good in [
            devices[0].clone(),
            format!("{}{ca}", devices[0]),
            format!("{ca}{}", devices[0]),
            format!("\u{feff}{bag}Bag Attributes: <No Attributes>\n{ca}"),
            format!("{key}{bag}"),
            format!("Certificate:\r\n    Data:\r\n{}", devices[0].replace('\n', "\r\n")),
        ] {
            assert_eq!(read(good.as_bytes()).unwrap(), expected, "{good}");
        }
        assert_eq!(read(&expected.der()).unwrap(), expected);
        let two = read(devices.concat().as_bytes()).unwrap_err();
        assert!(matches!(two, CertificateError::Several { .. }), "{two}");
        let authority = read(ca.as_bytes()).unwrap_err();
        assert!(matches!(authority, CertificateError::Authority { .. }), "{authority}");
        let damaged = devices[0].replacen("MII", "AAA", 1);
        assert!(matches!(read(damaged.as_bytes()), Err(CertificateError::Unusable { .. })));
    }
}
