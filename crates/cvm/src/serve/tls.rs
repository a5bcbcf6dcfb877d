//! The server's side of TLS: its certificate, what it asks of clients, and how both are kept up to date.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cvm_authority::{Curve, LocalSigner, ServerName, SharedAuthorities, Signer as _};
use cvm_provisioning::{CertificateId, Timestamp};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{CipherSuite, ServerConfig};

use super::client_certificates::{ClientCertificates, Trust};
use super::signals::ToldToLook;
use super::tls_files::{Stamp, TlsFiles};
use super::{ServeError, now};
use crate::ca_key::CaKey;

/// How long a certificate that the server makes for itself is valid.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// It is made anew when this is left of it.
const RENEWED: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often it is looked whether something has to be made anew.
const INTERVAL: Duration = Duration::from_secs(2);

/// Where the server's certificate comes from.
#[derive(Clone, Debug)]
pub(super) enum ServerCertificate {
    /// Files that somebody else looks after.
    Files(TlsFiles),
    /// The CA of the server itself.
    Own { names: Vec<ServerName> },
}

impl ServerCertificate {
    /// The same, where these CAs are the server's.
    pub(super) fn of(self, authorities: &SharedAuthorities<CaKey>) -> Origin {
        match self {
            Self::Files(files) => Origin::Files(files),
            Self::Own { names } => Origin::Own { names, authorities: authorities.clone() },
        }
    }
}

/// Where it comes from, with what it takes to make it.
pub(super) enum Origin {
    Files(TlsFiles),
    Own { names: Vec<ServerName>, authorities: SharedAuthorities<CaKey> },
}

impl Origin {
    /// The CAs that vouch for the server at this time; none where files do.
    fn authorities(&self, now: Timestamp) -> Vec<CertificateId> {
        match self {
            Self::Files(_) => Vec::new(),
            Self::Own { authorities, .. } => ids(authorities, now),
        }
    }
}

/// What a handshake needs, as it is at the moment.
pub(super) struct ServerTls {
    pub(super) clients: ClientCertificates,
    provider: Arc<CryptoProvider>,
    origin: Origin,
    current: RwLock<Current>,
}

struct Current {
    configuration: Arc<ServerConfig>,
    begins_at: Timestamp,
    ends_at: Timestamp,
    made_of: MadeOf,
}

/// What a configuration was made of: where that is something else by now, it is made anew.
#[derive(Clone, Eq, PartialEq)]
struct MadeOf {
    files: Option<[Stamp; 2]>,
    /// What vouches for the server.
    authorities: Vec<CertificateId>,
    /// What vouches for clients.
    trusted: Vec<CertificateId>,
}

impl ServerTls {
    pub(super) async fn new(origin: Origin, trust: Trust, now: Timestamp) -> Result<Self, ServeError> {
        let provider = Arc::new(provider());
        let clients = ClientCertificates::new(trust, Arc::clone(&provider));
        let made_of = MadeOf::at(&origin, &clients, now);
        let Made { configuration, begins_at, ends_at } = make(&origin, &clients, &provider, now).await?;
        let current = RwLock::new(Current { configuration, begins_at, ends_at, made_of });
        Ok(Self { clients, provider, origin, current })
    }

