use std::time::Duration;

use axum::Extension;
use axum::routing::get;
use cvm_authority::{
    Authorities, Authority, AuthorityProfile, Curve, Issued, LocalSigner, Profile, SharedAuthorities, Signer as _, Tier,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::client_certificates::Trust;
use super::super::connections::Bounds;
use super::super::source::TrustedProxies;
use super::super::tls::ServerCertificate;
use super::*;
use crate::ca_key::CaKey;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const PATIENCE: Patience = Patience::new(Duration::from_secs(10));
const ROOMY: Bounds = Bounds { connections: 8, of_one_source: 8 };

async fn authority(name: &str) -> Authority<CaKey> {
    let key = LocalSigner::generate(Curve::P256).unwrap();
    let profile =
        AuthorityProfile { name: name.parse().unwrap(), organization: None, tier: Tier::Root, validity: YEAR * 10 };
    Authority::create(&profile, key.into(), now().before(YEAR * 5)).await.unwrap()
}

/// A client's certificate and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(issued: &Issued, key: &LocalSigner) -> Identity {
    let chain = CertificateDer::pem_slice_iter(issued.chain().as_bytes()).collect::<Result<_, _>>().unwrap();
    (chain, PrivateKeyDer::from_pem_slice(key.to_pem(None).unwrap().as_bytes()).unwrap())
}

async fn device(authority: &Authority<CaKey>, issued_at: Timestamp) -> Identity {
    let key = LocalSigner::generate(Curve::P256).unwrap();
    let profile = Profile::new(DAY).at_least(Duration::ZERO);
    let id = "sn-0001".parse().unwrap();
    identity(&authority.issue(&profile, &id, key.public_key(), issued_at).await.unwrap(), &key)
}

/// A server that answers with the id of whoever has come, and the end of it.
struct World {
    authorities: Arc<Authorities<CaKey>>,
    address: SocketAddr,
    connections: Connections,
    _end: oneshot::Sender<()>,
}

impl World {
    async fn new(bounds: Bounds) -> Self {
        let authorities = SharedAuthorities::new(Authorities::new(authority("ours").await, Vec::new()).unwrap());
        let origin = ServerCertificate::Own { names: vec!["localhost".parse().unwrap()] };
        let tls =
            Arc::new(ServerTls::new(origin.of(&authorities), Trust::Chain(authorities.clone()), now()).await.unwrap());
        let bound = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr().unwrap();
        let who = async |client: Option<Extension<ClientCertificate>>| match client {
            Some(Extension(ClientCertificate(leaf))) => leaf.common_name().unwrap().unwrap().to_string(),
            None => "nobody".to_owned(),
        };
        let connections = Connections::new(bounds, TrustedProxies::default());
        let listener = Listener::new(bound, tls, connections.clone(), PATIENCE, Metrics::new());
        let (end, ended) = oneshot::channel();
        tokio::spawn(listener.serve(Router::new().route("/", get(who)), async move { drop(ended.await) }));
        Self { authorities: authorities.load(), address, connections, _end: end }
    }

    fn ours(&self) -> &Authority<CaKey> {
        self.authorities.current()
    }

    fn client(&self, identity: Option<Identity>) -> Arc<ClientConfig> {
        self.client_with(rustls::crypto::aws_lc_rs::default_provider(), identity)
    }

    fn client_with(&self, provider: CryptoProvider, identity: Option<Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.ours().certificate().pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    async fn connect(&self, client: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::clone(client)).connect("localhost".try_into().unwrap(), stream).await
    }

    async fn who(&self, identity: Option<Identity>) -> String {
        let client = self.client(identity);
        ask(&mut self.connect(&client).await.unwrap()).await
    }
}

