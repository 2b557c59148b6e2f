//! How a command ends.

use std::fmt;
use std::process::ExitCode;

use corelane::{ErrorCode, RequestError};

/// The same as a broker's that a second signal ended.
pub(crate) const EXIT_SIGNAL: u8 = 130;

/// Exit codes, as `corelane --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Whoever read our output has seen enough.
    Unread,
    /// The broker refused, or something failed on the way.
    Failed,
    /// What was asked for makes no sense as it was written.
    Usage,
    /// The broker cannot be reached, or it does not let us in.
    Unreachable,
    /// A bench measured its own generator.
    Void,
    /// A bench found less than was aimed at.
    Missed,
    /// A signal ended it.
    Interrupted,
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Self::Unread => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Void => 4,
            Self::Missed => 5,
            Self::Interrupted => EXIT_SIGNAL,
        }
    }
}

/// Why a command did not do what it was asked to: a text for people and an exit code for scripts.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
}

/// What every command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The broker refused, or something failed on the way.
    pub(crate) fn failed(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, text: text.to_string() }
    }

    /// What was asked for makes no sense as it was written.
    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    /// The broker cannot be reached.
    pub(crate) fn unreachable(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Unreachable, text: text.to_string() }
    }

    /// What a bench measured is not worth believing.
    pub(crate) fn void(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Void, text: text.to_string() }
    }

    /// What a bench measured is less than was aimed at, or nothing.
    pub(crate) fn missed(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Missed, text: text.to_string() }
    }

    /// A signal ended it.
    pub(crate) fn interrupted(text: impl fmt::Display) -> Self {
        Self { exit: Exit::Interrupted, text: text.to_string() }
    }

    /// The same, after a word about what it means.
    pub(crate) fn about(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }

    /// Whether nobody waits for a word about it: the reader of our output (`| head`) went away.
    pub(crate) fn is_silent(&self) -> bool {
        self.exit == Exit::Unread
    }

    /// The exit code for the shell.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Writing to standard output failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Unread } else { Exit::Failed };
        Self { exit, text: format!("cannot write to standard output: {error}") }
    }
}

/// A request that the broker did not carry out.
pub(crate) fn refused(error: corelane::Error) -> Failure {
    match error {
        corelane::Error::Name(error) => Failure::usage(error),
        corelane::Error::Request(error) => refused_request(&error),
    }
}

/// As [`refused`]; what is missing is followed by the command that names what there is.
pub(crate) fn refused_request(error: &RequestError) -> Failure {
    match error {
        RequestError::TimedOut { was_sent: false } => Failure::unreachable(error),
        RequestError::UnknownTopic { .. } => refused_as(ErrorCode::UnknownTopic, error),
        RequestError::Refused { code, .. } => refused_as(*code, error),
        _ => Failure::failed(error),
    }
}

/// What a broker refused with a code: how the command ends, and what to do about it.
pub(crate) fn refused_as(code: ErrorCode, error: &impl fmt::Display) -> Failure {
    match code {
        ErrorCode::UnknownTopic => Failure::failed(format!(
            "{error}; `corelane topic list` names those that there are, `corelane topic create` makes one"
        )),
        ErrorCode::UnknownGroup => {
            Failure::failed(format!("{error}; `corelane group list` names those that there are"))
        }
        ErrorCode::UnknownQueue => {
            Failure::failed(format!("{error}; `corelane queue list` names those that there are"))
        }
        // No broker would take what was written.
        ErrorCode::InvalidTopicName | ErrorCode::InvalidGroupName | ErrorCode::InvalidPattern => Failure::usage(error),
        _ => Failure::failed(error),
    }
}
