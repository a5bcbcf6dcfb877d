//! What a new device is to prove itself with.

use std::path::{Path, PathBuf};

use clap::Args;
use cvm_provisioning::{
    Attestation, BadKey, CertificateId, Csr, CsrError, DeviceId, EnrolmentToken, KeyFingerprint, PublicKey, Timestamp,
};

use crate::arguments::TimeToLive;
use crate::certificate::{self, CertificateArgument, CertificateError};
use crate::file::{self, FileError};
use crate::pem;
use crate::token::{self, TokenError};

#[derive(Args, Debug)]
pub(super) struct ProofArguments {
    /// Take the enrolment token from this file, `-` for stdin, instead of making one
    #[arg(long, value_name = "FILE", group = "proof")]
    token_file: Option<PathBuf>,
    /// Write the enrolment token to this new file, with mode 0600, instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    pub(super) token_out: Option<PathBuf>,
    /// Let the enrolment token expire, after 90s, 15m, 12h, 7d, 2w ...
    #[arg(long, value_name = "TIME")]
    token_ttl: Option<TimeToLive>,
    /// Let the device prove itself with the key of this fingerprint: SHA-256 of its SubjectPublicKeyInfo, in hex
    #[arg(long, value_name = "THUMBPRINT", group = "proof", alias = "public-key-thumbprint")]
    public_key: Option<KeyFingerprint>,
    /// The same, with the key of this certificate signing request, in PEM or DER
    #[arg(long, value_name = "FILE", group = "proof")]
    csr: Option<PathBuf>,
    /// The same, with this public key, in PEM or DER
    #[arg(long, value_name = "FILE", group = "proof")]
    public_key_file: Option<PathBuf>,
    /// Let it prove itself with a factory certificate in its name of this CA, at its first connect to AWS IoT
    #[arg(long, value_name = "CA_ID", group = "proof")]
    ca: Option<CertificateId>,
    /// The same, with exactly this factory certificate: its id, or a file in PEM or DER
    #[arg(long, value_name = "ID|FILE", group = "proof")]
    certificate: Option<CertificateArgument>,
    /// Let it enrol with this claim certificate that it shares with others, or with any that `cvm claim` has registered
    #[arg(long, value_name = "ID", group = "proof", num_args = 0..=1)]
    claim: Option<Option<CertificateId>>,
    /// Let a trusted user, such as an installer with an app, vouch for it
    #[arg(long, group = "proof")]
    trusted_user: bool,
}

/// What the new device proves itself with, and what is to be done with the secret of it.
pub(super) struct Proof {
    pub(super) attestation: Attestation,
    pub(super) made: Option<EnrolmentToken>,
}

impl ProofArguments {
    /// What this device will prove itself with, read or made.
    pub(super) fn proof(&self, id: &DeviceId, now: Timestamp) -> Result<Proof, ProofError> {
        if self.is_other_than_token() && (self.token_out.is_some() || self.token_ttl.is_some()) {
            return Err(ProofError::NoToken);
        }
        if let Some(attestation) = self.without_token(id)? {
            return Ok(Proof { attestation, made: None });
        }
        let brought = self.token_file.as_deref().map(token::read).transpose()?;
        let made = match brought {
            Some(_) => None,
            None => Some(EnrolmentToken::generate().map_err(|_| ProofError::Randomness)?),
        };
        let Some(token) = brought.as_ref().or(made.as_ref()) else { return Err(ProofError::Randomness) };
        let expires_at = self.token_ttl.map(|lifetime| now.after(lifetime.duration()));
        Ok(Proof { attestation: Attestation::Token { digest: token.digest(), second: None, expires_at }, made })
    }

    /// Whether something was chosen in the place of a token.
    fn is_other_than_token(&self) -> bool {
        let key = self.public_key.is_some() || self.csr.is_some() || self.public_key_file.is_some();
        key || self.ca.is_some() || self.certificate.is_some() || self.claim.is_some() || self.trusted_user
    }

