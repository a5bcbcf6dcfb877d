use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

use crate::{Certificate, CertificateId, KeyFingerprint, Timestamp};

/// What the registry stores so that a device can be checked; never a secret that could be replayed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attestation {
    /// The device proves itself with a bearer token, of which only the digest is kept.
    Token {
        /// The token's digest.
        digest: TokenDigest,
        /// A second token that counts as well, so that one can be replaced while the other is in use.
        second: Option<TokenDigest>,
        /// From when on the token proves nothing.
        expires_at: Option<Timestamp>,
    },
    /// The device proves that it holds the private half of a key that was registered; nothing secret is shared.
    PublicKey {
        /// The key that was registered.
        key: KeyFingerprint,
    },
    /// The device holds exactly this factory certificate.
    Certificate {
        /// The certificate's id.
        id: CertificateId,
        /// A second certificate that counts as well.
        second: Option<CertificateId>,
    },
    /// The device holds a factory certificate of a CA with its id in the subject.
    Ca {
        /// The CA certificate's id; `None` is any CA that the platform has in its registry.
        id: Option<CertificateId>,
    },
    /// The device shares a claim certificate with others, so that its id is all it has of its own.
    Claim {
        /// The one claim certificate that counts; `None` is any that the registry knows.
        certificate: Option<CertificateId>,
    },
    /// A trusted user vouches for the device.
    TrustedUser {
        /// The claim that was last made out for it.
        claim: Option<TrustedUserClaim>,
    },
    /// Nothing proves the device, so that it cannot be provisioned until an operator says what does.
    Nothing,
}

/// A claim that was made out to a trusted user for one device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustedUserClaim {
    /// The temporary claim certificate.
    pub certificate: CertificateId,
    /// Who asked for it.
    pub user: TrustedUser,
    /// From when on it proves nothing.
    pub expires_at: Timestamp,
}

impl Attestation {
    /// Whether `proof` is what this attestation asks for. The comparison of digests takes the same time wherever they
    /// differ.
    pub fn accepts(&self, proof: &Proof, now: Timestamp) -> bool {
        match self {
            Self::Token { digest, second, expires_at } => {
                let same = |token: &TokenDigest| {
                    let second = second.map_or(Choice::from(0), |second| token.0.ct_eq(&second.0));
                    bool::from(token.0.ct_eq(&digest.0) | second)
                };
                proof.token.as_ref().is_some_and(same) && expires_at.is_none_or(|end| now < end)
            }
            // A request is signed with its own key: holding that key is what the signature has proved.
            Self::PublicKey { key } => !proof.key_made_here && *key == proof.key,
            // The certificate and its CA are what the platform has verified, at a TLS handshake.
            Self::Certificate { id, second } => {
                let own = proof.certificate.is_some_and(|shown| shown == *id || Some(shown) == *second);
                own && matches!(proof.group, Some(GroupCredential::Ca(_)))
            }
            Self::Ca { id: Some(id) } => proof.group == Some(GroupCredential::Ca(*id)),
            Self::Ca { id: None } => matches!(proof.group, Some(GroupCredential::Ca(_))),
            Self::Claim { certificate: Some(id) } => proof.group == Some(GroupCredential::Claim(*id)),
            Self::Claim { certificate: None } => matches!(proof.group, Some(GroupCredential::Claim(_))),
            Self::TrustedUser { claim } => claim.as_ref().is_some_and(|claim| {
                proof.group == Some(GroupCredential::Claim(claim.certificate)) && now < claim.expires_at
            }),
            Self::Nothing => false,
        }
    }
}

/// What a device sent to prove itself, reduced to what may be kept and compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The digest of the bearer token, where one came.
    pub token: Option<TokenDigest>,
    /// The key that the certificate is, or will be, for.
    pub key: KeyFingerprint,
    /// Whether that key was made by us, and so proves nothing.
    pub key_made_here: bool,
    /// The certificate, where it exists before the device is asked about.
    pub certificate: Option<CertificateId>,
    /// What the device shares with others, where it showed it.
    pub group: Option<GroupCredential>,
    /// The certificate that the connection was made with.
    pub shown: Option<ShownCertificate>,
}

impl Proof {
    /// The proof of a device that brings a key to be certified.
    pub fn of_key(key: KeyFingerprint, token: Option<TokenDigest>, key_made_here: bool) -> Self {
        Self { token, key, key_made_here, certificate: None, group: None, shown: None }
    }

