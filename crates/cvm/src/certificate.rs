//! Certificates on the command line: by their id or in a file.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cvm_provisioning::{BadCertificate, Certificate, CertificateId};

use crate::file::{self, FileError};

/// A certificate: 64 hexadecimal digits are its id, everything else is a file.
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

/// The certificate in this file, in PEM or DER. One that could sign others is no device's.
pub(crate) fn read(path: &Path) -> Result<Certificate, CertificateError> {
    let bytes = file::read(path, Certificate::MAX_TEXT)?;
    let certificate = match std::str::from_utf8(&bytes) {
        Ok(text) => Certificate::parse(text),
        Err(_) => Certificate::from_der(&bytes),
    };
    let certificate = certificate.map_err(|source| CertificateError::Unusable { path: path.to_owned(), source })?;
    if certificate.is_ca() {
        return Err(CertificateError::Authority { path: path.to_owned(), id: *certificate.id() });
    }
    Ok(certificate)
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CertificateError {
    #[error("{path} holds the certificate of a CA, whose id is {id}", path = path.display())]
    Authority { path: PathBuf, id: CertificateId },
    #[error(transparent)]
    File(#[from] FileError),
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
            Self::Unusable { .. } => "give the file with the one certificate, in PEM or DER".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_64_hexadecimal_digits_is_a_file() {
        let id = CertificateId::of(b"certificate");
        assert_eq!(id.to_string().parse(), Ok(CertificateArgument::Id(id)));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(CertificateArgument::Id(id)));
        for file in ["claim.pem", &id.to_string()[1..], ""] {
            assert_eq!(file.parse(), Ok(CertificateArgument::File(file.into())));
        }
    }
}
