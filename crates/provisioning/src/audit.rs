use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{CertificateId, DeviceId, Door, KeyFingerprint, ThingName, TrustedUser};

/// One decision: who, what, by which door, why, with which key.
///
/// Nothing secret is in it by construction: no token, no key, no CSR and no whole event has a field here.
#[derive(Clone, Copy, Debug)]
pub struct AuditRecord<'a> {
    /// Where the request came in.
    pub origin: &'a Origin,
    /// Who the device said it is, as far as that was understood.
    pub device: Option<&'a DeviceId>,
    /// The key that it brought, or that was made for it.
    pub key: Option<&'a KeyFingerprint>,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// Where a request came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The door.
    pub door: Door,
    /// The request's id, as the caller was given it.
    pub request_id: String,
    /// The network address that the platform in front of us saw.
    pub source: Option<String>,
    /// Which operator, or trusted user, asked; nobody where a device did.
    pub actor: Option<Actor>,
}

impl Origin {
    /// A request that came in at this door, by nobody in particular.
    pub const fn new(door: Door, request_id: String) -> Self {
        Self { door, request_id, source: None, actor: None }
    }
}

/// Who asked for a change: 1 to 256 visible characters of any script, such as an ARN, the name of a token or `user@host`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Actor(#[serde(deserialize_with = "actor_name")] String);

fn actor_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = Actor::new(&String::deserialize(deserializer)?);
    name.map(|Actor(name)| name).ok_or_else(|| D::Error::custom("an actor has a name"))
}

impl Actor {
    const MAX_LENGTH: usize = 256;

