//! `authentication`: how a device or a module proves itself, in the words of the identity registry.

use cvm_provisioning::{Attestation, CertificateId, EnrolmentToken, InvalidToken};
use serde::{Deserialize, Serialize};

use crate::optional_object;

/// The object as it is written. A key or a thumbprint is `null` where there is none, or where it is not told: of a
/// symmetric key only the digest is kept, so it is shown once, in the answer to the request that set it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Authentication {
    /// The keys of a device that proves itself with one of two; to cvm they are enrolment tokens.
    #[serde(deserialize_with = "optional_object")]
    pub symmetric_key: Option<SymmetricKey>,
    /// The certificates of a device that proves itself with one of two, as SHA-256.
    #[serde(deserialize_with = "optional_object")]
    pub x509_thumbprint: Option<Thumbprints>,
    /// `sas`, `selfSigned`, `certificateAuthority` or `none`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// Two keys, so that one can be replaced while the other is in use.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SymmetricKey {
    /// The first.
    pub primary_key: Option<String>,
    /// The second.
    pub secondary_key: Option<String>,
}

impl std::fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

/// The SHA-256 of two certificates, in hexadecimal digits.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Thumbprints {
    /// The first.
    pub primary_thumbprint: Option<String>,
    /// The second.
    pub secondary_thumbprint: Option<String>,
}

/// The keys that are known while a request is answered: those that came with it, and those that were made for it.
#[derive(Debug, Default)]
pub struct Keys {
    /// The first.
    pub primary: Option<EnrolmentToken>,
    /// The second.
    pub secondary: Option<EnrolmentToken>,
}

impl Authentication {
    /// How this attestation is written, with the keys that may be told.
    pub fn of(attestation: &Attestation, keys: &Keys) -> Self {
        let told = |key: &Option<EnrolmentToken>| key.as_ref().map(|key| key.reveal().to_owned());
        let digits = |id: CertificateId| id.to_string().to_ascii_uppercase();
        let (kind, primary, secondary) = match attestation {
            Attestation::Token { .. } => ("sas", None, None),
            Attestation::Certificate { id, second } => ("selfSigned", Some(digits(*id)), second.map(digits)),
            Attestation::Ca { .. } => ("certificateAuthority", None, None),
            _ => ("none", None, None),
        };
        Self {
            symmetric_key: Some(SymmetricKey {
                primary_key: told(&keys.primary),
                secondary_key: told(&keys.secondary),
            }),
            x509_thumbprint: Some(Thumbprints { primary_thumbprint: primary, secondary_thumbprint: secondary }),
            kind: Some(kind.to_owned()),
        }
    }

    /// What this says to keep of a device, or a module, that has `current`, with the keys that may be told in the
    /// answer. `None` where it says nothing that would change it.
    ///
    /// A key or thumbprint that is left out stays as it is; an empty key is made anew, as are both of a device that had
    /// none.
    ///
    /// # Errors
    ///
    /// [`InvalidAuthentication`].
    pub fn attestation(
        &self,
        current: Option<&Attestation>,
    ) -> Result<(Option<Attestation>, Keys), InvalidAuthentication> {
        let kind = match (self.kind.as_deref(), current) {
            (Some(kind), _) => kind,
            (None, _) if self.thumbprint(|thumbprints| &thumbprints.primary_thumbprint)?.is_some() => "selfSigned",
            (None, Some(_)) if self.symmetric_key.is_none() => return Ok((None, Keys::default())),
            (None, _) => "sas",
        };
        match kind {
            "sas" => self.tokens(current),
            "selfSigned" => {
                let primary = self.thumbprint(|thumbprints| &thumbprints.primary_thumbprint)?;
                let secondary = self.thumbprint(|thumbprints| &thumbprints.secondary_thumbprint)?;
                let attestation = match (primary, current) {
                    (Some(id), _) => Attestation::Certificate { id, second: secondary },
                    (None, Some(Attestation::Certificate { id, second })) => {
                        Attestation::Certificate { id: *id, second: secondary.or(*second) }
                    }
                    (None, _) => return Err(InvalidAuthentication::NoThumbprint),
                };
                Ok((Some(attestation), Keys::default()))
            }
            "certificateAuthority" => {
                // Which CA is said under `cvm`; a tool that does not know of it must not widen what stands there.
                let known = current.filter(|current| matches!(current, Attestation::Ca { .. })).cloned();
                Ok((Some(known.unwrap_or(Attestation::Ca { id: None })), Keys::default()))
            }
            "none" => {
                let other =
                    |current: &&Attestation| Self::of(current, &Keys::default()).kind.as_deref() == Some("none");
                Ok((Some(current.filter(other).cloned().unwrap_or(Attestation::Nothing)), Keys::default()))
            }
            _ => Err(InvalidAuthentication::Kind),
        }
    }

