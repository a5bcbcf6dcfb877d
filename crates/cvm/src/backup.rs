//! `cvm backup`: a copy of what a server of one's own has; and what its next start says that begins with one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use cvm_provisioning::Timestamp;
use cvm_sql::{OpenError, SqlRegistry};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::database;
use crate::error::CommandError;
use crate::file::{self, FileError};
use crate::output::{Output, shell_word};
use crate::own_ca::CaFolder;

/// What tells a backup from the folder of a server.
const MARK: &str = "backup.json";
/// What the mark is called once a server has begun with it.
const RESTORED: &str = "restored.json";
/// The longest mark, in bytes.
const MAX_MARK: usize = 4 * 1024;

/// Copy what a server of one's own has, while it runs
///
/// The copy is the registry as it is at one moment, the CA with its keys, and who may operate it: a folder that `cvm serve`
/// can begin with in place of the one that was lost. It is as secret as that one. Files of jobs are not in it, and of a
/// server on MySQL the registry is not: copy that with the database's own tools.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BackupArguments {
    /// The server's folder
    #[arg(long, env = "CVM_DATA", value_name = "DIR", default_value = "cvm-data")]
    data: PathBuf,
    /// The folder to be made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cvm backup --data /var/lib/cvm --out /backup/cvm-monday
  cvm audit verify --data /backup/cvm-monday";

/// When a backup was made, and by which version.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mark {
    pub(crate) made_at: String,
    /// Whether there is a registry in it.
    pub(crate) registry: bool,
    version: String,
}

pub(crate) fn run(arguments: &BackupArguments, output: &Output) -> Result<(), CommandError> {
    let BackupArguments { data, out } = arguments;
    let made_at = Timestamp::from(SystemTime::now()).to_string();
    let has_registry = copy(data, out, &made_at).map_err(CommandError::from)?;
    output.json(&json!({ "path": out, "madeAt": made_at, "registry": has_registry }))?;
    output
        .done(format_args!("{} has what the server had at {made_at}; keep it as secret as its keys", out.display()))?;
    if !has_registry {
        output.note("there is no registry in the folder: copy that of the database with the database's own tools")?;
    }
    Ok(())
}

/// Makes the copy, whole or not at all. Returns whether there is a registry in it.
fn copy(data: &Path, out: &Path, made_at: &str) -> Result<bool, BackupError> {
    let (ca, operators) = (CaFolder::of_data(data), data.join("operators"));
    if !operators.is_dir() {
        return Err(BackupError::NoServer { path: data.to_owned() });
    }
    if out.exists() {
        return Err(FileError::Exists { path: out.to_owned() }.into());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| FileError::Write { path, source }
    };
    let parent = file::folder_of(out);
    if is_inside(parent, data) {
        return Err(BackupError::Inside { path: out.to_owned(), data: data.to_owned() });
    }
    file::private_folder(parent)?;
    // Only what is whole gets the name.
    let mut folder = tempfile::Builder::new();
    #[cfg(unix)]
    folder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let made = folder.prefix(".cvm-backup-").tempdir_in(parent).map_err(failed(out))?;
    // The registry first: of a CA that comes in between nothing is in it yet.
    let registry = data.join("registry");
    let has_registry = registry.join("registry.sqlite").exists();
    if has_registry {
        let copied = made.path().join("registry");
        file::private_folder(&copied)?;
        SqlRegistry::copy(&registry, &copied)?;
        file::make_private(&copied.join("registry.sqlite"))?;
    }
    for (from, to) in [(ca.path(), "ca"), (&ca.server_certificates_path(), "ca/servers"), (&operators, "operators")] {
        copy_files(from, &made.path().join(to))?;
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mark = Mark { made_at: made_at.to_owned(), registry: has_registry, version };
    file::create(&made.path().join(MARK), &format!("{}\n", json!(mark)))?;
    for folder in ["registry", "ca/servers", "ca", "operators", ""].map(|name| made.path().join(name)) {
        file::sync_folder(&folder)?;
    }
    fs::rename(made.path(), out).map_err(failed(out))?;
    // It has another name now, and stays.
    let _ = made.keep();
    file::sync_folder(parent)?;
    Ok(has_registry)
}

/// Whether a folder, which may be missing, is the server's folder or inside it.
fn is_inside(folder: &Path, data: &Path) -> bool {
    let Ok(data) = data.canonicalize() else { return false };
    let Ok(folder) = std::path::absolute(folder) else { return false };
    folder.ancestors().find_map(|ancestor| ancestor.canonicalize().ok()).is_some_and(|there| there.starts_with(data))
}

/// Copies the files of a folder with their modes; what is being made there has a name that begins with a dot yet.
fn copy_files(from: &Path, to: &Path) -> Result<(), BackupError> {
    file::private_folder(to)?;
    let failed = |source| FileError::Read { path: from.to_owned(), source };
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !entry.file_type().map_err(failed)?.is_file() || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let copy = to.join(name);
        let copied = fs::copy(entry.path(), &copy).and_then(|_| File::open(&copy)?.sync_all());
        copied.map_err(|source| FileError::Write { path: copy, source })?;
    }
    Ok(())
}

/// The backup that a server is about to begin with for the first time, if its folder is one.
pub(crate) fn begun_with(data: &Path) -> Result<Option<Mark>, FileError> {
    let path = data.join(MARK);
    if !path.exists() {
        return Ok(None);
    }
    let mark = serde_json::from_str(&file::read_text(&path, MAX_MARK)?);
    // Whatever is in it: there was a backup.
    let unknown = |_| Mark { made_at: "an unknown time".to_owned(), registry: true, version: String::new() };
    Ok(Some(mark.unwrap_or_else(unknown)))
}

/// Takes note that a server has begun with it.
pub(crate) fn restored(data: &Path) -> Result<(), FileError> {
    let path = data.join(MARK);
    fs::rename(&path, data.join(RESTORED)).map_err(|source| FileError::Write { path, source })
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BackupError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the backup {path} would be inside the server's folder {data}", path = path.display(), data = data.display())]
    Inside { path: PathBuf, data: PathBuf },
    #[error("{path} is not the folder of a server: it has no operators", path = path.display())]
    NoServer { path: PathBuf },
    #[error(transparent)]
    Registry(#[from] OpenError),
}

impl BackupError {
    /// The stable word for it in JSON.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Inside { .. } => "usage",
            Self::NoServer { .. } => "not-found",
            Self::Registry(_) => "registry",
        }
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::File(error) => error.advice(),
            Self::Inside { .. } => "give an --out outside of it, best on another disk".to_owned(),
            Self::NoServer { path } => {
                format!(
                    "give --data, the folder of `cvm serve`; `ls {}` shows what is there",
                    shell_word(&path.to_string_lossy())
                )
            }
            Self::Registry(error) => database::advice(error),
        }
    }
}
