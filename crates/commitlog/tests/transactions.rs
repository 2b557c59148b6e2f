//! Random transactions on one log, with crashes, checkpoints and recycling, against what was decided.
//!
//! Whoever decides is a map here that survives everything. A decision is told to the log again after a crash until the
//! journal has it, and a producer begins its next transaction only then.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_commitlog::{Append, AppendError, CommitLog, LogState, SegmentChoice, Settled, Shutdown, TransactionEnd};
use corelane_model::limits::{PARTITION_PRODUCERS_MAX, PARTITION_TRANSACTIONS_MAX, PRODUCER_SPARED};
use corelane_model::{
    Decision, MonotonicNanos, Now, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TopicSettings,
    Transaction, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, Stamp, stamp};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Producer 0 has no identity and no transaction.
    Append {
        producer: u64,
        records: u32,
    },
    End {
        producer: u64,
        decision: Decision,
    },
    Sync {
        behind: usize,
    },
    Settle {
        bytes_max: u32,
    },
    Checkpoint,
    Recycle,
    Truncate {
        percent: u64,
    },
    Crash {
        survive: usize,
    },
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let decision = prop_oneof![Just(Decision::Commit), Just(Decision::Abort)];
    prop_oneof![
        8 => (0..4u64, 1..4u32).prop_map(|(producer, records)| Op::Append { producer, records }),
        3 => (1..4u64, decision).prop_map(|(producer, decision)| Op::End { producer, decision }),
        4 => (0..4usize).prop_map(|behind| Op::Sync { behind }),
        2 => (1..600u32).prop_map(|bytes_max| Op::Settle { bytes_max }),
        2 => Just(Op::Checkpoint),
        2 => Just(Op::Recycle),
        1 => (0..100u64).prop_map(|percent| Op::Truncate { percent }),
        2 => (0..4usize).prop_map(|survive| Op::Crash { survive }),
    ]
}

#[derive(Clone, Debug)]
enum Item {
    Batch(Bytes),
    Settled(Settled),
    LogStart(Offset),
    End(TransactionEnd),
    Checkpoint(Vec<u8>),
}

struct World {
    log: CommitLog,
    journal: Vec<Item>,
    journal_start: usize,
    synced: usize,
    /// Heads of everything that is in the log.
    appended: Vec<BatchHead>,
    epochs: BTreeMap<u64, u16>,
    sequences: BTreeMap<u64, u32>,
    decided: BTreeMap<Transaction, Decision>,
    /// Decisions that the journal does not have durably yet.
    untold: BTreeMap<Transaction, Decision>,
}

const NOW: Now = Now { monotonic: MonotonicNanos(1), wall: WallMillis(1000) };

fn settings() -> TopicSettings {
    TopicSettings { retention_ms: None, segment_bytes: 2000, ..TopicSettings::default() }
}

fn batch(transaction: Option<Transaction>, sequence: u32, records: u32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(0), None, Some(b"value"), &[]).expect("small");
    }
    let Some(Transaction { producer, epoch }) = transaction else { return builder.finish(ProducerStamp::default()) };
    builder.finish_transactional(
        ProducerStamp { producer_id: producer, producer_epoch: epoch, base_sequence: Sequence(sequence) },
        0,
    )
}

impl World {
    fn new() -> Self {
        Self {
            log: CommitLog::new(PartitionId::default(), settings(), LogState::default()),
            journal: Vec::new(),
            journal_start: 0,
            synced: 0,
            appended: Vec::new(),
            epochs: BTreeMap::new(),
            sequences: BTreeMap::new(),
            decided: BTreeMap::new(),
            untold: BTreeMap::new(),
        }
    }

    fn current(&mut self, producer: u64) -> Transaction {
        Transaction::new(ProducerId(producer), ProducerEpoch(*self.epochs.entry(producer).or_default()))
    }

