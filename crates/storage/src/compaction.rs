//! Compaction of one shard: one pass at a time, at settling's low priority, a bounded piece of work in a round.
//!
//! ```text
//!            due                 all dirty keys, or no room for more
//!   Looking ─────▶ Learning ───────────────────────────────────────▶ Opening a group's file
//!      ▲                                                                │ Delete ▶ Create
//!      │                                                                ▼
//!      │ last group         Noted ◀── note in the journal ── Synced ◀─ Writing
//!      ╰──────────────────── durable ──▶ next group: Opening
//! ```
//! Any failure ends the pass: what was swapped stays, the file that was being written is deleted, and after a while the
//! log is looked at again. Until the note of a swap is durable the old files stay, so that a crash leaves the one list
//! of segments or the other.

mod keys;
mod pass;
mod reader;

use std::collections::BTreeSet;

use corelane_commitlog::{CompactionResult, Segment, SegmentName};
use corelane_model::limits::{COMPACT_INTERVAL, COMPACT_LOOKS_MAX, COMPACT_RETRY};
use corelane_model::{Incarnation, MonotonicNanos, Now, PartitionId};
use corelane_record::Rewriter;

use crate::disk::{Disk, Purpose};
use crate::partition::Table;
use crate::{FileError, FileName, FileOp, FileOutcome, Urgency};
use pass::Pass;

/// What compaction does to a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompactStep {
    /// Reads extents.
    Read,
    /// Takes away what an attempt before may have left.
    Delete,
    /// Makes the file.
    Create,
    /// Writes an extent.
    Write,
    /// Makes the extents durable.
    Sync,
    /// Takes the file of a pass away that came to nothing.
    Discard,
}

/// A group that was written anew and is on disk.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(crate) partition: PartitionId,
    /// The segments that it takes the place of.
    pub(crate) group: Vec<Segment>,
    /// Bytes of the new file.
    pub(crate) bytes: u64,
    /// What the pass comes to, if this is its last group.
    pub(crate) result: Option<CompactionResult>,
}

/// Counters of compaction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CompactionStats {
    pub(crate) passes_total: u64,
    pub(crate) read_bytes_total: u64,
    pub(crate) written_bytes_total: u64,
    pub(crate) removed_records_total: u64,
    pub(crate) failures_total: u64,
}

/// Compaction of one shard.
#[derive(Debug)]
pub(crate) struct Compaction {
    incarnation: Incarnation,
    keys_bytes_max: u64,
    /// Partitions of compacted topics.
    watched: BTreeSet<PartitionId>,
    /// The partition that was looked at last.
    looked_at: Option<PartitionId>,
    look_at: MonotonicNanos,
    /// Counts the passes, so that what comes back for an earlier one is known.
    serial: u64,
    pass: Option<Pass>,
    rewriter: Rewriter,
    pub(crate) stats: CompactionStats,
}

impl Compaction {
    pub(crate) fn new(incarnation: Incarnation, keys_bytes_max: u64) -> Self {
        Self {
            incarnation,
            keys_bytes_max,
            watched: BTreeSet::new(),
            looked_at: None,
            look_at: MonotonicNanos(0),
            serial: 0,
            pass: None,
            rewriter: Rewriter::default(),
            stats: CompactionStats::default(),
        }
    }

    /// Says whether a partition is to be compacted.
    pub(crate) fn watch(&mut self, partition: PartitionId, is_compacted: bool) {
        if is_compacted {
            self.watched.insert(partition);
        } else {
            self.watched.remove(&partition);
        }
    }

    /// When it wants a round; `None` while it waits for the disk or has nothing to look after.
    pub(crate) fn next_deadline(&self) -> Option<MonotonicNanos> {
        match &self.pass {
            Some(pass) => pass.next_work(),
            None => (!self.watched.is_empty()).then_some(self.look_at),
        }
    }

    /// Does a piece of work if it is time for one.
    pub(crate) fn step(&mut self, now: Now, table: &Table, disk: &mut Disk) {
        if self.pass.is_none() && self.look_at <= now.monotonic {
            self.look(now, table);
        }
        let Some(pass) = &mut self.pass else { return };
        if pass.next_work().is_none_or(|due| now.monotonic < due) {
            return;
        }
        match pass.work(now, &mut self.rewriter, &mut self.stats) {
            Ok(Some((name, step, op))) => {
                let file = FileName::segment(pass.partition(), name);
                disk.push(file, op, Urgency::Background, Purpose::Compact(self.serial, step));
            }
            Ok(None) => {}
            Err(pass::Unreadable) => self.fail(now.monotonic, disk),
        }
    }

    /// Looks at the next partitions for one that is due.
    fn look(&mut self, now: Now, table: &Table) {
        use std::ops::Bound::{Excluded, Unbounded};
        self.look_at = now.monotonic.after(COMPACT_INTERVAL);
        let from = self.looked_at.map_or(Unbounded, Excluded);
        let next: Vec<PartitionId> = self.watched.range((from, Unbounded)).take(COMPACT_LOOKS_MAX).copied().collect();
        // After the last one it begins anew.
        self.looked_at = if next.len() < COMPACT_LOOKS_MAX { None } else { next.last().copied() };
        for id in next {
            let Some(partition) = table.open(id) else { continue };
            if let Some(plan) = partition.log.compaction_plan(now.wall) {
                self.serial += 1;
                let segment_bytes = partition.log.settings().segment_bytes;
                self.pass = Some(Pass::new(id, self.incarnation, plan, segment_bytes, self.keys_bytes_max));
                return;
            }
        }
    }

    /// A file effect of a pass completed.
    pub(crate) fn on_done(&mut self, serial: u64, step: CompactStep, result: Result<FileOutcome, FileError>) {
        let Some(pass) = self.pass.as_mut().filter(|_| serial == self.serial && step != CompactStep::Discard) else {
            return;
        };
        pass.on_done(step, result);
    }

    /// The group that is on disk and waits for its note.
    pub(crate) fn ready(&self) -> Option<Swap> {
        self.pass.as_ref()?.ready()
    }

    /// The note of the swap is in the journal.
    pub(crate) fn on_noted(&mut self) {
        self.pass.as_mut().expect("a swap belongs to a pass").on_noted();
    }

    /// The note is durable.
    pub(crate) fn on_durable(&mut self, now: MonotonicNanos) {
        let Some(pass) = &mut self.pass else { return };
        if !pass.next_group() {
            self.pass = None;
            self.stats.passes_total += 1;
            self.look_at = now;
        }
    }

    /// Gives the pass up, for a while.
    pub(crate) fn fail(&mut self, now: MonotonicNanos, disk: &mut Disk) {
        let Some(pass) = self.pass.take() else { return };
        self.stats.failures_total += 1;
        self.look_at = now.after(COMPACT_RETRY);
        if let Some(name) = pass.file() {
            let file = FileName::segment(pass.partition(), name);
            disk.push(file, FileOp::Delete, Urgency::Background, Purpose::Compact(self.serial, CompactStep::Discard));
        }
    }

    /// Ends the pass and begins no other: the shard drains. What was not noted is written anew some other time.
    pub(crate) fn stop(&mut self) {
        self.pass = None;
        self.watched.clear();
    }
}

/// A file, what is done to it, and what for.
type Order = (SegmentName, CompactStep, FileOp);
