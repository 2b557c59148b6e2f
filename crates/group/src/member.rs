//! One member of a group.

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_model::limits::{
    GROUP_CAPACITY_MAX, GROUP_CLIENT_BYTES_MAX, GROUP_REBALANCE_TIMEOUT_DEFAULT, GROUP_REBALANCE_TIMEOUT_MAX,
    GROUP_REBALANCE_TIMEOUT_MIN, GROUP_SESSION_TIMEOUT_DEFAULT, GROUP_SESSION_TIMEOUT_MAX, GROUP_SESSION_TIMEOUT_MIN,
};
use corelane_model::{Generation, MemberId, MonotonicNanos, PartitionId};

use crate::subscriptions::SubscriptionKey;
use crate::{GroupError, ResetPolicy, StaticId, Strategy, Subscription, TopicShape};

/// What a member says when it joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// Random 128 bits that the client made for this life of the member.
    pub member: MemberId,
    /// What its client says of itself, for people.
    pub client: String,
    /// Its name across restarts.
    pub static_id: Option<StaticId>,
    /// What it wants to read.
    pub subscription: Subscription,
    /// What that resolves to in today's catalog; the caller looks it up.
    pub topics: Vec<TopicShape>,
    /// The strategy that it wants; `None` takes the group's.
    pub strategy: Option<Strategy>,
    /// What it can do compared to others, for [`Strategy::Weighted`].
    pub capacity: u32,
    /// Silent for longer, it has died.
    pub session_timeout: Duration,
    /// It gives up what is revoked within this time, or is put out.
    pub rebalance_timeout: Duration,
    /// Where it begins without a committed offset.
    pub reset: ResetPolicy,
}

impl Join {
    /// A member with the defaults.
    #[must_use]
    pub const fn new(member: MemberId, subscription: Subscription, topics: Vec<TopicShape>) -> Self {
        Self {
            member,
            client: String::new(),
            static_id: None,
            subscription,
            topics,
            strategy: None,
            capacity: 1,
            session_timeout: GROUP_SESSION_TIMEOUT_DEFAULT,
            rebalance_timeout: GROUP_REBALANCE_TIMEOUT_DEFAULT,
            reset: ResetPolicy::Latest,
        }
    }

    pub(crate) fn check(&self) -> Result<(), GroupError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        for (setting, value, min, max) in [
            ("capacity", u64::from(self.capacity), 1, u64::from(GROUP_CAPACITY_MAX)),
            ("length of the client's name", self.client.len() as u64, 0, GROUP_CLIENT_BYTES_MAX as u64),
            (
                "session time-out in milliseconds",
                millis(self.session_timeout),
                millis(GROUP_SESSION_TIMEOUT_MIN),
                millis(GROUP_SESSION_TIMEOUT_MAX),
            ),
            (
                "rebalance time-out in milliseconds",
                millis(self.rebalance_timeout),
                millis(GROUP_REBALANCE_TIMEOUT_MIN),
                millis(GROUP_REBALANCE_TIMEOUT_MAX),
            ),
        ] {
            if value < min || max < value {
                return Err(GroupError::OutOfBounds { setting, value, min, max });
            }
        }
        self.subscription.check()?;
        if self.topics.is_empty() {
            return Err(GroupError::NothingSubscribed { subscription: self.subscription.to_string() });
        }
        Ok(())
    }
}

/// What a member says of itself from time to time; a heartbeat needs nothing more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report<'a> {
    /// The generation of the newest assignment that it has acted upon.
    pub seen: Generation,
    /// All partitions that it works on. What was revoked up to `seen` and is not among them has been given up. `None`
    /// says that nothing changed.
    pub holds: Option<&'a [PartitionId]>,
    /// Microseconds that it takes for a record, for [`Strategy::LeastResponseTime`].
    pub processing_micros: Option<u32>,
}

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// For good: others get its partitions at once.
    ForGood,
    /// It will be back: a static member keeps its partitions for its session time-out. Others leave for good.
    Restarting,
}

/// Whether a member is there.
///
/// ```text
///   join ──▶ Present ──────────────── leaves for good, silent for too long,
///               │ ▲                   does not give up, its static id is taken ──▶ (gone)
///     restarts, │ │ joins again with                                                 ▲
///     static    ▼ │ its static id (under a new member id)                            │
///              Away ─────────────────── session time-out ────────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was heard of within its session time-out.
    Present,
    /// It said that it restarts; its partitions wait for it.
    Away,
}

/// A member as the group keeps it. The first part is durable.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) client: String,
    pub(crate) static_id: Option<StaticId>,
    /// The last one that was put out because this one or an earlier life took its static id.
    pub(crate) displaced: Option<MemberId>,
    /// Order of joining; a static member keeps it across restarts.
    pub(crate) seat: u64,
    pub(crate) subscription: SubscriptionKey,
    pub(crate) capacity: u32,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) reset: ResetPolicy,
    pub(crate) presence: Presence,

    /// Index of the slots that it has in effect.
    pub(crate) holds: BTreeSet<PartitionId>,
    /// Index of the slots that it follows.
    pub(crate) follows: BTreeSet<PartitionId>,

    /// When its session expires unless it is heard of.
    pub(crate) expires: MonotonicNanos,
    /// When it was heard of last, by a clock that jumps.
    #[cfg(planted)]
    pub(crate) heard_at: corelane_model::WallMillis,
    /// When its entry among the timers comes up, which is then or earlier.
    pub(crate) armed: MonotonicNanos,
    /// Smoothed microseconds for a record.
    pub(crate) processing_micros: Option<u32>,
    /// Generation of the newest assignment that was made for it.
    pub(crate) told: Generation,
    /// Whether it was heard of since the group was made or restored.
    pub(crate) is_heard: bool,
}

impl Member {
    /// Takes a new measurement into the smoothed one: a quarter of it counts.
    pub(crate) fn measure(&mut self, micros: u32) {
        let smoothed = match self.processing_micros {
            None => u64::from(micros),
            Some(old) => (u64::from(old) * 3 + u64::from(micros)) / 4,
        };
        self.processing_micros = Some(u32::try_from(smoothed).unwrap_or(u32::MAX).max(1));
    }
}
