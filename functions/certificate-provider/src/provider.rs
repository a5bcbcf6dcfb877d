//! One request, one certificate: with the key of the request and an id, and nothing else of what was sent.

use std::error::Error;

use cvm_authority::{Authority, IssueError, Profile, Signer};
use cvm_provisioning::{
    Audit, AuditRecord, ClientIds, Csr, DeviceId, DeviceIdFrom, Door, KeyFingerprint, Origin, Outcome, RefusedKeys,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Signs for devices that AWS IoT has let in with a claim.
///
/// Whether the device may become what it says is not decided here: the certificate has no power until the pre-provisioning
/// hook, which is asked next and shown it, has said yes.
#[derive(Debug)]
pub(crate) struct Provider<S, A> {
    pub(crate) authority: Authority<S>,
    pub(crate) profile: Profile,
    pub(crate) refused_keys: RefusedKeys,
    pub(crate) client_ids: ClientIds,
    pub(crate) device_id_from: DeviceIdFrom,
    pub(crate) audit: A,
}

/// What AWS IoT asks (AWS IoT Developer Guide, *Self-managed certificate signing using AWS IoT Core certificate provider*).
/// Other fields are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    certificate_signing_request: String,
    client_id: String,
}

/// What it is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    pub(crate) certificate_pem: String,
}

/// The request was not signed. The audit record says why; whoever asked is told nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the request was not signed")]
pub(crate) struct NotSigned;

