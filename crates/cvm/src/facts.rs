//! Facts about one thing, one a line.

use std::fmt::Display;

use crate::output::printable;

/// Lines of a name and a value.
#[derive(Debug, Default)]
pub(crate) struct Facts(pub(crate) Vec<String>);

impl Facts {
    /// Adds a fact. A value from elsewhere cannot fake a line of its own.
    pub(crate) fn add(&mut self, name: &str, value: impl Display) {
        self.0.push(format!("{name:14}{}", printable(&value.to_string()).replace('\n', " ")));
    }
}
