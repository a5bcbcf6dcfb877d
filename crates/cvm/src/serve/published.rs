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
use cvm_authority::{Authority, Crl, Signer};

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
    /// Adds those of a CA.
    pub(super) fn add<S: Signer>(&mut self, authority: &Authority<S>, list: &Crl) {
        let name = authority.published_name();
        let certificate = authority.certificate().der().into();
        self.0.insert(format!("/crl/{name}.crl"), ("application/pkix-crl", Bytes::copy_from_slice(list.der())));
        self.0.insert(format!("/ca/{name}.cer"), ("application/pkix-cert", certificate));
    }
}

/// `GET /crl/NAME.crl` and `GET /ca/NAME.cer`.
pub(super) fn router(published: Published) -> Router {
    Router::new().route("/crl/{name}", get(document)).route("/ca/{name}", get(document)).with_state(published)
}

async fn document(State(published): State<Published>, uri: Uri) -> Response {
    match published.find(uri.path()) {
        Some((kind, der)) => ([(CONTENT_TYPE, kind), (CACHE_CONTROL, CACHED)], der).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
