//! What the process is told by signals.

use std::io;

/// SIGTERM, and SIGINT or what there is in its place. From the moment at which there is one of these they end nothing by
/// themselves.
#[derive(Debug)]
pub(super) struct ToldToEnd {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
}

pub(super) fn told_to_end() -> io::Result<ToldToEnd> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(ToldToEnd { signals: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?] })
    }
    #[cfg(not(unix))]
    Ok(ToldToEnd {})
}

impl ToldToEnd {
    /// Returns when one comes, or has come since.
    pub(super) async fn received(self) {
        #[cfg(unix)]
        {
            let [mut terminated, mut interrupted] = self.signals;
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    }
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