/// Asks once, on a connection that ends with that.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn threat_29_only_a_clients_certificate_of_our_ca_in_its_time_is_somebodys() {
    let world = World::new(ROOMY).await;
    assert_eq!(world.who(None).await, "nobody");
    assert_eq!(world.who(Some(device(world.ours(), now()).await)).await, "sn-0001");
    let expired = device(world.ours(), now().before(DAY + DAY / 2)).await;
    assert_eq!(world.who(Some(expired)).await, "sn-0001", "it may renew for as long as it was valid");
    let forgotten = device(world.ours(), now().before(DAY * 3)).await;
    assert_eq!(world.who(Some(forgotten)).await, "nobody", "it has ended");
    let theirs = authority("theirs").await;
    assert_eq!(world.who(Some(device(&theirs, now()).await)).await, "nobody");
    let namesake = authority("ours").await;
    assert_eq!(world.who(Some(device(&namesake, now()).await)).await, "nobody", "a name is not a key");
    let key = LocalSigner::generate(Curve::P256).unwrap();
    let names = ["localhost".parse().unwrap()];
    let server = world.ours().issue_server(&names, key.public_key(), DAY, now()).await.unwrap();
    assert_eq!(world.who(Some(identity(&server, &key))).await, "nobody", "it is a server's");
}

#[tokio::test]
async fn a_connection_has_the_suite_that_small_devices_have_hardware_for_if_they_know_it() {
    let world = World::new(ROOMY).await;
    let only = |suites: &[CipherSuite]| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| suites.is_empty() || suites.contains(&suite.suite()));
        provider
    };
    for (suites, expected) in [
        (&[][..], CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&[CipherSuite::TLS13_AES_256_GCM_SHA384], CipherSuite::TLS13_AES_256_GCM_SHA384),
        (&[CipherSuite::TLS13_CHACHA20_POLY1305_SHA256], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (
            &[
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
    ] {
        let client = world.client_with(only(suites), None);
        let stream = world.connect(&client).await.unwrap();
        let agreed = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        assert_eq!(agreed.suite(), expected, "{suites:?}");
    }
}

#[tokio::test]
async fn threat_30_a_chain_is_short_and_its_leaf_is_what_the_key_is_of() {
    let world = World::new(ROOMY).await;
    let (mut long, key) = device(world.ours(), now()).await;
    long.extend(std::iter::repeat_n(long[0].clone(), 100));
    assert_eq!(world.who(Some((long, key))).await, "nobody");
    let (ours, _) = device(world.ours(), now()).await;
    let (_, another) = device(world.ours(), now()).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let signer = provider.key_provider.load_private_key(another).unwrap();
    let mut client = Arc::unwrap_or_clone(world.client(None));
    client.client_auth_cert_resolver =
        Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(ours, signer)));
    let refused = match world.connect(&Arc::new(client)).await {
        // The server's word may come with the first answer.
        Ok(mut stream) => stream.read_to_end(&mut Vec::new()).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(refused.is_err(), "a certificate was taken without its key");
}

#[tokio::test]
async fn threat_28_no_session_is_resumed() {
    let world = World::new(ROOMY).await;
    let client = world.client(Some(device(world.ours(), now()).await));
    for _ in 0..2 {
        let mut stream = world.connect(&client).await.unwrap();
        assert_eq!(ask(&mut stream).await, "sn-0001");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_connection_that_outlives_its_certificate_is_nobodys() {
    let ours = authority("ours").await;
    let (chain, _) = device(&ours, now()).await;
    let leaf = Arc::new(Certificate::from_der(&chain[0]).unwrap());
    let (begin, end) = (Timestamp::from(leaf.not_before()), Timestamp::from(leaf.not_after()));
    let grace = end.after(begin.until(end));
    assert!(client_at(Some(&leaf), grace).is_some());
    assert!(client_at(Some(&leaf), grace.after(Duration::from_secs(1))).is_none());
}

#[tokio::test(start_paused = true)]
async fn threat_25_whoever_says_nothing_or_half_of_it_is_sent_away() {
    let world = World::new(ROOMY).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    let client = world.client(None);
    for said in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
        let mut stream = world.connect(&client).await.unwrap();
        stream.write_all(said).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    until_closed(&world.connections).await;
}

#[tokio::test]
async fn threat_25_one_connection_too_many_is_closed_at_once() {
    let world = World::new(Bounds { connections: 8, of_one_source: 1 }).await;
    let client = world.client(None);
    let mut first = world.connect(&client).await.unwrap();
    assert!(world.connect(&client).await.is_err());
    assert_eq!(ask(&mut first).await, "nobody");
    until_closed(&world.connections).await;
    assert!(world.connect(&client).await.is_ok());
}

async fn until_closed(connections: &Connections) {
    while connections.open() > 0 {
        tokio::task::yield_now().await;
    }
}
