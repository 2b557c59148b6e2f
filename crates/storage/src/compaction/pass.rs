//! One pass over one partition.

use std::collections::VecDeque;

use bytes::Bytes;
use corelane_commitlog::{CompactionPlan, CompactionResult, Segment, SegmentName};
use corelane_model::limits::{COMPACT_PAUSE, COMPACT_ROUND_BYTES, EXTENT_BYTES_MAX};
use corelane_model::{Incarnation, MonotonicNanos, Now, Offset, PartitionId};
use corelane_record::{BatchHead, BatchKeys, Rewriter};

use super::keys::{Keys, is_kept_whole};
use super::reader::{Next, SegmentReader};
use super::{CompactStep, CompactionStats, Order, Swap};
use crate::extent::{ExtentHead, seal_extent};
use crate::{FileError, FileOp, FileOutcome};

/// A segment cannot be read, or a file not be written: the pass comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Where the pass is; see the drawing in [`super`].
#[derive(Debug)]
enum Stage {
    Learning,
    /// The next thing to do to the group's file.
    Opening {
        step: CompactStep,
    },
    Writing,
    Syncing,
    Synced,
    Noted,
}

#[derive(Debug)]
pub(super) struct Pass {
    partition: PartitionId,
    incarnation: Incarnation,
    plan: CompactionPlan,
    segment_bytes: u64,
    keys: Keys,
    stage: Stage,
    /// An effect is on its way.
    is_waiting: bool,
    /// An effect failed.
    is_failed: bool,
    due: MonotonicNanos,
    reader: Option<SegmentReader>,
    /// Segments to be read after the one that is.
    next: VecDeque<Segment>,
    /// Where learning stopped.
    end: Offset,
    groups: VecDeque<Vec<Segment>>,
    /// Batches that are left of the group and not yet in an extent.
    left: VecDeque<Bytes>,
    left_bytes: u64,
    /// Bytes of the group's file.
    position: u64,
    /// Bytes of the extent that is being written.
    writing_bytes: u64,
    has_tombstones: bool,
    /// A batch was kept that was not judged: what it holds must stay superseded, so that no null value may go.
    is_any_kept_whole: bool,
    /// Base offset of the first batch that could not be written anew.
    stuck: Option<Offset>,
}

impl Pass {
    pub(super) fn new(
        partition: PartitionId,
        incarnation: Incarnation,
        plan: CompactionPlan,
        segment_bytes: u64,
        keys_bytes_max: u64,
    ) -> Self {
        let next = plan.dirty().copied().collect();
        let end = plan.segments.last().map_or(Offset::ZERO, |last| last.end);
        Self {
            partition,
            incarnation,
            plan,
            segment_bytes,
            keys: Keys::new(keys_bytes_max),
            stage: Stage::Learning,
            is_waiting: false,
            is_failed: false,
            due: MonotonicNanos(0),
            reader: None,
            next,
            end,
            groups: VecDeque::new(),
            left: VecDeque::new(),
            left_bytes: 0,
            position: 0,
            writing_bytes: 0,
            has_tombstones: false,
            is_any_kept_whole: false,
            stuck: None,
        }
    }

    pub(super) const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The file that is being written, while nothing else knows of it.
    pub(super) fn file(&self) -> Option<SegmentName> {
        match self.stage {
            Stage::Learning | Stage::Noted => None,
            _ => self.groups.front().and_then(|group| SegmentName::of_replacement(group)),
        }
    }

    /// When there is work; `None` while it waits for the disk or the journal.
    pub(super) fn next_work(&self) -> Option<MonotonicNanos> {
        let is_idle = self.is_waiting || matches!(self.stage, Stage::Synced | Stage::Noted);
        if self.is_failed { Some(MonotonicNanos(0)) } else { (!is_idle).then_some(self.due) }
    }

