//! What operators do with the registry, whichever tool they do it with.

use crate::{
    Attestation, Changes as _, Device, DeviceId, DeviceStore, ETag, GenerationId, InvalidSettings, Module, ModuleId,
    ModuleManager, NotProvisioned, NotQuarantined, NotRestored, NothingToRevoke, Origin, RegistryError, Settings,
    Timestamp,
};

/// The operations, with what they need.
#[derive(Clone, Debug)]
pub struct Operations<R> {
    /// The device registry.
    pub registry: R,
}

/// What has to be so for a change to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Precondition {
    /// The device, or the module, is there.
    Exists,
    /// It is there, in the state that one of these names.
    IsOneOf(Vec<ETag>),
}

impl Precondition {
    /// Whether it holds for what has this tag.
    pub fn holds(&self, etag: &ETag) -> bool {
        match self {
            Self::Exists => true,
            Self::IsOneOf(etags) => etags.contains(etag),
        }
    }
}

/// Why an operator's change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// Others wrote to the device each time.
    #[error("others keep changing the device")]
    Contended,
    /// The id is taken.
    #[error("the device is in the registry already")]
    Exists,
    /// Another device has the key with which it is to prove itself.
    #[error("device {owner} has this key")]
    KeyInUse {
        /// The other device.
        owner: DeviceId,
    },
    /// The module's id is taken.
    #[error("the module is on the device already")]
    ModuleExists,
    /// There is no such module.
    #[error("the device has no such module")]
    ModuleNotFound,
    /// There is no such device.
    #[error("the device is not in the registry")]
    NotFound,
    /// There is no certificate to renew.
    #[error(transparent)]
    NotProvisioned(#[from] NotProvisioned),
    /// There is no certificate to revoke.
    #[error(transparent)]
    NothingToRevoke(#[from] NothingToRevoke),
    /// There is no quarantine to end.
    #[error(transparent)]
    NotQuarantined(#[from] NotQuarantined),
    /// It has changed since the caller looked.
    #[error("it has changed since its entity tag was read")]
    PreconditionFailed,
    /// It cannot be what the export says.
    #[error(transparent)]
    NotRestored(#[from] NotRestored),
    /// The system has no randomness to give.
    #[error("the system has no randomness to give")]
    Randomness,
    /// The registry did not do its part.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A device cannot be like that.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// The device has as many modules as one may have.
    #[error("a device has at most {max} modules", max = Module::MAX_PER_DEVICE)]
    TooManyModules,
}

impl OperationError {
    /// The stable word for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Contended => "contended",
            Self::Exists => "exists",
            Self::KeyInUse { .. } => "key-in-use",
            Self::ModuleExists => "module-exists",
            Self::ModuleNotFound => "module-not-found",
            Self::NotFound => "not-found",
            Self::NotProvisioned(_) => "not-provisioned",
            Self::NothingToRevoke(_) => "nothing-to-revoke",
            Self::NotQuarantined(_) => "not-quarantined",
            Self::NotRestored(_) => "not-restored",
            Self::PreconditionFailed => "changed-since",
            Self::Randomness => "randomness",
            Self::Registry(_) => "registry",
            Self::Settings(_) => "settings",
            Self::TooManyModules => "too-many-modules",
        }
    }
}

impl<R: DeviceStore> Operations<R> {
    /// Lost races before a change is given up.
    const TRIES: usize = 8;

    /// Registers a device.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn create(
        &self,
        id: DeviceId,
        settings: Settings,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Device, OperationError> {
        let generation = GenerationId::random().map_err(|_| OperationError::Randomness)?;
        let device = settings.new_device(id, generation, now)?;
        self.check_key(&device).await?;
        if self.registry.add(&device, by).await? { Ok(device) } else { Err(OperationError::Exists) }
    }

    /// The device as it is at this moment.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn find(&self, id: &DeviceId) -> Result<Device, OperationError> {
        self.registry.find(id).await?.ok_or(OperationError::NotFound)
    }

    /// Reads a device, has it changed and puts it back, again from the start where somebody else wrote in between. A
    /// change that changes nothing is not written.
    ///
    /// # Errors
    ///
    /// [`OperationError`], those of `change` among them.
    pub async fn change(
        &self,
        id: &DeviceId,
        precondition: &Precondition,
        by: &Origin,
        mut change: impl FnMut(&mut Device) -> Result<(), OperationError>,
    ) -> Result<Device, OperationError> {
        let mut written = None;
        for _ in 0..Self::TRIES {
            let found = self.find(id).await?;
            if written.as_ref() == Some(&found) {
                // The write took effect, its answer was lost, and the next one met our own item.
                return Ok(found);
            }
            if !precondition.holds(&found.etag()) {
                return Err(OperationError::PreconditionFailed);
            }
            let mut device = found.clone();
            change(&mut device)?;
            if device.attestation != found.attestation {
                self.check_key(&device).await?;
            }
            if device == found || self.registry.replace(&device, found.version, by).await? {
                return Ok(device);
            }
            written = Some(device);
        }
        Err(OperationError::Contended)
    }

    /// Refuses a key that another device has: the device would be refused when it asks for a certificate.
    async fn check_key(&self, device: &Device) -> Result<(), OperationError> {
        let Attestation::PublicKey { key } = &device.attestation else { return Ok(()) };
        match self.registry.owner_of(key).await? {
            Some(owner) if owner != device.id => Err(OperationError::KeyInUse { owner }),
            _ => Ok(()),
        }
    }

    /// Deletes a device. Its id is free at once; what it was on the platform goes in the moments that follow.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn delete(
        &self,
        id: &DeviceId,
        precondition: &Precondition,
        by: &Origin,
        now: Timestamp,
    ) -> Result<(), OperationError> {
        let mut tried: Option<GenerationId> = None;
        for _ in 0..Self::TRIES {
            let found = match self.registry.find(id).await? {
                // It is gone after we tried: the write took effect, and its answer was lost.
                None if tried.is_some() => return Ok(()),
                Some(found) if tried.is_some_and(|tried| tried != found.generation) => return Ok(()),
                None => return Err(OperationError::NotFound),
                Some(found) => found,
            };
            if !precondition.holds(&found.etag()) {
                return Err(OperationError::PreconditionFailed);
            }
            let (version, generation) = (found.version, found.generation);
            if self.registry.remove(&found.bury(now), version, by).await? {
                return Ok(());
            }
            tried = Some(generation);
        }
        Err(OperationError::Contended)
    }

    /// Makes a module on a device.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn create_module(
        &self,
        device: &DeviceId,
        module: &ModuleId,
        settings: &ModuleSettings,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Module, OperationError> {
        let generation = GenerationId::random().map_err(|_| OperationError::Randomness)?;
        let made = Module {
            managed_by: settings.managed_by.clone().flatten(),
            ..Module::new(generation, settings.attestation.clone().unwrap_or(Attestation::Nothing), now)
        };
        self.change(device, &Precondition::Exists, by, |device| {
            if device.modules.contains_key(module) {
                return Err(OperationError::ModuleExists);
            }
            if device.modules.len() >= Module::MAX_PER_DEVICE {
                return Err(OperationError::TooManyModules);
            }
            device.put_module(module.clone(), made.clone(), now);
            Ok(())
        })
        .await?;
        Ok(made)
    }

    /// Changes a module.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn change_module(
        &self,
        device: &DeviceId,
        module: &ModuleId,
        precondition: &Precondition,
        settings: &ModuleSettings,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Module, OperationError> {
        let changed = self.change(device, &Precondition::Exists, by, |device| {
            let found = device.modules.get(module).ok_or(OperationError::ModuleNotFound)?;
            if !precondition.holds(&found.etag()) {
                return Err(OperationError::PreconditionFailed);
            }
            let mut set = found.clone();
            set.attestation = settings.attestation.clone().unwrap_or(set.attestation);
            set.managed_by = settings.managed_by.clone().unwrap_or(set.managed_by);
            if set != *found {
                set.version += 1;
                set.updated_at = now;
                device.put_module(module.clone(), set, now);
            }
            Ok(())
        });
        changed.await?.modules.remove(module).ok_or(OperationError::ModuleNotFound)
    }

    /// Deletes a module.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn delete_module(
        &self,
        device: &DeviceId,
        module: &ModuleId,
        precondition: &Precondition,
        by: &Origin,
        now: Timestamp,
    ) -> Result<(), OperationError> {
        self.change(device, &Precondition::Exists, by, |device| {
            let found = device.modules.get(module).ok_or(OperationError::ModuleNotFound)?;
            if !precondition.holds(&found.etag()) {
                return Err(OperationError::PreconditionFailed);
            }
            device.remove_module(module, now);
            Ok(())
        })
        .await
        .map(|_| ())
    }
}

/// What an operator sets of a module. What is `None` is left as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ModuleSettings {
    /// How it proves itself.
    pub attestation: Option<Attestation>,
    /// Who manages it; `Some(None)` is nobody.
    pub managed_by: Option<Option<ModuleManager>>,
}
