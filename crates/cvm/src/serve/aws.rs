//! The platform that is AWS IoT, as the functions have it, with the registry in a database of one's own or in the DynamoDB
//! table of a stack.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cvm_authority::SharedAuthorities;
use cvm_aws::{AwsIot, Clients, DynamoDbAuditTrail, DynamoDbRegistry};
use cvm_http::{Endpoint, Est, Handout, Registry, device_router, registry_router};
use cvm_provisioning::{
    AuditQuery, AuditTrail, Certificate, DeviceStore, LogAudit, Operations, Portion, Presences, Reconcile,
    RegistryError, Vend,
};
use cvm_sql::SqlRegistry;
use tokio::task::JoinSet;

use super::client_certificates::Trust;
use super::decisions::Decisions;
use super::equal_refusals::EqualRefusals;
use super::platform::{Aws, Place, Stack};
use super::readiness::{self, Probe};
use super::routes::Doors;
use super::tls::{Origin, ServerCertificate, ServerTls};
use super::to_the_end::ToTheEnd;
use super::trail_ends::log_trail_ends;
use super::trail_retention::trim_trail;
use super::{Begun, ServeError, Told, now, owner, reconciler};
use crate::aws::AwsError;
use crate::ca_key::CaKey;
use crate::own_ca::{CaFolder, OwnAuthority};

/// How often it is looked whether the server's own CA was rotated.
const INTERVAL: Duration = Duration::from_secs(5);

/// Looks at AWS IoT and at the registry, and begins with what has to be done beside the doors.
pub(super) async fn begin(mut told: Told<'_>, aws: Aws, place: Place<SqlRegistry>) -> Result<Begun, ServeError> {
    let clients = Clients::from_environment().await;
    let platform = AwsIot::new(clients.iot.clone());
    let region = platform.region().ok_or(ServeError::NoRegion)?.to_owned();
    let (endpoint, account) = endpoint(&platform, aws.broker.clone()).await?;
    let platform = platform.with_connections(Clients::iot_data_from_environment(endpoint.as_str()).await);
    told.refused_keys.extend([*aws.root_ca.key()]);

    let mut work = JoinSet::new();
    let (origin, authorities) = name_of_its_own(&told, &mut work).await?;
    // A certificate of AWS IoT is known by its digest, which the registry has: its CA is nobody's to trust.
    let tls = ServerTls::new(origin, Trust::Anybody, now()).await?;
    let doors = match place {
        Place::Sql(registry) => {
            owner::claim(&registry, &format!("aws {region}")).await?;
            if let Some(account) = account {
                owner::claim_account(&registry, &account).await?;
            }
            let decisions = Decisions::new(registry.clone(), platform.clone(), Arc::clone(&told.woken));
            work.spawn(enforce(decisions));
            if let Some(retention) = told.arguments.audit_retention {
                work.spawn(trim_trail(registry.clone(), retention.duration()));
            }
            work.spawn(log_trail_ends(registry.clone()));
            work.spawn(reconciler::work(Reconcile {
                registry: registry.clone(),
                platform: platform.clone(),
                audit: LogAudit,
                portion: Portion::default(),
            }));
            // AWS IoT's presence events do not reach this server.
            doors(told, aws, endpoint, platform, registry.clone(), registry, false)?
        }
        Place::DynamoDb(Stack { devices, audit, claims }) => {
            let (registry, trail) = tables(&clients, devices, audit).await?;
            let claims = match claims {
                Some(claims) => {
                    let handout = Handout::new(endpoint.clone(), aws.root_ca.clone());
                    Some(claims.door(registry.clone(), platform.clone(), handout, told.refusals.clone()).await?)
                }
                None => None,
            };
            Doors { claims, ..doors(told, aws, endpoint, platform, registry, trail, true)? }
        }
    };
    Ok(Begun { doors, tls, authorities, work })
}

/// Where devices connect to, and the address by which the account is known, where AWS IoT says it. One that does not answer
/// keeps nobody from what is in the registry already.
async fn endpoint(platform: &AwsIot, given: Option<Endpoint>) -> Result<(Endpoint, Option<String>), ServeError> {
    match (platform.endpoint().await, given) {
        (Ok(address), Some(given)) => Ok((given, Some(address))),
        (Err(error), Some(given)) => {
            let cause: &dyn std::error::Error = &error;
            tracing::error!(error = cause, "AWS IoT does not answer; until it does, no device gets anything new");
            Ok((given, None))
        }
        (Ok(address), None) => match address.parse() {
            Ok(endpoint) => Ok((endpoint, Some(address))),
            Err(source) => Err(ServeError::Endpoint { address, source }),
        },
        (Err(error), None) => Err(AwsError::from(error).into()),
    }
}

