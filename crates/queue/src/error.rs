//! Why a queue says no.

use corelane_model::{ErrorCode, MemberId, QueueSettingsError};

use crate::FenceReason;

/// Why a request is refused as a whole. The queue is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A setting is out of its bounds.
    #[error(transparent)]
    Settings(#[from] QueueSettingsError),
    /// The queue exists and has another setting.
    #[error("the queue has {setting} {has}, not {asked}; alter the queue, or join without saying it")]
    SettingsMismatch {
        /// Which one.
        setting: &'static str,
        /// What the queue has.
        has: String,
        /// What was asked for.
        asked: String,
    },
    /// What cannot be changed.
    #[error("order per key cannot be changed; delete the queue and make it anew")]
    OrderIsFixed,
    /// Nobody of that id is in the queue.
    #[error("the queue has no member {member}; join again")]
    UnknownMember {
        /// The id.
        member: MemberId,
    },
    /// The member was put out of the queue.
    #[error("member {member} is no longer in the queue: {reason}; join again under a new id")]
    Fenced {
        /// The member.
        member: MemberId,
        /// Why.
        reason: FenceReason,
    },
    /// A number is out of its bounds.
    #[error("{setting} of {value} is out of bounds: {min} to {max}")]
    OutOfBounds {
        /// Which one.
        setting: &'static str,
        /// What was asked for.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A limit is reached.
    #[error("the queue would have {would} {what}, over the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there would be.
        would: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Too many answers wait for the disk.
    #[error("{waiting} answers of the queue wait for the disk; try again")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// There is nowhere to put dead letters.
    #[error("the queue has no dead-letter topic; alter it to have one")]
    NoDeadLetterTopic,
    /// One redrive at a time.
    #[error("the queue is putting dead letters back already; wait for its end")]
    RedriveRunning,
    /// The queue has members.
    #[error("the queue has {members} members; let them leave, or force it")]
    NotEmpty {
        /// How many.
        members: usize,
    },
    /// The queue is no more.
    #[error("the queue was deleted")]
    Deleted,
}

impl QueueError {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Settings(_) | Self::OutOfBounds { .. } | Self::OrderIsFixed => ErrorCode::InvalidSetting,
            Self::SettingsMismatch { .. } => ErrorCode::QueueSettingsMismatch,
            Self::UnknownMember { .. } | Self::Fenced { .. } => ErrorCode::UnknownQueueMember,
            Self::Limit { .. } => ErrorCode::LimitReached,
            Self::Busy { .. } => ErrorCode::Busy,
            Self::NoDeadLetterTopic => ErrorCode::NoDeadLetterTopic,
            Self::RedriveRunning => ErrorCode::RedriveRunning,
            Self::NotEmpty { .. } => ErrorCode::QueueInUse,
            Self::Deleted => ErrorCode::UnknownQueue,
        }
    }
}

/// Why bytes are no record of a queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("queue format {found} is not known to this version, which reads format {known}")]
    Format {
        /// What the bytes say.
        found: u8,
        /// What this build reads.
        known: u8,
    },
    /// A kind of record of another version, or another machine's.
    #[error("queue record of kind {kind} is not known to this version")]
    Kind {
        /// The number.
        kind: u8,
    },
    /// The bytes end too early, go on too long, or are not what they should be.
    #[error("queue record is malformed at byte {at}: {what} expected")]
    Malformed {
        /// Where.
        at: usize,
        /// What was expected there.
        what: &'static str,
    },
    /// It belongs to another queue.
    #[error("record of queue {found} came for queue {expected}")]
    Queue {
        /// The name in the key.
        found: String,
        /// The queue that is restored.
        expected: String,
    },
}
