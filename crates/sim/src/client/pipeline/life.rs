//! One life of a worker: what it makes of records, transaction by transaction.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use corelane_client_core::{
    ClientCore, GroupKey, GroupRequest, OperationKey, Request, SubscriptionKey, TransactionRequest,
};
use corelane_model::{
    Decision, Generation, GroupName, MonotonicNanos, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence,
};
use corelane_record::{BatchBuilder, Compression, ProducerStamp};
use corelane_wire::{EndTransaction, FetchOffsets, InitialiseTransactions, OffsetCommit, PartitionRange, StageOffsets};

use super::view::{InHand, View};
use super::{Around, PipelineTodo};
use crate::client::transaction::{Producer, Sent};
use crate::client::{Todo, Wish};
use crate::oracle::pipeline::Input;
use crate::oracle::{Claim, TransactionKey};
use crate::{Oracle, PipelinePlan, Random, RecordId, payload};

/// Records that are sent in one step, at most.
const STEP_RECORDS: u64 = 6;
/// Looks for a visitor before offsets are staged: what they are of is then asked back already, and given up while they are on
/// their way.
const VISIT_LOOKS: u32 = 12;
/// Longest time between two looks for something to do, in microseconds.
const LOOK_MICROS: u64 = 40_000;

/// What a life goes on with.
#[derive(Debug)]
pub(super) enum Next {
    Go(Vec<Wish>),
    /// It ends.
    Over,
}

/// A transaction that goes on.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) transaction: TransactionKey,
    /// What is to be made something of.
    inputs: VecDeque<Input>,
    /// In which turns they were read.
    turns: BTreeMap<PartitionId, Generation>,
    sequences: BTreeMap<PartitionId, u32>,
    /// Batches that are not answered.
    pub(super) open: BTreeMap<OperationKey, Sent>,
    pub(super) staging: Staging,
    pub(super) has_failed: bool,
}

/// How far the offsets of a transaction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staging {
    Before,
    Asked { operation: OperationKey, was_taken_over: bool },
    Done,
}

#[derive(Debug)]
pub(super) enum State {
    /// It has no producer.
    Absent,
    Initialising {
        operation: OperationKey,
        claim: Claim,
    },
    Ready(Producer),
    Writing(Producer, Writing),
    /// It does not wait for its transaction any more and has not ended it.
    Dropped(Producer, TransactionKey),
    Ending {
        producer: Producer,
        transaction: TransactionKey,
        decision: Decision,
        operation: OperationKey,
    },
    /// It asks from where to read again.
    Rewinding {
        producer: Producer,
        operation: OperationKey,
        known: Vec<(PartitionId, Option<Offset>)>,
    },
}

/// One life of a worker.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) view: View,
    pub(super) state: State,
    /// A transaction was begun since it last knew that all it had read was committed.
    pub(super) must_rewind: bool,
    seat: usize,
    number: u32,
    writer: u32,
    next_number: u32,
    /// The transactional id.
    pub(super) id: String,
    /// Raised by each step, so that a wish from before it is known as old.
    turn: u32,
    /// It does nothing before.
    stalled_until: MonotonicNanos,
    /// How often it looks for a visitor before it stages.
    visit_looks: u32,
}

impl Life {
    pub(super) fn new(group: GroupKey, seat: usize, number: u32, writer: u32, id: String) -> Self {
        Self {
            view: View::new(group),
            state: State::Absent,
            must_rewind: false,
            seat,
            number,
            writer,
            next_number: 0,
            id,
            turn: 0,
            stalled_until: MonotonicNanos(0),
            visit_looks: 0,
        }
    }

    pub(super) const fn group(&self) -> GroupKey {
        self.view.group
    }

    pub(super) const fn seat(&self) -> usize {
        self.seat
    }

    pub(super) fn reads(&self, subscription: SubscriptionKey) -> bool {
        self.view.reads(subscription)
    }

    /// It does nothing for a while: perhaps longer than its transaction may take, or than it may keep what it is asked for.
    pub(super) fn stall(&mut self, random: &mut Random, now: MonotonicNanos, plan: &PipelinePlan) {
        let patience = Duration::from_millis(plan.timeout_ms.into()).min(plan.rebalance_timeout);
        let most = u64::try_from(patience.as_micros()).expect("seconds") * 4;
        self.stalled_until = now.after(Duration::from_micros(random.skewed(1_000..most)));
    }

