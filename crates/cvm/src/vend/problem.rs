use cvm_provisioning::DeviceId;
use serde::Deserialize;

/// What the API said instead of handing something out (RFC 9457).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    /// The status of the answer.
    pub(super) status: u16,
    /// The stable word for it, where the vending API itself answered.
    pub(super) code: Option<String>,
    /// What happened, in its words.
    pub(super) words: String,
    /// What its log knows this request by.
    pub(super) request_id: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    code: String,
    title: String,
    #[serde(default)]
    detail: String,
}

impl Problem {
    /// The longest text that is taken from a header, in bytes.
    const MAX_HEADER: usize = 128;

    pub(super) fn new(status: u16, request_id: Option<&str>, body: &[u8]) -> Self {
        let request_id = request_id.filter(|id| id.len() <= Self::MAX_HEADER).map(str::to_owned);
        match serde_json::from_slice(body) {
            Ok(Body { code, title, detail }) => {
                let words = if detail.is_empty() { title } else { format!("{title}: {detail}") };
                Self { status, code: Some(code), words, request_id }
            }
            Err(_) => Self { status, code: None, words: "this is not a vending API's answer".to_owned(), request_id },
        }
    }

    /// Whether the same request can have another answer later: RFC 9110 sections 15.5.10 and 15.6.4, RFC 6585 section 4.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.status, 409 | 429 | 503)
    }

    /// What to do next.
    pub(super) fn advice(&self, device: &DeviceId) -> String {
        match self.code.as_deref() {
            Some("refused") => format!("`cvm device show {device}` tells an operator why"),
            Some("in-progress" | "rate-limited" | "throttled" | "unavailable") => {
                "run the same command again in a minute: it goes on with the same key".to_owned()
            }
            Some("internal") => "run the same command again; if it stays, report it with the request id".to_owned(),
            Some("key-refused") => "move the key away, run the same command again and it makes a new one".to_owned(),
            Some("parameter-not-settable") => {
                format!("leave --parameter out, or register the device with `cvm device add {device} --settable NAME`")
            }
            Some("parameters-invalid") => {
                format!("compare the parameters of `cvm device show {device}` with the provisioning template")
            }
            Some("authorization-invalid") => "check the file with the token".to_owned(),
            Some("not-found" | "method-not-allowed") => "check --url: it is the stack's output ApiUrl".to_owned(),
            Some(_) => "see whether cvm and the service are of one version".to_owned(),
            None if self.is_passing() => {
                "run the same command again in a minute: it goes on with the same key".to_owned()
            }
            None => "check --url: it is the stack's output ApiUrl".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_api_has_advice_that_fits_it() {
        let id = "sn-0001".parse().unwrap();
        for (code, status) in cvm_http::Problem::CODES {
            let body = format!(
                r#"{{"type":"urn:cvm:problem:{code}","title":"T","status":{status},"code":"{code}"}}"#,
                status = status.as_u16()
            );
            let problem = Problem::new(status.as_u16(), None, body.as_bytes());
            assert_eq!(problem.code.as_deref(), Some(*code));
            let again = problem.advice(&id).starts_with("run the same command again");
            let is_passing = matches!(status.as_u16(), 409 | 500..) || *code == "rate-limited";
            assert_eq!(again, is_passing, "{code}");
        }
    }

    #[test]
    fn what_is_not_a_problem_is_not_repeated() {
        let problem = Problem::new(404, Some(&"x".repeat(129)), b"<html>\x1b[2J");
        assert_eq!((problem.code, problem.request_id), (None, None));
        assert!(!problem.words.contains("html"));
    }
}
