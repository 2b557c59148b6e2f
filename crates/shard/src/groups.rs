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
//! - `home`, `restore`, `log`: a home partition, its groups, and how they get back from its log and into it.
//! - `round`: what a round does for all homes, in order. `run`: requests. `tell`: effects as frames.
//! - `ends`: commits are held against the ends of logs that other shards own.
//! - `patterns`: what a subscription means in today's catalog.
//! - `describe`, `list`: for people.

mod describe;
mod ends;
mod home;
mod list;
mod log;
mod patterns;
mod restore;
mod round;
mod route;
mod run;
mod status;
mod tell;

use std::collections::BTreeMap;

use corelane_group::GroupStats;
use corelane_model::limits::{GROUP_HOMES, SEGMENT_BYTES_MIN};
use corelane_model::{MonotonicNanos, PartitionId, PartitionIndex, TopicClass, TopicId, TopicSettings};
use corelane_record::{BatchBuilder, Compression};
use corelane_session::GroupAsk;

pub(crate) use describe::LagOf;
pub(crate) use ends::Ends;
pub(crate) use home::Home;
pub(crate) use list::Listed;
pub(crate) use tell::GroupAnswer;

use crate::ask::Asker;
use corelane_model::GroupName;
use describe::Lags;
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

/// All that a shard knows of groups.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The internal topic, once this shard's catalog has it and its homes are open.
    topic: Option<TopicId>,
    /// The homes of this shard, by partition.
    homes: BTreeMap<PartitionIndex, Home>,
    arriving: Arriving,
    patterns: Patterns,
    ends: Ends,
    lags: Lags,
    lists: Lists,
    /// Kept for its memory.
    builder: BatchBuilder,
    last_ticket: u64,
    /// Sessions do not expire before: the shard was late, and what members sent meanwhile is still on its way in.
    lenient_until: MonotonicNanos,
    /// The first home whose turn it is when a round has too little time for all.
    turn: PartitionIndex,
    /// Counters of groups that are gone.
    retired: GroupStats,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            topic: None,
            homes: BTreeMap::new(),
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
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// The home whose log this partition is.
    fn home_of(&mut self, partition: PartitionId) -> Option<&mut Home> {
        if self.topic == Some(partition.topic) { self.homes.get_mut(&partition.index) } else { None }
    }
}
