//! What goes on beside appends and reads: turns of settling, checkpoints, retention, deletion of files.

use std::time::Duration;

use bytes::Bytes;
use corelane_commitlog::SegmentName;
use corelane_journal::{Item, JournalPosition};
use corelane_model::limits::{
    DELETES_IN_FLIGHT_MAX, PARTITION_PRODUCERS_MAX, RETENTION_INTERVAL, RETENTION_PARTITIONS_MAX,
    SETTLE_FILL_MIN_PERMILLE, SETTLE_HURRY_PERMILLE, SETTLE_RETRY_MAX, SETTLE_RETRY_MIN,
};
use corelane_model::{MonotonicNanos, Now, PartitionId, ProducerId, TopicClass, WallMillis};

use super::{Feed, Phase, SettleAll, Storage};
use crate::disk::Purpose;
use crate::pace::{pace, permille};
use crate::partition::SettleState;
use crate::round::{MovedStart, Note};
use crate::settle::{Haste, Job, TurnResult, is_new_segment};
use crate::{FileName, FileOp, Urgency};

/// Producers that a partition keeps when those of others fill an eighth of the journal's ring.
const CROWDED_PRODUCERS: usize = 16;

impl Storage {
    /// Bytes a second that settling may take now; `None`: as many as it can.
    pub(super) fn pace(&self) -> Option<u64> {
        if self.settle_all == SettleAll::No { Some(pace(self.fill_permille())) } else { None }
    }

    /// Fill of what fills up until batches are settled, in thousandths.
    fn fill_permille(&self) -> u64 {
        permille(self.slabs.bytes(), self.budget.unsettled_bytes).max(self.journal.pressure().into())
    }

    /// A turn could begin if its time has come.
    pub(super) fn may_settle(&self) -> bool {
        self.is_running()
            && !self.settling.is_busy()
            && self.unnoted.is_empty()
            && self.table.oldest_unsettled().is_some()
    }

    /// Begins a turn that is due by `until`.
    pub(super) fn begin_settling(&mut self, now: Now, until: MonotonicNanos) {
        if self.may_settle() && self.settling.next_turn(self.pace()).is_some_and(|due| due <= until) {
            let is_hurried = self.settle_all != SettleAll::No || SETTLE_HURRY_PERMILLE <= self.fill_permille();
            let haste = if is_hurried { Haste::Hurry } else { Haste::Calm };
            self.settling.begin_turn(now, haste, &mut self.table, &mut self.disk);
        }
    }

    /// When a turn's extents are on disk, notes of them go into the open entry.
    pub(super) fn note_settled(&mut self, now: Now) {
        if let Some(TurnResult { synced, no_space, failed }) = self.settling.end_turn(now) {
            for id in no_space {
                self.stats.settle_no_space_total += 1;
                self.abandon_job(id);
            }
            for (id, job) in failed {
                self.stats.settle_failures_total += 1;
                self.abandon_segment(now, id, &job);
            }
            self.stats.settle_turns_total += u64::from(!synced.is_empty());
            self.unnoted = synced;
        }
        if self.failure.is_none() {
            self.write_notes();
        }
    }

    /// The same batches are planned again later.
    fn abandon_job(&mut self, id: PartitionId) {
        let Some(partition) = self.table.get_mut(id) else { return };
        partition.settle = SettleState::Idle;
        if partition.is_removed {
            self.forget_if_gone(id);
        } else {
            partition.log.on_settle_failed();
        }
    }

    /// The segment's file cannot be trusted with more: the same batches go into a new one, after a while.
    fn abandon_segment(&mut self, now: Now, id: PartitionId, job: &Job) {
        let Some(partition) = self.table.get_mut(id) else { return };
        if partition.is_removed {
            return self.abandon_file(id, SegmentName::settled(job.segment()));
        }
        partition.log.on_settle_failed();
        if is_new_segment(job) {
            partition.failed_segment = Some(job.segment());
        } else {
            partition.log.seal();
        }
        let failures = partition.failures.saturating_add(1);
        partition.failures = failures;
        let wait = SETTLE_RETRY_MIN.saturating_mul(1 << failures.min(10)).min(SETTLE_RETRY_MAX);
        partition.settle = SettleState::Failed { until: now.monotonic.after(wait) };
        self.settling.pause_until(now.monotonic.after(SETTLE_RETRY_MIN));
    }

