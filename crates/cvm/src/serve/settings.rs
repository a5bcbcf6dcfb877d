//! The options of the command line, their variables, and a file, put together: in this order they count.
//!
//! The file knows the options and nothing else: what one of its keys may hold is what the option of that name takes, and
//! so there is one place that says so.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use serde::Serialize;
use toml::{Table, Value};

use super::arguments::ServeArguments;
use crate::cli;
use crate::database::without_password;
use crate::file::{self, FileError};
use crate::output::{Output, printable};

/// The longest file, in bytes.
const MAX_FILE: usize = 256 * 1024;
/// Options that are about the file, or about one run alone.
const NO_KEYS: [&str; 3] = ["accept_lost_registry", "check", "config"];

/// What counts, and why.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) arguments: ServeArguments,
    pub(super) table: BTreeMap<String, Setting>,
}

/// The value of one option.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(super) struct Setting {
    pub(super) value: Option<String>,
    pub(super) from: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Origin {
    Default,
    Environment,
    File,
    Option,
}

/// Something that is wrong with an option.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wrong {
    /// Its name without the dashes.
    pub(super) key: String,
    /// What is wrong, and what to do.
    pub(super) text: String,
}

impl Settings {
    /// Puts them together.
    pub(super) fn read(arguments: &ServeArguments) -> Result<Self, SettingsError> {
        let given = cli::serve_matches(Vec::new()).map_err(SettingsError::Parse)?;
        let table = arguments.config.as_deref().map(table).transpose()?.unwrap_or_default();
        let words = words(&table, arguments.config.as_deref().unwrap_or_else(|| Path::new("")))?;
        Self::of(&given, &words, cli::serve_matches)
    }

    fn of(
        given: &ArgMatches,
        words: &BTreeMap<String, Vec<String>>,
        parse: impl FnOnce(Vec<OsString>) -> Result<ArgMatches, clap::Error>,
    ) -> Result<Self, SettingsError> {
        let is_given =
            |id: &str| matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        let options = options();
        let keys = || options.get_arguments().filter_map(|option| Some((option.get_long()?, option.get_id().as_str())));
        let from_file: Vec<&str> =
            keys().filter(|(key, id)| words.contains_key(*key) && !is_given(id)).map(|(key, _)| key).collect();
        let more = from_file.iter().flat_map(|key| &words[*key]).map(OsString::from).collect();
        let matches = parse(more).map_err(SettingsError::Parse)?;
        let arguments = ServeArguments::from_arg_matches(&matches).map_err(SettingsError::Parse)?;
        let table = keys().map(|(key, id)| {
            let values =
                matches.get_raw(id).map(|values| values.map(|value| value.to_string_lossy()).collect::<Vec<_>>());
            let from = match given.value_source(id) {
                Some(ValueSource::CommandLine) => Origin::Option,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                _ if from_file.contains(&key) => Origin::File,
                _ => Origin::Default,
            };
            let value = values.map(|values| values.join(","));
            // The one value that can have a secret in it.
            let value = if key == "database" { value.map(|value| without_password(&value)) } else { value };
            (key.to_owned(), Setting { value, from })
        });
        Ok(Self { table: table.collect(), arguments })
    }

    /// Says what counts, and why.
    pub(super) fn show(&self, output: &Output) -> io::Result<()> {
        output.json(&serde_json::json!({ "ok": true, "settings": self.table }))?;
        output.done("the server can be started with this")?;
        for (key, Setting { value, from }) in &self.table {
            let value = value.as_deref().unwrap_or("-");
            output.say(format_args!("  {key:28}{} ({})", printable(value), from.name()))?;
        }
        Ok(())
    }
}

impl Origin {
    const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Option => "option",
        }
    }
}

/// The options that can stand in a file.
fn options() -> Command {
    let all = ServeArguments::augment_args(Command::new("serve"));
    let mut options = Command::new("serve").disable_help_flag(true).no_binary_name(true);
    for option in all.get_arguments().filter(|option| !NO_KEYS.contains(&option.get_id().as_str())) {
        options = options.arg(option.clone().env(Resettable::Reset));
    }
    options
}

fn table(path: &Path) -> Result<Table, SettingsError> {
    let text = file::read_text(path, MAX_FILE)?;
    text.parse().map_err(|error: toml::de::Error| {
        // The line itself is not shown: it may have a password in it.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        SettingsError::Toml { path: path.to_owned(), line, message: error.message().to_owned() }
    })
}

