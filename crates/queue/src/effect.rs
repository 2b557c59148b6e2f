//! What a queue wants done outside.

use std::fmt;
use std::time::Duration;

use corelane_model::limits::QUEUE_DELAY_MAX;
use corelane_model::{MemberId, Offset, PartitionIndex, StartAt, TopicId, TopicName, WallMillis};

use crate::QueueError;

/// Counts the records that one [`crate::Queue`] has appended since it was made or restored, from 1. Whoever writes them
/// says up to which one they are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendPosition(pub u64);

/// Ties an answer to a request; chosen by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestTicket(pub u64);

/// Leases of records that follow each other in one partition and were delivered equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseRun {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first record.
    pub first: Offset,
    /// How many.
    pub count: u32,
    /// Which delivery of these records it is, from 1.
    pub attempt: u32,
}

impl LeaseRun {
    /// Adds one record to the end of a list of runs.
    pub(crate) fn push(runs: &mut Vec<Self>, partition: PartitionIndex, offset: u64, attempt: u32) {
        match runs.last_mut() {
            Some(last)
                if last.partition == partition
                    && last.attempt == attempt
                    && last.first.0 + u64::from(last.count) == offset
                    && last.count < u32::MAX =>
            {
                last.count += 1;
            }
            _ => runs.push(Self { partition, first: Offset(offset), count: 1, attempt }),
        }
    }
}

/// Why a member was put out of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceReason {
    /// It was silent for longer than its session time-out.
    SessionExpired,
    /// The queue was deleted.
    QueueDeleted,
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionExpired => "it was silent for longer than its session time-out",
            Self::QueueDeleted => "the queue was deleted",
        })
    }
}

/// Why a record is a dead letter: how its last delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// The member said so, perhaps with a text of its own.
    Rejected(String),
    /// The visibility time-out ended its last delivery.
    TimedOut,
    /// The member that had it last was put out.
    MemberGone,
    /// Its delivery time is farther off than a queue waits.
    TooFar,
    /// It had reached the limit before the broker was started again; nobody remembers how.
    Restored,
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(text) if text.is_empty() => f.write_str("rejected"),
            Self::Rejected(text) => write!(f, "rejected: {text}"),
            Self::TimedOut => f.write_str("the visibility time-out ended"),
            Self::MemberGone => f.write_str("the member's session ended"),
            Self::TooFar => {
                let days = QUEUE_DELAY_MAX.as_secs() / (24 * 3600);
                write!(f, "its delivery time is more than {days} days after it was appended")
            }
            Self::Restored => f.write_str("the delivery limit was reached"),
        }
    }
}

/// What a request led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The member is in the queue, whose settings hold.
    Joined {
        /// Whether that made the queue.
        is_new: bool,
    },
    /// What was said about leases was taken, except for these: the member did not have them (any more).
    Leases {
        /// In the order of the request.
        refused: Vec<LeaseRun>,
    },
    /// Done.
    Done,
    /// Dead letters are back.
    Redriven(Redriven),
}

/// Where a redrive stands between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedriveAt {
    /// A partition of the dead-letter topic; those before it had their turn.
    pub partition: PartitionIndex,
    /// Its end when its turn came; what died since waits for another redrive. None if its turn did not come yet.
    pub end: Option<Offset>,
}

/// What a step of a redrive came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redriven {
    /// Records that were put back, all durable.
    pub records: u64,
    /// Where the next step begins; none if nothing is left.
    pub next: Option<RedriveAt>,
    /// What it ended before its time for, in words; empty if for nothing.
    pub stopped: String,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append this record to the queue's home partition, after all that came before. The appends between two
    /// [`crate::Queue::finish_round`] are best written as one batch.
    Append {
        /// Comes back through [`crate::Queue::on_durable`].
        position: AppendPosition,
        /// The record's key; the newest record of a key counts.
        key: Vec<u8>,
        /// The record's value; `None` removes the key.
        value: Option<Vec<u8>>,
    },
    /// Answer the request of this ticket.
    Answer {
        /// The ticket.
        ticket: RequestTicket,
        /// With this.
        answer: Answer,
    },
    /// Refuse the request of this ticket, which had been taken.
    Refuse {
        /// The ticket.
        ticket: RequestTicket,
        /// Why.
        error: QueueError,
    },
    /// Send these records to a member, in this order. If they cannot be read for the moment, say
    /// [`crate::Queue::give_back`]; if never, [`crate::Queue::skip`].
    Deliver {
        /// The member.
        member: MemberId,
        /// Which records.
        leases: Vec<LeaseRun>,
        /// For how long it has them.
        lease: Duration,
        /// Bytes that this took off its credit.
        bytes: u64,
    },
    /// Find out which offset a position means, and say [`crate::Queue::on_start`].
    FindStart {
        /// The partition.
        partition: PartitionIndex,
        /// The position.
        start: StartAt,
    },
    /// So many more bytes of record batches of a partition are wanted, from this offset on, as soon as there are some:
    /// [`crate::Queue::on_records`]. It adds to what was asked for before and has not come, except when the offset is not
    /// where that would go on: then it begins anew there. A batch that is larger than what is wanted comes whole.
    Read {
        /// The partition.
        partition: PartitionIndex,
        /// Where it goes on.
        from: Offset,
        /// How much more.
        bytes: u64,
    },
    /// Append this record to the dead-letter topic with headers that say why, then say
    /// [`crate::Queue::on_dead_letter_stored`], or [`crate::Queue::on_dead_letter_failed`].
    DeadLetter {
        /// The partition that it is in.
        partition: PartitionIndex,
        /// Its offset there.
        offset: Offset,
        /// The dead-letter topic.
        topic: TopicName,
        /// How often it was delivered.
        deliveries: u32,
        /// When it failed first.
        first_failed: WallMillis,
        /// Why.
        reason: DeadReason,
    },
    /// Put some dead letters of this queue back into its topic: those in the dead-letter topic from these offsets on, 0 where
    /// none is named, up to what is visible when the turn of their partition comes. Say [`crate::Queue::on_redriven`] for what is
    /// durable and at the end [`crate::Queue::on_redrive_done`].
    Redrive {
        /// The ticket.
        ticket: RequestTicket,
        /// The dead-letter topic.
        topic: TopicName,
        /// Where to begin, by partition of the dead-letter topic, if that is still the one of this id.
        from: Vec<(PartitionIndex, Offset)>,
        /// See `from`.
        of: TopicId,
        /// How many records at most, at least 1.
        most: u64,
        /// Where the step before ended.
        at: RedriveAt,
    },
    /// Tell a member that it is no longer in the queue.
    Fence {
        /// The member.
        member: MemberId,
        /// Why.
        reason: FenceReason,
    },
    /// Nothing of the queue is left but tombstones: forget the machine.
    Remove,
}
