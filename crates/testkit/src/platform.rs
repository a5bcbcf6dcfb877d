use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fixture::NOW;
use cvm_provisioning::{
    Certificate, CertificateId, CertificateSummary, Certificates, ClaimIssuer, Csr, Departures, DeviceKey, Inventory,
    InventoryPage, IssuedCertificate, IssuedClaim, Platform, PlatformError, PolicyName, RegisteredCertificate,
    Standing, TemplateName, Thing, ThingGroupName, ThingName, ThingPrincipalType, Timestamp,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// A platform that behaves as AWS IoT does, as far as a vend can see: certificates from CSRs of which only the key is
/// taken, things, policies, and power where all of them meet.
#[derive(Clone)]
pub struct MemoryPlatform {
    prepares: bool,
    issuer: Arc<Issuer<'static, KeyPair>>,
    account: Arc<Mutex<Account>>,
}

#[derive(Default)]
struct Account {
    now: Option<Timestamp>,
    certificates: BTreeMap<String, Entry>,
    groups: BTreeSet<(String, String)>,
    disconnected: Vec<String>,
    issued: u64,
    things: BTreeMap<String, Thing>,
}

struct Entry {
    standing: Standing,
    certificate: Certificate,
    ca: Option<CertificateId>,
    created_at: Timestamp,
    policies: BTreeSet<String>,
    things: BTreeSet<String>,
}

impl Default for MemoryPlatform {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("the test machine has randomness");
        Self { prepares: false, issuer: Arc::new(Issuer::new(params, key)), account: Arc::default() }
    }
}

impl MemoryPlatform {
    /// A platform that takes the certificates of a CA of our own, without having to know that CA.
    pub fn with_own_ca() -> Self {
        Self { prepares: true, ..Self::default() }
    }

    /// The certificates that can do something: active, with a policy, and attached to a thing.
    pub fn powerful(&self) -> Vec<CertificateId> {
        let account = self.account();
        let powerful = |entry: &&Entry| {
            entry.standing == Standing::Active && !entry.policies.is_empty() && !entry.things.is_empty()
        };
        account.certificates.values().filter(powerful).map(|entry| *entry.certificate.id()).collect()
    }

    /// How many certificates are active, with power or without.
    pub fn active(&self) -> usize {
        self.account().certificates.values().filter(|entry| entry.standing == Standing::Active).count()
    }

    /// The client ids whose connections were ended.
    pub fn disconnected(&self) -> Vec<String> {
        self.account().disconnected.clone()
    }

    /// The names of the things there are.
    pub fn things(&self) -> Vec<String> {
        self.account().things.keys().cloned().collect()
    }

    /// From now on the platform's clock shows this time.
    pub fn set_clock(&self, now: Timestamp) {
        self.account().now = Some(now);
    }

    /// What the platform says of a certificate, if it is there.
    pub fn standing(&self, certificate: &CertificateId) -> Option<Standing> {
        self.account().certificates.get(&arn(certificate)).map(|entry| entry.standing)
    }

    /// Registers a certificate as the platform does without us: at a first connection (`ca`), or for a claim.
    pub fn register(&self, certificate: &Certificate, ca: Option<CertificateId>, standing: Standing) {
        let mut account = self.account();
        let created_at = account.now.unwrap_or(NOW);
        let (policies, things) = (BTreeSet::new(), BTreeSet::new());
        let entry = Entry { standing, certificate: certificate.clone(), ca, created_at, policies, things };
        account.certificates.insert(arn(certificate.id()), entry);
    }

    /// Does what AWS IoT does when the hook has said yes: the thing, the policy, and power for the certificate.
    pub fn provision(&self, certificate: &CertificateId, thing: &Thing, policy: &str) {
        let mut account = self.account();
        account.things.entry(thing.name.to_string()).or_insert_with(|| thing.clone());
        let entry = account.certificates.get_mut(&arn(certificate)).expect("the certificate is there");
        entry.standing = Standing::Active;
        entry.policies.insert(policy.to_owned());
        entry.things.insert(thing.name.to_string());
    }

    /// The groups that things are in, as (thing, group).
    pub fn groups(&self) -> Vec<(String, String)> {
        self.account().groups.iter().cloned().collect()
    }

    /// A certificate for the key of a CSR, whatever it is for.
    pub async fn issue(&self, csr: &Csr) -> Result<IssuedCertificate, PlatformError> {
        let issued = self.sign(csr);
        self.register(&issued.certificate, None, Standing::Active);
        Ok(issued)
    }