    fn tokens(&self, current: Option<&Attestation>) -> Result<(Option<Attestation>, Keys), InvalidAuthentication> {
        let sent = self.symmetric_key.clone().unwrap_or_default();
        let (kept, kept_second, expires_at) = match current {
            Some(Attestation::Token { digest, second, expires_at }) => (Some(*digest), *second, *expires_at),
            _ => (None, None, None),
        };
        let has_tokens = kept.is_some();
        let key = |text: Option<&str>| -> Result<Option<EnrolmentToken>, InvalidAuthentication> {
            match text {
                None if has_tokens => Ok(None),
                None | Some("") => EnrolmentToken::generate().map(Some).map_err(|_| InvalidAuthentication::Randomness),
                Some(text) => Ok(Some(text.parse()?)),
            }
        };
        let keys = Keys { primary: key(sent.primary_key.as_deref())?, secondary: key(sent.secondary_key.as_deref())? };
        let digest = keys.primary.as_ref().map(EnrolmentToken::digest).or(kept);
        let digest = digest.ok_or(InvalidAuthentication::Randomness)?;
        let second = keys.secondary.as_ref().map(EnrolmentToken::digest).or(kept_second);
        Ok((Some(Attestation::Token { digest, second, expires_at }), keys))
    }

    fn thumbprint(
        &self,
        which: impl Fn(&Thumbprints) -> &Option<String>,
    ) -> Result<Option<CertificateId>, InvalidAuthentication> {
        let text = self.x509_thumbprint.as_ref().and_then(|thumbprints| which(thumbprints).as_deref());
        let text = text.filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|_| InvalidAuthentication::Thumbprint)).transpose()
    }
}

/// Why `authentication` cannot be used. What came is never repeated: it may be a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthentication {
    /// An unknown type.
    #[error("authentication.type is sas, selfSigned, certificateAuthority or none")]
    Kind,
    /// A key that could be guessed, or is none.
    #[error("authentication.symmetricKey: {0}")]
    Key(#[from] InvalidToken),
    /// The type asks for a thumbprint, and none came.
    #[error("authentication.type selfSigned needs x509Thumbprint.primaryThumbprint")]
    NoThumbprint,
    /// No randomness for a new key.
    #[error("the system has no randomness to give")]
    Randomness,
    /// A thumbprint that is no SHA-256.
    #[error("a thumbprint is the SHA-256 of the certificate, 64 hexadecimal digits; SHA-1 is not taken")]
    Thumbprint,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Authentication {
        serde_json::from_str(json).unwrap()
    }

    fn token() -> Attestation {
        parse("{}").attestation(None).unwrap().0.unwrap()
    }

    #[test]
    fn a_new_device_gets_two_keys_unless_it_brings_them() {
        for json in ["{}", r#"{"type":"sas"}"#, r#"{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}"#]
        {
            let (attestation, keys) = parse(json).attestation(None).unwrap();
            let [primary, secondary] = [keys.primary, keys.secondary].map(|key| key.unwrap().digest());
            let expected = Attestation::Token { digest: primary, second: Some(secondary), expires_at: None };
            assert_eq!(attestation, Some(expected), "{json}");
        }
        let key = "a".repeat(44);
        let json = format!(r#"{{"symmetricKey":{{"primaryKey":"{key}"}}}}"#);
        assert_eq!(parse(&json).attestation(None).unwrap().1.primary.unwrap().reveal(), key);
        let short = parse(r#"{"symmetricKey":{"primaryKey":"hunter2"}}"#).attestation(None).unwrap_err();
        assert!(matches!(short, InvalidAuthentication::Key(_)) && !short.to_string().contains("hunter2"));
    }

    #[test]
    fn what_is_left_out_stays_and_an_empty_key_is_made_anew() {
        let current = token();
        assert_eq!(parse("{}").attestation(Some(&current)).unwrap().0, None);
        let shown = Authentication::of(&current, &Keys::default());
        assert_eq!(shown.attestation(Some(&current)).unwrap().0, Some(current.clone()), "read and written back");
        let renewed =
            parse(r#"{"type":"sas","symmetricKey":{"secondaryKey":""}}"#).attestation(Some(&current)).unwrap();
        let (Attestation::Token { digest, second, .. }, Some(Attestation::Token { digest: kept, second: new, .. })) =
            (&current, renewed.0)
        else {
            panic!("both are tokens")
        };
        assert_eq!(*digest, kept);
        assert_ne!(*second, new);
    }

    #[test]
    fn a_thumbprint_is_a_sha_256() {
        let id = "AB".repeat(32);
        let json = format!(r#"{{"type":"selfSigned","x509Thumbprint":{{"primaryThumbprint":"{id}"}}}}"#);
        let (attestation, _) = parse(&json).attestation(None).unwrap();
        let expected = Attestation::Certificate { id: id.parse().unwrap(), second: None };
        assert_eq!(attestation, Some(expected.clone()));
        assert_eq!(
            Authentication::of(&expected, &Keys::default()).x509_thumbprint.unwrap().primary_thumbprint,
            Some(id)
        );
        for (json, error) in [
            (r#"{"type":"selfSigned"}"#.to_owned(), InvalidAuthentication::NoThumbprint),
            (json.replace(&"AB".repeat(32), &"ab".repeat(20)), InvalidAuthentication::Thumbprint),
            (r#"{"type":"other"}"#.to_owned(), InvalidAuthentication::Kind),
        ] {
            assert_eq!(parse(&json).attestation(None).unwrap_err(), error, "{json}");
        }
    }

    #[test]
    fn what_the_registry_has_no_word_for_is_not_lost_when_it_is_written_back() {
        let ca = Attestation::Ca { id: Some("ab".repeat(32).parse().unwrap()) };
        let user = Attestation::TrustedUser { claim: None };
        for attestation in [ca, user, Attestation::Nothing] {
            let shown = Authentication::of(&attestation, &Keys::default());
            assert_eq!(shown.attestation(Some(&attestation)).unwrap().0, Some(attestation));
        }
    }
}
