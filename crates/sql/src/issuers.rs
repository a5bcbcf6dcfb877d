//! Which CAs' certificates the ledger has.

use std::fmt;
use std::sync::{Arc, OnceLock};

use cvm_provisioning::Certificate;

/// The CA that has issued a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuedBy {
    /// The fingerprint of the CA's key.
    pub issuer: String,
    /// The certificate's serial number there.
    pub serial: String,
}

type Recognize = Box<dyn Fn(&Certificate) -> Option<IssuedBy> + Send + Sync>;

/// How a certificate of the server's own CAs is recognized; empty where there are none. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Issuers(pub(crate) Arc<OnceLock<Recognize>>);

impl Issuers {
    /// Whether the server has CAs of its own, whose certificates are all in the ledger.
    pub(crate) fn are_own(&self) -> bool {
        self.0.get().is_some()
    }

    pub(crate) fn recognize(&self, certificate: &Certificate) -> Option<IssuedBy> {
        self.0.get()?(certificate)
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuers").field(&self.are_own()).finish()
    }
}
