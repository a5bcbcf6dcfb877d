use std::error::Error;

use cvm_log::JsonLines;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Logs one JSON object a line, at the levels that `RUST_LOG` names: `info`, or `info,cvm_aws=debug`.
pub fn start_log() {
    let levels: Option<Targets> = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().event_format(JsonLines);
    tracing_subscriber::registry().with(lines).with(levels).init();
}

/// What a function needs in order to start, or the reason, logged, why it does not.
///
/// # Errors
///
/// Those of `needed`.
pub fn configured<T, E: Error + 'static>(needed: Result<T, E>) -> Result<T, E> {
    needed.inspect_err(|error| {
        let error: &dyn Error = error;
        tracing::error!(error, "the function is not configured");
    })
}
