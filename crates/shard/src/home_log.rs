//! The log of a home partition, whatever lives in it: records of a round on their way to the disk, and reading them again.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::{Now, Offset, PartitionId};
use corelane_record::{BatchBuilder, BatchError, ProducerStamp, PushError, RecordBatch, SealedBatch};
use corelane_storage::{AppendError, Fetch, ReadError, ReadTicket, Storage};

/// Bytes that one read of a home's log asks for.
const RESTORE_READ_BYTES: u32 = 256 << 10;
/// Bytes of batches of one home that wait for room in the journal; beyond it requests are refused.
const UNWRITTEN_BYTES_MAX: u64 = 4 << 20;
/// Records that found no room in the journal are tried again after this time, if nothing else happens before.
pub(crate) const WRITE_AGAIN: Duration = Duration::from_millis(5);

/// Up to which record of whom something reaches.
#[derive(Clone, Debug)]
pub(crate) struct Reach<O> {
    pub(crate) owner: O,
    /// Which life of the owner's name it is; no two owners of a home share one.
    pub(crate) serial: u64,
    /// The owner's own count of its records.
    pub(crate) position: u64,
}

/// A record of this round; one that belongs to a snapshot reaches nothing.
#[derive(Debug)]
struct Pending<O> {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    reach: Option<Reach<O>>,
}

/// Why a home's records will never get into its log, however long they wait.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NeverWritten {
    #[error(transparent)]
    Record(#[from] PushError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What is on its way into a home's log.
#[derive(Debug)]
pub(crate) struct HomeAppends<O> {
    pending: Vec<Pending<O>>,
    /// Batches that found no room in the journal, in order.
    unwritten: VecDeque<(SealedBatch, Vec<Reach<O>>)>,
    unwritten_bytes: u64,
    /// Ends of batches that are not durable yet.
    written: VecDeque<(Offset, Vec<Reach<O>>)>,
    /// Nothing is taken and nothing is told any more: a record is missing, so none may follow it.
    is_stopped: bool,
}

impl<O> Default for HomeAppends<O> {
    fn default() -> Self {
        Self {
            pending: Vec::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            written: VecDeque::new(),
            is_stopped: false,
        }
    }
}

impl<O> HomeAppends<O> {
    pub(crate) fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, reach: Option<Reach<O>>) {
        if !self.is_stopped {
            self.pending.push(Pending { key, value, reach });
        }
    }

    /// Forgets what is on its way, and takes nothing more.
    pub(crate) fn stop(&mut self) {
        *self = Self { is_stopped: true, ..Self::default() };
    }

    /// Whether so much waits for room that no more requests are to be taken.
    pub(crate) const fn is_full(&self) -> bool {
        UNWRITTEN_BYTES_MAX < self.unwritten_bytes
    }

    /// Whether records found no room in the journal.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Whether this round has records.
    pub(crate) const fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What became durable below `end`.
    pub(crate) fn take_durable(&mut self, end: Offset) -> Vec<Reach<O>> {
        let mut reaches = Vec::new();
        while let Some((until, _)) = self.written.front()
            && *until <= end
        {
            reaches.extend(self.written.pop_front().expect("it was there").1);
        }
        reaches
    }

    /// Appends the records of the round, behind those that wait; answers the bytes of their batches. What finds no room
    /// waits for [`WRITE_AGAIN`].
    ///
    /// # Errors
    /// A record will never get into the log; this is stopped then, and what is behind the record is forgotten.
    pub(crate) fn write(
        &mut self,
        builder: &mut BatchBuilder,
        storage: &mut Storage,
        now: Now,
        partition: PartitionId,
    ) -> Result<u64, NeverWritten> {
        let written = match self.seal(builder, now, storage.batch_bytes_max()) {
            Ok(()) => self.append_sealed(storage, now, partition).map_err(NeverWritten::from),
            Err(error) => Err(error.into()),
        };
        if written.is_err() {
            self.stop();
        }
        written
    }

    fn append_sealed(&mut self, storage: &mut Storage, now: Now, partition: PartitionId) -> Result<u64, AppendError> {
        let mut appended_bytes = 0;
        while let Some((batch, _)) = self.unwritten.front() {
            let bytes = batch.bytes().len() as u64;
            let appended = match storage.append(now, partition, batch) {
                Ok(appended) => appended,
                Err(error) if error.is_final() => return Err(error),
                Err(_) => break,
            };
            let (_, reaches) = self.unwritten.pop_front().expect("it was there");
            self.unwritten_bytes -= bytes;
            appended_bytes += bytes;
            self.written.push_back((appended.end_offset, reaches));
        }
        Ok(appended_bytes)
    }

    /// Makes batches of the records of the round, none over `bytes_max`.
    fn seal(&mut self, builder: &mut BatchBuilder, now: Now, bytes_max: u32) -> Result<(), PushError> {
        let mut reaches: Vec<Reach<O>> = Vec::new();
        for Pending { key, value, reach } in std::mem::take(&mut self.pending) {
            let push =
                |builder: &mut BatchBuilder| builder.push_within(bytes_max, now.wall, Some(&key), value.as_deref());
            let pushed = match push(builder) {
                Err(PushError::Full) => {
                    self.seal_one(builder, std::mem::take(&mut reaches));
                    push(builder)
                }
                pushed => pushed,
            };
            if let Err(error) = pushed {
                builder.clear();
                return Err(error);
            }
            let Some(reach) = reach else { continue };
            match reaches.last_mut() {
                Some(last) if last.serial == reach.serial => last.position = reach.position,
                _ => reaches.push(reach),
            }
        }
        if !builder.is_empty() {
            self.seal_one(builder, reaches);
        }
        Ok(())
    }

    fn seal_one(&mut self, builder: &mut BatchBuilder, reaches: Vec<Reach<O>>) {
        let bytes = builder.finish(ProducerStamp::default());
        self.unwritten_bytes += bytes.len() as u64;
        let batch = SealedBatch::parse(bytes).expect("the builder makes whole batches");
        self.unwritten.push_back((batch, reaches));
    }
}

