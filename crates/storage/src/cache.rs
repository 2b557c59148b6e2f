//! The read cache: extents read from segments, bounded in bytes, in runs as they were read.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::{Offset, PartitionId, WallMillis};
use corelane_record::BatchHead;

use crate::index::IndexEntry;

/// Places inside an extent that are remembered, so that a reader who comes back in pieces does not walk it from the
/// front each time.
const EXTENT_MARKS_MAX: usize = 64;

/// One whole extent, its checksum checked.
#[derive(Debug)]
pub(crate) struct CachedExtent {
    /// Offset of its first record.
    pub(crate) base: Offset,
    /// Exclusive end of its records.
    pub(crate) end: Offset,
    /// Its batches.
    pub(crate) payload: Bytes,
    /// Offsets at which a batch begins, and where.
    marks: BTreeMap<Offset, usize>,
}

/// What a walk through an extent or a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Whole batches, at least one, and where to go on.
    Batches { batches: Vec<Bytes>, next: Offset },
    /// These records are lost.
    Corrupt { first: Offset, end: Offset },
}

impl CachedExtent {
    /// An extent whose payload was checked.
    pub(crate) const fn new(base: Offset, end: Offset, payload: Bytes) -> Self {
        Self { base, end, payload, marks: BTreeMap::new() }
    }

    /// Batches from the one that holds `from`, up to `bytes_max` bytes but at least one.
    fn walk(&mut self, from: Offset, bytes_max: usize, has_holes: bool) -> Walk {
        let mut at = self.marks.range(..=from).next_back().map_or(0, |(_, &at)| at);
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        while at < self.payload.len() {
            let Ok(head) = BatchHead::parse(&self.payload[at..]) else { break };
            let len = head.batch_bytes() as usize;
            if self.payload.len() < at + len {
                break;
            }
            if head.end_offset() <= from {
                at += len;
                continue;
            }
            let is_gap = next < head.base_offset && !has_holes;
            if batches.is_empty() && is_gap {
                return Walk::Corrupt { first: from, end: head.base_offset };
            }
            if is_gap || (!batches.is_empty() && bytes_max < bytes + len) {
                break;
            }
            batches.push(self.payload.slice(at..at + len));
            bytes += len;
            next = head.end_offset();
            at += len;
        }
        if batches.is_empty() {
            // The checksum holds and yet no batch is here: whoever wrote the extent was wrong, or someone forged it.
            return Walk::Corrupt { first: from, end: self.end };
        }
        if self.marks.len() < EXTENT_MARKS_MAX {
            self.marks.insert(next, at);
        }
        Walk::Batches { batches, next }
    }

    /// Offset of the first batch that was appended at `time` or later, if this extent has one.
    fn find_time(&self, time: WallMillis) -> Option<Offset> {
        let mut rest = &self.payload[..];
        while let Ok(head) = BatchHead::parse(rest) {
            if time <= head.append_timestamp {
                return Some(head.base_offset);
            }
            rest = rest.get(head.batch_bytes() as usize..)?;
        }
        None
    }
}

/// Extents that one read brought, without a gap.
#[derive(Debug)]
pub(crate) struct Run {
    /// In order, at least one.
    pub(crate) extents: Vec<CachedExtent>,
    /// Memory that the run holds.
    pub(crate) bytes: u64,
    /// How many runs are read ahead when someone reads in this one.
    pub(crate) ahead: u8,
    /// Offsets that are missing between its batches were left out by compaction.
    pub(crate) has_holes: bool,
}

impl Run {
    /// Offset of its first record.
    pub(crate) fn base(&self) -> Offset {
        self.extents.first().expect("a run has an extent").base
    }

    /// Exclusive end of its records.
    pub(crate) fn end(&self) -> Offset {
        self.extents.last().expect("a run has an extent").end
    }

    /// Offset of the first batch of this extent that was appended at `time` or later; its end if there is none, and
    /// nothing if the run has no such extent.
    pub(crate) fn find_time(&self, entry: IndexEntry, time: WallMillis) -> Option<Offset> {
        let extent = self.extents.iter().find(|extent| extent.base == entry.base)?;
        Some(extent.find_time(time).unwrap_or(entry.end))
    }

