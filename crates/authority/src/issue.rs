use std::time::Duration;

use cvm_provisioning::{Certificate, DeviceId, KeyFingerprint, PublicKey, Timestamp};

use crate::contents::{Contents, Purpose, Validity};
use crate::revocation_address::Addresses;
use crate::{
    Authority, Curve, KeyError, LocalSigner, Profile, SerialNumber, ServerName, Signer, SigningError, SubjectText,
    Unfit,
};

impl<S: Signer> Authority<S> {
    /// Issues the certificate of a device. Of a signing request only the key counts, which is why nothing else of it
    /// can be given here.
    ///
    /// # Errors
    ///
    /// [`IssueError`]; nothing was issued then that anybody has seen.
    pub async fn issue(
        &self,
        profile: &Profile,
        id: &DeviceId,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        if self.has_key(key.fingerprint()) {
            return Err(IssueError::OwnKey);
        }
        let uri = profile.uri_prefix().map(|prefix| format!("{prefix}{id}"));
        let addresses = profile.revocation().map(|address| Addresses::of(address, self));
        let purpose = Purpose::Client { uri, addresses };
        self.issue_to(id.as_str(), purpose, profile, key, now).await
    }

    /// Proves that the CA's key is at hand: a certificate for this name, with a key that is thrown away. AWS IoT wants
    /// one for its registration code (AWS IoT Developer Guide, *Register a CA certificate in DEFAULT mode*).
    ///
    /// # Errors
    ///
    /// As [`Authority::issue`].
    pub async fn prove_possession(&self, name: &SubjectText, now: Timestamp) -> Result<Certificate, IssueError> {
        let key = LocalSigner::generate(Curve::P256)?;
        let profile = Profile::new(ONE_DAY).at_least(Duration::ZERO);
        Ok(self
            .issue_to(name.as_str(), Purpose::Client { uri: None, addresses: None }, &profile, key.public_key(), now)
            .await?
            .certificate)
    }

    /// Issues the certificate of a server of TLS, for itself: `names` are those by which its clients know it, and the
    /// first one is its common name.
    ///
    /// # Errors
    ///
    /// As [`Authority::issue`], and where there are no names.
    pub async fn issue_server(
        &self,
        names: &[ServerName],
        key: &PublicKey,
        validity: Duration,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let common_name = match names.first().ok_or(IssueError::NoName)? {
            ServerName::Address(address) => address.to_string(),
            // Clients look at the names of the extension; a longer one has no place in the subject.
            ServerName::Dns(name) => name.chars().take(SubjectText::MAX_LENGTH).collect(),
        };
        let profile = Profile::new(validity).at_least(Duration::ZERO);
        self.issue_to(&common_name, Purpose::Server { names: names.to_vec() }, &profile, key, now).await
    }

    async fn issue_to(
        &self,
        common_name: &str,
        purpose: Purpose,
        profile: &Profile,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        self.check(now)?;
        if common_name.chars().count() > SubjectText::MAX_LENGTH {
            return Err(IssueError::LongName { length: common_name.chars().count() });
        }
        if profile.validity() < ONE_SECOND {
            return Err(IssueError::NoValidity);
        }
        let validity = Validity::from_now(profile.validity(), now).within(self.validity());
        // The last second counts too.
        if now.until(validity.not_after) + ONE_SECOND < Duration::from_secs(profile.shortest().as_secs()) {
            return Err(IssueError::EndsTooSoon { at: self.validity().not_after });
        }
        let contents = Contents {
            organization: None,
            common_name,
            purpose,
            serial_number: SerialNumber::random(now).map_err(SigningError::from)?,
            validity,
        };
        let certificate = self.certify(&contents, key).await?;
        Ok(Issued {
            chain: std::iter::once(&certificate).chain(self.chain()).map(Certificate::pem).collect(),
            certificate,
            serial_number: contents.serial_number,
            issuer: *self.certificate().key(),
        })
    }
}

/// A certificate that was issued, and what has to be kept of it to revoke it one day.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issued {
    certificate: Certificate,
    chain: String,
    serial_number: SerialNumber,
    issuer: KeyFingerprint,
}

impl Issued {
    /// The certificate alone.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificate and those behind it in PEM, the device's first: what a device sends in TLS.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Its serial number.
    pub fn serial_number(&self) -> &SerialNumber {
        &self.serial_number
    }

    /// The key of the CA that has issued it, by which [`Authorities`](crate::Authorities) finds that again.
    pub fn issuer(&self) -> &KeyFingerprint {
        &self.issuer
    }
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// What is left of the CA's validity is less than the profile wants.
    #[error("the CA's certificate ends at {at}, before a device's may end: rotate to a new CA")]
    EndsTooSoon {
        /// The last moment of the CA's validity.
        at: Timestamp,
    },
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// More than a common name can have.
    #[error("the device id has {length} characters, a common name has at most {max}", max = SubjectText::MAX_LENGTH)]
    LongName {
        /// Its length, in characters.
        length: usize,
    },
    /// A server without a name.
    #[error("a server has to have a name")]
    NoName,
    /// The profile's certificates are valid for less than a second.
    #[error("the profile's validity is less than a second")]
    NoValidity,
    /// The device has sent a key that is a CA's: whoever has the certificate and that key could be both.
    #[error("the CA's own key is no device's key")]
    OwnKey,
    /// It could not be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The CA is not valid now.
    #[error("the CA's certificate cannot be used: {0}")]
    Unfit(#[from] Unfit),
}

impl IssueError {
    /// Whether it may go well if it is asked for again.
    pub const fn is_for_now(&self) -> bool {
        matches!(self, Self::Signing(error) if error.is_for_now())
    }
}

const ONE_DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ONE_SECOND: Duration = Duration::from_secs(1);
