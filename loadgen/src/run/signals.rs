//! SIGINT and SIGTERM: a run that is ended cleans up after itself.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal ended the run; nothing is known of what was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{signal} ended the run before its end")]
pub struct Interrupted {
    /// Its name.
    pub signal: &'static str,
}

/// Both signals.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From now on they do not end the process.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
