//! Which extent of a segment holds an offset or a moment: one entry an extent, filled from the front.
//!
//! An open segment's index grows as extents are settled. After a restart, or when memory was short, it is rebuilt by
//! hopping over the heads in the file, only as far as someone asks.

use std::collections::BTreeMap;

use corelane_model::limits::BLOCK_BYTES;
use corelane_model::{Offset, PartitionId, WallMillis};

use crate::extent::{ExtentHead, disk_bytes};

/// One extent, or a damaged stretch where extents were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Offset of its first record.
    pub(crate) base: Offset,
    /// Exclusive end of its records.
    pub(crate) end: Offset,
    /// Append timestamp of its last batch; of the one before it when this one is damaged.
    pub(crate) last_append: WallMillis,
    /// Where it begins, in blocks.
    position_blocks: u32,
    /// Bytes of its batches; 0 says that the stretch is damaged.
    pub(crate) payload_bytes: u32,
}

impl IndexEntry {
    /// The entry of an extent.
    pub(crate) fn of(head: &ExtentHead) -> Self {
        Self {
            base: head.base,
            end: head.end,
            last_append: head.last_append,
            position_blocks: blocks(head.position),
            payload_bytes: head.payload_bytes,
        }
    }

    /// Where it begins in the file, in bytes.
    pub(crate) const fn position(&self) -> u64 {
        self.position_blocks as u64 * BLOCK_BYTES
    }

    /// Its bytes on disk; 0 when damaged.
    pub(crate) fn disk_bytes(&self) -> u64 {
        if self.is_damaged() { 0 } else { disk_bytes(self.payload_bytes) }
    }

    /// No extent can be read here.
    pub(crate) const fn is_damaged(&self) -> bool {
        self.payload_bytes == 0
    }
}

/// What an index knows about a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The entry at this place.
    Entry(usize),
    /// Not known yet: the scan has to go on.
    Unscanned,
    /// The segment holds no such thing, and all of it is known.
    Absent,
}

/// The index of one segment, from its first extent to as far as it was read.
#[derive(Clone, Debug)]
pub(crate) struct SegmentIndex {
    entries: Vec<IndexEntry>,
    scanned_bytes: u64,
    scanned_end: Offset,
    /// Where to look next for a head after damage; `scanned_bytes` when there was none.
    probed_bytes: u64,
}

impl SegmentIndex {
    /// Of a segment of which nothing was read.
    pub(crate) const fn new(base: Offset) -> Self {
        Self { entries: Vec::new(), scanned_bytes: 0, scanned_end: base, probed_bytes: 0 }
    }

    /// The entries in order, without a gap between them.
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Up to which position the file is known.
    pub(crate) const fn scanned_bytes(&self) -> u64 {
        self.scanned_bytes
    }

    /// Up to which offset the file is known.
    pub(crate) const fn scanned_end(&self) -> Offset {
        self.scanned_end
    }

    /// Where the next read of heads begins.
    pub(crate) const fn next_position(&self) -> u64 {
        self.probed_bytes
    }

    /// No head is where the last extent ended; the next one is looked for.
    pub(crate) const fn is_probing(&self) -> bool {
        self.scanned_bytes < self.probed_bytes
    }

    /// Says that no head begins before `position` after the last extent.
    pub(crate) fn probe_from(&mut self, position: u64) {
        assert!(self.probed_bytes <= position, "probing goes back from {} to {position}", self.probed_bytes);
        self.probed_bytes = position;
    }

    /// Takes in the extent that follows. Panics if it does not follow; see [`SegmentIndex::follows`].
    pub(crate) fn push(&mut self, head: &ExtentHead) {
        assert!(self.follows(head), "extent {head:?} does not follow {}", self.scanned_end);
        self.entries.push(IndexEntry::of(head));
        self.scanned_bytes = head.position + head.disk_bytes();
        self.probed_bytes = self.scanned_bytes;
        self.scanned_end = head.end;
    }

    /// Whether the extent begins where the last one ended, in bytes and in offsets. Offsets may leave a gap: records
    /// that were lost before they were settled.
    pub(crate) fn follows(&self, head: &ExtentHead) -> bool {
        head.position == self.scanned_bytes && self.scanned_end <= head.base
    }

    /// Says that nothing can be read between the last extent and `position`, where records begin at `end` again.
    pub(crate) fn push_damage(&mut self, position: u64, end: Offset) {
        assert!(self.scanned_bytes < position, "damage of no bytes at {position}");
        if self.scanned_end < end {
            let last_append = self.entries.last().map_or(WallMillis(i64::MIN), |entry| entry.last_append);
            self.entries.push(IndexEntry {
                base: self.scanned_end,
                end,
                last_append,
                position_blocks: blocks(self.scanned_bytes),
                payload_bytes: 0,
            });
            self.scanned_end = end;
        }
        self.scanned_bytes = position;
        self.probed_bytes = position;
    }

