//! The registry's API from the outside: what operators' tools send, and what they are answered.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod api;
mod audit;
mod devices;
mod jobs;
mod refusals;
mod statistics;
