//! Revocation lists that were signed before, looked at.

use std::path::Path;

use cvm_provisioning::{Certificate, Timestamp};
use x509_parser::pem::{Pem, parse_x509_pem};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaFolder, OwnCaError, Root};
use crate::file::{self, FileError};

/// What is known of a list without trusting it: it is of our own folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ListFacts {
    /// The name of its CA, in DER.
    pub(crate) issuer: Vec<u8>,
    pub(crate) number: u64,
    pub(crate) entries: usize,
    pub(crate) this_update: Timestamp,
    pub(crate) next_update: Option<Timestamp>,
}

/// The largest file of lists that is looked at, in bytes: those of a million certificates.
const MAX_LISTS: usize = 64 * 1024 * 1024;
/// How long the root's list is believed: its key may be somewhere else for as long. Others fetch it anew with every list
/// of those that issue, so that it can say something new at any time.
const VALIDITY: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 60 * 60);
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
/// How long before its end it is said that somebody has to bring the root's key.
const NOTICE: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 60 * 60);

/// The lists in a file; none where it is not there.
pub(crate) fn read(path: &Path) -> Result<Vec<ListFacts>, OwnCaError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = file::read_text(path, MAX_LISTS)?;
    let facts: Option<Vec<ListFacts>> =
        Pem::iter_from_buffer(text.as_bytes()).map(|block| facts(&block.ok()?)).collect();
    facts.ok_or_else(|| FileError::NotText { path: path.to_owned() }.into())
}

/// Whether one of the lists in a file has this certificate.
pub(crate) fn has_revoked(path: &Path, certificate: &Certificate) -> Result<bool, OwnCaError> {
    if !path.exists() {
        return Ok(false);
    }
    let (text, der) = (file::read_text(path, MAX_LISTS)?, certificate.der());
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Ok(false) };
    let has_it = |block: &Pem| {
        let list = x509_parser::parse_x509_crl(&block.contents).ok().map(|(_, list)| list);
        list.filter(|list| list.issuer() == certificate.issuer()).is_some_and(|list| {
            list.iter_revoked_certificates().any(|revoked| revoked.serial() == &certificate.tbs_certificate.serial)
        })
    };
    Ok(Pem::iter_from_buffer(text.as_bytes()).flatten().any(|block| has_it(&block)))
}

fn facts(block: &Pem) -> Option<ListFacts> {
    let (_, list) = x509_parser::parse_x509_crl(&block.contents).ok()?;
    Some(ListFacts {
        issuer: list.issuer().as_raw().to_vec(),
        number: list.crl_number().and_then(|number| number.try_into().ok()).unwrap_or_default(),
        entries: list.iter_revoked_certificates().count(),
        this_update: Timestamp::from_seconds(list.last_update().timestamp()),
        next_update: list.next_update().map(|moment| Timestamp::from_seconds(moment.timestamp())),
    })
}

/// The root's list: a new one where its key is at hand and the last one is not of today, else the last one. It is empty,
/// because the root issues to nobody but CAs.
pub(crate) async fn of_root(folder: &CaFolder, root: &Root, now: Timestamp) -> Result<Option<RootList>, OwnCaError> {
    let path = folder.root_list_path();
    // One that cannot be read is replaced, or it would never be.
    let last = read(&path).ok().and_then(|lists| lists.into_iter().next());
    let end = last.as_ref().and_then(|last| last.next_update).unwrap_or(Timestamp::from_seconds(0));
    // The clock was ahead when it was made: nobody believes it yet.
    let is_early = last.as_ref().is_some_and(|last| last.this_update > now);
    match root.authority() {
        Some(root) if is_early || now.until(end) < VALIDITY.saturating_sub(DAY) => {
            let seconds = u64::try_from(now.seconds()).unwrap_or_default();
            let number = last.map_or(0, |last| last.number + 1).max(seconds);
            let list = root.sign_crl([], number, VALIDITY, now).await?;
            file::replace(&path, list.pem())?;
            return Ok(Some(RootList { der: list.der().to_vec(), pem: list.pem().to_owned() }));
        }
        None if is_early => {
            tracing::warn!("the root's revocation list is not valid yet: put the root's key back for a moment");
        }
        None if now.until(end) < NOTICE => {
            tracing::warn!(until = %end, "the root's revocation list ends: put its key back for a moment");
        }
        _ => {}
    }
    if !path.exists() {
        return Ok(None);
    }
    let pem = file::read_text(&path, MAX_LISTS)?;
    let block = parse_x509_pem(pem.as_bytes()).map_err(|_| FileError::NotText { path })?;
    Ok(Some(RootList { der: block.1.contents, pem }))
}

/// The root's revocation list in both of its forms.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RootList {
    pub(crate) der: Vec<u8>,
    pub(crate) pem: String,
}
