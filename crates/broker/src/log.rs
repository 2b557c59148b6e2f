//! The log: lines on standard error, written by a thread of its own so that no shard waits for a terminal.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

/// Why the log cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The directives cannot be understood.
    #[error(
        "log = {directives:?} cannot be understood: {reason}; write a level such as info, or info,corelane_shard=debug"
    )]
    Directives {
        /// What was given.
        directives: String,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else set one up already.
    #[error("the process has a log already")]
    Twice,
}

/// Holds directives against their grammar.
///
/// # Errors
/// They cannot be understood.
pub(crate) fn check(directives: &str) -> Result<(), LogError> {
    parse(directives).map(drop)
}

fn parse(directives: &str) -> Result<EnvFilter, LogError> {
    let parsed = EnvFilter::builder().parse(directives);
    parsed.map_err(|error| LogError::Directives { directives: directives.to_owned(), reason: error.to_string() })
}

/// Starts to log by these directives. Lines are written until the guard is dropped.
///
/// # Errors
/// The directives cannot be understood, or the process logs already.
pub fn start(directives: &str) -> Result<WorkerGuard, LogError> {
    let filter = parse(directives)?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(is_terminal)
        .with_target(true)
        .try_init()
        .map_err(|_| LogError::Twice)?;
    Ok(guard)
}
