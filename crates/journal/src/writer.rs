//! The journal that is written: rounds become entries, entries become durable, files are begun and recycled.

use std::collections::VecDeque;

use corelane_model::limits::{BLOCK_BYTES, JOURNAL_CHECKPOINT_ROUND_BYTES, JOURNAL_FLUSHES_MAX, JOURNAL_QUIET};
use corelane_model::{MonotonicNanos, Now, PartitionId};
use corelane_record::{SealedBatch, Stamp};

use crate::checkpoint::Checkpoint;
use crate::effect::Effects;
use crate::entry::{EntryFlags, EntryHead, padded};
use crate::flush::{Flight, Flushes};
use crate::ring::{FoundSlot, Place, Ring};
use crate::slab::OpenEntry;
use crate::{
    BatchSlot, ClosedEntry, FileSequence, Item, JournalConfig, JournalDone, JournalError, JournalIoId, JournalOp,
    JournalOutput, JournalPosition, JournalResult, JournalStats,
};

/// Room that only entries without items may use, so that they can always say that files became free.
const MARKS_BYTES: u64 = 16 * BLOCK_BYTES;
/// From this fill on, in per mille, the claim that files became free does not wait for the next entry.
const CLAIM_PRESSURE: u32 = 250;

/// The way to the end.
///
/// ```text
/// Open ──close──▶ Wanted ──all durable, mark written──▶ Marked ──mark durable──▶ Closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Items may come.
    Open,
    /// No more items come; the mark waits for what is in flight.
    Wanted,
    /// The mark is in flight up to here.
    Marked(JournalPosition),
    /// Everything is on disk.
    Closed,
}

/// What recovery leaves to the writer.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) found: Vec<FoundSlot>,
    pub(crate) next: FileSequence,
    pub(crate) oldest: FileSequence,
    pub(crate) previous_crc: u32,
    /// The exclusive end of the last good entry; it is on disk.
    pub(crate) end: JournalPosition,
}

/// What the writer hands to the outside.
pub(crate) struct Out<'a> {
    pub(crate) effects: &'a mut Effects,
    pub(crate) outputs: &'a mut VecDeque<JournalOutput>,
    pub(crate) stats: &'a mut JournalStats,
}

/// A journal after its recovery.
#[derive(Debug)]
pub(crate) struct Writer {
    config: JournalConfig,
    open: OpenEntry,
    ring: Ring,
    flushes: Flushes,
    checkpoint: Checkpoint,
    /// Nothing in files before this one is needed by the owner.
    released: FileSequence,
    /// The oldest file needed as the last entry claims it.
    claimed: FileSequence,
    previous_crc: u32,
    /// When the last entry with items was closed, unless a mark came after it.
    unmarked_since: Option<MonotonicNanos>,
    ending: Ending,
    /// An internal item did not fit beside what users had added: users wait for the next entry.
    is_internal_waiting: bool,
    /// More input is known to wait.
    is_more_expected: bool,
    /// The open entry was not written because of that; another round is wanted whatever happens.
    is_gathering: bool,
    now: MonotonicNanos,
}

impl Writer {
    pub(crate) fn new(config: JournalConfig, handover: &Handover, out: &mut Out<'_>) -> Self {
        let Handover { found, next, oldest, previous_crc, end } = handover;
        let mut ring = Ring::new(config.files, config.file_bytes, found, *next);
        ring.prepare(MonotonicNanos::default(), out.effects);
        out.outputs.push_back(JournalOutput::CheckpointWanted);
        let writer = Self {
            config,
            open: OpenEntry::new(),
            ring,
            flushes: Flushes::new(*end, *oldest),
            checkpoint: Checkpoint::new(*oldest),
            released: *oldest,
            claimed: *oldest,
            previous_crc: *previous_crc,
            unmarked_since: None,
            ending: Ending::Open,
            is_internal_waiting: false,
            is_more_expected: false,
            is_gathering: false,
            now: MonotonicNanos::default(),
        };
        writer.count_room(out.stats);
        writer
    }

    /// Everything before is durable.
    pub(crate) const fn durable(&self) -> JournalPosition {
        self.flushes.durable()
    }

