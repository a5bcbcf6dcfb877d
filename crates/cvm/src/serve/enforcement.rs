//! What follows from decisions: certificates lose their power, and the revocation list says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cvm_authority::{Authority, Crl, RevokedCertificate};
use cvm_provisioning::{CertificateLedger as _, Cursors as _, RegistryError, Timestamp, end_successions};
use cvm_sql::SqlRegistry;

use super::decisions::{AT_ONCE, Decisions};
use super::own::OwnCa;
use super::published::{Documents, Published};
use super::{ServeError, now};
use crate::ca_key::CaKey;
use crate::error::with_causes;
use crate::file;
use crate::own_ca::{OwnAuthority, root_list};

/// How long a revocation list is believed. A new one is made four times in this time, and with every decision.
const LIST_VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);
/// The place in the registry that has the number of the last list.
pub(super) const LIST_NUMBER: &str = "crl-number";

/// The revocation lists as they are given out, and the CA's certificates.
#[derive(Clone, Debug, Default)]
pub(super) struct Revocations {
    bundle: Arc<RwLock<String>>,
    lists: Arc<RwLock<String>>,
    published: Published,
}

impl Revocations {
    /// The certificates of the CAs in PEM, that of the one that issues first.
    pub(super) fn bundle(&self) -> String {
        self.bundle.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, each by itself.
    pub(super) fn published(&self) -> Published {
        self.published.clone()
    }

    /// The revocation lists, in PEM.
    pub(super) fn pem(&self) -> String {
        self.lists.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn put(place: &RwLock<String>, text: String) {
    *place.write().unwrap_or_else(PoisonError::into_inner) = text;
}

/// Says that lists are due with a number of their own, which it returns: each server that has made none with it makes its own.
pub(super) async fn announce_lists(registry: &SqlRegistry, now: Timestamp) -> Result<u64, RegistryError> {
    // A list that is made later has a higher number, whatever the clock says.
    let last = last_number(registry).await?;
    let number = last.map_or(0, |last| last + 1).max(u64::try_from(now.seconds()).unwrap_or_default());
    registry.move_to(LIST_NUMBER, Some(&number.to_string())).await?;
    Ok(number)
}

async fn last_number(registry: &SqlRegistry) -> Result<Option<u64>, RegistryError> {
    Ok(registry.place(LIST_NUMBER).await?.and_then(|number| number.parse().ok()))
}

/// Whether lists that were made at this time have to be made again. A clock that was ahead when they were made and is right
/// by now counts, too: such lists are not valid yet.
fn is_due(made: Timestamp, now: Timestamp) -> bool {
    now < made || made.until(now) > LIST_VALIDITY / 4
}

/// Does what was decided, for as long as the server runs.
pub(super) struct Enforcement {
    registry: SqlRegistry,
    decisions: Decisions<OwnCa>,
    authority: OwnAuthority,
    revocations: Revocations,
    /// The number of the lists that this server made last.
    made: AtomicU64,
}

impl Enforcement {
    pub(super) fn new(registry: SqlRegistry, decisions: Decisions<OwnCa>, authority: OwnAuthority) -> Self {
        Self { registry, decisions, authority, revocations: Revocations::default(), made: AtomicU64::new(0) }
    }

    /// Enforces what was decided before the server ended, and makes the first lists.
    pub(super) async fn begin(&mut self, now: Timestamp) -> Result<Revocations, ServeError> {
        self.continue_numbers().await?;
        self.decisions.enforce().await;
        self.renew_lists(now).await?;
        Ok(self.revocations.clone())
    }

    /// A registry that was restored may be older than the lists that brokers have. They ignore a list with a lower number than
    /// theirs, so the next one is above it.
    async fn continue_numbers(&self) -> Result<(), ServeError> {
        let published = self.authority.folder.last_list_number().unwrap_or_default();
        if last_number(&self.registry).await?.unwrap_or_default() < published {
            tracing::warn!(
                published,
                "the registry is older than the published revocation lists; their numbers continue"
            );
            self.registry.move_to(LIST_NUMBER, Some(&published.to_string())).await?;
        }
        Ok(())
    }

    /// Never ends.
    pub(super) async fn work(mut self) {
        let mut renewed = now();
        let mut failure = None;
        loop {
            self.decisions.wait().await;
            let rotated = self.refresh_authority(&mut failure).await;
            let enforced = self.decisions.enforce().await;
            let ended = self.end_successions().await;
            let is_needed = rotated || enforced || ended || is_due(renewed, now());
            if is_needed || self.is_overtaken().await {
                let made = if is_needed { self.renew_lists(now()).await } else { self.follow(now()).await };
                match made {
                    Ok(()) => renewed = now(),
                    Err(error) => {
                        let cause: &dyn std::error::Error = &error;
                        tracing::error!(error = cause, "the revocation list was not renewed; it is tried again");
                    }
                }
            }
        }
    }

    /// Reads what is new in the CA's folder, and returns whether there was something. A `failure` is logged when it begins and
    /// when it ends, however often it is tried again.
    async fn refresh_authority(&mut self, failure: &mut Option<String>) -> bool {
        match self.authority.refresh(now()).await {
            Ok(is_new) => {
                if failure.take().is_some() {
                    tracing::info!("the CA's folder can be read again");
                }
                is_new
            }
            Err(error) => {
                let text = with_causes(&error);
                if failure.as_ref() != Some(&text) {
                    tracing::error!(
                        error = text,
                        advice = self.authority.advice(&error),
                        "the CA's folder has changed and cannot be read; the server keeps the CAs that it has and retries"
                    );
                    *failure = Some(text);
                }
                false
            }
        }
    }

    /// Takes certificates out of power that newer ones have taken the place of, and says whether there were any.
    async fn end_successions(&self) -> bool {
        match end_successions(&self.registry, now(), AT_ONCE).await {
            Ok(ended) => ended > 0,
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "superseded certificates keep their power; it is tried again");
                false
            }
        }
    }

    /// Signs new lists. Their number is written down before it is looked what belongs into them: of servers that do so at
    /// once, none has the last number and not the last revocation.
    async fn renew_lists(&self, now: Timestamp) -> Result<(), ServeError> {
        let number = announce_lists(&self.registry, now).await?;
        self.make_lists(number, now).await
    }

    /// Signs what another server on the same registry has signed, too.
    async fn follow(&self, now: Timestamp) -> Result<(), ServeError> {
        let last = last_number(&self.registry).await?;
        self.make_lists(last.unwrap_or_default(), now).await
    }

    /// Whether another server has made lists since this one did. One that cannot tell goes on with those that it has.
    async fn is_overtaken(&self) -> bool {
        let made = self.made.load(Ordering::Relaxed);
        last_number(&self.registry).await.is_ok_and(|last| last.is_some_and(|last| last > made))
    }

    /// Makes the lists, and puts them and the CAs' certificates where brokers read them: over HTTPS, and as files beside
    /// the keys.
    async fn make_lists(&self, number: u64, now: Timestamp) -> Result<(), ServeError> {
        let (mut text, mut documents) = (String::new(), Documents::default());
        let OwnAuthority { authorities, root, folder, .. } = &self.authority;
        for authority in authorities.load().iter() {
            let list = self.list(authority, number, now).await?;
            text.push_str(list.pem());
            documents.add_certificate(authority.certificate());
            documents.add_list(authority.certificate(), list.der(), list.pem());
        }
        documents.add_certificate(root.certificate());
        if let Some(list) = root_list(folder, root, now).await? {
            text.push_str(&list.pem);
            documents.add_list(root.certificate(), &list.der, &list.pem);
        }
        // Whoever reads a list of a CA finds the CA.
        put(&self.revocations.bundle, self.authority.publish(now)?);
        file::replace(&folder.lists_path(), &text)?;
        put(&self.revocations.lists, text);
        self.revocations.published.put(documents);
        self.made.store(number, Ordering::Relaxed);
        Ok(())
    }

    async fn list(&self, authority: &Authority<CaKey>, number: u64, now: Timestamp) -> Result<Crl, ServeError> {
        let issuer = authority.certificate().key().to_string();
        let ends_after = now.before(LIST_VALIDITY).before(RevokedCertificate::MARGIN);
        let powerless = self.registry.without_power(&issuer, ends_after).await?;
        let revoked = powerless.iter().filter_map(RevokedCertificate::of_entry);
        Ok(authority.sign_crl(revoked, number, LIST_VALIDITY, now).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_38_lists_are_made_again_after_six_hours_and_when_the_clock_goes_back() {
        let made = Timestamp::from_seconds(1_800_000_000);
        let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
        assert!(!is_due(made, made) && !is_due(made, made.after(hours(6))));
        assert!(is_due(made, made.after(hours(7))));
        // The clock was a year ahead.
        assert!(is_due(made, made.before(hours(365 * 24))));
    }
}
