//! A log with a journal that is a list, segments that are lists, and a model that is a list.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_commitlog::{
    Append, AppendError, CommitLog, CorruptRange, Fetch, LogState, Segment, SegmentChoice, Settle, Settled, Shutdown,
    TimeLookup,
};
use corelane_model::limits::PRODUCER_BATCHES_MAX;
use corelane_model::{
    MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicId,
    TopicSettings, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, stamp};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Producer 0 has no identity.
    Append {
        producer: u64,
        records: u32,
        size: usize,
    },
    Resend {
        producer: u64,
        back: usize,
    },
    Skip {
        producer: u64,
    },
    NewEpoch {
        producer: u64,
    },
    /// The journal is on disk but for the last few items.
    Sync {
        behind: usize,
    },
    Plan {
        bytes_max: u32,
    },
    /// The extent of the plan is on disk; the journal takes the note.
    WriteNote,
    FailSettle,
    Checkpoint,
    /// The journal gives up what is before the newest checkpoint, as far as it may; some items before it stay.
    Recycle {
        before: usize,
    },
    Truncate {
        percent: u64,
    },
    Wait {
        millis: i64,
    },
    /// Some of the items that were not yet on disk survive; perhaps a batch in the journal is damaged.
    Crash {
        survive: usize,
        damage: Option<usize>,
    },
}

