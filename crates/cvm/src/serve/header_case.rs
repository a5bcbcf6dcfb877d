//! The names of response headers as clients know them.
//!
//! Names of headers have no case, but libest and clients on microcontrollers compare them as they stand in the RFCs. For
//! HTTP/1.1 hyper writes `Content-Type` and the like; what is left are names with capitals inside of words, such as
//! `WWW-Authenticate`. hyper writes a name as a received message had it, if the response carries the extension in which it
//! recorded that (`preserve_header_case`). So a message with these names is received here, once.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::header::{ETAG, WWW_AUTHENTICATE};
use axum::http::{Extensions, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

/// A message with the names that are not written by the rule.
const NAMES: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nETag: 1\r\nWWW-Authenticate: 1\r\n\r\n";

/// hyper's record of how names are written. Clones share it.
#[derive(Clone)]
pub(super) struct HeaderCase(Arc<Extensions>);

impl HeaderCase {
    /// The usual case. Without hyper's record, names follow its rule alone.
    pub(super) async fn usual() -> Self {
        let (mut client, server) = tokio::io::duplex(1024);
        let recorded = Mutex::new(Extensions::new());
        let service = service_fn(async |request: Request<Incoming>| {
            *recorded.lock().unwrap_or_else(PoisonError::into_inner) = request.into_parts().0.extensions;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        // The pipe has room for all of it.
        let _ = client.write_all(NAMES).await;
        let _ = http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(server), service).await;
        Self(Arc::new(recorded.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The response with its headers in this case. It makes no difference over HTTP/2, where all names are small.
    pub(super) fn applied(&self, mut response: Response) -> Response {
        if response.headers().contains_key(WWW_AUTHENTICATE) || response.headers().contains_key(ETAG) {
            response.extensions_mut().extend(Extensions::clone(&self.0));
        }
        response
    }
}
