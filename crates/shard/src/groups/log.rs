//! A home's log: records of a round as batches, and snapshots that keep it short.

use std::collections::VecDeque;
use std::time::Duration;

use corelane_group::AppendPosition;
use corelane_model::{ErrorCode, GroupName, Offset, PartitionIndex};
use corelane_queue::QueueName;
use corelane_record::{BatchBuilder, ProducerStamp, SealedBatch};
use corelane_session::Refused;
use corelane_storage::ChangeTicket;

use super::home::{Home, HomePhase};
use crate::Shard;

/// A home's log is not shortened before it has this many bytes.
const SNAPSHOT_BYTES_MIN: u64 = 1 << 20;
/// Bytes of snapshots in one round, over all homes; a group is not divided.
const SNAPSHOT_ROUND_BYTES: u64 = 256 << 10;
/// Bytes of batches of one home that wait for room in the journal; beyond it requests are refused.
const UNWRITTEN_BYTES_MAX: u64 = 4 << 20;

/// Whose records something reaches.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    Group(GroupName),
    Queue(QueueName),
}

/// Up to which record of which group or queue something reaches.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(super) owner: Owner,
    pub(super) serial: u64,
    pub(super) position: u64,
}

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

/// A record on its way.
#[derive(Debug)]
struct Pending {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    reach: Option<Reach>,
}

/// Records that found no room in the journal are tried again after this time, if nothing else happens before.
pub(crate) const WRITE_AGAIN: Duration = Duration::from_millis(5);

/// What is on its way into a home's log.
#[derive(Debug, Default)]
pub(crate) struct HomeLog {
    /// Records of this round; a record that belongs to a snapshot reaches nothing.
    pending: Vec<Pending>,
    /// Batches that found no room in the journal, in order.
    unwritten: VecDeque<(SealedBatch, Vec<Reach>)>,
    unwritten_bytes: u64,
    /// Ends of batches that are not durable yet.
    written: VecDeque<(Offset, Vec<Reach>)>,
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
        self.pending.push(Pending { key, value, reach: Some(reach) });
    }

    /// Whether nothing more should be taken for now.
    pub(super) const fn is_full(&self) -> bool {
        UNWRITTEN_BYTES_MAX < self.unwritten_bytes
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.unwritten.is_empty()
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
        let mut reaches = Vec::new();
        while let Some((until, _)) = self.written.front()
            && *until <= end
        {
            reaches.extend(self.written.pop_front().expect("it was there").1);
        }
        reaches
    }

    /// The records of the round as batches, behind those that wait.
    fn seal(&mut self, builder: &mut BatchBuilder, now: corelane_model::WallMillis) {
        let mut reaches: Vec<Reach> = Vec::new();
        for Pending { key, value, reach } in std::mem::take(&mut self.pending) {
            if builder.push(now, Some(&key), value.as_deref(), &[]).is_err() {
                self.seal_one(builder, std::mem::take(&mut reaches));
                builder.push(now, Some(&key), value.as_deref(), &[]).expect("a group's record fits into a batch");
            }
            let Some(reach) = reach else { continue };
            match reaches.last_mut() {
                Some(last) if last.serial == reach.serial => last.position = reach.position,
                _ => reaches.push(reach),
            }
        }
        if !builder.is_empty() {
            self.seal_one(builder, reaches);
        }
    }

    fn seal_one(&mut self, builder: &mut BatchBuilder, reaches: Vec<Reach>) {
        let bytes = builder.finish(ProducerStamp::default());
        self.unwritten_bytes += bytes.len() as u64;
        let batch = SealedBatch::parse(bytes).expect("the builder makes whole batches");
        self.unwritten.push_back((batch, reaches));
    }
}

impl Shard {
    /// Appends the records of a home's round. What finds no room waits for [`WRITE_AGAIN`].
    pub(super) fn write_home(&mut self, index: PartitionIndex) {
        let Self { groups, storage, now, is_storage_touched, .. } = self;
        let Some(home) = groups.homes.get_mut(&index) else { return };
        home.log.seal(&mut groups.builder, now.wall);
        while let Some((batch, _)) = home.log.unwritten.front() {
            *is_storage_touched = true;
            let bytes = batch.bytes().len() as u64;
            let Ok(appended) = storage.append(*now, home.partition, batch) else { return };
            let (_, reaches) = home.log.unwritten.pop_front().expect("it was there");
            home.log.unwritten_bytes -= bytes;
            home.log.bytes += bytes;
            home.log.written.push_back((appended.end_offset, reaches));
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
                        if !log.pending.is_empty() {
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
                        log.pending.push(Pending { key, value: Some(value), reach: None });
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