    /// Whether the answer to this is this life's.
    pub(super) fn waits_for(&self, operation: OperationKey) -> bool {
        match &self.state {
            State::Initialising { operation: open, .. }
            | State::Ending { operation: open, .. }
            | State::Rewinding { operation: open, .. } => *open == operation,
            State::Writing(_, writing) => writing.waits_for(operation),
            State::Absent | State::Ready(_) | State::Dropped(..) => false,
        }
    }

    /// It ends, as a process does: nobody waits for anything.
    pub(super) fn stop(&mut self, core: &mut ClientCore, oracle: &mut Oracle, group: &GroupName) {
        self.view.stop(oracle, group.as_str());
        match std::mem::replace(&mut self.state, State::Absent) {
            State::Initialising { operation, .. }
            | State::Ending { operation, .. }
            | State::Rewinding { operation, .. } => core.cancel(operation),
            State::Writing(_, writing) => writing.forget(core),
            State::Absent | State::Ready(_) | State::Dropped(..) => {}
        }
    }

    /// The next step after a while.
    fn wish(&mut self, around: &mut Around<'_>, micros_max: u64) -> Next {
        self.turn += 1;
        let delay = Duration::from_micros(around.random.skewed(1..micros_max + 2));
        Next::Go(vec![(delay, Todo::Pipeline(PipelineTodo::Step { life: self.number, turn: self.turn }))])
    }

    pub(super) fn pause(&mut self, around: &mut Around<'_>) -> Next {
        let most = u64::try_from(around.plan.pause.as_micros()).expect("a pause is short");
        self.wish(around, most)
    }

    /// The next step, if nothing came in between.
    pub(super) fn step_in_turn(&mut self, around: &mut Around<'_>, turn: u32) -> Next {
        if self.turn != turn {
            return Next::Go(Vec::new());
        }
        if around.now.monotonic < self.stalled_until && !around.is_calm {
            self.turn += 1;
            let delay = self.stalled_until.since(around.now.monotonic);
            return Next::Go(vec![(delay, Todo::Pipeline(PipelineTodo::Step { life: self.number, turn: self.turn }))]);
        }
        self.step(around)
    }

    /// Does what comes next, as long as there is something to do.
    fn step(&mut self, around: &mut Around<'_>) -> Next {
        match std::mem::replace(&mut self.state, State::Absent) {
            State::Absent => self.initialise(around),
            State::Ready(producer) if self.must_rewind => self.rewind(around, producer),
            State::Ready(producer) => self.begin(around, producer),
            State::Writing(producer, writing) => self.write(around, producer, writing),
            State::Dropped(producer, transaction) => {
                // It goes on with its events before it sees to its transaction.
                self.view.go_on(around);
                self.view.go_on(around);
                if around.random.is_one_in(3) {
                    return self.ask_end(around, (producer, transaction), Decision::Abort);
                }
                self.state = State::Dropped(producer, transaction);
                self.pause(around)
            }
            // An answer comes, or a reason why none does.
            waiting @ (State::Initialising { .. } | State::Ending { .. } | State::Rewinding { .. }) => {
                self.state = waiting;
                Next::Go(Vec::new())
            }
        }
    }

    fn initialise(&mut self, around: &mut Around<'_>) -> Next {
        let claim = around.oracle.on_initialising(&self.id);
        let body = InitialiseTransactions { id: self.id.clone(), timeout_ms: around.plan.timeout_ms };
        let request = Request::Transaction(TransactionRequest::Initialise(body));
        self.state = State::Initialising { operation: around.core.request(around.now, request), claim };
        Next::Go(Vec::new())
    }

    /// Begins a transaction, if there is something to make anything of.
    fn begin(&mut self, around: &mut Around<'_>, producer: Producer) -> Next {
        self.state = State::Ready(producer);
        if self.view.go_on(around) {
            // The application is told what is taken away, and gives it up when it goes on.
            return self.pause(around);
        }
        let batch = self.view.next_batch(around);
        let has_passed = self.view.turns.values().any(|turn| turn.uncommitted.is_some());
        if batch.is_none() && !(has_passed && (around.is_calm || around.random.is_one_in(3))) {
            return self.wish(around, LOOK_MICROS);
        }
        self.must_rewind = true;
        let mut writing = Writing {
            transaction: around.oracle.begin_transaction(),
            inputs: VecDeque::new(),
            turns: BTreeMap::new(),
            sequences: BTreeMap::new(),
            open: BTreeMap::new(),
            staging: Staging::Before,
            has_failed: false,
        };
        if let Some(batch) = batch {
            writing.take(batch);
        }
        if around.random.is_one_in(15) {
            // What it has in hand may be another's when it goes on.
            self.stall(around.random, around.now.monotonic, around.plan);
        }
        self.state = State::Writing(producer, writing);
        let Next::Go(mut wishes) = self.pause(around) else { unreachable!("it goes on") };
        if around.random.is_one_in(6) {
            self.visit_looks = VISIT_LOOKS;
            let visit = Todo::Pipeline(PipelineTodo::Visit { seat: self.seat });
            wishes.push((Duration::from_micros(around.random.skewed(1..LOOK_MICROS)), visit));
        }
        Next::Go(wishes)
    }

