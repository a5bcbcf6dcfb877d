//! `cvm device`: operate the device registry.

use clap::{Args, Subcommand};
use cvm_aws::{Clients, DynamoDbRegistry};
use cvm_provisioning::{Device, DeviceId, DeviceStore};

mod add;
mod approve;
mod delete;
mod disable;
mod enable;
mod error;
mod list;
mod proof;
mod show;
mod view;

pub(crate) use error::DeviceError;

use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{TRIES, TableArguments};

/// Operate the device registry: who is let in, how far it has come, and why it was refused
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeviceArguments {
    #[command(flatten)]
    table: TableArguments,
    #[command(subcommand)]
    verb: DeviceVerb,
}

#[derive(Debug, Subcommand)]
enum DeviceVerb {
    Add(Box<add::AddArguments>),
    Show(show::ShowArguments),
    List(list::ListArguments),
    Disable(disable::DisableArguments),
    Enable(enable::EnableArguments),
    Delete(delete::DeleteArguments),
    Approve(approve::ApproveArguments),
}

const EXAMPLES: &str = "\
Examples:
  export CVM_TABLE=cvm-devices
  cvm device add sn-0001
  cvm device list --state quarantined
  cvm device show sn-0001";

/// Runs `cvm device ...`.
pub(crate) async fn run(arguments: DeviceArguments, output: &Output) -> Result<(), CommandError> {
    let table = arguments.table.name().map_err(DeviceError::from)?;
    let registry = DynamoDbRegistry::new(Clients::from_environment().await.dynamodb, table);
    match arguments.verb {
        DeviceVerb::Add(arguments) => add::run(*arguments, &registry, output).await,
        DeviceVerb::Show(arguments) => show::run(&arguments, &registry, output).await,
        DeviceVerb::List(arguments) => list::run(&arguments, &registry, output).await,
        DeviceVerb::Disable(arguments) => disable::run(&arguments, &registry, output).await,
        DeviceVerb::Enable(arguments) => enable::run(&arguments, &registry, output).await,
        DeviceVerb::Delete(arguments) => delete::run(&arguments, &registry, output).await,
        DeviceVerb::Approve(arguments) => approve::run(&arguments, &registry, output).await,
    }
}

/// Reads a device, has it changed and puts it back, again from the start where somebody else wrote in between.
async fn change(
    registry: &impl DeviceStore,
    id: &DeviceId,
    mut change: impl FnMut(&mut Device) -> Result<(), DeviceError>,
) -> Result<Device, DeviceError> {
    let mut written = None;
    for _ in 0..TRIES {
        let found = find(registry, id).await?;
        if written.as_ref() == Some(&found) {
            // The write took effect, its answer was lost, and the next one met our own item.
            return Ok(found);
        }
        let version = found.version;
        let mut device = found;
        change(&mut device)?;
        if registry.replace(&device, version).await? {
            return Ok(device);
        }
        written = Some(device);
    }
    Err(DeviceError::Contended { id: id.clone() })
}

async fn find(registry: &impl DeviceStore, id: &DeviceId) -> Result<Device, DeviceError> {
    registry.find(id).await?.ok_or_else(|| DeviceError::NotFound { id: id.clone() })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cvm_provisioning::{Page, RegistryError, Status};
    use cvm_testkit::MemoryRegistry;
    use cvm_testkit::fixture::{device, id, later};

    use super::*;

    /// A registry in which the first replacements are lost: to another writer, or after they took effect.
    struct Racing {
        registry: MemoryRegistry,
        lost: AtomicUsize,
        takes_effect: bool,
    }

    impl Racing {
        async fn with(lost: usize, takes_effect: bool) -> Self {
            let registry = MemoryRegistry::default();
            assert!(registry.add(&device("sn-0001")).await.unwrap());
            Self { registry, lost: lost.into(), takes_effect }
        }
    }

    impl DeviceStore for Racing {
        async fn add(&self, device: &Device) -> Result<bool, RegistryError> {
            self.registry.add(device).await
        }

        async fn find(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
            self.registry.find(id).await
        }

        async fn list(&self, after: Option<&DeviceId>, limit: u16) -> Result<Page, RegistryError> {
            self.registry.list(after, limit).await
        }

        async fn replace(&self, device: &Device, version: u64) -> Result<bool, RegistryError> {
            let lost = self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if !lost {
                return self.registry.replace(device, version).await;
            }
            if self.takes_effect {
                assert!(self.registry.replace(device, version).await?);
            } else {
                let mut other = self.registry.find(&device.id).await?.unwrap();
                other.settable_parameters.insert(format!("Other{version}"));
                other.version += 1;
                assert!(self.registry.replace(&other, version).await?);
            }
            Ok(false)
        }

        async fn delete(&self, id: &DeviceId, version: u64) -> Result<bool, RegistryError> {
            self.registry.delete(id, version).await
        }
    }

    async fn disable(registry: &Racing) -> Result<Device, DeviceError> {
        change(registry, &id("sn-0001"), |device| {
            device.disable("stolen".parse().unwrap(), later(1));
            Ok(())
        })
        .await
    }

    #[tokio::test]
    async fn a_lost_race_is_run_again_on_what_the_other_wrote() {
        let registry = Racing::with(2, false).await;
        let device = disable(&registry).await.unwrap();
        assert!(matches!(device.status, Status::Disabled { .. }));
        assert_eq!(device.settable_parameters.len(), 2, "the other's changes are kept");
        assert_eq!(registry.registry.find(&id("sn-0001")).await.unwrap(), Some(device));
    }

    #[tokio::test]
    async fn a_change_whose_answer_was_lost_is_not_made_twice() {
        let registry = Racing::with(1, true).await;
        assert_eq!(disable(&registry).await.unwrap().version, 2);
    }

    #[tokio::test]
    async fn races_without_end_are_given_up() {
        let registry = Racing::with(usize::MAX, false).await;
        assert!(matches!(disable(&registry).await, Err(DeviceError::Contended { .. })));
    }
}
