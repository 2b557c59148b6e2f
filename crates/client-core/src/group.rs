//! Words about membership of a consumer group: what a member is told when it joins, and what it tells.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::{
    GROUP_REBALANCE_TIMEOUT_DEFAULT, GROUP_SESSION_TIMEOUT_DEFAULT, SUBSCRIPTION_CREDIT_BYTES_DEFAULT,
};
use corelane_model::{
    ErrorCode, Generation, GroupName, Isolation, MemberId, Offset, PartitionId, ResetPolicy, Retry, StartAt, StaticId,
    Strategy, TopicName,
};

use crate::SubscriptionKey;

/// A membership of this client. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey(pub u64);

/// A commit of a membership; counts up from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitKey(pub u64);

/// How a member is to be.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// The group.
    pub group: GroupName,
    /// What it reads, by name.
    pub topics: Vec<TopicName>,
    /// And all topics whose whole name matches this regular expression.
    pub pattern: Option<String>,
    /// How partitions are to be assigned; `None` takes the group's.
    pub strategy: Option<Strategy>,
    /// Its name across restarts.
    pub static_id: Option<StaticId>,
    /// What it can do compared to others.
    pub capacity: u32,
    /// Silent for longer, it has died.
    pub session_timeout: Duration,
    /// It gives up what is revoked within this time, or is put out.
    pub rebalance_timeout: Duration,
    /// Where it begins without a committed offset.
    pub reset: ResetPolicy,
    /// What was finished is committed this often; `None` leaves commits to the application.
    pub auto_commit: Option<Duration>,
    /// Bytes of record batches that each partition may have under way or in hand.
    pub credit_bytes: u64,
    /// Which records it reads.
    pub isolation: Isolation,
    /// Where it begins to follow a partition that it stands by for; `None` follows none.
    pub follow: Option<StartAt>,
}

impl GroupSettings {
    /// A member with the defaults, which commits by hand.
    #[must_use]
    pub const fn new(group: GroupName) -> Self {
        Self {
            group,
            topics: Vec::new(),
            pattern: None,
            strategy: None,
            static_id: None,
            capacity: 1,
            session_timeout: GROUP_SESSION_TIMEOUT_DEFAULT,
            rebalance_timeout: GROUP_REBALANCE_TIMEOUT_DEFAULT,
            reset: ResetPolicy::Latest,
            auto_commit: None,
            credit_bytes: SUBSCRIPTION_CREDIT_BYTES_DEFAULT,
            isolation: Isolation::Uncommitted,
            follow: None,
        }
    }
}

/// Where the owner of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStart {
    /// At the committed offset: the first record that the group has not done.
    Committed(Offset),
    /// There is none, so the member's reset policy says.
    Reset(StartAt),
    /// There is none and the policy is to say so: nothing is read until the application seeks.
    Nowhere,
}

impl GroupStart {
    pub(crate) const fn of(committed: Option<Offset>, reset: ResetPolicy) -> Self {
        match (committed, reset) {
            (Some(offset), _) => Self::Committed(offset),
            (None, ResetPolicy::Earliest) => Self::Reset(StartAt::Earliest),
            (None, ResetPolicy::Latest) => Self::Reset(StartAt::Latest),
            (None, ResetPolicy::Time(time)) => Self::Reset(StartAt::Time(time)),
            (None, ResetPolicy::Error) => Self::Nowhere,
        }
    }

    /// As a reader's starting point; `None` for [`Self::Nowhere`].
    #[must_use]
    pub const fn start_at(self) -> Option<StartAt> {
        match self {
            Self::Committed(offset) => Some(StartAt::Offset(offset)),
            Self::Reset(start) => Some(start),
            Self::Nowhere => None,
        }
    }
}

/// A partition that the member has from now on.
#[derive(Clone, Debug)]
pub struct AssignedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Its topic's name.
    pub topic: TopicName,
    /// Since when the member has it: names this turn in commits.
    pub turn: Generation,
    /// Where the group begins: what comes before is done.
    pub start: GroupStart,
    /// The first record that the application was not through with while it followed the partition, once that was known.
    /// If it lies before a committed offset, reading begins there, so that the state misses nothing.
    pub followed: Option<Offset>,
    /// What is read with; `None` as long as it starts nowhere.
    pub subscription: Option<SubscriptionKey>,
    /// What the old owner left.
    pub blob: Option<Bytes>,
}

/// A partition that the member stands by for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Its topic's name.
    pub topic: TopicName,
    /// What it is followed with; `None` if the member does not follow.
    pub subscription: Option<SubscriptionKey>,
}

/// Why a member was put out of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceReason {
    /// It was silent for longer than its session time-out.
    SessionExpired,
    /// It did not give up a revoked partition within its rebalance time-out.
    RebalanceTimeout,
    /// A newer member joined with its static id.
    StaticIdTaken,
    /// The group was deleted.
    GroupDeleted,
    /// The coordinator does not know it any more, or did not say why.
    Unknown,
}

