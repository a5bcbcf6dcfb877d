//! A CA of our own over the registry, as the server has it.

use std::time::Duration;

use cvm_authority::{
    Authorities, Authority, AuthorityProfile, Curve, LocalSigner, OwnPlatform, Profile, SharedAuthorities, Tier,
};
use cvm_provisioning::Timestamp;
use cvm_sql::SqlRegistry;
use cvm_testkit::fixture::NOW;

pub(crate) type OwnCa = OwnPlatform<LocalSigner, SqlRegistry>;

/// A new CA, and the registry as its ledger.
pub(crate) async fn own_ca(registry: &SqlRegistry) -> OwnCa {
    own_ca_at(registry, || NOW).await
}

/// The same, with this clock.
pub(crate) async fn own_ca_at(registry: &SqlRegistry, clock: fn() -> Timestamp) -> OwnCa {
    let profile = AuthorityProfile {
        name: "cvm issuing".parse().unwrap(),
        organization: None,
        tier: Tier::Issuing,
        validity: Duration::from_secs(10 * 365 * 24 * 60 * 60),
    };
    let authority = Authority::create(&profile, LocalSigner::generate(Curve::P256).unwrap(), NOW).await.unwrap();
    let authorities = SharedAuthorities::new(Authorities::new(authority, Vec::new()).unwrap());
    let profile = Profile::new(Duration::from_secs(365 * 24 * 60 * 60));
    OwnPlatform::new(authorities, profile, registry.clone(), clock)
}