    /// Sends a batch more, or the offsets, or ends the transaction, or leaves it behind.
    fn write(&mut self, around: &mut Around<'_>, producer: Producer, mut writing: Writing) -> Next {
        if !around.is_calm && around.random.is_one_in(80) {
            // It dies in the middle.
            self.state = State::Writing(producer, writing);
            return Next::Over;
        }
        if around.random.is_one_in(40) {
            self.stall(around.random, around.now.monotonic, around.plan);
        }
        if writing.has_failed {
            return self.end(around, (producer, writing), Decision::Abort);
        }
        if !writing.inputs.is_empty() {
            self.send(around, &producer, &mut writing);
            self.state = State::Writing(producer, writing);
            return self.pause(around);
        }
        if writing.staging == Staging::Before && self.awaits_visitor() && !around.is_calm {
            self.state = State::Writing(producer, writing);
            return self.wish(around, LOOK_MICROS);
        }
        if writing.staging == Staging::Before && around.random.is_one_in(3) && self.gather(around, &mut writing) {
            self.state = State::Writing(producer, writing);
            return self.pause(around);
        }
        match writing.staging {
            Staging::Before => self.stage(around, producer, writing),
            Staging::Asked { .. } if !around.is_calm && around.random.is_one_in(3) => {
                let transaction = writing.transaction;
                writing.forget(around.core);
                self.state = State::Dropped(producer, transaction);
                self.pause(around)
            }
            Staging::Done if writing.open.is_empty() => {
                let is_whole = around.is_calm || !around.random.is_one_in(5);
                let decision = if is_whole { Decision::Commit } else { Decision::Abort };
                self.end(around, (producer, writing), decision)
            }
            Staging::Asked { .. } | Staging::Done => {
                self.state = State::Writing(producer, writing);
                self.wish(around, LOOK_MICROS)
            }
        }
    }

    /// Whether a visitor was asked for to whom it may have to give something up, of which nothing was heard.
    fn awaits_visitor(&mut self) -> bool {
        self.visit_looks = if self.view.is_asked() { 0 } else { self.visit_looks.saturating_sub(1) };
        0 < self.visit_looks
    }

    /// Takes more into the transaction, unless something was taken away: what is part of the transaction spoils it, and what is
    /// only asked back is given up after its end. Whether there is anything to go on with.
    fn gather(&mut self, around: &mut Around<'_>, writing: &mut Writing) -> bool {
        if self.view.look() {
            let is_held = |(partition, turn): (&PartitionId, &Generation)| {
                self.view.turns.get(partition).is_some_and(|held| held.turn == *turn)
            };
            writing.has_failed = !writing.turns.iter().all(is_held);
            return writing.has_failed;
        }
        let Some(batch) = self.view.next_batch(around) else { return false };
        writing.take(batch);
        true
    }

    /// Sends what it makes of the next inputs.
    fn send(&mut self, around: &mut Around<'_>, producer: &Producer, writing: &mut Writing) {
        let most = usize::try_from(around.random.within(1..STEP_RECORDS)).expect("few");
        let count = most.min(writing.inputs.len());
        let mut batches: BTreeMap<PartitionId, Vec<Input>> = BTreeMap::new();
        for (source, offset) in writing.inputs.drain(..count) {
            let chosen = if around.plan.is_spread { offset.0 } else { source.index.0.into() };
            let index = u32::try_from(chosen % u64::from(around.output.partitions)).expect("few");
            let target = PartitionId::new(around.output.topic, PartitionIndex(index));
            batches.entry(target).or_default().push((source, offset));
        }
        for (partition, inputs) in batches {
            let mut builder = BatchBuilder::new(Compression::None);
            let mut records = Vec::new();
            for input in inputs {
                let record = RecordId { client: self.writer, number: self.next_number };
                self.next_number += 1;
                let value = payload::encode(record, around.random.skewed(0..around.value_bytes_max));
                builder.push(around.now.wall, None, Some(&value), &[]).expect("a few small records fit");
                around.oracle.on_output_sent(writing.transaction, partition, record, input);
                records.push(record);
            }
            let sequence = writing.sequences.entry(partition).or_default();
            let stamp = ProducerStamp {
                producer_id: ProducerId(producer.id),
                producer_epoch: ProducerEpoch(producer.epoch),
                base_sequence: Sequence(*sequence),
            };
            *sequence += u32::try_from(records.len()).expect("few");
            let batch = builder.finish_transactional(stamp, producer.home);
            let topic = around.output.name.clone();
            let was_taken_over = around.oracle.is_taken_over(producer.claim);
            let request = Request::Append { topic, partition: partition.index, batch };
            let sent = Sent { partition, records, was_taken_over };
            writing.open.insert(around.core.request(around.now, request), sent);
        }
    }