    /// Users may add `bytes` more.
    pub(crate) fn is_room(&self, bytes: u64) -> bool {
        let entry = self.open.bytes() + bytes;
        let limit = self.config.user_bytes_max();
        self.ending == Ending::Open
            && !self.is_internal_waiting
            && entry <= limit
            && self.ring.left_after(padded(entry)).is_some_and(|left| self.is_reserve(left))
    }

    /// Whether so many bytes are as much as is kept from users. Each batch asks, and mostly half of the ring is free.
    fn is_reserve(&self, left: u64) -> bool {
        self.reserve_bytes_max() <= left || self.reserve_bytes() <= left
    }

    /// Internal items may add `bytes` more; if it is the open entry that is too full, users wait until it was closed.
    pub(crate) fn make_room(&mut self, bytes: u64) -> bool {
        self.make_room_but(bytes, MARKS_BYTES)
    }

    /// Changes may add `bytes` more: half of the reserve is kept for what makes files free.
    pub(crate) fn make_change_room(&mut self, bytes: u64) -> bool {
        self.make_room_but(bytes, MARKS_BYTES + self.reserve_bytes() / 2)
    }

    fn make_room_but(&mut self, bytes: u64, kept: u64) -> bool {
        let entry = self.open.bytes() + bytes;
        let is_entry_room = entry <= self.config.entry_bytes_max();
        self.is_internal_waiting = !is_entry_room;
        self.ending == Ending::Open
            && is_entry_room
            && self.ring.left_after(padded(entry)).is_some_and(|left| kept <= left)
    }

    /// Room kept from users: to settle and release the oldest file, and to write a whole checkpoint meanwhile.
    fn reserve_bytes(&self) -> u64 {
        let file = self.config.file_bytes;
        let checkpoint = self.checkpoint.expected_bytes();
        let files = 1 + (checkpoint + checkpoint / 4).div_ceil(file).max(1);
        (files * file).min(self.reserve_bytes_max())
    }

    fn reserve_bytes_max(&self) -> u64 {
        self.ring.total_bytes() / 2
    }

    /// Bytes in use and bytes that users may use, both with what is open.
    fn fill(&self) -> (u64, u64) {
        let total = self.ring.total_bytes();
        let used = (total + self.open.bytes()).saturating_sub(self.ring.left_bytes());
        (used, total - self.reserve_bytes())
    }

    pub(crate) fn pressure(&self) -> u32 {
        permille(self.fill())
    }

    pub(crate) fn add_batch(&mut self, partition: PartitionId, batch: &SealedBatch, stamp: Stamp) -> BatchSlot {
        let bytes = Item::batch_bytes(batch.bytes().len());
        self.check_addition(bytes);
        self.checkpoint.on_other(bytes);
        self.open.add_batch(partition, batch, stamp)
    }

    pub(crate) fn add_item(&mut self, item: &Item) {
        self.check_addition(item.encoded_bytes());
        self.checkpoint.on_other(item.encoded_bytes());
        self.is_internal_waiting = false;
        self.open.add_item(item);
    }

    fn check_addition(&self, bytes: u64) {
        assert!(self.ending == Ending::Open, "an item was added to a journal that is {:?}", self.ending);
        let entry = self.open.bytes() + bytes;
        let limit = self.config.entry_bytes_max();
        assert!(entry <= limit, "an entry of {entry} bytes is over {limit}: room was not asked for");
    }

    /// Bytes of checkpoint items that this round may still carry; 0 when no checkpoint is open.
    pub(crate) fn checkpoint_room(&self) -> u64 {
        if !self.checkpoint.is_open() || self.ending != Ending::Open {
            return 0;
        }
        JOURNAL_CHECKPOINT_ROUND_BYTES.saturating_sub(self.open.checkpoint_bytes())
    }

    pub(crate) fn add_checkpoint_item(&mut self, item: &Item) {
        assert!(self.checkpoint.is_open(), "no checkpoint is open");
        self.check_addition(item.encoded_bytes());
        self.is_internal_waiting = false;
        self.checkpoint.on_item(item.encoded_bytes());
        self.open.add_checkpoint_item(item);
        self.open.flags = self.open.flags.with(EntryFlags::CHECKPOINT);
    }

    pub(crate) fn finish_checkpoint(&mut self) {
        self.checkpoint.finish();
        self.open.flags = self.open.flags.with(EntryFlags::CHECKPOINT);
    }

