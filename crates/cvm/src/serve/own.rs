//! The platform that is the server's own CA: it signs, keeps the ledger, and says what is revoked.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use cvm_authority::{OcspResponder, OwnPlatform, Profile};
use cvm_http::{DeviceChain, Est, Handout, Registry, RootCa, device_router, registry_router};
use cvm_provisioning::{DeviceIdFrom, Operations, ProvisioningTemplate, Templates, VendAtOnce};
use cvm_sql::{IssuedBy, SqlRegistry};
use tokio::task::JoinSet;

use super::client_certificates::Trust;
use super::decisions::Decisions;
use super::enforcement::{Enforcement, Revocations};
use super::equal_refusals::EqualRefusals;
use super::revocation_routes::{Strays, revocation_routes};
use super::routes::Doors;
use super::tls::ServerTls;
use super::trail_ends::log_trail_ends;
use super::trail_retention::trim_trail;
use super::{Begun, OPERATORS, OperatorTokens, ServeError, Told, now, ocsp, owner, published, readiness};
use crate::backup;
use crate::ca_key::CaKey;
use crate::own_ca::{CaFolder, OwnAuthority};

/// The CA as the place where certificates come from.
pub(super) type OwnCa = OwnPlatform<CaKey, SqlRegistry>;

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

/// Opens the CA, made where it is not there, and enforces what was decided before the server ended.
///
/// `broker_ca` is what devices verify their broker by, where that is not this CA.
pub(super) async fn begin(
    told: Told<'_>,
    registry: SqlRegistry,
    broker_ca: Option<RootCa>,
) -> Result<Begun, ServeError> {
    let Told { arguments, certificate, refused_keys, woken, more, refusals } = told;
    let folder = CaFolder::of_data(&arguments.data);
    let is_backup = backup::begun_with(&arguments.data)?.is_some();
    let has_served = !OperatorTokens::in_folder(&arguments.data.join(OPERATORS))?.list()?.is_empty();
    owner::expect_history(&registry, &folder, has_served, arguments.accept_lost_registry, is_backup).await?;
    owner::claim(&registry, "own").await?;
    owner::expect_authority(&registry, folder.root()?.as_ref()).await?;
    let authority = OwnAuthority::open(folder, arguments.passphrase.clone(), now()).await?;
    owner::claim_authority(&registry, authority.root.certificate()).await?;
    let authorities = authority.authorities.clone();
    let issuers = authorities.clone();
    registry.know_issuers(move |certificate| {
        let recognized = issuers.load().recognize(certificate)?;
        Some(IssuedBy { issuer: recognized.issuer.to_string(), serial: recognized.serial_number.to_string() })
    });
    let tls = ServerTls::new(certificate.of(&authorities), Trust::Chain(authorities.clone()), now()).await?;

    // Without --broker-ca the broker's certificate is one of this server's CA, too: devices verify it by the root.
    let root_ca: Result<RootCa, _> = authority.root.certificate().pem().parse();
    let root_ca = root_ca.map_err(|source| ServeError::OwnCa { source: Box::new(source) })?;
    let issuing = authorities.clone();
    let chain = DeviceChain::new(move |leaf| issuing.load().chain_of(leaf).to_vec());
    let handout = Handout { endpoint: arguments.broker.clone(), root_ca: broker_ca.clone().unwrap_or(root_ca), chain };
    let issuing = authorities.clone();
    let broker_ca = broker_ca.map(|ca| ca.certificate().clone());
    let est = Est {
        ca_certificates: Box::new(move |now| {
            issuing.load().trusted(now).into_iter().chain(&broker_ca).cloned().collect()
        }),
        labels: arguments.est_labels.clone(),
    };
    let mut profile = Profile::new(arguments.validity.duration()).at_least(Duration::ZERO);
    if let Some(address) = &arguments.revocation_address {
        profile = profile.with_revocation(address.clone());
    }
    let responder = OcspResponder::new(authorities.clone(), registry.clone());
    let platform = OwnPlatform::new(authorities.clone(), profile, registry.clone(), now);
    let strays = Strays { registry: registry.clone(), authorities: authorities.clone(), woken: Arc::clone(&woken) };
    let decisions = Decisions::new(registry.clone(), platform.clone(), woken);
    let mut enforcement = Enforcement::new(registry.clone(), decisions, authority);
    let revocations = enforcement.begin(now()).await?;
    let trail = registry.clone();
    let vend = VendAtOnce {
        registry: registry.clone(),
        authority: platform,
        audit: refusals,
        templates: templates(),
        refused_keys,
    };
    let operators = Registry {
        operations: Operations { registry: registry.clone() },
        trail: registry.clone(),
        // Brokers do not report connections to this server.
        hears_of_connections: false,
    };
    // The CA writes the subject of its certificates itself, so that a signing request may have any.
    let device_id_from = arguments.device_id_from.unwrap_or(DeviceIdFrom::Either);
    let doors = Doors {
        devices: device_router(Arc::new(EqualRefusals::new(vend)), handout, est, device_id_from, now),
        operators: registry_router(operators, more, now),
        claims: None,
        revocation: revocation_router(&revocations).merge(ocsp::router(responder)),
        authority: authority_router(revocations),
        admins: revocation_routes(strays),
        readiness: readiness::router(registry, Some(authorities.clone())),
    };
    let mut work = JoinSet::new();
    work.spawn(enforcement.work());
    if let Some(retention) = arguments.audit_retention {
        work.spawn(trim_trail(trail.clone(), retention.duration()));
    }
    work.spawn(log_trail_ends(trail));
    Ok(Begun { doors, tls, authorities: Some(authorities), work })
}

/// The CAs that brokers trust. It is reached over TLS alone: somebody on the way could put another CA in its place.
fn authority_router(revocations: Revocations) -> Router {
    Router::new()
        .route("/ca.pem", get(async |State(lists): State<Revocations>| pem(lists.bundle())))
        .with_state(revocations)
}

/// The revocation lists, all of them and each by itself. They are signed, so they need no TLS.
fn revocation_router(revocations: &Revocations) -> Router {
    Router::new()
        .route("/crl.pem", get(async |State(lists): State<Revocations>| pem(lists.pem())))
        .with_state(revocations.clone())
        .merge(published::router(revocations.published()))
}

fn pem(text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-pem-file")], text)
}

#[expect(clippy::expect_used, reason = "the template is a constant, and a test parses it")]
fn templates() -> Templates {
    let template = ProvisioningTemplate::parse(TEMPLATE).expect("the template is one");
    Templates::new(template, Default::default()).expect("a vend can run it")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_one_that_a_vend_can_run() {
        super::templates();
    }
}
