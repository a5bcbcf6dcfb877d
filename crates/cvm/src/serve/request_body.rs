//! Reads the rest of a request's body before an early response is sent.
//!
//! A response that is sent before its request was read gets lost: over HTTP/1.1 the connection is closed with unread data,
//! which resets it, and over HTTP/2 curl 7.88 takes the `RST_STREAM` that follows (RFC 9113 section 8.1) for an error.
//! What is read here is discarded at once, so that memory does not grow with it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header::EXPECT};
use axum::response::Response;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use tokio::time::timeout;

use super::activity::{Activity, Receiving};

/// The most that is read of a body for nothing, in bytes.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Passes the request on, and returns the response once the body has arrived, whether or not anybody has read it.
pub(super) async fn read_whole<F: Future<Output = Response>>(
    request: Request<Body>,
    answer: impl FnOnce(Request<Body>) -> F,
) -> Response {
    // Such a client sends its body when it is asked for it, and nothing asks for the body of an early response.
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return answer(Request::from_parts(parts, body)).await;
    }
    let shared = SharedBody::new(body);
    let response = answer(Request::from_parts(parts, Body::new(shared.clone()))).await;
    if !waits || shared.is_begun() {
        // A client that takes longer gets its response all the same.
        let _ = timeout(PATIENCE, shared.discard()).await;
    }
    response
}

/// A body that says, by its [`Receiving`], until when the server waits for the client.
pub(super) struct ReceivedBody {
    body: Body,
    receiving: Option<Receiving>,
}

impl ReceivedBody {
    pub(super) fn new(body: Body, activity: &Arc<Activity>) -> Self {
        let receiving = (!body.is_end_stream()).then(|| Receiving::new(activity));
        Self { body, receiving }
    }
}

impl hyper::body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if self.body.is_end_stream() || matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.receiving = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of which two read: the handler, and then whoever discards the rest.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<State>>);

struct State {
    body: Body,
    is_begun: bool,
}

impl SharedBody {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(State { body, is_begun: false })))
    }

    /// Whether any of it was asked for.
    fn is_begun(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_begun
    }

    /// Reads to the end, an error, or the bound.
    async fn discard(mut self) {
        let mut read = 0;
        while read <= MAX_DISCARDED {
            match std::future::poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => break,
            }
        }
    }
}

impl hyper::body::Body for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_begun = true;
        Pin::new(&mut state.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}