    /// Says that the extent at this place turned out to be damaged.
    pub(crate) fn mark_damaged(&mut self, place: usize) {
        self.entries[place].payload_bytes = 0;
    }

    /// The first entry with records at or after `offset`, in a segment of `bytes` bytes.
    pub(crate) fn find_offset(&self, offset: Offset, bytes: u64) -> Found {
        self.found(self.entries.partition_point(|entry| entry.end <= offset), bytes)
    }

    /// The first readable entry with a batch that was appended at `time` or later.
    pub(crate) fn find_time(&self, time: WallMillis, bytes: u64) -> Found {
        let mut place = self.entries.partition_point(|entry| entry.last_append < time);
        while self.entries.get(place).is_some_and(IndexEntry::is_damaged) {
            place += 1;
        }
        self.found(place, bytes)
    }

    fn found(&self, place: usize, bytes: u64) -> Found {
        if let Some(entry) = self.entries.get(place) {
            // The segment may have grown since the reader was told how much of it there is.
            if entry.position() < bytes { Found::Entry(place) } else { Found::Absent }
        } else if self.next_position() < bytes {
            Found::Unscanned
        } else {
            Found::Absent
        }
    }
}

/// Indexes of segments, bounded in memory: the one that was not used for longest goes first.
#[derive(Debug)]
pub(crate) struct IndexCache {
    segments: BTreeMap<(PartitionId, Offset), Cached>,
    by_use: BTreeMap<u64, (PartitionId, Offset)>,
    uses: u64,
    entries: usize,
    entries_max: usize,
}

#[derive(Debug)]
struct Cached {
    index: SegmentIndex,
    used: u64,
    /// Entries that are counted in the total.
    counted: usize,
}

/// What an index costs beside its entries, counted in entries.
const INDEX_COST_ENTRIES: usize = 4;

impl IndexCache {
    /// Empty, for so many bytes; room for at least 1,024 entries.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let entries = bytes_max / size_of::<IndexEntry>() as u64;
        Self {
            segments: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            entries: 0,
            entries_max: usize::try_from(entries).unwrap_or(usize::MAX).max(1024),
        }
    }

    /// Entries in memory, with what indexes cost beside them.
    pub(crate) const fn entries(&self) -> usize {
        self.entries
    }

    /// The index of the segment, which counts as a use.
    pub(crate) fn get(&mut self, partition: PartitionId, base: Offset) -> Option<&SegmentIndex> {
        self.touch(partition, base).map(|cached| &cached.index)
    }

    /// Changes the index of the segment, made empty if there is none and `make` says so, then makes room again by
    /// dropping others.
    pub(crate) fn change(
        &mut self,
        partition: PartitionId,
        base: Offset,
        make: Missing,
        change: impl FnOnce(&mut SegmentIndex),
    ) {
        if make == Missing::Make && !self.segments.contains_key(&(partition, base)) {
            let cached = Cached { index: SegmentIndex::new(base), used: 0, counted: 0 };
            self.segments.insert((partition, base), cached);
        }
        let Some(cached) = self.touch(partition, base) else { return };
        change(&mut cached.index);
        let counted = cached.index.entries.len() + INDEX_COST_ENTRIES;
        let before = std::mem::replace(&mut cached.counted, counted);
        self.entries = self.entries + counted - before;
        while self.entries_max < self.entries && 1 < self.segments.len() {
            let (_, (partition, base)) = self.by_use.pop_first().expect("each index has its place in the order of use");
            self.remove(partition, base);
        }
    }

    /// Takes the index of a segment out, to change it at leisure.
    pub(crate) fn take(&mut self, partition: PartitionId, base: Offset) -> Option<SegmentIndex> {
        let cached = self.segments.remove(&(partition, base))?;
        self.entries -= cached.counted;
        self.by_use.remove(&cached.used);
        Some(cached.index)
    }

    /// Forgets the indexes of the segments of a partition whose base lies below `before`.
    pub(crate) fn forget_below(&mut self, partition: PartitionId, before: Offset) {
        let from = (partition, Offset::ZERO);
        while let Some((&(partition, base), _)) = self.segments.range(from..(partition, before)).next() {
            self.remove(partition, base);
        }
    }

    /// Forgets the indexes of the segments of a partition whose base lies in a range.
    pub(crate) fn forget_range(&mut self, partition: PartitionId, first: Offset, end: Offset) {
        while let Some((&(partition, base), _)) = self.segments.range((partition, first)..(partition, end)).next() {
            self.remove(partition, base);
        }
    }

    /// Forgets one segment's index.
    pub(crate) fn remove(&mut self, partition: PartitionId, base: Offset) {
        drop(self.take(partition, base));
    }

    fn touch(&mut self, partition: PartitionId, base: Offset) -> Option<&mut Cached> {
        let cached = self.segments.get_mut(&(partition, base))?;
        self.by_use.remove(&cached.used);
        self.uses += 1;
        cached.used = self.uses;
        self.by_use.insert(self.uses, (partition, base));
        Some(cached)
    }
}

