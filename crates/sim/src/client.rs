//! One client of the workload: the SDK's decisions, driven by an application that sends, reads and remembers.

mod delayed;
mod group;
mod keyed;
mod manage;
mod operator;
mod pipeline;
mod repeats;
mod shared_queue;
mod transaction;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{
    BatchKey, ClientCore, ClientSettings, Delivery, NewRecord, OperationKey, Placement, ProducerKey, ProducerSettings,
    Request, SendError, SubscribeSettings, SubscriptionError, SubscriptionKey, TopicInfo,
};
use corelane_model::{
    ErrorCode, Incarnation, Isolation, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, SessionId, StartAt,
    TopicClass, TopicName,
};
use corelane_record::{RecordBatch, split_batch};

use self::delayed::Delayed;
pub(crate) use self::group::GroupTodo;
use self::group::GroupWorker;
use self::keyed::Keyed;
use self::manage::Asked;
use self::operator::Operator;
pub(crate) use self::pipeline::PipelineTodo;
use self::pipeline::PipelineWorker;
use self::repeats::Repeats;
pub(crate) use self::shared_queue::QueueTodo;
use self::shared_queue::QueueWorker;
use self::transaction::Transactor;
use crate::payload;
use crate::{ClientPlan, Oracle, Random, RecordId, Scenario, TopicPlan, Violation};

/// Something that the application wants to do at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Todo {
    /// Find out which topics there are; the first client creates those that are missing.
    Begin,
    /// Open a producer for this topic.
    Open { topic: usize },
    /// Do what an operator might do.
    Manage,
    /// Send the next record.
    Send,
    /// Do what comes next in the client's transactions, unless something else came in between.
    Transact { turn: u32 },
    /// Subscribe to this partition from where the reader is.
    Read { partition: PartitionId },
    /// Begin this partition's reader anew, if it reads the newest of each key.
    Renew { partition: PartitionId },
    /// Say that bytes were consumed.
    Consumed { subscription: SubscriptionKey, bytes: u64 },
    /// Do something with memberships of a consumer group.
    Group(GroupTodo),
    /// Do something with memberships of a shared queue.
    Queue(QueueTodo),
    /// Do something with workers of a pipeline.
    Pipeline(PipelineTodo),
    /// Go on with what an operator of groups and queues does.
    Operate,
}

/// What the application wants done next, and when.
pub(crate) type Wish = (Duration, Todo);

/// Where one partition's reader is.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The next offset that is expected.
    next: Offset,
    /// The furthest high watermark that the broker told.
    target: Offset,
    is_subscribed: bool,
    pub(crate) shown: BTreeMap<Offset, RecordId>,
    /// What it was told is damaged.
    pub(crate) damaged: Vec<Range<Offset>>,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) core: ClientCore,
    /// The deadline that is in the queue.
    pub(crate) deadline: Option<MonotonicNanos>,
    number: u32,
    plan: ClientPlan,
    topics: Vec<(TopicName, TopicPlan, Option<TopicInfo>)>,
    random: Random,
    value_bytes_max: u64,
    batch_bytes_max: u32,
    next_number: u32,
    is_auditor: bool,
    left: u64,
    operations: BTreeMap<OperationKey, Asked>,
    /// Time between two requests of an operator, about; zero for none.
    churn: Duration,
    producers: BTreeMap<ProducerKey, (usize, bool)>,
    /// Records without a last word.
    pending: BTreeMap<BatchKey, Vec<(PartitionId, RecordId)>>,
    repeats: Repeats,
    keyed: Keyed,
    /// The wall clock jumps in this run.
    is_jumping: bool,
    transactor: Option<Transactor>,
    subscriptions: BTreeMap<SubscriptionKey, PartitionId>,
    readings: BTreeMap<PartitionId, Reading>,
    /// Memberships of a consumer group, if it has any.
    group: Option<GroupWorker>,
    /// Memberships of a shared queue, if it has any.
    shared_queue: Option<QueueWorker>,
    delayed: Delayed,
    /// Workers of a pipeline, if it has any.
    pipeline: Option<PipelineWorker>,
    /// What it does to groups and queues of others, if it is their operator.
    operator: Option<Operator>,
}

