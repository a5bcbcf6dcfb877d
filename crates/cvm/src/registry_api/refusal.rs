//! What the server says instead of doing what it is asked.

use cvm_provisioning::{DeviceId, NotProvisioned, NotQuarantined, NothingToRevoke, OperationError, State};
use reqwest::header::HeaderMap;
use serde::Deserialize;

/// An answer that is a refusal: of the registry, or of what stands in front of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    /// The status of the answer.
    pub(super) status: u16,
    /// The stable word for it, where the server itself answered.
    pub(super) code: Option<String>,
    /// Why, in its words.
    pub(super) words: String,
    /// What its log knows the request by.
    pub(super) request_id: Option<String>,
}

/// The two forms there are: that of the identity registry, and that of problems (RFC 9457).
#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Failure {
        #[serde(rename = "Message")]
        message: String,
    },
    Problem {
        code: String,
        title: String,
        #[serde(default)]
        detail: String,
    },
}

/// The longest text that is taken, in characters.
const MAX_TEXT: usize = 400;

impl Refusal {
    pub(super) fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let request_id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).map(short);
        let (code, words) = match serde_json::from_slice(body) {
            Ok(Body::Failure { message }) => match message.strip_prefix("ErrorCode:").and_then(|it| it.split_once(';'))
            {
                Some((code, words)) => (Some(code.to_owned()), words.to_owned()),
                None => (None, message),
            },
            Ok(Body::Problem { code, title, detail }) if detail.is_empty() => (Some(code), title),
            Ok(Body::Problem { code, title, detail }) => (Some(code), format!("{title}: {detail}")),
            Err(_) => (None, "this is not the answer of a registry".to_owned()),
        };
        Self { status, code: code.as_deref().map(short), words: short(&words), request_id }
    }

    /// Whether the same request can have another answer a little later: RFC 9110 sections 15.5.9 and 15.6.3 to 15.6.5, RFC
    /// 6585 section 4.
    pub(super) const fn is_for_now(&self) -> bool {
        matches!(self.status, 408 | 429 | 502..=504)
    }

    /// The same as a table would have it said, where there is such a thing.
    pub(super) fn as_operation_error(&self, change: Changing) -> Option<OperationError> {
        let state = || State::ALL.iter().map(State::name).find(|state| self.words.ends_with(state));
        match (self.code.as_deref()?, change) {
            ("DeviceNotFound", _) => Some(OperationError::NotFound),
            ("PreconditionFailed", _) => Some(OperationError::PreconditionFailed),
            ("GenericConflict", Changing::Approve) => Some(NotQuarantined { state: state()? }.into()),
            ("GenericConflict", Changing::Renew) => Some(NotProvisioned { state: state()? }.into()),
            ("GenericConflict", Changing::Revoke) => Some(NothingToRevoke { state: state()? }.into()),
            _ => None,
        }
    }

    /// What to do next.
    pub(super) fn advice(&self) -> String {
        match (self.status, self.code.as_deref()) {
            (401, _) => "give a token of this server that has not ended: `cvm token list` on its machine has those there \
                         are, and `cvm token create --name NAME --role operator` makes one"
                .to_owned(),
            (403, Some("not-allowed" | "GenericForbidden")) => {
                // The server names the role that it asks for.
                let role = if self.words.contains("admin") { "admin" } else { "operator" };
                format!("ask for a token with the role {role}: `cvm token create --name NAME --role {role}`")
            }
            (_, Some("belongs-to-device")) => {
                "revoke the device, as the message says; `cvm device disable` can be undone".to_owned()
            }
            (_, Some("JobQuotaExceeded")) => "wait for a job, or end one with `cvm job cancel JOB`".to_owned(),
            (_, Some("JobNotFound")) => "`cvm job list` lists the jobs".to_owned(),
            (_, Some("ArgumentInvalid" | "BlobContainerValidationError" | "body-invalid" | "MessageTooLarge")) => {
                "correct what the message names, then run this again".to_owned()
            }
            (404 | 405, None) | (_, Some("not-found" | "GenericNotFound" | "method-not-allowed")) => {
                "check --server: it is the address of `cvm serve`, as that says it when it begins; a server of an older \
                 version may not know this either"
                    .to_owned()
            }
            (409 | 412, _) => "look at the device with `cvm device show`, then run this again".to_owned(),
            (408 | 429 | 502..=504, _) => "run this again in a minute; what was done is not done twice".to_owned(),
            (500.., _) => {
                let id = self.request_id.as_deref().unwrap_or("of this request");
                format!("the server's log says why, beside the request id {id}")
            }
            _ => "see whether cvm and the server are of one version".to_owned(),
        }
    }
}

/// What is being done to a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Changing {
    Approve,
    Renew,
    Revoke,
    Other,
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// The word that a table has for what the registry's API calls by this name.
pub(super) fn word(code: &str) -> &'static str {
    match code {
        "ArgumentInvalid" => "settings",
        "DeviceAlreadyExists" => "exists",
        "DeviceNotFound" => "not-found",
        "GenericConflict" => "key-in-use",
        "ModuleAlreadyExistsOnDevice" => "module-exists",
        "ModuleNotFound" => "module-not-found",
        "PreconditionFailed" => "changed-since",
        "ServerError" => "registry",
        "TooManyModulesOnDevice" => "too-many-modules",
        _ => "refused",
    }
}

/// The segments of the address of a device, and of what is done with it.
pub(super) fn of_device<'a>(id: &'a DeviceId, verb: Option<&'a str>) -> Vec<&'a str> {
    ["devices", id.as_str()].into_iter().chain(verb).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::new(status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn what_the_registry_says_is_what_a_table_says() {
        let conflict = r#"{"Message":"ErrorCode:GenericConflict;the device is not in quarantine but registered"}"#;
        let conflict = refusal(409, conflict);
        let said = conflict.as_operation_error(Changing::Approve).unwrap();
        assert_eq!((said.code(), said.to_string()), ("not-quarantined", conflict.words.clone()));
        assert!(conflict.as_operation_error(Changing::Other).is_none());
        let gone = refusal(404, r#"{"Message":"ErrorCode:DeviceNotFound;the device is not in the registry"}"#);
        assert_eq!(gone.as_operation_error(Changing::Renew).unwrap().code(), "not-found");
    }

    #[test]
    fn each_refusal_says_what_to_do_next() {
        let viewer = r#"{"type":"urn:cvm:problem:not-allowed","code":"not-allowed","title":"T","detail":"D"}"#;
        assert_eq!(refusal(403, viewer).words, "T: D");
        for (status, body, next) in [
            (401, "", "cvm token create"),
            (403, viewer, "role operator"),
            (404, "<html>", "--server"),
            (412, "{}", "cvm device show"),
            (429, "{}", "in a minute"),
            (500, "{}", "log"),
            (418, "{}", "version"),
        ] {
            let advice = refusal(status, body).advice();
            assert!(advice.contains(next), "{status}: {advice}");
        }
    }

    #[test]
    fn what_is_no_refusal_of_a_registry_is_not_repeated_and_a_long_one_is_cut() {
        assert!(!refusal(502, "<html>\u{1b}[2J").words.contains("html"));
        let long = format!(r#"{{"Message":"ErrorCode:X;{}"}}"#, "é".repeat(9_999));
        assert_eq!(refusal(400, &long).words.chars().count(), MAX_TEXT);
    }
}
