//! The `cvm` command as it is run: against a DynamoDB in this process, and against the vending API in this process.

#![expect(clippy::unwrap_used, reason = "a helper of a test that fails is a test that fails")]

mod authorities;
mod ca;
mod claim;
mod device;
mod import;
mod iot;
mod support;
mod template;
mod vend;
