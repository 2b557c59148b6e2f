//! Appends and changes: into the journal's open entry, and what follows when that is durable.

use bytes::{Bytes, BytesMut};
use corelane_commitlog::{Append, CommitLog, Fetch, IdState, SegmentName};
use corelane_journal::{ClosedEntry, Item, JournalPosition};
use corelane_model::limits::{
    BATCH_BYTES_MAX, BLOCK_BYTES, CATALOG_CHANGE_BYTES_MAX, CHANGES_WAITING_MAX, OFFSET_LEASE, PRODUCER_ID_LEASE,
};
use corelane_model::{Now, Offset, PartitionId, ProducerId, TopicClass};
use corelane_record::{BATCH_HEAD_BYTES, SealedBatch, Stamp, stamp};

use super::{Phase, Storage};
use crate::partition::SettleState;
use crate::payload::encode_settled;
use crate::round::{MovedStart, Note, Round, Submitted};
use crate::{AppendError, Appended, ChangeError, ChangeTicket, StorageOutput};

/// Bits of a producer id that count within a shard; the shard's number stands above them.
const PRODUCER_ID_SHARD_SHIFT: u32 = 56;

/// What becomes of a message whose id is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeats {
    Dropped,
    Taken,
}

impl Storage {
    /// Takes a batch in: it is in the cache and in this round's journal entry, not yet durable.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was taken then.
    pub fn append(&mut self, now: Now, partition: PartitionId, batch: &SealedBatch) -> Result<Appended, AppendError> {
        self.append_as(now, partition, batch, Repeats::Dropped)
    }

    /// As [`Storage::append`], of a message that was in a log before and is meant to be there once more: that its id is
    /// remembered does not make it a duplicate.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was taken then.
    pub fn append_again(
        &mut self,
        now: Now,
        partition: PartitionId,
        batch: &SealedBatch,
    ) -> Result<Appended, AppendError> {
        self.append_as(now, partition, batch, Repeats::Taken)
    }

    fn append_as(
        &mut self,
        now: Now,
        partition: PartitionId,
        batch: &SealedBatch,
        repeats: Repeats,
    ) -> Result<Appended, AppendError> {
        self.now = now;
        self.check_running()?;
        let Some(known) = self.table.open(partition) else {
            return Err(AppendError::UnknownPartition { partition });
        };
        if known.log.settings().needs_keys()
            && let Some(record) = batch.keys().first_without_key()
        {
            return Err(AppendError::KeyMissing { record });
        }
        match known.class() {
            TopicClass::Durable => self.append_durable(now, partition, batch, repeats),
            TopicClass::Memory | TopicClass::Latest => self.append_memory(now, partition, batch, repeats),
        }
    }

    /// Bytes of the largest batch that a durable partition takes: [`BATCH_BYTES_MAX`], and less if the journal's files are so
    /// small that such a batch fits into no entry.
    #[must_use]
    pub fn batch_bytes_max(&self) -> u32 {
        let entry = self.journal.config().batch_bytes_max();
        u32::try_from(entry).unwrap_or(u32::MAX).min(BATCH_BYTES_MAX)
    }

    fn check_running(&self) -> Result<(), AppendError> {
        match (&self.failure, self.phase) {
            (Some(text), _) => Err(AppendError::StorageFailed { text: text.clone() }),
            (None, Phase::Recovering) => Err(AppendError::Recovering),
            (None, Phase::Draining { .. } | Phase::Drained) => Err(AppendError::ShuttingDown),
            (None, Phase::Running) => Ok(()),
        }
    }

    fn append_durable(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: &SealedBatch,
        repeats: Repeats,
    ) -> Result<Appended, AppendError> {
        let (len, limit) = (batch.bytes().len(), self.batch_bytes_max());
        if (limit as usize) < len {
            return Err(AppendError::BatchTooLarge { len, limit });
        }
        let bytes = Item::batch_bytes(len);
        self.check_room(bytes)?;
        let stamped = match self.decide(now, id, batch, repeats)? {
            Decision::Done(appended) => {
                self.stats.duplicate_batches_total += 1;
                return Ok(appended);
            }
            Decision::Stamped(stamped) => stamped,
        };
        let slot = self.journal.add_batch(id, batch, stamped);
        let appended = accepted(batch, stamped);
        self.round.slots.push((id, slot, appended.end_offset));
        self.round.user_bytes += bytes;
        self.count_append(batch);
        Ok(appended)
    }

