//! A home partition: its coordinators, the records on their way into its log, and reading them again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use corelane_model::{
    ErrorCode, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerId, TransactionalId,
};
use corelane_record::{BatchBuilder, BatchError, ProducerStamp, RecordBatch, SealedBatch};
use corelane_session::Refused;
use corelane_storage::{Fetch, ReadError, ReadTicket};
use corelane_transaction::{AppendPosition, Coordinator, DecodeError, RequestTicket, Restore, TransactionStats, id_of};

use super::run::Waiter;
use crate::Shard;
use crate::subscriptions::ReadFor;

/// Bytes that one read of a home's log asks for.
const RESTORE_READ_BYTES: u32 = 256 << 10;
/// Reads of homes' logs that one round makes.
const RESTORE_ROUND_READS: usize = 16;
/// Bytes of batches of one home that wait for room in the journal; beyond it requests are refused.
const UNWRITTEN_BYTES_MAX: u64 = 4 << 20;

/// ```text
///              the log was read to its end
///  Restoring ──────────────────────────────▶ Serving
///      │ a record of another version            │ the journal failed, or the shard drains
///      └──────────────────▶ Broken ◀────────────┘
/// ```
#[derive(Debug)]
pub(super) enum HomePhase {
    Restoring(Restoring),
    Serving,
    Broken(Refused),
}

/// How far the log of a home was read.
#[derive(Debug)]
pub(super) struct Restoring {
    next: Offset,
    end: Offset,
    reading: Option<ReadTicket>,
    ids: BTreeMap<TransactionalId, Restore>,
}

/// A coordinator and who waits for it.
#[derive(Debug)]
pub(super) struct Coordinated {
    pub(super) coordinator: Coordinator,
    /// Which life of the id it is.
    pub(super) serial: u64,
    pub(super) asked: BTreeMap<RequestTicket, Waiter>,
    /// Its entry in [`Home::deadlines`].
    armed: Option<MonotonicNanos>,
    /// Its entry in [`Home::producers`].
    producer: Option<ProducerId>,
}

/// Up to which record of which id something reaches.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) id: TransactionalId,
    pub(super) serial: u64,
    pub(super) position: AppendPosition,
}

/// A home partition of this shard.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) partition: PartitionId,
    pub(super) phase: HomePhase,
    pub(super) ids: BTreeMap<TransactionalId, Coordinated>,
    /// Whose a producer is now.
    pub(super) producers: BTreeMap<ProducerId, TransactionalId>,
    /// Ids to which something happened in this round.
    pub(super) touched: BTreeSet<TransactionalId>,
    deadlines: BTreeSet<(MonotonicNanos, TransactionalId)>,
    /// Records of this round.
    pending: Vec<(Vec<u8>, Option<Vec<u8>>, Reach)>,
    /// Batches that found no room in the journal, in order.
    unwritten: VecDeque<(SealedBatch, Vec<Reach>)>,
    unwritten_bytes: u64,
    /// Ends of batches that are not durable yet.
    written: VecDeque<(Offset, Vec<Reach>)>,
    /// Counters of ids that are gone.
    pub(super) retired: TransactionStats,
}

/// Why a home cannot be restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Record(#[from] DecodeError),
    #[error("a record has no key")]
    Keyless,
}

impl Restoring {
    fn take(&mut self, batches: Vec<Bytes>) -> Result<(), RestoreError> {
        for bytes in batches {
            let batch = RecordBatch::parse(bytes)?;
            for record in batch.iter().filter(|record| self.next <= record.offset) {
                let key = record.key.ok_or(RestoreError::Keyless)?;
                let restore = self.ids.entry(id_of(key)?).or_insert_with_key(|id| Restore::new(id.clone()));
                restore.apply(key, record.value)?;
            }
            self.next = self.next.max(batch.head().end_offset());
        }
        Ok(())
    }
}

impl Home {
    fn new(partition: PartitionId, next: Offset, end: Offset) -> Self {
        let restoring = Restoring { next, end, reading: None, ids: BTreeMap::new() };
        Self {
            partition,
            phase: if next < end { HomePhase::Restoring(restoring) } else { HomePhase::Serving },
            ids: BTreeMap::new(),
            producers: BTreeMap::new(),
            touched: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            pending: Vec::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            written: VecDeque::new(),
            retired: TransactionStats::default(),
        }
    }

