//! Somebody looks after the group and the shared queue of others: puts dead letters back, alters settings, moves offsets.

mod moving;

use std::time::Duration;

use corelane_client_core::{Answer, ClientCore, OperationKey, QueueAnswer, QueueRequest, Request, RequestError};
use corelane_model::{Backoff, Dispatch, GroupName, Now, Offset, PartitionId, PartitionIndex, QueueWish, TopicName};
use corelane_wire::{AlterQueue, QueueRedriven, RedriveQueue};

use self::moving::Moving;
use super::{Client, Todo, Wish};
use crate::oracle::queues::{LetterSet, QueueName};
use crate::{ClientPlan, OperatorPlan, Oracle, QueuePlan, Random, Scenario};

/// The largest step of a redrive that is asked for by number.
const STEP_MAX: u64 = 40;

/// How often it looks for dead letters where there are none.
const PATIENCE: u64 = 20;
/// How long it waits for some.
const WAIT: Duration = Duration::from_millis(500);

/// How often a group is resumed when faults are over, and how far apart: for longer than any frame is late.
const RESUMES: u64 = 10;
const RESUMES_APART: Duration = Duration::from_secs(1);

/// The queue that is looked after.
#[derive(Debug)]
struct Queue {
    group: GroupName,
    topic: TopicName,
    /// What the oracle knows it by, once its topic is known.
    name: Option<QueueName>,
    plan: QueuePlan,
}

/// The group that is looked after, and the topics that it reads by their place.
#[derive(Debug)]
struct Group {
    name: GroupName,
    topics: Vec<usize>,
}

/// A redrive from its first step on.
#[derive(Debug)]
struct Redrive {
    partition: u32,
    end: Option<u64>,
    /// What was there when it began.
    letters: LetterSet,
}

/// What is being done.
#[derive(Debug)]
enum Job {
    Redrive(Redrive),
    Alter(QueueWish),
    Move(Moving),
}

/// An operator. Has chance of its own.
#[derive(Debug)]
pub(super) struct Operator {
    plan: OperatorPlan,
    queue: Option<Queue>,
    group: Option<Group>,
    random: Random,
    /// Jobs that it will still begin.
    left: u64,
    /// How often it will still wait for dead letters before it puts back what is not there.
    patience: u64,
    /// It found no dead letters, and looks again after a while.
    is_waiting: bool,
    job: Option<Job>,
    /// What is not answered.
    asked: Option<OperationKey>,
    /// How often it still asks to resume when faults are over: what it asked before may arrive late.
    resumes: u64,
    /// Something that it asked of the group was not answered.
    is_late: bool,
    /// Faults are over: what was begun is brought to its end, and nothing else is begun.
    is_calm: bool,
    /// What it looked after is not looked at any more.
    is_retired: bool,
}

impl Client {
    /// The client that looks after the scenario's group and queue.
    pub(super) fn operator_of(number: usize, scenario: &Scenario) -> Option<Self> {
        let plan = scenario.operator?;
        let number = u32::try_from(number).expect("few clients");
        let client = Self::new(number, ClientPlan::idle(), plan.seed, scenario, false);
        let queue = scenario.queue.as_ref().map(|queue| Queue {
            group: GroupName::parse("sharers").expect("a name"),
            topic: client.topics[queue.topic].0.clone(),
            name: None,
            plan: queue.clone(),
        });
        let group = scenario.group.as_ref().filter(|_| plan.is_moving);
        let group = group
            .map(|group| Group { name: GroupName::parse("workers").expect("a name"), topics: group.topics.clone() });
        let operator = Operator {
            plan,
            queue,
            group,
            random: Random::new(!plan.seed),
            left: plan.jobs,
            patience: PATIENCE,
            is_waiting: false,
            job: None,
            asked: None,
            resumes: if plan.is_moving { RESUMES } else { 0 },
            is_late: false,
            is_calm: false,
            is_retired: false,
        };
        Some(Self { operator: Some(operator), ..client })
    }

    /// All topics are known.
    pub(super) fn begin_to_operate(&mut self) -> Vec<Wish> {
        let Some(operator) = &mut self.operator else { return Vec::new() };
        if let Some(queue) = &mut operator.queue {
            let info = self.topics[queue.plan.topic].2.as_ref().expect("all topics are known");
            queue.name = Some(QueueName { group: queue.group.as_str().to_owned(), topic: info.topic });
        }
        vec![operator.pause()]
    }