    pub(super) fn on_done(&mut self, step: CompactStep, result: Result<FileOutcome, FileError>) {
        self.is_waiting = false;
        match (step, result) {
            (_, Err(_)) => self.is_failed = true,
            (CompactStep::Read, Ok(FileOutcome::Read(bytes))) => {
                self.reader.as_mut().expect("a reader has asked").on_read(bytes);
            }
            (CompactStep::Delete, Ok(_)) => self.stage = Stage::Opening { step: CompactStep::Create },
            (CompactStep::Create, Ok(_)) => self.stage = Stage::Writing,
            // A short write says that the disk is full; nobody waits for this, it is tried again as a whole.
            (CompactStep::Write, Ok(FileOutcome::Written(written))) if written == self.writing_bytes => {
                self.position += written;
            }
            (CompactStep::Sync, Ok(_)) => self.stage = Stage::Synced,
            (_, Ok(_)) => self.is_failed = true,
        }
    }

    /// Does what a round may do; an order is what it waits for then.
    pub(super) fn work(
        &mut self,
        now: Now,
        rewriter: &mut Rewriter,
        stats: &mut CompactionStats,
    ) -> Result<Option<Order>, Unreadable> {
        if self.is_failed {
            return Err(Unreadable);
        }
        let mut budget = COMPACT_ROUND_BYTES;
        loop {
            let order = match self.stage {
                Stage::Learning => self.learn(&mut budget)?,
                Stage::Opening { step } => Some(self.open(step)),
                Stage::Writing => self.write(&mut budget, rewriter, stats)?,
                Stage::Syncing | Stage::Synced | Stage::Noted => None,
            };
            if let Some((_, _, op)) = &order {
                self.is_waiting = true;
                match op {
                    FileOp::Read { length, .. } => stats.read_bytes_total += u64::from(*length),
                    FileOp::Write { .. } => stats.written_bytes_total += self.writing_bytes,
                    _ => {}
                }
                return Ok(order);
            }
            if budget == 0 {
                self.due = now.monotonic.after(COMPACT_PAUSE);
                return Ok(None);
            }
        }
    }

    /// The next batch of the segments to be read, or the read that it needs; neither at their end.
    fn next_batch(&mut self) -> Result<(Option<Bytes>, Option<Order>), Unreadable> {
        loop {
            let Some(reader) = &mut self.reader else {
                let Some(segment) = self.next.pop_front() else { return Ok((None, None)) };
                self.reader = Some(SegmentReader::new(self.partition, segment));
                continue;
            };
            match reader.next()? {
                Next::Batch(batch) => return Ok((Some(batch), None)),
                Next::Read(op) => return Ok((None, Some((reader.segment().name(), CompactStep::Read, op)))),
                Next::End => self.reader = None,
            }
        }
    }

