//! Everything that devices ask, by whichever protocol.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use cvm_provisioning::{DeviceIdFrom, Vending};

use crate::{Clock, Est, Handout, est_router, router};

/// The router of the vend and of EST, which are two doors to one decision. `device_id_from` is how signing requests name
/// their device.
pub fn device_router<V: Vending + 'static>(
    vend: Arc<V>,
    handout: Handout,
    est: Est,
    device_id_from: DeviceIdFrom,
    clock: Clock,
) -> Router {
    let est = est_router(Arc::clone(&vend), est, device_id_from, clock).into_service::<Body>();
    let vend = router(vend, handout, device_id_from, clock);
    Router::new().route_service("/.well-known/est/{*path}", est).fallback_service(vend)
}
