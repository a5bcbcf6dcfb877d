//! Who comes with a certificate: what is asked for in the handshake, and what is believed of what is shown.

use std::sync::Arc;
use std::time::Duration;

use cvm_authority::SharedAuthorities;
use cvm_provisioning::{Certificate, ShownCertificate, Timestamp};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::ca_key::CaKey;

/// The certificates of one chain: the leaf, and more CAs above it than there ever are.
const MAX_CHAIN: usize = 8;

/// Whose certificates count.
#[derive(Debug)]
pub(super) enum Trust {
    /// Everybody's, for as long as it is valid: it proves nothing but its own key, and the registry says by its digest
    /// whose it is. For a platform whose CA vouches for other people's devices, too.
    Anybody,
    /// Those that chain to these CAs.
    Chain(SharedAuthorities<CaKey>),
}

/// The certificates that let a caller in.
#[derive(Debug)]
pub(super) struct ClientCertificates {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ClientCertificates {
    pub(super) fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Self {
        Self { trust, provider }
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What the handshake asks: show a certificate, if you have one of these CAs.
    pub(super) fn question(&self, now: Timestamp) -> Arc<dyn ClientCertVerifier> {
        let hints = match &self.trust {
            Trust::Anybody => Vec::new(),
            Trust::Chain(authorities) => roots(authorities, now).subjects(),
        };
        Arc::new(Question { provider: Arc::clone(&self.provider), hints })
    }

    /// The leaf of a chain that was shown, if it counts. That it is the caller's own has been seen in the handshake.
    pub(super) fn verified(&self, shown: &[CertificateDer<'_>], now: Timestamp) -> Option<Certificate> {
        let (leaf, above) = shown.split_first().filter(|_| shown.len() <= MAX_CHAIN)?;
        let certificate = Certificate::from_der(leaf).ok()?;
        if let Trust::Chain(authorities) = &self.trust {
            // One that has expired renews its device for some time: its chain is that of its last moment.
            ShownCertificate::of(&certificate, now)?;
            let last = Timestamp::from(certificate.not_after());
            // Issued for a client, by a CA of ours that is trusted at this time.
            let roots = roots(authorities, now).into();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build();
            let seconds = u64::try_from(now.min(last).seconds()).ok()?;
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            verifier.ok()?.verify_client_cert(leaf, above, now).ok()?;
        }
        Some(certificate)
    }
}

/// The CAs as they are now: one that came with a rotation counts from the next handshake on.
fn roots(authorities: &SharedAuthorities<CaKey>, now: Timestamp) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authorities = authorities.load();
    let trusted = authorities.trusted(now);
    roots.add_parsable_certificates(
        trusted.iter().filter_map(|certificate| CertificateDer::from_pem_slice(certificate.pem().as_bytes()).ok()),
    );
    roots
}

/// Asks for a certificate and takes any, or none. A device may well have one of somebody else's, from its factory or
/// from a CA that has ended: in the handshake it could only be turned away with an alert that few can read, although a
/// token that it sends later may be good. So what is shown is judged afterwards, and what is not ours counts as nothing.
#[derive(Debug)]
struct Question {
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Question {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    // Whoever shows a certificate has its key, whether it is ours or not.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