    /// What becomes of a batch: by its message id where the topic deduplicates, else by its producer's sequence.
    fn decide(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: &SealedBatch,
        repeats: Repeats,
    ) -> Result<Decision, AppendError> {
        let begins_transaction = self.reserve_transaction(id, batch.head())?;
        let log: &mut CommitLog = &mut self.table.open_mut(id).expect("it was just found").log;
        let decision = if log.id_state() == IdState::Off {
            let append = log.append(now, batch.head())?;
            decision(append, log)
        } else {
            self.decide_by_id(now, id, batch, repeats)?
        };
        if begins_transaction {
            self.table.refresh(id);
        }
        Ok(decision)
    }

    fn decide_by_id(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: &SealedBatch,
        repeats: Repeats,
    ) -> Result<Decision, AppendError> {
        let message = self.message_id(now, id, batch)?;
        let log: &mut CommitLog = &mut self.table.open_mut(id).expect("it was just found").log;
        if let Some(message) = message {
            if repeats == Repeats::Dropped
                && let Some(earlier) = log.judge_id(now, batch.head(), message)?
            {
                return Ok(decision(earlier, log));
            }
            self.reserve_id(now)?;
        }
        let log: &mut CommitLog = &mut self.table.open_mut(id).expect("it was just found").log;
        let append = log.append(now, batch.head())?;
        if let (Some(message), Append::Accept(stamp)) = (message, append) {
            log.remember_id(message, stamp.base_offset, stamp.append_timestamp);
        }
        let decision = decision(append, log);
        if message.is_some() {
            self.table.refresh(id);
        }
        Ok(decision)
    }

    fn count_append(&mut self, batch: &SealedBatch) {
        self.stats.appended_batches_total += 1;
        self.stats.appended_bytes_total += batch.bytes().len() as u64;
    }