    pub(crate) fn release(&mut self, needed: JournalPosition) {
        self.released = self.released.max(needed.sequence().min(self.ring.current()));
    }

    pub(crate) fn close(&mut self) {
        if self.ending == Ending::Open {
            self.ending = Ending::Wanted;
        }
    }

    /// The oldest file that recovery would begin with if everything written were durable.
    fn oldest(&self) -> FileSequence {
        self.checkpoint.oldest(self.released)
    }

    /// See [`crate::Journal::rest`].
    pub(crate) fn rest(&mut self) {
        if self.flushes.is_empty() {
            self.open.rest();
        }
    }

    pub(crate) const fn expect_more(&mut self) {
        self.is_more_expected = true;
    }

    pub(crate) fn finish_round(&mut self, now: Now, out: &mut Out<'_>) -> Option<ClosedEntry> {
        self.now = now.monotonic;
        let is_more_expected = std::mem::take(&mut self.is_more_expected);
        self.is_gathering = false;
        self.ring.prepare(self.now, out.effects);
        self.count_room(out.stats);
        if self.open.is_empty() {
            self.open.flags = self.mark().unwrap_or_default();
        }
        if self.open.is_empty() {
            return None;
        }
        if is_more_expected && self.ending == Ending::Open && self.open.bytes() < self.config.gather_bytes() {
            self.is_gathering = true;
            out.stats.rounds_gathered_total += 1;
            return None;
        }
        if !self.may_flush() {
            out.stats.rounds_joined_total += 1;
            return None;
        }
        let Some(place) = self.ring.place(padded(self.open.bytes())) else {
            out.stats.rounds_starved_total += 1;
            return None;
        };
        Some(self.write(now, place, out))
    }

    /// Small rounds go one by one, so that those behind share a sync; large ones overlap.
    fn may_flush(&self) -> bool {
        let in_flight = self.flushes.len();
        in_flight == 0 || (in_flight < JOURNAL_FLUSHES_MAX && self.config.eager_bytes() <= self.open.bytes())
    }

    /// The flags of an entry without items, if one has to be written now.
    fn mark(&self) -> Option<EntryFlags> {
        if !self.flushes.is_empty() {
            return None;
        }
        match self.ending {
            Ending::Open => {}
            Ending::Wanted => return Some(EntryFlags::MARK.with(EntryFlags::CLEAN)),
            Ending::Marked(_) | Ending::Closed => return None,
        }
        let is_quiet = self.quiet_at().is_some_and(|at| at <= self.now);
        let is_claim_due = self.claimed < self.oldest() && CLAIM_PRESSURE <= self.pressure();
        (is_quiet || is_claim_due).then_some(EntryFlags::MARK)
    }

    fn quiet_at(&self) -> Option<MonotonicNanos> {
        self.unmarked_since.map(|since| since.after(JOURNAL_QUIET))
    }

    pub(crate) fn next_deadline(&self) -> Option<MonotonicNanos> {
        if self.is_gathering {
            return Some(self.now);
        }
        let is_idle = self.flushes.is_empty() && self.open.is_empty() && self.ending == Ending::Open;
        let quiet = if is_idle { self.quiet_at() } else { None };
        [quiet, self.ring.next_deadline()].into_iter().flatten().min()
    }

