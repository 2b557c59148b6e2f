//! Transactions: records of several partitions and offsets of groups that take effect together.

mod error;
mod in_flight;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corelane_client_core::{Answer, Request, RequestError, TransactionAnswer, TransactionRequest};
use corelane_model::limits::TRANSACTION_BATCHES_IN_FLIGHT;
use corelane_model::{Decision, ErrorCode, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicName};
use corelane_record::{BatchBuilder, Compression, ProducerStamp, PushError};
use corelane_wire::{EndTransaction, EndTransactionAnswer, InitialiseTransactions, OffsetCommit, StageOffsets};

use crate::client::Handle;
use crate::{GroupConsumer, Record};
pub use error::TransactionError;
use in_flight::InFlight;

/// How transactions are to be had; from [`crate::Client::transactional`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct TransactionalBuilder {
    handle: Arc<Handle>,
    id: String,
    timeout: Option<Duration>,
}

impl TransactionalBuilder {
    pub(crate) fn new(handle: Arc<Handle>, id: &str) -> Self {
        Self { handle, id: id.to_owned(), timeout: None }
    }

    /// A transaction that is not ended within this time is aborted; a minute by default, at most a quarter of an hour.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Takes the transactional id over: what was open under it is aborted, and whoever had it is shut out.
    ///
    /// # Errors
    /// The id or the time-out is out of its bounds, or there is no answer.
    pub async fn open(self) -> Result<Transactional, TransactionError> {
        let timeout_ms = self.timeout.map_or(0, |span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1));
        let Self { handle, id, .. } = self;
        let state = State::Ready;
        let mut transactional = Transactional { handle, id, timeout_ms, producer: 0, epoch: 0, home: 0, state };
        transactional.initialise().await?;
        Ok(transactional)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next transaction may begin.
    Ready,
    /// One was begun and not ended.
    Open,
    /// One is being ended, and no answer came.
    Ending(Decision),
    /// Another client has the id.
    Fenced,
}

/// A transactional id in use: one transaction after the other. Of all clients that open one id the last one has it.
///
/// Records of a transaction are read by those who ask for [`Isolation::Committed`](crate::Isolation::Committed) once it is
/// committed, and never if it is aborted.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use corelane::Record;
///
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// let mut transactional = client.transactional("settle-matches").open().await?;
/// let mut transaction = transactional.begin().await?;
/// transaction.send("wallets", Record::new("+50").key("winner")).await?;
/// transaction.send("wallets", Record::new("-50").key("loser")).await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Transactional {
    handle: Arc<Handle>,
    id: String,
    timeout_ms: u32,
    producer: u64,
    epoch: u16,
    home: u16,
    state: State,
}

