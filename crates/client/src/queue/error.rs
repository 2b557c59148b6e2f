//! Errors of queue consumers.

use corelane_client_core::{MembershipError, RequestError};
use corelane_model::{GroupNameError, NameError};
use corelane_record::BatchError;

/// Why a member could not join a shared queue, or has left. Each says what state is left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The name cannot be a topic's. Nothing was asked of the broker.
    #[error(transparent)]
    Topic(#[from] NameError),
    /// The name cannot be a group's. Nothing was asked of the broker.
    #[error(transparent)]
    Name(#[from] GroupNameError),
    /// The membership could not begin, or is over: the consumer gives nothing any more. What was not acknowledged goes to
    /// others.
    #[error("queue {group} of topic {topic}: {error}")]
    Membership {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// Why.
        error: MembershipError,
    },
    /// Records came that do not hold together; nothing can be said of them, and they go to others when their leases end.
    #[error("records of a delivery cannot be read: {0}")]
    Corrupt(#[from] BatchError),
    /// A delivery has more or fewer records than leases. Its records go to others when their leases end.
    #[error("a delivery names {leases} leases and carries {records} records")]
    Mismatch {
        /// How many leases.
        leases: u64,
        /// How many records.
        records: u64,
    },
    /// A redrive ended before its time. What it put back is back; another one goes on there.
    #[error("the redrive stopped: {text}")]
    RedriveStopped {
        /// The broker's words.
        text: String,
    },
    /// The broker could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl QueueError {
    /// Whether the same may work later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Membership { error, .. } => error.is_retriable(),
            Self::Request(error) => error.is_retriable(),
            Self::RedriveStopped { .. } => true,
            Self::Topic(_) | Self::Name(_) | Self::Corrupt(_) | Self::Mismatch { .. } => false,
        }
    }

    /// Whether the consumer gives nothing any more.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Membership { .. })
    }
}
