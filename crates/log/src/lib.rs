//! Log events as lines of JSON.
//!
//! The JSON format of `tracing-subscriber` drops the sources of an error, which are what an operator needs: that the disk is
//! full, and not only that the registry did not answer.

use std::error::Error;
use std::fmt;
use std::iter::successors;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The longest chain of sources that is written.
const MAX_SOURCES: usize = 16;

/// One JSON object per line: `timestamp`, `level`, the fields of the event, `target`. For a field `error` that is an error,
/// `error.sources` has its sources, the nearest one first.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        write!(writer, "{{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "\",\"level\":\"{}\"", metadata.level())?;
        let mut members = Members { writer, result: Ok(()) };
        event.record(&mut members);
        members.add("target", metadata.target());
        members.result?;
        writeln!(members.writer, "}}")
    }
}

/// The members of an object after its first one.
struct Members<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Members<'_> {
    fn add(&mut self, name: &str, value: impl Into<Value>) {
        if self.result.is_ok() {
            self.result = write!(self.writer, ",{}:{}", Value::from(name), value.into());
        }
    }
}

impl Visit for Members<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field.name(), value.to_string());
        let sources = successors(value.source(), |&source| source.source()).take(MAX_SOURCES);
        let sources: Vec<Value> = sources.map(|source| source.to_string().into()).collect();
        if !sources.is_empty() {
            self.add(&format!("{}.sources", field.name()), sources);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Failed(io::Error);

    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the registry did not answer")
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_line_has_the_sources_of_an_error() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let failed = Failed(io::Error::other("disk \"full\""));
            let error: &dyn Error = &failed;
            tracing::error!(error, device = %"sn-1\n", tries = 3, "not written");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let timestamp = line.as_object_mut().unwrap().remove("timestamp");
        assert!(timestamp.is_some_and(|timestamp| timestamp.as_str().is_some_and(|text| text.ends_with('Z'))));
        let expected = serde_json::json!({
            "level": "ERROR",
            "message": "not written",
            "error": "the registry did not answer",
            "error.sources": ["disk \"full\""],
            "device": "sn-1\n",
            "tries": 3,
            "target": "cvm_log::tests",
        });
        assert_eq!(line, expected);
    }
}
