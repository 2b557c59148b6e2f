//! The log of a home of groups: snapshots that keep it short.

use std::collections::VecDeque;

use corelane_group::AppendPosition;
use corelane_model::{ErrorCode, GroupName, Offset, PartitionIndex};
use corelane_queue::QueueName;
use corelane_session::Refused;
use corelane_storage::ChangeTicket;

use super::GROUPS_TOPIC;
use super::home::{Home, HomePhase};
use crate::Shard;
use crate::home_log::{self, HomeAppends, NeverWritten};

/// A home's log is not shortened before it has this many bytes.
const SNAPSHOT_BYTES_MIN: u64 = 1 << 20;
/// Bytes of snapshots in one round, over all homes; a group is not divided.
const SNAPSHOT_ROUND_BYTES: u64 = 256 << 10;
/// Whose records something reaches.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    Group(GroupName),
    Queue(QueueName),
}

/// Up to which record of which group or queue something reaches.
pub(crate) type Reach = home_log::Reach<Owner>;

impl Reach {
    pub(super) const fn group(group: GroupName, serial: u64, position: AppendPosition) -> Self {
        Self { owner: Owner::Group(group), serial, position: position.0 }
    }

    pub(crate) const fn queue(queue: QueueName, serial: u64, position: u64) -> Self {
        Self { owner: Owner::Queue(queue), serial, position }
    }
}

/// ```text
///          twice as long as what lives        every group written
///   Quiet ────────────────────────────▶ Writing ───────────────▶ Settling
///     ▲                                                             │ durable
///     └───────────────── the log start is durable ── Truncating ◀───┘
/// ```
///
/// A snapshot is the newest record of every key, appended like any other: whoever reads from its first record on finds
/// every key that lives, and whatever was changed meanwhile behind it. So a crash at any point needs no care: the log
/// start is raised only when all of it is durable, and until then what lies before is read too.
#[derive(Debug, Default)]
enum Snapshot {
    #[default]
    Quiet,
    Writing {
        from: Offset,
        left: VecDeque<Owner>,
        live_bytes: u64,
    },
    Settling {
        from: Offset,
        until: Offset,
        live_bytes: u64,
    },
    Truncating {
        ticket: ChangeTicket,
        live_bytes: u64,
    },
}

/// What is on its way into a home's log, and how long it is.
#[derive(Debug, Default)]
pub(crate) struct HomeLog {
    appends: HomeAppends<Owner>,
    /// Bytes of batches since the log start, or since the beginning of the snapshot that is being written.
    bytes: u64,
    /// What the last snapshot took.
    live_bytes: u64,
    snapshot: Snapshot,
}

impl HomeLog {
    /// A log of so many bytes was read.
    pub(super) const fn restored(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    pub(super) fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, reach: Reach) {
        self.appends.push(key, value, Some(reach));
    }

    /// Whether so much waits for room that no more requests are to be taken.
    pub(super) const fn is_full(&self) -> bool {
        self.appends.is_full()
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.appends.is_waiting()
    }

    /// Takes no more records and tells of none.
    pub(super) fn stop(&mut self) {
        self.appends.stop();
    }

    /// Whether a snapshot is being written or it is time for one.
    fn wants_snapshot(&self) -> bool {
        match self.snapshot {
            Snapshot::Quiet => SNAPSHOT_BYTES_MIN.max(2 * self.live_bytes) <= self.bytes,
            Snapshot::Writing { .. } => true,
            Snapshot::Settling { .. } | Snapshot::Truncating { .. } => false,
        }
    }

    /// Whether a round has something to do here.
    pub(super) fn has_work(&self) -> bool {
        self.is_waiting() || self.wants_snapshot()
    }

    /// What became durable below `end`.
    pub(super) fn take_durable(&mut self, end: Offset) -> Vec<Reach> {
        self.appends.take_durable(end)
    }
}

impl Shard {
    /// Appends the records of a home's round. What finds no room waits for [`WRITE_AGAIN`](crate::home_log::WRITE_AGAIN).
    pub(super) fn write_home(&mut self, index: PartitionIndex) {
        let Self { groups, storage, now, is_storage_touched, .. } = self;
        let Some(Home { log, partition, .. }) = groups.homes.get_mut(&index) else { return };
        *is_storage_touched |= log.appends.is_pending() || log.appends.is_waiting();
        match log.appends.write(&mut groups.builder, storage, *now, *partition) {
            Ok(bytes) => log.bytes += bytes,
            Err(never) => self.stop_home(index, &never),
        }
    }

