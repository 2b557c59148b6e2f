//! One subscription: where it is, and what it may still be sent.

use std::ops::Range;

use bytes::Bytes;
use corelane_model::limits::{BATCH_BYTES_MAX, SUBSCRIPTION_CREDIT_BYTES_MAX};
use corelane_model::{ConnectionKey, ErrorCode, MonotonicNanos, Offset, PartitionId, StartAt, TopicId};
use corelane_record::{BatchError, BatchHead};

use crate::{GroupKey, OutOfRange, SubscribeSettings, SubscriptionError};

/// How far a subscription is.
///
/// ```text
///              topic known, connection ready           answer
///   Waiting ───────────────────────────────► Asked ─────────────► Active
///      ▲                                       │                    │
///      └──── connection lost, refused for a while ─────────────────┘
/// ```
/// In any of them it may end by itself, and is then forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Waiting { retry_at: MonotonicNanos },
    Asked { connection: ConnectionKey },
    Active { connection: ConnectionKey },
}

/// Why the broker does not serve a subscription.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
    pub(crate) range: Option<Range<Offset>>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) settings: SubscribeSettings,
    pub(crate) phase: Phase,
    /// The topic that its name meant when it was last asked for.
    pub(crate) asked: Option<TopicId>,
    /// The next offset that the application has not been given; known from the broker's first answer on.
    pub(crate) next: Option<Offset>,
    /// Where reading was to go on when it turned out that the log does not reach back so far.
    pub(crate) missed_from: Option<Offset>,
    pub(crate) attempts: u32,
    /// The turn of a group that begins with it where the reset policy says.
    pub(crate) first_of: Option<(GroupKey, PartitionId)>,
    /// Log start and high watermark of an answer that waits until the group knows where it begins. What is pushed
    /// meanwhile is early, too.
    pub(crate) answer: Option<(Offset, Offset)>,
    /// Pushes that overtook the answer, which come on another stream.
    pub(crate) early: Vec<(Bytes, Offset)>,
    /// What was passed, if that overtook the answer: the last one says it all.
    pub(crate) early_passed: Option<(Offset, Offset)>,
    /// The end, if it overtook the answer too: it comes after those pushes.
    pub(crate) early_end: Option<Ending>,
    window: u64,
    /// Bytes given to the application and not consumed.
    in_hand: u64,
    /// Bytes consumed and not yet given back to the broker.
    to_return: u64,
    /// Whether the first batch since the last answer has come: only that one may begin before what was asked for.
    is_begun: bool,
    pub(crate) is_listed: bool,
}

/// A wish to read all partitions of a topic.
#[derive(Debug)]
pub(crate) struct Follow {
    /// How new partitions are read.
    pub(crate) settings: SubscribeSettings,
    /// Those below are read already.
    pub(crate) known: u32,
}

impl Subscription {
    pub(crate) fn new(mut settings: SubscribeSettings) -> Self {
        settings.credit_bytes = settings.credit_bytes.clamp(1, SUBSCRIPTION_CREDIT_BYTES_MAX);
        Self {
            window: settings.credit_bytes,
            settings,
            phase: Phase::Waiting { retry_at: MonotonicNanos::default() },
            asked: None,
            next: None,
            missed_from: None,
            attempts: 0,
            first_of: None,
            answer: None,
            early: Vec::new(),
            early_passed: None,
            early_end: None,
            in_hand: 0,
            to_return: 0,
            is_begun: false,
            is_listed: false,
        }
    }

    pub(crate) const fn connection(&self) -> Option<ConnectionKey> {
        match self.phase {
            Phase::Waiting { .. } => None,
            Phase::Asked { connection } | Phase::Active { connection } => Some(connection),
        }
    }

    /// Where to start, or to go on.
    pub(crate) fn start(&self) -> StartAt {
        self.next.map_or(self.settings.start, StartAt::Offset)
    }

    /// A new conversation about it begins; returns the credit to open it with.
    pub(crate) fn begin(&mut self) -> u64 {
        self.to_return = 0;
        self.forget_early();
        self.is_begun = false;
        self.window.saturating_sub(self.in_hand)
    }

    /// Forgets what came before the answer: it belongs to a conversation that is over.
    pub(crate) fn forget_early(&mut self) {
        self.answer = None;
        self.early.clear();
        self.early_passed = None;
        self.early_end = None;
    }

    /// What to do when the offset is outside the log; `None` ends the subscription.
    pub(crate) fn fall_back(&mut self, is_memory: bool) -> Option<()> {
        let default = if is_memory { OutOfRange::Earliest } else { OutOfRange::Fail };
        let policy = self.settings.out_of_range.unwrap_or(default);
        match policy {
            OutOfRange::Fail => return None,
            OutOfRange::Earliest | OutOfRange::Latest => {}
        }
        if let StartAt::Offset(offset) = self.start() {
            self.missed_from = Some(offset);
        }
        self.settings.start = if policy == OutOfRange::Latest { StartAt::Latest } else { StartAt::Earliest };
        self.next = None;
        Some(())
    }

    /// Checks the heads of pushed batches and moves on. Returns how many batches there are and the offset from which
    /// their records are wanted.
    pub(crate) fn on_pushed(&mut self, bytes: &Bytes) -> Result<(u64, Offset), SubscriptionError> {
        let from = self.next.expect("pushes are looked at once the answer is there");
        let mut next = from;
        let mut count = 0;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let head = BatchHead::parse(rest)?;
            let needed = head.batch_bytes() as usize;
            let Some((_, after)) = rest.split_at_checked(needed) else {
                return Err(BatchError::Truncated { len: rest.len(), needed }.into());
            };
            rest = after;
            let may_begin_before = !self.is_begun && next < head.end_offset();
            if head.base_offset < next && !may_begin_before {
                return Err(SubscriptionError::WentBack { expected: next.0, found: head.base_offset.0 });
            }
            self.is_begun = true;
            next = head.end_offset();
            count += 1;
        }
        self.next = Some(next);
        self.in_hand += bytes.len() as u64;
        Ok((count, from))
    }

    /// Nothing before `next` comes any more. Returns whether it would have been expected.
    pub(crate) fn on_passed(&mut self, next: Offset) -> bool {
        self.is_begun = true;
        let before = self.next.expect("what was passed is looked at once the answer is there");
        self.next = Some(before.max(next));
        before < next
    }

    /// The application has taken so many bytes. Returns whether credit should go back now.
    pub(crate) fn on_consumed(&mut self, bytes: u64) -> bool {
        self.in_hand = self.in_hand.checked_sub(bytes).expect("only what was delivered is consumed");
        self.to_return += bytes;
        // Giving back a quarter at a time keeps credit frames rare; but never so late that one whole batch may not fit.
        let left = self.window.saturating_sub(self.to_return + self.in_hand);
        self.window / 4 <= self.to_return || left < u64::from(BATCH_BYTES_MAX)
    }

    /// The credit to give back, if there is any.
    pub(crate) fn take_credit(&mut self) -> Option<(ConnectionKey, u64)> {
        let Phase::Active { connection } = self.phase else { return None };
        let bytes = std::mem::take(&mut self.to_return);
        (0 < bytes).then_some((connection, bytes))
    }
}
