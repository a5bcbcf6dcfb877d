//! What the tests have in common: a moment, CAs, devices' keys, and OpenSSL as the judge who knows nothing of us.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cvm_authority::{Authority, AuthorityProfile, Crl, Curve, LocalSigner, Profile, Signer, SignerError, Tier};
use cvm_provisioning::{DeviceId, PublicKey, Timestamp};
use tempfile::TempDir;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// OpenSSL has a clock of its own, so it is the real time.
pub(crate) fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}

pub(crate) fn id() -> DeviceId {
    "sn-0001".parse().unwrap()
}

pub(crate) fn device_key() -> PublicKey {
    p256().public_key().clone()
}

pub(crate) fn p256() -> LocalSigner {
    LocalSigner::generate(Curve::P256).unwrap()
}

pub(crate) fn profile() -> Profile {
    Profile::new(90 * DAY)
}

pub(crate) fn named(name: &str, tier: Tier) -> AuthorityProfile {
    let validity = if tier == Tier::Root { 20 * YEAR } else { 5 * YEAR };
    AuthorityProfile { name: name.parse().unwrap(), organization: Some("Example".parse().unwrap()), tier, validity }
}

/// A CA of one tier, which issues to devices without a root.
pub(crate) async fn issuing() -> Authority<LocalSigner> {
    Authority::create(&named("Devices", Tier::Issuing), p256(), now()).await.unwrap()
}

pub(crate) async fn root() -> Authority<LocalSigner> {
    Authority::create(&named("Root", Tier::Root), p256(), now()).await.unwrap()
}

/// A CA below this root.
pub(crate) async fn below(root: &Authority<LocalSigner>, name: &str) -> Authority<LocalSigner> {
    let key = p256();
    let certificate = root.certify_authority(&named(name, Tier::Issuing), key.public_key(), now()).await.unwrap();
    Authority::new(certificate, vec![root.certificate().clone()], key).unwrap()
}

/// A certificate in PEM, looked at.
pub(crate) fn look<T>(pem: &str, at: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
    at(&block.parse_x509().unwrap())
}

/// A folder in which OpenSSL works.
pub(crate) struct Bench(TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    /// What it says, and whether it is content.
    pub(crate) fn ask(&self, words: &str) -> (bool, String) {
        let output = Command::new("openssl").args(words.split_whitespace()).current_dir(self.path()).output();
        let output = output.expect("these tests need the `openssl` command: install OpenSSL 3");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }

    pub(crate) fn openssl(&self, words: &str) -> String {
        let (success, text) = self.ask(words);
        assert!(success, "openssl {words}: {text}");
        text
    }

    /// Whether OpenSSL trusts the certificate with this list, which has to be the CA's and in time.
    pub(crate) fn trusts(&self, certificate: &str, authority: &str, crl: &Crl) -> bool {
        self.write("crl.pem", crl.pem());
        let (success, text) = self.ask(&format!(
            "verify -crl_check -x509_strict -purpose sslclient -CAfile {authority} -CRLfile crl.pem {certificate}"
        ));
        assert!(success || text.contains("certificate revoked"), "{text}");
        success
    }
}

/// A key that is elsewhere and fails when it is asked for the nth time, or signs with another key.
pub(crate) struct Elsewhere {
    pub(crate) signer: LocalSigner,
    pub(crate) signs_with: LocalSigner,
    pub(crate) left: AtomicUsize,
}

impl Signer for Elsewhere {
    fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    async fn sign(&self, to_be_signed: &[u8]) -> Result<Vec<u8>, SignerError> {
        tokio::task::yield_now().await;
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(SignerError::Unavailable { source: "no answer".into() });
        }
        self.signs_with.sign(to_be_signed).await
    }
}
