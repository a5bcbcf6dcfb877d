//! The command line: what is parsed, what runs, and what the process says when it ends.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::audit::{self, AuditArguments};
use crate::backup::{self, BackupArguments};
use crate::broker::{self, BrokerArguments};
use crate::ca::{self, CaArguments};
use crate::claim::{self, ClaimArguments};
use crate::device::{self, DeviceArguments};
use crate::error::CommandError;
use crate::job::{self, JobArguments};
use crate::operator_token::{self, TokenArguments};
use crate::output::{Format, Output};
use crate::serve::{self, ServeArguments};
use crate::status::{self, StatusArguments};
use crate::template::{self, TemplateArguments};
use crate::vend::{self, VendArguments};

/// Provision devices: operate the device registry, serve it on a machine of one's own, and play a device.
#[derive(Debug, Parser)]
#[command(name = "cvm", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// How to write results; with `json`, errors and notes too, as one object a line on stderr
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Common options")]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Audit(AuditArguments),
    Backup(BackupArguments),
    Broker(BrokerArguments),
    Ca(CaArguments),
    Claim(ClaimArguments),
    Device(DeviceArguments),
    Job(JobArguments),
    Serve(Box<ServeArguments>),
    Status(StatusArguments),
    Template(TemplateArguments),
    Token(TokenArguments),
    Vend(VendArguments),
}

const EXAMPLES: &str = "\
Examples:
  export CVM_TABLE=cvm-devices
  cvm device add sn-0001 --token-out sn-0001.token
  cvm vend --url https://api.example.com --device sn-0001 \\
      --token-file sn-0001.token
  cvm device show sn-0001

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.";

/// Runs the command that the process was started as.
pub(crate) fn run() -> ExitCode {
    let cli = match parse(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.output);
    match execute(cli.verb, &output) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as `head` does.
        Err(CommandError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Options that name different registries, by command; those of one registry are in one group.
const REGISTRIES: [(&str, &[&[&str]]); 3] = [
    ("audit", &[&["audit_table"], &["data"], &["server"]]),
    ("device", &[&["table"], &["server"]]),
    ("status", &[&["table", "audit_table"], &["server"]]),
];

/// Parses the command line. An option that names a registry overrides the environment variables that name another one.
fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    if let Some((verb, overridden)) = overridden(&matches) {
        command = Cli::command().mut_subcommand(verb, |verb| {
            overridden.iter().fold(verb, |verb, name| verb.mut_arg(name, |argument| argument.env(Resettable::Reset)))
        });
        matches = command.try_get_matches_from_mut(arguments)?;
    }
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The command, and its options whose environment variables are overridden.
fn overridden(matches: &ArgMatches) -> Option<(&'static str, Vec<&'static str>)> {
    let (verb, matches) = matches.subcommand()?;
    let (verb, registries) = REGISTRIES.into_iter().find(|(name, _)| *name == verb)?;
    let given =
        |options: &[&str]| options.iter().any(|option| matches.value_source(option) == Some(ValueSource::CommandLine));
    let overridden: Vec<_> = match registries.iter().any(|options| given(options)) {
        true => registries.iter().filter(|options| !given(options)).copied().flatten().copied().collect(),
        false => Vec::new(),
    };
    (!overridden.is_empty()).then_some((verb, overridden))
}

/// What the command line of this process says to `cvm serve`, with more words at its end.
pub(crate) fn serve_matches(more: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    let mut matches = Cli::command().try_get_matches_from(std::env::args_os().chain(more))?;
    Ok(matches.remove_subcommand().map(|(_, matches)| matches).unwrap_or_default())
}

fn execute(verb: Verb, output: &Output) -> Result<(), CommandError> {
    match verb {
        Verb::Audit(arguments) => wait(audit::run(arguments, output)),
        Verb::Backup(arguments) => backup::run(&arguments, output),
        Verb::Broker(arguments) => wait(broker::run(arguments, output)),
        Verb::Ca(arguments) => wait(ca::run(arguments, output)),
        Verb::Claim(arguments) => wait(claim::run(arguments, output)),
        Verb::Device(arguments) => wait(device::run(arguments, output)),
        Verb::Job(arguments) => wait(job::run(arguments, output)),
        Verb::Serve(arguments) => serve::run(&arguments, output),
        Verb::Status(arguments) => wait(status::run(arguments, output)),
        Verb::Template(arguments) => template::run(&arguments, output),
        Verb::Token(arguments) => operator_token::run(&arguments, output),
        Verb::Vend(arguments) => wait(vend::run(arguments, output)),
    }
}

fn wait(work: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(work))
}

/// Says what is wrong with the command line, or what was asked about it (`--help`, `--version`).
fn usage(error: &clap::Error) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = arguments.iter().any(|argument| argument == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if error.use_stderr() && json {
        Output::new(Format::Json).problem("usage", &error.to_string(), "add --help to the command for examples");
    } else if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    /// The `cvm` commands among the examples of this command's help, with continued lines joined.
    fn examples(command: &Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", " ");
        help.lines().map(str::trim).filter(|line| line.starts_with("cvm ")).map(str::to_owned).collect()
    }

    /// The words of a shell line, as far as the examples go: single quotes, and an end at a comment or a pipe.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for character in line.chars() {
            match character {
                '\'' => quoted = !quoted,
                '#' | '|' | '>' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                other => words.last_mut().unwrap().push(other),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    fn commands(command: &Command, found: &mut Vec<Command>) {
        found.push(command.clone());
        for inner in command.get_subcommands() {
            commands(inner, found);
        }
    }

    #[test]
    fn every_command_has_examples_and_each_of_them_parses() {
        let mut all = Vec::new();
        commands(&Cli::command(), &mut all);
        assert!(all.len() >= 10, "{}", all.len());
        for command in all {
            let examples = examples(&command);
            assert!(!examples.is_empty(), "`{}` has no example", command.get_name());
            for example in examples {
                if let Err(error) = Cli::try_parse_from(words(&example)) {
                    panic!("{example}\n{error}");
                }
            }
        }
    }

    #[test]
    fn no_example_is_wider_than_a_terminal() {
        let mut all = Vec::new();
        commands(&Cli::command(), &mut all);
        for command in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.lines().all(|line| line.chars().count() < 80), "{help}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
