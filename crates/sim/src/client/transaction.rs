//! A client with a transactional id: one transaction after the other over partitions of both shards, committed, aborted or
//! left behind, and taken over by whoever has the same id.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{
    Answer, ClientCore, OperationKey, Request, RequestError, TopicInfo, TransactionAnswer, TransactionRequest,
};
use corelane_model::{
    Decision, ErrorCode, Now, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicName,
};
use corelane_record::{BatchBuilder, Compression, ProducerStamp};
use corelane_wire::{EndTransaction, EndTransactionAnswer, InitialiseTransactions};

use super::{Client, Todo, Wish};
use crate::oracle::{Claim, TransactionKey};
use crate::{Oracle, Random, RecordId, TransactionPlan, Violation, payload};

/// Records of a transaction's batch, at most.
const BATCH_RECORDS: u64 = 4;

/// A partition that transactions write to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    topic: TopicName,
    partition: PartitionId,
}

/// Who the client is to the coordinator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Producer {
    pub(super) id: u64,
    pub(super) epoch: u16,
    pub(super) home: u16,
    pub(super) claim: Claim,
}

/// A transaction that goes on.
#[derive(Debug)]
struct Writing {
    transaction: TransactionKey,
    /// Batches that are to be sent.
    left: u64,
    sequences: BTreeMap<PartitionId, u32>,
    /// Batches that are not answered: one at a time for each partition, so that they stay in order.
    open: BTreeMap<OperationKey, Sent>,
    has_failed: bool,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) partition: PartitionId,
    pub(super) records: Vec<RecordId>,
    /// When it left, somebody else had the id already.
    pub(super) was_taken_over: bool,
}

#[derive(Debug)]
enum State {
    /// It has no producer.
    Absent,
    Initialising {
        operation: OperationKey,
        claim: Claim,
    },
    Ready(Producer),
    Writing(Producer, Writing),
    Ending {
        producer: Producer,
        transaction: TransactionKey,
        decision: Decision,
        operation: OperationKey,
    },
}

/// What a client with a transactional id is at. Has chance of its own.
#[derive(Debug)]
pub(super) struct Transactor {
    client: u32,
    plan: TransactionPlan,
    random: Random,
    id: String,
    value_bytes_max: u64,
    next_number: u32,
    /// Transactions that it will still begin.
    left: u64,
    is_calm: bool,
    /// Raised by each step, so that a wish from before it is known as old.
    turn: u32,
    state: State,
}

impl Transactor {
    pub(super) fn new(client: u32, plan: TransactionPlan, seed: u64, value_bytes_max: u64) -> Self {
        Self {
            client,
            plan,
            random: Random::new(seed ^ 0x7a),
            id: format!("transactions-{}", plan.id),
            value_bytes_max,
            next_number: 0,
            left: plan.transactions,
            is_calm: false,
            turn: 0,
            state: State::Absent,
        }
    }

    pub(super) const fn has_begun_all(&self) -> bool {
        self.left == 0
    }

    /// No more transactions begin, and what goes on is ended.
    pub(super) const fn stop(&mut self) {
        self.left = 0;
        self.is_calm = true;
    }

    /// What has not ended, if anything.
    pub(super) fn restless(&self) -> Option<String> {
        match &self.state {
            State::Absent | State::Ready(_) if self.left == 0 => None,
            state => Some(format!("client {} is at {state:?} with {}", self.client, self.id)),
        }
    }

    /// The next step after a while.
    fn wish(&mut self, micros_max: u64) -> Vec<Wish> {
        self.turn += 1;
        vec![(Duration::from_micros(self.random.skewed(1..micros_max + 2)), Todo::Transact { turn: self.turn })]
    }

    fn pause(&mut self) -> Vec<Wish> {
        self.wish(u64::try_from(self.plan.pause.as_micros()).expect("a pause is short"))
    }

    /// Forgets everything, as a process does that ends, and comes back after a while: perhaps after its time-out.
    fn vanish(&mut self, core: &mut ClientCore) -> Vec<Wish> {
        match std::mem::replace(&mut self.state, State::Absent) {
            State::Writing(_, writing) => writing.open.into_keys().for_each(|operation| core.cancel(operation)),
            State::Initialising { operation, .. } | State::Ending { operation, .. } => core.cancel(operation),
            State::Absent | State::Ready(_) => {}
        }
        let timeout = u64::from(self.plan.timeout_ms) * 1_000;
        let most = if self.random.is_one_in(2) { timeout * 3 } else { 100_000 };
        self.wish(most)
    }