    fn end_of_journal(&self) -> usize {
        self.journal_start + self.journal.len()
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append { producer, records } => self.append(producer, records),
            Op::End { producer, decision } => self.end(producer, decision),
            Op::Sync { behind } => self.sync(behind),
            Op::Settle { bytes_max } => self.settle(bytes_max),
            Op::Checkpoint => {
                let mut bytes = Vec::new();
                self.log.state().encode(&mut bytes);
                assert_eq!(LogState::decode(&bytes).as_ref(), Ok(self.log.state()));
                self.journal.push(Item::Checkpoint(bytes));
            }
            Op::Recycle => self.recycle(),
            Op::Truncate { percent } => {
                let (start, end) = (self.log.log_start(), self.log.high_watermark());
                let before = Offset(start.0 + end.since(start) * percent / 100);
                self.log.truncate(before).expect("within the log");
                self.journal.push(Item::LogStart(before));
                self.sync(0);
            }
            Op::Crash { survive } => self.crash(survive),
        }
    }

    fn append(&mut self, producer: u64, records: u32) {
        let transaction = (producer != 0).then(|| self.current(producer));
        if transaction.is_some_and(|transaction| self.decided.contains_key(&transaction)) {
            // The decision is not everywhere yet, so that its producer has no next one. What still comes is too late.
            if transaction.is_some_and(|transaction| self.decided[&transaction] == Decision::Abort) {
                self.append_too_late(producer);
            }
            return;
        }
        let sequence = self.sequences.get(&producer).copied().unwrap_or_default();
        let mut bytes = batch(transaction, sequence, records).to_vec();
        let head = BatchHead::parse(&bytes).expect("sound");
        let Ok(Append::Accept(given)) = self.log.append(NOW, &head) else { panic!("a batch in sequence is taken") };
        self.sequences.insert(producer, sequence + records);
        stamp(&mut bytes, given);
        let head = BatchHead::parse(&bytes).expect("sound");
        let bytes = Bytes::from(bytes);
        self.log.attach(bytes.clone(), self.end_of_journal() as u64);
        self.journal.push(Item::Batch(bytes));
        self.appended.push(head);
        if let Some(open) = transaction {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(WallMillis(0), None, None, &[]).expect("small");
            let outside = builder.finish(ProducerStamp {
                producer_id: open.producer,
                producer_epoch: open.epoch,
                base_sequence: Sequence(sequence + records),
            });
            let refused = self.log.append(NOW, &BatchHead::parse(&outside).expect("sound"));
            assert_eq!(refused, Err(AppendError::OutsideTransaction { open }));
        }
    }

    fn append_too_late(&mut self, producer: u64) {
        let transaction = self.current(producer);
        let is_here = self.appended.iter().any(|head| head.transaction() == Some(transaction));
        let is_kept = self.log.state().transactions().counts().1 != 0;
        if is_here && is_kept && !self.log.is_open(transaction) {
            let sequence = self.sequences.get(&producer).copied().unwrap_or_default();
            let late = BatchHead::parse(&batch(Some(transaction), sequence, 1)).expect("sound");
            let aborted = self.appended.iter().find(|head| head.transaction() == Some(transaction));
            if aborted.is_some_and(|head| self.log.is_aborted(head)) {
                assert_eq!(self.log.append(NOW, &late), Err(AppendError::TransactionEnded { transaction }));
            }
        }
    }

    fn end(&mut self, producer: u64, decision: Decision) {
        let transaction = self.current(producer);
        if self.decided.contains_key(&transaction) {
            return;
        }
        if decision == Decision::Commit {
            // What is committed was stored.
            self.sync(0);
        }
        self.decided.insert(transaction, decision);
        self.untold.insert(transaction, decision);
        self.tell();
        if self.untold.is_empty() {
            self.next_transactions();
        }
    }

    /// Tells the log what it may not know; what it does not know at all is no matter of its.
    fn tell(&mut self) {
        for (&transaction, &decision) in &self.untold {
            if let Some(end) = self.log.end_transaction(transaction, decision) {
                assert_eq!((end.transaction, end.decision), (transaction, decision));
                assert_eq!(self.log.end_transaction(transaction, decision), None, "it ends once");
                self.journal.push(Item::End(end));
            }
        }
        self.forget_told();
    }

    /// Forgets decisions that the journal has, or that have nothing here.
    fn forget_told(&mut self) {
        let synced = &self.journal[..self.synced - self.journal_start];
        let unsynced = &self.journal[self.synced - self.journal_start..];
        let has = |items: &[Item], transaction: Transaction| {
            items.iter().any(|item| matches!(item, Item::End(end) if end.transaction == transaction))
        };
        let log = &self.log;
        self.untold.retain(|&transaction, _| {
            log.is_open(transaction) || (has(unsynced, transaction) && !has(synced, transaction))
        });
        self.next_transactions();
    }

    fn next_transactions(&mut self) {
        for producer in 1..4 {
            let transaction = self.current(producer);
            if self.decided.contains_key(&transaction) && !self.untold.contains_key(&transaction) {
                *self.epochs.entry(producer).or_default() += 1;
                self.sequences.insert(producer, 0);
            }
        }
    }

    fn sync(&mut self, behind: usize) {
        self.synced = self.synced.max(self.end_of_journal().saturating_sub(behind));
        let on_disk = &self.journal[..self.synced - self.journal_start];
        let end = on_disk.iter().rev().find_map(|item| match item {
            Item::Batch(bytes) => Some(BatchHead::parse(bytes).expect("sound").end_offset()),
            _ => None,
        });
        if let Some(end) = end {
            self.log.on_durable(end);
        }
        self.forget_told();
    }

    fn settle(&mut self, bytes_max: u32) {
        let Some(plan) = self.log.settle_plan(bytes_max) else { return };
        let before = match plan.segment {
            SegmentChoice::Append { bytes, .. } => bytes,
            SegmentChoice::Roll { .. } => 0,
        };
        let settled = plan.settled(before + plan.bytes);
        self.log.note_settled(&settled);
        self.journal.push(Item::Settled(settled));
        self.sync(0);
        self.log.on_settled();
    }

    fn recycle(&mut self) {
        let oldest = self.log.oldest_unsettled().map_or(usize::MAX, |at| usize::try_from(at).expect("small"));
        let is_base = |at: &usize| matches!(self.journal[at - self.journal_start], Item::Checkpoint(_));
        let Some(keep) = (self.journal_start..self.synced).filter(is_base).rfind(|&at| at <= oldest) else { return };
        self.journal.drain(..keep - self.journal_start);
        self.journal_start = keep;
    }

    fn crash(&mut self, survive: usize) {
        let kept = (self.synced + survive).min(self.end_of_journal());
        self.journal.truncate(kept - self.journal_start);
        let mut log = CommitLog::new(PartitionId::default(), settings(), LogState::default());
        for (position, item) in (self.journal_start..).zip(&self.journal) {
            match item {
                Item::Batch(bytes) => {
                    let head = BatchHead::parse(bytes).expect("sound");
                    log.replay(&head, bytes.clone(), position as u64).expect("fits");
                }
                Item::Settled(settled) => log.replay_settled(settled).expect("fits"),
                Item::LogStart(start) => log.replay_log_start(*start).expect("fits"),
                Item::End(end) => log.replay_transaction_end(end).expect("fits"),
                Item::Checkpoint(bytes) => log.restore(LogState::decode(bytes).expect("sound")),
            }
        }
        assert_eq!(log.finish_recovery(NOW, Shutdown::Unclean).0, [], "nothing is lost");
        self.log = log;
        self.synced = self.end_of_journal();
        let end = self.log.log_end();
        self.appended.retain(|head| head.end_offset() <= end);
        for producer in 1..4 {
            let transaction = self.current(producer);
            let mut of_it = self.appended.iter().filter(|head| head.transaction() == Some(transaction));
            let next = of_it.next_back().map_or(0, |head| head.base_sequence.0 + head.record_count);
            self.sequences.insert(producer, next);
        }
        self.tell();
    }

    fn check(&self) {
        let log = &self.log;
        let (start, end) = (log.log_start(), log.high_watermark());
        let live = || self.appended.iter().filter(|head| start < head.end_offset());
        let undecided = |head: &&BatchHead| head.transaction().is_some_and(|open| !self.decided.contains_key(&open));
        // A transaction whose first records were given up is held up by where the log starts.
        let first = self.appended.iter().find(undecided).map(|head| head.base_offset.max(start));
        let stable = first.map_or(end, |first| first.min(end));
        assert_eq!(log.last_stable_offset(), stable);
        for head in live() {
            let decision = head.transaction().and_then(|transaction| self.decided.get(&transaction));
            assert_eq!(log.is_aborted(head), decision == Some(&Decision::Abort), "{head:?}");
        }
        let open = log.state().transactions().open().count();
        assert_eq!(open, self.open_in_model(), "each is open until it is decided");
    }

    fn open_in_model(&self) -> usize {
        let mut open: Vec<_> = self.appended.iter().filter_map(BatchHead::transaction).collect();
        open.sort_unstable();
        open.dedup();
        open.iter().filter(|transaction| !self.decided.contains_key(transaction)).count()
    }
}

