//! Members of a shared queue: they join, work record by record, fail, are slow, leave, die and come back.

mod letters;
mod news;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_client_core::{
    Answer, ClientCore, DeliveryKey, OperationKey, QueueAnswer, QueueMemberKey, QueueMemberSettings, QueueRequest,
    Request, RequestError, SubscriptionKey, VerdictKey,
};
use corelane_model::{GroupName, Incarnation, Now, PartitionId, QueueWish, TopicClass, TopicName, TopicSettings};
use corelane_wire::{DescribeQueue, DescribeQueueAnswer, LeaseRange};

use self::letters::LetterReader;
use self::work::Word;
use super::{Client, Todo, Wish};
use crate::oracle::queues::QueueName;
use crate::{ClientPlan, Oracle, QueuePlan, Random, Scenario};

/// How often somebody looks at the queue, in milliseconds, about.
const LOOK_MS: u64 = 400;

/// Something that the application of a member wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueTodo {
    /// Make the dead-letter topic, or find it.
    Prepare,
    /// Become a member in this seat, if nobody is there.
    Join { seat: usize },
    /// Leave or die.
    Disturb,
    /// Say something of records that came together.
    Say { member: QueueMemberKey, delivery: DeliveryKey, lease: LeaseRange, word: Word },
    /// Ask what the queue looks like.
    Look,
    /// Read a partition of the dead letters, from the last one that came on.
    Letters { partition: PartitionId },
    /// Say that bytes of dead letters were consumed.
    Consumed { subscription: SubscriptionKey, bytes: u64 },
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Topic,
    Made,
    Look,
}

/// What was said of a lease and is not settled.
#[derive(Debug)]
struct Open {
    lease: LeaseRange,
    is_ack: bool,
    refused: BTreeSet<u64>,
}

/// One membership, through all its lives.
#[derive(Debug)]
struct Member {
    seat: usize,
    open: BTreeMap<VerdictKey, Open>,
}

/// What the queue said of itself.
#[derive(Debug)]
struct Look {
    incarnation: Incarnation,
    /// A partition that is not done, in words.
    undone: Option<String>,
}

/// The memberships of one client. A seat is a member's place across its lives.
#[derive(Debug)]
pub(super) struct QueueWorker {
    plan: QueuePlan,
    group: GroupName,
    topic: TopicName,
    /// What the oracle knows the queue by, once the topic is known.
    name: Option<QueueName>,
    /// Which of the queue's clients it is; the first reads its dead letters.
    nth: u32,
    random: Random,
    seats: Vec<Option<QueueMemberKey>>,
    /// Those in seats, and those that are leaving.
    members: BTreeMap<QueueMemberKey, Member>,
    operations: BTreeMap<OperationKey, Wanted>,
    letters: LetterReader,
    look: Option<Look>,
    /// An operator alters the queue: once it is there for sure, members join with what it has.
    is_altered: bool,
    /// An operator puts dead letters back: all of them have to be read in the end.
    is_redriven: bool,
    /// How often it is to be disturbed.
    disturbances: u64,
    /// Faults are over: nobody leaves or dies any more.
    is_calm: bool,
    /// Everything but what is bad is done: that is acknowledged too.
    is_relenting: bool,
    /// Its queue is not looked at any more.
    is_retired: bool,
}

impl Client {
    /// The clients that have members of the scenario's shared queue.
    pub(super) fn members_of_queues(first: usize, scenario: &Scenario) -> Vec<Self> {
        let Some(plan) = &scenario.queue else { return Vec::new() };
        let member = |nth: u32| {
            let number = u32::try_from(first).expect("few clients") + nth;
            let seed = plan.seed ^ u64::from(nth) << 32;
            let client = Self::new(number, ClientPlan::idle(), seed, scenario, false);
            let worker = QueueWorker {
                plan: plan.clone(),
                group: GroupName::parse("sharers").expect("a name"),
                topic: client.topics[plan.topic].0.clone(),
                name: None,
                nth,
                random: Random::new(seed),
                seats: vec![None; plan.members],
                members: BTreeMap::new(),
                operations: BTreeMap::new(),
                letters: LetterReader::default(),
                look: None,
                is_altered: scenario.operator.is_some_and(|operator| operator.is_altering),
                is_redriven: scenario.operator.is_some_and(|operator| operator.is_redriving),
                disturbances: plan.disturbances,
                is_calm: false,
                is_relenting: false,
                is_retired: false,
            };
            Self { shared_queue: Some(worker), ..client }
        };
        (0..plan.clients).map(member).collect()
    }

    /// Whether it is a member of a shared queue, and does nothing else.
    pub(crate) const fn is_queue_member(&self) -> bool {
        self.shared_queue.is_some()
    }

