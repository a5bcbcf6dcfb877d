//! `cvm serve`: the same service on a machine of one's own.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use cvm_authority::{OcspResponder, OwnPlatform, Profile};
use cvm_http::{Endpoint, Handout, Registry, RootCa};
use cvm_provisioning::{LogAudit, Operations, ProvisioningTemplate, RefusedKeys, Templates, Timestamp, Vend};
use cvm_sql::SqlRegistry;
use tokio::sync::Notify;

mod enforcement;
mod error;
mod listener;
mod ocsp;
mod operators;
mod routes;

pub(crate) use self::error::ServeError;
pub(crate) use self::operators::{OperatorTokens, Role, TokenRecord};

use self::enforcement::Enforcement;
use self::listener::Listener;
use self::routes::{Services, router};
use crate::arguments::TimeToLive;
use crate::error::CommandError;
use crate::file;
use crate::output::Output;
use crate::own_ca::{CaFolder, OwnAuthority, PassphraseArguments};

/// Serve devices and operators on this machine, with a CA of its own
///
/// All that it has is in one folder: the registry, the CA and its keys, and who may operate it. On the first start they
/// are made, and a token for operators is shown, once. Devices ask at /v1/certificates, operators at /devices, /statistics
/// and /audit; brokers trust /ca.pem and fetch the revocation list at /crl.pem.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArguments {
    /// The folder of it all, made where it is not there; one server has it at a time
    #[arg(long, env = "CVM_DATA", value_name = "DIR", default_value = "cvm-data")]
    data: PathBuf,
    /// Where it listens, as ADDRESS:PORT
    #[arg(long, env = "CVM_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// A DNS name or an address by which devices reach it; repeatable, or with commas between them
    #[arg(
        long = "name",
        env = "CVM_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "localhost,127.0.0.1"
    )]
    names: Vec<String>,
    /// The broker that devices are told to connect to
    #[arg(long, env = "CVM_BROKER", value_name = "HOST[:PORT]", default_value = "localhost:8883")]
    broker: Endpoint,
    /// How long the certificates of devices are valid
    #[arg(long, env = "CVM_VALIDITY", value_name = "TIME", default_value = "365d")]
    validity: TimeToLive,
    #[command(flatten)]
    passphrase: PassphraseArguments,
}

const EXAMPLES: &str = "\
Examples:
  cvm serve
  cvm serve --data /var/lib/cvm --listen 0.0.0.0:443 --name cvm.example.com
  cvm serve --broker broker.example.com:8883 --validity 90d";

/// What a device becomes where nobody says otherwise: a thing of its own name. What it may do is its broker's to say.
const TEMPLATE: &str = r#"{
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
        }
    }
}"#;

/// Where the folders and files are.
const REGISTRY: &str = "registry";
const OPERATORS: &str = "operators";

pub(crate) fn run(arguments: &ServeArguments, output: &Output) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(serve(arguments, output)))
}

async fn serve(arguments: &ServeArguments, output: &Output) -> Result<(), CommandError> {
    let ServeArguments { data, listen, names, broker, validity, passphrase } = arguments;
    file::private_folder(data).map_err(ServeError::from)?;
    let registry = SqlRegistry::in_folder(&data.join(REGISTRY)).map_err(ServeError::from)?;
    let authority = OwnAuthority::open(CaFolder::of_data(data), passphrase.clone(), now()).await;
    let authority = authority.map_err(ServeError::from)?;
    let tokens = OperatorTokens::in_folder(&data.join(OPERATORS))?;
    let bound = TcpListener::bind(listen).map_err(|source| ServeError::Listen { address: *listen, source })?;
    let address = bound.local_addr().map_err(|source| ServeError::Listen { address: *listen, source })?;
    let listener = Listener::new(bound, &authority, names, now()).await?;

    // Of the chain, the root is what a device has for good.
    let root_ca: Result<RootCa, _> = authority.root.certificate().pem().parse();
    let root_ca = root_ca.map_err(|source| ServeError::OwnCa { source: Box::new(source) })?;
    let authorities = authority.authorities.clone();
    let profile = Profile::new(validity.duration()).at_least(Duration::ZERO);
    let responder = OcspResponder::new(authorities.clone(), registry.clone());
    let platform = OwnPlatform::new(authorities, profile, registry.clone(), now);
    let woken = Arc::new(Notify::new());
    let mut enforcement = Enforcement::new(registry.clone(), platform.clone(), authority, Arc::clone(&woken));
    let revocations = enforcement.begin(now()).await?;
    let handout = Handout { endpoint: broker.clone(), root_ca };
    let services = Services {
        vend: Vend {
            registry: registry.clone(),
            platform,
            audit: LogAudit,
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        },
        handout,
        operators: Registry { operations: Operations { registry: registry.clone() }, trail: registry.clone() },
        tokens: tokens.clone(),
        revocations,
        responder,
        woken,
        registry,
    };
    let work = tokio::spawn(enforcement.work());
    let first_token = tokens.first("first", now())?;
    welcome(output, data, names.first().map_or("localhost", String::as_str), address, first_token.as_deref())?;
    let served = listener.serve(router(services)).await;
    // What was decided and not enforced yet is in the registry, and the next start goes on with it.
    work.abort();
    Ok(served?)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

#[expect(clippy::expect_used, reason = "the template is a constant, and a test parses it")]
fn templates() -> Templates {
    let template = ProvisioningTemplate::parse(TEMPLATE).expect("the template is one");
    Templates::new(template, Default::default()).expect("a vend can run it")
}

/// Says where it is, and, when it is new, what to do with it.
fn welcome(
    output: &Output,
    data: &Path,
    name: &str,
    address: SocketAddr,
    token: Option<&str>,
) -> Result<(), CommandError> {
    let url = format!("https://{name}:{}", address.port());
    let ca = CaFolder::of_data(data).bundle_path();
    let ca = ca.display();
    // As it was called: not everybody has it where their shell looks.
    let program = std::env::args().next().unwrap_or_else(|| "cvm".to_owned());
    output.json(&serde_json::json!({ "url": url, "ca": ca.to_string(), "operatorToken": token }))?;
    output.done(format_args!("{url} is open; its CA is {ca}"))?;
    let Some(token) = token else { return Ok(()) };
    output.say(format_args!(
        "
This token lets you operate it; it is not shown again, and ends in a day. `cvm token create` makes others.

    export CVM_OPERATOR_TOKEN={token}

A first device: put it on the allowlist, have it ask for its certificate, and check what it got.

    curl -s --cacert {ca} -H \"Authorization: Bearer $CVM_OPERATOR_TOKEN\" --json '{{}}' -X PUT {url}/devices/sn-0001 \\
        | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"authentication\"][\"symmetricKey\"][\"primaryKey\"])' \\
        > sn-0001.token && chmod 600 sn-0001.token
    {program} vend --url {url} --root-ca {ca} --device sn-0001 --token-file sn-0001.token --out sn-0001
    openssl verify -CAfile {ca} sn-0001/certificate.pem
"
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_one_that_a_vend_can_run() {
        super::templates();
    }
}
