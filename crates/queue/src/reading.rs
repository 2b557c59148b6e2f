//! What is asked for, and what comes.

use std::time::Duration;

use corelane_model::limits::{
    QUEUE_DELAY_MAX, QUEUE_DELAY_SLACK, QUEUE_READ_AHEAD_BYTES, QUEUE_READ_AHEAD_BYTES_MIN, QUEUE_READS_BYTES,
    QUEUE_RING_RECORDS, QUEUE_WINDOW_RECORDS,
};
use corelane_model::{Now, Offset, PartitionIndex, WallMillis};

use crate::clock::Due;
use crate::slot::{Slot, State};
use crate::{DeadReason, Effect, Queue};

/// What a queue has to know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// Where it is.
    pub offset: Offset,
    /// What it takes off a member's credit.
    pub bytes: u32,
    /// Hash of its key; `None` without a key. Only looked at in a queue with order per key.
    pub key: Option<u32>,
    /// Before that it is not handed out, unless that is more than [`QUEUE_DELAY_MAX`] after it was appended: then it becomes a
    /// dead letter when its turn comes, and is handed out in a queue without a topic for these.
    pub deliver_at: Option<WallMillis>,
}

/// What comes with the records of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// The partition.
    pub partition: PartitionIndex,
    /// Where reading had come before this batch: from there to the batch's end the log has nothing but its records.
    pub from: Offset,
    /// Exclusive end of the offsets that the batch takes; those without a record count as done.
    pub end: Offset,
    /// When it was appended.
    pub timestamp: WallMillis,
    /// Bytes of the batch, of those that were asked for.
    pub bytes: u64,
    /// Exclusive end of what can be read of the partition.
    pub high_watermark: Offset,
}

/// How far behind its append a delivery time may be, in milliseconds: what a producer may ask for by its own clock.
#[expect(clippy::cast_possible_truncation, reason = "a week and some minutes")]
const DELAY_MAX_MS: u64 = (QUEUE_DELAY_MAX.as_millis() + QUEUE_DELAY_SLACK.as_millis()) as u64;

impl Queue {
    /// Records that [`Effect::Read`] asked for, in order; a batch may begin before what was asked for. Whether they were
    /// taken: if the window has no room, or something is missing before them, they are forgotten and asked for again.
    pub fn on_records(&mut self, now: Now, batch: ReadBatch, records: impl IntoIterator<Item = RecordMeta>) -> bool {
        let index = batch.partition.0;
        let Some(partition) = self.partitions.get_mut(index as usize).filter(|partition| partition.is_started) else {
            return false;
        };
        partition.asked = partition.asked.saturating_sub(batch.bytes);
        partition.high_watermark = partition.high_watermark.max(batch.high_watermark.0);
        let end = batch.end.0;
        if end <= partition.read_end() {
            return true;
        }
        let mut records = records.into_iter().peekable();
        let first = records.peek().map_or(end, |record| record.offset.0.min(end));
        self.pass(index, batch.from.0, first);
        let partition = &mut self.partitions[index as usize];
        let read_end = partition.read_end();
        if read_end < batch.from.0 || partition.done_end + QUEUE_RING_RECORDS < end {
            partition.asked = 0;
            self.stats.dropped_batches += 1;
            return false;
        }
        if partition.stamps.back().is_none_or(|&(_, stamp)| stamp != batch.timestamp) {
            partition.stamps.push_back((read_end, batch.timestamp));
        }
        for record in records {
            let next = self.partitions[index as usize].read_end();
            if next <= record.offset.0 && record.offset.0 < end {
                self.fill(index, record.offset.0);
                self.take_record(now, index, batch.timestamp, record);
            }
        }
        self.fill(index, end);
        let partition = &mut self.partitions[index as usize];
        let before = partition.done_end;
        partition.advance();
        if before < partition.done_end {
            self.soil(index);
        }
        self.list(index);
        true
    }

    /// Reading came from one offset to another without a record between them: what was there is not for queues, such as the
    /// records of an aborted transaction. These offsets count as done.
    pub fn on_passed(&mut self, partition: PartitionIndex, from: Offset, end: Offset) {
        let index = partition.0;
        if self.partition(partition).is_none_or(|partition| !partition.is_started) {
            return;
        }
        self.pass(index, from.0, end.0);
        let partition = &mut self.partitions[index as usize];
        if partition.read_end() < end.0 {
            partition.asked = 0;
            self.stats.dropped_batches += 1;
        }
    }

    /// Passes over offsets without a record, as far as the ring has room: a hole may be longer than it.
    fn pass(&mut self, index: u32, from: u64, end: u64) {
        let partition = &mut self.partitions[index as usize];
        let read_end = partition.read_end();
        if read_end < from || end <= read_end {
            return;
        }
        if partition.len() == 0 {
            partition.jump(end);
            self.soil(index);
        } else {
            let room_end = partition.done_end + QUEUE_RING_RECORDS;
            self.fill(index, end.min(room_end));
        }
    }

    /// Exclusive end of what can be read of the partition, as far as whoever reads it knows.
    pub fn on_high_watermark(&mut self, partition: PartitionIndex, high_watermark: Offset) {
        if let Some(partition) = self.partition(partition) {
            partition.high_watermark = partition.high_watermark.max(high_watermark.0);
        }
    }

