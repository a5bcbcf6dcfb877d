//! The log of the server: on stderr, so that stdout has results alone.

use std::io::{self, IsTerminal as _};

use cvm_log::JsonLines;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::Output;

/// Begins the log: lines of JSON where the output is, and text otherwise. `RUST_LOG` says how much of it, such as `warn`
/// or `cvm=debug`.
pub(super) fn start(output: &Output) {
    let levels: Option<Targets> = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let levels = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match output.is_json() {
        true => lines.event_format(JsonLines).boxed(),
        false => lines.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(levels).init();
}
