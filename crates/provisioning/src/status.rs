use crate::{ReasonText, Timestamp};

/// Whether an operator lets a device, or a claim, in at all; why, and since when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// Whether.
    pub enabled: bool,
    /// What the operator gave as the reason.
    pub reason: Option<ReasonText>,
    /// When an operator last said so.
    pub since: Timestamp,
}

impl Status {
    /// Let in, as everything is that has just been registered.
    pub const fn enabled(since: Timestamp) -> Self {
        Self { enabled: true, reason: None, since }
    }

    /// Kept out.
    pub const fn disabled(reason: Option<ReasonText>, since: Timestamp) -> Self {
        Self { enabled: false, reason, since }
    }

    /// The word for it, as it is stored and shown.
    pub const fn name(&self) -> &'static str {
        if self.enabled { "enabled" } else { "disabled" }
    }
}
