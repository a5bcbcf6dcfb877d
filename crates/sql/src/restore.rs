//! A device that an export wrote, put back with its certificates.

use cvm_provisioning::{
    Certificate, CertificateId, Device, LedgerEntry, NotRestored, Origin, RegistryWrite, Standing, State, ThingName,
    Timestamp,
};

use crate::connection::Connection;
use crate::error::SqlError;
use crate::issuers::Issuers;
use crate::{devices, index, keys, ledger};

/// Puts the device back; `false` where the id is taken.
pub(crate) fn restore(
    connection: &mut dyn Connection,
    issuers: &Issuers,
    device: &Device,
    by: &Origin,
    now: Timestamp,
) -> Result<Result<bool, NotRestored>, SqlError> {
    if devices::lock(connection, &device.id)?.is_some() {
        return Ok(Ok(false));
    }
    let certificates = device.credential.iter().map(|credential| (credential.certificate, &credential.thing));
    let superseded = device.superseded.iter().map(|superseded| (superseded.certificate, &superseded.thing));
    let superseded: Vec<_> = superseded.collect();
    for (certificate, thing) in certificates.chain(superseded.iter().copied()) {
        if let Err(refused) = check(connection, device, &certificate, thing)? {
            return Ok(Err(refused));
        }
    }
    for key in device.keys() {
        if let Some(owner) = keys::other_owner(connection, &key, &device.id)? {
            return Ok(Err(NotRestored::KeyInUse { key, owner }));
        }
    }
    if issuers.are_own()
        && let Err(refused) = enter(connection, issuers, device)?
    {
        return Ok(Err(refused));
    }
    for (certificate, _) in superseded.iter().filter(|_| issuers.are_own()) {
        if ledger::locked_entry(connection, certificate)?.is_none() {
            let device = &device.id;
            tracing::warn!(%device, %certificate, "an earlier certificate of a restored device cannot be revoked with the device: the export does not have it; revoke it with `cvm ca revoke FILE`");
        }
    }
    keys::claim_all(connection, &device.keys(), &device.id)?;
    let told = RegistryWrite::restored(device.clone(), by.clone(), now);
    devices::insert(connection, device, Some(&told))?;
    Ok(Ok(true))
}

/// Checks that no other device has the certificate, and that it is not revoked.
fn check(
    connection: &mut dyn Connection,
    device: &Device,
    certificate: &CertificateId,
    thing: &ThingName,
) -> Result<Result<(), NotRestored>, SqlError> {
    if index::owner(connection, certificate)?.is_some() {
        return Ok(Err(NotRestored::OtherDevice(*certificate)));
    }
    Ok(match ledger::locked_entry(connection, certificate)? {
        Some(entry) if entry.thing != *thing => Err(NotRestored::OtherDevice(*certificate)),
        Some(entry) if entry.standing == Standing::Revoked && device.state != State::Revoked => {
            Err(NotRestored::Revoked(*certificate))
        }
        _ => Ok(()),
    })
}

/// Enters the device's certificate into the ledger where it is missing, so that it can be revoked.
fn enter(
    connection: &mut dyn Connection,
    issuers: &Issuers,
    device: &Device,
) -> Result<Result<(), NotRestored>, SqlError> {
    let Some(credential) = &device.credential else { return Ok(Ok(())) };
    let stranger = NotRestored::Stranger(credential.certificate);
    let Ok(certificate) = Certificate::parse(&credential.pem) else { return Ok(Err(stranger)) };
    let Some(issued) = issuers.recognize(&certificate) else { return Ok(Err(stranger)) };
    // These certificates name their devices.
    if certificate.common_name() != Ok(Some(device.id.clone())) || credential.thing.as_str() != device.id.as_str() {
        return Ok(Err(NotRestored::OtherDevice(credential.certificate)));
    }
    if ledger::locked_entry(connection, &credential.certificate)?.is_some() {
        return Ok(Ok(()));
    }
    if ledger::has_serial(connection, &issued.issuer, &issued.serial)? {
        return Ok(Err(stranger));
    }
    let entry = LedgerEntry {
        id: credential.certificate,
        issuer: issued.issuer,
        serial: issued.serial,
        pem: credential.pem.clone(),
        thing: credential.thing.clone(),
        not_after: credential.not_after,
        standing: match (device.state, device.status.enabled) {
            (State::Revoked, _) => Standing::Revoked,
            (_, false) => Standing::Inactive,
            (_, true) => Standing::Active,
        },
        since: device.updated_at,
    };
    ledger::enter_restored(connection, &entry, &device.id)?;
    Ok(Ok(()))
}