    /// What that is.
    fn without_token(&self, id: &DeviceId) -> Result<Option<Attestation>, ProofError> {
        Ok(Some(if let Some(key) = self.public_key {
            Attestation::PublicKey { key }
        } else if let Some(path) = &self.csr {
            Attestation::PublicKey { key: key_of_csr(path, id)? }
        } else if let Some(path) = &self.public_key_file {
            Attestation::PublicKey { key: key_in(path)? }
        } else if let Some(ca) = self.ca {
            Attestation::Ca { id: Some(ca) }
        } else if let Some(certificate) = &self.certificate {
            Attestation::Certificate { id: certificate_of(certificate, id)?, second: None }
        } else if let Some(certificate) = self.claim {
            Attestation::Claim { certificate }
        } else if self.trusted_user {
            Attestation::TrustedUser { claim: None }
        } else {
            return Ok(None);
        }))
    }
}

fn key_of_csr(path: &Path, id: &DeviceId) -> Result<KeyFingerprint, ProofError> {
    let bytes = file::read(path, Csr::MAX_TEXT)?;
    let csr = match std::str::from_utf8(&bytes) {
        Ok(text) => Csr::parse(pem::only_block(text, &Csr::LABELS)),
        Err(_) => Csr::from_der(&bytes),
    };
    let csr = csr.map_err(|source| ProofError::Csr { path: path.to_owned(), source })?;
    match csr.common_name() {
        Some(name) if name != id => Err(ProofError::OtherDevice { path: path.to_owned(), found: name.clone() }),
        _ => Ok(*csr.key().fingerprint()),
    }
}

fn key_in(path: &Path) -> Result<KeyFingerprint, ProofError> {
    let bytes = file::read(path, PublicKey::MAX_TEXT)?;
    let key = match std::str::from_utf8(&bytes) {
        Ok(text) => PublicKey::parse(pem::only_block(text, &[PublicKey::LABEL])),
        Err(_) => PublicKey::from_spki(&bytes),
    };
    Ok(*key.map_err(|source| ProofError::Key { path: path.to_owned(), source })?.fingerprint())
}

/// A common name that is no device id is another way of the factory's to name its devices.
fn certificate_of(certificate: &CertificateArgument, id: &DeviceId) -> Result<CertificateId, ProofError> {
    let path = match certificate {
        CertificateArgument::Id(certificate) => return Ok(*certificate),
        CertificateArgument::File(path) => path,
    };
    let certificate = certificate::read(path)?;
    match certificate.common_name() {
        Ok(Some(name)) if name != *id => Err(ProofError::OtherDevice { path: path.clone(), found: name }),
        _ => Ok(*certificate.id()),
    }
}

/// Why there is nothing that the device could prove itself with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProofError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{path} holds no certificate signing request that can be used", path = path.display())]
    Csr { path: PathBuf, source: CsrError },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} holds no public key that can be used", path = path.display())]
    Key { path: PathBuf, source: BadKey },
    #[error("no enrolment token is made for a device that proves itself with something else")]
    NoToken,
    #[error("{path} is of device {found}", path = path.display())]
    OtherDevice { path: PathBuf, found: DeviceId },
    #[error("the system has no randomness to give")]
    Randomness,
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl ProofError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Certificate(CertificateError::File(_)) | Self::File(_) => "file",
            Self::Certificate(_) => "certificate",
            Self::Csr { .. } => "csr",
            Self::Key { .. } => "public-key",
            Self::NoToken => "usage",
            Self::OtherDevice { .. } => "other-device",
            Self::Randomness => "randomness",
            Self::Token(_) => "token",
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::Certificate(error) => error.advice(),
            Self::Csr { .. } | Self::Key { .. } => {
                "have the device make a P-256 key, and its request with its id as the common name".to_owned()
            }
            Self::File(error) => error.advice(),
            Self::NoToken => "leave out --token-out and --token-ttl, or the other proof".to_owned(),
            Self::OtherDevice { found, .. } => format!("check the file, or run `cvm device add {found}` with it"),
            Self::Randomness => "run this again".to_owned(),
            Self::Token(error) => error.advice(),
        }
    }
}
