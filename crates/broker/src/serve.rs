//! A broker as a process: from the configuration to the exit.

use std::time::Duration;

use crate::boot::{Running, StartError, Stopped, start_unless};
use crate::config::Config;
use crate::data::DataError;
use crate::log::LogError;
use crate::signals::{Notice, Notices, watch};

/// How often the shards are looked after while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After how many looks the shards are asked how they are.
const LOOKS_PER_EXAMINATION: u32 = 50;

/// Why a broker's process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The log cannot be set up.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(#[from] std::io::Error),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A shard ended by itself. What was acknowledged as stored is on disk; the next start recovers.
    #[error("{0}; what was acknowledged as stored is on disk, the next start recovers")]
    Failed(String),
    /// The shutdown did not come to its end in time. What was acknowledged as stored is on disk.
    #[error(
        "shut down without coming to the end: {0}; what was acknowledged as stored is on disk, the next start recovers"
    )]
    Late(String),
    /// The clean end could not be noted.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Runs a broker until a signal or a failure ends it. Takes over the process: its log, its signals, its exit.
///
/// `on_ready` is called once, when clients are accepted; never, if a signal comes before.
///
/// # Errors
/// It did not start, a shard failed, or the shutdown was not clean.
pub fn serve(config: &Config, on_ready: impl FnOnce(&Running)) -> Result<(), ServeError> {
    // Before any thread is made: the log's is the first.
    corelane_reactor::prepare_process();
    let _log = crate::log::start(&config.log)?;
    let notices = Notices::default();
    watch(notices.sender.clone())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let running = match start_unless(config, &|| notices.receiver.try_recv().ok().map(|Notice { reason }| reason)) {
        Err(unwanted @ StartError::Unwanted(_)) => {
            tracing::info!("{unwanted}: nothing was taken, the next start recovers");
            return Ok(());
        }
        outcome => outcome?,
    };
    tracing::info!(quic = %running.quic(), admin = %running.admin(), shards = running.shard_count(), "ready");
    on_ready(&running);
    let reason = wait_for_end(&running, &notices)?;
    tracing::info!(%reason, "shutting down");
    match running.stop()? {
        Stopped::Clean => {
            tracing::info!("everything is on disk");
            Ok(())
        }
        Stopped::Late(text) => Err(ServeError::Late(text)),
    }
}

/// Waits for a signal; a shard that fails is an error. Meanwhile it tells the log when the broker becomes ill or well.
fn wait_for_end(running: &Running, notices: &Notices) -> Result<String, ServeError> {
    let mut known: Vec<String> = Vec::new();
    let mut looks: u32 = 0;
    loop {
        looks = (looks + 1) % LOOKS_PER_EXAMINATION;
        if looks == 0 {
            let found = running.ailments();
            for ailment in found.iter().filter(|ailment| !known.contains(ailment)) {
                tracing::error!("{ailment}");
            }
            for ailment in known.iter().filter(|ailment| !found.contains(ailment)) {
                tracing::info!("no longer: {ailment}");
            }
            known = found;
        }
        match notices.receiver.try_recv() {
            Ok(Notice { reason }) => return Ok(reason),
            Err(_) => {
                if let Some(failure) = running.wait_failure(LOOK_EVERY) {
                    return Err(ServeError::Failed(failure.to_string()));
                }
            }
        }
    }
}
