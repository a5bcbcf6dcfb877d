//! What the process is told by signals.

use std::io;

/// Returns when it is interrupted or told to end.
pub(super) async fn told_to_end() {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => tokio::select! {
                _ = interrupted => {}
                _ = terminated.recv() => {}
            },
            Err(_) => drop(interrupted.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupted.await);
}

/// SIGHUP, by which servers are told to look at their files again.
#[derive(Debug)]
pub(super) struct ToldToLook {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

pub(super) fn told_to_look() -> io::Result<ToldToLook> {
    #[cfg(unix)]
    return Ok(ToldToLook { signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())? });
    #[cfg(not(unix))]
    Ok(ToldToLook {})
}

impl ToldToLook {
    /// Returns when it comes.
    pub(super) async fn recv(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }
}