    /// The actor of this name, without the characters that would hide or reorder text in a log line.
    pub fn new(name: &str) -> Option<Self> {
        let name: String = name.chars().filter(|character| is_shown(*character)).take(Self::MAX_LENGTH).collect();
        let name = name.trim();
        (!name.is_empty()).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character shows as itself: no control, no line break, no mark that is invisible or sets the direction of text.
fn is_shown(character: char) -> bool {
    let is_hidden = character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}');
    !is_hidden
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// The certificate is the device's for good: a device connected with it, or the reconciler found it in place.
    Confirmed {
        /// Which.
        certificate: &'a CertificateId,
        /// The thing that it belongs to.
        thing: &'a ThingName,
    },
    /// Of a device that was deleted the platform has nothing any more.
    Departed {
        /// The thing that it was.
        thing: &'a ThingName,
    },
    /// The registry and the platform do not agree, and a person has to look.
    Drift {
        /// A stable word for what differs.
        reason: &'a str,
        /// What an operator can do next.
        advice: &'a str,
        /// The certificate that it is about.
        certificate: Option<&'a CertificateId>,
        /// The thing that it is about.
        thing: Option<&'a ThingName>,
    },
    /// It could not be finished; what the retry needs is kept.
    Failed {
        /// A stable word for the cause.
        reason: &'a str,
    },
    /// There was nothing to do.
    Ignored {
        /// A stable word for the reason.
        reason: &'a str,
        /// The certificate that it was about.
        certificate: &'a CertificateId,
    },
    /// The request could not be understood, and nobody was asked about it.
    Invalid {
        /// The code of the problem that the caller was told.
        code: &'a str,
    },
    /// The device has a new certificate.
    Provisioned {
        /// Which.
        certificate: &'a CertificateId,
        /// The thing that it became.
        thing: &'a ThingName,
    },
    /// The device was set aside for a person; the certificate it has stays untouched.
    Quarantined {
        /// The certificate that stays.
        certificate: Option<&'a CertificateId>,
        /// The key of that certificate; the key that asked is the record's.
        provisioned_key: Option<&'a KeyFingerprint>,
    },
    /// The device was refused.
    Refused {
        /// A stable word for the reason.
        reason: &'a str,
        /// What an operator can do next.
        advice: &'a str,
    },
    /// A reservation that came to nothing was given up: the device may try again at once.
    Released {
        /// A stable word for the reason.
        reason: &'a str,
    },
    /// A certificate that an attempt had left was removed, or put out of power.
    Removed {
        /// Which.
        certificate: &'a CertificateId,
    },
    /// The device got the answer that it had lost.
    Replayed {
        /// The certificate it has.
        certificate: &'a CertificateId,
        /// The thing it is.
        thing: &'a ThingName,
    },
    /// The certificate of a device that is enabled again is let in again.
    Restored {
        /// Which.
        certificate: &'a CertificateId,
    },
    /// The device may have this certificate; what comes next decides whether it gets it.
    Reserved {
        /// The certificate.
        certificate: &'a CertificateId,
        /// The claim that it was asked for with.
        claim: &'a CertificateId,
    },
    /// A certificate of a device that is revoked was put out of power for good.
    Revoked {
        /// Which.
        certificate: &'a CertificateId,
    },
    /// A certificate was signed that has no power yet; what comes next decides whether it gets any.
    Signed {
        /// Which.
        certificate: &'a CertificateId,
    },
    /// A certificate of a device that is disabled was put out of power.
    Suspended {
        /// Which.
        certificate: &'a CertificateId,
    },
    /// A trusted user has a claim for the device.
    Vouched {
        /// The claim.
        claim: &'a CertificateId,
        /// Who has it.
        user: &'a TrustedUser,
    },
    /// Another attempt was under way.
    Waited,
}

/// Writes each record as one structured log event of the target `audit`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogAudit;

impl crate::Audit for LogAudit {
    fn record(&self, record: &AuditRecord<'_>) {
        let AuditRecord { origin: Origin { door, request_id, source, actor }, device, key, outcome } = record;
        let (door, actor) = (door.name(), actor.as_ref().map(Actor::as_str));
        // One macro call an outcome: the fields of a tracing event are fixed where it is written.
        macro_rules! write_event {
            ($level:ident, $outcome:literal $(, $name:ident = $value:expr)*) => {
                tracing::$level!(
                    target: "audit", outcome = $outcome, door, request_id, source, actor, device = device.map(display), key = key.map(display)
                    $(, $name = $value)*
                )
            };
        }
        match outcome {
            Outcome::Confirmed { certificate, thing } => {
                write_event!(info, "confirmed", certificate = display(certificate), thing = display(thing));
            }
            Outcome::Departed { thing } => write_event!(info, "departed", thing = display(thing)),
            Outcome::Drift { reason, advice, certificate, thing } => write_event!(
                warn,
                "drift",
                reason = *reason,
                advice = *advice,
                certificate = certificate.map(display),
                thing = thing.map(display)
            ),
            Outcome::Failed { reason } => write_event!(error, "failed", reason = *reason),
            Outcome::Ignored { reason, certificate } => {
                write_event!(info, "ignored", reason = *reason, certificate = display(certificate));
            }
            Outcome::Invalid { code } => write_event!(info, "invalid", reason = *code),
            Outcome::Provisioned { certificate, thing } => {
                write_event!(info, "provisioned", certificate = display(certificate), thing = display(thing));
            }
            Outcome::Quarantined { certificate, provisioned_key } => write_event!(
                warn,
                "quarantined",
                reason = crate::Denial::Cloned.code(),
                advice = crate::Denial::Cloned.advice(),
                certificate = certificate.map(display),
                provisioned_key = provisioned_key.map(display)
            ),
            Outcome::Refused { reason, advice } => write_event!(warn, "refused", reason = *reason, advice = *advice),
            Outcome::Released { reason } => write_event!(info, "released", reason = *reason),
            Outcome::Removed { certificate } => write_event!(warn, "removed", certificate = display(certificate)),
            Outcome::Replayed { certificate, thing } => {
                write_event!(info, "replayed", certificate = display(certificate), thing = display(thing));
            }
            Outcome::Restored { certificate } => {
                write_event!(info, "restored", certificate = display(certificate));
            }
            Outcome::Reserved { certificate, claim } => {
                write_event!(info, "reserved", certificate = display(certificate), claim = display(claim));
            }
            Outcome::Revoked { certificate } => write_event!(info, "revoked", certificate = display(certificate)),
            Outcome::Signed { certificate } => write_event!(info, "signed", certificate = display(certificate)),
            Outcome::Suspended { certificate } => {
                write_event!(info, "suspended", certificate = display(certificate));
            }
            Outcome::Vouched { claim, user } => {
                write_event!(info, "vouched", claim = display(claim), user = display(user));
            }
            Outcome::Waited => write_event!(info, "waited"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_keeps_the_letters_of_every_script() {
        for name in
            ["Zoë Müller", "Zoe\u{308}", "山田太郎", "अनन्या", "arn:aws:iam::123456789012:user/anna", "anna@host"]
        {
            assert_eq!(Actor::new(name).unwrap().as_str(), name);
        }
        assert_eq!(Actor::new(&"é".repeat(300)).unwrap().as_str().chars().count(), 256);
    }

    #[test]
    fn threat_14_an_actor_cannot_hide_or_reorder_text_in_a_log_line() {
        let name = "an\n\u{202e}n\u{2066}a\u{200b}\u{feff}\u{7}\u{85}\t";
        assert_eq!(Actor::new(name).unwrap().as_str(), "anna");
        assert!(Actor::new(" \u{200d}\n ").is_none());
    }
}