    /// Does what comes next, as long as there is something to do.
    fn step(&mut self, now: Now, core: &mut ClientCore, targets: &[Target], oracle: &mut Oracle) -> Vec<Wish> {
        match std::mem::replace(&mut self.state, State::Absent) {
            State::Absent if self.left == 0 => Vec::new(),
            State::Absent => {
                let claim = oracle.on_initialising(&self.id);
                let body = InitialiseTransactions { id: self.id.clone(), timeout_ms: self.plan.timeout_ms };
                let request = Request::Transaction(TransactionRequest::Initialise(body));
                self.state = State::Initialising { operation: core.request(now, request), claim };
                self.turn += 1;
                if self.is_calm || !self.random.is_one_in(10) { Vec::new() } else { self.wish(20_000) }
            }
            State::Ready(producer) if self.left == 0 => {
                self.state = State::Ready(producer);
                Vec::new()
            }
            State::Ready(producer) => {
                self.left -= 1;
                let writing = Writing {
                    transaction: oracle.begin_transaction(),
                    left: self.random.skewed(0..12),
                    sequences: BTreeMap::new(),
                    open: BTreeMap::new(),
                    has_failed: false,
                };
                self.state = State::Writing(producer, writing);
                self.pause()
            }
            State::Writing(producer, writing) => self.write(now, core, targets, oracle, (producer, writing)),
            // Nobody waited for the answer.
            waiting @ (State::Initialising { .. } | State::Ending { .. }) => {
                self.state = waiting;
                self.vanish(core)
            }
        }
    }

    /// Sends a batch more, or ends the transaction, or leaves it behind.
    fn write(
        &mut self,
        now: Now,
        core: &mut ClientCore,
        targets: &[Target],
        oracle: &mut Oracle,
        (producer, mut writing): (Producer, Writing),
    ) -> Vec<Wish> {
        let is_gone = !self.is_calm && self.random.is_one_in(40);
        let is_impatient = !self.is_calm && self.random.is_one_in(30);
        if is_gone {
            self.state = State::Writing(producer, writing);
            return self.vanish(core);
        }
        if is_impatient || (writing.left == 0 && writing.open.is_empty()) || (writing.has_failed && writing.left == 0) {
            let is_whole = writing.left == 0 && writing.open.is_empty() && !writing.has_failed;
            let decision = if is_whole && !self.random.is_one_in(4) { Decision::Commit } else { Decision::Abort };
            // What is under way stays under way: nobody waits for it any more.
            writing.open.into_keys().for_each(|operation| core.cancel(operation));
            return self.end(now, core, oracle, (producer, writing.transaction), decision);
        }
        let free = targets.iter().filter(|target| writing.open.values().all(|sent| sent.partition != target.partition));
        let free = free.collect::<Vec<_>>();
        if 0 < writing.left && !free.is_empty() {
            let target = (*self.random.pick(&free)).clone();
            writing.left -= 1;
            let (batch, records) = self.make_batch(now, oracle, &producer, &mut writing, target.partition);
            let was_taken_over = oracle.is_taken_over(producer.claim);
            let request = Request::Append { topic: target.topic, partition: target.partition.index, batch };
            let sent = Sent { partition: target.partition, records, was_taken_over };
            writing.open.insert(core.request(now, request), sent);
            self.state = State::Writing(producer, writing);
            return self.pause();
        }
        self.state = State::Writing(producer, writing);
        self.wish(40_000)
    }

    fn make_batch(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        producer: &Producer,
        writing: &mut Writing,
        partition: PartitionId,
    ) -> (Bytes, Vec<RecordId>) {
        let mut builder = BatchBuilder::new(Compression::None);
        let mut records = Vec::new();
        for _ in 0..self.random.within(1..BATCH_RECORDS + 1) {
            let record = RecordId { client: self.client, number: self.next_number };
            self.next_number += 1;
            let value = payload::encode(record, self.random.skewed(0..self.value_bytes_max));
            builder.push(now.wall, None, Some(&value), &[]).expect("a few small records fit");
            oracle.on_sent_within(writing.transaction, partition, record);
            records.push(record);
        }
        let sequence = writing.sequences.entry(partition).or_default();
        let stamp = ProducerStamp {
            producer_id: ProducerId(producer.id),
            producer_epoch: ProducerEpoch(producer.epoch),
            base_sequence: Sequence(*sequence),
        };
        *sequence += u32::try_from(records.len()).expect("few");
        (builder.finish_transactional(stamp, producer.home), records)
    }

    /// Asks for the end of a transaction.
    fn end(
        &mut self,
        now: Now,
        core: &mut ClientCore,
        oracle: &mut Oracle,
        (producer, transaction): (Producer, TransactionKey),
        decision: Decision,
    ) -> Vec<Wish> {
        if decision == Decision::Commit {
            oracle.on_committing(transaction);
        }
        self.ask_end(now, core, (producer, transaction), decision)
    }

    fn ask_end(
        &mut self,
        now: Now,
        core: &mut ClientCore,
        (producer, transaction): (Producer, TransactionKey),
        decision: Decision,
    ) -> Vec<Wish> {
        let body = EndTransaction {
            id: self.id.clone(),
            producer: producer.id,
            epoch: producer.epoch,
            decision: match decision {
                Decision::Commit => 1,
                Decision::Abort => 2,
            },
        };
        let operation = core.request(now, Request::Transaction(TransactionRequest::End(body)));
        self.state = State::Ending { producer, transaction, decision, operation };
        self.turn += 1;
        if self.is_calm || !self.random.is_one_in(8) { Vec::new() } else { self.wish(20_000) }
    }