impl Transactional {
    /// The transactional id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Begins a transaction. One that was dropped without an end is aborted first.
    ///
    /// # Errors
    /// [`TransactionError::Undecided`] when the last end is not answered: call [`Self::resolve`]. Another client has the id, or
    /// there is no answer. No transaction has begun then.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, TransactionError> {
        match self.state {
            State::Ready => {}
            State::Open => self.end(Decision::Abort).await?,
            State::Ending(decision) => return Err(TransactionError::Undecided { id: self.id.clone(), decision }),
            State::Fenced => return Err(TransactionError::Fenced { id: self.id.clone() }),
        }
        self.state = State::Open;
        Ok(Transaction { owner: self, lanes: BTreeMap::new(), in_flight: InFlight::default(), health: Health::Sound })
    }

    /// Asks again for an end whose answer did not come, and says how the transaction ended; `None` when there is none to
    /// ask for. The broker may have been restarted in between.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn resolve(&mut self) -> Result<Option<Decision>, TransactionError> {
        let State::Ending(decision) = self.state else { return Ok(None) };
        self.end(decision).await?;
        Ok(Some(decision))
    }

    /// After an abort or any other error of a transaction: ends what was begun and is not ended, as it was asked to end or
    /// with an abort, and lets a member read again what is not committed. So a loop over its batches does them again. Returns
    /// how the transaction ended if that was not known before.
    ///
    /// # Errors
    /// Another client has the id, or there is no answer: nothing is read again yet, and it may be called again.
    pub async fn rewind(&mut self, consumer: &mut GroupConsumer) -> Result<Option<Decision>, TransactionError> {
        let decision = match self.state {
            State::Ready => None,
            State::Open => Some(Decision::Abort),
            State::Ending(decision) => Some(decision),
            State::Fenced => return Err(TransactionError::Fenced { id: self.id.clone() }),
        };
        let ended = match decision {
            None => None,
            Some(decision) => match self.end(decision).await {
                Ok(()) => Some(decision),
                Err(TransactionError::Aborted { .. }) => Some(Decision::Abort),
                Err(error) => return Err(error),
            },
        };
        consumer.rewind_to_committed().await?;
        Ok(ended)
    }

    async fn initialise(&mut self) -> Result<(), TransactionError> {
        let body = InitialiseTransactions { id: self.id.clone(), timeout_ms: self.timeout_ms };
        let TransactionAnswer::Initialised(answer) = self.ask(TransactionRequest::Initialise(body)).await? else {
            return Err(RequestError::Malformed.into());
        };
        (self.producer, self.epoch, self.home) = (answer.producer, answer.epoch, answer.home);
        Ok(())
    }

    async fn end(&mut self, decision: Decision) -> Result<(), TransactionError> {
        self.state = State::Ending(decision);
        let ended = self.ask_end(decision).await;
        let has_ended_otherwise = matches!(
            ended,
            Err(TransactionError::Request(RequestError::Refused { code: ErrorCode::TransactionEnded, .. }))
        );
        let next = match ended {
            Err(_) if has_ended_otherwise && decision == Decision::Commit => {
                // Its time was over: the other end says where the next transaction begins.
                self.state = State::Ending(Decision::Abort);
                let next = self.ask_end(Decision::Abort).await?;
                self.go_on(next).await?;
                return Err(TransactionError::Aborted { id: self.id.clone(), because: None });
            }
            other => other?,
        };
        self.go_on(next).await
    }

    /// The broker has ended a transaction and says which is next.
    async fn go_on(&mut self, next: EndTransactionAnswer) -> Result<(), TransactionError> {
        if next.producer == 0 {
            // The producer has had all its epochs.
            self.initialise().await?;
        } else {
            (self.producer, self.epoch) = (next.producer, next.epoch);
        }
        self.state = State::Ready;
        Ok(())
    }

    async fn ask_end(&mut self, decision: Decision) -> Result<EndTransactionAnswer, TransactionError> {
        let body = EndTransaction {
            id: self.id.clone(),
            producer: self.producer,
            epoch: self.epoch,
            decision: match decision {
                Decision::Commit => 1,
                Decision::Abort => 2,
            },
        };
        match self.ask(TransactionRequest::End(body)).await? {
            TransactionAnswer::Ended(next) => Ok(next),
            _ => Err(RequestError::Malformed.into()),
        }
    }

    async fn ask(&mut self, request: TransactionRequest) -> Result<TransactionAnswer, TransactionError> {
        match crate::admin::ask(&self.handle, Request::Transaction(request)).await {
            Ok(Answer::Transaction(answer)) => Ok(answer),
            Ok(_) => Err(RequestError::Malformed.into()),
            Err(error) => Err(self.refused(error)),
        }
    }

    fn refused(&mut self, error: RequestError) -> TransactionError {
        match error {
            RequestError::Refused { code: ErrorCode::ProducerFenced | ErrorCode::UnknownTransaction, .. } => {
                self.state = State::Fenced;
                TransactionError::Fenced { id: self.id.clone() }
            }
            error => error.into(),
        }
    }
}

/// Records of a transaction that go to one topic.
#[derive(Debug)]
struct Lane {
    partitions: u32,
    /// Where records without a key and a partition go.
    sticky: u32,
    queues: BTreeMap<u32, Queue>,
}

#[derive(Debug)]
struct Queue {
    builder: BatchBuilder,
    /// Sequence of the first record in the builder.
    sequence: u32,
}

