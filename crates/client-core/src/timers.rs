//! Moments at which something must be looked at again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use corelane_model::{MonotonicNanos, ShardId};

use crate::{GroupKey, ProducerKey, QueueMemberKey, SubscriptionKey};

/// What to look at. Whether anything is due is decided by the thing itself: a timer that comes for nothing does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A link waits for its next attempt, or for its welcome.
    Link(ShardId),
    /// Requests may have waited too long.
    Requests,
    /// A partition's batch has lingered, or its pause is over.
    Queue(ProducerKey, u32),
    /// A subscription's pause is over.
    Subscription(SubscriptionKey),
    /// Metadata may be asked for again.
    Metadata,
    /// A membership has something to say.
    Group(GroupKey),
    /// A membership of a shared queue has something to say.
    QueueMember(QueueMemberKey),
    /// Batches may have waited too long.
    Sweep,
}

/// A heap of [`Timer`]s.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(MonotonicNanos, Timer)>>,
}

impl Timers {
    pub(crate) fn at(&mut self, moment: MonotonicNanos, timer: Timer) {
        self.heap.push(Reverse((moment, timer)));
    }

    pub(crate) fn next(&self) -> Option<MonotonicNanos> {
        self.heap.peek().map(|Reverse((moment, _))| *moment)
    }

    /// Takes one timer that is due.
    pub(crate) fn take_due(&mut self, now: MonotonicNanos) -> Option<Timer> {
        if self.next()? <= now { self.heap.pop().map(|Reverse((_, timer))| timer) } else { None }
    }
}
