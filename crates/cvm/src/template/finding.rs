use std::io;

use cvm_provisioning::{PolicyFinding, Severity, TemplateError};
use serde::{Serialize, Serializer};

use crate::output::{Output, printable};

/// Something in a file that its author should look at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// The place, as a JSON pointer (RFC 6901); empty for the whole file.
    pub(super) path: String,
    #[serde(serialize_with = "severity_name")]
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) advice: String,
}

impl Finding {
    /// What is wrong with a policy document, which stands at this place of its file.
    pub(super) fn in_policy(place: &str, PolicyFinding { path, problem }: &PolicyFinding) -> Self {
        Self {
            path: format!("{place}{path}"),
            severity: problem.severity(),
            message: problem.to_string(),
            advice: problem.advice().to_owned(),
        }
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Writes it for people: the place and what is wrong there, and below what to do.
    pub(super) fn say(&self, output: &Output) -> io::Result<()> {
        let Self { path, severity, message, advice } = self;
        let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
        output.say(printable(&format!("{}: {place}{message}\n  next: {advice}", severity.name())))
    }
}

impl From<TemplateError> for Finding {
    fn from(error: TemplateError) -> Self {
        let (path, message) = match error {
            TemplateError::At { path, problem } => (path, problem.to_string()),
            other => (String::new(), other.to_string()),
        };
        let advice = "correct it and check again; the format is on the page \"Provisioning templates\" of the AWS IoT \
                      Developer Guide";
        Self { path, severity: Severity::Error, message, advice: advice.to_owned() }
    }
}

fn severity_name<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(severity.name())
}
