use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvm_provisioning::{
    Certificate, CertificateId, Csr, IssuedCertificate, Platform, PlatformError, PolicyName, Thing, ThingGroupName,
    ThingName, ThingPrincipalType,
};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};

/// A platform that behaves as AWS IoT does, as far as a vend can see: certificates from CSRs of which only the key is
/// taken, things, policies, and power where all of them meet.
#[derive(Clone)]
pub struct MemoryPlatform {
    issuer: Arc<Issuer<'static, KeyPair>>,
    account: Arc<Mutex<Account>>,
}

#[derive(Default)]
struct Account {
    certificates: BTreeMap<String, Entry>,
    groups: BTreeSet<(String, String)>,
    issued: u64,
    things: BTreeMap<String, Thing>,
}

struct Entry {
    active: bool,
    certificate: Certificate,
    policies: BTreeSet<String>,
    things: BTreeSet<String>,
}

impl Default for MemoryPlatform {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("the test machine has randomness");
        Self { issuer: Arc::new(Issuer::new(params, key)), account: Arc::default() }
    }
}

impl MemoryPlatform {
    /// The certificates that can do something: active, with a policy, and attached to a thing.
    pub fn powerful(&self) -> Vec<CertificateId> {
        let account = self.account();
        let powerful = |entry: &&Entry| entry.active && !entry.policies.is_empty() && !entry.things.is_empty();
        account.certificates.values().filter(powerful).map(|entry| *entry.certificate.id()).collect()
    }

    /// How many certificates are active, with power or without.
    pub fn active(&self) -> usize {
        self.account().certificates.values().filter(|entry| entry.active).count()
    }

    /// The names of the things there are.
    pub fn things(&self) -> Vec<String> {
        self.account().things.keys().cloned().collect()
    }

    /// The groups that things are in, as (thing, group).
    pub fn groups(&self) -> Vec<(String, String)> {
        self.account().groups.iter().cloned().collect()
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(action: &'static str) -> PlatformError {
        PlatformError::Refused { action, source: "there is no such thing or certificate".into() }
    }
}

impl Platform for MemoryPlatform {
    async fn issue(&self, csr: &Csr) -> Result<IssuedCertificate, PlatformError> {
        let mut account = self.account();
        account.issued += 1;
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(account.issued));
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        let pem = params.signed_by(&P256Key(csr.key().spki()), &self.issuer).expect("the issuer's key signs").pem();
        let certificate = Certificate::parse(&pem).expect("rcgen makes certificates that parse");
        let name = format!("arn:aws:iot:eu-central-1:000000000000:cert/{}", certificate.id());
        let entry = Entry {
            active: true,
            certificate: certificate.clone(),
            policies: BTreeSet::new(),
            things: BTreeSet::new(),
        };
        account.certificates.insert(name.clone(), entry);
        Ok(IssuedCertificate { name, certificate })
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

    async fn certificates_of(&self, thing: &ThingName) -> Result<Vec<IssuedCertificate>, PlatformError> {
        let account = self.account();
        let attached =
            account.certificates.iter().filter(|(_, entry)| entry.active && entry.things.contains(thing.as_str()));
        Ok(attached
            .map(|(name, entry)| IssuedCertificate { name: name.clone(), certificate: entry.certificate.clone() })
            .collect())
    }

    async fn retire(&self, _: &ThingName, certificate_name: &str) -> Result<(), PlatformError> {
        self.account().certificates.remove(certificate_name);
        Ok(())
    }
}

/// The SubjectPublicKeyInfo of a P-256 key; the point is its last 65 bytes.
struct P256Key<'a>(&'a [u8]);

impl PublicKeyData for P256Key<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.0[self.0.len() - 65..]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
