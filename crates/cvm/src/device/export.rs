use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cvm_authority::temporary_file;
use cvm_bulk::ExportFormat;
use serde_json::json;

use super::DeviceError;
use super::filter::FilterArguments;
use super::registry::{DeviceRegistry, PAGE};
use crate::error::CommandError;
use crate::file::FileError;
use crate::output::{Output, count};
use crate::progress::{Progress, Standing};

/// Write devices out, for another registry, another tool or a spreadsheet
///
/// In JSON each device is one line, which `cvm device import` takes, and with `--restore` puts back as it was. No token
/// is in it, only digests, and no private key. A table is for people: it has no digests, parameters or modules.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// How devices are written: json, a line each, or csv, a table
    #[arg(long, value_parser = formats(), default_value = ExportFormat::Json.name())]
    format: ExportFormat,
    /// Write to this file, with mode 0600, in the place of what may be there, once all devices are written
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave out the digests of tokens: whoever reads the export has new tokens made
    #[arg(long)]
    exclude_digests: bool,
}

const EXAMPLES: &str = "\
Examples:
  cvm device export --out devices.jsonl
  cvm device export --group berlin --format csv > berlin.csv
  cvm device export --exclude-digests | gzip > devices.jsonl.gz";

pub(super) async fn run(
    arguments: &ExportArguments,
    registry: &impl DeviceRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let Some(path) = &arguments.out else {
        let mut stdout = std::io::BufWriter::new(std::io::stdout());
        write(arguments, registry, &mut stdout, output).await?;
        return Ok(stdout.flush()?);
    };
    let failed = |source| DeviceError::File(FileError::Write { path: path.clone(), source });
    let mut file = std::io::BufWriter::new(temporary_file(path).map_err(failed)?);
    let devices = write(arguments, registry, &mut file, output).await?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    output.json(&json!({ "file": path.display().to_string(), "devices": devices }))?;
    output.done(format_args!("wrote {} to {}", count(devices, "device"), path.display()))?;
    Ok(())
}

async fn write(
    arguments: &ExportArguments,
    registry: &impl DeviceRegistry,
    sink: &mut impl Write,
    output: &Output,
) -> Result<u64, CommandError> {
    let filter = arguments.filter.filter();
    let mut progress = Progress::start(output);
    let (mut done, mut after) = (0, None::<String>);
    sink.write_all(arguments.format.header().as_bytes())?;
    loop {
        let (format, digests) = (arguments.format, !arguments.exclude_digests);
        let page = registry.export(&filter, after.as_deref(), PAGE, format, digests).await?;
        sink.write_all(&page.text)?;
        done += page.devices;
        progress.tell(Standing { done, part: None })?;
        after = page.next;
        if after.is_none() {
            return Ok(done);
        }
    }
}

fn formats() -> impl TypedValueParser<Value = ExportFormat> {
    PossibleValuesParser::new(ExportFormat::ALL.map(ExportFormat::name)).try_map(|name| name.parse())
}
