use std::fmt;
use std::str::FromStr;

use cvm_provisioning::Certificate;

use crate::contents::tlv;
use crate::{Authority, InvalidUri, Signer, Uri};

/// Where others find what CAs say of their certificates: an address of plain HTTP, below which each CA has its revocation
/// list and its certificate, and all of them the answers of OCSP.
///
/// | below it | |
/// |---|---|
/// | `/crl/NAME.crl` | the revocation list of the CA of this [name](Authority::published_name), in DER |
/// | `/ca/NAME.cer` | its certificate, in DER |
/// | `/ocsp` | OCSP |
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevocationAddress(Uri);

impl RevocationAddress {
    /// The longest address, in characters: with what stands below it, it is a [`Uri`].
    pub const MAX_LENGTH: usize = Uri::MAX_LENGTH - 64;

    /// Where a CA's revocation list is.
    pub fn crl(&self, published_name: &str) -> String {
        format!("{self}/crl/{published_name}.crl")
    }

    /// Where a CA's certificate is.
    pub fn ca(&self, published_name: &str) -> String {
        format!("{self}/ca/{published_name}.cer")
    }

    /// Where OCSP is answered.
    pub fn ocsp(&self) -> String {
        format!("{self}/ocsp")
    }
}

impl FromStr for RevocationAddress {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let uri: Uri = text.trim_end_matches('/').parse()?;
        if uri.as_str().len() > Self::MAX_LENGTH {
            return Err(InvalidUri::TooLong { length: uri.as_str().len() });
        }
        let below = uri.as_str().get(HTTP.len()..).filter(|_| uri.is_http()).ok_or(InvalidUri::NotHttp)?;
        // A host, and nothing behind which there is no path.
        match below.starts_with('/') || below.contains(['?', '#']) {
            true => Err(InvalidUri::Character),
            false => Ok(Self(uri)),
        }
    }
}

impl fmt::Display for RevocationAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Signer> Authority<S> {
    /// The name that the CA has in addresses, see [`published_name`].
    pub fn published_name(&self) -> String {
        published_name(self.certificate())
    }
}

/// The name that a CA has in addresses: the first 160 bits of its key's fingerprint, in hexadecimal digits.
pub fn published_name(authority: &Certificate) -> String {
    authority.key().to_string().chars().take(40).collect()
}

/// What a certificate says of the address, by the CA that issues it.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) crl: String,
    pub(crate) ocsp: String,
    pub(crate) ca: String,
}

impl Addresses {
    pub(crate) fn of<S: Signer>(address: &RevocationAddress, authority: &Authority<S>) -> Self {
        let name = authority.published_name();
        Self { crl: address.crl(&name), ocsp: address.ocsp(), ca: address.ca(&name) }
    }

    /// The value of the extension AuthorityInfoAccess (RFC 5280 section 4.2.2.1), which the library does not know.
    pub(crate) fn information_access(&self) -> Vec<u8> {
        let access = |method: u8, location: &str| {
            let method = tlv(OID, &[ACCESS_METHODS, &[method]]);
            tlv(SEQUENCE, &[&method, &tlv(UNIFORM_RESOURCE_IDENTIFIER, &[location.as_bytes()])])
        };
        tlv(SEQUENCE, &[&access(OCSP, &self.ocsp), &access(CA_ISSUERS, &self.ca)])
    }
}

/// AuthorityInfoAccess, 1.3.6.1.5.5.7.1.1.
pub(crate) const INFORMATION_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];

const HTTP: &str = "http://";
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// The choice 6 of a GeneralName.
const UNIFORM_RESOURCE_IDENTIFIER: u8 = 0x86;
/// id-ad, 1.3.6.1.5.5.7.48.
const ACCESS_METHODS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48];
const OCSP: u8 = 1;
const CA_ISSUERS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_plain_http_that_there_can_be_more_below() {
        for (good, crl) in [
            ("http://pki.example.org", "http://pki.example.org/crl/ab.crl"),
            ("http://192.0.2.1:8080/", "http://192.0.2.1:8080/crl/ab.crl"),
            ("HTTP://pki.example.org/devices", "HTTP://pki.example.org/devices/crl/ab.crl"),
        ] {
            assert_eq!(good.parse::<RevocationAddress>().unwrap().crl("ab"), crl);
        }
        for (bad, error) in [
            ("https://pki.example.org", InvalidUri::NotHttp),
            ("ldap://pki.example.org", InvalidUri::NotHttp),
            ("pki.example.org", InvalidUri::Scheme),
            ("http://", InvalidUri::Character),
            ("http:///crl", InvalidUri::Character),
            ("http://pki.example.org/?list=", InvalidUri::Character),
            ("http://pki.example.org/#list", InvalidUri::Character),
            ("http://pki.example.org/a b", InvalidUri::Character),
        ] {
            assert_eq!(bad.parse::<RevocationAddress>(), Err(error), "{bad}");
        }
        let long = format!("http://{}", "a".repeat(200));
        assert_eq!(long.parse::<RevocationAddress>(), Err(InvalidUri::TooLong { length: 207 }));
    }
}