/// The words of a command line that say what a file says, by key. Everything that is wrong with it is told at once.
fn words(table: &Table, path: &Path) -> Result<BTreeMap<String, Vec<String>>, SettingsError> {
    let (mut words, mut wrong) = (BTreeMap::new(), Vec::new());
    let options = options();
    for (key, value) in table {
        let said = match value {
            Value::Array(values) => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        let Some(said) = said else {
            let text = "a value is a text, a number or a list of texts".to_owned();
            wrong.push(Wrong { key: key.clone(), text });
            continue;
        };
        let said: Vec<String> = said.into_iter().map(|value| format!("--{key}={value}")).collect();
        match options.clone().try_get_matches_from(&said) {
            Ok(_) => drop(words.insert(key.clone(), said)),
            Err(error) => wrong.push(Wrong { key: key.clone(), text: told(&error) }),
        }
    }
    match wrong.is_empty() {
        true => Ok(words),
        false => Err(SettingsError::Wrong { path: Some(path.to_owned()), wrong }),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What the parser of options says, in the words of a file.
fn told(error: &clap::Error) -> String {
    let near = |kind| error.get(kind).map(ToString::to_string);
    match (error.kind(), near(ContextKind::SuggestedArg), error.source()) {
        (ErrorKind::UnknownArgument, Some(near), _) => {
            format!("there is no such key; is it `{}` that you mean?", near.trim_start_matches('-'))
        }
        (ErrorKind::UnknownArgument, None, _) => "there is no such key; `cvm serve --help` has them all".to_owned(),
        (_, _, Some(cause)) => cause.to_string(),
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

/// Why the server is not told what it needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SettingsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}", .0.to_string().trim_start_matches("error: ").trim_end())]
    Parse(clap::Error),
    #[error("{path} is no TOML, by its line {line}: {message}", path = path.display())]
    Toml { path: PathBuf, line: usize, message: String },
    #[error("{}", list(path.as_deref(), wrong))]
    Wrong { path: Option<PathBuf>, wrong: Vec<Wrong> },
}

fn list(path: Option<&Path>, wrong: &[Wrong]) -> String {
    let place = path.map_or_else(|| "what the server is told".to_owned(), |path| path.display().to_string());
    let lines: Vec<_> = wrong.iter().map(|Wrong { key, text }| format!("\n  {key}: {text}")).collect();
    format!("{place} cannot be gone by:{}", lines.concat())
}

impl SettingsError {
    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::File(error) => error.advice(),
            _ => "correct it, and look with `cvm serve --check`".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../../docs/serve.toml");

    fn command() -> Command {
        ServeArguments::augment_args(Command::new("serve"))
    }

    pub(in super::super) fn settings(flags: &[&str], file: &str) -> Result<Settings, SettingsError> {
        let matches = |more: Vec<OsString>| {
            let words = std::iter::once("serve").chain(flags.iter().copied()).map(OsString::from);
            command().mut_args(|option| option.env(Resettable::Reset)).try_get_matches_from(words.chain(more))
        };
        let words = words(&file.parse().unwrap(), Path::new("serve.toml"))?;
        Settings::of(&matches(Vec::new()).unwrap(), &words, matches)
    }

    fn wrong(file: &str) -> Vec<(String, String)> {
        match settings(&[], file) {
            Err(SettingsError::Wrong { wrong, .. }) => {
                wrong.into_iter().map(|Wrong { key, text }| (key, text)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_counts_more_than_the_file_and_that_more_than_nothing() {
        let file = "listen = \"127.0.0.1:1\"\nname = [\"a.example\", \"b.example\"]\nmax-connections = 7";
        let Settings { arguments, table } = settings(&["--listen", "127.0.0.1:2"], file).unwrap();
        assert_eq!(arguments.listen.port(), 2);
        assert_eq!(arguments.names, ["a.example", "b.example"]);
        assert_eq!(arguments.max_connections, 7);
        let from = |key: &str| table[key].from;
        assert_eq!((from("listen"), from("name"), from("data")), (Origin::Option, Origin::File, Origin::Default));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_the_nearest_key_is_named() {
        let found = wrong("lisen = \"127.0.0.1:1\"\nvalidity = \"1y\"\nbroker = { host = \"a\" }\ncheck = \"true\"");
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["broker", "check", "lisen", "validity"]);
        assert!(found[2].1.contains("`listen`"), "{found:?}");
        assert!(found[3].1.contains("such as 7d"), "{found:?}");
    }

    #[test]
    fn the_sample_has_every_key_and_its_default() {
        let (mut active, mut all) = (Table::new(), Table::new());
        for line in SAMPLE.lines() {
            let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            match line.strip_prefix("# ").unwrap_or(line) {
                pair if is_key(pair) => {
                    let pair: Table = pair.parse().unwrap();
                    if !line.starts_with('#') {
                        active.extend(pair.clone());
                    }
                    all.extend(pair);
                }
                _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
            }
        }
        for (_, said) in words(&all, Path::new("")).unwrap() {
            assert!(!said.is_empty());
        }
        for option in options().get_arguments() {
            let key = option.get_long().unwrap();
            assert!(all.contains_key(key), "the sample has no {key}");
            let defaults: Vec<_> = option.get_default_values().iter().flat_map(|value| value.to_str()).collect();
            let said = active.get(key).map(|value| match value {
                Value::Array(values) => values.iter().filter_map(text).collect::<Vec<_>>().join(","),
                value => text(value).unwrap(),
            });
            assert_eq!(said.unwrap_or_default(), defaults.join(","), "{key}");
        }
    }
}
