//! The registry as `cvm device` works on it: a table that it writes to itself, or a server that it asks.

use std::collections::BTreeSet;

use cvm_bulk::{ExportFormat, Import, ImportRegistry, Refused};
use cvm_interchange::{DeviceDocument, ImportLine, Keys, UnknownDeviceTold};
use cvm_provisioning::{
    Device, DeviceFilter, DeviceId, DeviceStore, ETag, Imported, OperationError, Operations, Origin, Precondition,
    ReasonText, RegistryError, Settings, Verdict,
};

use super::DeviceError;
use super::add::AddError;
use crate::registry::{now, origin};

/// What operators have done with devices, wherever the registry is.
pub(crate) trait DeviceRegistry: ImportRegistry<Error: Into<DeviceError>> {
    /// The words that tell `cvm vend` where the vending API is.
    fn vending_words(&self) -> String {
        "--url URL".to_owned()
    }

    /// Registers a device.
    async fn add(&self, id: &DeviceId, settings: &Settings) -> Result<DeviceDocument, DeviceError>;

    /// The device as it is at this moment.
    async fn find(&self, id: &DeviceId) -> Result<DeviceDocument, DeviceError>;

    /// What is known of a device that is not registered and that asked; nothing where that is in a log alone.
    async fn unknown(&self, _id: &DeviceId) -> Result<Option<UnknownDeviceTold>, DeviceError> {
        Ok(None)
    }

    /// At most `limit` of the devices that `filter` lets through, from where a list before ended.
    async fn list(&self, filter: &DeviceFilter, after: Option<&str>, limit: u16) -> Result<Listed, DeviceError>;

    /// The same in a format of exports, with the digests of tokens where `digests` says so and the format has them.
    async fn export(
        &self,
        filter: &DeviceFilter,
        after: Option<&str>,
        limit: u16,
        format: ExportFormat,
        digests: bool,
    ) -> Result<Exported, DeviceError>;

    /// Changes a device, and returns what it is then. With the `expected` entity tag, only if the device still has that.
    async fn change(
        &self,
        id: &DeviceId,
        change: &Change,
        expected: Option<&ETag>,
    ) -> Result<DeviceDocument, DeviceError>;

    /// Deletes a device. With the `expected` entity tag, only if the device still has that.
    async fn delete(&self, id: &DeviceId, expected: Option<&ETag>) -> Result<(), DeviceError>;
}

/// What an operator has done to one device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// Its quarantine ends.
    Approve(Verdict),
    /// It is refused from now on.
    Disable(ReasonText),
    /// It is let in again, and its wrong proofs are forgotten.
    Enable,
    /// It is provisioned once more.
    Renew,
    /// Its certificates are withdrawn for good.
    Revoke(ReasonText),
}

/// A part of a list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) devices: Vec<DeviceDocument>,
    /// Where the list goes on, if it does.
    pub(crate) next: Option<String>,
}

/// A part of an export.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) text: Vec<u8>,
    pub(crate) devices: u64,
    /// Where the export goes on, if it does.
    pub(crate) next: Option<String>,
}

/// Devices that are asked for at once: the most that a server answers. DynamoDB's Scan ends a page at a megabyte by itself.
pub(crate) const PAGE: u16 = 1_000;

/// A table, or any other store, that is written to from here.
#[derive(Debug)]
pub(crate) struct Table<R> {
    pub(super) operations: Operations<R>,
    by: Origin,
}

impl<R> Table<R> {
    pub(crate) fn new(registry: R) -> Self {
        Self { operations: Operations { registry }, by: origin() }
    }

    const fn import(&self) -> Import<'_, R> {
        Import { operations: &self.operations, by: &self.by, clock: now, dry_run: false }
    }
}