    /// Goes on with what it is at, or begins something else.
    pub(super) fn operate(&mut self, now: Now, oracle: &mut Oracle) -> Vec<Wish> {
        let partitions = self.partitions_of_group();
        let operator = self.operator.as_mut().expect("only operators do that");
        operator.step(&mut self.core, now, oracle, &partitions)
    }

    /// Every partition of the topics that the operator's group reads.
    fn partitions_of_group(&self) -> Vec<PartitionId> {
        let group = self.operator.as_ref().and_then(|operator| operator.group.as_ref());
        let topics = group.map_or(&[][..], |group| &group.topics);
        let infos = topics.iter().filter_map(|&topic| self.topics[topic].2.as_ref());
        let partitions = infos
            .flat_map(|info| (0..info.partitions()).map(|index| PartitionId::new(info.topic, PartitionIndex(index))));
        partitions.collect()
    }

    /// Whether an answer is one to its operator.
    pub(crate) fn is_of_operator(&self, operation: OperationKey) -> bool {
        self.operator.as_ref().is_some_and(|operator| operator.asked == Some(operation))
    }

    /// An answer to what the operator asked, or a reason why none comes.
    pub(crate) fn on_operator_answer(
        &mut self,
        oracle: &mut Oracle,
        operation: OperationKey,
        answer: Result<Answer, RequestError>,
    ) -> Vec<Wish> {
        let operator = self.operator.as_mut().filter(|operator| operator.asked == Some(operation));
        operator.map_or_else(Vec::new, |operator| operator.on_answer(oracle, answer))
    }
}

impl Operator {
    pub(super) const fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// Whether it has begun all that it is to begin.
    pub(super) const fn is_through(&self) -> bool {
        self.left == 0
    }

    pub(super) fn retire(&mut self) {
        self.is_retired = true;
    }

    /// What of its work has not ended, if anything.
    pub(super) fn restless(&self) -> Option<String> {
        let is_open = self.job.is_some() || (self.is_late && 0 < self.resumes);
        (is_open && !self.is_retired).then(|| format!("has not ended {:?}", self.job))
    }

    fn pause(&mut self) -> Wish {
        let most = u64::try_from(self.plan.pause.as_micros()).expect("a pause is short");
        (Duration::from_micros(self.random.skewed(1..most + 2)), Todo::Operate)
    }

    fn step(&mut self, core: &mut ClientCore, now: Now, oracle: &mut Oracle, partitions: &[PartitionId]) -> Vec<Wish> {
        if self.asked.is_some() || self.is_retired {
            return Vec::new();
        }
        if self.job.is_none() {
            if self.is_calm && 0 < self.resumes {
                self.resumes -= 1;
                self.job = Some(Job::Move(Moving::resuming()));
            } else if self.left == 0 || self.is_calm {
                return if 0 < self.resumes { vec![(RESUMES_APART, Todo::Operate)] } else { Vec::new() };
            } else {
                self.left -= 1;
                self.job = self.draw_job(oracle);
            }
        }
        let (is_calm, random) = (self.is_calm, &mut self.random);
        let request = match (&mut self.job, &self.queue, &self.group) {
            (Some(Job::Redrive(redrive)), Some(queue), _) => {
                oracle.allow_copies(queue.name.as_ref().expect("it has begun").topic);
                Some(redrive.request(queue, random))
            }
            (Some(Job::Alter(wish)), Some(queue), _) => Some(Request::Queue(QueueRequest::Alter(AlterQueue {
                group: queue.group.as_str().to_owned(),
                topic: queue.topic.as_str().to_owned(),
                settings: (&*wish).into(),
            }))),
            (Some(Job::Move(moving)), _, Some(group)) => {
                moving.request(&group.name, is_calm, random, |random| draw_places(random, oracle, partitions))
            }
            _ => None,
        };
        match request {
            Some(request) => {
                self.asked = Some(core.request(now, request));
                Vec::new()
            }
            None if self.is_waiting => {
                self.is_waiting = false;
                vec![(WAIT, Todo::Operate)]
            }
            None => {
                self.job = None;
                vec![self.pause()]
            }
        }
    }

