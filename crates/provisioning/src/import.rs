//! One line of an import, and what becomes of it. Again is the same as once, wherever the mode lets it be.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Device, DeviceId, DeviceStore, ETag, ModuleId, ModuleSettings, NotRestored, OperationError, Operations, Origin,
    Precondition, RegistryError, Settings, Timestamp,
};

/// What a line of an import asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImportEntry {
    /// The device.
    pub id: DeviceId,
    /// The module on it, where the line is about one, and what is set of it.
    pub module: Option<(ModuleId, ModuleSettings)>,
    /// The state that it has to be in, for the modes that ask for one.
    pub etag: Option<ETag>,
    /// What is to be done.
    pub mode: ImportMode,
    /// What is set of the device.
    pub settings: Settings,
}

/// What is to be done with a device or a module of an import (Azure IoT Hub's `importMode`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum ImportMode {
    /// Register it; it is an error if it is there.
    Create,
    /// Register it, or set it as the line says.
    #[default]
    CreateOrUpdate,
    /// The same, but one that is there has to be in the state that the entity tag names.
    CreateOrUpdateIfMatchETag,
    /// Delete it; it is an error if it is not there.
    Delete,
    /// The same, and it has to be in the state that the entity tag names.
    DeleteIfMatchETag,
    /// Set it as the line says; it is an error if it is not there.
    Update,
    /// The same, and it has to be in the state that the entity tag names.
    UpdateIfMatchETag,
}

impl ImportMode {
    /// Every mode there is.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::CreateOrUpdate,
        Self::CreateOrUpdateIfMatchETag,
        Self::Delete,
        Self::DeleteIfMatchETag,
        Self::Update,
        Self::UpdateIfMatchETag,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::CreateOrUpdate => "createOrUpdate",
            Self::CreateOrUpdateIfMatchETag => "createOrUpdateIfMatchETag",
            Self::Delete => "delete",
            Self::DeleteIfMatchETag => "deleteIfMatchETag",
            Self::Update => "update",
            Self::UpdateIfMatchETag => "updateIfMatchETag",
        }
    }
}

impl FromStr for ImportMode {
    type Err = InvalidImportMode;

    /// Reads a mode, in capitals or without: tools differ.
    fn from_str(text: &str) -> Result<Self, InvalidImportMode> {
        Self::ALL.into_iter().find(|mode| mode.name().eq_ignore_ascii_case(text)).ok_or(InvalidImportMode)
    }
}

impl TryFrom<String> for ImportMode {
    type Error = InvalidImportMode;

    fn try_from(text: String) -> Result<Self, InvalidImportMode> {
        text.parse()
    }
}

impl From<ImportMode> for &'static str {
    fn from(mode: ImportMode) -> Self {
        mode.name()
    }
}

/// A text is no [`ImportMode`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "importMode is create, createOrUpdate, update, delete, or one of the latter three with IfMatchETag at its end; \
     twins are not kept here"
)]
pub struct InvalidImportMode;

/// How far the clock that wrote an export may be ahead of the one that restores it.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// What became of a line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Imported {
    /// It was registered.
    Created,
    /// It was deleted.
    Deleted,
    /// It was as the line says already.
    Unchanged,
    /// It was set as the line says.
    Updated,
}