    /// Reading ended by itself: what was asked for does not come. It is asked for again in the next round, so whoever
    /// cannot read for a while says so only when that is over.
    pub fn on_read_ended(&mut self, partition: PartitionIndex) {
        if let Some(partition) = self.partition(partition) {
            partition.asked = 0;
        }
    }

    /// Records before `end` that are gone from the log, or cannot be read for ever, count as done; those from `first` on.
    /// Whoever has one of them may find its acknowledgement refused.
    pub fn skip(&mut self, now: Now, partition: PartitionIndex, first: Offset, end: Offset) {
        let index = partition.0;
        let Some(partition) = self.partition(partition).filter(|partition| partition.is_started) else { return };
        let read_end = partition.read_end();
        for offset in first.0.max(partition.done_end)..end.0.min(read_end) {
            let Some(state) = self.partitions[index as usize].slot(offset).map(|slot| slot.state) else { continue };
            match state {
                State::Done => continue,
                State::Leased => self.unlease(index, offset),
                State::Dying => self.dying.forget(index, offset),
                State::Fresh | State::Again | State::Delayed | State::Held => {}
            }
            self.stats.skipped_records += 1;
            self.finish(now, index, offset);
        }
        let partition = &mut self.partitions[index as usize];
        if first.0 <= read_end && read_end < end.0 {
            if partition.len() == 0 {
                self.stats.skipped_records += end.0 - read_end;
                partition.jump(end.0);
                self.soil(index);
            } else if end.0 - partition.done_end <= QUEUE_RING_RECORDS {
                self.stats.skipped_records += end.0 - read_end;
                self.fill(index, end.0);
            }
            self.partitions[index as usize].asked = 0;
        }
    }

    /// Offsets without a record, up to `end`.
    fn fill(&mut self, index: u32, end: u64) {
        let partition = &mut self.partitions[index as usize];
        while partition.read_end() < end {
            let offset = partition.read_end();
            partition.done.insert(offset);
            // It may have failed in an earlier life, and be gone since.
            partition.failed.remove(&offset);
            partition.push(Slot::done());
        }
    }

    /// One record, at the end of what was read.
    fn take_record(&mut self, now: Now, index: u32, appended: WallMillis, record: RecordMeta) {
        let partition = &mut self.partitions[index as usize];
        let offset = record.offset.0;
        self.stats.read_records += 1;
        let mut slot = Slot::fresh(record.bytes);
        slot.is_too_far = record.deliver_at.is_some_and(|at| DELAY_MAX_MS < at.millis_since(appended));
        self.stats.far_delivery_times += u64::from(slot.is_too_far);
        let deliver_at = record.deliver_at.filter(|_| !slot.is_too_far);
        // A clock that was set back since lets nobody wait longer than that either.
        let mut rest_ms = deliver_at.map_or(0, |at| at.millis_since(now.wall).min(DELAY_MAX_MS));
        let mut is_dead = false;
        if offset < partition.restored_end {
            if partition.done.contains(offset) {
                slot.state = State::Done;
                partition.push(slot);
                return;
            }
            if let Some(failure) = partition.failed.get(&offset) {
                slot.attempts = failure.deliveries;
                rest_ms = rest_ms.max(failure.remaining_ms(now.wall));
                let limit = self.settings.delivery_limit;
                is_dead = failure.is_dead || limit.is_some_and(|limit| limit <= u32::from(failure.deliveries));
            }
        }
        let rest = Duration::from_millis(rest_ms);
        slot.until = now.monotonic.after(rest);
        let before = record.key.and_then(|key| partition.lines.as_mut()?.join(key, offset));
        if let Some(before) = before
            && let Some(other) = partition.slot_mut(before)
            && other.state != State::Done
        {
            other.next = u32::try_from(offset - before).expect("a ring is far below 2^32");
            slot.state = State::Held;
        } else if !rest.is_zero() {
            slot.state = State::Delayed;
            self.clock.push_other(Due { at: slot.until, partition: index, offset });
        }
        partition.push(slot);
        if is_dead && self.settings.dead_letter.is_some() {
            let reason = if slot.is_too_far { DeadReason::TooFar } else { DeadReason::Restored };
            self.die(index, offset, reason);
        }
    }

    /// Asks for more where the window has room. Only called in rounds in which a member had credit.
    pub(crate) fn ask(&mut self) {
        let share = QUEUE_READS_BYTES / (self.partitions.len() as u64).max(1);
        let share = share.clamp(QUEUE_READ_AHEAD_BYTES_MIN, QUEUE_READ_AHEAD_BYTES);
        for partition in &mut self.partitions {
            let expected = partition.fresh_bytes + partition.asked;
            if !partition.is_started || share / 2 < expected || QUEUE_WINDOW_RECORDS <= partition.len() {
                continue;
            }
            let bytes = share - expected;
            partition.asked += bytes;
            let from = Offset(partition.read_end());
            self.outbox.now(Effect::Read { partition: partition.index, from, bytes });
        }
    }
}
