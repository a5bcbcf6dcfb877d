//! Everything that devices ask, by whichever protocol.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use cvm_provisioning::Vending;

use crate::{Clock, Est, Handout, est_router, router};

/// The router of the vend and of EST, which are two doors to one decision.
pub fn device_router<V: Vending + 'static>(vend: Arc<V>, handout: Handout, est: Est, clock: Clock) -> Router {
    let est = est_router(Arc::clone(&vend), est, clock).into_service::<Body>();
    Router::new().route_service("/.well-known/est/{*path}", est).fallback_service(router(vend, handout, clock))
}
