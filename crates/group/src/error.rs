//! Why a group says no.

use corelane_model::{ErrorCode, Generation, MemberId, Offset, PartitionId, Transaction};

use crate::{FenceReason, NameError, StaticId, Strategy};

/// Why a request is refused. The group is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A name breaks a rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nobody of that id is in the group.
    #[error("the group has no member {member}; join again")]
    UnknownMember {
        /// The id.
        member: MemberId,
    },
    /// The member was put out of the group.
    #[error("member {member} is no longer in the group: {reason}")]
    Fenced {
        /// The member.
        member: MemberId,
        /// Why.
        reason: FenceReason,
    },
    /// A member keeps its static id as long as it lives.
    #[error("member {member} joined with another static id before")]
    StaticIdChange {
        /// The member.
        member: MemberId,
    },
    /// Nobody of that static id is in the group.
    #[error("the group has no member with the static id {static_id:?}")]
    UnknownStaticId {
        /// The id.
        static_id: StaticId,
    },
    /// The generation is older than the member's right to the partition.
    #[error("generation {said} is stale: partition {partition} was assigned to member {member} in generation {since}")]
    StaleGeneration {
        /// The member.
        member: MemberId,
        /// The partition.
        partition: PartitionId,
        /// What was said.
        said: Generation,
        /// Since when the member has it.
        since: Generation,
    },
    /// The group has not come so far: what is said is of a group of this name that was deleted. A join that came late may have
    /// made the member known to this one.
    #[error("generation {said} is of a group that was deleted: this one of its name is at generation {known}")]
    FutureGeneration {
        /// What was said.
        said: Generation,
        /// What is.
        known: Generation,
    },
    /// Somebody else owns it, or nobody.
    #[error("member {member} does not own partition {partition}")]
    NotOwner {
        /// The member.
        member: MemberId,
        /// The partition.
        partition: PartitionId,
    },
    /// Only what is being revoked can be given up.
    #[error("partition {partition} is not being revoked from member {member}")]
    NotRevoked {
        /// The member.
        member: MemberId,
        /// The partition.
        partition: PartitionId,
    },
    /// An offset that the log does not have.
    #[error("offset {offset} of partition {partition} is beyond the log's end {end}")]
    BeyondEnd {
        /// The partition.
        partition: PartitionId,
        /// What was to be committed.
        offset: Offset,
        /// The log's end.
        end: Offset,
    },
    /// A transaction has offsets for the partition; until it is decided nothing else changes them.
    #[error("offsets of partition {partition} are staged by transaction {transaction}; wait until that is decided")]
    Staged {
        /// The partition.
        partition: PartitionId,
        /// The transaction.
        transaction: Transaction,
    },
    /// There is nothing to begin at.
    #[error("there is no committed offset for partition {partition}, and the reset policy is to say so")]
    NoCommittedOffset {
        /// The partition.
        partition: PartitionId,
    },
    /// Another strategy than the others'.
    #[error("the group's members use the strategy {group}, not {asked}")]
    StrategyMismatch {
        /// What the group uses.
        group: Strategy,
        /// What the new member wants.
        asked: Strategy,
    },
    /// The subscription names no topic that exists and its pattern matches none.
    #[error("the subscription to {subscription} matches no topic; there has to be one when a member joins")]
    NothingSubscribed {
        /// The subscription as text.
        subscription: String,
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
    #[error("the group would have {would} {what}, over the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there would be.
        would: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Too many answers wait for the disk.
    #[error("{waiting} answers of the group wait for the disk; try again")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The group has members.
    #[error("the group has {members} members; drain it first")]
    NotEmpty {
        /// How many.
        members: usize,
    },
    /// The partition has an owner, whose commits the change would race with.
    #[error("partition {partition} is owned by member {owner}; drain the group first")]
    PartitionInUse {
        /// The partition.
        partition: PartitionId,
        /// Its owner.
        owner: MemberId,
    },
    /// The group assigns nothing.
    #[error("the group is being drained and takes no members")]
    Draining,
    /// The group is no more.
    #[error("the group was deleted")]
    Deleted,
}

impl GroupError {
    /// The partition that the text names by its ids, for those who know the topic's name.
    #[must_use]
    pub const fn partition(&self) -> Option<PartitionId> {
        match self {
            Self::StaleGeneration { partition, .. }
            | Self::NotOwner { partition, .. }
            | Self::NotRevoked { partition, .. }
            | Self::BeyondEnd { partition, .. }
            | Self::Staged { partition, .. }
            | Self::NoCommittedOffset { partition }
            | Self::PartitionInUse { partition, .. } => Some(*partition),
            Self::Name(_)
            | Self::UnknownMember { .. }
            | Self::Fenced { .. }
            | Self::StaticIdChange { .. }
            | Self::UnknownStaticId { .. }
            | Self::FutureGeneration { .. }
            | Self::StrategyMismatch { .. }
            | Self::NothingSubscribed { .. }
            | Self::OutOfBounds { .. }
            | Self::Limit { .. }
            | Self::Busy { .. }
            | Self::NotEmpty { .. }
            | Self::Draining
            | Self::Deleted => None,
        }
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) => ErrorCode::InvalidGroupName,
            Self::UnknownMember { .. } | Self::UnknownStaticId { .. } => ErrorCode::UnknownMember,
            Self::Fenced { reason, .. } => reason.code(),
            Self::StaticIdChange { .. } => ErrorCode::MemberFenced,
            Self::StaleGeneration { .. } => ErrorCode::StaleGeneration,
            Self::NotOwner { .. } | Self::NotRevoked { .. } => ErrorCode::NotPartitionOwner,
            Self::BeyondEnd { .. } => ErrorCode::OffsetOutOfRange,
            Self::NoCommittedOffset { .. } => ErrorCode::NoCommittedOffset,
            Self::StrategyMismatch { .. } => ErrorCode::StrategyMismatch,
            Self::NothingSubscribed { .. } => ErrorCode::NothingSubscribed,
            Self::OutOfBounds { .. } => ErrorCode::InvalidSetting,
            Self::Limit { .. } => ErrorCode::LimitReached,
            Self::Busy { .. } | Self::Staged { .. } => ErrorCode::Busy,
            Self::NotEmpty { .. } | Self::PartitionInUse { .. } => ErrorCode::GroupInUse,
            Self::Draining => ErrorCode::GroupDraining,
            Self::FutureGeneration { .. } | Self::Deleted => ErrorCode::UnknownGroup,
        }
    }
}

/// Why bytes are no record of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("group format {found} is not known to this version, which reads format {known}")]
    Format {
        /// What the bytes say.
        found: u8,
        /// What this build reads.
        known: u8,
    },
    /// A kind of record of another version.
    #[error("group record of kind {kind} is not known to this version")]
    Kind {
        /// The number.
        kind: u8,
    },
    /// The bytes end too early, go on too long, or are not what they should be.
    #[error("group record is malformed at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What was expected there.
        what: &'static str,
    },
    /// It belongs to another group.
    #[error("record of group {found:?} came for group {expected:?}")]
    Group {
        /// The name in the key.
        found: String,
        /// The group that is restored.
        expected: String,
    },
    /// A number that no group reaches or allows.
    #[error("{what} of {found} is over the limit of {limit}")]
    Limit {
        /// Which one.
        what: &'static str,
        /// What the bytes say.
        found: u64,
        /// The limit.
        limit: u64,
    },
}