impl Client {
    /// The clients that the scenario names.
    pub(crate) fn from_scenario(scenario: &Scenario, random: &mut Random) -> Vec<Self> {
        let plans = scenario.clients.iter().enumerate();
        let mut clients = plans
            .map(|(number, plan)| Self::new(u32::try_from(number).expect("few"), *plan, random.bits(), scenario, false))
            .collect::<Vec<_>>();
        clients.extend(Self::members_of_groups(clients.len(), scenario));
        clients.extend(Self::members_of_queues(clients.len(), scenario));
        clients.extend(Self::workers_of_pipelines(clients.len(), scenario));
        clients.extend(Self::operator_of(clients.len(), scenario));
        clients
    }

    /// A client that only reads everything from the start.
    pub(crate) fn auditor(number: u32, seed: u64, scenario: &Scenario, isolation: Isolation) -> Self {
        let plan = ClientPlan { is_consumer: true, isolation, ..ClientPlan::idle() };
        Self::new(number, plan, seed, scenario, true)
    }

    fn new(number: u32, plan: ClientPlan, seed: u64, scenario: &Scenario, is_auditor: bool) -> Self {
        let mut settings = ClientSettings::new(SessionId(u128::from(number) + 1), seed);
        settings.name = format!("client-{number}");
        // With few streams of their own, partitions share streams and leave in bundles; which it is follows from the seed.
        settings.own_streams = u32::try_from(seed % 4).expect("below 4");
        let name = |topic| TopicName::parse(&format!("topic-{topic}")).expect("a name");
        let topics = scenario.topics.iter().enumerate().map(|(topic, plan)| (name(topic), *plan, None)).collect();
        Self {
            core: ClientCore::new(settings),
            deadline: None,
            number,
            plan,
            topics,
            random: Random::new(seed),
            value_bytes_max: scenario.value_bytes_max,
            batch_bytes_max: scenario.batch_bytes_max,
            next_number: 0,
            is_auditor,
            left: plan.records,
            operations: BTreeMap::new(),
            churn: scenario.churn_every,
            producers: BTreeMap::new(),
            pending: BTreeMap::new(),
            repeats: Repeats::new(seed),
            keyed: Keyed::new(seed, scenario.is_renewing && !is_auditor),
            is_jumping: scenario.is_jumping,
            transactor: plan.transactions.map(|plan| Transactor::new(number, plan, seed, scenario.value_bytes_max / 4)),
            subscriptions: BTreeMap::new(),
            readings: BTreeMap::new(),
            group: None,
            shared_queue: None,
            delayed: Delayed::new(seed, scenario),
            pipeline: None,
            operator: None,
        }
    }

    pub(crate) fn has_sent_all(&self) -> bool {
        let is_through = self.group.as_ref().is_none_or(GroupWorker::is_through)
            && self.shared_queue.as_ref().is_none_or(QueueWorker::is_through)
            && self.pipeline.as_ref().is_none_or(PipelineWorker::is_through)
            && self.operator.as_ref().is_none_or(Operator::is_through);
        self.left == 0 && is_through && self.transactor.as_ref().is_none_or(Transactor::has_begun_all)
    }

    pub(crate) fn stop_sending(&mut self) {
        self.left = 0;
        self.keyed.stop();
        if let Some(transactor) = &mut self.transactor {
            transactor.stop();
        }
        if let Some(worker) = &mut self.group {
            worker.calm_down();
        }
        if let Some(worker) = &mut self.shared_queue {
            worker.calm_down();
        }
        if let Some(worker) = &mut self.pipeline {
            worker.calm_down();
        }
        if let Some(operator) = &mut self.operator {
            operator.calm_down();
        }
    }

    /// Which records it is to see, if it is there to see everything.
    pub(crate) const fn audits(&self) -> Option<Isolation> {
        if self.is_auditor { Some(self.plan.isolation) } else { None }
    }

    /// What was read of each partition whose records must all be there.
    pub(crate) fn readings(&self) -> impl Iterator<Item = (&PartitionId, &Reading)> {
        let durable = self.topics.iter().filter(|(_, plan, _)| plan.class == TopicClass::Durable);
        let ids = durable.filter_map(|(_, _, info)| info.as_ref()).map(|info| info.topic).collect::<Vec<_>>();
        self.readings.iter().filter(move |(partition, _)| ids.contains(&partition.topic))
    }