    fn draw_job(&mut self, oracle: &Oracle) -> Option<Job> {
        let OperatorPlan { is_redriving, is_altering, is_moving, .. } = self.plan;
        let mut kinds = Vec::new();
        kinds.extend(is_redriving.then_some([0, 0]).into_iter().flatten());
        kinds.extend(is_altering.then_some(1));
        kinds.extend(is_moving.then_some(2));
        if kinds.is_empty() {
            return None;
        }
        match *self.random.pick(&kinds) {
            0 => {
                let queue = self.queue.as_ref().and_then(|queue| queue.name.as_ref()).expect("it redrives one");
                let letters = oracle.queues.letters(queue);
                if letters.is_empty() && 0 < self.patience {
                    self.patience -= 1;
                    self.left += 1;
                    self.is_waiting = true;
                    return None;
                }
                Some(Job::Redrive(Redrive { partition: 0, end: None, letters }))
            }
            1 => self.draw_wish().map(Job::Alter),
            _ => Some(Job::Move(Moving::draw(&mut self.random))),
        }
    }

    /// Other settings for the queue: all that may be changed, so that afterwards it is known what it has.
    fn draw_wish(&mut self) -> Option<QueueWish> {
        let has_letters = self.queue.as_ref()?.plan.settings.dead_letter.is_some();
        let random = &mut self.random;
        let limit = if has_letters && !random.is_one_in(3) { random.within(1..7) } else { 0 };
        let [a, b] = [random.skewed(0..300), random.skewed(0..1_500)].map(Duration::from_millis);
        let backoff = if random.is_one_in(2) {
            Backoff::Exponential { first: a.min(b), cap: a.max(b) }
        } else {
            Backoff::Steps(vec![a, b])
        };
        Some(QueueWish {
            visibility: Some(Duration::from_millis(random.skewed(100..3_000))),
            dispatch: Some(*random.pick(Dispatch::ALL)),
            order_per_key: None,
            delivery_limit: Some(u32::try_from(limit).expect("few")),
            backoff: Some(backoff),
            dead_letter: None,
        })
    }

    fn on_answer(&mut self, oracle: &mut Oracle, answer: Result<Answer, RequestError>) -> Vec<Wish> {
        self.asked = None;
        let is_calm = self.is_calm;
        self.job = match self.job.take() {
            Some(Job::Redrive(redrive)) => match answer {
                Ok(Answer::Queue(QueueAnswer::Redriven(told))) => {
                    let queue = self.queue.as_ref().and_then(|queue| queue.name.as_ref()).expect("it redrives one");
                    // Some give up in the middle.
                    let gives_up = is_calm || self.random.is_one_in(30);
                    redrive.go_on(oracle, queue, &told).filter(|_| !gives_up).map(Job::Redrive)
                }
                _ => None,
            },
            Some(Job::Move(moving)) => {
                self.is_late |= !matches!(answer, Ok(_) | Err(RequestError::Refused { .. }));
                moving.go_on(&mut self.random, &answer).map(Job::Move)
            }
            Some(Job::Alter(_)) | None => None,
        };
        if is_calm && self.job.is_none() { vec![(RESUMES_APART, Todo::Operate)] } else { vec![self.pause()] }
    }
}

impl Redrive {
    fn request(&self, queue: &Queue, random: &mut Random) -> Request {
        let most = if random.is_one_in(3) { 0 } else { random.skewed(1..STEP_MAX) };
        Request::Queue(QueueRequest::Redrive(RedriveQueue {
            group: queue.group.as_str().to_owned(),
            topic: queue.topic.as_str().to_owned(),
            most,
            partition: self.partition,
            end: self.end,
        }))
    }

    /// A step has ended: what comes next, unless all of it is done or something went wrong.
    fn go_on(self, oracle: &mut Oracle, queue: &QueueName, told: &QueueRedriven) -> Option<Self> {
        if !told.stopped.is_empty() {
            return None;
        }
        if told.is_over {
            oracle.queues.on_redriven_whole(queue, &self.letters);
            return None;
        }
        Some(Self { partition: told.partition, end: told.end, letters: self.letters })
    }
}

/// Where offsets of some partitions are to be put: `None` forgets them.
fn draw_places(random: &mut Random, oracle: &Oracle, partitions: &[PartitionId]) -> Vec<(PartitionId, Option<Offset>)> {
    let is_all = random.is_one_in(2);
    let chosen = partitions.iter().filter(|_| is_all || random.is_one_in(2)).copied().collect::<Vec<_>>();
    let place = |partition| {
        let (start, end) = (oracle.log_start(partition).0, oracle.durable_end(partition).0);
        let place = match random.within(0..5) {
            0 => None,
            1 => Some(start),
            2 => Some(start.max(end)),
            _ => Some(random.within(start..start.max(end) + 1)),
        };
        (partition, place.map(Offset))
    };
    chosen.into_iter().map(place).collect()
}
