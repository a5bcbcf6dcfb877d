//! One question, one answer, whatever happens: no is the answer to everything that is not understood, refused, or late.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime};

use cvm_aws::{HookAnswer, HookQuestion};
use cvm_provisioning::{
    Audit, AuditRecord, ClaimStore, DeviceStore, Door, LogAudit, NotAllowed, Origin, Outcome, PreProvisioning,
};
use serde_json::Value;

/// How long an answer may take. AWS IoT waits for 5 s (AWS IoT Developer Guide, *Pre-provisioning hooks*), a cold start
/// included.
pub(crate) const DEADLINE: Duration = Duration::from_millis(3_500);

/// Answers one question.
pub(crate) async fn answer<R, A>(door: &PreProvisioning<R, A>, question: Value, request_id: String) -> HookAnswer
where
    R: ClaimStore + DeviceStore,
    A: Audit,
{
    match tokio::time::timeout(DEADLINE, decide(door, question, &request_id)).await {
        Ok(Ok(parameter_overrides)) => HookAnswer { allow_provisioning: true, parameter_overrides },
        Ok(Err(NotAllowed)) => HookAnswer::default(),
        Err(_) => {
            record(request_id, Outcome::Failed { reason: "deadline" });
            HookAnswer::default()
        }
    }
}

async fn decide<R, A>(
    door: &PreProvisioning<R, A>,
    question: Value,
    request_id: &str,
) -> Result<BTreeMap<String, String>, NotAllowed>
where
    R: ClaimStore + DeviceStore,
    A: Audit,
{
    let origin = Origin::new(Door::Hook, request_id.to_owned());
    let request = match serde_json::from_value::<HookQuestion>(question) {
        Ok(question) => question.request(origin, SystemTime::now().into()),
        Err(error) => {
            let error: &dyn Error = &Unreadable(error.classify());
            tracing::warn!(error, "the question cannot be read");
            None
        }
    };
    match request {
        Some(request) => door.answer(&request).await,
        None => {
            record(request_id.to_owned(), Outcome::Invalid { code: "event-invalid" });
            Err(NotAllowed)
        }
    }
}

/// A question that is none; its text is a stranger's, and never repeated.
#[derive(Debug, thiserror::Error)]
#[error("the event is not what AWS IoT sends to a pre-provisioning hook ({0:?})")]
struct Unreadable(serde_json::error::Category);

fn record(request_id: String, outcome: Outcome<'_>) {
    let origin = Origin::new(Door::Hook, request_id);
    LogAudit.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
}

#[cfg(test)]
mod tests {
    use cvm_provisioning::{Certificate, CertificateId, State};
    use cvm_testkit::scenario::World;
    use cvm_testkit::scenario::claims::claimed_device;
    use cvm_testkit::{Fault, MemoryRegistry, Script};
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    fn question(certificate: &Certificate, claim: &CertificateId) -> Value {
        json!({
            "claimCertificateId": claim.to_string(),
            "certificateId": certificate.id().to_string(),
            "certificatePem": certificate.pem(),
            "templateArn": "arn:aws:iot:eu-central-1:123456789012:provisioningtemplate/fleet",
            "clientId": "sn-1",
            "parameters": {"SerialNumber": "sn-1"},
        })
    }

    #[tokio::test(start_paused = true)]
    async fn threat_46_a_registry_that_hangs_is_a_no_in_time_and_leaves_nothing_behind() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
        for call in [1, 2] {
            let door = world.hook(&Script::fail(call, Fault::Hold));
            let start = Instant::now();
            let told = answer(&door, question(&certificate, &claim), "request".to_owned()).await;
            assert_eq!(told, HookAnswer::default(), "call {call}");
            assert_eq!(start.elapsed(), DEADLINE, "call {call}");
            assert_eq!(world.stored("sn-1").await.state, State::Registered, "call {call}");
        }
        let door = world.hook(&Script::default());
        assert!(answer(&door, question(&certificate, &claim), "request".to_owned()).await.allow_provisioning);
    }

    #[tokio::test]
    async fn a_question_that_is_none_is_a_no() {
        let world = World::new(MemoryRegistry::default(), claimed_device()).await;
        let (claim, certificate) = (world.claim(None).await, world.made_for_claim().await);
        let good = question(&certificate, &claim);
        let without = |name: &str| {
            let mut question = good.clone();
            question.as_object_mut().unwrap().remove(name);
            question
        };
        let with = |name: &str, value: Value| {
            let mut question = good.clone();
            question[name] = value;
            question
        };
        let door = world.hook(&Script::default());
        for bad in [
            Value::Null,
            json!({}),
            json!([good]),
            without("certificateId"),
            without("certificatePem"),
            without("templateArn"),
            without("parameters"),
            without("claimCertificateId"),
            with("certificateId", json!("abc")),
            with("parameters", json!({"SerialNumber": 1})),
            with("parameters", json!({"SerialNumber": null})),
            with("templateArn", json!("arn:aws:iot:eu-central-1:123456789012:thing/fleet")),
        ] {
            let told = answer(&door, bad.clone(), "request".to_owned()).await;
            assert_eq!(told, HookAnswer::default(), "{bad}");
        }
        assert!(answer(&door, good, "request".to_owned()).await.allow_provisioning);
    }
}
