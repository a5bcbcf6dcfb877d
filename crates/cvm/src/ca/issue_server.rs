use std::path::PathBuf;

use clap::Args;
use cvm_authority::ServerName;
use cvm_provisioning::Timestamp;
use serde_json::json;

use super::{CaError, DataArguments, now};
use crate::arguments::TimeToLive;
use crate::error::CommandError;
use crate::output::Output;
use crate::own_ca::{PassphraseArguments, ServerFiles, ServerRequest};

/// Issue the certificate of a TLS server that devices connect to, such as a broker
///
/// Writes DIR/server.key and DIR/server.pem, the certificate with its issuing CA behind it. Devices verify it by the root
/// that they got with their own certificate. Run the command again to renew: it keeps the key, and keeps a certificate
/// that is valid for longer than --renew-before. Names can be added, but not left out: clients may use them. The server of
/// this CA may run meanwhile.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct IssueServerArguments {
    /// A DNS name or an IP address by which clients know the server; the first one is the common name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<ServerName>,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// The folder of the key and the certificate; created if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    terms: ServerTerms,
}

/// How long servers' certificates are valid.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerTerms {
    /// Validity of a new certificate; it ends with its CA at the latest
    #[arg(long, value_name = "TIME", default_value = "365d")]
    validity: TimeToLive,
    /// Renew a certificate that is valid for less than this
    #[arg(long, value_name = "TIME", default_value = "60d")]
    renew_before: TimeToLive,
}

impl ServerTerms {
    /// The request for a certificate with these names.
    pub(crate) fn request(&self, names: &[ServerName]) -> ServerRequest {
        let mut distinct: Vec<ServerName> = Vec::new();
        names.iter().for_each(|name| {
            if !distinct.contains(name) {
                distinct.push(name.clone());
            }
        });
        ServerRequest {
            names: distinct,
            validity: self.validity.duration(),
            renew_before: self.renew_before.duration(),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  cvm ca issue-server broker.example.com --data /var/lib/cvm --out broker
  cvm ca issue-server localhost 127.0.0.1 --out broker --validity 90d";

pub(super) async fn run(arguments: &IssueServerArguments, output: &Output) -> Result<(), CommandError> {
    let IssueServerArguments { names, data, passphrase, out, terms } = arguments;
    let files = ServerFiles::new(out);
    let issued = files.issue(&data.folder(), passphrase, &terms.request(names), now()).await.map_err(CaError::from)?;
    let not_after = Timestamp::from(issued.certificate.not_after());
    let (key, certificate) = (files.key().display().to_string(), files.certificate().display().to_string());
    output.json(&json!({
        "certificateId": issued.certificate.id(),
        "isNew": issued.is_new,
        "notAfter": not_after.to_string(),
        "files": { "privateKey": key, "certificate": certificate },
    }))?;
    match issued.is_new {
        true => output.done(format_args!("issued {certificate}, valid until {not_after}; its key is {key}"))?,
        false => output.done(format_args!("kept {certificate}, which is valid until {not_after}"))?,
    }
    Ok(())
}
