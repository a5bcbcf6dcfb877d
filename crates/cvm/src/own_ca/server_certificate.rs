//! Certificates for the servers that devices connect to, such as a broker: a key and a chain in a folder, issued by the
//! private CA and renewed in place.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cvm_authority::{Curve, KeyFile, LocalSigner, ServerName, Signer as _};
use cvm_provisioning::{Certificate, Timestamp};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::read;
use super::{CaFolder, OwnCaError, PassphraseArguments, has_revoked};
use crate::file::{self, FileError};

/// The folder of a server's key and certificate.
#[derive(Clone, Debug)]
pub(crate) struct ServerFiles {
    folder: PathBuf,
}

/// What a server's certificate is to say.
#[derive(Clone, Debug)]
pub(crate) struct ServerRequest {
    /// By what clients know the server; the first one is the common name.
    pub(crate) names: Vec<ServerName>,
    /// How long a new certificate is valid; it ends with its CA at the latest.
    pub(crate) validity: Duration,
    /// A certificate that is valid for less than this is renewed.
    pub(crate) renew_before: Duration,
}

/// The certificate that a server has after the request.
#[derive(Clone, Debug)]
pub(crate) struct ServerCertificate {
    pub(crate) certificate: Certificate,
    /// Whether it was issued by this request.
    pub(crate) is_new: bool,
}

impl ServerFiles {
    /// The files in this folder, which need not exist yet.
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The private key, PKCS #8 in PEM, mode 0600.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("server.key")
    }

    /// The certificate with its issuing CA behind it, in PEM.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("server.pem")
    }

    /// Issues the certificate, unless the one in the folder is for the same key and names, by a CA that is trusted, and
    /// valid for longer than `renew_before`. The key in the folder is kept, or made first: an interrupted run is
    /// completed by the next one.
    ///
    /// A certificate in the folder is only replaced by one that has all of its names: clients know the server by them. One
    /// that is revoked, and one that is no server's, are for the operator to remove.
    ///
    /// A copy of the certificate is in the CA's folder before the server has it, so that each can be revoked.
    pub(crate) async fn issue(
        &self,
        ca: &CaFolder,
        passphrase: &PassphraseArguments,
        request: &ServerRequest,
        now: Timestamp,
    ) -> Result<ServerCertificate, OwnCaError> {
        file::private_folder(&self.folder)?;
        // One run at a time: each sees the key and the certificate of the one before it.
        let folder = File::open(&self.folder).and_then(|folder| folder.lock().map(|()| folder));
        let _locked = folder.map_err(|source| FileError::Read { path: self.folder.clone(), source })?;
        let current = self.current()?;
        let names = current.as_ref().map(names_in).unwrap_or_default();
        if current.is_some() && names.is_empty() {
            return Err(OwnCaError::NoServerCertificate { path: self.certificate() });
        }
        if let Some(certificate) = &current
            && has_revoked(&ca.lists_path(), certificate)?
        {
            return Err(OwnCaError::RevokedServerCertificate { key: self.key(), certificate: self.certificate() });
        }
        if names.iter().any(|name| !request.names.contains(name)) {
            return Err(OwnCaError::OtherNames { path: self.certificate(), names });
        }
        let key = self.own_key()?;
        if ca.root()?.is_none() {
            return Err(OwnCaError::NoCa { folder: ca.path().to_owned() });
        }
        let authorities = read(ca, passphrase.read()?.as_ref(), now).await?.authorities;
        if let Some(certificate) = current {
            let left = now.until(certificate.not_after().into());
            let is_good = certificate.key() == key.public_key().fingerprint()
                && names == request.names
                && authorities.recognize(&certificate).is_some()
                && left > request.renew_before;
            if is_good {
                return Ok(ServerCertificate { certificate, is_new: false });
            }
        }
        let issuer = authorities.current();
        let issued = issuer.issue_server(&request.names, key.public_key(), request.validity, now).await?;
        let record = ca.server_certificate_path(issued.serial_number());
        file::private_folder(file::folder_of(&record))?;
        file::create(&record, issued.certificate().pem())?;
        file::replace(&self.certificate(), issued.chain())?;
        Ok(ServerCertificate { certificate: issued.certificate().clone(), is_new: true })
    }

    fn own_key(&self) -> Result<LocalSigner, OwnCaError> {
        let file = KeyFile::new(self.key());
        if !self.key().exists() {
            let key = LocalSigner::generate(Curve::P256).map_err(|_| OwnCaError::Randomness)?;
            file.create(&key, None).map_err(OwnCaError::ServerKey)?;
        }
        file.read(None).map_err(OwnCaError::ServerKey)
    }

    /// The certificate in the folder; `None` if there is none, or it cannot be read and has to be replaced.
    fn current(&self) -> Result<Option<Certificate>, FileError> {
        let path = self.certificate();
        if !path.exists() {
            return Ok(None);
        }
        let text = file::read_text(&path, Certificate::MAX_TEXT)?;
        Ok(Certificate::parse_chain(&text).ok().and_then(|chain| chain.into_iter().next()))
    }
}

/// The names in a certificate's subject alternative name, in their order.
fn names_in(certificate: &Certificate) -> Vec<ServerName> {
    let der = certificate.der();
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(ServerName::Dns((*name).to_owned())),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => Some(ServerName::Address(IpAddr::from(<[u8; 4]>::try_from(*octets).ok()?))),
            _ => Some(ServerName::Address(IpAddr::from(<[u8; 16]>::try_from(*octets).ok()?))),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}