impl<R: DeviceStore> Operations<R> {
    /// Does what a line of an import asks for.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn import(&self, entry: &ImportEntry, by: &Origin, now: Timestamp) -> Result<Imported, OperationError> {
        let precondition = match (entry.mode, &entry.etag) {
            (
                ImportMode::CreateOrUpdateIfMatchETag | ImportMode::DeleteIfMatchETag | ImportMode::UpdateIfMatchETag,
                etag,
            ) => Precondition::IsOneOf(etag.iter().cloned().collect()),
            _ => Precondition::Exists,
        };
        match &entry.module {
            Some((module, settings)) => self.import_module(entry, module, settings, &precondition, by, now).await,
            None => self.import_device(entry, &precondition, by, now).await,
        }
    }

    /// What was done for this entry before, if the registry is as if it had been done: an import that was cut off, or
    /// whose answer was lost, asks for it again.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn was_done(&self, entry: &ImportEntry, now: Timestamp) -> Result<Option<Imported>, RegistryError> {
        let found = self.registry.find(&entry.id).await?;
        let deletes = matches!(entry.mode, ImportMode::Delete | ImportMode::DeleteIfMatchETag);
        let done = match (&entry.module, found) {
            (None, None) => deletes.then_some(Imported::Deleted),
            (Some((module, _)), Some(device)) if deletes => {
                (!device.modules.contains_key(module)).then_some(Imported::Deleted)
            }
            (Some((module, settings)), Some(device)) => device.modules.get(module).and_then(|there| {
                let same = settings.attestation.as_ref().is_none_or(|attestation| *attestation == there.attestation);
                same.then_some(Imported::Created)
            }),
            (None, Some(device)) if !deletes => {
                let mut set = device.clone();
                let as_it_says = entry.settings.clone().apply(&mut set, now).is_ok() && set == device;
                as_it_says.then_some(Imported::Created)
            }
            _ => None,
        };
        Ok(done)
    }

    /// Puts a device back as it was if its id is free. If the same device is there already, it is unchanged.
    ///
    /// # Errors
    ///
    /// [`OperationError`].
    pub async fn restore(&self, device: &Device, by: &Origin, now: Timestamp) -> Result<Imported, OperationError> {
        let last = device.last_moment();
        if last > now.after(CLOCK_SKEW) {
            return Err(NotRestored::Ahead(last).into());
        }
        // A store may take a second registration of the same device for a repeated first one, so it is asked before.
        match self.registry.find(&device.id).await? {
            Some(found) if found.is_but_for_refusals(device) => Ok(Imported::Unchanged),
            Some(_) => Err(OperationError::Exists),
            None if self.registry.restore(device, by, now).await?? => Ok(Imported::Created),
            None => Err(OperationError::Exists),
        }
    }

    async fn import_device(
        &self,
        ImportEntry { id, mode, settings, .. }: &ImportEntry,
        precondition: &Precondition,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Imported, OperationError> {
        let create = async || self.create(id.clone(), settings.clone(), by, now).await.map(|_| Imported::Created);
        let update = async || {
            let mut imported = Imported::Unchanged;
            self.change(id, precondition, by, |device| {
                let version = device.version;
                settings.clone().apply(device, now)?;
                imported = if device.version == version { Imported::Unchanged } else { Imported::Updated };
                Ok(())
            })
            .await
            .map(|_| imported)
        };
        match mode {
            ImportMode::Create => create().await,
            ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag => match create().await {
                Err(OperationError::Exists) => update().await,
                created => created,
            },
            ImportMode::Update | ImportMode::UpdateIfMatchETag => update().await,
            ImportMode::Delete | ImportMode::DeleteIfMatchETag => {
                self.delete(id, precondition, by, now).await.map(|()| Imported::Deleted)
            }
        }
    }

    async fn import_module(
        &self,
        ImportEntry { id, mode, .. }: &ImportEntry,
        module: &ModuleId,
        settings: &ModuleSettings,
        precondition: &Precondition,
        by: &Origin,
        now: Timestamp,
    ) -> Result<Imported, OperationError> {
        let create = async || self.create_module(id, module, settings, by, now).await.map(|_| Imported::Created);
        let update = async || {
            let changed = self.change_module(id, module, precondition, settings, by, now).await?;
            Ok(if changed.updated_at == now { Imported::Updated } else { Imported::Unchanged })
        };
        match mode {
            ImportMode::Create => create().await,
            ImportMode::CreateOrUpdate | ImportMode::CreateOrUpdateIfMatchETag => match create().await {
                Err(OperationError::ModuleExists) => update().await,
                created => created,
            },
            ImportMode::Update | ImportMode::UpdateIfMatchETag => update().await,
            ImportMode::Delete | ImportMode::DeleteIfMatchETag => {
                self.delete_module(id, module, precondition, by, now).await.map(|()| Imported::Deleted)
            }
        }
    }
}