    /// What the next handshake goes by.
    pub(super) fn configuration(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).configuration)
    }

    /// When the certificate ends.
    pub(super) fn ends_at(&self) -> Timestamp {
        self.current.read().unwrap_or_else(PoisonError::into_inner).ends_at
    }

    /// Makes anew what has changed, or what somebody says has changed, for as long as the server runs.
    pub(super) async fn keep_up(self: Arc<Self>, mut told: ToldToLook) {
        loop {
            let told = tokio::select! {
                () = told.recv() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            self.look(told, now()).await;
        }
    }

    /// Whether the certificate ends soon, or does not begin before this time: the clock was ahead when it was made.
    fn is_due(&self, now: Timestamp) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        now < current.begins_at || now.until(current.ends_at) < RENEWED
    }

    async fn look(&self, told: bool, now: Timestamp) {
        let made_of = MadeOf::at(&self.origin, &self.clients, now);
        let is_due = matches!(self.origin, Origin::Own { .. }) && self.is_due(now);
        let is_same = self.current.read().unwrap_or_else(PoisonError::into_inner).made_of == made_of;
        if is_same && !is_due && !told {
            return;
        }
        let made = make(&self.origin, &self.clients, &self.provider, now).await;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // What cannot be used is told once, and not looked at again until it changes.
        current.made_of = made_of;
        match made {
            Ok(Made { configuration, begins_at, ends_at }) => {
                (current.configuration, current.begins_at, current.ends_at) = (configuration, begins_at, ends_at);
                tracing::info!(%ends_at, "the server has a new certificate");
            }
            Err(error) => {
                let (cause, ends_at): (&dyn std::error::Error, _) = (&error, current.ends_at);
                tracing::error!(error = cause, advice = error.advice(), %ends_at, "the server keeps the certificate that it has");
            }
        }
    }
}

impl MadeOf {
    fn at(origin: &Origin, clients: &ClientCertificates, now: Timestamp) -> Self {
        let files = match origin {
            Origin::Files(files) => Some(files.stamps()),
            Origin::Own { .. } => None,
        };
        let trusted = match clients.trust() {
            Trust::Anybody => Vec::new(),
            Trust::Chain(authorities) => ids(authorities, now),
        };
        Self { files, authorities: origin.authorities(now), trusted }
    }
}

fn ids(authorities: &SharedAuthorities<CaKey>, now: Timestamp) -> Vec<CertificateId> {
    authorities.load().trusted(now).iter().map(|certificate| *certificate.id()).collect()
}

/// A configuration, and the validity of its certificate.
struct Made {
    configuration: Arc<ServerConfig>,
    begins_at: Timestamp,
    ends_at: Timestamp,
}

async fn make(
    origin: &Origin,
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
    now: Timestamp,
) -> Result<Made, ServeError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ServeError::Tls { source };
    let configure = |chain, key| configuration(chain, key, clients, Arc::clone(provider), now).map(Arc::new);
    match origin {
        Origin::Files(files) => {
            let found = files.read(now)?;
            let (begins_at, ends_at) = (found.leaf.not_before().into(), found.leaf.not_after().into());
            let configuration = configure(found.chain, found.key).map_err(|error| failed(error.into()))?;
            Ok(Made { configuration, begins_at, ends_at })
        }
        Origin::Own { names, authorities } => {
            let key = LocalSigner::generate(Curve::P256).map_err(|_| ServeError::Randomness)?;
            let issued = authorities.load().current().issue_server(names, key.public_key(), VALIDITY, now).await?;
            let chain = CertificateDer::pem_slice_iter(issued.chain().as_bytes()).collect::<Result<Vec<_>, _>>();
            let pem = key.to_pem(None).map_err(|error| failed(error.into()))?;
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| failed(error.into()))?;
            let configured = configure(chain.map_err(|error| failed(error.into()))?, key);
            let configuration = configured.map_err(|error| failed(error.into()))?;
            let certificate = issued.certificate();
            let (begins_at, ends_at) = (certificate.not_before().into(), certificate.not_after().into());
            Ok(Made { configuration, begins_at, ends_at })
        }
    }
}

/// AES-128 with SHA-256 before all others: small devices have hardware for SHA-256 and none for SHA-384, and so do most
/// servers, to whom that hash is a tenth of a handshake.
fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

fn configuration(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: &ClientCertificates,
    provider: Arc<CryptoProvider>,
    now: Timestamp,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut configuration = builder.with_client_cert_verifier(clients.question(now)).with_single_cert(chain, key)?;
    configuration.ignore_client_order = true;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // No session is resumed: one that was would bring its certificate along without anybody looking at it again. A
    // device connects a few times in a year, and a whole handshake is a millisecond.
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    Ok(configuration)
}
