//! The one place that prints. Results go to stdout, everything about how they came about to stderr, so that stdout is
//! nothing but JSON where JSON was asked for.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use cvm_provisioning::is_printable;
use serde::Serialize;
use serde_json::json;

use crate::error::{CommandError, with_causes};

/// How results are written: for people or for programs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

/// Where results and errors go.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    colours: bool,
    error_colours: bool,
    is_terminal: bool,
}

impl Output {
    /// Output in this format; in colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(crate) fn new(format: Format) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let wanted = !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        Self {
            format,
            colours: wanted && io::stdout().is_terminal(),
            error_colours: wanted && io::stderr().is_terminal(),
            is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Whether results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// The longest line of a table, in characters: that of the terminal, and at least 80. `None` where the output is read
    /// by a program.
    pub(crate) fn width(&self) -> Option<usize> {
        let terminal = self.is_terminal.then(|| terminal_size::terminal_size_of(io::stdout()));
        terminal.map(|size| size.map_or(80, |(terminal_size::Width(width), _)| usize::from(width).max(80)))
    }

    /// Something was done. Text only.
    pub(crate) fn done(&self, text: impl Display) -> io::Result<()> {
        self.say(format_args!("{} {text}", Paint { code: GREEN, text: "✔", on: self.colours }))
    }

    /// Something was not done. Text only.
    pub(crate) fn failed(&self, text: impl Display) -> io::Result<()> {
        let text = printable(&text.to_string());
        self.say(format_args!("{} {text}", Paint { code: RED, text: "✘", on: self.colours }))
    }

    /// A line of a result. Text only.
    pub(crate) fn say(&self, text: impl Display) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(io::stdout().lock(), "{text}"),
            Format::Json => Ok(()),
        }
    }

    /// A headline of a result. Text only.
    pub(crate) fn headline(&self, text: &str) -> io::Result<()> {
        self.say(Paint { code: BOLD, text, on: self.colours })
    }

    /// A result as one object. JSON only.
    pub(crate) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Text => Ok(()),
            Format::Json => writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(value)?),
        }
    }

    /// One of many results, as one line. JSON only.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> io::Result<()> {
        match self.format {
            Format::Text => Ok(()),
            Format::Json => writeln!(io::stdout().lock(), "{}", serde_json::to_string(value)?),
        }
    }

    /// Draws a line on a terminal's stderr over the one that was drawn there before, and returns whether there is such
    /// a terminal and text for people to be on it. An empty text wipes the line away.
    pub(crate) fn redraw(&self, text: impl Display) -> io::Result<bool> {
        if self.format == Format::Json || !io::stderr().is_terminal() {
            return Ok(false);
        }
        let mut stderr = io::stderr().lock();
        // To the beginning of the line, and erase to its end (ECMA-48 EL).
        write!(stderr, "\r\x1b[K{text}")?;
        stderr.flush()?;
        Ok(true)
    }

    /// Something that the reader had better know, on stderr.
    pub(crate) fn note(&self, text: impl Display) -> io::Result<()> {
        match self.format {
            Format::Text => {
                let sign = Paint { code: YELLOW, text: "!", on: self.error_colours };
                writeln!(io::stderr().lock(), "{sign} {text}")
            }
            Format::Json => writeln!(io::stderr().lock(), "{}", json!({ "note": text.to_string() })),
        }
    }

    /// Why the command failed and what to do next, on stderr.
    pub(crate) fn failure(&self, error: &CommandError) {
        self.problem(error.code(), &with_causes(error), &error.advice());
    }

    /// The same, of an error that is not ours.
    pub(crate) fn problem(&self, code: &str, message: &str, advice: &str) {
        let (message, advice) = (printable(message), printable(advice));
        let text = match self.format {
            Format::Text => {
                let error = Paint { code: RED, text: "error:", on: self.error_colours };
                let next = Paint { code: BOLD, text: "next:", on: self.error_colours };
                format!("{error} {message}\n{next}  {advice}")
            }
            Format::Json => json!({ "error": { "code": code, "message": message, "advice": advice } }).to_string(),
        };
        // Nobody is left to be told that stderr is closed; the exit code still says it.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

const BOLD: u8 = 1;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

/// Text in a colour (ECMA-48 SGR), or as it is.
struct Paint<'a> {
    code: u8,
    text: &'a str,
    on: bool,
}

impl Display for Paint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, text, on } = self;
        if *on { write!(f, "\x1b[{code}m{text}\x1b[0m") } else { f.write_str(text) }
    }
}

/// Text from elsewhere, without anything that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if is_printable(character) || character == '\n' { character } else { '\u{fffd}' })
        .collect()
}

/// A number with its noun, which is given in the singular: `1 device`, `2 entries`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// A word that a shell takes as it is, quoted where it has to be.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_commands_the_terminal() {
        assert_eq!(printable("a\x1b]0;owned\x07\nb\u{9b}c"), "a\u{fffd}]0;owned\u{fffd}\nb\u{fffd}c");
    }

    #[test]
    fn a_count_agrees_with_its_noun() {
        assert_eq!([0, 1, 2].map(|number| count(number, "device")), ["0 devices", "1 device", "2 devices"]);
        assert_eq!([1, 2].map(|number| count(number, "entry")), ["1 entry", "2 entries"]);
    }

    /// Counts are written by [`count`]: in the source of this crate, no number stands right before a plural.
    #[test]
    fn no_text_has_a_number_before_a_plural() {
        let plural = |rest: &str| {
            let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
            ["devices", "lines", "times", "entries", "certificates", "requests", "reservations", "attempts"]
                .contains(&word.as_str())
        };
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = std::fs::read_to_string(&path).unwrap();
                for (number, line) in source.lines().enumerate() {
                    let found = line.match_indices("} ").any(|(at, _)| plural(&line[at + 2..]));
                    assert!(!found, "{}:{}: {line}", path.display(), number + 1);
                }
            }
        }
    }

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_is() {
        assert_eq!(shell_word("./sn-0001/private.key"), "./sn-0001/private.key");
        assert_eq!(shell_word("my $(device)'s"), r"'my $(device)'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
