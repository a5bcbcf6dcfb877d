//! What a certificate that is made here is to say. It is written out twice, independently: for the library that encodes
//! it, and as the bytes that the result is compared with (RFC 5280 section 4.2).

use std::time::Duration;

pub(crate) use cvm_provisioning::encode_der as tlv;
use cvm_provisioning::{PublicKey, Timestamp};
use pkcs8::ObjectIdentifier;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use crate::moment::moment;
use crate::revocation_address::{Addresses, INFORMATION_ACCESS};
use crate::{Profile, SerialNumber, ServerName};

/// All of it but the key, and what is the issuer's.
#[derive(Clone, Debug)]
pub(crate) struct Contents<'a> {
    pub(crate) organization: Option<&'a str>,
    pub(crate) common_name: &'a str,
    pub(crate) purpose: Purpose,
    pub(crate) serial_number: SerialNumber,
    pub(crate) validity: Validity,
}

#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Signs certificates, below which there may be so many CAs, and revocation lists.
    Authority { path_length: u8 },
    /// Authenticates itself as the client of a TLS connection.
    Client { uri: Option<String>, addresses: Option<Addresses> },
    /// Authenticates itself as the server of a TLS connection, by one of these names.
    Server { names: Vec<ServerName> },
}

/// When a certificate is valid: the first second and the last one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

impl Validity {
    /// From now on for this long, to the second: the last moment counts (RFC 5280 section 4.1.2.5).
    pub(crate) fn from_now(duration: Duration, now: Timestamp) -> Self {
        let not_after = now.after(duration).before(Duration::from_secs(1));
        Self { not_before: now.before(Profile::BACKDATED), not_after: moment(not_after).into() }
    }

    /// The same, but neither begun before the issuer's validity nor ended after it.
    pub(crate) fn within(self, issuer: Self) -> Self {
        Self { not_before: self.not_before.max(issuer.not_before), not_after: self.not_after.min(issuer.not_after) }
    }
}

impl Contents<'_> {
    /// The library's own validity, of two thousand years, and its serial number, which is made of the key, are never
    /// used.
    pub(crate) fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, self.common_name);
        params.not_before = moment(self.validity.not_before);
        params.not_after = moment(self.validity.not_after);
        params.serial_number = Some(rcgen::SerialNumber::from_slice(self.serial_number.as_bytes()));
        match &self.purpose {
            Purpose::Authority { path_length } => {
                params.is_ca = IsCa::Ca(BasicConstraints::Constrained(*path_length));
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }
            Purpose::Client { uri, addresses } => {
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = uri
                    .iter()
                    .map(|uri| Ok(SanType::URI(Ia5String::try_from(uri.as_str())?)))
                    .collect::<Result<_, rcgen::Error>>()?;
                if let Some(addresses) = addresses {
                    params.crl_distribution_points.push(CrlDistributionPoint { uris: vec![addresses.crl.clone()] });
                    let access = addresses.information_access();
                    params.custom_extensions.push(CustomExtension::from_oid_content(INFORMATION_ACCESS, access));
                }
            }
            Purpose::Server { names } => {
                params.is_ca = IsCa::ExplicitNoCa;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                let name = |name: &ServerName| {
                    Ok(match name {
                        ServerName::Address(address) => SanType::IpAddress(*address),
                        ServerName::Dns(name) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
                    })
                };
                params.subject_alt_names = names.iter().map(name).collect::<Result<_, rcgen::Error>>()?;
            }
        }
        Ok(params)
    }

    /// The subject in DER: its organisation, if it has one, then its common name, both as UTF-8.
    pub(crate) fn subject(&self) -> Vec<u8> {
        let attribute = |last_arc: u8, text: &str| {
            tlv(SET, &[&tlv(SEQUENCE, &[&tlv(OID, &[&[0x55, 4, last_arc]]), &tlv(UTF8_STRING, &[text.as_bytes()])])])
        };
        let organization = self.organization.map(|text| attribute(10, text)).unwrap_or_default();
        tlv(SEQUENCE, &[&organization, &attribute(3, self.common_name)])
    }

    /// Its extensions, by the object identifier: no others, each once. `issuer` is the identifier of the issuer's key,
    /// if that is another.
    pub(crate) fn extensions(&self, key: &PublicKey, issuer: Option<&[u8]>) -> Vec<Extension> {
        let mut extensions =
            vec![Extension::new(SUBJECT_KEY_IDENTIFIER, false, tlv(OCTET_STRING, &[&key_identifier(key)]))];
        if let Some(issuer) = issuer {
            extensions.push(Extension::new(AUTHORITY_KEY_IDENTIFIER, false, tlv(SEQUENCE, &[&tlv(0x80, &[issuer])])));
        }
        match &self.purpose {
            Purpose::Authority { path_length } => {
                let constraints = tlv(SEQUENCE, &[&[0x01, 1, 0xff], &tlv(INTEGER, &[&[*path_length]])]);
                extensions.push(Extension::new(BASIC_CONSTRAINTS, true, constraints));
                // keyCertSign and cRLSign are the bits 5 and 6; the last one of the octet is not used.
                extensions.push(Extension::new(KEY_USAGE, true, vec![BIT_STRING, 2, 1, 0b0000_0110]));
            }
            Purpose::Client { uri, addresses } => {
                extensions.push(Extension::new(BASIC_CONSTRAINTS, true, tlv(SEQUENCE, &[])));
                extensions.push(Extension::new(KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()));
                extensions.push(Extension::new(EXTENDED_KEY_USAGE, false, tlv(SEQUENCE, &[&tlv(OID, &[CLIENT_AUTH])])));
                let name = |uri: &String| tlv(UNIFORM_RESOURCE_IDENTIFIER, &[uri.as_bytes()]);
                extensions.extend(
                    uri.iter().map(|uri| Extension::new(SUBJECT_ALT_NAME, false, tlv(SEQUENCE, &[&name(uri)]))),
                );
                if let Some(addresses) = addresses {
                    let point = tlv(SEQUENCE, &[&tlv(0xa0, &[&tlv(0xa0, &[&name(&addresses.crl)])])]);
                    extensions.push(Extension::new(CRL_DISTRIBUTION_POINTS, false, tlv(SEQUENCE, &[&point])));
                    extensions.push(Extension::new(
                        AUTHORITY_INFORMATION_ACCESS,
                        false,
                        addresses.information_access(),
                    ));
                }
            }
            Purpose::Server { names } => {
                extensions.push(Extension::new(BASIC_CONSTRAINTS, true, tlv(SEQUENCE, &[])));
                extensions.push(Extension::new(KEY_USAGE, true, DIGITAL_SIGNATURE.to_vec()));
                extensions.push(Extension::new(EXTENDED_KEY_USAGE, false, tlv(SEQUENCE, &[&tlv(OID, &[SERVER_AUTH])])));
                let name = |name: &ServerName| match name {
                    ServerName::Address(address) => tlv(IP_ADDRESS, &[&ServerName::octets(address)]),
                    ServerName::Dns(name) => tlv(DNS_NAME, &[name.as_bytes()]),
                };
                let names: Vec<_> = names.iter().map(name).collect();
                let names: Vec<_> = names.iter().map(Vec::as_slice).collect();
                extensions.push(Extension::new(SUBJECT_ALT_NAME, false, tlv(SEQUENCE, &names)));
            }
        }
        extensions.sort();
        extensions
    }
}

