//! Consumer groups: their requests on the way to the coordinator, and the coordinators of the homes of this shard.
//!
//! A group's coordinator is the owner of its home partition of the internal topic `__groups`. All decisions are made by
//! [`corelane_group::Group`]; here its requests, records, timers and members meet the shard:
//!
//! ```text
//!  a connection's shard          the home's shard                              a partition's owner
//!   request ── route ──mesh──▶ run ─▶ Group ─▶ records ─▶ home's log            ends of logs, lag
//!      ▲                        │ waits for ends ───────────mesh──────────────────▶ │
//!      └── answers, assignments ┴◀── durable ◀── storage      ◀─────────────────────┘
//! ```
//!
//! - `route`: from a connection to the coordinator, making `__groups` when it is first needed.
//! - `homes`: which of them a round looks at. `home`, `restore`, `log`: a home partition, its groups, and how they get back from its log and into it.
//! - `round`: what a round does for all homes, in order. `run`: requests. `tell`: effects as frames.
//! - `ends`: commits are held against the ends of logs that other shards own.
//! - `patterns`: what a subscription means in today's catalog.
//! - `describe`, `list`: for people.

mod describe;
mod ends;
mod home;
mod homes;
mod lag;
mod list;
mod log;
mod patterns;
mod restore;
mod round;
mod route;
mod run;
mod status;
mod tell;
mod transactions;

use corelane_group::GroupStats;
use corelane_model::limits::{GROUP_HOMES, SEGMENT_BYTES_MIN};
use corelane_model::{ErrorCode, MonotonicNanos, PartitionId, PartitionIndex, TopicClass, TopicId, TopicSettings};
use corelane_queue::QueueName;
use corelane_record::{BatchBuilder, Compression};
use corelane_session::{GroupAsk, Refused};

pub(crate) use describe::{LagOf, Lagging};
pub(crate) use ends::Ends;
pub(crate) use home::{Home, HomePhase};
pub(crate) use list::Listed;
pub(crate) use log::Reach;
pub(crate) use restore::Remains;
pub(crate) use tell::{GroupAnswer, member_on_wire};

use crate::ask::Asker;
use crate::queues::{BrokenQueue, Homed, QueueRequest, QueuesOfHome};
use corelane_model::GroupName;
use describe::Lags;
use homes::Homes;
use list::Lists;
use patterns::Patterns;
use route::Arriving;

/// The topic whose partitions keep the groups.
pub(crate) const GROUPS_TOPIC: &str = "__groups";
/// How many partitions it has.
pub(crate) const GROUPS_PARTITIONS: u32 = GROUP_HOMES;

/// What becomes of its records: they are never dropped by age or size, since snapshots bound the log.
pub(crate) fn groups_settings() -> TopicSettings {
    TopicSettings {
        class: TopicClass::Durable,
        retention_ms: None,
        retention_bytes: None,
        segment_bytes: SEGMENT_BYTES_MIN * 4,
        ..TopicSettings::default()
    }
}

/// A request for a group on its way to the coordinator.
#[derive(Debug)]
pub(crate) struct GroupRequest {
    pub(crate) asker: Asker,
    pub(crate) group: GroupName,
    /// What the client calls itself; only with a join.
    pub(crate) client: Box<str>,
    pub(crate) ask: GroupAsk,
}

/// A request for whatever a home keeps.
#[derive(Debug)]
pub(crate) enum HomeRequest {
    Group(GroupRequest),
    Queue(QueueRequest),
}

impl HomeRequest {
    /// Who waits for an answer, if there will be one.
    pub(crate) fn waits(&self) -> Option<Asker> {
        match self {
            Self::Group(request) => Some(request.asker),
            Self::Queue(request) => request.ask.is_answered().then_some(request.asker),
        }
    }
}