/// Why a home's log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeLogError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("a record has no key")]
    Keyless,
}

/// How far the log of a home was read.
#[derive(Debug)]
pub(crate) struct HomeReading {
    next: Offset,
    /// What was appended before this start ends here.
    end: Offset,
    /// The read that is on its way.
    reading: Option<ReadTicket>,
}

/// What a step of reading came to.
#[derive(Debug)]
pub(crate) enum ReadStep {
    /// These are for [`HomeReading::take`], with where to go on.
    Batches(Vec<Bytes>, Offset),
    /// A read is on its way to the disk: its end is to be expected.
    Expected(ReadTicket),
    /// What the damaged records said is lost. Another step may be made.
    Damaged,
    /// Another step may be made.
    Moved,
    /// A read has to come back first.
    Waiting,
    /// All was read.
    Done,
}

impl HomeReading {
    pub(crate) const fn new(log_start: Offset, end: Offset) -> Self {
        Self { next: log_start, end, reading: None }
    }

    /// Reads on.
    ///
    /// Panics if this shard has no such partition.
    pub(crate) fn step(&mut self, storage: &mut Storage, partition: PartitionId) -> ReadStep {
        if self.reading.is_some() {
            return ReadStep::Waiting;
        }
        if self.end <= self.next {
            return ReadStep::Done;
        }
        match storage.fetch(partition, self.next, RESTORE_READ_BYTES) {
            Fetch::Batches { batches, next } => ReadStep::Batches(batches, next),
            Fetch::Pending(ticket) => {
                self.reading = Some(ticket);
                ReadStep::Expected(ticket)
            }
            Fetch::AtEnd => {
                self.end = self.next;
                ReadStep::Moved
            }
            Fetch::OutOfRange { log_start, .. } => {
                self.end = self.end.max(log_start);
                self.next = log_start.max(self.next);
                ReadStep::Moved
            }
            Fetch::Corrupt { end, .. } => {
                self.next = end;
                ReadStep::Damaged
            }
            Fetch::Busy => ReadStep::Waiting,
            Fetch::Unknown => panic!("partition {partition} was opened before its home"),
        }
    }

    /// The read that was on its way came back.
    pub(crate) fn on_read(&mut self, result: Result<Vec<Bytes>, ReadError>) -> ReadStep {
        self.reading = None;
        match result {
            Ok(batches) => ReadStep::Batches(batches, self.next),
            Err(ReadError::Corrupt { end, .. }) => {
                self.next = self.next.max(end);
                ReadStep::Damaged
            }
            // They are asked for again.
            Err(ReadError::Gone | ReadError::Failed { .. }) => ReadStep::Moved,
        }
    }

    /// Takes in batches, record by record as key and value; the first may begin before the offset that was asked for.
    ///
    /// # Errors
    /// A batch does not hold together, a record has no key, or `apply` says so. What came before it is taken in.
    pub(crate) fn take<E: From<HomeLogError>>(
        &mut self,
        batches: Vec<Bytes>,
        next: Offset,
        mut apply: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        for bytes in batches {
            let batch = RecordBatch::parse(bytes).map_err(HomeLogError::from)?;
            for record in batch.iter().filter(|record| self.next <= record.offset) {
                apply(record.key.ok_or(HomeLogError::Keyless)?, record.value)?;
            }
            self.next = self.next.max(batch.head().end_offset());
        }
        self.next = self.next.max(next);
        Ok(())
    }
}