/// One history, checked after each step.
pub(crate) fn run(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.apply(op);
        world.check();
    }
    world.crash(0);
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_see_whole_transactions_or_nothing_of_them(ops in vec(op(), 1..150)) {
        run(&ops);
    }
}

fn head_of(producer: u64, epoch: u16, sequence: u32) -> (BatchHead, Bytes) {
    let transaction = Transaction::new(ProducerId(producer), ProducerEpoch(epoch));
    let bytes = batch(Some(transaction), sequence, 1);
    (BatchHead::parse(&bytes).expect("sound"), bytes)
}

#[test]
fn the_first_batch_of_an_open_transaction_is_not_taken_twice_when_its_producer_is_forgotten() {
    let mut log = CommitLog::new(PartitionId::default(), settings(), LogState::default());
    let (head, _) = head_of(7, 3, 0);
    log.append(NOW, &head).expect("it is the first");
    // More producers than are remembered push it out.
    for producer in 0..u64::try_from(PARTITION_PRODUCERS_MAX).expect("few") {
        log.append(NOW, &head_of(100 + producer, 0, 0).0).expect("it is the first");
    }
    let again = log.append(NOW, &head).expect_err("it was appended");
    assert!(matches!(again, AppendError::UnknownProducer { .. }), "{again}");
    // Of the next one nothing is here.
    let over = Transaction::new(ProducerId(7), ProducerEpoch(3));
    log.end_transaction(over, Decision::Abort).expect("it is open");
    log.append(NOW, &head_of(7, 4, 0).0).expect("it is the first of the next");
}

