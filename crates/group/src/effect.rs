//! What a group wants done outside.

use std::fmt;

use bytes::Bytes;
use corelane_model::{ErrorCode, Generation, MemberId, MonotonicNanos, Offset, PartitionId, StartAt};

use crate::{GroupError, ResetPolicy};

/// Counts the records that one [`crate::Group`] has appended since it was made or restored, from 1. Whoever writes them
/// says up to which one they are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendPosition(pub u64);

/// Ties an answer to a request; chosen by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestTicket(pub u64);

/// Why a member was put out of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceReason {
    /// It was silent for longer than its session time-out.
    SessionExpired,
    /// It did not give up a revoked partition within its rebalance time-out.
    RebalanceTimeout,
    /// A newer member joined with its static id.
    StaticIdTaken,
    /// The group was deleted.
    GroupDeleted,
}

impl FenceReason {
    /// The code of what is refused to a member that was put out for it.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::SessionExpired => ErrorCode::SessionExpired,
            Self::RebalanceTimeout => ErrorCode::RebalanceTimedOut,
            Self::StaticIdTaken => ErrorCode::StaticIdTaken,
            Self::GroupDeleted => ErrorCode::UnknownGroup,
        }
    }
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionExpired => "it was silent for longer than its session time-out",
            Self::RebalanceTimeout => "it did not give up a revoked partition within its rebalance time-out",
            Self::StaticIdTaken => "a newer member joined with its static id",
            Self::GroupDeleted => "the group was deleted",
        })
    }
}

/// Where the owner of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the committed offset: the first record that the group has not done.
    Committed(Offset),
    /// There is none, so the member's policy says.
    Policy(ResetPolicy),
}

impl Start {
    /// As a reader's starting point.
    ///
    /// # Errors
    /// There is no committed offset and the policy is to say so.
    pub const fn start_at(self, partition: PartitionId) -> Result<StartAt, GroupError> {
        match self {
            Self::Committed(offset) => Ok(StartAt::Offset(offset)),
            Self::Policy(ResetPolicy::Earliest) => Ok(StartAt::Earliest),
            Self::Policy(ResetPolicy::Latest) => Ok(StartAt::Latest),
            Self::Policy(ResetPolicy::Time(time)) => Ok(StartAt::Time(time)),
            Self::Policy(ResetPolicy::Error) => Err(GroupError::NoCommittedOffset { partition }),
        }
    }
}

/// A partition that a member owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// The generation in which the member got it. A member that holds it since an earlier one has lost it in between.
    pub since: Generation,
    /// Where the member begins if it holds it newly.
    pub start: Start,
}

/// A partition that a member is to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// The generation in which the member got it: names the turn that ends.
    pub since: Generation,
    /// A member that has not given it up by then is put out.
    pub deadline: MonotonicNanos,
}

/// Everything that a member has at one moment. Each one replaces those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The group's generation.
    pub generation: Generation,
    /// What the member works on.
    pub owned: Vec<OwnedPartition>,
    /// What it is to give up: finish, commit, then stop and say so. It may commit for these until then.
    pub revoking: Vec<RevokedPartition>,
    /// What it should follow so that it can take over warm.
    pub standby: Vec<PartitionId>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this record to the group's home partition, after all that came before. The appends between two
    /// [`crate::Group::finish_round`] are best written as one batch.
    Append {
        /// Comes back through [`crate::Group::on_durable`].
        position: AppendPosition,
        /// The record's key; the newest record of a key counts.
        key: Vec<u8>,
        /// The record's value; `None` removes the key.
        value: Option<Vec<u8>>,
    },
    /// Answer the request of this ticket: what it asked for is done and durable.
    Done {
        /// The ticket.
        ticket: RequestTicket,
    },
    /// Tell a member what it has.
    Assign {
        /// The member.
        member: MemberId,
        /// What it has.
        assignment: Assignment,
    },
    /// Tell the new owner of a partition what the old one left for it. Comes before the assignment that names the
    /// partition, and again until the member has said that it holds the partition.
    HandOver {
        /// The new owner.
        member: MemberId,
        /// The partition.
        partition: PartitionId,
        /// What the old owner left.
        blob: Bytes,
    },
    /// Tell a member that it is no longer in the group and must drop what it holds.
    Fence {
        /// The member.
        member: MemberId,
        /// Why.
        reason: FenceReason,
    },
    /// Nothing of the group is left but tombstones: forget the machine.
    Remove,
}
