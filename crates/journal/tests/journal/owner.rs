//! An owner as storage is one: partitions with a state that goes into checkpoints, batches that are needed until they are
//! settled, and a full memory of what it was told and what it may rely on.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use corelane_journal::{
    BatchSlot, Item, Journal, JournalConfig, JournalError, JournalId, JournalOp, JournalOutput, JournalPosition,
    RecoveryReport,
};
use corelane_model::{
    LeaderEpoch, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    ShardId, TopicId, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, SealedBatch, Stamp};

use crate::disk::{Chance, Crash, Disk};

pub(crate) const FILE_BYTES: u64 = 64 << 10;

pub(crate) fn config(files: u32) -> JournalConfig {
    let id = JournalId { data: 0x0123_4567_89ab_cdef_0011_2233_4455_6677, shard: ShardId(1) };
    JournalConfig { id, files, file_bytes: FILE_BYTES }
}

pub(crate) fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId(7), PartitionIndex(index))
}

/// A batch of one record with a value of so many bytes.
pub(crate) fn batch(value_bytes: usize) -> SealedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(1_000), None, Some(&vec![0x5a; value_bytes]), &[]).unwrap();
    let producer =
        ProducerStamp { producer_id: ProducerId::NONE, producer_epoch: ProducerEpoch(0), base_sequence: Sequence(0) };
    SealedBatch::parse(builder.finish(producer)).unwrap()
}

pub(crate) fn stamp_at(offset: u64) -> Stamp {
    Stamp { base_offset: Offset(offset), append_timestamp: WallMillis(2_000), leader_epoch: LeaderEpoch(1) }
}

/// What the owner put into one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) position: JournalPosition,
    pub(crate) end: JournalPosition,
    /// Values given to partitions.
    pub(crate) values: Vec<(u32, u64)>,
    /// Numbers of batches.
    pub(crate) batches: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) journal: Journal,
    pub(crate) disk: Disk,
    files: u32,
    partitions: u32,
    pub(crate) now: u64,
    values: BTreeMap<u32, u64>,
    next_value: u64,
    next_batch: u64,
    open: Entry,
    slots: Vec<(u64, BatchSlot)>,
    /// Every entry since the beginning of time.
    pub(crate) history: Vec<Entry>,
    /// Batches that are not settled, oldest first, with their entries.
    pub(crate) unsettled: VecDeque<(JournalPosition, u64)>,
    /// The owner was told that everything before is durable.
    pub(crate) durable: JournalPosition,
    released: JournalPosition,
    cursor: Option<u32>,
    pub(crate) failure: Option<JournalError>,
    pub(crate) closed: bool,
    pub(crate) report: RecoveryReport,
}

impl Owner {
    pub(crate) fn new(files: u32, partitions: u32) -> Self {
        let mut owner = Self {
            journal: Journal::new(config(files)),
            disk: Disk::default(),
            files,
            partitions,
            now: 0,
            values: BTreeMap::new(),
            next_value: 1,
            next_batch: 0,
            open: Entry::default(),
            slots: Vec::new(),
            history: Vec::new(),
            unsettled: VecDeque::new(),
            durable: JournalPosition::ZERO,
            released: JournalPosition::ZERO,
            cursor: None,
            failure: None,
            closed: false,
            report: RecoveryReport::default(),
        };
        owner.recover(&mut Chance(0), 0).unwrap();
        owner
    }

    pub(crate) fn now(&self) -> Now {
        Now { monotonic: MonotonicNanos(self.now * 1_000_000), wall: WallMillis(i64::try_from(self.now).unwrap()) }
    }

    /// Adds values for some partitions.
    pub(crate) fn add_values(&mut self, count: u32, chance: &mut Chance) {
        for _ in 0..count {
            let index = u32::try_from(chance.below(self.partitions as usize)).unwrap();
            let item = Item::LogStart { partition: partition(index), offset: Offset(self.next_value) };
            if !self.journal.is_room(item.encoded_bytes()) {
                return;
            }
            self.journal.add_item(&item);
            self.values.insert(index, self.next_value);
            self.open.values.push((index, self.next_value));
            self.next_value += 1;
        }
    }

    pub(crate) fn add_batch(&mut self, value_bytes: usize) -> bool {
        let batch = batch(value_bytes);
        if !self.journal.is_room(Item::batch_bytes(batch.bytes().len())) {
            return false;
        }
        let slot = self.journal.add_batch(partition(0), &batch, stamp_at(self.next_batch));
        self.slots.push((self.next_batch, slot));
        self.open.batches.push(self.next_batch);
        self.next_batch += 1;
        true
    }

