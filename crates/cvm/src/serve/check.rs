//! Whether what the server is told fits together: found out before anything is opened, and all of it at once.

use std::path::Path;

use cvm_authority::ServerName;
use cvm_provisioning::RefusedKeys;

use super::arguments::ServeArguments;
use super::connections::Bounds;
use super::platform::Platform;
use super::settings::{Settings, SettingsError, Wrong};
use super::tls::ServerCertificate;
use super::tls_files::TlsFiles;
use super::{OPERATORS, REGISTRY, now};
use crate::database::{self, DYNAMODB, Database, PasswordError};
use crate::error::with_causes;
use crate::own_ca::CaFolder;

/// What follows from the options.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) certificate: ServerCertificate,
    pub(super) bounds: Bounds,
    pub(super) platform: Platform<Database>,
    pub(super) refused_keys: RefusedKeys,
}

impl Checked {
    /// Looks through all of them. Files are read and nothing is changed.
    pub(super) fn of(settings: &Settings) -> Result<Self, SettingsError> {
        let arguments = &settings.arguments;
        let mut wrong = Vec::new();
        let mut tell = |key: &str, text: String| wrong.push(Wrong { key: key.to_owned(), text });
        let certificate = certificate(arguments, &mut tell);
        let bounds = bounds(arguments, &mut tell);
        let database = database_of(arguments, &mut tell);
        let platform = Platform::of(settings, database, &mut tell);
        let mut taken = vec![("listen", arguments.listen)];
        let others = [("metrics-listen", arguments.metrics_listen), ("revocation-listen", arguments.revocation_listen)];
        for (key, address) in others.into_iter().filter_map(|(key, address)| Some((key, address?))) {
            match taken.iter().find(|(_, other)| *other == address && address.port() != 0) {
                Some((other, _)) => tell(key, format!("it is that of {other}, too: give another port")),
                None => taken.push((key, address)),
            }
        }
        job_folder(arguments, &mut tell);
        let refused_keys = arguments.refused_keys.iter().copied().collect();
        match platform.filter(|_| wrong.is_empty()) {
            Some(platform) => Ok(Self { certificate, bounds, platform, refused_keys }),
            None => Err(SettingsError::Wrong { path: None, wrong }),
        }
    }
}

fn certificate(arguments: &ServeArguments, tell: &mut impl FnMut(&str, String)) -> ServerCertificate {
    let mut names = Vec::new();
    for name in &arguments.names {
        match name.parse::<ServerName>() {
            Ok(name) => names.push(name),
            Err(error) => tell("name", format!("{name:?} is none: {error}")),
        }
    }
    match (arguments.tls_certificate.clone(), arguments.tls_key.clone()) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate, key };
            if let Err(error) = files.read(now()) {
                tell("tls-certificate", format!("{}; {}", with_causes(&error), error.advice()));
            }
            ServerCertificate::Files(files)
        }
        (None, None) => ServerCertificate::Own { names },
        (Some(_), None) => {
            tell("tls-key", "it is missing, and tls-certificate is there: give both, or none".to_owned());
            ServerCertificate::Own { names }
        }
        (None, Some(_)) => {
            tell("tls-certificate", "it is missing, and tls-key is there: give both, or none".to_owned());
            ServerCertificate::Own { names }
        }
    }
}

/// The database with its password. A table of DynamoDB is none: the credentials of the AWS environment open it.
fn database_of(arguments: &ServeArguments, tell: &mut impl FnMut(&str, String)) -> Option<Database> {
    if arguments.database.starts_with(DYNAMODB) {
        if arguments.database_password_file.is_some() {
            let text = "DynamoDB has none, but the credentials of the AWS environment: leave it away";
            tell("database-password-file", text.to_owned());
        }
        return None;
    }
    let password = match database::password(arguments.database_password_file.as_deref()) {
        Ok(password) => password,
        Err(error) => {
            let advice = match &error {
                PasswordError::File(error) => format!("; {}", error.advice()),
                PasswordError::Two => String::new(),
            };
            tell("database-password-file", format!("{}{advice}", with_causes(&error)));
            return None;
        }
    };
    let password = password.as_deref().map(String::as_str);
    match Database::parse(&arguments.database, password) {
        Ok(database) => Some(database),
        Err(error) => {
            tell("database", error.to_string());
            None
        }
    }
}

/// Whoever may ask for jobs reads and writes in that folder.
fn job_folder(arguments: &ServeArguments, tell: &mut impl FnMut(&str, String)) {
    let Some(folder) = &arguments.job_folder else { return };
    if arguments.database.starts_with(DYNAMODB) {
        tell("job-folder", "the jobs are those of the stack, in its bucket: leave it away".to_owned());
    }
    let resolved = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default();
    let (data, resolved) = (resolved(&arguments.data), resolved(folder));
    let secret = [data.join(REGISTRY), data.join(OPERATORS), CaFolder::of_data(&data).path().to_owned()];
    if data.starts_with(&resolved) || secret.iter().any(|secret| resolved.starts_with(secret)) {
        let text = "operators read and write in it, and the server's keys are there: give a folder of its own";
        tell("job-folder", text.to_owned());
    }
    if folder.metadata().is_ok_and(|found| !found.is_dir()) {
        tell("job-folder", format!("{} is no folder", folder.display()));
    }
}

fn bounds(arguments: &ServeArguments, tell: &mut impl FnMut(&str, String)) -> Bounds {
    let bounds = Bounds { connections: arguments.max_connections, of_one_source: arguments.max_connections_per_source };
    if bounds.connections == 0 {
        tell("max-connections", "nobody could connect: give at least 1".to_owned());
    }
    if !(1..=bounds.connections.max(1)).contains(&bounds.of_one_source) {
        tell("max-connections-per-source", format!("give 1 to max-connections, which is {}", bounds.connections));
    }
    bounds
}