/// Why not, as the audit record has it: a stable word, and what an operator can do next.
enum Reason {
    Failed(&'static str),
    Invalid(&'static str),
    Refused { reason: &'static str, advice: &'static str },
}

impl<S: Signer, A: Audit> Provider<S, A> {
    /// Answers one request.
    pub(crate) async fn answer(&self, event: Value, request_id: String, now: Timestamp) -> Result<Answer, NotSigned> {
        let origin = Origin::new(Door::CertificateProvider, request_id);
        let record = |device: Option<&DeviceId>, key: Option<&KeyFingerprint>, outcome: Outcome<'_>| {
            self.audit.record(&AuditRecord { origin: &origin, device, key, outcome });
        };
        let (csr, id) = match self.understand(event) {
            Ok(understood) => understood,
            Err(reason) => {
                record(None, None, reason.outcome());
                return Err(NotSigned);
            }
        };
        let key = csr.key().fingerprint();
        let issued = match self.refused_keys.contains(key) {
            true => Err(Reason::Refused { reason: "key-refused", advice: "give the device another key" }),
            false => self.authority.issue(&self.profile, &id, csr.key(), now).await.map_err(|error| reason(&error)),
        };
        match issued {
            Ok(issued) => {
                record(Some(&id), Some(key), Outcome::Signed { certificate: issued.certificate().id() });
                Ok(Answer { certificate_pem: issued.certificate().pem().to_owned() })
            }
            Err(reason) => {
                record(Some(&id), Some(key), reason.outcome());
                Err(NotSigned)
            }
        }
    }

    /// The signing request and the device's id. Where both the client id and the request name the device, they have to
    /// agree.
    fn understand(&self, event: Value) -> Result<(Csr, DeviceId), Reason> {
        // What a stranger has sent is never repeated, not even in a log.
        let request: Request = serde_json::from_value(event).map_err(|_| Reason::Invalid("event-invalid"))?;
        let csr = Csr::parse(&request.certificate_signing_request).map_err(|_| Reason::Invalid("csr-invalid"))?;
        let id = match self.client_ids {
            ClientIds::Serial => {
                let id = request.client_id.parse().map_err(|_| Reason::Invalid("client-id-invalid"))?;
                if !self.device_id_from.allows(csr.subject(), &id) {
                    let advice = "have the device connect with the id that its request has in its subject, or deploy \
                                  with HookClientId=any or another CsrDeviceIdFrom";
                    return Err(Reason::Refused { reason: "common-name-differs", advice });
                }
                id
            }
            ClientIds::Any => {
                let named = self.device_id_from.device(csr.subject()).map_err(|_| Reason::Invalid("csr-invalid"))?;
                named.ok_or(Reason::Invalid("csr-without-id"))?.clone()
            }
        };
        Ok((csr, id))
    }
}

fn reason(error: &IssueError) -> Reason {
    match error {
        IssueError::OwnKey => Reason::Refused { reason: "key-of-ca", advice: "look into where the device has it from" },
        IssueError::LongName { .. } => {
            Reason::Refused { reason: "id-too-long", advice: "use ids of 64 characters at most" }
        }
        error => {
            let cause: &dyn Error = error;
            tracing::error!(error = cause, "a certificate was not signed");
            Reason::Failed("not-signed")
        }
    }
}

impl Reason {
    const fn outcome(&self) -> Outcome<'_> {
        match self {
            Self::Failed(reason) => Outcome::Failed { reason },
            Self::Invalid(code) => Outcome::Invalid { code },
            Self::Refused { reason, advice } => Outcome::Refused { reason, advice },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cvm_authority::{AuthorityProfile, Curve, LocalSigner, SignerError, Tier};
    use cvm_provisioning::{Certificate, PublicKey};
    use cvm_testkit::MemoryAudit;
    use cvm_testkit::fixture::{NOW, csr};
    use serde_json::json;

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    async fn provider(client_ids: ClientIds) -> Provider<LocalSigner, MemoryAudit> {
        let name = "Devices".parse().unwrap();
        let profile = AuthorityProfile { name, organization: None, tier: Tier::Issuing, validity: 10 * YEAR };
        let key = LocalSigner::generate(Curve::P256).unwrap();
        Provider {
            authority: Authority::create(&profile, key, NOW).await.unwrap(),
            profile: Profile::new(YEAR),
            refused_keys: RefusedKeys::default(),
            client_ids,
            device_id_from: DeviceIdFrom::CommonName,
            audit: MemoryAudit::default(),
        }
    }

    fn event(csr: &str, client_id: &str) -> Value {
        json!({ "certificateSigningRequest": csr, "principalId": "ab", "clientId": client_id, "certificateId": "cd" })
    }

    async fn ask<S: Signer, A: Audit>(provider: &Provider<S, A>, event: Value) -> Result<Answer, NotSigned> {
        provider.answer(event, "request".to_owned(), NOW).await
    }

    #[tokio::test]
    async fn threat_16_the_certificate_has_the_key_and_the_id_and_is_the_cas() {
        let (provider, csr) = (provider(ClientIds::Serial).await, csr("sn-1"));
        let answer = ask(&provider, event(csr.pem(), "sn-1")).await.unwrap();
        let certificate = Certificate::parse(&answer.certificate_pem).unwrap();
        assert_eq!(certificate.key(), csr.key().fingerprint());
        assert_eq!(certificate.common_name().unwrap().unwrap().as_str(), "sn-1");
        assert!(!certificate.is_ca());
        assert_eq!(Timestamp::from(certificate.not_after()).seconds(), NOW.after(YEAR).seconds() - 1);
    }

    #[tokio::test]
    async fn threat_15_ids_that_differ_and_requests_that_are_none_are_not_signed() {
        let (provider, csr) = (provider(ClientIds::Serial).await, csr("sn-1"));
        for bad in [
            Value::Null,
            json!({}),
            json!([event(csr.pem(), "sn-1")]),
            event("", "sn-1"),
            event(&csr.pem()[1..], "sn-1"),
            event(&format!("{}{}", csr.pem(), csr.pem()), "sn-1"),
            event(&"x".repeat(1_000_000), "sn-1"),
            event(csr.pem(), "sn-2"),
            event(csr.pem(), ""),
            event(csr.pem(), "../sn-1"),
        ] {
            assert_eq!(ask(&provider, bad).await.unwrap_err(), NotSigned);
        }
    }

    #[tokio::test]
    async fn where_the_client_id_says_nothing_the_request_has_to() {
        let (provider, csr) = (provider(ClientIds::Any).await, csr("sn-1"));
        let answer = ask(&provider, event(csr.pem(), "gateway 7")).await.unwrap();
        let certificate = Certificate::parse(&answer.certificate_pem).unwrap();
        assert_eq!(certificate.common_name().unwrap().unwrap().as_str(), "sn-1");
    }

    #[tokio::test]
    async fn threat_20_and_23_a_refused_key_is_not_signed() {
        let csr = csr("sn-1");
        let mut provider = provider(ClientIds::Serial).await;
        provider.refused_keys.extend([*csr.key().fingerprint()]);
        assert!(ask(&provider, event(csr.pem(), "sn-1")).await.is_err());
    }

    struct Off(LocalSigner);

    impl Signer for Off {
        fn public_key(&self) -> &PublicKey {
            self.0.public_key()
        }

        async fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignerError> {
            Err(SignerError::Refused { source: "the key is disabled".into() })
        }
    }

    #[tokio::test]
    async fn a_key_that_does_not_sign_is_no_certificate() {
        let Provider { authority, profile, refused_keys, client_ids, audit, device_id_from } =
            provider(ClientIds::Serial).await;
        let key = authority.signer().to_pem(None).unwrap();
        let off = Off(LocalSigner::from_pem(&key, None).unwrap());
        let authority = Authority::new(authority.certificate().clone(), Vec::new(), off).unwrap();
        let provider = Provider { authority, profile, refused_keys, client_ids, audit, device_id_from };
        assert!(ask(&provider, event(csr("sn-1").pem(), "sn-1")).await.is_err());
    }
}