    /// What of this client has not ended, if anything.
    pub(crate) fn restless(&self, now: Now, oracle: &Oracle) -> Option<String> {
        let number = self.number;
        if let Some((name, ..)) = self.topics.iter().find(|(_, _, info)| info.is_none()) {
            return Some(format!("client {number} does not know {name}"));
        }
        if let Some((batch, records)) = self.pending.first_key_value() {
            let (partition, record) = records[0];
            return Some(format!("client {number}: no last word on batch {} ({partition} record {record})", batch.0));
        }
        if let Some(what) = self.transactor.as_ref().and_then(Transactor::restless) {
            return Some(what);
        }
        if let Some(what) = self.operator.as_ref().and_then(Operator::restless) {
            return Some(format!("client {number} {what}"));
        }
        if !self.plan.is_consumer {
            return None;
        }
        for (_, plan, info) in &self.topics {
            let info = info.as_ref().expect("looked at above");
            for index in 0..info.partitions() {
                let partition = PartitionId::new(info.topic, PartitionIndex(index));
                let Some(reading) = self.readings.get(&partition).filter(|reading| reading.is_subscribed) else {
                    return Some(format!("client {number} is not subscribed to {partition}"));
                };
                let is_durable = plan.class == TopicClass::Durable;
                let told = if is_durable { oracle.durable_end(partition) } else { Offset::ZERO };
                let target = reading.target.max(told);
                let is_at_end = || oracle.is_rest_gone(partition, reading.next..target, &reading.shown, now.wall);
                if is_durable && reading.next < target && !is_at_end() {
                    return Some(format!("client {number} read {partition} to {}, not to {target}", reading.next));
                }
                if let Some(what) = oracle.missing_newest(number, partition) {
                    return Some(what);
                }
            }
        }
        None
    }

    /// Does something that the application wants.
    pub(crate) fn act(&mut self, now: Now, oracle: &mut Oracle, todo: Todo) -> Vec<Wish> {
        match todo {
            Todo::Begin => {
                let request = Request::ListTopics { names: Vec::new() };
                let operation = self.core.request(now, request);
                self.operations.insert(operation, Asked::List);
                Vec::new()
            }
            Todo::Open { topic } => {
                let settings = ProducerSettings {
                    acks: self.plan.acks,
                    batch_bytes: self.batch_bytes_max,
                    linger: Duration::from_micros(self.random.skewed(0..3_000)),
                    ..ProducerSettings::default()
                };
                let producer = self.core.open_producer(now, &self.topics[topic].0, settings);
                self.producers.insert(producer, (topic, false));
                Vec::new()
            }
            Todo::Manage => self.manage(now, oracle),
            Todo::Send => self.send(now, oracle),
            Todo::Transact { turn } => self.transact(now, oracle, turn),
            Todo::Read { partition } => {
                self.read(partition);
                Vec::new()
            }
            Todo::Renew { partition } => self.renew(oracle, partition),
            Todo::Consumed { subscription, bytes } => {
                self.core.consumed(subscription, bytes);
                Vec::new()
            }
            Todo::Group(todo) => self.act_in_group(now, oracle, todo),
            Todo::Queue(todo) => self.act_in_queue(now, oracle, todo),
            Todo::Pipeline(todo) => self.act_in_pipeline(now, oracle, todo),
            Todo::Operate => self.operate(now, oracle),
        }
    }

    fn send(&mut self, now: Now, oracle: &mut Oracle) -> Vec<Wish> {
        if self.left == 0 {
            return Vec::new();
        }
        let pause = u64::try_from(self.plan.pause.as_micros()).expect("a pause is short");
        let wishes = vec![(Duration::from_micros(self.random.skewed(0..pause * 2 + 1)), Todo::Send)];
        let open = self
            .producers
            .iter()
            .filter(|(_, (_, is_open))| *is_open)
            .map(|(&producer, &(topic, _))| (producer, topic));
        let open = open.collect::<Vec<_>>();
        if open.is_empty() {
            return vec![(Duration::from_millis(20), Todo::Send)];
        }
        let burst = if self.random.is_one_in(6) { self.random.within(2..20) } else { 1 };
        for _ in 0..burst.min(self.left) {
            let (producer, topic) = *self.random.pick(&open);
            if self.topics[topic].1.has_ids && self.repeats.is_time() {
                self.send_again(now, oracle, producer, topic);
            }
            let info = self.topics[topic].2.as_ref().expect("the producer is open");
            let needs_key = self.topics[topic].1.needs_keys();
            let record = RecordId { client: self.number, number: self.next_number };
            let length = self.random.skewed(0..self.value_bytes_max);
            let value = payload::encode(record, length);
            let number = self.random.within(0..6);
            let key = format!("key-{number}");
            let partition = self.random.within(0..u64::from(info.partitions()));
            let partition = PartitionIndex(u32::try_from(partition).expect("few"));
            let id = (self.topics[topic].1.has_ids && self.repeats.is_to_have_id()).then(|| record.to_string());
            let is_deletion = self.topics[topic].1.deletions_ms.is_some() && self.keyed.is_deletion();
            let name = payload::encode(record, 0);
            let header = [(payload::HEADER, Some(&name[..]))];
            let new = NewRecord {
                key: (self.random.is_one_in(2) || needs_key).then_some(key.as_bytes()),
                value: (!is_deletion).then_some(&value),
                headers: if is_deletion { &header } else { &[] },
                message_id: id.as_ref().map(String::as_bytes),
                delivery_time: self.delayed.draw(topic),
                timestamp: None,
                partition: self.random.is_one_in(2).then_some(partition),
            };
            match self.core.send(now, producer, &new, Delivery::Ticket) {
                Ok(sent) => {
                    let partition = PartitionId::new(info.topic, sent.partition);
                    oracle.on_sent(partition, record, needs_key.then_some(number));
                    if is_deletion {
                        oracle.on_deletion_sent(partition, record, now.wall);
                    }
                    let records = self.pending.entry(sent.batch).or_default();
                    assert_eq!(records.len(), sent.index as usize, "a record's place in its batch");
                    records.push((partition, record));
                    if id.is_some() {
                        self.repeats.on_sent(sent.batch, topic, sent.partition, length);
                    }
                    self.next_number += 1;
                    self.left -= 1;
                }
                Err(SendError::Full { .. }) => break,
                Err(error) => panic!("a producer that is open refuses a record: {error}"),
            }
        }
        wishes
    }