    /// The proof of a device whose certificate is there already, and which showed `group` for it.
    pub fn of_certificate(certificate: CertificateId, key: KeyFingerprint, group: GroupCredential) -> Self {
        Self { token: None, key, key_made_here: false, certificate: Some(certificate), group: Some(group), shown: None }
    }
}

/// A certificate whose key the caller has shown to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShownCertificate {
    /// Which.
    pub id: CertificateId,
    /// Whether it is so old that the device may have another one for the same key: half of its validity is over.
    pub renewable: bool,
}

impl ShownCertificate {
    /// The longest time after its end in which a certificate renews its device.
    pub const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// What `certificate` proves at this time: from the beginning of its validity until its grace is over, which lasts
    /// as long as the certificate was valid, and at most [`MAX_GRACE`](Self::MAX_GRACE).
    pub fn of(certificate: &Certificate, now: Timestamp) -> Option<Self> {
        let (begin, end) = (Timestamp::from(certificate.not_before()), Timestamp::from(certificate.not_after()));
        let validity = begin.until(end);
        let renewable_from = begin.after(validity / 2);
        let counts = begin <= now && now <= end.after(validity.min(Self::MAX_GRACE));
        counts.then(|| Self { id: *certificate.id(), renewable: renewable_from <= now })
    }
}

/// A credential that many devices share, and which the platform has verified.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GroupCredential {
    /// The CA that issued the device's factory certificate.
    Ca(CertificateId),
    /// The claim certificate by which the device was connected.
    Claim(CertificateId),
}

impl fmt::Display for GroupCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(id) => write!(f, "ca/{id}"),
            Self::Claim(id) => write!(f, "claim/{id}"),
        }
    }
}

impl FromStr for GroupCredential {
    type Err = InvalidGroupCredential;

    fn from_str(text: &str) -> Result<Self, InvalidGroupCredential> {
        match text.split_once('/') {
            Some(("ca", id)) => id.parse().map(Self::Ca).map_err(|_| InvalidGroupCredential),
            Some(("claim", id)) => id.parse().map(Self::Claim).map_err(|_| InvalidGroupCredential),
            _ => Err(InvalidGroupCredential),
        }
    }
}

/// A text is neither `ca/<id>` nor `claim/<id>`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a group credential is written ca/<certificate id> or claim/<certificate id>")]
pub struct InvalidGroupCredential;

/// Who a trusted user is to the platform that let them in: the subject of a token, or an ARN.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TrustedUser(String);

impl TrustedUser {
    /// The most bytes it may have; an IAM ARN is shorter, and a token's subject has 255 at most (OpenID Connect Core 1.0
    /// section 2).
    pub const MAX_LENGTH: usize = 512;

    /// As the platform says it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustedUser {
    type Err = InvalidTrustedUser;

    fn from_str(text: &str) -> Result<Self, InvalidTrustedUser> {
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidTrustedUser);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A text names no trusted user.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a trusted user has 1 to {max} printable ASCII characters without blanks", max = TrustedUser::MAX_LENGTH)]
pub struct InvalidTrustedUser;

/// A bearer token that lets one device enrol. High entropy by construction: made here from 256 random bits, or refused
/// when too short to be that.
pub struct EnrolmentToken(Zeroizing<String>);

impl EnrolmentToken {
    /// The fewest characters a token may have: 128 bits in base64url.
    pub const MIN_LENGTH: usize = 22;
    /// The most characters a token may have.
    pub const MAX_LENGTH: usize = 256;

    /// Makes a token of 256 random bits.
    ///
    /// # Errors
    ///
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, Unspecified> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// What is stored and compared in the token's place.
    pub fn digest(&self) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        TokenDigest(bytes)
    }

    /// The token itself, to be shown once to whom it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnrolmentToken {
    type Err = InvalidToken;

    /// Reads a token in the alphabet of RFC 6750's `b64token`.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
        if !(Self::MIN_LENGTH..=Self::MAX_LENGTH).contains(&text.len()) {
            return Err(InvalidToken::Length { length: text.len() });
        }
        if !text.bytes().all(allowed) {
            return Err(InvalidToken::Character);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentToken(..)")
    }
}