impl FenceReason {
    pub(crate) const fn from_wire(reason: u8) -> Self {
        match reason {
            1 => Self::SessionExpired,
            2 => Self::RebalanceTimeout,
            3 => Self::StaticIdTaken,
            4 => Self::GroupDeleted,
            _ => Self::Unknown,
        }
    }

    /// Whether the member comes back by itself under another id. Two processes with one static id would put each other
    /// out in turn, and a deleted group would be made anew.
    pub(crate) const fn may_return(self) -> bool {
        match self {
            Self::SessionExpired | Self::RebalanceTimeout | Self::Unknown => true,
            Self::StaticIdTaken | Self::GroupDeleted => false,
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
            Self::Unknown => "the coordinator does not know it any more",
        })
    }
}

/// Why a member has partitions no longer that it was not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The member was put out of the group. It joins again by itself unless [`GroupNews::Ended`] follows.
    Fenced(FenceReason),
    /// They are not among what it was told that it has: a topic was deleted, or the member had missed something.
    Reassigned,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced(reason) => write!(f, "the member was put out of its group: {reason}"),
            Self::Reassigned => f.write_str("the group assigned them anew"),
        }
    }
}

/// Why a membership could not begin, or is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The broker refused the join; the member is not in the group.
    #[error("{text} ({code:?})")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
    },
    /// The join was not answered in time. If it was carried out, the group puts the member out after its session time-out.
    #[error("the group's coordinator did not answer in time{}", if *.was_sent { "" } else { ": no connection to it" })]
    TimedOut {
        /// Whether the join had left.
        was_sent: bool,
    },
    /// The member was put out for good; what it had not committed is done again by others.
    #[error("the member is no longer in the group: {0}")]
    Fenced(FenceReason),
    /// The client was closed. The group puts the member out after its session time-out.
    #[error("the client is closed")]
    Closed,
}

impl MembershipError {
    /// Whether joining again may work. It is always safe: each join is another member.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later | Retry::Refresh),
            Self::TimedOut { .. } => true,
            Self::Fenced(_) | Self::Closed => false,
        }
    }
}

/// Why an offset was not committed. The committed offset is what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The member does not have the partition any more, or has it anew: its new owner begins at what was committed.
    #[error("partition {partition} is no longer this member's turn; nothing was committed")]
    Lost {
        /// The partition.
        partition: PartitionId,
    },
    /// The broker refused.
    #[error("{text} ({code:?}); nothing was committed")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
    },
    /// The membership ended before the answer; it may have been committed all the same.
    #[error("the membership ended before the commit was answered; it may have been carried out")]
    Ended,
    /// It was answered long ago. Some commit was refused about then and too many since for it to be known which, so that it may
    /// or may not have been committed. Whoever asks a ticket in time never sees it.
    #[error("it is no longer known whether it was committed: too many commits were refused since")]
    Forgotten,
}

impl CommitError {
    /// Whether the same commit may work later. Committing the same again is always safe.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later),
            Self::Lost { .. } | Self::Ended | Self::Forgotten => false,
        }
    }
}

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffset {
    /// The partition.
    pub partition: PartitionId,
    /// The turn in which its records were read, from [`AssignedPartition::turn`].
    pub turn: Generation,
    /// The first record that the group has not done.
    pub offset: Offset,
    /// What the application wants to find again.
    pub metadata: String,
}

/// What a membership tells.
#[derive(Debug)]
pub enum GroupNews {
    /// It is in the group. Told once; coming back later is silent.
    Joined {
        /// Under which id.
        member: MemberId,
    },
    /// The membership could not begin or is over, and forgotten. The last word about it.
    Ended {
        /// Why; `None` when the application left.
        error: Option<MembershipError>,
    },
    /// It has these partitions from now on.
    Assigned(Vec<AssignedPartition>),
    /// It is asked for these partitions, and nothing more is delivered for them. Call
    /// [`crate::ClientCore::give_up`] when the application has moved on.
    Revoking(Vec<PartitionId>),
    /// It does not have these partitions any more.
    Lost {
        /// Which.
        partitions: Vec<PartitionId>,
        /// Why.
        reason: LostReason,
    },
    /// It stands by for these partitions, and no others, so that it can take them over warm.
    Standby(Vec<StandbyPartition>),
    /// All commits before this one are settled: durable, or reported by [`Self::CommitFailed`].
    CommitsSettled {
        /// The first that is not.
        below: CommitKey,
    },
    /// These commits of a partition are not carried out. Comes before they are settled.
    CommitFailed {
        /// The partition.
        partition: PartitionId,
        /// Which commits of it, others' numbers among them.
        commits: RangeInclusive<CommitKey>,
        /// Why.
        error: CommitError,
    },
    /// What was left for a partition's next owner was refused; the partition is given up without it.
    HandOverRefused {
        /// The partition.
        partition: PartitionId,
        /// The broker's words.
        text: String,
    },
}