    fn sign(&self, csr: &Csr) -> IssuedCertificate {
        let mut account = self.account();
        account.issued += 1;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(account.issued));
        // As AWS IoT names every certificate of its own.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "AWS IoT Certificate");
        params.not_before = date_time_ymd(2026, 1, 1);
        let ends = [date_time_ymd(2049, 12, 31), date_time_ymd(2099, 12, 31)];
        let now = account.now.unwrap_or(NOW);
        params.not_after = ends[usize::from(Timestamp::from(ends[0]) < now)];
        let pem =
            params.signed_by(&CertifiedKey(csr.key().spki()), &self.issuer).expect("the issuer's key signs").pem();
        let certificate = Certificate::parse(&pem).expect("rcgen makes certificates that parse");
        IssuedCertificate { name: arn(certificate.id()), certificate }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(action: &'static str) -> PlatformError {
        PlatformError::Refused { action, source: "there is no such thing or certificate".into() }
    }
}

impl Platform for MemoryPlatform {
    async fn issue(&self, csr: &Csr, _: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        assert!(!self.prepares, "a certificate that is not recorded before it is made");
        Self::issue(self, csr).await
    }

    fn prepares(&self) -> bool {
        self.prepares
    }

    async fn prepare(&self, csr: &Csr, _: &ThingName) -> Result<IssuedCertificate, PlatformError> {
        Ok(self.sign(csr))
    }

    async fn register(&self, pem: &str) -> Result<(), PlatformError> {
        let certificate = Certificate::parse(pem).map_err(|_| Self::refused("register the certificate"))?;
        let there = self.account().certificates.get_mut(&arn(certificate.id())).map(|entry| {
            entry.standing = Standing::Active;
        });
        if there.is_none() {
            Self::register(self, &certificate, None, Standing::Active);
        }
        Ok(())
    }

    async fn ensure_thing(&self, thing: &Thing) -> Result<(), PlatformError> {
        match self.account().things.entry(thing.name.to_string()).or_insert_with(|| thing.clone()) {
            there if there == thing => Ok(()),
            _ => Err(Self::refused("create the thing")),
        }
    }

    async fn attach_thing(
        &self,
        thing: &ThingName,
        certificate_name: &str,
        _: ThingPrincipalType,
    ) -> Result<(), PlatformError> {
        let mut account = self.account();
        let known = account.things.contains_key(thing.as_str());
        match account.certificates.get_mut(certificate_name) {
            Some(entry) if known => {
                entry.things.insert(thing.to_string());
                Ok(())
            }
            _ => Err(Self::refused("attach the certificate to the thing")),
        }
    }

    async fn attach_policy(&self, policy: &PolicyName, certificate_name: &str) -> Result<(), PlatformError> {
        match self.account().certificates.get_mut(certificate_name) {
            Some(entry) => {
                entry.policies.insert(policy.to_string());
                Ok(())
            }
            None => Err(Self::refused("attach the policy to the certificate")),
        }
    }

    async fn join_group(&self, thing: &ThingName, group: &ThingGroupName) -> Result<(), PlatformError> {
        let mut account = self.account();
        if !account.things.contains_key(thing.as_str()) {
            return Err(Self::refused("add the thing to the group"));
        }
        account.groups.insert((thing.to_string(), group.to_string()));
        Ok(())
    }

    async fn certificates_of(&self, thing: &ThingName) -> Result<Vec<RegisteredCertificate>, PlatformError> {
        let account = self.account();
        let attached = account
            .certificates
            .iter()
            .filter(|(_, entry)| entry.standing == Standing::Active && entry.things.contains(thing.as_str()));
        Ok(attached.map(|(_, entry)| entry.registered()).collect())
    }

    async fn retire(&self, _: &ThingName, certificate_name: &str) -> Result<(), PlatformError> {
        self.account().certificates.remove(certificate_name);
        Ok(())
    }
}

impl Certificates for MemoryPlatform {
    async fn describe(&self, certificate: &CertificateId) -> Result<Option<RegisteredCertificate>, PlatformError> {
        Ok(self.account().certificates.get(&arn(certificate)).map(Entry::registered))
    }

    async fn set_standing(&self, certificate: &CertificateId, standing: Standing) -> Result<(), PlatformError> {
        match self.account().certificates.get_mut(&arn(certificate)) {
            Some(entry) => {
                entry.standing = standing;
                Ok(())
            }
            None if standing == Standing::Active => Err(Self::refused("activate the certificate")),
            None => Ok(()),
        }
    }

