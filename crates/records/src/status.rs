//! Whether a device or a claim is let in.

use std::error::Error;

use cvm_provisioning::{ReasonText, Status, Timestamp};

/// The word for one that is.
pub const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// The status of a device or a claim.
pub(crate) fn status(
    word: &str,
    reason: Option<ReasonText>,
    since: Timestamp,
) -> Result<Status, Box<dyn Error + Send + Sync>> {
    match word {
        ENABLED => Ok(Status { reason, ..Status::enabled(since) }),
        DISABLED => Ok(Status::disabled(reason, since)),
        _ => Err("status is neither enabled nor disabled".into()),
    }
}
