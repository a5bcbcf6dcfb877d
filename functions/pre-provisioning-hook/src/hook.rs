//! One question, one answer, whatever happens: no is the answer to everything that is not understood, refused, or late.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime};

use cvm_aws::{HookAnswer, HookQuestion};
use cvm_provisioning::{
    Audit, AuditRecord, ClaimStore, DeviceStore, LogAudit, NotAllowed, Origin, Outcome, PreProvisioning, Reservations,
};
use serde_json::Value;

/// How long an answer may take. AWS IoT waits for 5 s (AWS IoT Developer Guide, *Pre-provisioning hooks*), a cold start
/// included.
pub(crate) const DEADLINE: Duration = Duration::from_millis(3_500);

/// Answers one question.
pub(crate) async fn answer<R, A>(door: &PreProvisioning<R, A>, question: Value, request_id: String) -> HookAnswer
where
    R: ClaimStore + DeviceStore + Reservations,
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
    R: ClaimStore + DeviceStore + Reservations,
    A: Audit,
{
    let origin = Origin { door: "hook", request_id: request_id.to_owned(), source: None };
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
    let origin = Origin { door: "hook", request_id, source: None };
    LogAudit.record(&AuditRecord { origin: &origin, device: None, key: None, outcome });
}
