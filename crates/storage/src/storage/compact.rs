//! Compaction in its turn: what it wrote takes the place of what it read.

use corelane_commitlog::Segment;
use corelane_journal::Item;
use corelane_model::limits::SETTLE_FILL_MIN_PERMILLE;
use corelane_model::{Now, PartitionId};

use super::Storage;
use crate::compaction::Swap;
use crate::round::Note;

/// What a partition's record may grow by when segments are replaced: names of files to delete, and two numbers.
const RECORD_GROWTH_BYTES: u64 = 64;

impl Storage {
    /// Whether compaction stands back for now. Each end of that comes with something that happens, so that no deadline is
    /// needed for it.
    pub(super) fn is_compaction_held(&self) -> bool {
        2 * SETTLE_FILL_MIN_PERMILLE <= u64::from(self.journal.pressure()) || self.is_space_low()
    }

    /// A piece of compaction, unless settling is in a hurry or the disk is full.
    pub(super) fn compact(&mut self, now: Now) {
        if !self.is_running() {
            return self.compaction.stop();
        }
        if !self.is_compaction_held() {
            self.compaction.step(now, &self.table, &mut self.disk);
        }
        if let Some(swap) = self.compaction.ready() {
            self.note_compacted(now, &swap);
        }
    }

    /// Puts the new segment into the place of its group, in memory and in the journal's open entry in the same breath. The
    /// note is the partition's state, as a checkpoint has it: replay takes over the new list of segments, or keeps the
    /// old one, whose files are there until the note is durable.
    fn note_compacted(&mut self, now: Now, swap: &Swap) {
        let id = swap.partition;
        let Some(partition) = self.table.open_mut(id) else {
            return self.compaction.fail(now.monotonic, &mut self.disk);
        };
        let names = 16 * swap.group.len() as u64;
        let before = Item::State { partition: id, state: partition.record().encode() };
        if !self.journal.make_room(before.encoded_bytes() + names + RECORD_GROWTH_BYTES) {
            return;
        }
        let Some(replacement) = partition.log.replace_segments(&swap.group, swap.bytes) else {
            return self.compaction.fail(now.monotonic, &mut self.disk);
        };
        if let Some(result) = swap.result {
            partition.log.on_compacted(now.wall, result);
        }
        partition.doomed.extend(swap.group.iter().map(Segment::name));
        let state = partition.record().encode();
        self.journal.add_item(&Item::State { partition: id, state });
        self.reads.forget_range(id, replacement.base, replacement.end);
        self.round.notes.push(Note::Compacted(id, swap.group.clone()));
        self.compaction.on_noted();
        self.table.refresh(id);
    }

    /// The new list of segments is durable: the old files may go.
    pub(super) fn on_compacted_durable(&mut self, id: PartitionId, replaced: Vec<Segment>) {
        // Those of a partition that was removed meanwhile are on the list already.
        if self.table.get(id).is_some() {
            self.deletes.extend(replaced.into_iter().map(|segment| (id, segment.name())));
        }
        self.compaction.on_durable(self.now.monotonic);
    }
}