    /// Settles so many of the oldest batches and releases what is before the rest.
    pub(crate) fn settle(&mut self, count: usize) {
        let durable = self.durable;
        let count = self.unsettled.iter().take(count).filter(|(position, _)| *position < durable).count();
        self.unsettled.drain(..count);
        let end = self.history.last().map_or(JournalPosition::ZERO, |entry| entry.position);
        let needed = self.unsettled.front().map_or(end, |(position, _)| *position);
        self.released = self.released.max(needed);
        self.journal.release(needed);
    }

    pub(crate) fn finish_round(&mut self) {
        self.feed_checkpoint();
        let now = self.now();
        if let Some(closed) = self.journal.finish_round(now) {
            for (number, slot) in self.slots.drain(..) {
                let head = BatchHead::parse(&closed.batch(slot)).unwrap();
                assert_eq!(head.base_offset, Offset(number));
                self.unsettled.push_back((closed.position(), number));
            }
            let mut entry = std::mem::take(&mut self.open);
            (entry.position, entry.end) = (closed.position(), closed.end());
            self.history.push(entry);
        }
        self.poll();
    }

    fn feed_checkpoint(&mut self) {
        while 0 < self.journal.checkpoint_room() {
            let next = match self.cursor {
                None => self.values.iter().next(),
                Some(last) => self.values.range(last + 1..).next(),
            };
            let Some((index, value)) = next.map(|(index, value)| (*index, *value)) else {
                self.journal.finish_checkpoint();
                self.cursor = None;
                return;
            };
            let mut state = vec![0; 300];
            state[..8].copy_from_slice(&value.to_le_bytes());
            let item = Item::State { partition: partition(index), state: Bytes::from(state) };
            if !self.journal.make_room(item.encoded_bytes()) {
                return;
            }
            self.journal.add_checkpoint_item(&item);
            self.cursor = Some(index);
        }
    }

    pub(crate) fn poll(&mut self) {
        while let Some(output) = self.journal.poll_output() {
            match output {
                JournalOutput::Durable { end } => {
                    assert!(self.durable < end, "durable {} after {}", end, self.durable);
                    self.durable = end;
                }
                JournalOutput::CheckpointWanted => self.cursor = None,
                JournalOutput::CreateFailed { .. } => {}
                JournalOutput::Closed => self.closed = true,
                JournalOutput::Failed(error) => self.failure = Some(error),
                JournalOutput::Recovered(report) => self.report = report,
            }
        }
        while let Some(effect) = self.journal.poll_effect() {
            self.disk.issue(effect);
        }
    }

    /// Completes one effect.
    pub(crate) fn complete(&mut self, index: usize) {
        let (effect, result) = self.disk.complete(index);
        self.journal.on_done(effect.id, result);
        self.poll();
    }

    pub(crate) fn complete_short(&mut self, index: usize) {
        let (effect, result) = self.disk.complete_short(index);
        self.journal.on_done(effect.id, result);
        self.poll();
    }

    pub(crate) fn fail(&mut self, index: usize) {
        let (effect, result) = self.disk.fail(index);
        self.journal.on_done(effect.id, result);
        self.poll();
    }

    /// Rounds and completions until nothing is in flight.
    pub(crate) fn run_dry(&mut self) {
        self.finish_round();
        while 0 < self.disk.in_flight() {
            self.complete(0);
            self.finish_round();
        }
    }

    /// Crashes, perhaps again while it recovers, and recovers; see [`Owner::recover`].
    pub(crate) fn crash(&mut self, crash: Crash, chance: &mut Chance) -> Result<(), String> {
        self.crash_with_damage(crash, chance, 0)
    }

    /// The same where so many damaged places are expected to be reported.
    pub(crate) fn crash_with_damage(&mut self, crash: Crash, chance: &mut Chance, damages: u64) -> Result<(), String> {
        self.disk.crash(crash, chance);
        for _ in 0..chance.below(3) {
            self.recover_partly(chance);
            let again = [Crash::Process, Crash::Machine][chance.below(2)];
            self.disk.crash(again, chance);
        }
        self.journal = Journal::new(config(self.files));
        self.open = Entry::default();
        self.slots.clear();
        self.cursor = None;
        self.failure = None;
        self.closed = false;
        self.recover(chance, damages)
    }

    /// Begins to recover from a disk that fails now and then, and dies on the way or at its end.
    fn recover_partly(&mut self, chance: &mut Chance) {
        let mut journal = Journal::new(config(self.files));
        for _ in 0..chance.below(40) {
            while journal.poll_recovered().is_some() {}
            if journal.is_running() {
                return;
            }
            while let Some(effect) = journal.poll_effect() {
                self.disk.issue(effect);
            }
            if self.disk.in_flight() == 0 {
                return;
            }
            let index = chance.below(self.disk.in_flight());
            let (effect, result) = match chance.below(12) {
                0 => self.disk.fail(index),
                1 => self.disk.complete_short(index),
                _ => self.disk.complete(index),
            };
            journal.on_done(effect.id, result);
        }
    }

