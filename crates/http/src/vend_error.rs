//! What a device that gets nothing is told, by whichever door it came.

use std::time::Duration;

use cvm_provisioning::{
    AttemptId, ParametersError, PlatformError, RegistryError, TemplateError, TemplateProblem, Timestamp, VendError,
};

use crate::Problem;
use crate::door::spread;

/// The longest that a device is told to wait for another attempt of its own. Most end within a second, and asking is
/// cheap.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Problem {
    /// The table of what a caller is told; what an operator is told is in the audit record and the log.
    pub(crate) fn of_vend(error: &VendError, attempt: AttemptId, now: Timestamp) -> Self {
        match error {
            VendError::InProgress { until } => {
                Self::in_progress("ask again when it is over").retry_after(now.until(*until).min(LONGEST_WAIT))
            }
            VendError::KeyRefused => {
                Self::key_refused("make a new key and ask again; if the operator registered this key, ask the operator")
            }
            VendError::Parameters(ParametersError::NotSettable) => {
                Self::parameter_not_settable("leave it out, or have it allowed in the registry")
            }
            VendError::Parameters(
                error @ ParametersError::Template(TemplateError::At { problem: TemplateProblem::Name(_), .. }),
            ) => {
                log(error);
                Self::parameters_invalid(
                    "the device id or a parameter becomes a name that cannot be: the name of a thing has no dot",
                )
            }
            VendError::Parameters(error) => {
                log(error);
                Self::parameters_invalid("leave the parameters out; if you sent none, the operator has to correct them")
            }
            VendError::Refused => Self::refused("the operator's audit record of this request says why"),
            VendError::Platform(PlatformError::Throttled { .. })
            | VendError::Registry(RegistryError::Throttled { .. }) => {
                log(error);
                Self::throttled("ask again after the time in Retry-After").retry_after(spread(attempt))
            }
            VendError::Platform(PlatformError::Unavailable { .. })
            | VendError::Registry(RegistryError::Unavailable { .. }) => {
                log(error);
                Self::unavailable("ask again after the time in Retry-After").retry_after(spread(attempt))
            }
            error => {
                log(error);
                Self::internal("ask again, and report it with the x-request-id if it stays")
            }
        }
    }
}

/// Logs a failure once, with what caused it. The SDK's errors hold codes and messages of the service, and no request.
fn log(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "a vend could not be finished");
}
