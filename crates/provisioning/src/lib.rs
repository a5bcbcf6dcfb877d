//! The decision behind every door: *this device says it is X and offers this proof and this key; may it become X, and
//! what does it get?*
//!
//! The crate knows no AWS, no HTTP, no SQL and has no clock of its own. A door decodes its event into a request,
//! calls the decision and encodes the answer; the ports at the edge carry the effects.

mod device_id;

pub use device_id::{DeviceId, InvalidDeviceId};