    /// Whether the answer to this is this machine's.
    pub(super) fn waits_for(&self, operation: OperationKey) -> bool {
        match &self.state {
            State::Initialising { operation: open, .. } | State::Ending { operation: open, .. } => *open == operation,
            State::Writing(_, writing) => writing.open.contains_key(&operation),
            State::Absent | State::Ready(_) => false,
        }
    }

    /// Something was answered, or came to nothing.
    fn on_done(
        &mut self,
        now: Now,
        core: &mut ClientCore,
        oracle: &mut Oracle,
        operation: OperationKey,
        result: Result<Answer, RequestError>,
    ) -> Result<Vec<Wish>, Violation> {
        match std::mem::replace(&mut self.state, State::Absent) {
            State::Initialising { claim, .. } => {
                if let Ok(Answer::Transaction(TransactionAnswer::Initialised(answer))) = result {
                    oracle.on_initialised(claim);
                    let (id, epoch, home) = (answer.producer, answer.epoch, answer.home);
                    self.state = State::Ready(Producer { id, epoch, home, claim });
                }
                Ok(self.pause())
            }
            State::Writing(producer, mut writing) => {
                let sent = writing.open.remove(&operation).expect("it was waited for");
                match result {
                    Ok(Answer::Appended { base_offset }) => {
                        if sent.was_taken_over {
                            return Err(Oracle::not_fenced(sent.partition, writing.transaction));
                        }
                        for (index, record) in (0..).zip(sent.records) {
                            oracle.on_stored(sent.partition, base_offset.advance(index), record)?;
                        }
                    }
                    _ => writing.has_failed = true,
                }
                self.state = State::Writing(producer, writing);
                Ok(Vec::new())
            }
            State::Ending { producer, transaction, decision, .. } => {
                self.on_ended(now, core, oracle, (producer, transaction), decision, &result)
            }
            State::Absent | State::Ready(_) => unreachable!("nothing is waited for"),
        }
    }

    /// The answer to the end of a transaction.
    fn on_ended(
        &mut self,
        now: Now,
        core: &mut ClientCore,
        oracle: &mut Oracle,
        (producer, transaction): (Producer, TransactionKey),
        decision: Decision,
        result: &Result<Answer, RequestError>,
    ) -> Result<Vec<Wish>, Violation> {
        match result {
            &Ok(Answer::Transaction(TransactionAnswer::Ended(EndTransactionAnswer { producer: id, epoch }))) => {
                oracle.on_decided(transaction, decision)?;
                if id != 0 {
                    self.state = State::Ready(Producer { id, epoch, ..producer });
                }
                Ok(self.pause())
            }
            Err(RequestError::Refused { code: ErrorCode::TransactionEnded, .. }) => match decision {
                // Its time was over: the other end says where the next transaction begins.
                Decision::Commit => {
                    oracle.on_decided(transaction, Decision::Abort)?;
                    Ok(self.ask_end(now, core, (producer, transaction), Decision::Abort))
                }
                Decision::Abort => {
                    oracle.on_decided(transaction, Decision::Commit)?;
                    Ok(self.pause())
                }
            },
            Err(RequestError::Refused { code: ErrorCode::ProducerFenced | ErrorCode::UnknownTransaction, .. }) => {
                Ok(self.pause())
            }
            // Nobody knows; asked again, the coordinator does.
            _ if self.is_calm || !self.random.is_one_in(3) => {
                Ok(self.ask_end(now, core, (producer, transaction), decision))
            }
            _ => Ok(self.pause()),
        }
    }
}

impl Client {
    /// The next step of the client's transactions.
    pub(super) fn transact(&mut self, now: Now, oracle: &mut Oracle, turn: u32) -> Vec<Wish> {
        let targets = self.targets();
        match &mut self.transactor {
            Some(transactor) if transactor.turn == turn => transactor.step(now, &mut self.core, &targets, oracle),
            _ => Vec::new(),
        }
    }

    /// Whether an answer belongs to the client's transactions.
    pub(crate) fn is_of_transaction(&self, operation: OperationKey) -> bool {
        self.transactor.as_ref().is_some_and(|transactor| transactor.waits_for(operation))
    }

    /// An answer about the client's transactions, or a reason why none comes.
    pub(crate) fn on_transaction_done(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        operation: OperationKey,
        result: Result<Answer, RequestError>,
    ) -> Result<Vec<Wish>, Violation> {
        let transactor = self.transactor.as_mut().expect("it waits for the answer");
        transactor.on_done(now, &mut self.core, oracle, operation, result)
    }

    /// Every partition that takes batches of transactions.
    fn targets(&self) -> Vec<Target> {
        let of_topic = |(name, info): (&TopicName, &TopicInfo)| {
            let (topic, id) = (name.clone(), info.topic);
            (0..info.partitions())
                .map(move |index| Target {
                    topic: topic.clone(),
                    partition: PartitionId::new(id, PartitionIndex(index)),
                })
                .collect::<Vec<_>>()
        };
        let topics = self.topics.iter().filter(|(_, plan, _)| plan.takes_transactions());
        topics.filter_map(|(name, _, info)| Some((name, info.as_ref()?))).flat_map(of_topic).collect()
    }
}