/// What vouches for the server's name: files, or a CA of its own that does nothing else here.
async fn name_of_its_own(
    told: &Told<'_>,
    work: &mut JoinSet<()>,
) -> Result<(Origin, Option<SharedAuthorities<CaKey>>), ServeError> {
    if let ServerCertificate::Files(files) = &told.certificate {
        return Ok((Origin::Files(files.clone()), None));
    }
    let (folder, passphrase) = (CaFolder::of_data(&told.arguments.data), told.arguments.passphrase.clone());
    let authority = OwnAuthority::open(folder, passphrase, now()).await?;
    authority.publish(now())?;
    let authorities = authority.authorities.clone();
    work.spawn(follow_rotations(authority));
    Ok((told.certificate.clone().of(&authorities), Some(authorities)))
}

async fn follow_rotations(mut authority: OwnAuthority) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let followed = match authority.refresh(now()).await {
            Ok(true) => authority.publish(now()).map(drop),
            followed => followed.map(drop),
        };
        if let Err(error) = followed {
            let cause: &dyn std::error::Error = &error;
            tracing::error!(error = cause, "what is new in the CA's folder cannot be used; it is tried again");
        }
    }
}

async fn enforce(decisions: Decisions<AwsIot>) {
    loop {
        decisions.enforce().await;
        decisions.wait().await;
    }
}

/// The registry of a stack, whose functions follow up what is written to it: they enforce, they keep what happened, and
/// they settle what attempts left behind.
async fn tables(
    clients: &Clients,
    devices: String,
    audit: String,
) -> Result<(DynamoDbRegistry, DynamoDbAuditTrail), ServeError> {
    let failed = |table: &str| {
        let table = table.to_owned();
        move |source: RegistryError| ServeError::Table { table, source }
    };
    let registry = DynamoDbRegistry::new(clients.dynamodb.clone(), devices.as_str());
    if let Some(lack) = registry.lack().await.map_err(failed(&devices))? {
        return Err(ServeError::NoRegistry { table: devices, lack });
    }
    // It is only read here, so that nothing has to be known of how long it is kept.
    let trail = DynamoDbAuditTrail::new(clients.dynamodb.clone(), audit.as_str(), Duration::ZERO);
    let query = AuditQuery { device: None, since: now(), until: now().after(Duration::from_secs(1)) };
    trail.entries(&query, None, 1).await.map_err(failed(&audit))?;
    Ok((registry, trail))
}

fn doors<R, T>(
    told: Told<'_>,
    Aws { root_ca, templates, .. }: Aws,
    endpoint: Endpoint,
    platform: AwsIot,
    registry: R,
    trail: T,
    hears_of_connections: bool,
) -> Result<Doors, ServeError>
where
    R: Probe + DeviceStore + Presences,
    T: AuditTrail + 'static,
{
    // What a device checks is the endpoint's certificate.
    let trusted = Certificate::parse(root_ca.pem()).map_err(|source| ServeError::OwnCa { source: source.into() })?;
    let est =
        Est { ca_certificates: Box::new(move |_| vec![trusted.clone()]), labels: told.arguments.est_labels.clone() };
    let refused_keys = told.refused_keys;
    let device_id_from = told.arguments.device_id_from.unwrap_or_default();
    let vend = Vend { registry: registry.clone(), platform, audit: told.refusals, templates, refused_keys };
    let handout = Handout::new(endpoint, root_ca);
    let operators = Registry { operations: Operations { registry: registry.clone() }, trail, hears_of_connections };
    Ok(Doors {
        devices: device_router(Arc::new(EqualRefusals::new(ToTheEnd::new(vend))), handout, est, device_id_from, now),
        operators: registry_router(operators, told.more, now),
        claims: None,
        // The CA is somebody else's, and so is what it says of its certificates.
        authority: Router::new(),
        admins: Router::new(),
        revocation: Router::new(),
        readiness: readiness::router(registry, None),
    })
}
