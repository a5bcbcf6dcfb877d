//! What to say of an operator's change that was not made.

use cvm_provisioning::{DeviceId, OperationError};

use crate::registry;

/// What to do next.
pub(crate) fn advice(id: &DeviceId, error: &OperationError) -> String {
    match error {
        OperationError::Contended | OperationError::PreconditionFailed => {
            format!("look at it with `cvm device show {id}`, then run this again")
        }
        OperationError::Exists => {
            format!("`cvm device show {id}` has it; `cvm device delete {id}` removes it")
        }
        OperationError::KeyInUse { owner } => {
            format!("have {id} make a key of its own; if it is the same device, first `cvm device delete {owner}`")
        }
        OperationError::NotFound => {
            format!("`cvm device add {id}` registers it, `cvm device list` has those there are")
        }
        OperationError::NothingToRevoke(_) => {
            format!("`cvm device disable {id}` keeps it out at once, whatever it is about to get")
        }
        OperationError::Registry(error) => registry::advice(error).to_owned(),
        _ => format!("`cvm device show {id}` has its state"),
    }
}