    /// A home's log will never take what its groups and queues decided: they must not go on from there, and whoever waits for
    /// it hears of it. What is on disk is where they begin after the next start.
    fn stop_home(&mut self, index: PartitionIndex, never: &NeverWritten) {
        let text = format!(
            "the log of home {index} of {GROUPS_TOPIC} does not take a record: {never}; its groups and queues are served \
             again, as they are on disk, when the broker was restarted"
        );
        let refused = Refused::new(ErrorCode::StorageFailed, text);
        let home = self.groups.homes.get_mut(&index).expect("the caller has it");
        for asker in home.stop(&refused) {
            self.refuse(asker, None, refused.clone());
        }
    }

    /// One step of a home's snapshot. Whether more can be done at once.
    pub(super) fn snapshot_home(&mut self, index: PartitionIndex, left: &mut u64) -> bool {
        let Some(home) = self.groups.homes.get_mut(&index) else { return false };
        if !matches!(home.phase, HomePhase::Serving) || home.log.is_waiting() {
            return false;
        }
        let Home { log, groups, queues, .. } = home;
        // A snapshot would leave out what cannot be read.
        if !log.wants_snapshot() || !queues.broken.is_empty() {
            return false;
        }
        let Some(status) = self.storage.describe(home.partition) else { return false };
        match &mut log.snapshot {
            Snapshot::Quiet => {
                log.bytes = 0;
                let queues = queues.by_name.keys().cloned().map(Owner::Queue);
                let left = groups.keys().cloned().map(Owner::Group).chain(queues).collect();
                log.snapshot = Snapshot::Writing { from: status.log_end, left, live_bytes: 0 };
                true
            }
            Snapshot::Writing { from, left: names, live_bytes } => {
                while *left != 0 {
                    let Some(name) = names.pop_front() else {
                        if log.appends.is_pending() {
                            return true;
                        }
                        let (from, live_bytes) = (*from, *live_bytes);
                        log.snapshot = Snapshot::Settling { from, until: status.log_end, live_bytes };
                        return false;
                    };
                    let records: Vec<_> = match name {
                        Owner::Group(name) => {
                            groups.get(&name).into_iter().flat_map(|known| known.group.records()).collect()
                        }
                        Owner::Queue(name) => {
                            let homed = queues.by_name.get(&name);
                            homed.into_iter().flat_map(|homed| homed.queue.records(self.now)).collect()
                        }
                    };
                    for (key, value) in records {
                        let bytes = (key.len() + value.len()) as u64;
                        *live_bytes += bytes;
                        *left = left.saturating_sub(bytes);
                        log.appends.push(key, Some(value), None);
                    }
                }
                true
            }
            Snapshot::Settling { .. } | Snapshot::Truncating { .. } => false,
        }
    }

    /// The end of a home's log moved: a snapshot that is durable lets what lies before it go.
    pub(super) fn truncate_home(&mut self, index: PartitionIndex, end: Offset) {
        let Some(home) = self.groups.homes.get_mut(&index) else { return };
        let Snapshot::Settling { from, until, live_bytes } = home.log.snapshot else { return };
        if end < until {
            return;
        }
        self.is_storage_touched = true;
        home.log.snapshot = match self.storage.truncate(self.now, home.partition, from) {
            Ok(ticket) => Snapshot::Truncating { ticket, live_bytes },
            // The next round of appends tries again.
            Err(_) => Snapshot::Settling { from, until, live_bytes },
        };
    }

    /// A log start is durable; whether it was a home's.
    pub(crate) fn on_home_truncated(&mut self, ticket: ChangeTicket) -> bool {
        for home in self.groups.homes.values_mut() {
            if let Snapshot::Truncating { ticket: awaited, live_bytes } = home.log.snapshot
                && awaited == ticket
            {
                home.log.snapshot = Snapshot::Quiet;
                home.log.live_bytes = live_bytes;
                self.stats.group_snapshots += 1;
                return true;
            }
        }
        false
    }

    /// Bytes of snapshots that a round may write.
    pub(super) const fn snapshot_budget() -> u64 {
        SNAPSHOT_ROUND_BYTES
    }
}

/// The refusal while a home's records find no room in the journal.
pub(super) fn busy() -> Refused {
    Refused::new(ErrorCode::Busy, "records of groups wait for room in the journal; try again in a moment")
}