/// What [`IndexCache::change`] does about a segment that has no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Begins one.
    Make,
    /// Nothing.
    Ignore,
}

fn blocks(position: u64) -> u32 {
    assert!(position.is_multiple_of(BLOCK_BYTES), "position {position} is not aligned");
    u32::try_from(position / BLOCK_BYTES).expect("a segment has fewer than 2^32 blocks")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_model::{Incarnation, PartitionIndex, TopicId};
    use proptest::prelude::*;

    fn head(position: u64, base: u64, end: u64, time: i64, payload_bytes: u32) -> ExtentHead {
        ExtentHead {
            partition: PartitionId::new(TopicId(1), PartitionIndex(0)),
            incarnation: Incarnation(1),
            position,
            base: Offset(base),
            end: Offset(end),
            first_append: WallMillis(time),
            last_append: WallMillis(time),
            payload_bytes,
            payload_crc: 0,
        }
    }

    #[test]
    fn damage_takes_the_place_of_the_lost_extents() {
        let mut index = SegmentIndex::new(Offset(10));
        index.push(&head(0, 10, 20, 5, 100));
        index.push_damage(12_288, Offset(40));
        index.push(&head(12_288, 40, 50, 9, 100));
        assert_eq!(index.find_offset(Offset(19), 16_384), Found::Entry(0));
        assert_eq!(index.find_offset(Offset(20), 16_384), Found::Entry(1));
        assert!(index.entries()[1].is_damaged());
        assert_eq!(index.find_offset(Offset(40), 16_384), Found::Entry(2));
        assert_eq!(index.find_time(WallMillis(6), 16_384), Found::Entry(2));
        assert_eq!(index.find_offset(Offset(50), 16_384), Found::Absent);
        assert_eq!(index.find_offset(Offset(50), 20_480), Found::Unscanned);
    }

    #[test]
    fn the_bound_holds_and_the_unused_goes_first() {
        let mut cache = IndexCache::new(0);
        for index in 0..1000 {
            let partition = PartitionId::new(TopicId(index), PartitionIndex(0));
            cache.change(partition, Offset::ZERO, Missing::Make, |index| index.push(&head(0, 0, 5, 1, 10)));
            assert!(cache.entries() <= 1024);
            assert!(cache.get(PartitionId::new(TopicId(0), PartitionIndex(0)), Offset::ZERO).is_some());
        }
        assert_eq!(cache.segments.len(), cache.by_use.len());
        assert!(cache.get(PartitionId::new(TopicId(1), PartitionIndex(0)), Offset::ZERO).is_none());
        cache.forget_below(PartitionId::new(TopicId(999), PartitionIndex(0)), Offset(1));
        assert!(cache.get(PartitionId::new(TopicId(999), PartitionIndex(0)), Offset::ZERO).is_none());
    }

    proptest! {
        #[test]
        fn lookup_is_a_linear_scan(spans in prop::collection::vec((1u64..50, 0i64..4, 1u32..20_000), 1..40), at: u64, t: i64) {
            let mut index = SegmentIndex::new(Offset(7));
            let (mut position, mut base, mut time) = (0, 7, 100);
            let mut heads = Vec::new();
            for (span, step, payload) in spans {
                time += step;
                let head = head(position, base, base + span, time, payload);
                index.push(&head);
                heads.push(head);
                base += span;
                position += head.disk_bytes();
            }
            let at = Offset(7 + at % (base - 7 + 3));
            let linear = heads.iter().position(|head| at < head.end).map_or(Found::Absent, Found::Entry);
            prop_assert_eq!(index.find_offset(at, position), linear);
            let t = WallMillis(98 + t.rem_euclid(time - 94));
            let linear = heads.iter().position(|head| t <= head.last_append).map_or(Found::Absent, Found::Entry);
            prop_assert_eq!(index.find_time(t, position), linear);
        }
    }
}