    fn read(&mut self, partition: PartitionId) {
        let topic =
            self.topics.iter().find(|(_, _, info)| info.as_ref().is_some_and(|info| info.topic == partition.topic));
        let name = topic.expect("the topic is known").0.clone();
        let reading = self.readings.entry(partition).or_default();
        let start = if reading.next == Offset::ZERO { StartAt::Earliest } else { StartAt::Offset(reading.next) };
        let mut settings = SubscribeSettings::new(name, partition.index, start);
        settings.credit_bytes = self.random.skewed(2_000..400_000);
        settings.isolation = self.plan.isolation;
        let subscription = self.core.subscribe(settings);
        self.subscriptions.insert(subscription, partition);
    }

    pub(crate) fn on_producer_opened(&mut self, producer: ProducerKey) {
        self.producers.get_mut(&producer).expect("a producer of ours").1 = true;
    }

    pub(crate) fn on_producer_failed(&mut self, producer: ProducerKey) -> Vec<Wish> {
        let (topic, _) = self.producers.remove(&producer).expect("a producer of ours");
        vec![(Duration::from_millis(30), Todo::Open { topic })]
    }

    /// A batch's last word.
    pub(crate) fn on_delivered(
        &mut self,
        oracle: &mut Oracle,
        batch: BatchKey,
        placement: Placement,
        is_stored: bool,
    ) -> Result<(), Violation> {
        let Some(records) = self.pending.remove(&batch) else {
            return Err(Violation::ResolvedTwice { client: self.number, batch: batch.0 });
        };
        if let [(_, record)] = records[..] {
            self.repeats.on_delivered(oracle, batch, record, is_stored);
        }
        for (index, (partition, record)) in (0..).zip(records) {
            let offset = placement.base_offset.advance(index);
            oracle.on_acknowledged(partition, offset, record);
            if is_stored {
                oracle.on_stored(partition, offset, record)?;
            }
        }
        Ok(())
    }

    /// A batch's last word.
    pub(crate) fn on_failed(
        &mut self,
        oracle: &mut Oracle,
        batch: BatchKey,
        may_be_stored: bool,
    ) -> Result<(), Violation> {
        let Some(records) = self.pending.remove(&batch) else {
            return Err(Violation::ResolvedTwice { client: self.number, batch: batch.0 });
        };
        // A repetition that fails says nothing of the record, which is in the log from before.
        let is_repetition = self.repeats.on_failed(oracle, batch, &records, may_be_stored);
        if !is_repetition && !may_be_stored {
            for (partition, record) in records {
                oracle.on_refused(partition, record)?;
            }
        }
        Ok(())
    }

    /// The broker took a subscription.
    ///
    /// # Errors
    /// The log begins before a log start that was reported to this client as durable.
    pub(crate) fn on_subscribed(
        &mut self,
        oracle: &Oracle,
        subscription: SubscriptionKey,
        next: Offset,
        [log_start, high_watermark]: [Offset; 2],
    ) -> Result<(), Violation> {
        let Some(&partition) = self.subscriptions.get(&subscription) else { return Ok(()) };
        let reading = self.readings.get_mut(&partition).expect("it is read");
        reading.is_subscribed = true;
        reading.target = reading.target.max(high_watermark);
        reading.next = reading.next.max(next.min(oracle.log_start(partition)));
        // Only a reader that began after the last truncation is told of it for sure.
        if self.is_auditor { oracle.on_start_found(partition, log_start) } else { Ok(()) }
    }

