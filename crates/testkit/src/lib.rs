//! What the tests share: in-memory ports, the contract that every registry is held to, and faults at the n-th call.

#![expect(clippy::expect_used, reason = "this crate is for tests, where a panic is a failed test")]

mod audit;
pub mod contract;
mod factory;
mod fault;
pub mod fixture;
mod jobs;
mod ledger;
mod local_dynamodb;
mod platform;
mod registry;
pub mod scenario;
mod trail;

pub use audit::MemoryAudit;
pub use factory::Factory;
pub use fault::{Effect, Fault, Faulty, Script};
pub use jobs::{MemoryJobs, MemoryObjects};
pub use ledger::MemoryLedger;
pub use local_dynamodb::LocalDynamoDb;
pub use platform::MemoryPlatform;
pub use registry::MemoryRegistry;
pub use trail::{MemoryBus, MemoryTrail};
