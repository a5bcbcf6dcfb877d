//! Whole stories over any registry, with everything that can go wrong.

use cvm_provisioning::{
    CertificateIndex, Changes as _, ClaimStore, Confirm, Cursors, Device, DeviceNaming, DeviceStore, FirstConnect,
    Platform, Portion, PreProvisioning, Presences, Reconcile, RefusedCertificates, RefusedKeys, SubjectAttribute,
    Tombstones, TrustedUsers, Vend,
};

use crate::fixture::{NOW, id, origin, templates};
use crate::{Faulty, MemoryAudit, MemoryPlatform, Script};

pub mod claims;
pub mod first_connect;
pub mod lifecycle;
pub mod reconcile;
pub mod renewal;
pub mod vend;

/// All that a registry does.
pub trait Registry: CertificateIndex + ClaimStore + Cursors + DeviceStore + Presences + Tombstones + Clone {}

impl<R> Registry for R where R: CertificateIndex + ClaimStore + Cursors + DeviceStore + Presences + Tombstones + Clone {}

/// Who signs, and how many calls a fresh vend, or a renewal, is then.
const PLATFORMS: [(fn() -> MemoryPlatform, usize); 2] =
    [(MemoryPlatform::default, 7), (MemoryPlatform::with_own_ca, 8)];

/// One registry with one device, one platform.
pub struct World<R> {
    /// The registry.
    pub registry: R,
    /// The platform.
    pub platform: MemoryPlatform,
    /// The audit records.
    pub audit: MemoryAudit,
}

impl<R: Registry> World<R> {
    /// A world in which this device has just been put on the allowlist.
    pub async fn new(registry: R, device: Device) -> Self {
        Self::on(MemoryPlatform::default(), registry, device).await
    }

    /// The same on a platform that nothing has happened on yet.
    pub async fn on(platform: MemoryPlatform, registry: R, device: Device) -> Self {
        if let Some(earlier) = registry.find(&device.id).await.expect("the store answers") {
            let (version, tombstone) = (earlier.version, earlier.bury(NOW));
            assert!(registry.remove(&tombstone, version, &origin()).await.expect("the store answers"));
            registry.forget(&device.id, tombstone.device.generation).await.expect("the store answers");
        }
        assert!(registry.add(&device, &origin()).await.expect("the store answers"));
        Self { registry, platform, audit: MemoryAudit::default() }
    }

    /// The vend of this world, as the script lets it run.
    pub fn vend(&self, script: &Script) -> Vend<Faulty<R>, Faulty<MemoryPlatform>, MemoryAudit> {
        Vend {
            registry: self.scripted(script),
            platform: self.scripted_platform(script),
            audit: self.audit.clone(),
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        }
    }

    /// The vend of this world's registry on another platform.
    pub fn vend_on<P: Platform>(&self, platform: P) -> Vend<R, P, MemoryAudit> {
        Vend {
            registry: self.registry.clone(),
            platform,
            audit: self.audit.clone(),
            templates: templates(),
            refused_keys: RefusedKeys::default(),
        }
    }

    /// Just-in-time registration in this world, as the script lets it run.
    pub fn first_connect(&self, script: &Script) -> FirstConnect<Faulty<R>, Faulty<MemoryPlatform>, MemoryAudit> {
        FirstConnect {
            registry: self.scripted(script),
            platform: self.scripted_platform(script),
            audit: self.audit.clone(),
            templates: templates(),
            refused_keys: RefusedKeys::default(),
            naming: DeviceNaming::by(SubjectAttribute::CommonName),
            refused_certificates: RefusedCertificates::Leave,
        }
    }

    /// The pre-provisioning hook of this world, as the script lets it run.
    pub fn hook(&self, script: &Script) -> PreProvisioning<Faulty<R>, MemoryAudit> {
        PreProvisioning {
            registry: self.scripted(script),
            audit: self.audit.clone(),
            templates: templates(),
            default_template: "fleet".parse().expect("a template name"),
            refused_keys: RefusedKeys::default(),
            client_ids: cvm_provisioning::ClientIds::Serial,
            device_id_from: cvm_provisioning::DeviceIdFrom::CommonName,
        }
    }

    /// The confirmation of this world, as the script lets it run.
    pub fn confirm(&self, script: &Script) -> Confirm<Faulty<R>, Faulty<MemoryPlatform>, MemoryAudit> {
        Confirm { registry: self.scripted(script), platform: self.scripted_platform(script), audit: self.audit.clone() }
    }

    /// The reconciler of this world, as the script lets it run.
    pub fn reconcile(&self, script: &Script) -> Reconcile<Faulty<R>, Faulty<MemoryPlatform>, MemoryAudit> {
        Reconcile {
            registry: self.scripted(script),
            platform: self.scripted_platform(script),
            audit: self.audit.clone(),
            portion: Portion::default(),
        }
    }

    /// The claims for trusted users of this world, as the script lets it run.
    pub fn trusted_users(&self, script: &Script) -> TrustedUsers<Faulty<R>, Faulty<MemoryPlatform>, MemoryAudit> {
        TrustedUsers {
            registry: self.scripted(script),
            platform: self.scripted_platform(script),
            audit: self.audit.clone(),
            default_template: "fleet".parse().expect("a template name"),
            claims_per_day: 2,
        }
    }

    /// The device as it is.
    pub async fn stored(&self, name: &str) -> Device {
        self.registry.find(&id(name)).await.expect("the store answers").expect("the device is there")
    }

    fn scripted(&self, script: &Script) -> Faulty<R> {
        Faulty { inner: self.registry.clone(), script: script.clone() }
    }

    fn scripted_platform(&self, script: &Script) -> Faulty<MemoryPlatform> {
        Faulty { inner: self.platform.clone(), script: script.clone() }
    }
}
