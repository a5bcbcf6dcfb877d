use crate::{Attestation, Device, ETag, GenerationId, ModuleId, ModuleManager, Timestamp};

/// An identity of its own on a device, such as one program among several. It is kept for the platform's tools: cvm
/// provisions devices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Module {
    /// New each time the id is deleted and made again.
    pub generation: GenerationId,
    /// One more with each change.
    pub version: u64,
    /// How it proves itself.
    pub attestation: Attestation,
    /// Who manages it.
    pub managed_by: Option<ModuleManager>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Module {
    /// The most modules on a device.
    pub const MAX_PER_DEVICE: usize = 50;

    /// A module that has just been made.
    pub const fn new(generation: GenerationId, attestation: Attestation, now: Timestamp) -> Self {
        Self { generation, version: 1, attestation, managed_by: None, created_at: now, updated_at: now }
    }

    /// What names this very state of it.
    pub fn etag(&self) -> ETag {
        ETag::of(self.generation, self.version)
    }
}

impl Device {
    /// Puts a module on the device, in the place of an earlier one of that id.
    pub fn put_module(&mut self, id: ModuleId, module: Module, now: Timestamp) {
        self.modules.insert(id, module);
        self.touch(now);
    }

    /// Removes a module; `false` where there is none.
    pub fn remove_module(&mut self, id: &ModuleId, now: Timestamp) -> bool {
        let there = self.modules.remove(id).is_some();
        if there {
            self.touch(now);
        }
        there
    }
}
