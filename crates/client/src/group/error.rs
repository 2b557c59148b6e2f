//! Errors of group consumers.

use corelane_client_core::{MembershipError, RequestError, SubscriptionError};
use corelane_model::{GroupNameError, NameError, PartitionId, PartitionIndex, TopicName};

/// Why a member could not join, has left, or cannot read a partition. Each says what state is left behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The name cannot be a topic's. Nothing was asked of the broker.
    #[error(transparent)]
    Topic(#[from] NameError),
    /// The name cannot be a group's or a static id. Nothing was asked of the broker.
    #[error(transparent)]
    Name(#[from] GroupNameError),
    /// Neither topics nor a pattern were named. Nothing was asked of the broker.
    #[error("a member of group {group} needs something to read: name a topic or a pattern")]
    NothingNamed {
        /// The group.
        group: String,
    },
    /// The membership could not begin, or is over: the consumer gives nothing any more. What was not committed is done
    /// again by others.
    #[error("group {group}: {error}")]
    Membership {
        /// The group.
        group: String,
        /// Why.
        error: MembershipError,
    },
    /// A partition cannot be read. The member still has it or stands by for it, and goes on with its others; it is read
    /// again after a [`crate::GroupConsumer::seek`].
    #[error("topic {topic} partition {partition}: {error}")]
    Partition {
        /// Its topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// Why.
        error: SubscriptionError,
    },
    /// The group has no committed offset for a partition, and the reset policy is to say so. The member has the partition
    /// and reads it after a [`crate::GroupConsumer::seek`].
    #[error("topic {topic} partition {partition} has no committed offset; seek to where reading should begin")]
    NoCommittedOffset {
        /// Its topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The partition is not this member's, or was not asked back where it had to be. Nothing was changed.
    #[error("topic {topic} partition {partition} is not {wanted}")]
    NotHeld {
        /// Its topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// What is left for the next owner is too large. The partition was not given up.
    #[error("a hand-over of {len} bytes is over the limit of {limit} bytes")]
    HandOverTooLarge {
        /// Its bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// What was left for the next owner was refused; the partition was given up without it.
    #[error("partition {partition} was given up without its hand-over: {text}")]
    HandOverRefused {
        /// The partition, by its topic's id.
        partition: PartitionId,
        /// The broker's words.
        text: String,
    },
    /// The broker could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl GroupError {
    /// Whether the same may work later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Membership { error, .. } => error.is_retriable(),
            Self::Partition { error, .. } => error.is_retriable(),
            Self::Request(error) => error.is_retriable(),
            Self::Topic(_)
            | Self::Name(_)
            | Self::NothingNamed { .. }
            | Self::NoCommittedOffset { .. }
            | Self::NotHeld { .. }
            | Self::HandOverTooLarge { .. }
            | Self::HandOverRefused { .. } => false,
        }
    }

    /// Whether the consumer gives nothing any more.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Membership { .. })
    }
}
