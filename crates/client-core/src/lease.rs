//! Words about membership of a shared queue: how a member is to be, what it says of its leases, and what it is told.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::GROUP_SESSION_TIMEOUT_DEFAULT;
use corelane_model::{ErrorCode, GroupName, MemberId, MonotonicNanos, QueueWish, Retry, StartAt, TopicName};
use corelane_wire::LeaseRange;

use crate::{FenceReason, MembershipError};

/// A membership of a shared queue of this client. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueMemberKey(pub u64);

/// Something that a member said of leases: an acknowledgement, positive or not, or that it needs longer. Counts up from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictKey(pub u64);

/// What comes of saying something of leases at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaidOfLeases {
    /// What tells its end.
    pub key: VerdictKey,
    /// Whether the next round may send it, hence should not wait for something else to happen. Else it gathers.
    pub is_ready: bool,
}

/// Records that came together; names them when something is said of them. Counts up and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey(pub u64);

/// Records of a shared queue that a member has at once, when it does not say.
const CREDIT_RECORDS_DEFAULT: u32 = 256;
/// Their bytes.
const CREDIT_BYTES_DEFAULT: u64 = 1 << 20;

/// How a member of a shared queue is to be.
#[derive(Clone, Debug)]
pub struct QueueMemberSettings {
    /// The group.
    pub group: GroupName,
    /// The topic.
    pub topic: TopicName,
    /// What it can do compared to others.
    pub weight: u32,
    /// Silent for longer, it has died.
    pub session_timeout: Duration,
    /// How a new queue is to be; what is named has to agree with a queue that exists.
    pub wish: QueueWish,
    /// Where a new queue begins in each partition.
    pub start: StartAt,
    /// Records that it may have at once: under way, waiting, and not acknowledged.
    pub credit_records: u32,
    /// Their bytes, one larger record excepted.
    pub credit_bytes: u64,
}

impl QueueMemberSettings {
    /// A member with the defaults.
    #[must_use]
    pub fn new(group: GroupName, topic: TopicName) -> Self {
        Self {
            group,
            topic,
            weight: 1,
            session_timeout: GROUP_SESSION_TIMEOUT_DEFAULT,
            wish: QueueWish::default(),
            start: StartAt::Earliest,
            credit_records: CREDIT_RECORDS_DEFAULT,
            credit_bytes: CREDIT_BYTES_DEFAULT,
        }
    }
}

/// What a member says of records that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are done.
    Ack,
    /// They failed.
    Nack {
        /// How long they rest; `None` leaves it to the queue's back-off.
        delay: Option<Duration>,
        /// They become dead letters at once.
        is_dead: bool,
        /// Why, for the dead letter; cut at [`corelane_model::limits::QUEUE_REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// They take longer: their leases end so long from now.
    Extend {
        /// From now on.
        lease: Duration,
    },
}

/// Why nothing came of what a member said of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerdictError {
    /// The member does not have these records (any more): their time was over, so that another may have them, or they are
    /// done. An acknowledgement that was repeated after a lost connection may end like this although it was carried out.
    #[error("the lease is over: the record went to another member, or is done")]
    LeaseOver,
    /// The member was put out of the queue; its records go to others.
    #[error("the member is no longer in the queue: {0}")]
    Fenced(FenceReason),
    /// The broker refused. The leases are what they were, unless it stopped before the verdict was durable: then it may have been
    /// carried out, and the next start tells.
    #[error("{text} ({code:?}); {}", after_refusal(*code))]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
    },
    /// So much was said that has not left that no more is taken: the broker is away, or slow. Nothing was said; the leases are
    /// what they were.
    #[error(
        "{waiting} ranges of leases wait to be spoken of, over the limit of {limit}; the leases are what they were"
    )]
    TooMany {
        /// How many there would be.
        waiting: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The membership ended before the answer; it may have been carried out all the same.
    #[error("the membership ended before the answer; it may have been carried out")]
    Ended,
    /// It was answered long ago. Something was refused about then and too much since for it to be known what, so that it may
    /// or may not have been carried out. Whoever asks a ticket in time never sees it.
    #[error("it is no longer known whether it was carried out: too much was refused since")]
    Forgotten,
}

impl VerdictError {
    /// Whether the same may work later. Saying it again is always safe.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later),
            Self::TooMany { .. } => true,
            Self::LeaseOver | Self::Fenced(_) | Self::Ended | Self::Forgotten => false,
        }
    }
}

/// What becomes of the leases of a verdict that was refused.
const fn after_refusal(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::StorageFailed | ErrorCode::ShuttingDown => {
            "it may have been carried out: what is on disk counts when the broker has started again"
        }
        _ => "the leases are what they were",
    }
}

/// What a membership of a shared queue tells.
#[derive(Debug)]
pub enum QueueNews {
    /// The queue has taken the member in for the first time.
    Joined {
        /// The id under which it did.
        member: MemberId,
        /// How many partitions the topic has.
        partitions: u32,
    },
    /// Records, each leased to the member until `expires`. Say a [`Verdict`] of each; those of which nothing is said go to
    /// others when the time is over.
    Delivered {
        /// Names them.
        delivery: DeliveryKey,
        /// Which records these are, in the order of the batches.
        leases: Vec<LeaseRange>,
        /// Record batches one after another. Offsets in their heads mean nothing.
        bytes: Bytes,
        /// Until when the member has them.
        expires: MonotonicNanos,
        /// The queue's visibility time-out: for how long it is as a rule. Less may be left, or nothing, of records that the
        /// broker had to read from disk first.
        lease: Duration,
    },
    /// All verdicts before this one are settled: carried out durably, or told as [`Self::Refused`] before.
    Settled {
        /// The first that is not.
        below: VerdictKey,
    },
    /// Nothing came of what was said of these records.
    Refused {
        /// They are among what these verdicts were about.
        verdicts: RangeInclusive<VerdictKey>,
        /// Which records; none stands for all that those verdicts were about.
        leases: Vec<LeaseRange>,
        /// Why.
        error: VerdictError,
    },
    /// The member was put out; everything that it has goes to others. It joins again by itself unless [`Self::Ended`]
    /// follows.
    Lost {
        /// Why.
        reason: FenceReason,
    },
    /// The membership is over. The last news.
    Ended {
        /// Why, unless the application left.
        error: Option<MembershipError>,
    },
}