    /// Batches from the one that holds `from`, which lies before the run's end.
    pub(crate) fn walk(&mut self, from: Offset, bytes_max: u32) -> Walk {
        let mut place = self.extents.partition_point(|extent| extent.end <= from);
        let extent = &mut self.extents[place];
        if from < extent.base && !self.has_holes {
            return Walk::Corrupt { first: from, end: extent.base };
        }
        let has_holes = self.has_holes;
        let (mut all, mut next) = match extent.walk(from, bytes_max as usize, has_holes) {
            Walk::Batches { batches, next } => (batches, next),
            corrupt @ Walk::Corrupt { .. } => return corrupt,
        };
        let mut bytes: usize = all.iter().map(Bytes::len).sum();
        while next == self.extents[place].end
            && place + 1 < self.extents.len()
            && (has_holes || self.extents[place + 1].base == next)
        {
            place += 1;
            let Some(room) = (bytes_max as usize).checked_sub(bytes) else { break };
            if self.extents[place].first_batch_bytes().is_none_or(|first| room < first) {
                break;
            }
            let Walk::Batches { batches, next: end } = self.extents[place].walk(next, room, has_holes) else { break };
            bytes += batches.iter().map(Bytes::len).sum::<usize>();
            all.extend(batches);
            next = end;
        }
        Walk::Batches { batches: all, next }
    }
}

impl CachedExtent {
    fn first_batch_bytes(&self) -> Option<usize> {
        BatchHead::parse(&self.payload).ok().map(|head| head.batch_bytes() as usize)
    }
}

/// Runs of all partitions. Runs of one partition never overlap.
#[derive(Debug)]
pub(crate) struct ReadCache {
    runs: BTreeMap<(PartitionId, Offset), (Run, u64)>,
    by_use: BTreeMap<u64, (PartitionId, Offset)>,
    uses: u64,
    bytes: u64,
}

impl ReadCache {
    /// Nothing in it.
    pub(crate) const fn new() -> Self {
        Self { runs: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, bytes: 0 }
    }

    /// Bytes that it holds.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The run that has records at `offset`, which counts as a use.
    pub(crate) fn get(&mut self, partition: PartitionId, offset: Offset) -> Option<&mut Run> {
        let key = self.key(partition, offset)?;
        let (run, used) = self.runs.get_mut(&key)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(run)
    }

    /// Base, end and read-ahead of the run that has records at `offset`.
    pub(crate) fn bounds(&self, partition: PartitionId, offset: Offset) -> Option<(Offset, Offset, u8)> {
        let (run, _) = self.runs.get(&self.key(partition, offset)?)?;
        Some((run.base(), run.end(), run.ahead))
    }

    /// Read-ahead of the run that ends at `offset`.
    pub(crate) fn ahead_before(&self, partition: PartitionId, offset: Offset) -> Option<u8> {
        let (_, (run, _)) = self.runs.range((partition, Offset::ZERO)..(partition, offset)).next_back()?;
        (run.end() == offset).then_some(run.ahead)
    }

    /// Base of the first run at or after `offset`.
    pub(crate) fn next_base(&self, partition: PartitionId, offset: Offset) -> Option<Offset> {
        self.runs.range((partition, offset)..=(partition, Offset(u64::MAX))).next().map(|(&(_, base), _)| base)
    }

    /// Takes a run in. One that overlaps another is dropped: what is there is as good.
    pub(crate) fn insert(&mut self, partition: PartitionId, run: Run) {
        let overlaps = self.key(partition, run.base()).is_some()
            || self.next_base(partition, run.base()).is_some_and(|base| base < run.end());
        if overlaps {
            return;
        }
        self.uses += 1;
        self.by_use.insert(self.uses, (partition, run.base()));
        self.bytes += run.bytes;
        self.runs.insert((partition, run.base()), (run, self.uses));
    }

    /// Drops runs, the longest unused first, until at most `bytes_max` bytes are left.
    pub(crate) fn shrink(&mut self, bytes_max: u64) {
        while bytes_max < self.bytes {
            let (_, key) = self.by_use.pop_first().expect("bytes belong to runs");
            let (run, _) = self.runs.remove(&key).expect("each use belongs to a run");
            self.bytes -= run.bytes;
        }
    }

    /// Drops the runs of a partition that begin below `before`.
    pub(crate) fn forget_below(&mut self, partition: PartitionId, before: Offset) {
        let from = (partition, Offset::ZERO);
        while let Some((&key, _)) = self.runs.range(from..(partition, before)).next() {
            let (run, used) = self.runs.remove(&key).expect("it was found");
            self.by_use.remove(&used);
            self.bytes -= run.bytes;
        }
    }

    /// Drops the runs of a partition that begin in a range.
    pub(crate) fn forget_range(&mut self, partition: PartitionId, first: Offset, end: Offset) {
        while let Some((&key, _)) = self.runs.range((partition, first)..(partition, end)).next() {
            let (run, used) = self.runs.remove(&key).expect("it was found");
            self.by_use.remove(&used);
            self.bytes -= run.bytes;
        }
    }

    fn key(&self, partition: PartitionId, offset: Offset) -> Option<(PartitionId, Offset)> {
        let (&key, (run, _)) = self.runs.range((partition, Offset::ZERO)..=(partition, offset)).next_back()?;
        (offset < run.end()).then_some(key)
    }
}
