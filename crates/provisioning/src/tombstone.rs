use std::collections::BTreeSet;

use crate::{Device, Timestamp, Unsettled};

/// What is kept of a device that was deleted until the platform has nothing of it any more. Its id is free at once; the
/// generation tells it from whoever has the id next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tombstone {
    /// The device as it was, changed last when it was deleted.
    pub device: Device,
}

impl Device {
    /// What is left of this device when it is deleted.
    #[must_use]
    pub fn bury(mut self, now: Timestamp) -> Tombstone {
        // Whatever attempts made, and what is being made at this moment, has to be looked for.
        self.unsettled.get_or_insert_with(|| Unsettled { since: now, keys: BTreeSet::new() });
        self.touch(now);
        Tombstone { device: self }
    }
}
