//! `cvm serve`: the same service on a machine of one's own.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use axum::Router;
use cvm_authority::SharedAuthorities;
use cvm_http::unknown_devices;
use cvm_provisioning::{RefusedKeys, Timestamp};
use cvm_sql::SqlRegistry;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

mod activity;
mod arguments;
mod aws;
mod check;
mod claims;
mod client_certificates;
mod connections;
mod decisions;
mod enforcement;
mod equal_refusals;
mod error;
mod header_case;
mod host;
mod jobs;
mod listener;
mod log;
mod metrics;
mod ocsp;
mod operator_door;
mod operators;
mod own;
mod owner;
mod platform;
mod published;
mod rates;
mod readiness;
mod reconciler;
mod refusals;
mod request_body;
mod revocation_routes;
mod routes;
mod settings;
mod signals;
mod source;
mod tls;
mod tls_files;
mod to_the_end;
mod token_routes;
mod trail_ends;
mod trail_retention;

pub(crate) use self::arguments::ServeArguments;
pub(crate) use self::error::ServeError;
pub(crate) use self::operators::{OperatorTokens, OwnerName, Role, TokenRecord};

use self::arguments::RegistryCheck;
use self::check::Checked;
use self::connections::{Bounds, Connections, open_files};
use self::jobs::{JobWorker, Working};
use self::listener::{Listener, Patience};
use self::metrics::{Metrics, Observed};
use self::platform::{Platform, PlatformName};
use self::rates::Buckets;
use self::refusals::{InMemory, Refusals, refusals};
use self::routes::{Doors, Limits, Services, plain_router, router};
use self::settings::Settings;
use self::signals::{told_to_end, told_to_look};
use self::source::TrustedProxies;
use self::tls::{ServerCertificate, ServerTls};
use crate::backup;
use crate::ca_key::CaKey;
use crate::database::Database;
use crate::error::CommandError;
use crate::file;
use crate::output::{Output, shell_word};
use crate::own_ca::CaFolder;

/// Where the folders and files are.
const REGISTRY: &str = "registry";
const OPERATORS: &str = "operators";
/// A thread that waits for a page of the database leaves its processor to another one, and what is ready does not wait
/// behind what is just being signed: under load a tenth more vends a second than with one thread for each.
const THREADS_PER_PROCESSOR: usize = 2;
/// Connections of those who read the metrics.
const SCRAPERS: Bounds = Bounds { connections: 16, of_one_source: 16 };

pub(crate) fn run(arguments: &ServeArguments, output: &Output) -> Result<(), CommandError> {
    let settings = Settings::read(arguments).map_err(ServeError::from)?;
    let Checked { certificate, bounds, platform, refused_keys } = Checked::of(&settings).map_err(ServeError::from)?;
    let shows_password = platform.database().is_some_and(Database::shows_password);
    if shows_password && settings.table["database"].from == settings::Origin::Option {
        output.note("the password in --database can be read by everybody on this machine; give it in a file")?;
    }
    let room = bounds.within(open_files());
    if room != bounds {
        output.note(format_args!(
            "this process may not have enough files open for --max-connections {}, so it takes {} connections; allow \
             more of them (ulimit -n, LimitNOFILE=)",
            bounds.connections, room.connections
        ))?;
    }
    if arguments.check {
        return Ok(settings.show(output)?);
    }
    log::start(output);
    let arguments = &settings.arguments;
    file::private_folder(&arguments.data).map_err(ServeError::from)?;
    file::take_permissions(&arguments.data, 0o022).map_err(ServeError::from)?;
    // Before there is a runtime: a database that cannot be opened ends those of its own.
    let platform = platform.open(&arguments.data.join(REGISTRY)).map_err(ServeError::from)?;
    let woken = Arc::<Notify>::default();
    if let Some(registry) = platform.database().filter(|_| arguments.registry_check == RegistryCheck::Start) {
        registry.check_pages().map_err(ServeError::from)?;
    }
    let opened = platform.database().map(|registry| jobs::open(arguments, registry, &woken)).transpose()?;
    let (jobs, worker) = opened.map_or_else(|| (jobs::of_the_stack(), None), |(routes, worker)| (routes, Some(worker)));
    let metrics = Metrics::new();
    let (refusals, recorder) = refusals(metrics.clone());
    let read = refusals.clone();
    let more = jobs.merge(unknown_devices(move || {
        let refusals = read.clone();
        async move { refusals.unknown_devices().await }
    }));
    let told = Told { arguments, certificate, refused_keys, woken, more, refusals };
    let threads = THREADS_PER_PROCESSOR * thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match platform.database().cloned() {
        Some(registry) => runtime.spawn(recorder.work(registry)),
        None => runtime.spawn(recorder.work(InMemory::default())),
    };
    runtime.block_on(Box::pin(serve(told, room, platform, worker, metrics, output)))
}