impl<R: DeviceStore> Table<R> {
    async fn page(
        &self,
        filter: &DeviceFilter,
        after: Option<&str>,
        limit: u16,
    ) -> Result<(Vec<Device>, Option<String>), DeviceError> {
        // It is the id that the page before has ended with.
        let after = after.and_then(|after| after.parse().ok());
        let page = self.operations.registry.list(filter, after.as_ref(), limit).await?;
        Ok((page.devices, page.next.map(String::from)))
    }
}

impl<R: DeviceStore> DeviceRegistry for Table<R> {
    async fn add(&self, id: &DeviceId, settings: &Settings) -> Result<DeviceDocument, DeviceError> {
        match self.operations.create(id.clone(), settings.clone(), &self.by, now()).await {
            Err(OperationError::Exists) => Err(AddError::Exists { id: id.clone() }.into()),
            Err(error @ OperationError::KeyInUse { .. }) => {
                Err(AddError::KeyInUse { message: error.to_string() }.into())
            }
            added => added.map(|device| told(&device)).map_err(DeviceError::of(id)),
        }
    }

    async fn find(&self, id: &DeviceId) -> Result<DeviceDocument, DeviceError> {
        self.operations.find(id).await.map(|device| told(&device)).map_err(DeviceError::of(id))
    }

    async fn list(&self, filter: &DeviceFilter, after: Option<&str>, limit: u16) -> Result<Listed, DeviceError> {
        let (devices, next) = self.page(filter, after, limit).await?;
        Ok(Listed { devices: devices.iter().map(told).collect(), next })
    }

    async fn export(
        &self,
        filter: &DeviceFilter,
        after: Option<&str>,
        limit: u16,
        format: ExportFormat,
        digests: bool,
    ) -> Result<Exported, DeviceError> {
        let (devices, next) = self.page(filter, after, limit).await?;
        let mut text = Vec::new();
        for device in &devices {
            format.write(device, digests, &mut text).map_err(DeviceError::Output)?;
        }
        Ok(Exported { text, devices: devices.len() as u64, next })
    }

    async fn change(
        &self,
        id: &DeviceId,
        change: &Change,
        expected: Option<&ETag>,
    ) -> Result<DeviceDocument, DeviceError> {
        let precondition = precondition(expected);
        let changed = self.operations.change(id, &precondition, &self.by, |device| change.make(device));
        changed.await.map(|device| told(&device)).map_err(DeviceError::of(id))
    }

    async fn delete(&self, id: &DeviceId, expected: Option<&ETag>) -> Result<(), DeviceError> {
        self.operations.delete(id, &precondition(expected), &self.by, now()).await.map_err(DeviceError::of(id))
    }
}

impl<R: DeviceStore> ImportRegistry for Table<R> {
    type Error = RegistryError;

    async fn there(&self, devices: Vec<DeviceId>) -> Result<BTreeSet<DeviceId>, RegistryError> {
        self.import().there(devices).await
    }

    async fn write(
        &self,
        lines: &[ImportLine],
        again: bool,
        told: impl FnMut(&ImportLine, Result<Imported, Refused>),
    ) -> Result<(), RegistryError> {
        self.import().write(lines, again, told).await
    }
}

fn precondition(expected: Option<&ETag>) -> Precondition {
    expected.map_or(Precondition::Exists, |etag| Precondition::IsOneOf(vec![etag.clone()]))
}

impl Change {
    fn make(&self, device: &mut Device) -> Result<(), OperationError> {
        match self {
            Self::Approve(verdict) => device.approve(*verdict, now())?,
            Self::Disable(reason) => device.disable(Some(reason.clone()), now()),
            Self::Enable => device.enable(None, now()),
            Self::Renew => device.renew(now())?,
            Self::Revoke(reason) => device.revoke(reason.clone(), now())?,
        }
        Ok(())
    }
}

/// What is told of a device by a table: who is connected, it does not know.
pub(super) fn told(device: &Device) -> DeviceDocument {
    DeviceDocument::new(device, None, &Keys::default())
}