/// One transaction. Dropped without an end it is aborted when the next one begins, or by its time-out.
#[derive(Debug)]
pub struct Transaction<'a> {
    owner: &'a mut Transactional,
    lanes: BTreeMap<TopicName, Lane>,
    in_flight: InFlight,
    health: Health,
}

/// Whether a transaction can still be committed.
#[derive(Clone, Debug)]
enum Health {
    Sound,
    /// Something of it is not where it should be: it can only be aborted. The first reason, if there was an answer.
    Failed(Option<Box<TransactionError>>),
}

impl Transaction<'_> {
    /// Takes a record for a durable topic that is not compacted: into the partition that it names, by its key, or into any.
    /// Records gather until a batch is full, or until [`Self::flush`] or [`Self::commit`]; batches are on their way while
    /// others gather, and this waits only when 32 of them are.
    ///
    /// # Errors
    /// The topic or partition does not exist, the record is too large or its delivery time too far off: it was not taken, nothing else has changed.
    /// [`TransactionError::AbortOnly`] when an earlier batch was refused or not answered: the record was not taken.
    pub async fn send(&mut self, topic: &str, record: Record<'_>) -> Result<(), TransactionError> {
        self.look()?;
        let topic = TopicName::parse(topic)?;
        if !self.lanes.contains_key(&topic) {
            let info = crate::admin::find_topic(&self.owner.handle, &topic).await?;
            let lane = Lane { partitions: info.partitions(), sticky: 0, queues: BTreeMap::new() };
            self.lanes.insert(topic.clone(), lane);
        }
        let wall = self.owner.handle.shared.lock().clock.now().wall;
        record.parts().check_delivery_time(wall)?;
        let lane = self.lanes.get_mut(&topic).expect("just made");
        let partition = record.parts().partition_among(lane.partitions, lane.sticky);
        if lane.partitions <= partition.0 {
            return Err(RequestError::UnknownPartition { topic, partition, partitions: lane.partitions }.into());
        }
        let queue = lane
            .queues
            .entry(partition.0)
            .or_insert_with(|| Queue { builder: BatchBuilder::new(Compression::default()), sequence: 0 });
        match record.push_into(wall, &mut queue.builder) {
            Ok(()) => return Ok(()),
            Err(PushError::Full) => {}
            Err(error) => return Err(error.into()),
        }
        lane.sticky = (lane.sticky + 1) % lane.partitions.max(1);
        self.begin_batch(&topic, partition);
        self.settle(TRANSACTION_BATCHES_IN_FLIGHT).await?;
        let queue = self.lanes.get_mut(&topic).and_then(|lane| lane.queues.get_mut(&partition.0));
        Ok(record.push_into(wall, &mut queue.expect("it was used before").builder)?)
    }

    /// Sends what has gathered and waits until all batches are durable.
    ///
    /// # Errors
    /// [`TransactionError::AbortOnly`] when a batch was refused or not answered.
    pub async fn flush(&mut self) -> Result<(), TransactionError> {
        self.look()?;
        let partitions = |(topic, lane): (&TopicName, &Lane)| {
            let waiting = lane.queues.iter().filter(|(_, queue)| !queue.builder.is_empty());
            waiting.map(|(&partition, _)| (topic.clone(), PartitionIndex(partition))).collect::<Vec<_>>()
        };
        let waiting: Vec<_> = self.lanes.iter().flat_map(partitions).collect();
        for (topic, partition) in waiting {
            self.settle(TRANSACTION_BATCHES_IN_FLIGHT).await?;
            self.begin_batch(&topic, partition);
        }
        self.settle(1).await
    }

    /// A batch leaves as it is; its sequences are used up.
    fn begin_batch(&mut self, topic: &TopicName, partition: PartitionIndex) {
        let queue = self.lanes.get_mut(topic).and_then(|lane| lane.queues.get_mut(&partition.0));
        let queue = queue.expect("the caller has just used it");
        let stamp = ProducerStamp {
            producer_id: ProducerId(self.owner.producer),
            producer_epoch: ProducerEpoch(self.owner.epoch),
            base_sequence: Sequence(queue.sequence),
        };
        queue.sequence += u32::try_from(queue.builder.len()).expect("a batch has a limit of records");
        let batch = queue.builder.finish_transactional(stamp, self.owner.home);
        self.in_flight.begin(&self.owner.handle, Request::Append { topic: topic.clone(), partition, batch });
    }

    /// Takes what is answered already.
    fn look(&mut self) -> Result<(), TransactionError> {
        let answered = self.in_flight.look();
        self.take(answered)
    }

    /// Waits until fewer batches than `limit` are on their way.
    async fn settle(&mut self, limit: usize) -> Result<(), TransactionError> {
        let answered = self.in_flight.wait(limit).await;
        self.take(answered)
    }

    fn take(&mut self, answered: Result<(), RequestError>) -> Result<(), TransactionError> {
        if let Err(error) = answered {
            let because = self.owner.refused(error);
            if matches!(self.health, Health::Sound) {
                self.health = Health::Failed(Some(Box::new(because)));
            }
        }
        match &self.health {
            Health::Sound => Ok(()),
            Health::Failed(because) => {
                Err(TransactionError::AbortOnly { id: self.owner.id.clone(), because: because.clone() })
            }
        }
    }

    /// Stages everything that a member with [`manual_commit`](crate::GroupBuilder::manual_commit) handed out, the batch in hand
    /// included, to be committed with the transaction. Returns of how many partitions. After an abort, or an error,
    /// [`Transactional::rewind`] lets the member read again what is to be done again.
    ///
    /// # Errors
    /// The member commits by itself or is in no group, it does not have one of the partitions any more or has it anew, or the
    /// group refuses: the transaction can only be aborted.
    pub async fn commit_offsets(&mut self, consumer: &mut GroupConsumer) -> Result<u32, TransactionError> {
        self.look()?;
        // Also when this future is dropped: nobody knows then what is staged.
        self.health = Health::Failed(None);
        let group = consumer.group().as_str().to_owned();
        let Some(taken) = consumer.take_offsets() else {
            return Err(TransactionError::NotByHand { group });
        };
        let (member, generation, offsets) = taken.map_err(|error| {
            let error = TransactionError::Offsets { group: group.clone(), error };
            self.health = Health::Failed(Some(Box::new(error.clone())));
            error
        })?;
        if offsets.is_empty() {
            self.health = Health::Sound;
            return Ok(0);
        }
        let offsets = offsets.into_iter().map(|offset| OffsetCommit {
            topic: offset.partition.topic.0,
            partition: offset.partition.index.0,
            offset: offset.offset.0,
            leader_epoch: 0,
            metadata: offset.metadata,
        });
        let body = StageOffsets {
            id: self.owner.id.clone(),
            producer: self.owner.producer,
            epoch: self.owner.epoch,
            group,
            member,
            generation: generation.0,
            offsets: offsets.collect(),
        };
        match self.owner.ask(TransactionRequest::Stage(body)).await {
            Ok(TransactionAnswer::Staged(answer)) => {
                self.health = Health::Sound;
                Ok(answer.offsets)
            }
            Ok(_) => Err(RequestError::Malformed.into()),
            Err(error) => {
                self.health = Health::Failed(Some(Box::new(error.clone())));
                Err(error)
            }
        }
    }

    /// Sends what has gathered and commits: when this returns, readers of committed records see all of it.
    ///
    /// # Errors
    /// Something of it had failed, or its time was over: it is aborted, or will be. [`TransactionError::Request`] when no answer
    /// came: it may be committed; [`Transactional::resolve`] asks again.
    pub async fn commit(mut self) -> Result<(), TransactionError> {
        if let Err(TransactionError::AbortOnly { id, because }) = self.flush().await {
            self.owner.end(Decision::Abort).await?;
            return Err(TransactionError::Aborted { id, because });
        }
        self.owner.end(Decision::Commit).await
    }

    /// Aborts: no reader of committed records ever sees any of it, and staged offsets are dropped. A member whose records it
    /// was made of reads them again after [`Transactional::rewind`].
    ///
    /// # Errors
    /// Another client has the id, or no answer came; it is aborted then by its time-out.
    pub async fn abort(self) -> Result<(), TransactionError> {
        self.owner.end(Decision::Abort).await
    }
}
