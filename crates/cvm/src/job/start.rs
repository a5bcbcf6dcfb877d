//! What a new job is asked for.

use clap::Args;
use clap::builder::PossibleValuesParser;
use cvm_bulk::ExportFormat;
use cvm_provisioning::{GroupName, TemplateName};
use serde_json::{Map, Value, json};

use crate::device::FilterArguments;

/// Start an import of a file in the server's job folder
///
/// The file and the options are those of `cvm device import`. Tokens and failed lines are written into a folder named after
/// the job, as they come.
#[derive(Args, Debug)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArguments {
    /// The file, as FILE or FOLDER/FILE in the job folder
    file: String,
    /// Write into this folder of the job folder, each job into one of its own
    #[arg(long, value_name = "FOLDER")]
    out: Option<String>,
    /// How the file is written; found out where it is not given
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// What is done with devices that are there or not, unless their line says so
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// The group of devices whose line names none
    #[arg(long, value_name = "NAME")]
    group: Option<GroupName>,
    /// The provisioning template of devices whose line names none
    #[arg(long, value_name = "NAME")]
    template: Option<TemplateName>,
    /// What new devices prove themselves with whose line says nothing
    #[arg(long, value_name = "PROOF")]
    proof: Option<String>,
    /// Take this column for that one, such as device=SN; repeatable
    #[arg(long = "column", value_name = "NAME=COLUMN")]
    columns: Vec<String>,
    /// Ignore unknown columns
    #[arg(long)]
    ignore_unknown_columns: bool,
    /// Put devices back as an export wrote them
    #[arg(long, conflicts_with_all = ["mode", "group", "template"])]
    restore: bool,
    /// Check every line, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until the job has ended; the exit code is 1 if it or a line failed
    #[arg(long)]
    pub(super) wait: bool,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  cvm job import serials.csv
  cvm job import monday/serials.csv --group berlin --wait
  cvm job import serials.csv --dry-run --wait --output json";

/// Start an export into a file in the server's job folder
#[derive(Args, Debug)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArguments {
    /// The file, as FILE or FOLDER/FILE in the job folder; devices.txt in a folder named after the job if not given
    #[arg(long, value_name = "FILE")]
    out: Option<String>,
    /// How devices are written
    #[arg(long, value_parser = PossibleValuesParser::new(ExportFormat::ALL.map(ExportFormat::name)))]
    format: Option<String>,
    /// Leave out the digests of tokens
    #[arg(long)]
    exclude_digests: bool,
    /// Wait until the job has ended; the exit code is 1 if it failed
    #[arg(long)]
    pub(super) wait: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  cvm job export --wait
  cvm job export --group berlin --format csv --out berlin.csv";

impl ImportArguments {
    /// The body of the request.
    pub(super) fn request(&self) -> Value {
        let (folder, name) = folder_and_name(&self.file);
        let mut cvm = Map::new();
        let texts = [
            ("format", self.format.clone()),
            ("mode", self.mode.clone()),
            ("group", self.group.as_ref().map(ToString::to_string)),
            ("template", self.template.as_ref().map(ToString::to_string)),
            ("proof", self.proof.clone()),
        ];
        cvm.extend(texts.into_iter().filter_map(|(name, text)| text.map(|text| (name.to_owned(), json!(text)))));
        if !self.columns.is_empty() {
            cvm.insert("columns".to_owned(), json!(self.columns));
        }
        let flags = [
            ("ignoreUnknownColumns", self.ignore_unknown_columns),
            ("restore", self.restore),
            ("dryRun", self.dry_run),
        ];
        cvm.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name.to_owned(), json!(true))));
        given(json!({
            "type": "import", "inputBlobContainerUri": folder, "inputBlobName": name,
            "outputBlobContainerUri": self.out, "cvm": cvm,
        }))
    }
}

impl ExportArguments {
    /// The body of the request.
    pub(super) fn request(&self) -> Value {
        let (folder, name) = self.out.as_deref().map(folder_and_name).unwrap_or_default();
        let mut cvm = self.filter.to_json();
        if let Some(format) = &self.format {
            cvm["format"] = json!(format);
        }
        // A file that is named without a folder is in the job folder itself.
        let folder = folder.or_else(|| self.out.is_some().then_some("."));
        given(json!({
            "type": "export", "outputBlobContainerUri": folder, "outputBlobName": Some(name).filter(|name| !name.is_empty()),
            "excludeKeysInExport": self.exclude_digests, "cvm": cvm,
        }))
    }
}

/// The folder of a file in the job folder, and its name there.
fn folder_and_name(path: &str) -> (Option<&str>, &str) {
    path.rsplit_once('/').map_or((None, path), |(folder, name)| (Some(folder), name))
}

/// The request without what was not given.
fn given(mut request: Value) -> Value {
    if let Value::Object(fields) = &mut request {
        fields.retain(|_, value| !value.is_null());
    }
    request
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    enum Cli {
        Import(ImportArguments),
        Export(ExportArguments),
    }

    fn request(line: &str) -> Value {
        match Cli::parse_from(std::iter::once("job").chain(line.split_whitespace())) {
            Cli::Import(arguments) => arguments.request(),
            Cli::Export(arguments) => arguments.request(),
        }
    }

    #[test]
    fn a_job_is_asked_for_as_the_api_has_it() {
        assert_eq!(
            request("import monday/serials.csv --group berlin --column device=SN --dry-run"),
            json!({
                "type": "import", "inputBlobContainerUri": "monday", "inputBlobName": "serials.csv",
                "cvm": { "group": "berlin", "columns": ["device=SN"], "dryRun": true },
            })
        );
        assert_eq!(
            request("export --out berlin.csv --format csv --state revoked --prefix sn-"),
            json!({
                "type": "export", "outputBlobContainerUri": ".", "outputBlobName": "berlin.csv",
                "excludeKeysInExport": false, "cvm": { "format": "csv", "state": "revoked", "prefix": "sn-" },
            })
        );
        assert_eq!(request("export"), json!({ "type": "export", "excludeKeysInExport": false, "cvm": {} }));
    }
}