    /// Its queue is not looked at any more.
    pub(super) fn retire_from_queue(&mut self) {
        if let Some(worker) = &mut self.shared_queue {
            worker.is_retired = true;
            worker.members.keys().for_each(|&member| self.core.abandon_queue(member));
        }
    }

    /// All topics are known: members join.
    pub(super) fn begin_queue(&mut self, oracle: &mut Oracle) -> Vec<Wish> {
        let Some(worker) = &mut self.shared_queue else { return Vec::new() };
        let info = self.topics[worker.plan.topic].2.as_ref().expect("all topics are known");
        let name = QueueName { group: worker.group.as_str().to_owned(), topic: info.topic };
        oracle.queues.open(name.clone(), worker.plan.settings.clone());
        worker.name = Some(name);
        let seats = (0..worker.seats.len()).map(|seat| QueueTodo::Join { seat });
        let mut all = seats.chain([QueueTodo::Disturb, QueueTodo::Look]).collect::<Vec<_>>();
        if worker.nth == 0 && worker.plan.settings.dead_letter.is_some() {
            all.push(QueueTodo::Prepare);
        }
        all.into_iter().map(|todo| worker.soon(500, todo)).collect()
    }

    /// Does something that the application of a member wants.
    pub(super) fn act_in_queue(&mut self, now: Now, oracle: &Oracle, todo: QueueTodo) -> Vec<Wish> {
        let worker = self.shared_queue.as_mut().expect("only members do that");
        if worker.is_retired {
            return Vec::new();
        }
        match todo {
            QueueTodo::Prepare => worker.prepare(&mut self.core, now),
            QueueTodo::Join { seat } => worker.join(&mut self.core, now, oracle, seat),
            QueueTodo::Disturb => return worker.disturb(&mut self.core, now),
            QueueTodo::Say { member, delivery, lease, word } => {
                return worker.say(&mut self.core, now, (member, delivery, lease), word);
            }
            QueueTodo::Look => return worker.ask(&mut self.core, now, oracle),
            QueueTodo::Letters { partition } => worker.letters.read(&mut self.core, &mut worker.random, partition),
            QueueTodo::Consumed { subscription, bytes } => {
                self.core.consumed(subscription, bytes);
            }
        }
        Vec::new()
    }

    /// Whether an answer is one about its queue.
    pub(crate) fn is_of_queue(&self, operation: OperationKey) -> bool {
        self.shared_queue.as_ref().is_some_and(|worker| worker.operations.contains_key(&operation))
    }

    /// An answer about the queue, or a reason why none comes.
    pub(crate) fn on_queue_answer(
        &mut self,
        oracle: &mut Oracle,
        incarnation: Incarnation,
        operation: OperationKey,
        answer: Result<Answer, RequestError>,
    ) -> Vec<Wish> {
        let worker = self.shared_queue.as_mut().expect("only members ask for that");
        match (worker.operations.remove(&operation), answer) {
            (Some(Wanted::Topic), Ok(Answer::Topics { topics, .. })) => {
                let found = topics.into_iter().find(|info| info.name == QueuePlan::dead_letter_topic());
                let Some(info) = found else { return vec![worker.soon(50, QueueTodo::Prepare)] };
                let partitions = worker.letters.begin(oracle, &info);
                partitions.map(|partition| worker.soon(50, QueueTodo::Letters { partition })).collect()
            }
            (Some(Wanted::Topic | Wanted::Made), _) => vec![worker.soon(200, QueueTodo::Prepare)],
            (Some(Wanted::Look), Ok(Answer::Queue(QueueAnswer::Description(description)))) => {
                worker.look = Some(Look { incarnation, undone: undone(&description) });
                Vec::new()
            }
            (Some(Wanted::Look), _) | (None, _) => Vec::new(),
        }
    }

    /// What of its queue has not come to rest, if anything.
    pub(crate) fn restless_queue(&self, oracle: &Oracle, incarnation: Incarnation) -> Option<String> {
        let worker = self.shared_queue.as_ref().filter(|worker| !worker.is_retired)?;
        let number = self.number;
        if worker.seats.iter().any(Option::is_none) {
            return Some(format!("client {number} has a seat at the queue without a member"));
        }
        if let Some((member, _)) = worker.members.iter().find(|(_, member)| !member.open.is_empty()) {
            return Some(format!("client {number} hears nothing of what its member {} said", member.0));
        }
        let Some(name) = &worker.name else { return Some(format!("client {number} has not begun to share")) };
        if let Some((partition, offset, record)) = oracle.undone_of_queue(name).next() {
            return Some(format!("record {record} at {partition} offset {offset} is neither done nor a dead letter"));
        }
        if let Some(what) = oracle.queues.missing_letter(name) {
            return Some(what);
        }
        if let Some(partition) = worker.letters.unread().filter(|_| worker.is_redriven) {
            return Some(format!("client {number} has not read the dead letters of {partition}"));
        }
        match worker.look.as_ref().filter(|look| look.incarnation == incarnation) {
            Some(look) => look.undone.clone(),
            None => Some("nobody has looked at the queue since the broker started".to_owned()),
        }
    }
}