/// An extension as it is to be in the certificate.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Extension {
    pub(crate) object_identifier: ObjectIdentifier,
    pub(crate) is_critical: bool,
    pub(crate) value: Vec<u8>,
}

impl Extension {
    fn new(object_identifier: ObjectIdentifier, is_critical: bool, value: Vec<u8>) -> Self {
        Self { object_identifier, is_critical, value }
    }
}

/// The name of a key in certificates: the first 160 bits of its SHA-256, which is how the library does it too. RFC 5280
/// section 4.2.1.2 leaves it to the CA.
pub(crate) fn key_identifier(key: &PublicKey) -> [u8; 20] {
    let mut identifier = [0; 20];
    identifier.copy_from_slice(&key.fingerprint().as_bytes()[..20]);
    identifier
}

// The extensions of RFC 5280 section 4.2.
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const AUTHORITY_INFORMATION_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The choice 6 of a GeneralName.
const UNIFORM_RESOURCE_IDENTIFIER: u8 = 0x86;
/// The choice 2 of a GeneralName.
const DNS_NAME: u8 = 0x82;
/// The choice 7 of a GeneralName.
const IP_ADDRESS: u8 = 0x87;
/// digitalSignature is the bit 0; the seven behind it are not used.
const DIGITAL_SIGNATURE: [u8; 4] = [BIT_STRING, 2, 7, 0b1000_0000];
/// id-kp-serverAuth, 1.3.6.1.5.5.7.3.1.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validity_ends_within_its_last_second() {
        let now = Timestamp::from_seconds(1_000_000);
        let validity = Validity::from_now(Duration::from_secs(90), now);
        assert_eq!(validity.not_after.seconds(), 1_000_089, "90 seconds with the first and the last one");
        assert_eq!(validity.not_before.seconds(), 1_000_000 - 300);
    }

    #[test]
    fn threat_38_no_clock_makes_a_validity_that_cannot_be_encoded() {
        for now in [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX] {
            let validity = Validity::from_now(Duration::MAX, Timestamp::from_seconds(now));
            assert_eq!(moment(validity.not_after).year(), 9999);
        }
    }
}
