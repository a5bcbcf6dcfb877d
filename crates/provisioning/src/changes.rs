//! Every change of the registry that the domain makes, over any store: read, decide, compare and swap. Whoever loses the
//! race reads again, and decides again.

use crate::{
    Attempt, Beside, Change, Claim, ClaimChange, Credential, Decision, Denial, Device, DeviceChange, DeviceId,
    DeviceStore, LedgerChange, LedgerEntry, Leftover, Origin, Put, Refusal, RegistryError, Remains, ReservationLost,
    Reserve, Tombstone,
};

/// Lost races before a change is given up.
pub(crate) const TRIES: usize = 8;

/// The changes; every store has them.
pub trait Changes: DeviceStore {
    /// Registers a device; `false` where the id is taken, which changes nothing.
    fn add(&self, device: &Device, by: &Origin) -> impl Future<Output = Result<bool, RegistryError>> + Send {
        let mut change = Change::of(DeviceChange::Add(device.clone()), by);
        change.if_free = device.keys();
        async move { Ok(self.put(&change).await? == Put::Done) }
    }

    /// Puts `device` in the place of the one that was read at `version`; `false` where it has changed since, which changes
    /// nothing.
    fn replace(
        &self,
        device: &Device,
        version: u64,
        by: &Origin,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send {
        let mut change = Change::of(DeviceChange::Replace { device: device.clone(), version }, by);
        // The key of a device that has a certificate is the device's already.
        change.if_free = device.registered_key().into_iter().filter(|_| device.credential.is_none()).collect();
        async move { Ok(self.put(&change).await? == Put::Done) }
    }

    /// The same with the device as it was read.
    fn swap(
        &self,
        before: &Device,
        after: &Device,
        by: &Origin,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send {
        let change = Change::replace(before, after.clone(), by);
        async move { Ok(self.put(&change).await? == Put::Done) }
    }

    /// Removes the device that was at `version`, and leaves a tombstone; `false` where it has changed since, which changes
    /// nothing.
    fn remove(
        &self,
        tombstone: &Tombstone,
        version: u64,
        by: &Origin,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send {
        let change = Change::of(DeviceChange::Remove { tombstone: tombstone.clone(), version }, by);
        async move { Ok(self.put(&change).await? == Put::Done) }
    }

    /// Reserves the device for this attempt where [`Device::decide`] says [`Decision::Provision`] and no other device
    /// [has](Device::keys) the key of the attempt. In any other case nothing is changed.
    fn reserve(&self, attempt: &Attempt) -> impl Future<Output = Result<Reserve, RegistryError>> + Send {
        async move {
            for _ in 0..TRIES {
                let Some(found) = self.find(&attempt.device).await? else { return Ok(Reserve::Refused(None)) };
                if found.decide(attempt) != Decision::Provision {
                    return Ok(Reserve::Refused(Some(found)));
                }
                let mut held = found.clone();
                held.reserve(attempt);
                match self.hold(&found, &held, attempt).await? {
                    Put::Done => return Ok(Reserve::Held(held)),
                    Put::KeyInUse { owner, .. } => return Ok(Reserve::KeyInUse { owner, device: found }),
                    Put::Changed => {}
                }
            }
            Err(contended())
        }
    }

    /// The one write of [`reserve`](Self::reserve): `held` is what [`Device::reserve`] makes of the device that was just read.
    fn hold(
        &self,
        found: &Device,
        held: &Device,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<Put, RegistryError>> + Send {
        let change = Change::replace(found, held.clone(), &attempt.origin).with_exclusive(attempt.proof.key);
        async move {
            // Where nothing is to be changed, the write took effect before, and its answer was lost.
            if held == found { Ok(Put::Done) } else { self.put(&change).await }
        }
    }

    /// Makes `credential` the device's with [`Device::enrol`], enters its certificate, and takes what is outdated out of power:
    /// for a device that was just read, and for which [`Device::decide`] said [`Decision::Provision`].
    fn enrol(
        &self,
        found: &Device,
        attempt: &Attempt,
        credential: &Credential,
        entry: &LedgerEntry,
    ) -> impl Future<Output = Result<Put, RegistryError>> + Send {
        let mut after = found.clone();
        let outdated = after.enrol(attempt, credential.clone());
        let mut change = Change::replace(found, after, &attempt.origin).with_exclusive(attempt.proof.key);
        change.ledger.push(LedgerChange::Enter(entry.clone()));
        change.ledger.extend(outdated.iter().map(|superseded| superseded.revoked(attempt.now)));
        async move { self.put(&change).await }
    }

    /// Ends the reservation of `held` with success, by the rule of [`Device::commit`].
    fn commit(
        &self,
        held: &Device,
        attempt: &Attempt,
        credential: &Credential,
        beside: &Beside,
    ) -> impl Future<Output = Result<Result<(), ReservationLost>, RegistryError>> + Send {
        async move {
            let mut there = held.clone();
            for _ in 0..TRIES {
                let mut after = there.clone();
                if let Err(lost) = after.commit(attempt.id, credential.clone(), beside.clone(), attempt.now) {
                    return Ok(Err(lost));
                }
                if after == there {
                    // The write took effect before, or another attempt has done it. That one may have no answer yet.
                    return match self.is_recorded(&attempt.device, &credential.certificate).await? {
                        true => Ok(Ok(())),
                        false => Err(RegistryError::Unavailable { source: "the registry forgot a certificate".into() }),
                    };
                }
                if self.swap(&there, &after, &attempt.origin).await? {
                    return Ok(Ok(()));
                }
                let Some(found) = self.find(&attempt.device).await? else {
                    return Ok(Err(ReservationLost { to_same_key: false }));
                };
                there = found;
            }
            Err(contended())
        }
    }

    /// Ends the reservation of `held` without success, at once, by the rule of [`Device::release`]; the next attempt builds
    /// on what is left. Returns the device as it is then, if it is there.
    fn release(
        &self,
        held: &Device,
        attempt: &Attempt,
        left: &Leftover,
        remains: Remains,
    ) -> impl Future<Output = Result<Option<Device>, RegistryError>> + Send {
        async move {
            let mut there = held.clone();
            for _ in 0..TRIES {
                let mut after = there.clone();
                after.release(attempt.id, left.clone(), remains, attempt.now);
                if after == there || self.swap(&there, &after, &attempt.origin).await? {
                    return Ok(Some(after));
                }
                let Some(found) = self.find(&attempt.device).await? else { return Ok(None) };
                there = found;
            }
            Err(contended())
        }
    }

    /// Writes down that an attempt on a device, which was read as `found`, was refused, by the rule of [`Device::refuse`]: a
    /// clone puts the device into quarantine, any other refusal is [counted](DeviceStore::count_refusal). It is one write
    /// whatever the reason, so that the time it takes does not reveal the reason.
    fn refuse(
        &self,
        device: &DeviceId,
        found: Option<&Device>,
        refusal: &Refusal,
        by: &Origin,
    ) -> impl Future<Output = Result<(), RegistryError>> + Send {
        let mut there = found.cloned();
        async move {
            if refusal.denial != Denial::Cloned {
                return self.count_refusal(device, refusal, by).await;
            }
            for _ in 0..TRIES {
                let Some(before) = there else { return Ok(()) };
                let mut after = before.clone();
                after.refuse(refusal);
                if after == before || self.swap(&before, &after, by).await? {
                    return Ok(());
                }
                there = self.find(device).await?;
            }
            Err(contended())
        }
    }

    /// Puts `device`, which was at `version` and is now reserved, in its place, and counts it on its claim.
    fn reserve_with_claim(
        &self,
        claim: &Claim,
        device: &Device,
        version: u64,
        by: &Origin,
    ) -> impl Future<Output = Result<Put, RegistryError>> + Send {
        let count = ClaimChange::Count { claim: claim.certificate, at: device.updated_at };
        let mut change = Change::of(DeviceChange::Replace { device: device.clone(), version }, by);
        change.exclusive.extend(device.reservation.as_ref().map(|held| held.key));
        change.claim = Some(count);
        async move { self.put(&change).await }
    }

    /// Registers a claim that was made out for `device`, which was at `version`, and puts the device in its place; `false`
    /// where it has changed since.
    fn make_out(
        &self,
        claim: &Claim,
        device: &Device,
        version: u64,
        by: &Origin,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send {
        let mut change = Change::of(DeviceChange::Replace { device: device.clone(), version }, by);
        change.claim = Some(ClaimChange::MakeOut(claim.clone()));
        async move { Ok(self.put(&change).await? == Put::Done) }
    }
}

impl<S: DeviceStore> Changes for S {}

pub(crate) fn contended() -> RegistryError {
    RegistryError::Throttled { source: "others keep changing the device".into() }
}