/// All that a shard knows of groups.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The internal topic, once this shard's catalog has it and its homes are open.
    topic: Option<TopicId>,
    /// The homes of this shard, by partition.
    homes: Homes,
    arriving: Arriving,
    patterns: Patterns,
    ends: Ends,
    lags: Lags,
    lists: Lists,
    /// Kept for its memory.
    pub(crate) builder: BatchBuilder,
    last_ticket: u64,
    /// Sessions do not expire before: the shard was late, and what members sent meanwhile is still on its way in.
    pub(crate) lenient_until: MonotonicNanos,
    /// The first home whose turn it is when a round has too little time for all.
    turn: PartitionIndex,
    /// Counters of groups that are gone.
    retired: GroupStats,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            topic: None,
            homes: Homes::default(),
            arriving: Arriving::default(),
            patterns: Patterns::default(),
            ends: Ends::default(),
            lags: Lags::default(),
            lists: Lists::default(),
            builder: BatchBuilder::new(Compression::None),
            last_ticket: 0,
            lenient_until: MonotonicNanos(0),
            turn: PartitionIndex(0),
            retired: GroupStats::default(),
        }
    }
}

impl Groups {
    pub(crate) fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// The queues of a home here.
    pub(crate) fn queues_of(&mut self, home: PartitionIndex) -> Option<&mut QueuesOfHome> {
        self.homes.get_mut(&home).map(|home| &mut home.queues)
    }

    /// What a home here is at.
    pub(crate) fn home_phase(&mut self, home: PartitionIndex) -> Option<&mut HomePhase> {
        self.homes.get_mut(&home).map(|home| &mut home.phase)
    }

    /// Whether a home takes requests.
    ///
    /// # Errors
    /// It is not open, broken, restored at the moment, or its log has no room.
    pub(crate) fn check_home(&self, home: PartitionIndex) -> Result<(), Refused> {
        self.check_open(home)?;
        if self.homes.get(&home).is_some_and(|home| home.log.is_full()) { Err(log::busy()) } else { Ok(()) }
    }

    /// Whether a home takes what it writes nothing of.
    ///
    /// # Errors
    /// It is not open, broken, or restored at the moment.
    pub(crate) fn check_open(&self, home: PartitionIndex) -> Result<(), Refused> {
        let Some(home) = self.homes.get(&home) else {
            return Err(Refused::new(ErrorCode::Recovering, "the group's home is being opened; try again in a moment"));
        };
        match &home.phase {
            HomePhase::Serving => Ok(()),
            HomePhase::Broken(refused) => Err(refused.clone()),
            HomePhase::Restoring(_) => {
                let text = "the group is being read from disk; try again in a moment";
                Err(Refused::new(ErrorCode::Recovering, text))
            }
        }
    }

    /// Whether a home keeps a consumer group of this name.
    pub(crate) fn has_group(&self, home: PartitionIndex, group: &GroupName) -> bool {
        self.homes.get(&home).is_some_and(|home| home.groups.contains_key(group))
    }

    /// Every queue of this shard's homes.
    pub(crate) fn all_queues(&self) -> impl Iterator<Item = (&QueueName, &Homed)> {
        self.homes.values().flat_map(|home| &home.queues.by_name)
    }

    /// Every queue of this shard's homes with a record that cannot be read.
    pub(crate) fn broken_queues(&self) -> impl Iterator<Item = (&QueueName, &BrokenQueue)> {
        self.homes.values().flat_map(|home| &home.queues.broken)
    }

    /// Whether owners have not yet answered what the last status asked.
    pub(crate) fn is_status_waiting(&self) -> bool {
        self.lags.is_status_waiting()
    }

    /// Why homes take nothing until the next start.
    pub(crate) fn broken_homes(&self) -> impl Iterator<Item = &Refused> {
        self.homes.values().filter_map(Home::broken)
    }

    /// Whether a home is not open for requests (yet).
    pub(crate) fn is_restoring(&self) -> bool {
        self.homes.values().any(|home| !matches!(home.phase, HomePhase::Serving))
    }

    /// Appends a record to a home's log.
    pub(crate) fn append(&mut self, home: PartitionIndex, key: Vec<u8>, value: Option<Vec<u8>>, reach: Reach) {
        if let Some(home) = self.homes.get_mut(&home) {
            home.log.push(key, value, reach);
        }
    }

    /// The home whose log this partition is.
    fn home_of(&mut self, partition: PartitionId) -> Option<&mut Home> {
        if self.topic == Some(partition.topic) { self.homes.get_mut(&partition.index) } else { None }
    }
}