#[derive(Clone, Debug)]
enum Item {
    Batch(Bytes),
    Settled(Settled),
    LogStart(Offset),
    Checkpoint(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
struct Appended {
    base: u64,
    end: u64,
    producer: u64,
    epoch: u16,
    sequence: u32,
    timestamp: i64,
    bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct Rig {
    log: CommitLog,
    settings: TopicSettings,
    now: Now,
    /// Items with their positions; `journal_start` is the position of the first.
    journal: Vec<Item>,
    journal_start: usize,
    /// Position of the first item that is not on disk.
    synced: usize,
    plan: Option<Settle>,
    /// A note that is in the journal at this position and perhaps not yet on disk.
    note: Option<(usize, Settled)>,
    files: BTreeMap<u64, Vec<Bytes>>,
    appended: Vec<Appended>,
    epochs: BTreeMap<u64, u16>,
    epochs_after_damage: BTreeMap<u64, u16>,
    durable: u64,
    lost: Vec<(u64, u64)>,
    is_damaged: bool,
}

const PARTITION: PartitionId = PartitionId::new(TopicId(7), PartitionIndex(3));

fn now(millis: i64) -> Now {
    Now { monotonic: MonotonicNanos(millis.unsigned_abs() * 1_000_000), wall: WallMillis(millis) }
}

impl Rig {
    pub(crate) fn new(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> Self {
        let settings = TopicSettings { retention_ms, retention_bytes, segment_bytes: 1500, ..TopicSettings::default() };
        Self {
            log: CommitLog::new(PARTITION, settings, LogState::default()),
            settings,
            now: now(1_000_000),
            journal: Vec::new(),
            journal_start: 0,
            synced: 0,
            plan: None,
            note: None,
            files: BTreeMap::new(),
            appended: Vec::new(),
            epochs: BTreeMap::new(),
            epochs_after_damage: BTreeMap::new(),
            durable: 0,
            lost: Vec::new(),
            is_damaged: false,
        }
    }

    fn journal_end(&self) -> usize {
        self.journal_start + self.journal.len()
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { producer, records, size } => {
                let sequence = self.next_sequence(producer);
                self.append(producer, sequence, records, size);
            }
            Op::Resend { producer, back } => self.resend(producer, back),
            Op::Skip { producer } => {
                let (epoch, expected) = (self.epoch(producer), self.next_sequence(producer));
                let refused = self.log.append(self.now, &batch_head(producer, epoch, expected.wrapping_add(1), 1));
                assert!(matches!(
                    refused,
                    Err(AppendError::OutOfSequence { .. } | AppendError::UnknownProducer { .. })
                ));
            }
            Op::NewEpoch { producer } => {
                *self.epochs.entry(producer).or_default() += 1;
                self.append(producer, 0, 1, 10);
                let stale = self.log.append(self.now, &batch_head(producer, self.epoch(producer) - 1, 0, 1));
                assert!(matches!(stale, Err(AppendError::ProducerFenced { .. })));
            }
            Op::Sync { behind } => self.sync(behind),
            Op::Plan { bytes_max } => self.plan(bytes_max),
            Op::WriteNote => self.write_note(),
            Op::FailSettle => {
                if self.plan.take().is_some() {
                    self.log.on_settle_failed();
                }
            }
            Op::Checkpoint => {
                let mut bytes = Vec::new();
                self.log.state().encode(&mut bytes);
                assert_eq!(LogState::decode(&bytes).as_ref(), Ok(self.log.state()));
                self.journal.push(Item::Checkpoint(bytes));
            }
            Op::Recycle { before } => self.recycle(before),
            Op::Truncate { percent } => self.truncate(percent),
            Op::Wait { millis } => self.wait(millis),
            Op::Crash { survive, damage } => self.crash(survive, damage),
        }
    }

    fn epoch(&self, producer: u64) -> u16 {
        self.epochs.get(&producer).copied().unwrap_or_default()
    }

    /// Batches of the producer's newest epoch, oldest first.
    fn of_producer(&self, producer: u64) -> Vec<Appended> {
        let epoch = self.epoch(producer);
        self.appended.iter().filter(|batch| batch.producer == producer && batch.epoch == epoch).cloned().collect()
    }

    fn next_sequence(&self, producer: u64) -> u32 {
        let before = self.of_producer(producer);
        let records = |batch: &Appended| u32::try_from(batch.end - batch.base).expect("small");
        before.last().map_or(0, |last| last.sequence.wrapping_add(records(last)))
    }

    fn append(&mut self, producer: u64, sequence: u32, records: u32, size: usize) {
        let epoch = self.epoch(producer);
        let bytes = batch(producer, epoch, sequence, records, size);
        let head = BatchHead::parse(&bytes).expect("sound");
        let base = self.log.log_end();
        let accepted = self.log.append(self.now, &head).expect("a batch in sequence is taken");
        let Append::Accept(given) = accepted else { panic!("a new batch was taken for a duplicate") };
        assert_eq!(given.base_offset, base);
        assert_eq!(given.leader_epoch, self.log.leader_epoch());
        let timestamp = self.appended.last().map_or(i64::MIN, |last| last.timestamp).max(self.now.wall.0);
        assert!(timestamp <= given.append_timestamp.0, "append timestamps go back");
        let mut stamped = bytes.to_vec();
        stamp(&mut stamped, given);
        let stamped = Bytes::from(stamped);
        self.log.attach(stamped.clone(), self.journal_end() as u64);
        self.journal.push(Item::Batch(stamped.clone()));
        self.appended.push(Appended {
            base: base.0,
            end: base.0 + u64::from(records),
            producer,
            epoch,
            sequence,
            timestamp: given.append_timestamp.0,
            bytes: stamped,
        });
        assert_eq!(self.log.log_end().0, base.0 + u64::from(records));
    }

    fn resend(&mut self, producer: u64, back: usize) {
        let before = self.of_producer(producer);
        let Some(index) = before.len().checked_sub(back + 1) else { return };
        let old = &before[index];
        let records = u32::try_from(old.end - old.base).expect("small");
        let log_end = self.log.log_end();
        let outcome = self.log.append(self.now, &batch_head(producer, old.epoch, old.sequence, records));
        let duplicate = Append::Duplicate {
            base_offset: Offset(old.base),
            append_timestamp: WallMillis(old.timestamp),
            end_offset: Offset(old.end),
        };
        // Batches of one millisecond are remembered together, so that some beyond the limit are known too.
        if back < PRODUCER_BATCHES_MAX || outcome.is_ok() {
            assert_eq!(outcome, Ok(duplicate));
        } else {
            assert!(matches!(outcome, Err(AppendError::OutOfSequence { .. })), "{outcome:?}");
        }
        assert_eq!(self.log.log_end(), log_end);
    }

    fn sync(&mut self, behind: usize) {
        self.synced = self.synced.max(self.journal_end().saturating_sub(behind));
        let on_disk = &self.journal[..self.synced - self.journal_start];
        let end = on_disk.iter().rev().find_map(|item| match item {
            Item::Batch(bytes) => Some(BatchHead::parse(bytes).expect("sound").end_offset()),
            Item::Settled(_) | Item::LogStart(_) | Item::Checkpoint(_) => None,
        });
        if let Some(end) = end {
            self.durable = self.durable.max(end.0);
            self.log.on_durable(end);
        }
        if let Some((position, settled)) = self.note
            && position < self.synced
        {
            assert!(settled.end <= self.log.settled_end());
            self.note = None;
            let dropped = self.log.on_settled();
            self.delete(&dropped);
        }
    }

    fn plan(&mut self, bytes_max: u32) {
        let is_idle = self.plan.is_none() && self.note.is_none();
        let Some(plan) = self.log.settle_plan(bytes_max) else { return };
        assert!(is_idle, "one plan at a time");
        assert!(plan.end.0 <= self.durable, "settles what could be lost");
        assert_eq!(plan.bytes, plan.batches.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
        assert!(plan.bytes <= u64::from(bytes_max) || plan.batches.len() == 1);
        assert!(self.log.settle_plan(bytes_max).is_none(), "a second plan");
        if let SegmentChoice::Append { bytes, .. } = plan.segment {
            assert!(bytes + plan.batches[0].len() as u64 <= self.settings.segment_bytes);
        }
        self.plan = Some(plan);
    }

    fn write_note(&mut self) {
        let Some(plan) = self.plan.take() else { return };
        let file = self.files.entry(plan.segment.segment().0).or_default();
        let counted = match plan.segment {
            SegmentChoice::Append { bytes, .. } => bytes,
            SegmentChoice::Roll { .. } => 0,
        };
        // What lies behind the bytes that count does not exist.
        let mut kept = 0;
        file.retain(|bytes| {
            kept += bytes.len() as u64;
            kept <= counted
        });
        file.extend(plan.batches.iter().cloned());
        let settled = plan.settled(counted + plan.bytes);
        self.note = Some((self.journal_end(), settled));
        self.log.note_settled(&settled);
        self.journal.push(Item::Settled(settled));
    }

    /// Files go only when a checkpoint without them is on disk; here that is at once.
    fn delete(&mut self, dropped: &[Segment]) {
        for segment in dropped {
            assert!(segment.end <= self.log.log_start());
            assert!(self.note.is_none_or(|(_, settled)| settled.segment != segment.base), "dropped while written");
            assert!(self.plan.as_ref().is_none_or(|plan| plan.segment.segment() != segment.base));
        }
    }

    fn recycle(&mut self, before: usize) {
        let oldest =
            self.log.oldest_unsettled().map_or(usize::MAX, |position| usize::try_from(position).expect("small"));
        // What was given up is needed until the journal says durably that it was.
        let unsynced = &self.journal[self.synced - self.journal_start..];
        if unsynced.iter().any(|item| matches!(item, Item::LogStart(_))) {
            return;
        }
        let is_base = |at: &usize| matches!(self.journal[at - self.journal_start], Item::Checkpoint(_));
        let mut checkpoints = (self.journal_start..self.synced).filter(is_base);
        let Some(keep) = checkpoints.rfind(|&at| at <= oldest) else { return };
        let keep = keep.saturating_sub(before).max(self.journal_start);
        self.journal.drain(..keep - self.journal_start);
        self.journal_start = keep;
    }

    fn truncate(&mut self, percent: u64) {
        let (start, end) = (self.log.log_start(), self.log.high_watermark());
        let before = Offset(start.0 + end.since(start) * percent / 100);
        let dropped = self.log.truncate(before).expect("within the log");
        self.delete(&dropped);
        assert_eq!(self.log.log_start(), before);
        self.journal.push(Item::LogStart(before));
        assert!(self.log.truncate(Offset(end.0 + 1)).is_err());
    }

    fn wait(&mut self, millis: i64) {
        self.now.wall.0 += millis;
        self.now.monotonic.0 += millis.unsigned_abs() * 1_000_000;
        let retention = self.log.apply_retention(self.now);
        self.delete(&retention.dropped);
        if let Some(start) = retention.log_start {
            assert_eq!(start, self.log.log_start());
            self.journal.push(Item::LogStart(start));
        }
        if let Some(start) = self.log.expire_unsettled(self.now) {
            assert!(start <= self.log.durable_end());
            self.journal.push(Item::LogStart(start));
        }
        let waits = self.log.durable_end() < self.log.log_end() || self.plan.is_some() || self.note.is_some();
        if let Some(deadline) = self.log.retention_deadline().filter(|_| !waits) {
            assert!(self.now.wall < deadline, "a deadline in the past asks for ever");
        }
    }

    fn crash(&mut self, survive: usize, damage: Option<usize>) {
        let (old_start, old_durable) = (self.log.log_start(), self.durable);
        let old_settled = self.log.settled_end();
        let kept = (self.synced + survive).min(self.journal_end());
        self.journal.truncate(kept - self.journal_start);
        let damaged = damage.and_then(|at| self.damage(at));
        self.plan = None;
        self.note = None;
        self.log = CommitLog::new(PARTITION, self.settings, LogState::default());
        for (position, item) in (self.journal_start..).zip(&self.journal) {
            replay(&mut self.log, item, position as u64);
        }
        let (corrupt, _) = self.log.finish_recovery(self.now, Shutdown::Unclean);
        self.synced = self.journal_end();
        self.durable = self.log.log_end().0;
        assert_eq!(self.log.durable_end(), self.log.log_end());
        // A log start that was not yet on disk is forgotten; what is settled is not.
        assert!(self.log.log_start() <= old_start);
        assert!(damaged.is_some() || old_settled.min(Offset(old_durable)) <= self.log.log_end());
        let end = self.log.log_end().0;
        if damaged.is_none() {
            assert!(old_durable <= end, "durable to {old_durable}, recovered to {end}");
        }
        self.appended.retain(|batch| batch.end <= end);
        self.lost = corrupt.iter().map(|range| (range.first.0, range.end.0)).collect();
        self.is_damaged |= damaged.is_some();
        assert!(self.is_damaged || self.lost.is_empty(), "reports losses that never were: {:?}", self.lost);
        let lost = self.lost.clone();
        self.appended.retain(|batch| !lost.iter().any(|&(first, end)| first < batch.end && batch.base < end));
        if damaged.is_none() {
            self.check_producers();
        } else {
            // The oracle of sequences follows the log from here on: what was damaged was forgotten with it.
            self.forget_lost();
            let start = self.log.log_start().0;
            self.appended.retain(|batch| start < batch.end);
        }
    }

    /// Takes a batch out of the journal's readable part.
    fn damage(&mut self, at: usize) -> Option<(u64, u64)> {
        let batches: Vec<usize> =
            (0..self.journal.len()).filter(|&at| matches!(self.journal[at], Item::Batch(_))).collect();
        let at = *batches.get(at % batches.len().max(1))?;
        let Item::Batch(bytes) = &self.journal[at] else { return None };
        let head = BatchHead::parse(bytes).expect("sound");
        let range = CorruptRange { first: head.base_offset, end: head.end_offset() };
        // The journal knows what was there: the entry's directory is apart from its batches.
        self.journal[at] = Item::LogStart(Offset::ZERO);
        Some((range.first.0, range.end.0))
    }

    fn check_producers(&mut self) {
        for producer in 1..4 {
            for back in 0..PRODUCER_BATCHES_MAX {
                self.resend_known(producer, back);
            }
        }
    }

    /// After a restart everything that is still in the log is recognised.
    fn resend_known(&mut self, producer: u64, back: usize) {
        let newest = self.appended.iter().filter(|batch| batch.producer == producer).map(|batch| batch.epoch).max();
        let floor = self.epochs_after_damage.get(&producer).copied();
        self.epochs.insert(producer, newest.max(floor).unwrap_or(0));
        self.resend(producer, back);
    }

    fn forget_lost(&mut self) {
        for producer in 1..4 {
            // A fresh epoch: sequences begin anew whatever was lost.
            let epoch = self.epochs.entry(producer).or_default();
            *epoch += 1;
            self.epochs_after_damage.insert(producer, *epoch);
        }
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.log.durable_end().0, self.durable.max(self.log.durable_end().0));
        assert_eq!(self.log.high_watermark(), self.log.durable_end());
        self.check_reads();
        self.check_times();
    }

    /// Reads everything from the log start on, one batch at a time and all at once.
    fn check_reads(&self) {
        for bytes_max in [1, 400, u32::MAX] {
            let mut at = self.log.log_start();
            loop {
                match self.log.fetch(at, bytes_max) {
                    Fetch::AtEnd => break,
                    Fetch::Batches { batches, next } => {
                        let mut expected = at.0;
                        for bytes in &batches {
                            expected = self.expect_batch(bytes, expected);
                        }
                        assert_eq!(next.0, expected);
                        let total: usize = batches.iter().map(Bytes::len).sum();
                        assert!(batches.len() == 1 || total <= bytes_max as usize);
                        at = next;
                    }
                    Fetch::Cold { segment, bytes, end } => at = self.read_cold(segment, bytes, at, end),
                    Fetch::Corrupt { first, end } => {
                        assert!(first <= at && at < end);
                        assert!((at.0..end.0).all(|at| self.is_lost(at)), "{first} to {end} was never lost");
                        at = end;
                    }
                    Fetch::OutOfRange { .. } => panic!("{at} is in range"),
                }
            }
            assert_eq!(at, self.log.high_watermark());
        }
        let beyond = Offset(self.log.high_watermark().0 + 1);
        assert!(matches!(self.log.fetch(beyond, 1), Fetch::OutOfRange { .. }));
    }

    fn is_lost(&self, at: u64) -> bool {
        self.lost.iter().any(|&(first, end)| first <= at && at < end)
    }

    fn expect_batch(&self, bytes: &Bytes, from: u64) -> u64 {
        let batch = self.appended.iter().find(|batch| batch.base <= from && from < batch.end);
        let batch = batch.unwrap_or_else(|| panic!("offset {from} was never appended"));
        assert_eq!(batch.bytes, *bytes, "another batch at offset {from}");
        batch.end
    }

    fn read_cold(&self, segment: Offset, bytes: u64, at: Offset, end: Offset) -> Offset {
        let file = self.files.get(&segment.0).unwrap_or_else(|| panic!("segment {segment} has no file"));
        let mut counted = 0;
        let mut next = at;
        for batch in file {
            counted += batch.len() as u64;
            assert!(counted <= bytes || end <= next, "reads beyond what counts");
            let head = BatchHead::parse(batch).expect("sound");
            if head.base_offset <= next && next < head.end_offset() && next < end {
                next = Offset(self.expect_batch(batch, next.0));
            }
        }
        assert!(at < next, "offset {at} is not in segment {segment}");
        next
    }

    fn check_times(&self) {
        let (start, end) = (self.log.log_start().0, self.log.high_watermark().0);
        let visible = || self.appended.iter().filter(|batch| start < batch.end && batch.end <= end);
        for moment in visible().flat_map(|batch| [batch.timestamp, batch.timestamp + 1]).chain([0]) {
            let expected = visible().find(|batch| moment <= batch.timestamp).map_or(end, |batch| batch.base.max(start));
            match self.log.offset_for_time(WallMillis(moment)) {
                TimeLookup::At(offset) => {
                    // A reader may be sent to damage that lies before the record: it is told of the loss.
                    let between = (offset.0..expected).all(|at| self.is_lost(at));
                    assert!(offset.0 <= expected && between, "for {moment}: {offset}, expected {expected}");
                }
                TimeLookup::Segment { segment, .. } => {
                    let known = self.log.segments().iter().find(|known| known.base == segment).expect("a segment");
                    assert!(
                        known.base.0 <= expected && expected < known.end.0,
                        "{moment}: {expected} not in {known:?}"
                    );
                }
            }
        }
    }
}

fn replay(log: &mut CommitLog, item: &Item, position: u64) {
    match item {
        Item::Batch(bytes) => {
            let head = BatchHead::parse(bytes).expect("sound");
            log.replay(&head, bytes.clone(), position).expect("fits");
        }
        Item::Settled(settled) => log.replay_settled(settled).expect("fits"),
        Item::LogStart(start) => log.replay_log_start(*start).expect("fits"),
        Item::Checkpoint(bytes) => log.restore(LogState::decode(bytes).expect("sound")),
    }
}

fn batch(producer: u64, epoch: u16, sequence: u32, records: u32, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(0), None, Some(&vec![7; size]), &[]).expect("small");
    }
    builder.finish(ProducerStamp {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
    })
}

fn batch_head(producer: u64, epoch: u16, sequence: u32, records: u32) -> BatchHead {
    BatchHead::parse(&batch(producer, epoch, sequence, records, 1)).expect("sound")
}
