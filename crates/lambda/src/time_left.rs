//! How long an invocation may still run.

use std::time::{Duration, SystemTime};

use lambda_runtime::Context;

/// The time until an invocation is ended from outside.
#[derive(Clone, Copy, Debug)]
pub struct TimeLeft {
    deadline: Option<SystemTime>,
}

impl TimeLeft {
    /// The time of the invocation with this context.
    pub fn of(context: &Context) -> Self {
        // A deadline that was over before the invocation began is none: `cargo lambda watch` counts it from 1970.
        Self { deadline: Some(context.deadline()).filter(|deadline| *deadline > SystemTime::now()) }
    }

    /// Whether it may run for longer than this.
    pub fn is_more_than(&self, duration: Duration) -> bool {
        let left = |deadline: SystemTime| deadline.duration_since(SystemTime::now()).unwrap_or_default();
        self.deadline.is_none_or(|deadline| left(deadline) > duration)
    }
}