    /// Why nothing is taken at the moment, if so.
    pub(super) fn refuses(&self) -> Option<Refused> {
        match &self.phase {
            HomePhase::Serving if self.unwritten_bytes <= UNWRITTEN_BYTES_MAX => None,
            HomePhase::Serving => {
                let text = "records of transactions wait for room in the journal; try again in a moment";
                Some(Refused::new(ErrorCode::Busy, text))
            }
            HomePhase::Restoring(_) => {
                let text = "the transactional id is being read from disk; try again in a moment";
                Some(Refused::new(ErrorCode::Recovering, text))
            }
            HomePhase::Broken(refused) => Some(refused.clone()),
        }
    }

    pub(super) fn insert(&mut self, coordinator: Coordinator, serial: u64) {
        let id = coordinator.id().clone();
        let coordinated = Coordinated { coordinator, serial, asked: BTreeMap::new(), armed: None, producer: None };
        self.ids.insert(id.clone(), coordinated);
        self.touched.insert(id.clone());
        self.index(&id);
    }

    /// Puts an id where its deadline and its producer say.
    pub(super) fn index(&mut self, id: &TransactionalId) {
        let Some(known) = self.ids.get_mut(id) else { return };
        let producer = known.coordinator.current().map(|current| current.producer);
        if known.producer != producer {
            if let Some(before) = std::mem::replace(&mut known.producer, producer) {
                self.producers.remove(&before);
            }
            if let Some(producer) = producer {
                self.producers.insert(producer, id.clone());
            }
        }
        let next = known.coordinator.next_deadline();
        if known.armed != next {
            if let Some(before) = std::mem::replace(&mut known.armed, next) {
                self.deadlines.remove(&(before, id.clone()));
            }
            if let Some(at) = next {
                self.deadlines.insert((at, id.clone()));
            }
        }
    }

    /// Takes an id out that is forgotten.
    pub(super) fn remove(&mut self, id: &TransactionalId) -> Option<Coordinated> {
        let known = self.ids.remove(id)?;
        self.retired.merge(known.coordinator.stats());
        if let Some(before) = known.armed {
            self.deadlines.remove(&(before, id.clone()));
        }
        if let Some(producer) = known.producer {
            self.producers.remove(&producer);
        }
        Some(known)
    }

