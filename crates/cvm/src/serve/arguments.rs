//! What the server can be told: each of it as an option, as a variable, and as a key of the file of `--config`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cvm_authority::RevocationAddress;
use cvm_http::{Endpoint, EstLabel};
use cvm_provisioning::{DeviceIdFrom, KeyFingerprint, TemplateName};
use ipnet::IpNet;

use super::platform::{PlatformName, TemplateFile};
use super::rates::Rate;
use crate::arguments::{TimeToLive, listen_address};
use crate::own_ca::PassphraseArguments;

/// Serve devices and operators on this machine, with a CA of its own or for AWS IoT
///
/// All that it has is in one folder: the registry, the CA and its keys, and who may operate it. On the first start they
/// are made, and a token for operators is shown, once. Devices ask at /v1/certificates or with EST, operators at /devices,
/// /jobs, /statistics and /audit; brokers trust /ca.pem and fetch the revocation list at /crl.pem.
///
/// With `--platform aws` certificates and things are those of AWS IoT, and what operators decide is enforced there.
///
/// Each option can stand in the file of --config, too, under its name without the dashes. What is given here counts more
/// than its variable, and that more than the file.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// A file in TOML with options, such as `listen = "0.0.0.0:443"`
    #[arg(long, env = "CVM_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Say what counts and whether it fits together, and start nothing
    #[arg(long)]
    pub(super) check: bool,
    /// Start with an empty registry, or with an older one, although the CA has published revocation lists; NUMBER is the
    /// number of the lists in ca/crl.pem. Certificates that were revoked are accepted again (docs/serve.md, "A lost registry")
    #[arg(long, value_name = "NUMBER")]
    pub(super) accept_lost_registry: Option<u64>,
    /// The folder of it all, made where it is not there; one server has it at a time
    #[arg(long, env = "CVM_DATA", value_name = "DIR", default_value = "cvm-data")]
    pub(super) data: PathBuf,
    /// Who makes certificates and lets devices in
    #[arg(long, env = "CVM_PLATFORM", value_name = "PLATFORM", value_enum, default_value_t = PlatformName::Own)]
    pub(super) platform: PlatformName,
    /// With `aws`, a file with a provisioning template in JSON, which says what a device becomes and which policy it gets;
    /// NAME=FILE is for devices whose item in the registry names it. Repeatable, or with commas between them
    #[arg(long = "template", env = "CVM_TEMPLATES", value_name = "[NAME=]FILE", value_delimiter = ',')]
    pub(super) templates: Vec<TemplateFile>,
    /// Where the registry is: `sqlite`, in the folder of --data, or mysql://USER@HOST:PORT/DATABASE, which several servers
    /// can share, or with `aws` dynamodb:TABLE, output TableName of a stack
    #[arg(long, env = "CVM_DATABASE", value_name = "DATABASE", default_value = "sqlite", hide_env_values = true)]
    pub(super) database: String,
    /// A file with the password of the database, for nobody else to read; the variable CVM_DATABASE_PASSWORD can have it
    /// instead
    #[arg(long, env = "CVM_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub(super) database_password_file: Option<PathBuf>,
    /// When every page of a registry in SQLite is looked at, so that a damaged one is not served: at each `start`, which takes
    /// a second or two for each gigabyte, and longer on a slow disk, or `never`
    #[arg(long, env = "CVM_REGISTRY_CHECK", value_name = "WHEN", value_enum, default_value_t = RegistryCheck::Start)]
    pub(super) registry_check: RegistryCheck,
    /// The folder with the files that imports read and exports write, `jobs` in the folder of --data where nothing is said;
    /// servers that share a database share it, too
    #[arg(long, env = "CVM_JOB_FOLDER", value_name = "DIR")]
    pub(super) job_folder: Option<PathBuf>,
    /// With dynamodb:TABLE, the table with what happened, output AuditTableName of the stack
    #[arg(long, env = "CVM_AUDIT_TABLE", value_name = "TABLE")]
    pub(super) audit_table: Option<String>,
    /// With dynamodb:TABLE, have claims made out at /v1/claims for this fleet provisioning template, output
    /// FleetTemplateName of the stack
    #[arg(long, env = "CVM_CLAIM_TEMPLATE", value_name = "NAME")]
    pub(super) claim_template: Option<TemplateName>,
    /// How many claims one operator may ask for in a day (UTC)
    #[arg(
        long,
        env = "CVM_CLAIMS_PER_USER_PER_DAY",
        value_name = "NUMBER",
        default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(super) claims_per_user_per_day: u64,
    /// Address and port to listen on; a name is resolved once, at the start
    #[arg(long, env = "CVM_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443", value_parser = listen_address)]
    pub(super) listen: SocketAddr,
    /// A DNS name or an address by which devices reach it; repeatable, or with commas between them
    #[arg(
        long = "name",
        env = "CVM_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1"
    )]
    pub(super) names: Vec<String>,
    /// The broker that devices are told to connect to; with `aws`, that of the account where nothing is said
    #[arg(long, env = "CVM_BROKER", value_name = "HOST[:PORT]", default_value = "localhost:8883")]
    pub(super) broker: Endpoint,
    /// The root CA in PEM by which devices verify the broker; the default is the server's own root, and with `aws` Amazon
    /// Root CA 1
    #[arg(long, env = "CVM_BROKER_CA", value_name = "FILE")]
    pub(super) broker_ca: Option<PathBuf>,
    /// A public key that no device may have, as its SHA-256 fingerprint; repeatable, or with commas between them
    #[arg(long = "refused-key", env = "CVM_REFUSED_KEYS", value_name = "FINGERPRINT", value_delimiter = ',')]
    pub(super) refused_keys: Vec<KeyFingerprint>,
    /// How long the certificates of devices are valid; AWS IoT says that itself
    #[arg(long, env = "CVM_VALIDITY", value_name = "TIME", default_value = "365d")]
    pub(super) validity: TimeToLive,
    /// What names the device in a signing request's subject: commonName, serialNumber, either of them, or none, which
    /// ignores the subject. By default either, with `aws` commonName
    #[arg(long, env = "CVM_DEVICE_ID_FROM", value_name = "ATTRIBUTE")]
    pub(super) device_id_from: Option<DeviceIdFrom>,
    /// A label under which devices find EST, too, as in /.well-known/est/LABEL; repeatable, or with commas between them
    #[arg(long = "est-label", env = "CVM_EST_LABELS", value_name = "LABEL", value_delimiter = ',')]
    pub(super) est_labels: Vec<EstLabel>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArguments,
    /// The server's certificate in PEM, with the chain below it, instead of one of its own CA; looked at anew when it
    /// changes, and on SIGHUP
    #[arg(long, env = "CVM_TLS_CERTIFICATE", value_name = "FILE")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// The key of that certificate, in PEM and for nobody else to read
    #[arg(long, env = "CVM_TLS_KEY", value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// The most connections; one more is closed at once. Each needs an open file (ulimit -n)
    #[arg(long, env = "CVM_MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 900)]
    pub(super) max_connections: usize,
    /// The most connections from one IPv4 address, or from one IPv6 site (/64)
    #[arg(long, env = "CVM_MAX_CONNECTIONS_PER_SOURCE", value_name = "NUMBER", default_value_t = 200)]
    pub(super) max_connections_per_source: usize,
    /// How long a client may take for the TLS handshake, and for the headers of a request; half of it for the first byte.
    /// Raise it for slow links, such as satellites
    #[arg(long, env = "CVM_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub(super) handshake_timeout: TimeToLive,
    /// How much may be asked from one source: a number at once, and as many more in each s, m or h
    #[arg(long, env = "CVM_RATE_PER_SOURCE", value_name = "RATE", default_value = "600/m")]
    pub(super) rate_per_source: Rate,
    /// How many requests one operator may send, by the token. They do not count for the source
    #[arg(long, env = "CVM_RATE_PER_OPERATOR", value_name = "RATE", default_value = "6000/m")]
    pub(super) rate_per_operator: Rate,
    /// How often one device may ask
    #[arg(long, env = "CVM_RATE_PER_DEVICE", value_name = "RATE", default_value = "30/m")]
    pub(super) rate_per_device: Rate,
    /// How long the audit trail keeps an entry, at least one day; without it, for ever. The table of a stack has
    /// AuditRetentionDays
    #[arg(long, env = "CVM_AUDIT_RETENTION", value_name = "TIME", value_parser = audit_retention)]
    pub(super) audit_retention: Option<TimeToLive>,
    /// A network, or an address, of proxies whose X-Forwarded-For is believed; repeatable, or with commas between them
    #[arg(long, env = "CVM_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    pub(super) trusted_proxy: Vec<IpNet>,
    /// The address of plain HTTP at which others find revocation lists and OCSP, such as `http://pki.example.com`; the
    /// certificates of devices name it. It is where --revocation-listen listens, or a proxy before it
    #[arg(long, env = "CVM_REVOCATION_ADDRESS", value_name = "URL")]
    pub(super) revocation_address: Option<RevocationAddress>,
    /// Address and port to serve revocation lists and OCSP on, over HTTP without TLS
    #[arg(long, env = "CVM_REVOCATION_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen_address)]
    pub(super) revocation_listen: Option<SocketAddr>,
    /// Address and port to serve the metrics on, over HTTP without TLS
    #[arg(long, env = "CVM_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen_address)]
    pub(super) metrics_listen: Option<SocketAddr>,
}

