use std::num::NonZeroU16;
use std::time::Duration;

use crate::{RevocationAddress, Uri};

/// What a device's certificate says besides the device's id and key.
///
/// The rest is the same for all and cannot be changed: a client of TLS connections (`digitalSignature`, critical, and
/// `clientAuth`) that is no CA (critical), with the identifiers of its own key and its issuer's, a random serial number
/// and the device's id as its common name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Profile {
    validity: Duration,
    at_least: Duration,
    uri_prefix: Option<Uri>,
    revocation: Option<RevocationAddress>,
}

impl Profile {
    /// A certificate is valid this long before it is made.
    ///
    /// A device without a battery for its clock has the time of its last contact, and one that asks the network is off
    /// by seconds: with five minutes, which is the skew that RFC 4120 section 8.2 recommends to allow, nearly all may
    /// use their certificate at once. More would be of no use to a device that has lost its time altogether. Revocation
    /// lists are backdated as much.
    pub const BACKDATED: Duration = Duration::from_secs(5 * 60);

    /// Certificates that are valid this long from the moment they are made, in whole seconds. They are not issued when
    /// the CA ends before: see [`Profile::at_least`].
    pub const fn new(validity: Duration) -> Self {
        Self { validity, at_least: validity, uri_prefix: None, revocation: None }
    }

    /// Certificates that are valid for so many days, or until the CA ends.
    pub fn of_days(days: NonZeroU16) -> Self {
        Self::new(Duration::from_secs(24 * 60 * 60 * u64::from(days.get()))).at_least(Duration::ZERO)
    }

    /// The same, but where the CA ends before, a certificate may end with it, as long as it is valid for so long.
    #[must_use]
    pub fn at_least(self, at_least: Duration) -> Self {
        Self { at_least: at_least.min(self.validity), ..self }
    }

    /// The same with the device's name as a URI too: the prefix with the device's id behind it, such as
    /// `urn:example:device:sn-0001`. Every character of an id may stand in a URI.
    #[must_use]
    pub fn with_uri_prefix(self, prefix: Uri) -> Self {
        Self { uri_prefix: Some(prefix), ..self }
    }

    /// The same with the places where the CA's revocation list, OCSP and the CA's own certificate are (RFC 5280 sections
    /// 4.2.1.13 and 4.2.2.1).
    #[must_use]
    pub fn with_revocation(self, address: RevocationAddress) -> Self {
        Self { revocation: Some(address), ..self }
    }

    /// How long a certificate is valid from the moment it is made.
    pub const fn validity(&self) -> Duration {
        self.validity
    }

    pub(crate) const fn shortest(&self) -> Duration {
        self.at_least
    }

    pub(crate) const fn uri_prefix(&self) -> Option<&Uri> {
        self.uri_prefix.as_ref()
    }

    pub(crate) const fn revocation(&self) -> Option<&RevocationAddress> {
        self.revocation.as_ref()
    }
}
