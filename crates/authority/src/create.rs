use std::time::Duration;

use cvm_provisioning::{Certificate, PublicKey, Timestamp};
use rcgen::SubjectPublicKeyInfo;

use crate::contents::{Contents, Purpose, Validity};
use crate::lint::{self, Signatory};
use crate::sign::sign;
use crate::{Authority, Defect, SerialNumber, Signer, SigningError, SubjectText, Unfit};

/// What a CA's certificate says besides its key.
///
/// The key usages are `keyCertSign` and `cRLSign`, critical like the basic constraints, and nothing else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthorityProfile {
    /// Its common name. No two CAs that are used at the same time may have the same subject.
    pub name: SubjectText,
    /// Whose CA it is.
    pub organization: Option<SubjectText>,
    /// What it may sign.
    pub tier: Tier,
    /// How long it is valid from the moment it is made, in whole seconds.
    pub validity: Duration,
}

/// What a CA may sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tier {
    /// Certificates of devices and no other CAs: a path length of 0.
    Issuing,
    /// Certificates of issuing CAs: a path length of 1.
    Root,
}

impl Tier {
    /// How many CAs there may be between it and a device (RFC 5280 section 4.2.1.9).
    pub const fn path_length(self) -> u8 {
        match self {
            Self::Issuing => 0,
            Self::Root => 1,
        }
    }
}

impl AuthorityProfile {
    /// Ends with the last second that a certificate can name, if the validity goes on for longer.
    fn contents(&self, now: Timestamp) -> Result<Contents<'_>, CreateError> {
        let validity = Validity::from_now(self.validity, now);
        if validity.not_after < now {
            return Err(CreateError::NoValidity);
        }
        Ok(Contents {
            organization: self.organization.as_ref().map(SubjectText::as_str),
            common_name: self.name.as_str(),
            purpose: Purpose::Authority { path_length: self.tier.path_length() },
            serial_number: SerialNumber::random(now).map_err(SigningError::from)?,
            validity,
        })
    }
}

impl<S: Signer> Authority<S> {
    /// Makes a CA that nobody else vouches for: a root, or one that issues to devices without a root above it.
    ///
    /// # Errors
    ///
    /// [`CreateError`]. What was made is one that [`Authority::new`] takes.
    pub async fn create(profile: &AuthorityProfile, signer: S, now: Timestamp) -> Result<Self, CreateError> {
        let contents = profile.contents(now)?;
        let params = contents.params().map_err(SigningError::from)?;
        let key = SubjectPublicKeyInfo::from_der(signer.public_key().spki()).map_err(SigningError::from)?;
        let signed = sign(&signer, &key, |pass| params.self_signed(pass)).await?;
        let signatory = Signatory {
            algorithm: signer.algorithm(),
            key: signer.public_key(),
            name: &contents.subject(),
            key_identifier: None,
            is_checked: true,
        };
        lint::certificate(signed.der(), &contents, signer.public_key(), signatory).map_err(SigningError::from)?;
        let certificate = Certificate::from_der(signed.der()).map_err(|_| SigningError::Defect(Defect::Encoding))?;
        Ok(Self::new(certificate, Vec::new(), signer)?)
    }

    /// Signs the certificate of a CA below this one, whose key may be elsewhere. With its key it becomes an
    /// [`Authority`] whose `above` is this CA's certificate and those above that.
    ///
    /// # Errors
    ///
    /// [`CreateError`], also where the CA below would outlive this one.
    pub async fn certify_authority(
        &self,
        profile: &AuthorityProfile,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Certificate, CreateError> {
        self.check(now)?;
        let contents = profile.contents(now)?;
        if self.path_length().is_some_and(|length| u32::from(profile.tier.path_length()) >= length) {
            return Err(CreateError::PathLength);
        }
        if contents.validity.not_after > self.validity().not_after {
            return Err(CreateError::Outlives { at: self.validity().not_after });
        }
        if self.has_key(key.fingerprint()) || contents.subject() == self.subject() {
            return Err(CreateError::Itself);
        }
        let validity = contents.validity.within(self.validity());
        Ok(self.certify(&Contents { validity, ..contents }, key).await?)
    }
}

/// Why no CA was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// It has the name or the key of the one above it.
    #[error("the new CA has the key or the name of the one that signs it: give it its own")]
    Itself,
    /// It would be valid for less than a second.
    #[error("the new CA would not be valid for a second")]
    NoValidity,
    /// A certificate never outlives its issuer's.
    #[error("the CA that signs ends at {at}, before the new one: give the new one a shorter validity")]
    Outlives {
        /// The last moment of the validity of the CA that signs.
        at: Timestamp,
    },
    /// The CA that signs may not have one of this kind below it.
    #[error("the path length of the CA that signs allows no such CA below it: have a root sign it")]
    PathLength,
    /// It could not be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// It, or the one that signs, cannot be used.
    #[error("the CA's certificate cannot be used: {0}")]
    Unfit(#[from] Unfit),
}