    /// Extents are on disk and the journal says so, durably: they count.
    pub(super) fn on_settled(&mut self, id: PartitionId, job: &Job) {
        let Some(partition) = self.table.get_mut(id) else { return };
        if partition.is_removed {
            return self.abandon_file(id, SegmentName::settled(job.segment()));
        }
        partition.settle = SettleState::Idle;
        partition.failures = 0;
        let dropped: Vec<_> =
            partition.log.on_settled().iter().map(|segment| (segment.name(), segment.bytes)).collect();
        let log_start = partition.log.log_start();
        self.stats.settled_extents_total += job.heads().count() as u64;
        self.stats.settled_bytes_total += job.bytes();
        self.stats.settled_disk_bytes_total += job.disk_bytes();
        for head in job.heads() {
            self.reads.on_settled(job.segment(), head);
        }
        if !dropped.is_empty() {
            // They were given up meanwhile. The note of that may not be durable yet, one more says it again.
            let moved = MovedStart { partition: id, log_start, ticket: None, dropped, gives_up_unsettled: false };
            self.move_log_start(moved);
        }
        if self.table.get(id).is_some_and(|partition| partition.log.settings().retention_bytes.is_some()) {
            self.retain(self.now, id);
        }
        self.table.refresh(id);
    }

    /// Says how far the journal may forget.
    pub(super) fn release(&mut self) {
        if 0 < self.release_holds {
            return;
        }
        let needed = self.table.oldest_unsettled().unwrap_or(self.closed_end);
        self.slabs.release(needed);
        self.journal.release(JournalPosition::from_u64(needed));
    }

    /// A checkpoint is wanted: what the shard itself has comes first, then the partitions, over several rounds.
    pub(super) fn begin_checkpoint(&mut self) {
        self.feed = Some(Feed { items: None, last: None, bytes: 0 });
    }

    /// What the shard itself has now, last one first.
    fn own_items(&self) -> Vec<Item> {
        let mut items = self.catalog.items();
        if 0 < self.producers.asked {
            items.push(Item::ProducerLease { until: ProducerId(self.producers.asked) });
        }
        items
    }

    pub(super) fn feed_checkpoint(&mut self) {
        if self.journal.checkpoint_room() == 0 {
            return;
        }
        let Some(Feed { items, mut last, mut bytes }) = self.feed.take() else { return };
        let mut has_begun = items.is_some();
        // The checkpoint counts from the file of its first part: what was written until then may lie in an earlier one,
        // which it lets go.
        let mut items = items.unwrap_or_else(|| self.own_items());
        while 0 < self.journal.checkpoint_room() {
            let item = match items.last() {
                Some(item) => item.clone(),
                None => match self.table.after(last).map(|(id, _)| id) {
                    Some(partition) => Item::State { partition, state: self.state_of(partition, bytes) },
                    None => {
                        self.journal.finish_checkpoint();
                        self.round.notes.push(Note::Checkpoint);
                        return;
                    }
                },
            };
            if !self.journal.make_room(item.encoded_bytes()) {
                break;
            }
            self.journal.add_checkpoint_item(&item);
            has_begun = true;
            match item {
                Item::State { partition, state } => {
                    last = Some(partition);
                    bytes += state.len() as u64;
                }
                _ => drop(items.pop()),
            }
        }
        self.feed = Some(Feed { items: has_begun.then_some(items), last, bytes });
    }