    /// Whether records found no room in the journal.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, HomePhase::Serving) && !self.unwritten.is_empty()
    }

    pub(super) fn first_deadline(&self) -> Option<MonotonicNanos> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Whether its round has anything to do.
    pub(super) fn is_busy(&self, now: MonotonicNanos) -> bool {
        let is_due = self.first_deadline().is_some_and(|at| at <= now);
        is_due || !self.touched.is_empty() || !self.pending.is_empty() || !self.unwritten.is_empty()
    }

    /// Tells those whose time has come.
    pub(super) fn meet_deadlines(&mut self, now: Now) {
        while let Some((at, id)) = self.deadlines.first().cloned()
            && at <= now.monotonic
        {
            self.deadlines.pop_first();
            let known = self.ids.get_mut(&id).expect("deadlines are those of ids");
            known.armed = None;
            known.coordinator.on_deadline(now);
            self.index(&id);
            self.touched.insert(id.clone());
            if self.deadlines.first().is_some_and(|(again, next)| *again == at && *next == id) {
                return;
            }
        }
    }

    pub(super) fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, reach: Reach) {
        self.pending.push((key, value, reach));
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
    fn seal(&mut self, builder: &mut BatchBuilder, now: Now) {
        let mut reaches: Vec<Reach> = Vec::new();
        for (key, value, reach) in std::mem::take(&mut self.pending) {
            if builder.push(now.wall, Some(&key), value.as_deref(), &[]).is_err() {
                self.seal_one(builder, std::mem::take(&mut reaches));
                builder.push(now.wall, Some(&key), value.as_deref(), &[]).expect("a record fits into a batch");
            }
            reaches.push(reach);
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

    /// Takes nothing more, and hands back who waits.
    pub(super) fn stop(&mut self, refused: &Refused) -> Vec<Waiter> {
        self.phase = HomePhase::Broken(refused.clone());
        self.touched.clear();
        self.deadlines.clear();
        self.ids.values_mut().flat_map(|known| std::mem::take(&mut known.asked).into_values()).collect()
    }
}

impl Shard {
    /// Opens the homes of this shard when there is a topic for them.
    pub(super) fn open_transaction_partitions(&mut self, partitions: Vec<PartitionId>) {
        for partition in partitions {
            let Some(status) = self.storage.describe(partition) else { continue };
            let home = || Home::new(partition, status.log_start, status.durable_end);
            self.transactions.homes.entry(partition.index).or_insert_with(home);
        }
    }

    /// Appends the records of a home's round. What finds no room waits for [`WRITE_AGAIN`](crate::groups::WRITE_AGAIN).
    pub(super) fn write_transactions(&mut self, index: PartitionIndex) {
        let Self { transactions, storage, now, is_storage_touched, .. } = self;
        let Some(home) = transactions.homes.get_mut(&index) else { return };
        home.seal(&mut transactions.builder, *now);
        while let Some((batch, _)) = home.unwritten.front() {
            *is_storage_touched = true;
            let bytes = batch.bytes().len() as u64;
            let Ok(appended) = storage.append(*now, home.partition, batch) else { return };
            let (_, reaches) = home.unwritten.pop_front().expect("it was there");
            home.unwritten_bytes -= bytes;
            home.written.push_back((appended.end_offset, reaches));
        }
    }

    /// Reads on where homes are being restored. Whether more can be done at once.
    pub(super) fn restore_transactions(&mut self) -> bool {
        let restoring = |home: &Home| matches!(home.phase, HomePhase::Restoring(_));
        let homes: Vec<PartitionIndex> =
            self.transactions.homes.iter().filter(|(_, home)| restoring(home)).map(|(&index, _)| index).collect();
        let mut left = RESTORE_ROUND_READS;
        for index in homes {
            while self.restore_transaction_step(index) {
                left -= 1;
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }

    /// One read of one home. Whether it may go on.
    fn restore_transaction_step(&mut self, index: PartitionIndex) -> bool {
        let Some(home) = self.transactions.homes.get_mut(&index) else { return false };
        let HomePhase::Restoring(restoring) = &mut home.phase else { return false };
        if restoring.reading.is_some() {
            return false;
        }
        if restoring.end <= restoring.next {
            self.finish_transaction_restore(index);
            return false;
        }
        match self.storage.fetch(home.partition, restoring.next, RESTORE_READ_BYTES) {
            Fetch::Batches { batches, next } => {
                let taken = restoring.take(batches);
                restoring.next = restoring.next.max(next);
                self.note_transactions_restored(index, taken)
            }
            Fetch::Pending(ticket) => {
                restoring.reading = Some(ticket);
                self.subscriptions.expect_read(ticket, home.partition, ReadFor::Restore);
                false
            }
            Fetch::AtEnd => {
                restoring.end = restoring.next;
                true
            }
            Fetch::OutOfRange { log_start, .. } => {
                restoring.end = restoring.end.max(log_start);
                restoring.next = log_start.max(restoring.next);
                true
            }
            // What the damaged records said is lost.
            Fetch::Corrupt { end, .. } => {
                restoring.next = end;
                true
            }
            // A read has to come back first; that is another round.
            Fetch::Busy => false,
            Fetch::Unknown => panic!("partition {} was opened before its home", home.partition),
        }
    }

    /// A read of a home's log came back; whether it was one of a home of transactions.
    pub(crate) fn on_transactions_read(
        &mut self,
        partition: PartitionId,
        result: Result<Vec<Bytes>, ReadError>,
    ) -> Result<(), Result<Vec<Bytes>, ReadError>> {
        if self.transactions.topic != Some(partition.topic) {
            return Err(result);
        }
        let Some(home) = self.transactions.homes.get_mut(&partition.index) else { return Ok(()) };
        let HomePhase::Restoring(restoring) = &mut home.phase else { return Ok(()) };
        restoring.reading = None;
        match result {
            Ok(batches) => {
                let taken = restoring.take(batches);
                self.note_transactions_restored(partition.index, taken);
            }
            Err(ReadError::Corrupt { end, .. }) => restoring.next = restoring.next.max(end),
            // They are asked for again.
            Err(ReadError::Gone | ReadError::Failed { .. }) => {}
        }
        self.is_storage_touched = true;
        Ok(())
    }

    fn note_transactions_restored(&mut self, index: PartitionIndex, taken: Result<(), RestoreError>) -> bool {
        let Err(error) = taken else { return true };
        let home = self.transactions.homes.get_mut(&index).expect("it is being restored");
        let text = format!("the transactional ids of partition {} cannot be read: {error}", home.partition);
        home.phase = HomePhase::Broken(Refused::new(ErrorCode::CorruptLog, text));
        false
    }

    /// The log was read to its end: the ids are there, and participants of what was decided are told again.
    fn finish_transaction_restore(&mut self, index: PartitionIndex) {
        let Self { transactions, now, .. } = self;
        let home = transactions.homes.get_mut(&index).expect("it is being restored");
        let HomePhase::Restoring(restoring) = std::mem::replace(&mut home.phase, HomePhase::Serving) else {
            panic!("home {index} is restored twice");
        };
        for restore in restoring.ids.into_values().filter(|restore| !restore.is_nothing()) {
            transactions.last_ticket += 1;
            home.insert(restore.finish(*now), transactions.last_ticket);
        }
        self.is_storage_touched = true;
    }
}
