use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::Authorities;

/// The CAs of a program that goes on while they are rotated. Clones share them.
pub struct SharedAuthorities<S>(Arc<RwLock<Arc<Authorities<S>>>>);

impl<S> SharedAuthorities<S> {
    /// Shares these.
    pub fn new(authorities: Authorities<S>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(authorities))))
    }

    /// Those there are now. Whoever is about to do several things with them asks once, so that all are done by the same.
    pub fn load(&self) -> Arc<Authorities<S>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in their place, for all clones. What is under way with the ones before comes to its end.
    pub fn store(&self, authorities: Authorities<S>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authorities);
    }
}

impl<S> Clone for SharedAuthorities<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The keys stay out of logs, whatever the signers show of them.
impl<S> fmt::Debug for SharedAuthorities<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedAuthorities").finish_non_exhaustive()
    }
}