    /// Stages everything that the application looked at.
    fn stage(&mut self, around: &mut Around<'_>, producer: Producer, mut writing: Writing) -> Next {
        let commits = self.view.take_uncommitted();
        let Ok((member, generation)) = around.core.fence_of_offsets(self.view.group, &commits) else {
            // A turn is over, which the application has not looked at yet.
            return self.end(around, (producer, writing), Decision::Abort);
        };
        let offsets = commits.iter().map(|commit| (commit.partition, commit.offset)).collect::<BTreeMap<_, _>>();
        around.oracle.pipeline.on_staging(writing.transaction, &offsets);
        let offset = |(partition, offset): (PartitionId, Offset)| OffsetCommit {
            topic: partition.topic.0,
            partition: partition.index.0,
            offset: offset.0,
            leader_epoch: 0,
            metadata: String::new(),
        };
        let body = StageOffsets {
            id: self.id.clone(),
            producer: producer.id,
            epoch: producer.epoch,
            group: around.group.as_str().to_owned(),
            member,
            generation: generation.0,
            offsets: offsets.into_iter().map(offset).collect(),
        };
        let was_taken_over = around.oracle.is_taken_over(producer.claim);
        let operation = around.core.request(around.now, Request::Transaction(TransactionRequest::Stage(body)));
        writing.staging = Staging::Asked { operation, was_taken_over };
        self.state = State::Writing(producer, writing);
        self.pause(around)
    }

    /// Asks for the end of a transaction.
    fn end(&mut self, around: &mut Around<'_>, (producer, writing): (Producer, Writing), decision: Decision) -> Next {
        if decision == Decision::Commit {
            around.oracle.on_committing(writing.transaction);
        }
        let transaction = writing.transaction;
        writing.forget(around.core);
        self.ask_end(around, (producer, transaction), decision)
    }

    pub(super) fn ask_end(
        &mut self,
        around: &mut Around<'_>,
        (producer, transaction): (Producer, TransactionKey),
        decision: Decision,
    ) -> Next {
        let body = EndTransaction {
            id: self.id.clone(),
            producer: producer.id,
            epoch: producer.epoch,
            decision: match decision {
                Decision::Commit => 1,
                Decision::Abort => 2,
            },
        };
        let operation = around.core.request(around.now, Request::Transaction(TransactionRequest::End(body)));
        self.state = State::Ending { producer, transaction, decision, operation };
        Next::Go(Vec::new())
    }

    /// Asks from where to read again what is not committed.
    fn rewind(&mut self, around: &mut Around<'_>, producer: Producer) -> Next {
        let read = self.view.read();
        if read.is_empty() {
            self.must_rewind = false;
            self.state = State::Ready(producer);
            return self.pause(around);
        }
        let known = read.keys().map(|&partition| (partition, around.oracle.pipeline.committed(partition))).collect();
        let partitions = PartitionRange::of(read.keys().map(|id| (id.topic.0, id.index.0)));
        let body = FetchOffsets { group: around.group.as_str().to_owned(), after: None, partitions };
        let operation = around.core.request(around.now, Request::Group(GroupRequest::FetchOffsets(body)));
        self.state = State::Rewinding { producer, operation, known };
        Next::Go(Vec::new())
    }
}

impl Writing {
    fn take(&mut self, batch: InHand) {
        self.turns.insert(batch.partition, batch.turn);
        self.inputs.extend(batch.inputs.into_iter().map(|offset| (batch.partition, offset)));
    }

    fn waits_for(&self, operation: OperationKey) -> bool {
        let is_staging = matches!(self.staging, Staging::Asked { operation: open, .. } if open == operation);
        is_staging || self.open.contains_key(&operation)
    }

    /// Nobody waits for answers any more; what is under way stays under way.
    fn forget(self, core: &mut ClientCore) {
        self.open.into_keys().for_each(|operation| core.cancel(operation));
        if let Staging::Asked { operation, .. } = self.staging {
            core.cancel(operation);
        }
    }
}
