//! `cvm claim`: the claim certificates that devices share for their first connection.

use clap::{Args, Subcommand};
use cvm_aws::{AwsIot, Clients, DynamoDbRegistry};
use cvm_provisioning::{CertificateId, Claim, ClaimStore};

mod add;
mod create;
mod error;
mod folder;
mod list;
mod name;
mod report;
mod revoke;
mod terms;
mod view;

pub(crate) use error::ClaimError;

use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{TRIES, TableArguments};

/// Operate claim certificates: what devices share to ask for a certificate of their own
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ClaimArguments {
    #[command(flatten)]
    table: TableArguments,
    #[command(subcommand)]
    verb: ClaimVerb,
}

#[derive(Debug, Subcommand)]
enum ClaimVerb {
    Add(add::AddArguments),
    Create(create::CreateArguments),
    List(list::ListArguments),
    Revoke(revoke::RevokeArguments),
    Report(report::ReportArguments),
}

const EXAMPLES: &str = "\
Examples:
  export CVM_TABLE=cvm-devices
  cvm claim create --policy cvm-claim --out claim --quota 1000 --expires 26w
  cvm device add sn-0001 --claim
  cvm claim list
  cvm claim revoke e3b0c44298fc --reason 'found in a firmware image'
  cvm claim report e3b0c44298fc";

/// Runs `cvm claim ...`.
pub(crate) async fn run(arguments: ClaimArguments, output: &Output) -> Result<(), CommandError> {
    let table = arguments.table.name().map_err(ClaimError::from)?;
    let clients = Clients::from_environment().await;
    let (registry, iot) = (DynamoDbRegistry::new(clients.dynamodb, table), AwsIot::new(clients.iot));
    match arguments.verb {
        ClaimVerb::Add(arguments) => add::run(&arguments, &registry, output).await,
        ClaimVerb::Create(arguments) => create::run(&arguments, &registry, &iot, output).await,
        ClaimVerb::List(_) => list::run(&registry, output).await,
        ClaimVerb::Revoke(arguments) => revoke::run(&arguments, &registry, &iot, output).await,
        ClaimVerb::Report(arguments) => report::run(&arguments, &registry, output).await,
    }
}

/// Reads a claim, has it changed or made, and writes it, again from the start where its status changed in between.
async fn change(
    registry: &impl ClaimStore,
    id: &CertificateId,
    mut change: impl FnMut(Option<Claim>) -> Result<Claim, ClaimError>,
) -> Result<Claim, ClaimError> {
    for _ in 0..TRIES {
        let found = registry.find_claim(id).await?;
        let claim = change(found.clone())?;
        if found.as_ref() == Some(&claim) || registry.put_claim(&claim, found.as_ref()).await? {
            return Ok(claim);
        }
    }
    Err(ClaimError::Contended { id: *id })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cvm_provisioning::{Device, DeviceId, RegistryError, Status, TrustedUser};
    use cvm_testkit::MemoryRegistry;
    use cvm_testkit::fixture::NOW;

    use super::*;

    /// A registry in which a claim is revoked between another operator's reads and writes, so many times.
    struct Racing {
        registry: MemoryRegistry,
        races: Mutex<usize>,
    }

    impl ClaimStore for Racing {
        async fn look_up(
            &self,
            claim: &CertificateId,
            device: &DeviceId,
        ) -> Result<(Option<Claim>, Option<Device>), RegistryError> {
            self.registry.look_up(claim, device).await
        }

        async fn count_claim(&self, user: &TrustedUser, day: i64, quota: u64) -> Result<bool, RegistryError> {
            self.registry.count_claim(user, day, quota).await
        }

        async fn find_claim(&self, id: &CertificateId) -> Result<Option<Claim>, RegistryError> {
            self.registry.find_claim(id).await
        }

        async fn put_claim(&self, claim: &Claim, found: Option<&Claim>) -> Result<bool, RegistryError> {
            let races = {
                let mut left = self.races.lock().unwrap();
                let races = *left;
                *left = races.saturating_sub(1);
                races
            };
            if races > 0 {
                let there = self.registry.find_claim(&claim.certificate).await?.unwrap();
                let status = Status::disabled(format!("leaked {races}").parse().ok(), NOW);
                let revoked = Claim { status, ..there.clone() };
                assert!(self.registry.put_claim(&revoked, Some(&there)).await?);
            }
            self.registry.put_claim(claim, found).await
        }

        async fn claims(&self) -> Result<Vec<Claim>, RegistryError> {
            self.registry.claims().await
        }
    }

    async fn limited(races: usize) -> (Result<Claim, ClaimError>, Claim) {
        let claim = Claim::new(CertificateId::of(b"claim"), NOW);
        let registry = Racing { registry: MemoryRegistry::default(), races: Mutex::new(races) };
        assert!(registry.registry.put_claim(&claim, None).await.unwrap());
        let changed =
            change(&registry, &claim.certificate, |found| Ok(Claim { quota: Some(5), ..found.unwrap() })).await;
        (changed, registry.find_claim(&claim.certificate).await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn threat_11_a_claim_that_is_revoked_while_its_quota_is_changed_stays_revoked() {
        let (changed, there) = limited(1).await;
        assert_eq!(changed.unwrap(), there);
        assert!(!there.status.enabled);
        assert_eq!(there.quota, Some(5), "the change is made to what the other left");
    }

    #[tokio::test]
    async fn races_without_end_are_given_up() {
        let (changed, there) = limited(usize::MAX).await;
        assert!(matches!(changed, Err(ClaimError::Contended { .. })), "{changed:?}");
        assert_eq!(there.quota, None);
    }
}
