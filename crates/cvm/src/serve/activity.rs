//! What a connection is doing, and since when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a connection is kept on which nothing is asked.
const IDLE: Duration = Duration::from_secs(60);
/// A connection that has sent nothing, or on which no request is under way, may be evicted after this time.
const EVICTABLE: Duration = Duration::from_secs(1);
/// A handshake may be evicted after this time. It is longer, so that clients that arrive together on a busy server do not
/// evict each other.
const HANDSHAKE_EVICTABLE: Duration = Duration::from_secs(5);
/// A connection all of whose requests wait for the rest of their bodies may be evicted after this time.
const BODY_EVICTABLE: Duration = Duration::from_secs(5);

/// The activity of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    evicted: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Requests under way.
    requests: usize,
    /// Those of them whose bodies have not arrived completely.
    receiving: usize,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// The client has not sent a byte.
    Silent,
    /// The TLS handshake is under way.
    Handshake,
    /// Requests can be sent.
    Open,
}

impl Activity {
    pub(super) fn new() -> Self {
        let state = State { phase: Phase::Silent, requests: 0, receiving: 0, since: Instant::now() };
        Self { state: Mutex::new(state), evicted: Notify::new() }
    }

    /// Enters the phase.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// For how long the connection could have been evicted; `None` if it cannot be.
    pub(super) fn evictable_for(&self, now: Instant) -> Option<Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let least = match state.phase {
            _ if state.requests > state.receiving => return None,
            _ if state.requests > 0 => BODY_EVICTABLE,
            Phase::Handshake => HANDSHAKE_EVICTABLE,
            Phase::Silent | Phase::Open => EVICTABLE,
        };
        now.duration_since(state.since).checked_sub(least)
    }

    /// Ends the connection.
    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Returns when the connection has to make room for another.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Returns when nothing has been asked for too long.
    pub(super) async fn idle(&self) {
        loop {
            let end = {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let since = if state.requests > 0 { Instant::now() } else { state.since };
                since + IDLE
            };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A request under way.
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        let mut state = activity.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.requests == 0 {
            state.since = Instant::now();
        }
        state.requests += 1;
        drop(state);
        Self(Arc::clone(activity))
    }
}

/// A request whose body has not arrived completely: the server waits for the client.
pub(super) struct Receiving(Arc<Activity>);

impl Receiving {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        activity.state.lock().unwrap_or_else(PoisonError::into_inner).receiving += 1;
        Self(Arc::clone(activity))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).receiving -= 1;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.requests, state.since) = (state.requests - 1, Instant::now());
    }
}
