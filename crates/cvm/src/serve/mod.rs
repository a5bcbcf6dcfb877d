//! `cvm serve`: the same service on a machine of one's own.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cvm_authority::{OcspResponder, OwnPlatform, Profile};
use cvm_http::{Est, Handout, Registry, RootCa};
use cvm_provisioning::{LogAudit, Operations, ProvisioningTemplate, RefusedKeys, Templates, Timestamp, VendAtOnce};
use cvm_sql::SqlRegistry;
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

mod arguments;
mod check;
mod client_certificates;
mod connections;
mod database;
mod enforcement;
mod error;
mod listener;
mod log;
mod metrics;
mod ocsp;
mod operator_door;
mod operators;
mod published;
mod rates;
mod routes;
mod settings;
mod signals;
mod source;
mod tls;
mod tls_files;
mod token_routes;

pub(crate) use self::arguments::ServeArguments;
pub(crate) use self::error::ServeError;
pub(crate) use self::operators::{OperatorTokens, Role, TokenRecord};

use self::check::Checked;
use self::connections::Connections;
use self::enforcement::Enforcement;
use self::listener::Listener;
use self::metrics::{Metrics, Observed};
use self::rates::Buckets;
use self::routes::{Limits, Services, plain_router, router};
use self::settings::Settings;
use self::signals::{told_to_end, told_to_look};
use self::source::TrustedProxies;
use self::tls::{ServerCertificate, ServerTls};
use crate::error::CommandError;
use crate::file;
use crate::output::Output;
use crate::own_ca::{CaFolder, OwnAuthority};

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
    let settings = Settings::read(arguments).map_err(ServeError::from)?;
    let checked = Checked::of(&settings.arguments).map_err(ServeError::from)?;
    if checked.database.shows_password() && settings.table["database"].from == settings::Origin::Option {
        output.note("the password in --database can be read by everybody on this machine; give it in a file")?;
    }
    if arguments.check {
        return Ok(settings.show(output)?);
    }
    log::start(output);
    file::private_folder(&settings.arguments.data).map_err(ServeError::from)?;
    // Before there is a runtime: a database that cannot be opened ends those of its own.
    let registry = checked.database.open(&settings.arguments.data.join(REGISTRY)).map_err(ServeError::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(serve(&settings.arguments, checked, registry, output)))
}

async fn serve(
    arguments: &ServeArguments,
    checked: Checked,
    registry: SqlRegistry,
    output: &Output,
) -> Result<(), CommandError> {
    let ServeArguments { data, listen, names, broker, validity, .. } = arguments;
    let authority = OwnAuthority::open(CaFolder::of_data(data), arguments.passphrase.clone(), now()).await;
    let authority = authority.map_err(ServeError::from)?;
    let tokens = OperatorTokens::in_folder(&data.join(OPERATORS))?;
    let bound = TcpListener::bind(listen).await.map_err(|source| ServeError::Listen { address: *listen, source })?;
    let address = bound.local_addr().map_err(|source| ServeError::Listen { address: *listen, source })?;
    let is_own = matches!(checked.certificate, ServerCertificate::Own { .. });
    let tls = Arc::new(ServerTls::new(checked.certificate, authority.authorities.clone(), now()).await?);
    let trusted = TrustedProxies::new(arguments.trusted_proxy.clone());
    let connections = Connections::new(checked.bounds, trusted.clone());
    let metrics = Metrics::new();
    let limits = Limits {
        trusted,
        sources: Arc::new(Buckets::new(arguments.rate_per_source)),
        devices: Arc::new(Buckets::new(arguments.rate_per_device)),
    };
    let listener = Listener::new(bound, Arc::clone(&tls), connections.clone(), metrics.clone());
    let plain_connections = connections.clone();

    // Of the chain, the root is what a device has for good.
    let root_ca: Result<RootCa, _> = authority.root.certificate().pem().parse();
    let root_ca = root_ca.map_err(|source| ServeError::OwnCa { source: Box::new(source) })?;
    let authorities = authority.authorities.clone();
    let issuing = authorities.clone();
    let est = Est {
        ca_certificates: Box::new(move |now| issuing.load().trusted(now).into_iter().cloned().collect()),
        labels: arguments.est_labels.clone(),
    };
    let mut profile = Profile::new(validity.duration()).at_least(Duration::ZERO);
    if let Some(address) = &arguments.revocation_address {
        profile = profile.with_revocation(address.clone());
    }
    let responder = OcspResponder::new(authorities.clone(), registry.clone());
    let platform = OwnPlatform::new(authorities.clone(), profile, registry.clone(), now);
    let woken = Arc::new(Notify::new());
    let mut enforcement = Enforcement::new(registry.clone(), platform.clone(), authority, Arc::clone(&woken));
    let revocations = enforcement.begin(now()).await?;
    let handout = Handout { endpoint: broker.clone(), root_ca };
    let services = Services {
        vend: Arc::new(VendAtOnce {
            registry: registry.clone(),
            authority: platform,
            audit: LogAudit,
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        }),
        est,
        handout,
        operators: Registry { operations: Operations { registry: registry.clone() }, trail: registry.clone() },
        tokens: tokens.clone(),
        revocations,
        responder,
        woken,
        registry,
        limits: Arc::new(limits),
        metrics: metrics.clone(),
    };
    let mut work = JoinSet::new();
    work.spawn(enforcement.work());
    work.spawn(Arc::clone(&tls).keep_up(told_to_look()?));
    if let Some(address) = arguments.metrics_listen {
        let bound = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let observed = Observed {
            certificate_end: Box::new(move || tls.ends_at()),
            authority_end: Box::new(move || authorities.load().current().certificate().not_after().into()),
            connections: Box::new(move || connections.open()),
            lists: CaFolder::of_data(data).lists_path(),
            database: data.join(REGISTRY),
        };
        work.spawn(axum::serve(bound, metrics.routes(observed)).into_future().map(drop));
    }
    if let Some(address) = arguments.revocation_listen {
        let bound = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let listener = Listener::plain(bound, plain_connections, metrics.clone());
        work.spawn(listener.serve(plain_router(&services), std::future::pending()));
    }
    let first_token = tokens.first("first", now())?;
    // Before anybody can know that it runs, and end it.
    let end = told_to_end()?;
    let name = names.first().map_or("localhost", String::as_str);
    welcome(output, data, name, address, is_own, first_token.as_deref())?;
    listener.serve(router(services), end.received()).await;
    // What was decided and not enforced yet is in the registry, and the next start goes on with it.
    work.shutdown().await;
    Ok(())
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
    is_own: bool,
    token: Option<&str>,
) -> Result<(), CommandError> {
    let url = format!("https://{name}:{}", address.port());
    let ca = CaFolder::of_data(data).bundle_path();
    let ca = ca.display();
    // Others' certificates are checked with what the system trusts.
    let (cacert, root_ca) = match is_own {
        true => (format!("--cacert {ca} "), format!("--root-ca {ca} ")),
        false => Default::default(),
    };
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

    curl -s {cacert}-H \"Authorization: Bearer $CVM_OPERATOR_TOKEN\" --json '{{}}' -X PUT {url}/devices/sn-0001 \\
        | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"authentication\"][\"symmetricKey\"][\"primaryKey\"])' \\
        > sn-0001.token && chmod 600 sn-0001.token
    {program} vend --url {url} {root_ca}--device sn-0001 --token-file sn-0001.token --out sn-0001
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
