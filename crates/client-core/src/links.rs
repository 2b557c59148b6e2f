//! Connections to the broker, one for each shard that is needed.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::{ConnectionKey, MonotonicNanos, ShardId};

use crate::lanes::Lanes;

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
    /// The produce streams of its connection.
    pub(crate) lanes: Lanes,
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
}

/// All links, and which of them are needed.
#[derive(Debug)]
pub(crate) struct Links {
    by_shard: BTreeMap<ShardId, Link>,
    by_key: BTreeMap<ConnectionKey, ShardId>,
    wanted: BTreeSet<ShardId>,
    next_key: u64,
    own_streams: u32,
}

impl Links {
    /// No links; each will give so many partitions a produce stream of their own.
    pub(crate) const fn new(own_streams: u32) -> Self {
        Self { by_shard: BTreeMap::new(), by_key: BTreeMap::new(), wanted: BTreeSet::new(), next_key: 0, own_streams }
    }

    /// Sets which shards are needed. Links that are not needed any more stay until they break.
    pub(crate) fn set_wanted(&mut self, wanted: BTreeSet<ShardId>) {
        for &shard in &wanted {
            self.by_shard.entry(shard).or_insert_with(|| Link {
                phase: Phase::Absent { retry_at: MonotonicNanos::default() },
                attempts: 0,
                lanes: Lanes::new(self.own_streams),
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
                link.lanes = Lanes::new(self.own_streams);
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

    /// The connection to a shard with its produce streams, if requests may go there.
    pub(crate) fn ready_lanes(&mut self, shard: ShardId) -> Option<(ConnectionKey, &mut Lanes)> {
        let link = self.by_shard.get_mut(&shard)?;
        match link.phase {
            Phase::Ready { key } => Some((key, &mut link.lanes)),
            _ => None,
        }
    }

    /// All links that requests may go on, with their produce streams.
    pub(crate) fn all_lanes(&mut self) -> impl Iterator<Item = (ConnectionKey, &mut Lanes)> {
        self.by_shard.values_mut().filter_map(|link| match link.phase {
            Phase::Ready { key } => Some((key, &mut link.lanes)),
            _ => None,
        })
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