/// What every platform is told.
struct Told<'a> {
    arguments: &'a ServeArguments,
    certificate: ServerCertificate,
    refused_keys: RefusedKeys,
    /// Told when an operator may have decided something.
    woken: Arc<Notify>,
    /// What differs with the registry: where operators ask for imports, exports and unknown devices.
    more: Router,
    /// Where decisions about devices are recorded.
    refusals: Refusals,
}

/// A platform that can be served.
struct Begun {
    doors: Doors,
    tls: ServerTls,
    /// The server's CAs, where it has any.
    authorities: Option<SharedAuthorities<CaKey>>,
    /// What is done beside the doors for as long as the server runs.
    work: JoinSet<()>,
}

async fn serve(
    told: Told<'_>,
    bounds: Bounds,
    platform: Platform<SqlRegistry>,
    worker: Option<JobWorker>,
    metrics: Metrics,
    output: &Output,
) -> Result<(), CommandError> {
    let ServeArguments { data, listen, .. } = told.arguments;
    let (arguments, woken, refusals) = (told.arguments, Arc::clone(&told.woken), told.refusals.clone());
    let tokens = OperatorTokens::in_folder(&data.join(OPERATORS))?;
    let bound = TcpListener::bind(listen).await.map_err(|source| ServeError::Listen { address: *listen, source })?;
    let address = bound.local_addr().map_err(|source| ServeError::Listen { address: *listen, source })?;
    let begun = match platform {
        Platform::Aws { aws, place } => Box::pin(aws::begin(told, *aws, place)).await,
        Platform::Own { registry, broker_ca } => Box::pin(own::begin(told, registry, broker_ca)).await,
    };
    let Begun { doors, tls, authorities, mut work } = begun?;
    let tls = Arc::new(tls);
    let trusted = TrustedProxies::new(arguments.trusted_proxy.clone());
    let connections = Connections::new(bounds, trusted.clone());
    let limits = Limits {
        trusted,
        sources: Arc::new(Buckets::new(arguments.rate_per_source)),
        devices: Buckets::new(arguments.rate_per_device),
        refusals: Buckets::new(arguments.rate_per_device),
        operators: Buckets::new(arguments.rate_per_operator),
        tokens: tokens.clone(),
    };
    let patience = Patience::new(arguments.handshake_timeout.duration());
    let listener = Listener::new(bound, Arc::clone(&tls), connections.clone(), patience, metrics.clone());
    let services = Services { tokens: tokens.clone(), woken, limits: Arc::new(limits), metrics: metrics.clone() };
    let plain_connections = connections.clone();
    work.spawn(Arc::clone(&tls).keep_up(told_to_look()?));
    if let Some(address) = arguments.metrics_listen {
        let bound = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let observed = Observed {
            certificate_end: Box::new(move || tls.ends_at()),
            authority_end: Box::new(move || {
                authorities.as_ref().map(|authorities| authorities.load().current().certificate().not_after().into())
            }),
            connections: Box::new(move || connections.open()),
            lists: CaFolder::of_data(data).lists_path(),
            database: data.join(REGISTRY),
        };
        // Their own places: whoever looks after the server does so above all when it has no more of the others.
        let few = Connections::new(SCRAPERS, TrustedProxies::default());
        let listener = Listener::plain(bound, few, patience, metrics.clone());
        work.spawn(listener.serve(metrics.routes(observed), std::future::pending()));
    }
    if let Some(address) = arguments.revocation_listen {
        let bound = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
        let listener = Listener::plain(bound, plain_connections, patience, metrics.clone());
        work.spawn(listener.serve(plain_router(&doors, &services), std::future::pending()));
    }
    // Not before it is known that the registry is this platform's.
    let worker = worker.map(JobWorker::start).transpose().map_err(|source| ServeError::Worker { source })?;
    if let Some(backup) = backup::begun_with(data).map_err(ServeError::from)? {
        let made_at = backup.made_at;
        if backup.registry {
            tracing::warn!(
                made_at,
                "this folder was a backup: what happened since is not in it; docs/serve.md, Backups"
            );
        } else {
            tracing::warn!(made_at, "the CA and the operators are those of a backup: what changed since is not there");
        }
        backup::restored(data).map_err(ServeError::from)?;
    }
    let first_token = tokens.first("first", now())?;
    // Before anybody can know that it runs, and end it.
    let end = told_to_end()?;
    welcome(output, arguments, address, first_token.as_deref())?;
    let ending = async {
        end.received().await;
        worker.iter().for_each(Working::end);
    };
    listener.serve(router(doors, services), ending).await;
    if let Some(worker) = worker {
        worker.ended().await;
    }
    // What was decided and not enforced yet is in the registry, and the next start goes on with it.
    work.shutdown().await;
    if let Err(error) = refusals.unknown_devices().await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "could not record the last devices that are not registered");
    }
    Ok(())
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Variables that a shell may have of another server or of a table, and that would count beside those of this server.
const OTHERS: &str = "CVM_TABLE CVM_OPERATOR_TOKEN_FILE";