    async fn things_of(&self, certificate_name: &str) -> Result<Vec<ThingName>, PlatformError> {
        let account = self.account();
        let things = account.certificates.get(certificate_name).map(|entry| entry.things.clone()).unwrap_or_default();
        Ok(things.into_iter().map(|thing| ThingName::try_from(thing).expect("it was a thing's name")).collect())
    }
}

impl Departures for MemoryPlatform {
    async fn disconnect(&self, client_id: &str) -> Result<(), PlatformError> {
        self.account().disconnected.push(client_id.to_owned());
        Ok(())
    }

    async fn remove_thing(&self, thing: &ThingName) -> Result<bool, PlatformError> {
        let mut account = self.account();
        if account.certificates.values().any(|entry| entry.things.contains(thing.as_str())) {
            return Ok(false);
        }
        account.things.remove(thing.as_str());
        Ok(true)
    }
}

impl Inventory for MemoryPlatform {
    async fn certificates(
        &self,
        after: Option<&str>,
        limit: u16,
    ) -> Result<InventoryPage<CertificateSummary>, PlatformError> {
        let account = self.account();
        let mut all: Vec<_> = account
            .certificates
            .values()
            .map(|entry| CertificateSummary {
                id: *entry.certificate.id(),
                standing: entry.standing,
                created_at: entry.created_at,
            })
            .collect();
        all.sort_by_key(|summary| (std::cmp::Reverse(summary.created_at), summary.id));
        Ok(page(all, after, limit))
    }

    async fn things(&self, after: Option<&str>, limit: u16) -> Result<InventoryPage<ThingName>, PlatformError> {
        let all = self.account().things.values().map(|thing| thing.name.clone()).collect();
        Ok(page(all, after, limit))
    }

    async fn all_certificates_of(&self, thing: &ThingName) -> Result<Vec<CertificateId>, PlatformError> {
        let account = self.account();
        let attached = account.certificates.values().filter(|entry| entry.things.contains(thing.as_str()));
        Ok(attached.map(|entry| *entry.certificate.id()).collect())
    }

    async fn has_policy(&self, certificate_name: &str) -> Result<bool, PlatformError> {
        Ok(self.account().certificates.get(certificate_name).is_some_and(|entry| !entry.policies.is_empty()))
    }

    async fn remove(&self, certificate: &CertificateId) -> Result<(), PlatformError> {
        self.account().certificates.remove(&arn(certificate));
        Ok(())
    }
}

impl ClaimIssuer for MemoryPlatform {
    async fn issue_claim(&self, _: &TemplateName) -> Result<IssuedClaim, PlatformError> {
        let (key, csr) = DeviceKey::generate(&"claim".parse().expect("an id")).expect("there is randomness");
        let issued = self.issue(&csr).await?.certificate;
        let now = self.account().now.unwrap_or(NOW);
        Ok(IssuedClaim {
            certificate: *issued.id(),
            pem: issued.pem().to_owned(),
            private_key: key.pem().to_owned().into(),
            expires_at: now.after(std::time::Duration::from_secs(300)),
        })
    }
}

impl Entry {
    fn registered(&self) -> RegisteredCertificate {
        let issued = IssuedCertificate { name: arn(self.certificate.id()), certificate: self.certificate.clone() };
        RegisteredCertificate { issued, ca: self.ca, standing: self.standing }
    }
}

fn arn(certificate: &CertificateId) -> String {
    format!("arn:aws:iot:eu-central-1:000000000000:cert/{certificate}")
}

/// A page of a list; a place is the number of what came before.
fn page<T>(all: Vec<T>, after: Option<&str>, limit: u16) -> InventoryPage<T> {
    let start = after.map_or(0, |place| place.parse().expect("a place that a page gave"));
    let end = start + usize::from(limit);
    let next = (end < all.len()).then(|| end.to_string());
    InventoryPage { items: all.into_iter().skip(start).take(limit.into()).collect(), next }
}

/// The SubjectPublicKeyInfo of a P-256 key, whose point is its last 65 bytes, or of an RSA key of 2048 bits and more, whose
/// numbers stand behind 24 bytes.
pub(crate) struct CertifiedKey<'a>(pub(crate) &'a [u8]);

impl CertifiedKey<'_> {
    fn is_rsa(&self) -> bool {
        self.0.len() > 200
    }
}

impl PublicKeyData for CertifiedKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        if self.is_rsa() { &self.0[24..] } else { &self.0[self.0.len() - 65..] }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        if self.is_rsa() { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 }
    }
}