    fn learn(&mut self, budget: &mut u64) -> Result<Option<Order>, Unreadable> {
        while 0 < *budget {
            let batch = match self.next_batch()? {
                (Some(batch), _) => batch,
                (None, Some(order)) => return Ok(Some(order)),
                (None, None) => {
                    self.begin_groups();
                    return Ok(None);
                }
            };
            *budget = budget.saturating_sub(batch.len() as u64);
            let head = BatchHead::parse(&batch).map_err(|_| Unreadable)?;
            if head.end_offset() <= self.plan.dirty_from || is_kept_whole(&head) {
                continue;
            }
            let keys = BatchKeys::parse(batch).map_err(|_| Unreadable)?;
            if !self.keys.learn(&keys) {
                self.end = head.base_offset;
                self.begin_groups();
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn begin_groups(&mut self) {
        self.reader = None;
        self.groups = self.plan.groups(self.end, self.segment_bytes).into();
        self.begin_group();
    }

    fn begin_group(&mut self) {
        let group = self.groups.front().expect("a plan has a segment, and each segment a group");
        self.next = group.iter().copied().collect();
        (self.position, self.left_bytes) = (0, 0);
        self.stage = Stage::Opening { step: CompactStep::Delete };
    }

    fn name(&self) -> SegmentName {
        let group = self.groups.front().expect("a file belongs to a group");
        SegmentName::of_replacement(group).expect("a plan has sealed segments and its groups no gap")
    }

    fn open(&self, step: CompactStep) -> Order {
        let op = if step == CompactStep::Delete { FileOp::Delete } else { FileOp::CreateEmpty };
        (self.name(), step, op)
    }

    fn write(
        &mut self,
        budget: &mut u64,
        rewriter: &mut Rewriter,
        stats: &mut CompactionStats,
    ) -> Result<Option<Order>, Unreadable> {
        while 0 < *budget {
            if EXTENT_BYTES_MAX < self.left_bytes {
                return Ok(Some(self.write_extent()));
            }
            let batch = match self.next_batch()? {
                (Some(batch), _) => batch,
                (None, Some(order)) => return Ok(Some(order)),
                (None, None) if !self.left.is_empty() => return Ok(Some(self.write_extent())),
                (None, None) => {
                    self.stage = Stage::Syncing;
                    return Ok(Some((self.name(), CompactStep::Sync, FileOp::Sync)));
                }
            };
            *budget = budget.saturating_sub(batch.len() as u64);
            self.keep(batch, rewriter, stats)?;
        }
        Ok(None)
    }

    /// Takes over what is not superseded of a batch.
    fn keep(&mut self, batch: Bytes, rewriter: &mut Rewriter, stats: &mut CompactionStats) -> Result<(), Unreadable> {
        let keys = BatchKeys::parse(batch.clone()).map_err(|_| Unreadable)?;
        let mut kept = Vec::new();
        if is_kept_whole(keys.head()) {
            self.is_any_kept_whole = true;
            kept.push(batch);
        } else {
            let mut keeps = Vec::with_capacity(keys.iter().len());
            for record in keys.iter() {
                let is_tombstone = record.key.is_some() && record.is_tombstone;
                let is_old = record.offset < self.plan.tombstones_end && !self.is_any_kept_whole;
                let is_gone = self.keys.is_superseded(&record) || (is_tombstone && is_old);
                self.has_tombstones |= is_tombstone && !is_gone && record.offset < self.end;
                stats.removed_records_total += u64::from(is_gone);
                keeps.push(!is_gone);
            }
            if rewriter.rewrite(batch.clone(), &keeps, &mut kept).is_err() {
                // Compressed so tightly by its producer that it cannot be done again: it stays as it is, and no later
                // pass learns the keys again that would tell what in it is superseded.
                self.is_any_kept_whole = true;
                self.stuck = self.stuck.or_else(|| Some(keys.head().base_offset));
                kept.push(batch);
            }
        }
        self.left_bytes += kept.iter().map(|batch| batch.len() as u64).sum::<u64>();
        self.left.extend(kept);
        Ok(())
    }

    /// The next extent, of as many batches as fit.
    fn write_extent(&mut self) -> Order {
        let mut batches = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = self.left.pop_front_if(|batch| bytes + batch.len() as u64 <= EXTENT_BYTES_MAX) {
            bytes += batch.len() as u64;
            batches.push(batch);
        }
        self.left_bytes -= bytes;
        let head_of = |batch: &Bytes| BatchHead::parse(batch).expect("it was parsed when it was kept");
        let first = head_of(batches.first().expect("a batch fits an extent"));
        let last = head_of(batches.last().expect("a batch fits an extent"));
        let mut head = ExtentHead {
            partition: self.partition,
            incarnation: self.incarnation,
            position: self.position,
            base: first.base_offset,
            end: last.end_offset(),
            first_append: first.append_timestamp,
            last_append: last.append_timestamp,
            payload_bytes: 0,
            payload_crc: 0,
        };
        let pieces = seal_extent(&mut head, &batches);
        self.writing_bytes = head.disk_bytes();
        (self.name(), CompactStep::Write, FileOp::Write { position: self.position, pieces })
    }

    /// The group that is on disk and waits for its note.
    pub(super) fn ready(&self) -> Option<Swap> {
        let Stage::Synced = self.stage else { return None };
        let group = self.groups.front().expect("a file belongs to a group").clone();
        let is_last = self.groups.len() == 1;
        let result = CompactionResult {
            end: self.end,
            tombstones_end: self.plan.tombstones_end,
            has_tombstones: self.has_tombstones && !self.is_any_kept_whole,
            stuck: self.stuck,
        };
        Some(Swap { partition: self.partition, group, bytes: self.position, result: is_last.then_some(result) })
    }

    pub(super) fn on_noted(&mut self) {
        self.stage = Stage::Noted;
    }

    /// Goes on with the next group; whether there is one.
    pub(super) fn next_group(&mut self) -> bool {
        self.groups.pop_front();
        if self.groups.is_empty() {
            return false;
        }
        self.begin_group();
        true
    }
}