/// When every page of the registry is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum RegistryCheck {
    Never,
    Start,
}

/// Parses how long the audit trail keeps an entry: `cvm status` shows the refusals of the last day.
fn audit_retention(text: &str) -> Result<TimeToLive, String> {
    let time: TimeToLive = text.parse().map_err(|error| format!("{error}"))?;
    match time.duration() >= Duration::from_secs(24 * 60 * 60) {
        true => Ok(time),
        false => Err("the audit trail keeps an entry for one day at least: give 1d or more, such as 400d".to_owned()),
    }
}

/// A network, or the one of a single address.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    single.or_else(|_| text.parse()).map_err(|_| "expected a network such as 10.0.0.0/8, or an address")
}

const EXAMPLES: &str = "\
Examples:
  cvm serve
  cvm serve --data /var/lib/cvm --listen 0.0.0.0:443 --name cvm.example.com
  cvm serve --broker broker.example.com:8883 --validity 90d
  cvm serve --revocation-listen 0.0.0.0:80 \\
      --revocation-address http://pki.example.com
  cvm serve --database mysql://cvm@db.example.com/cvm \\
      --database-password-file /etc/cvm/database.password
  cvm serve --platform aws --template template.json
  cvm serve --platform aws --template template.json \\
      --database dynamodb:cvm-DeviceTable --audit-table cvm-AuditTable
  cvm serve --config /etc/cvm/serve.toml --check";
