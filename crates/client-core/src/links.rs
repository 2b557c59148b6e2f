//! Connections to the broker, one for each shard that is needed.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::limits::SESSION_DATA_STREAMS_MAX;
use corelane_model::{ConnectionKey, MonotonicNanos, PartitionId, ShardId};

/// How far a link is.
///
/// ```text
///           Connect             Connected              welcome           goaway
///   Absent ─────────► Connecting ────────► Greeting ───────────► Ready ─────────► Leaving
///      ▲                  │                    │                   │                 │
///      └──── back-off ────┴────────────────────┴── gone, refused ──┴─────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is no connection; the next attempt waits for `retry_at`.
    Absent { retry_at: MonotonicNanos },
    /// The handshake is under way.
    Connecting { key: ConnectionKey },
    /// Hello has left.
    Greeting { key: ConnectionKey, deadline: MonotonicNanos },
    /// Requests may go.
    Ready { key: ConnectionKey },
    /// The broker said that it goes away: answers still come, nothing new goes.
    Leaving { key: ConnectionKey },
}

/// The link to one shard.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) phase: Phase,
    pub(crate) attempts: u32,
    /// Which produce stream a partition has; beyond the limit partitions share streams.
    slots: BTreeMap<PartitionId, u8>,
}

impl Link {
    pub(crate) const fn key(&self) -> Option<ConnectionKey> {
        match self.phase {
            Phase::Absent { .. } => None,
            Phase::Connecting { key } | Phase::Greeting { key, .. } | Phase::Ready { key } | Phase::Leaving { key } => {
                Some(key)
            }
        }
    }

    /// The produce stream of a partition: one of its own while there are any left.
    pub(crate) fn slot(&mut self, partition: PartitionId) -> u8 {
        if let Some(&slot) = self.slots.get(&partition) {
            return slot;
        }
        let used = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        let limit = u64::from(SESSION_DATA_STREAMS_MAX);
        if used < limit {
            let slot = u8::try_from(used).expect("there are fewer than 256 data streams");
            self.slots.insert(partition, slot);
            return slot;
        }
        let mixed = (partition.topic.0 ^ u64::from(partition.index.0) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        u8::try_from(mixed % limit).expect("there are fewer than 256 data streams")
    }
}

/// All links, and which of them are needed.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_shard: BTreeMap<ShardId, Link>,
    by_key: BTreeMap<ConnectionKey, ShardId>,
    wanted: BTreeSet<ShardId>,
    next_key: u64,
}

impl Links {
    /// Sets which shards are needed. Links that are not needed any more stay until they break.
    pub(crate) fn set_wanted(&mut self, wanted: BTreeSet<ShardId>) {
        for &shard in &wanted {
            self.by_shard.entry(shard).or_insert_with(|| Link {
                phase: Phase::Absent { retry_at: MonotonicNanos::default() },
                attempts: 0,
                slots: BTreeMap::new(),
            });
        }
        self.wanted = wanted;
    }

    /// Shards that are needed and whose next attempt is due; they are connecting when this returns.
    pub(crate) fn start_due(&mut self, now: MonotonicNanos) -> Vec<(ConnectionKey, ShardId)> {
        let mut due = Vec::new();
        for &shard in &self.wanted {
            let link = self.by_shard.get_mut(&shard).expect("what is wanted has a link");
            let Phase::Absent { retry_at } = link.phase else { continue };
            if retry_at <= now {
                let key = ConnectionKey(self.next_key);
                self.next_key += 1;
                link.phase = Phase::Connecting { key };
                link.slots.clear();
                self.by_key.insert(key, shard);
                due.push((key, shard));
            }
        }
        due
    }

    pub(crate) fn shard_of(&self, key: ConnectionKey) -> Option<ShardId> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<&Link> {
        self.by_shard.get(&shard)
    }

    pub(crate) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Link> {
        self.by_shard.get_mut(&shard)
    }

    /// The connection to a shard, if requests may go there.
    pub(crate) fn ready(&self, shard: ShardId) -> Option<ConnectionKey> {
        match self.by_shard.get(&shard)?.phase {
            Phase::Ready { key } => Some(key),
            _ => None,
        }
    }

    /// Any connection that requests may go on, the one to `preferred` if it is among them.
    pub(crate) fn any_ready(&self, preferred: Option<ShardId>) -> Option<ConnectionKey> {
        preferred
            .and_then(|shard| self.ready(shard))
            .or_else(|| self.by_shard.keys().find_map(|&shard| self.ready(shard)))
    }

    /// Forgets a connection; its link is absent until `retry_at`.
    pub(crate) fn forget(&mut self, key: ConnectionKey, retry_at: MonotonicNanos) {
        if let Some(shard) = self.by_key.remove(&key) {
            let link = self.by_shard.get_mut(&shard).expect("a connection has a link");
            assert_eq!(link.key(), Some(key), "a link has one connection");
            link.phase = Phase::Absent { retry_at };
        }
    }

    /// Connections in any phase.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ConnectionKey> {
        self.by_key.keys().copied()
    }
}