/// Why a text is no [`EnrolmentToken`]; the text is never repeated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// A character outside RFC 6750's `b64token`.
    #[error("an enrolment token is made of the characters A-Z a-z 0-9 - . _ ~ + / = only")]
    Character,
    /// Too short to be unguessable, or absurdly long.
    #[error(
        "an enrolment token has {min} to {max} characters, this one has {length}",
        min = EnrolmentToken::MIN_LENGTH,
        max = EnrolmentToken::MAX_LENGTH
    )]
    Length {
        /// Its length.
        length: usize,
    },
}

/// The SHA-256 digest of an [`EnrolmentToken`]. A token is random, so a plain digest cannot be guessed back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Whether they are the same, in a time that does not tell where they differ.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl From<TokenDigest> for String {
    fn from(digest: TokenDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for TokenDigest {
    type Error = InvalidTokenDigest;

    fn try_from(text: String) -> Result<Self, InvalidTokenDigest> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidTokenDigest)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidTokenDigest)?))
    }
}

/// A stored digest is not 32 bytes of base64url.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a token digest is 32 bytes in base64url without padding")]
pub struct InvalidTokenDigest;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn key(byte: u8) -> KeyFingerprint {
        KeyFingerprint::of(&[byte])
    }

    fn proof(token: Option<&EnrolmentToken>, key: KeyFingerprint) -> Proof {
        Proof::of_key(key, token.map(EnrolmentToken::digest), false)
    }

    #[test]
    fn a_trusted_user_has_1_to_512_visible_characters() {
        for name in ["a".to_owned(), "~!\u{7e}".to_owned(), "a".repeat(512)] {
            let user: TrustedUser = name.parse().unwrap();
            assert_eq!((user.as_str(), user.to_string()), (&*name, name.clone()));
        }
        for name in ["", " ", "an na", "anna\u{7f}", "ann\u{e4}", &"a".repeat(513)] {
            assert_eq!(name.parse::<TrustedUser>(), Err(InvalidTrustedUser), "{name:?}");
        }
    }

    #[test]
    fn only_the_very_token_is_accepted() {
        let token = EnrolmentToken::generate().unwrap();
        let attestation = Attestation::Token { digest: token.digest(), second: None, expires_at: None };
        assert!(attestation.accepts(&proof(Some(&token), key(1)), NOW));
        assert!(!attestation.accepts(&proof(Some(&EnrolmentToken::generate().unwrap()), key(1)), NOW));
        assert!(!attestation.accepts(&proof(None, key(1)), NOW));
    }

    #[test]
    fn a_token_is_revealed_by_its_own_method_alone() {
        let text = "test-token-with-enough-entropy-0123456789";
        let token: EnrolmentToken = text.parse().unwrap();
        assert_eq!(token.reveal(), text);
        assert_eq!(format!("{token:?}"), "EnrolmentToken(..)");
        let other = EnrolmentToken::generate().unwrap().digest();
        assert!(token.digest().is(&token.digest()) && !token.digest().is(&other));
        let twice = Attestation::Token { digest: token.digest(), second: Some(token.digest()), expires_at: None };
        assert!(twice.accepts(&proof(Some(&token), key(1)), NOW), "the same token twice");
    }

    #[test]
    fn the_grace_of_a_certificate_is_thirty_days_at_most() {
        assert_eq!(ShownCertificate::MAX_GRACE.as_secs(), 2_592_000);
    }

    #[test]
    fn a_second_token_is_as_good_as_the_first() {
        let [first, second, other] = [(); 3].map(|()| EnrolmentToken::generate().unwrap());
        let attestation =
            Attestation::Token { digest: first.digest(), second: Some(second.digest()), expires_at: Some(NOW) };
        let before = Timestamp::from_seconds(NOW.seconds() - 1);
        for (token, accepted) in [(&first, true), (&second, true), (&other, false)] {
            assert_eq!(attestation.accepts(&proof(Some(token), key(1)), before), accepted);
            assert!(!attestation.accepts(&proof(Some(token), key(1)), NOW), "it has expired");
        }
    }

    #[test]
    fn threat_10_an_expired_token_proves_nothing() {
        let token = EnrolmentToken::generate().unwrap();
        let attestation = Attestation::Token { digest: token.digest(), second: None, expires_at: Some(NOW) };
        assert!(attestation.accepts(&proof(Some(&token), key(1)), Timestamp::from_seconds(NOW.seconds() - 1)));
        assert!(!attestation.accepts(&proof(Some(&token), key(1)), NOW));
    }

    #[test]
    fn a_key_that_we_made_does_not_attest_a_device() {
        let attestation = Attestation::PublicKey { key: key(1) };
        let held = proof(None, key(1));
        assert!(attestation.accepts(&held, NOW));
        assert!(!attestation.accepts(&proof(None, key(2)), NOW));
        assert!(!attestation.accepts(&Proof { key_made_here: true, ..held }, NOW));
    }

    #[test]
    fn a_factory_certificate_attests_by_itself_or_by_its_ca() {
        let [certificate, ca, other] = [&b"leaf"[..], b"ca", b"other"].map(CertificateId::of);
        let proof = |certificate, ca| Proof::of_certificate(certificate, key(1), GroupCredential::Ca(ca));
        let exact = Attestation::Certificate { id: certificate, second: None };
        assert!(exact.accepts(&proof(certificate, ca), NOW));
        assert!(!exact.accepts(&proof(other, ca), NOW));
        let claimed = Proof::of_certificate(certificate, key(1), GroupCredential::Claim(ca));
        assert!(!exact.accepts(&claimed, NOW), "no TLS handshake was made with it");
        let either = Attestation::Certificate { id: ca, second: Some(certificate) };
        assert!(either.accepts(&proof(certificate, ca), NOW));
        assert!(!either.accepts(&proof(other, ca), NOW));
        let by_any_ca = Attestation::Ca { id: None };
        assert!(by_any_ca.accepts(&proof(other, other), NOW));
        assert!(!by_any_ca.accepts(&claimed, NOW), "a claim certificate's issuer vouches for nobody");
        let by_ca = Attestation::Ca { id: Some(ca) };
        assert!(by_ca.accepts(&proof(other, ca), NOW));
        assert!(!by_ca.accepts(&proof(certificate, other), NOW));
        assert!(!by_ca.accepts(&claimed, NOW));
    }

    #[test]
    fn threat_11_a_claim_attests_within_its_scope_only() {
        let [claim, other] = [&b"claim"[..], b"other"].map(CertificateId::of);
        let proof = |id| Proof::of_certificate(CertificateId::of(b"new"), key(1), GroupCredential::Claim(id));
        assert!(Attestation::Claim { certificate: None }.accepts(&proof(other), NOW));
        assert!(Attestation::Claim { certificate: Some(claim) }.accepts(&proof(claim), NOW));
        assert!(!Attestation::Claim { certificate: Some(claim) }.accepts(&proof(other), NOW));
        assert!(!Attestation::TrustedUser { claim: None }.accepts(&proof(claim), NOW));
        let user = "installer".parse().unwrap();
        let made_out = TrustedUserClaim { certificate: claim, user, expires_at: NOW };
        let vouched = Attestation::TrustedUser { claim: Some(made_out) };
        assert!(vouched.accepts(&proof(claim), Timestamp::from_seconds(NOW.seconds() - 1)));
        assert!(!vouched.accepts(&proof(other), Timestamp::from_seconds(NOW.seconds() - 1)));
        assert!(!vouched.accepts(&proof(claim), NOW), "it has expired");
    }

    #[test]
    fn a_group_credential_survives_its_text_form() {
        for group in [GroupCredential::Ca(CertificateId::of(b"a")), GroupCredential::Claim(CertificateId::of(b"b"))] {
            assert_eq!(group.to_string().parse(), Ok(group));
        }
        assert_eq!("ca".parse::<GroupCredential>(), Err(InvalidGroupCredential));
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused() {
        assert_eq!("hunter2".parse::<EnrolmentToken>().unwrap_err(), InvalidToken::Length { length: 7 });
        assert_eq!("é".repeat(20).parse::<EnrolmentToken>().unwrap_err(), InvalidToken::Character);
    }

    #[test]
    fn a_token_is_not_shown_by_accident() {
        let token = EnrolmentToken::generate().unwrap();
        assert!(!format!("{token:?}").contains(token.reveal()));
    }

    #[test]
    fn a_digest_survives_its_text_form() {
        let digest = EnrolmentToken::generate().unwrap().digest();
        assert_eq!(TokenDigest::try_from(digest.to_string()), Ok(digest));
        assert_eq!(TokenDigest::try_from("abc".to_owned()), Err(InvalidTokenDigest));
    }
}
