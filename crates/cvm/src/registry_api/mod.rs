//! The registry of a server of one's own, over its API (docs/registry.md): what operators' commands do where there is no
//! table to work on.

mod arguments;
mod ask;
mod audit;
mod devices;
mod error;
mod import;
mod jobs;
mod patience;
mod refusal;
mod revocations;
mod statistics;
mod token;

pub(crate) use arguments::ServerArguments;
pub(crate) use ask::RegistryApi;
pub(crate) use error::ApiError;
pub(crate) use jobs::Job;
