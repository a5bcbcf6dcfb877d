//! The HTTP face of cvm: routers that decode a request, call the decision and encode the answer, and the one table of
//! problems. The Lambda functions and the server share them.

mod answer;
mod claim;
mod device;
mod door;
mod est;
mod json;
mod media;
mod problem;
mod registry;
mod request;
mod vend;
mod vend_error;

pub use answer::{DeviceChain, Endpoint, Handout, InvalidEndpoint, InvalidRootCa, RootCa};
pub use claim::claim_router;
pub use device::device_router;
pub use door::{Caller, ClientCertificate, Clock, DeviceRates, Pace};
pub use est::{Est, EstLabel, InvalidEstLabel, est_router, parse as parse_est};
pub use problem::Problem;
pub use registry::{
    Jobs, NoOperator, NoRestore, Operator, Registry, RoleRefused, jobs_elsewhere, registry_router, unknown_devices,
    unknown_devices_elsewhere,
};
pub use vend::{parse, router};