    /// What a checkpoint that has so many bytes already says of the partition.
    ///
    /// A checkpoint must fit the ring several times over, or no file would ever become free: beyond an eighth of the ring a
    /// partition keeps few producers, beyond a quarter none. Those that it forgets are told so when they send again. In memory
    /// it keeps those that may well do so.
    pub(super) fn state_of(&mut self, id: PartitionId, bytes: u64) -> Bytes {
        let ring = u64::from(self.config.journal_files) * self.config.journal_file_bytes;
        let keep = match bytes {
            bytes if bytes < ring / 8 => PARTITION_PRODUCERS_MAX,
            bytes if bytes < ring / 4 => CROWDED_PRODUCERS,
            _ => 0,
        };
        let partition = self.table.get_mut(id).expect("the caller has found it");
        partition.log.forget_producers(self.now, keep);
        let mut record = partition.record();
        record.log.keep_producers(keep);
        record.encode()
    }

    /// Retention of the partitions that are due, a bounded number of them.
    pub(super) fn retain_due(&mut self, now: Now) {
        // Batches that nothing settles are given up where there is ample room for the notes of it; above this fill they
        // are on their way into segments. One such pass at a time, so that the ring is released between them.
        let may_expire = self.release_holds == 0
            && self.changes.is_empty()
            && u64::from(self.journal.pressure()) < SETTLE_FILL_MIN_PERMILLE;
        for _ in 0..RETENTION_PARTITIONS_MAX {
            let Some((due, id)) = self.table.first_due() else { return };
            if now.wall < due || !self.is_running() {
                return;
            }
            self.retain(now, id);
            if may_expire {
                self.expire_unsettled(now, id);
            }
            let interval = i64::try_from(RETENTION_INTERVAL.as_millis()).expect("a short time");
            self.table.schedule(id, WallMillis(now.wall.0.saturating_add(interval)));
        }
    }

    pub(super) fn retain(&mut self, now: Now, id: PartitionId) {
        let Some(partition) = self.table.open_mut(id) else { return };
        let class = partition.class();
        let retention = partition.log.apply_retention(now);
        let Some(log_start) = retention.log_start else { return };
        let dropped: Vec<(SegmentName, u64)> =
            retention.dropped.iter().map(|segment| (segment.name(), segment.bytes)).collect();
        match class {
            // Retention gives up whole segments only, nothing that is not settled.
            TopicClass::Durable => self.move_log_start(MovedStart {
                partition: id,
                log_start,
                ticket: None,
                dropped,
                gives_up_unsettled: false,
            }),
            TopicClass::Memory | TopicClass::Latest => self.table.refresh(id),
        }
    }

    fn expire_unsettled(&mut self, now: Now, id: PartitionId) {
        let Some(partition) = self.table.open_mut(id) else { return };
        let Some(log_start) = partition.log.expire_unsettled(now) else { return };
        // Until the note is durable the log would look for these batches after a crash.
        self.release_holds += 1;
        self.move_log_start(MovedStart {
            partition: id,
            log_start,
            ticket: None,
            dropped: Vec::new(),
            gives_up_unsettled: true,
        });
    }

    /// Deletes files that nobody needs, a few at a time.
    pub(super) fn start_deletes(&mut self) {
        if self.phase == Phase::Recovering {
            return;
        }
        while self.deletes_in_flight < DELETES_IN_FLIGHT_MAX
            && let Some((partition, name)) = self.deletes.pop_front()
        {
            self.deletes_in_flight += 1;
            let file = FileName::segment(partition, name);
            self.disk.push(file, FileOp::Delete, Urgency::Background, Purpose::Delete(partition, name));
        }
    }

    /// A file is gone. One that could not be deleted stays on the list and is tried again at the next start.
    pub(super) fn on_deleted(&mut self, id: PartitionId, name: SegmentName, is_done: bool) {
        self.deletes_in_flight -= 1;
        if !is_done {
            return;
        }
        self.stats.segments_deleted_total += 1;
        if let Some(partition) = self.table.get_mut(id) {
            partition.doomed.retain(|doomed| *doomed != name);
            self.forget_if_gone(id);
        }
    }
}

const _: () = assert!(SETTLE_RETRY_MIN.as_nanos() < SETTLE_RETRY_MAX.as_nanos());
const _: () = assert!(Duration::ZERO.as_nanos() < RETENTION_INTERVAL.as_nanos());
