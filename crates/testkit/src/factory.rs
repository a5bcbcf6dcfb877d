use cvm_provisioning::{Attestation, Certificate, CertificateId, Csr, Device, DeviceKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd,
};

use crate::fixture::device;
use crate::platform::CertifiedKey;

/// A factory that gives its devices certificates of its own CA.
pub struct Factory {
    issuer: Issuer<'static, KeyPair>,
    /// The CA certificate's id.
    pub ca: CertificateId,
}

impl Factory {
    /// A factory with a new CA of this name.
    pub fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("the test machine has randomness");
        let certificate = params.self_signed(&key).expect("the key signs");
        let ca = *Certificate::parse(&certificate.pem()).expect("rcgen makes certificates that parse").id();
        Self { issuer: Issuer::new(params, key), ca }
    }

    /// A certificate for this common name and key.
    pub fn certificate(&self, name: &str, csr: &Csr) -> Certificate {
        let mut params = named(name);
        params.serial_number = Some(SerialNumber::from_slice(&csr.key().fingerprint().as_bytes()[..16]));
        let pem = params.signed_by(&CertifiedKey(csr.key().spki()), &self.issuer).expect("the CA's key signs").pem();
        Certificate::parse(&pem).expect("rcgen makes certificates that parse")
    }

    /// A device of this factory on the allowlist, and its certificate.
    pub fn device(&self, name: &str) -> (Device, Certificate) {
        let registered = Device { attestation: Attestation::Ca { id: Some(self.ca) }, ..device(name) };
        (registered, self.made(name))
    }

    /// A new key with this factory's certificate for this common name.
    pub fn made(&self, name: &str) -> Certificate {
        let id = name.parse().expect("the name is a device id");
        self.certificate(name, &DeviceKey::generate(&id).expect("the test machine has randomness").1)
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2049, 12, 31));
    params
}