    /// Whether the journal and the cache can take `bytes` more.
    fn check_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let cached = self.slabs.bytes() + self.round.user_bytes;
        let is_memory_full = self.budget.unsettled_bytes < cached + bytes;
        if !is_memory_full && self.journal.is_room(bytes) {
            return Ok(());
        }
        let round_bytes = self.journal.config().user_bytes_max();
        let is_round_full = !is_memory_full && round_bytes < self.round.user_bytes + bytes + BLOCK_BYTES;
        if is_round_full && !self.is_ring_short() {
            self.stats.busy_total += 1;
            return Err(AppendError::RoundFull { limit_bytes: round_bytes });
        }
        let journal = self.journal.stats();
        let (unsettled_bytes, limit_bytes) = if is_memory_full {
            (cached, self.budget.unsettled_bytes)
        } else {
            (journal.used_bytes, journal.room_bytes)
        };
        if self.is_space_low() {
            self.stats.full_total += 1;
            return Err(AppendError::StorageFull { unsettled_bytes, limit_bytes });
        }
        self.stats.busy_total += 1;
        Err(AppendError::Busy { unsettled_bytes, limit_bytes })
    }

    fn append_memory(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: &SealedBatch,
        repeats: Repeats,
    ) -> Result<Appended, AppendError> {
        let partition = self.table.open(id).expect("it was just found");
        let end = partition.log.log_end().advance(u64::from(batch.head().offset_span));
        if partition.lease.is_none_or(|lease| lease.asked < end.0) {
            self.stats.busy_total += 1;
            return Err(AppendError::LeaseUsedUp);
        }
        let (ring_bytes, limit_bytes) = (self.table.ring_bytes(), self.budget.ring_bytes);
        let over = (ring_bytes + batch.bytes().len() as u64).saturating_sub(limit_bytes);
        // Newest records do not give way to others.
        let can_give_way = partition.class() == TopicClass::Memory && over <= partition.log.cached_bytes();
        if 0 < over && !can_give_way {
            self.stats.busy_total += 1;
            return Err(AppendError::RingsFull { ring_bytes, limit_bytes });
        }
        partition.log.admit(&batch.keys())?;
        let stamped = match self.decide(now, id, batch, repeats)? {
            Decision::Done(appended) => {
                self.stats.duplicate_batches_total += 1;
                return Ok(appended);
            }
            Decision::Stamped(stamped) => stamped,
        };
        // Only what is taken needs room: a duplicate, or a batch that is refused, costs nobody records.
        self.evict(id, over);
        let mut copy = BytesMut::from(&batch.bytes()[..]);
        stamp(&mut copy[..BATCH_HEAD_BYTES], stamped);
        let appended = accepted(batch, stamped);
        let partition = self.table.open_mut(id).expect("it was just found");
        partition.held.push(copy.freeze(), appended.end_offset);
        self.count_append(batch);
        self.attach_held(id);
        self.renew_offsets(id);
        Ok(appended)
    }

    /// Lets the oldest batches of a memory partition go until `bytes` are free, or all are gone.
    fn evict(&mut self, id: PartitionId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let partition = self.table.open_mut(id).expect("the caller found it");
        let wanted = partition.log.cached_bytes().saturating_sub(bytes);
        while wanted < partition.log.cached_bytes() {
            let Fetch::Batches { next, .. } = partition.log.fetch(partition.log.log_start(), 0) else { break };
            partition.log.truncate(next).expect("what can be fetched can be given up");
        }
        self.table.refresh(id);
    }

    /// Makes batches of a memory partition visible as far as their offsets are durably leased.
    pub(super) fn attach_held(&mut self, id: PartitionId) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let Some(lease) = partition.lease else { return };
        let mut is_new = false;
        while let Some(bytes) = partition.held.pop_until(lease.durable) {
            partition.log.attach(bytes, 0);
            is_new = true;
        }
        if is_new {
            partition.mark_durable(id, &mut self.durable);
        }
        self.table.refresh(id);
    }

    /// Asks the journal for more offsets when a memory partition has used up half of its lease.
    pub(super) fn renew_offsets(&mut self, id: PartitionId) {
        let Some(partition) = self.table.get_mut(id) else { return };
        let next = partition.log.log_end().0;
        let Some(until) = partition.lease.as_mut().and_then(|lease| lease.wish(next, OFFSET_LEASE)) else { return };
        let until = Offset(until);
        self.changes.push_back((Item::OffsetLease { partition: id, until }, Note::OffsetLease(id, until)));
    }

    /// Drops all records below `before`; [`StorageOutput::TruncateDurable`] says when that is durable.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was changed then.
    pub fn truncate(&mut self, now: Now, partition: PartitionId, before: Offset) -> Result<ChangeTicket, ChangeError> {
        self.now = now;
        self.check_change()?;
        let Some(known) = self.table.open_mut(partition) else {
            return Err(ChangeError::UnknownPartition { partition });
        };
        let (log_start, high_watermark) = (known.log.log_start(), known.log.high_watermark());
        if before < log_start {
            return Err(ChangeError::OutOfRange { offset: before, log_start, high_watermark });
        }
        let class = known.class();
        let oldest = known.log.oldest_unsettled();
        let Ok(dropped) = known.log.truncate(before) else {
            return Err(ChangeError::OutOfRange { offset: before, log_start, high_watermark });
        };
        let gives_up_unsettled = oldest != known.log.oldest_unsettled();
        let ticket = self.next_ticket();
        if !class.is_durable() {
            self.outputs.push_back(StorageOutput::TruncateDurable { partition, log_start: before, ticket });
            self.on_log_moved(partition);
        } else {
            let dropped = dropped.iter().map(|segment| (segment.name(), segment.bytes)).collect();
            // Until the note is durable the log would look for these batches after a crash.
            self.release_holds += u64::from(gives_up_unsettled);
            let moved = MovedStart { partition, log_start: before, ticket: Some(ticket), dropped, gives_up_unsettled };
            self.move_log_start(moved);
        }
        Ok(ticket)
    }

    /// Notes a new log start in the journal; the files of what was dropped go when that is durable.
    pub(super) fn move_log_start(&mut self, moved: MovedStart) {
        let MovedStart { partition: id, log_start, .. } = moved;
        let partition = self.table.get_mut(id).expect("the caller has it");
        partition.doomed.extend(moved.dropped.iter().map(|&(name, _)| name));
        self.changes.push_back((Item::LogStart { partition: id, offset: log_start }, Note::LogStart(moved)));
        self.on_log_moved(id);
    }

    fn on_log_moved(&mut self, id: PartitionId) {
        if let Some(partition) = self.table.get(id) {
            self.reads.forget_below(id, partition.log.log_start());
        }
        self.table.refresh(id);
    }

    pub(super) fn check_change(&self) -> Result<(), ChangeError> {
        if let Some(text) = &self.failure {
            return Err(ChangeError::StorageFailed { text: text.clone() });
        }
        match self.phase {
            Phase::Recovering => Err(ChangeError::Recovering),
            Phase::Draining { is_closing: true, .. } | Phase::Drained => Err(ChangeError::ShuttingDown),
            Phase::Running | Phase::Draining { .. } if CHANGES_WAITING_MAX <= self.changes.len() => {
                Err(ChangeError::Busy)
            }
            Phase::Running | Phase::Draining { .. } => Ok(()),
        }
    }

    pub(super) fn next_ticket(&mut self) -> ChangeTicket {
        self.tickets += 1;
        ChangeTicket(self.tickets)
    }

    /// Writes a change of the catalog; [`StorageOutput::CatalogDurable`] says when it is durable. Changes are handed
    /// back in this order at recovery.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was written then.
    pub fn write_catalog(&mut self, change: Bytes) -> Result<ChangeTicket, ChangeError> {
        self.check_change()?;
        if CATALOG_CHANGE_BYTES_MAX < change.len() {
            return Err(ChangeError::TooLarge { len: change.len(), limit: CATALOG_CHANGE_BYTES_MAX });
        }
        let ticket = self.next_ticket();
        let item = self.catalog.push(ticket.0, change);
        self.changes.push_back((item, Note::Catalog(ticket)));
        Ok(ticket)
    }

    /// The catalog with all changes up to and with `until`, or all that recovery handed up when that is `None`: what
    /// checkpoints carry from now on in their place. Called now and then, at the latest when the changes since have
    /// grown as large as the catalog.
    pub fn set_catalog_snapshot(&mut self, snapshot: Bytes, until: Option<ChangeTicket>) {
        let until = until.map_or_else(|| self.catalog.last_number(), |ticket| ticket.0);
        self.catalog.set_snapshot(snapshot, until);
    }

    /// A producer id that nobody had before. `None` while the journal leases new ones;
    /// [`StorageOutput::ProducerIdsReady`] says when to ask again.
    pub fn next_producer_id(&mut self, now: Now) -> Option<ProducerId> {
        self.now = now;
        if self.producers.durable <= self.producer_next {
            self.is_producer_waiting = true;
            return None;
        }
        let id = self.producer_next;
        self.producer_next += 1;
        Some(ProducerId(u64::from(self.config.shard.0) << PRODUCER_ID_SHARD_SHIFT | id))
    }

    /// Leases producer ids ahead of need.
    pub(super) fn lease_producers(&mut self) {
        if self.is_running()
            && let Some(until) = self.producers.wish(self.producer_next, PRODUCER_ID_LEASE)
        {
            let item = Item::ProducerLease { until: ProducerId(until) };
            self.changes.push_back((item, Note::ProducerLease(until)));
        }
    }

    /// Moves waiting changes into the open entry, in order, as far as it has room.
    pub(super) fn write_changes(&mut self) {
        while let Some((item, _)) = self.changes.front() {
            let bytes = item.encoded_bytes();
            let is_room = if self.is_freeing_blocked() {
                self.journal.make_room(bytes)
            } else {
                self.journal.make_change_room(bytes)
            };
            if !is_room {
                break;
            }
            let (item, note) = self.changes.pop_front().expect("it was just seen");
            self.journal.add_item(&item);
            self.round.notes.push(note);
        }
    }

    /// Whether a waiting change keeps journal files from becoming free: a log start that gives up unsettled records, or
    /// one that the note of its partition's settling must not overtake.
    fn is_freeing_blocked(&self) -> bool {
        0 < self.release_holds || self.unnoted.iter().any(|(id, _)| self.is_log_start_waiting(*id))
    }

    fn is_log_start_waiting(&self, id: PartitionId) -> bool {
        self.changes.iter().any(|(change, _)| matches!(change, Item::LogStart { partition, .. } if *partition == id))
    }

    /// Puts notes of synced jobs into the open entry, in their order.
    pub(super) fn write_notes(&mut self) {
        while let Some((id, job)) = self.unnoted.pop() {
            let is_behind = self.is_log_start_waiting(id);
            let Some(partition) = self.table.get_mut(id).filter(|partition| !partition.is_removed) else {
                self.abandon_file(id, SegmentName::settled(job.segment()));
                continue;
            };
            let settled = job.settled();
            let item = Item::Settled { partition: id, end: settled.end, changes: encode_settled(&settled) };
            // Notes overtake changes that wait for room, because notes make room. But what lies before a new log start
            // may never be settled: replay would take it for lost if it did not hear of the log start first.
            if is_behind || !self.journal.make_room(item.encoded_bytes()) {
                self.unnoted.push((id, job));
                break;
            }
            self.journal.add_item(&item);
            partition.log.note_settled(&settled);
            partition.settle = SettleState::Noted;
            self.round.notes.push(Note::Settled(id, Box::new(job)));
        }
    }

    /// The open entry is on its way: its batches are in memory for good, and durable when it is.
    pub(super) fn on_closed(&mut self, entry: &ClosedEntry) {
        let Round { mut slots, notes, .. } = std::mem::take(&mut self.round);
        let mut ends: Vec<(PartitionId, Offset)> = Vec::with_capacity(slots.len());
        let position = entry.position().to_u64();
        for (id, slot, end) in slots.drain(..) {
            let Some(partition) = self.table.get_mut(id).filter(|partition| !partition.is_removed) else { continue };
            partition.log.attach(entry.batch(slot), position);
            // Behind an older one a batch changes nothing of when the partition needs attention.
            if !partition.is_known_unsettled() {
                self.table.refresh(id);
            }
            match ends.last_mut() {
                Some((last, known)) if *last == id => *known = end,
                _ => ends.push((id, end)),
            }
        }
        // The next entry is expected to be like this one.
        self.round.slots = slots;
        if !ends.is_empty() {
            self.slabs.push(entry);
        }
        self.closed_end = entry.end().to_u64();
        self.submitted.push_back(Submitted { end: entry.end(), ends, notes });
    }

    /// Everything before `end` is on disk.
    pub(super) fn on_durable(&mut self, end: JournalPosition) {
        while self.submitted.front().is_some_and(|entry| entry.end <= end) {
            let Submitted { ends, notes, .. } = self.submitted.pop_front().expect("it was just seen");
            for (id, end) in ends {
                let Some(partition) = self.table.get_mut(id).filter(|partition| !partition.is_removed) else {
                    continue;
                };
                partition.log.on_durable(end);
                partition.mark_durable(id, &mut self.durable);
            }
            for note in notes {
                self.on_note_durable(note);
            }
        }
        self.release();
    }

    fn on_note_durable(&mut self, note: Note) {
        match note {
            Note::Settled(id, job) => self.on_settled(id, &job),
            Note::Compacted(id, replaced) => self.on_compacted_durable(id, replaced),
            Note::LogStart(moved) => self.on_log_start_durable(moved),
            Note::Catalog(ticket) => self.outputs.push_back(StorageOutput::CatalogDurable { ticket }),
            Note::TransactionEnd(id, transaction, ticket) => self.on_transaction_end_durable(id, transaction, ticket),
            Note::OffsetLease(id, until) => {
                if let Some(lease) = self.table.get_mut(id).and_then(|partition| partition.lease.as_mut()) {
                    lease.on_durable(until.0);
                }
                self.attach_held(id);
                self.renew_offsets(id);
            }
            Note::ProducerLease(until) => {
                self.producers.on_durable(until);
                if std::mem::take(&mut self.is_producer_waiting) {
                    self.outputs.push_back(StorageOutput::ProducerIdsReady);
                }
            }
            Note::Checkpoint => self.say_recovered(),
        }
    }

    fn on_log_start_durable(&mut self, moved: MovedStart) {
        let MovedStart { partition, log_start, ticket, dropped, gives_up_unsettled } = moved;
        self.release_holds -= u64::from(gives_up_unsettled);
        if !dropped.is_empty() {
            let segments = u32::try_from(dropped.len()).expect("a partition has few segments");
            let bytes = dropped.iter().map(|&(_, bytes)| bytes).sum();
            self.outputs.push_back(StorageOutput::SegmentsDropped { partition, log_start, segments, bytes });
            self.deletes.extend(dropped.into_iter().map(|(name, _)| (partition, name)));
        }
        if let Some(ticket) = ticket {
            self.outputs.push_back(StorageOutput::TruncateDurable { partition, log_start, ticket });
        }
    }
}

enum Decision {
    /// It was there already.
    Done(Appended),
    /// It is new and gets this stamp.
    Stamped(Stamp),
}

fn accepted(batch: &SealedBatch, stamp: Stamp) -> Appended {
    Appended {
        base_offset: stamp.base_offset,
        end_offset: stamp.base_offset.advance(u64::from(batch.head().offset_span)),
        append_timestamp: stamp.append_timestamp,
        is_duplicate: false,
        is_durable_already: false,
    }
}

fn decision(append: Append, log: &CommitLog) -> Decision {
    match append {
        Append::Accept(stamp) => Decision::Stamped(stamp),
        Append::Duplicate { base_offset, append_timestamp, end_offset } => Decision::Done(Appended {
            base_offset,
            end_offset,
            append_timestamp,
            is_duplicate: true,
            is_durable_already: end_offset <= log.durable_end(),
        }),
    }
}
