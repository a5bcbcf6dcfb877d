//! A device that is restored has certificates that are its own, and that can be revoked.

use std::collections::BTreeSet;
use std::time::Duration;

use cvm_authority::{Authorities, Authority, AuthorityProfile, Curve, LocalSigner, Profile, SharedAuthorities, Tier};
use cvm_provisioning::{
    AuditQuery, AuditTrail as _, CertificateLedger as _, Changes as _, Credential, Device, DeviceStore as _,
    IssuedCertificate, NotRestored, Standing, State,
};
use cvm_sql::{IssuedBy, SqlRegistry};
use cvm_testkit::fixture::{NOW, csr, device, later, origin};

/// A CA, and devices with certificates of it.
struct Ca(SharedAuthorities<LocalSigner>);

impl Ca {
    async fn new() -> Self {
        let profile = AuthorityProfile {
            name: "cvm issuing".parse().unwrap(),
            organization: None,
            tier: Tier::Issuing,
            validity: Duration::from_secs(10 * 365 * 24 * 60 * 60),
        };
        let authority = Authority::create(&profile, LocalSigner::generate(Curve::P256).unwrap(), NOW).await.unwrap();
        Self(SharedAuthorities::new(Authorities::new(authority, Vec::new()).unwrap()))
    }

    async fn device(&self, name: &str) -> Device {
        let profile = Profile::new(Duration::from_secs(365 * 24 * 60 * 60));
        let issued = self.0.load().issue(&profile, &name.parse().unwrap(), csr(name).key(), NOW).await.unwrap();
        let certificate = issued.certificate().clone();
        let issued = IssuedCertificate { name: certificate.id().to_string(), certificate };
        let credential = Credential::of(&issued, name.to_owned().try_into().unwrap(), NOW);
        Device { state: State::Provisioned, credential: Some(credential), ..device(name) }
    }

    /// Makes it the registry's.
    fn issues_for(&self, registry: &SqlRegistry) {
        let authorities = self.0.clone();
        registry.know_issuers(move |certificate| {
            let recognized = authorities.load().recognize(certificate)?;
            Some(IssuedBy { issuer: recognized.issuer.to_string(), serial: recognized.serial_number.to_string() })
        });
    }
}

pub(super) async fn enters_what_can_be_revoked_and_refuses_what_is_not_the_devices(registry: &SqlRegistry) {
    let (ca, other_ca) = (Ca::new().await, Ca::new().await);
    ca.issues_for(registry);
    let there = ca.device("sn-1").await;
    let certificate = there.credential.as_ref().unwrap().certificate;
    let restore = async |device: &Device| registry.restore(device, &origin(), later(9)).await.unwrap();

    let stranger = other_ca.device("sn-1").await;
    let id = stranger.credential.as_ref().unwrap().certificate;
    assert_eq!(restore(&stranger).await, Err(NotRestored::Stranger(id)));
    // The certificate names its device, whatever else is said.
    let thief = Device { credential: there.credential.clone(), ..device("sn-2") };
    assert_eq!(restore(&thief).await, Err(NotRestored::OtherDevice(certificate)));
    assert_eq!(registry.entry(&certificate).await.unwrap(), None, "nothing is left of what was refused");

    assert_eq!(restore(&there).await, Ok(true));
    assert_eq!(restore(&there).await, Ok(false));
    assert_eq!(registry.find(&there.id).await.unwrap().as_ref(), Some(&there));
    let entered = registry.entry(&certificate).await.unwrap().unwrap();
    assert_eq!((entered.standing, entered.thing.as_str()), (Standing::Active, "sn-1"));
    assert_eq!(restore(&thief).await, Err(NotRestored::OtherDevice(certificate)));

    // A disabled device and a revoked one have no power, in an empty registry, too.
    let mut disabled = ca.device("sn-3").await;
    disabled.disable(None, later(1));
    let mut revoked = ca.device("sn-4").await;
    revoked.revoke("stolen".parse().unwrap(), later(1)).unwrap();
    for (device, standing) in [(&disabled, Standing::Inactive), (&revoked, Standing::Revoked)] {
        assert_eq!(restore(device).await, Ok(true));
        let certificate = device.credential.as_ref().unwrap().certificate;
        assert_eq!(registry.entry(&certificate).await.unwrap().unwrap().standing, standing);
    }
    let issuer = entered.issuer.as_str();
    assert_eq!(registry.without_power(issuer, NOW).await.unwrap().len(), 2, "the revocation list has both");

    // What was revoked stays so, although an older export says that it was good.
    registry.set_standing(&certificate, Standing::Revoked, later(2)).await.unwrap();
    let version = there.version;
    assert!(registry.remove(&there.clone().bury(later(2)), version, &origin()).await.unwrap());
    assert_eq!(restore(&there).await, Err(NotRestored::Revoked(certificate)));
}

pub(super) async fn is_told_when_it_is_done(registry: &SqlRegistry) {
    let there = device("sn-5");
    assert!(registry.add(&there, &origin()).await.unwrap());
    let version = there.version;
    assert!(registry.remove(&there.clone().bury(later(2)), version, &origin()).await.unwrap());
    assert_eq!(registry.restore(&there, &origin(), later(9)).await.unwrap(), Ok(true));
    let query = AuditQuery { device: Some(there.id.clone()), since: NOW, until: later(100) };
    let entries = registry.entries(&query, None, 10).await.unwrap().entries;
    let told: Vec<_> = entries.iter().map(|entry| (entry.action.as_str(), entry.at)).collect();
    assert_eq!(told, [("created", later(9)), ("deleted", later(2)), ("created", NOW)]);
    let ids: BTreeSet<_> = entries.iter().map(|entry| &entry.id).collect();
    assert_eq!(ids.len(), entries.len(), "no entry has the id of another");
}
