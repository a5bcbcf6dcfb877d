//! What the CAs say of certificates, at the addresses that certificates name: revocation lists and the CAs' own
//! certificates, each in DER as a document of its own (RFC 5280 sections 4.2.1.13 and 4.2.2.1), and OCSP.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cvm_authority::published_name;
use cvm_provisioning::Certificate;

/// For how long whoever stands between may give the same list again; a list itself says for how long it is believed.
const CACHED: &str = "max-age=300, public, no-transform, must-revalidate";

/// The documents as they are given out. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Published(Arc<RwLock<Documents>>);

impl Published {
    /// Puts these in the place of those there were.
    pub(super) fn put(&self, documents: Documents) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = documents;
    }

    fn find(&self, path: &str) -> Option<(&'static str, Bytes)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.get(path).cloned()
    }
}

/// Documents with their media types, by the paths at which they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Documents(BTreeMap<String, (&'static str, Bytes)>);

impl Documents {
    /// Adds the certificate of a CA.
    pub(super) fn add_certificate(&mut self, authority: &Certificate) {
        let path = format!("/ca/{}", published_name(authority));
        self.0.insert(format!("{path}.cer"), ("application/pkix-cert", authority.der().into()));
        self.0.insert(format!("{path}.pem"), (PEM, authority.pem().to_owned().into()));
    }

    /// Adds the revocation list of a CA.
    pub(super) fn add_list(&mut self, authority: &Certificate, der: &[u8], pem: &str) {
        let path = format!("/crl/{}", published_name(authority));
        self.0.insert(format!("{path}.crl"), ("application/pkix-crl", Bytes::copy_from_slice(der)));
        // Some brokers read PEM only, and only the first list of a file.
        self.0.insert(format!("{path}.pem"), (PEM, pem.to_owned().into()));
    }
}

const PEM: &str = "application/x-pem-file";

/// `GET /crl/NAME.crl` and `GET /ca/NAME.cer`, and both with `.pem`.
pub(super) fn router(published: Published) -> Router {
    Router::new().route("/crl/{name}", get(document)).route("/ca/{name}", get(document)).with_state(published)
}

async fn document(State(published): State<Published>, uri: Uri) -> Response {
    match published.find(uri.path()) {
        Some((kind, der)) => ([(CONTENT_TYPE, kind), (CACHE_CONTROL, CACHED)], der).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