fn plain_of(producer: u64) -> BatchHead {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(WallMillis(0), None, Some(b"value"), &[]).expect("small");
    let stamp = ProducerStamp { producer_id: ProducerId(producer), ..ProducerStamp::default() };
    BatchHead::parse(&builder.finish(stamp)).expect("sound")
}

#[test]
fn a_transaction_goes_on_in_a_partition_with_too_many_producers() {
    let mut log = CommitLog::new(PartitionId::default(), settings(), LogState::default());
    let (first, _) = head_of(7, 3, 0);
    log.append(NOW, &first).expect("it is the first");
    let later = Now { monotonic: NOW.monotonic.after(PRODUCER_SPARED), ..NOW };
    for producer in 0..2 * u64::try_from(PARTITION_PRODUCERS_MAX).expect("few") {
        log.append(later, &plain_of(100 + producer)).expect("it is the first");
    }
    log.forget_producers(later, 0);
    assert!(matches!(log.append(later, &first), Ok(Append::Duplicate { .. })), "it was appended");
    log.append(later, &head_of(7, 3, 1).0).expect("it comes next");
    // A checkpoint without room leaves it out: then its transaction can only be aborted.
    let mut checkpoint = log.state().clone();
    checkpoint.keep_producers(0);
    let mut restored = CommitLog::new(PartitionId::default(), settings(), checkpoint);
    for sequence in 0..3 {
        let refused = restored.append(later, &head_of(7, 3, sequence).0).expect_err("nobody knows what was appended");
        assert!(matches!(refused, AppendError::UnknownProducer { .. }), "{refused}");
    }
}

#[test]
fn the_first_batch_of_a_producer_that_a_crowded_checkpoint_forgot_is_not_taken_twice() {
    let mut log = CommitLog::new(PartitionId::default(), settings(), LogState::default());
    let plain = |epoch: u16| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(WallMillis(0), None, Some(b"value"), &[]).expect("small");
        let producer_epoch = ProducerEpoch(epoch);
        let stamp = ProducerStamp { producer_id: ProducerId(9), producer_epoch, ..ProducerStamp::default() };
        BatchHead::parse(&builder.finish(stamp)).expect("sound")
    };
    log.append(NOW, &plain(0)).expect("it is the first");
    log.forget_producers(Now { monotonic: NOW.monotonic.after(PRODUCER_SPARED), ..NOW }, 0);
    let again = log.append(NOW, &plain(0)).expect_err("it was appended");
    assert!(matches!(again, AppendError::UnknownProducer { .. }), "{again}");
    log.append(NOW, &plain(1)).expect("the producer begins a new epoch");
}

#[test]
fn what_a_crash_made_of_a_full_partition_is_put_together_again() {
    let mut log = CommitLog::new(PartitionId::default(), settings(), LogState::default());
    let replay = |log: &mut CommitLog, epoch: u16| {
        let (head, bytes) = head_of(7, epoch, 0);
        let mut bytes = bytes.to_vec();
        let base_offset = log.log_end();
        let given =
            Stamp { base_offset, append_timestamp: WallMillis(1), leader_epoch: corelane_model::LeaderEpoch(0) };
        stamp(&mut bytes, given);
        let head = BatchHead { base_offset, ..head };
        log.replay(&head, bytes.into(), base_offset.0).expect("it fits");
        Transaction::new(ProducerId(7), ProducerEpoch(epoch))
    };
    let full = u16::try_from(PARTITION_TRANSACTIONS_MAX).expect("few");
    for epoch in 0..full {
        let first = log.log_end();
        let transaction = replay(&mut log, epoch);
        let end = TransactionEnd { transaction, decision: Decision::Abort, first, end: log.log_end() };
        log.replay_transaction_end(&end).expect("it fits");
    }
    // The note that made room for one more is gone with a crash, the batch is not.
    let open = replay(&mut log, full);
    assert!(log.is_open(open), "readers would be shown what is not decided");
    let (corrupt, _) = log.finish_recovery(NOW, Shutdown::Unclean);
    assert_eq!(corrupt, []);
    assert_eq!(log.last_stable_offset(), Offset(full.into()));
    let mut bytes = Vec::new();
    log.state().encode(&mut bytes);
    assert_eq!(&LogState::decode(&bytes).expect("it was just written"), log.state());
    let more = log.append(NOW, &head_of(8, 0, 0).0).expect_err("no new one is taken");
    assert!(matches!(more, AppendError::TooManyTransactions { .. }), "{more}");
}