    /// Recovers and checks that what came back is a prefix of the history with all that was durable.
    fn recover(&mut self, chance: &mut Chance, damages: u64) -> Result<(), String> {
        let mut values = BTreeMap::new();
        let mut found: Vec<Entry> = Vec::new();
        let mut batches = Vec::new();
        self.poll();
        while !self.journal.is_running() {
            while let Some(recovered) = self.journal.poll_recovered() {
                if found.last().is_none_or(|entry| entry.position != recovered.position) {
                    found.push(Entry { position: recovered.position, ..Entry::default() });
                }
                let entry = found.last_mut().unwrap();
                match recovered.item {
                    Item::LogStart { partition, offset } => {
                        values.insert(partition.index.0, offset.0);
                        entry.values.push((partition.index.0, offset.0));
                    }
                    Item::State { partition, state } => {
                        let value = u64::from_le_bytes(state[..8].try_into().unwrap());
                        values.insert(partition.index.0, value);
                    }
                    Item::Batch { batch, .. } => {
                        let number = BatchHead::parse(&batch).map_err(|error| error.to_string())?.base_offset.0;
                        entry.batches.push(number);
                        batches.push((recovered.position, number));
                    }
                    item => return Err(format!("{item:?} was never written")),
                }
            }
            self.poll();
            if let Some(error) = &self.failure {
                return Err(format!("recovery failed: {error}"));
            }
            if !self.journal.is_running() {
                if self.disk.in_flight() == 0 {
                    return Err("recovery waits for nothing".into());
                }
                let index = chance.below(self.disk.in_flight());
                self.complete(index);
            }
        }
        self.poll();
        self.check_recovered(&found, damages)?;
        self.check_values(&values)?;
        self.unsettled = batches.into_iter().filter(|(position, _)| self.released <= *position).collect();
        self.values = values;
        self.next_batch = self.history.iter().flat_map(|entry| entry.batches.last()).max().map_or(0, |last| last + 1);
        self.durable = self.journal.durable();
        Ok(())
    }

    /// What was found is what was written, up to some entry that is not before the durable position.
    fn check_recovered(&mut self, found: &[Entry], damages: u64) -> Result<(), String> {
        let report = &self.report;
        if report.damages != damages {
            return Err(format!("{damages} damaged places are expected, reported are {:?}", report.damage));
        }
        let known = self.history.iter().filter(|entry| entry.end <= report.end).count();
        let durable = self.history.iter().filter(|entry| entry.end <= self.durable).count();
        if known < durable {
            return Err(format!("{durable} entries were durable to {}, {known} are back: {report:?}", self.durable));
        }
        self.history.truncate(known);
        let written = self.history.iter().filter(|entry| {
            report.oldest <= entry.position.sequence() && (!entry.values.is_empty() || !entry.batches.is_empty())
        });
        let found = found.iter().filter(|entry| !entry.values.is_empty() || !entry.batches.is_empty());
        let (written, found): (Vec<&Entry>, Vec<&Entry>) = (written.collect(), found.collect());
        if written.len() != found.len() {
            return Err(format!("{} of {} entries with content came back", found.len(), written.len()));
        }
        for (written, found) in written.iter().zip(&found) {
            if (written.position, &written.values, &written.batches) != (found.position, &found.values, &found.batches)
            {
                return Err(format!("{written:?} came back as {found:?}"));
            }
        }
        let needed = self.history.iter().find(|entry| self.released <= entry.position && !entry.batches.is_empty());
        match needed {
            Some(entry) if entry.position.sequence() < report.oldest => {
                Err(format!("unsettled batches at {} are gone, the oldest file is {}", entry.position, report.oldest))
            }
            _ => Ok(()),
        }
    }

    fn check_values(&self, found: &BTreeMap<u32, u64>) -> Result<(), String> {
        let written: BTreeMap<u32, u64> = self.history.iter().flat_map(|entry| entry.values.iter().copied()).collect();
        if written == *found { Ok(()) } else { Err(format!("state {written:?} came back as {found:?}")) }
    }

    /// The first effect in flight for which `is_wanted` holds.
    pub(crate) fn find(&self, is_wanted: impl Fn(&JournalOp) -> bool) -> Option<usize> {
        self.disk.find(is_wanted)
    }
}