/// Says where it is, and, when it is new, what to do with it.
fn welcome(
    output: &Output,
    arguments: &ServeArguments,
    address: SocketAddr,
    token: Option<&str>,
) -> Result<(), CommandError> {
    let name = arguments.names.first().map_or("localhost", String::as_str);
    // An IPv6 address stands in brackets in a URL.
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let url = format!("https://{host}:{}", address.port());
    // Others' certificates are checked with what the system trusts.
    let is_own = arguments.tls_certificate.is_none();
    let ca = CaFolder::of_data(&arguments.data).bundle_path();
    let ca = Some(ca.display().to_string()).filter(|_| is_own || arguments.platform == PlatformName::Own);
    let trusted = ca.as_deref().filter(|_| is_own);
    // A shell may have the one of another server.
    let (server_ca, others) = match trusted {
        Some(ca) => (format!(" CVM_SERVER_CA={}", shell_word(ca)), OTHERS.to_owned()),
        None => (String::new(), format!("{OTHERS} CVM_SERVER_CA")),
    };
    // It was called by a path, so a shell may not find it by its name.
    let called = std::env::args().next().unwrap_or_else(|| "cvm".to_owned());
    let folder = std::env::current_exe().ok().filter(|_| called.contains('/'));
    let folder = folder.as_deref().and_then(Path::parent).map(|folder| shell_word(&folder.to_string_lossy()));
    let path = folder.map(|folder| format!("\n    export PATH={folder}:$PATH")).unwrap_or_default();
    output.json(&serde_json::json!({ "url": url, "ca": ca, "operatorToken": token }))?;
    match &ca {
        Some(ca) => output.done(format_args!("{url} is open; its CA is {ca}"))?,
        None => output.done(format_args!("{url} is open"))?,
    }
    let Some(token) = token else {
        let (program, data) = (shell_word(&called), shell_word(&arguments.data.to_string_lossy()));
        output.say(format_args!(
            "\nOperators use the tokens that they have. This makes a new one:\n\n    {program} token create --data {data} \
             --name NAME --role admin --ttl 1d\n"
        ))?;
        return Ok(());
    };
    let check = match arguments.platform {
        // The root is all that the other side has to trust.
        PlatformName::Own => {
            let root = CaFolder::of_data(&arguments.data).root_certificate_path();
            let root = shell_word(&root.to_string_lossy());
            format!("openssl verify -CAfile {root} -untrusted sn-0001/certificate.pem sn-0001/certificate.pem")
        }
        PlatformName::Aws => "openssl x509 -in sn-0001/certificate.pem -noout -fingerprint -sha256 -enddate".to_owned(),
    };
    let data = shell_word(&arguments.data.to_string_lossy());
    let broker = match arguments.platform {
        PlatformName::Own => first_message(arguments),
        PlatformName::Aws => String::new(),
    };
    output.say(format_args!(
        "
This token lets you operate it; it is not shown again, and ends in a day. `cvm token create --data {data}` makes others.

    unset {others}
    export CVM_SERVER={url} CVM_URL={url}{server_ca}
    export CVM_OPERATOR_TOKEN={token}{path}

A first device: put it on the allowlist, have it ask for its certificate, and check what it got.

    cvm device add sn-0001 --token-out sn-0001.token
    cvm vend --device sn-0001 --token-file sn-0001.token
    {check}
{broker}
`cvm device import` loads many, `cvm device list`, `cvm status` and `cvm audit` show what there is and what happened.
"
    ))?;
    Ok(())
}

/// How to start a broker on this machine, and publish the first message; empty if the broker is elsewhere.
fn first_message(arguments: &ServeArguments) -> String {
    let (host, port) = arguments.broker.host_and_port();
    if !matches!(host, "localhost" | "127.0.0.1") || arguments.broker_ca.is_some() {
        return "\nThe broker's configuration: `cvm broker mosquitto --help`.\n".to_owned();
    }
    let data = shell_word(&arguments.data.to_string_lossy());
    format!(
        "
A broker for it, with mosquitto (Debian: apt-get install mosquitto mosquitto-clients), and the first message:

    cvm broker mosquitto {host} --data {data} --listen 127.0.0.1:{port} --out broker && broker/run -d
    mosquitto_pub -d -h {host} -p {port} -t devices/sn-0001/hello -m hello -q 1 --cafile sn-0001/root-ca.pem \\
        --cert sn-0001/certificate.pem --key sn-0001/private.key
"
    )
}
