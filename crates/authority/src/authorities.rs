use std::collections::HashSet;
use std::mem;

use cvm_provisioning::{Certificate, CertificateId, DeviceId, KeyFingerprint, PublicKey, Timestamp};

use crate::authority::authority_key_identifier;
use crate::{Authority, IssueError, Issued, Profile, Signer, Unfit};

/// The CA that issues now, those that did before, and the next one.
///
/// What the earlier ones issued is good until it ends, so they are trusted, and sign revocation lists, until they end
/// themselves. The next one does both before it issues, so that its first certificate is trusted everywhere.
#[derive(Debug)]
pub struct Authorities<S> {
    current: Authority<S>,
    others: Vec<Authority<S>>,
}

impl<S: Signer> Authorities<S> {
    /// The CA that issues, and others that do not, in any order. Each has a key and a name of its own: a revocation list is found by the name of its CA, so two of
    /// one name would undo each other's revocations.
    ///
    /// # Errors
    ///
    /// [`SetError`] if two are not told apart.
    pub fn new(current: Authority<S>, others: Vec<Authority<S>>) -> Result<Self, SetError> {
        let mut set = Self { current, others: Vec::new() };
        for authority in others {
            set.check_distinct(&authority)?;
            set.others.push(authority);
        }
        Ok(set)
    }

    /// The CA that issues.
    pub fn current(&self) -> &Authority<S> {
        &self.current
    }

    /// All of them, the one that issues first.
    pub fn iter(&self) -> impl Iterator<Item = &Authority<S>> {
        std::iter::once(&self.current).chain(&self.others)
    }

    /// The CA with this key, which is what [`Issued::issuer`] has.
    pub fn find(&self, issuer: &KeyFingerprint) -> Option<&Authority<S>> {
        self.iter().find(|authority| authority.certificate().key() == issuer)
    }

    /// The CA certificates that a device sends in TLS behind this certificate of its own, as [`Authority::chain`] has
    /// them; empty if none of these CAs issued it.
    ///
    /// The issuer is found by the key identifier that the certificate names. No signature is verified.
    pub fn chain_of(&self, certificate: &Certificate) -> &[Certificate] {
        let issuer = authority_key_identifier(certificate);
        let found = self.iter().find(|authority| issuer.as_deref() == Some(authority.key_identifier()));
        found.map_or(&[], Authority::chain)
    }

    /// The certificates of CAs that what was issued is verified with at this time, each once: those that issued, and
    /// those above them.
    pub fn trusted(&self, now: Timestamp) -> Vec<&Certificate> {
        let mut seen: HashSet<&CertificateId> = HashSet::new();
        self.iter()
            .flat_map(|authority| std::iter::once(authority.certificate()).chain(authority.above()))
            .filter(|certificate| Timestamp::from(certificate.not_after()) >= now && seen.insert(certificate.id()))
            .collect()
    }

    /// Issues a device's certificate with the current CA, as [`Authority::issue`] does.
    ///
    /// # Errors
    ///
    /// [`IssueError`]; the keys of the other CAs are refused too.
    pub async fn issue(
        &self,
        profile: &Profile,
        id: &DeviceId,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        if self.others.iter().any(|authority| authority.has_key(key.fingerprint())) {
            return Err(IssueError::OwnKey);
        }
        self.current.issue(profile, id, key, now).await
    }

    /// Issues with another CA from now on. The one before stays.
    ///
    /// # Errors
    ///
    /// [`SetError`] if it cannot be used now or cannot be told from one that is there; nothing has changed then.
    pub fn rotate(&mut self, next: Authority<S>, now: Timestamp) -> Result<(), SetError> {
        next.check(now)?;
        self.check_distinct(&next)?;
        self.others.insert(0, mem::replace(&mut self.current, next));
        Ok(())
    }

    /// Forgets the other CAs that have ended, and with them all that they issued.
    pub fn forget_expired(&mut self, now: Timestamp) {
        self.others.retain(|authority| !matches!(authority.check(now), Err(Unfit::Expired { .. })));
    }

    fn check_distinct(&self, other: &Authority<S>) -> Result<(), SetError> {
        for known in self.iter() {
            if known.certificate().key() == other.certificate().key() {
                return Err(SetError::SameKey { id: *known.certificate().id() });
            }
            if known.subject() == other.subject() {
                return Err(SetError::SameName { id: *known.certificate().id() });
            }
        }
        Ok(())
    }
}

/// Why CAs are no set.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// One of them has that key already.
    #[error("the CA {id} has the same key: make another for the new one")]
    SameKey {
        /// The certificate of the one that has.
        id: CertificateId,
    },
    /// One of them has that name already.
    #[error("the CA {id} has the same name: give the new one another, such as one with its year")]
    SameName {
        /// The certificate of the one that has.
        id: CertificateId,
    },
    /// It cannot be used.
    #[error("the new CA's certificate cannot be used: {0}")]
    Unfit(#[from] Unfit),
}