    /// Closes the open entry at `place` and issues its write.
    fn write(&mut self, now: Now, place: Place, out: &mut Out<'_>) -> ClosedEntry {
        let Place { slot, position, is_first } = place;
        if is_first {
            out.stats.files_begun_total += 1;
            self.ring.prepare(self.now, out.effects);
        }
        let bytes = padded(self.open.bytes());
        let end = position.advance(u32::try_from(bytes).expect("an entry is at most 4 MiB"));
        if self.open.items() != 0 {
            // It was to be a mark while no file was ready; items came before one was.
            self.open.flags = self.open.flags.without(EntryFlags::MARK);
        }
        let is_mark = self.open.flags.contains(EntryFlags::MARK);
        let is_clean = self.open.flags.contains(EntryFlags::CLEAN);
        let mut checkpoint_part = 0;
        if self.open.flags.contains(EntryFlags::CHECKPOINT) {
            (self.open.flags, checkpoint_part) = self.checkpoint.on_part(position.sequence(), end);
        }
        let oldest = self.oldest();
        self.claimed = oldest;
        let head = EntryHead {
            flags: self.open.flags,
            journal: self.config.id,
            checkpoint_part,
            items: 0,
            position,
            durable: self.flushes.durable(),
            submitted: now.wall,
            oldest,
            body_bytes: 0,
            previous_crc: self.previous_crc,
            body_crc: 0,
        };
        out.stats.entries_total += 1;
        out.stats.marks_total += u64::from(is_mark);
        out.stats.items_total += u64::from(self.open.items());
        out.stats.written_bytes_total += bytes;
        out.stats.padding_bytes_total += bytes - self.open.item_bytes();
        out.stats.checkpoint_bytes_total += self.open.checkpoint_bytes();
        let (pieces, closed, crc) = self.open.close(head);
        self.previous_crc = crc;
        self.is_internal_waiting = false;
        self.unmarked_since = (!is_mark).then_some(self.now);
        if is_clean {
            self.ending = Ending::Marked(end);
        }
        let id = out.effects.push(slot, JournalOp::Write { position: u64::from(position.byte()), pieces });
        self.flushes.push(Flight { slot, position, end, bytes, oldest }, id);
        self.want_checkpoint(out);
        self.count_room(out.stats);
        closed
    }

    /// Issues the syncs that are due; called when effects are polled, so that completions of one round share one.
    pub(crate) fn issue_syncs(&mut self, out: &mut Out<'_>) {
        out.stats.syncs_total += self.flushes.issue_syncs(out.effects);
    }

    /// A write, sync or create completed; reads that recovery no longer needed may come late and are ignored.
    ///
    /// # Errors
    /// [`JournalError`] after which nothing may be written any more.
    pub(crate) fn on_done(
        &mut self,
        id: JournalIoId,
        result: &JournalResult,
        out: &mut Out<'_>,
    ) -> Result<(), JournalError> {
        let written = match result {
            Ok(JournalDone::Written(bytes)) => Ok(*bytes),
            Ok(_) => Ok(0),
            Err(fault) => Err(*fault),
        };
        if self.flushes.on_written(id, written)? || self.flushes.on_synced(id, written.map(|_| ()))? {
            self.advance(out);
        } else if self.ring.on_created(self.now, id, result.is_ok()) {
            match result {
                Ok(_) => out.stats.files_created_total += 1,
                Err(fault) => {
                    out.stats.creates_failed_total += 1;
                    out.outputs.push_back(JournalOutput::CreateFailed { fault: *fault });
                }
            }
            self.count_room(out.stats);
        }
        Ok(())
    }

    /// Moves the durable position and does what was waiting for it.
    fn advance(&mut self, out: &mut Out<'_>) {
        let Some(end) = self.flushes.advance() else { return };
        if let Some(JournalOutput::Durable { end: last }) = out.outputs.back_mut() {
            *last = end;
        } else {
            out.outputs.push_back(JournalOutput::Durable { end });
        }
        out.stats.checkpoints_total += u64::from(self.checkpoint.on_durable(end));
        let oldest = self.flushes.oldest_durable();
        out.stats.files_recycled_total += self.ring.recycle(oldest);
        self.checkpoint.forget_before(oldest);
        if let Ending::Marked(mark) = self.ending
            && mark <= end
        {
            self.ending = Ending::Closed;
            out.outputs.push_back(JournalOutput::Closed);
        }
        self.want_checkpoint(out);
        self.count_room(out.stats);
    }

    fn want_checkpoint(&mut self, out: &mut Out<'_>) {
        let (current, file_bytes, fill) = (self.ring.current(), self.config.file_bytes, self.fill());
        if self.checkpoint.is_wanted(current, file_bytes, || permille(fill)) {
            out.outputs.push_back(JournalOutput::CheckpointWanted);
        }
    }

    fn count_room(&self, stats: &mut JournalStats) {
        (stats.used_bytes, stats.room_bytes) = self.fill();
        stats.ring_bytes = self.ring.total_bytes();
    }
}

/// Bytes in use of those that users may use, in thousandths.
fn permille((used, room): (u64, u64)) -> u32 {
    if room <= used { 1000 } else { u32::try_from(used * 1000 / room).expect("less than 1000") }
}