/// A partition of which the queue itself says that it is not done.
fn undone(description: &DescribeQueueAnswer) -> Option<String> {
    let undone = description.partitions.iter().find(|partition| partition.done_end < partition.high_watermark);
    undone.map(|partition| format!("the queue is not done: {partition:?}"))
}

impl QueueWorker {
    pub(super) const fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// Whether it was disturbed as often as it is to be.
    pub(super) const fn is_through(&self) -> bool {
        self.disturbances == 0
    }

    /// A wish for some moment in so many milliseconds.
    fn soon(&mut self, most_ms: u64, todo: QueueTodo) -> Wish {
        (Duration::from_micros(self.random.skewed(1..most_ms * 1_000)), Todo::Queue(todo))
    }

    /// Makes the dead-letter topic at the first time, then looks for it.
    fn prepare(&mut self, core: &mut ClientCore, now: Now) {
        let name = QueuePlan::dead_letter_topic();
        let (request, wanted) = if self.random.is_one_in(2) {
            let settings = TopicSettings { class: TopicClass::Durable, retention_ms: None, ..TopicSettings::default() };
            (Request::CreateTopic { name, partitions: self.plan.dead_partitions, settings }, Wanted::Made)
        } else {
            (Request::ListTopics { names: vec![name] }, Wanted::Topic)
        };
        let operation = core.request(now, request);
        self.operations.insert(operation, wanted);
    }

    fn join(&mut self, core: &mut ClientCore, now: Now, oracle: &Oracle, seat: usize) {
        if self.seats[seat].is_some() {
            return;
        }
        let plan = self.plan.settings.clone();
        let mut settings = QueueMemberSettings::new(self.group.clone(), self.topic.clone());
        settings.session_timeout = self.plan.session_timeout;
        settings.weight = u32::try_from(self.random.within(1..5)).expect("few");
        settings.credit_records = self.plan.credit_records;
        settings.credit_bytes = self.random.skewed(1_000..200_000);
        let is_there = || self.name.as_ref().is_some_and(|name| oracle.queues.is_durable(name));
        if !self.is_altered || !is_there() {
            settings.wish = QueueWish {
                visibility: Some(plan.visibility),
                dispatch: Some(plan.dispatch),
                order_per_key: Some(plan.order_per_key),
                delivery_limit: Some(plan.delivery_limit.unwrap_or(0)),
                backoff: Some(plan.backoff),
                dead_letter: plan.dead_letter,
            };
        }
        let key = core.join_queue(now, settings);
        self.members.insert(key, Member { seat, open: BTreeMap::new() });
        self.seats[seat] = Some(key);
    }

    /// Takes a member out of its seat in one of two ways, while faults happen.
    fn disturb(&mut self, core: &mut ClientCore, now: Now) -> Vec<Wish> {
        if self.is_calm {
            return Vec::new();
        }
        let every = u64::try_from(self.plan.disturb_every.as_millis()).expect("seconds");
        let mut wishes = vec![self.soon(every * 2, QueueTodo::Disturb)];
        let seat = self.random.index(self.seats.len());
        let Some(key) = self.seats[seat] else { return wishes };
        self.disturbances = self.disturbances.saturating_sub(1);
        match self.random.within(0..3) {
            0 => core.leave_queue(now, key),
            1 => core.abandon_queue(key),
            _ => return wishes,
        }
        self.seats[seat] = None;
        wishes.push(self.soon(2_000, QueueTodo::Join { seat }));
        wishes
    }

    fn ask(&mut self, core: &mut ClientCore, now: Now, oracle: &Oracle) -> Vec<Wish> {
        let is_bad = |(_, _, record)| self.plan.is_bad(record);
        if self.is_calm && !self.is_relenting {
            let name = self.name.as_ref().expect("it has begun");
            self.is_relenting = oracle.undone_of_queue(name).all(is_bad);
        }
        let request = DescribeQueue {
            group: self.group.as_str().to_owned(),
            topic: self.topic.as_str().to_owned(),
            from_partition: 0,
            most_partitions: 100,
            after_member: None,
            most_members: 100,
        };
        let operation = core.request(now, Request::Queue(QueueRequest::Describe(request)));
        self.operations.insert(operation, Wanted::Look);
        vec![self.soon(LOOK_MS * 2, QueueTodo::Look)]
    }
}