    /// A subscription ended by itself.
    ///
    /// # Errors
    /// The reason is one that this world gives no cause for.
    pub(crate) fn on_ended(
        &mut self,
        oracle: &mut Oracle,
        is_rotten: bool,
        subscription: SubscriptionKey,
        error: &SubscriptionError,
    ) -> Result<Vec<Wish>, Violation> {
        let partition = self.subscriptions.remove(&subscription).expect("a subscription of ours");
        let reading = self.readings.get_mut(&partition).expect("it is read");
        reading.is_subscribed = false;
        let unreadable = Violation::Unreadable { client: self.number, what: error.to_string() };
        match error {
            SubscriptionError::Refused { code: ErrorCode::CorruptLog, .. } if is_rotten => {
                // Whatever is readable before the damage has come: the end goes behind it.
                let range = error.damaged().filter(|range| range.contains(&reading.next)).ok_or(unreadable)?;
                reading.next = range.end;
                reading.damaged.push(range);
                oracle.on_reader(self.number, partition, self.plan.isolation, Some(reading.next));
            }
            SubscriptionError::Refused { code: ErrorCode::OffsetOutOfRange, range, .. }
                if reading.next < oracle.log_start(partition)
                    && range.as_ref().is_none_or(|log| reading.next < log.start) =>
            {
                // It began before a truncation that had been asked for was carried out.
                reading.next = Offset::ZERO;
            }
            SubscriptionError::Refused { code: ErrorCode::CorruptLog | ErrorCode::OffsetOutOfRange, .. }
            | SubscriptionError::WentBack { .. }
            | SubscriptionError::Batch(_) => return Err(unreadable),
            SubscriptionError::Refused { .. }
            | SubscriptionError::UnknownTopic { .. }
            | SubscriptionError::TopicReplaced { .. }
            | SubscriptionError::UnknownPartition { .. } => {}
        }
        Ok(vec![(Duration::from_millis(40), Todo::Read { partition })])
    }

    /// A reader of committed records is past what was aborted.
    pub(crate) fn on_passed(
        &mut self,
        oracle: &mut Oracle,
        subscription: SubscriptionKey,
        next: Offset,
        high_watermark: Offset,
    ) -> Result<(), Violation> {
        let Some(&partition) = self.subscriptions.get(&subscription) else { return Ok(()) };
        let reading = self.readings.get_mut(&partition).expect("it is read");
        reading.target = reading.target.max(high_watermark);
        reading.next = reading.next.max(next);
        oracle.on_passed(self.number, partition, next)
    }

    /// Batches of a subscription: every record goes to the oracle.
    pub(crate) fn on_deliver(
        &mut self,
        oracle: &mut Oracle,
        incarnation: Incarnation,
        subscription: SubscriptionKey,
        mut bytes: Bytes,
        from: Offset,
        high_watermark: Offset,
    ) -> Result<Option<Wish>, Violation> {
        let length = bytes.len() as u64;
        let Some(&partition) = self.subscriptions.get(&subscription) else { return Ok(None) };
        let reading = self.readings.get_mut(&partition).expect("it is read");
        reading.target = reading.target.max(high_watermark);
        let damaged = |offset, what| Violation::Foreign { partition, offset, what };
        while let Some(batch) = split_batch(&mut bytes).map_err(|_| damaged(from, "what was pushed is no batch"))? {
            let batch = RecordBatch::parse(batch).map_err(|_| damaged(from, "what was pushed is no batch"))?;
            for record in batch.iter().filter(|record| from <= record.offset) {
                let id = payload::identify(&record);
                let id = id.ok_or_else(|| damaged(record.offset, "the record's bytes changed"))?;
                if high_watermark <= record.offset {
                    return Err(damaged(record.offset, "the record lies above the high watermark"));
                }
                oracle.on_shown(self.number, partition, incarnation, record.offset, id)?;
                reading.shown.insert(record.offset, id);
                reading.next = record.offset.advance(1);
            }
        }
        let delay = Duration::from_micros(self.random.skewed(1..20_000));
        Ok(Some((delay, Todo::Consumed { subscription, bytes: length })))
    }
}
