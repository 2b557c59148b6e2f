//! Workers of a pipeline: they read a topic as members of a group and write what they make of it, with the group's offsets, in
//! transactions. They do so as an application does that uses the SDK: what its machine is told waits until it looks.

mod answers;
mod life;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_client_core::{
    Answer, ClientCore, Effect, GroupAnswer, GroupKey, GroupRequest, GroupSettings, OperationKey, Request,
    RequestError, SubscriptionKey,
};
use corelane_model::{
    GroupName, Incarnation, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ResetPolicy, StaticId, TopicId,
    TopicName,
};
use corelane_wire::{FetchOffsets, FetchOffsetsAnswer, PartitionRange};

use self::life::{Life, Next};
use super::{Client, Reading, Todo, Wish};
use crate::{ClientPlan, Oracle, PipelinePlan, Random, Scenario, Violation};

/// Records of workers are numbered as those of clients from here on.
const WRITERS_FROM: u32 = 1_000;
/// Lives of one client.
const WRITERS_EACH: u32 = 10_000;
/// Readers of workers are numbered from here on, apart from those of clients and of members of other groups.
const READERS_FROM: u32 = 1_000_000;
/// Numbers for the readers of one client.
const READERS_EACH: u32 = 100_000;
/// Longest time that a visitor stays, in milliseconds.
const VISIT_MS: u64 = 150;
/// Time between two questions for everything that the group has committed.
const INSPECTION: Duration = Duration::from_millis(400);

/// Something that the application of a worker wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipelineTodo {
    /// Begin a life in this seat, if nobody is there.
    Begin { seat: usize },
    /// Do what comes next, unless something else came in between.
    Step { life: u32, turn: u32 },
    /// Die, leave, stall, be replaced, or be visited.
    Disturb,
    /// Somebody comes for a moment while a worker is in a transaction.
    Visit { seat: usize },
    /// End a life that was only to be a short one.
    End { life: u32 },
    /// Ask for everything that the group has committed.
    Inspect,
}

/// What a life acts with.
#[derive(Debug)]
struct Around<'a> {
    now: Now,
    core: &'a mut ClientCore,
    oracle: &'a mut Oracle,
    random: &'a mut Random,
    plan: &'a PipelinePlan,
    group: &'a GroupName,
    output: &'a Output,
    value_bytes_max: u64,
    is_calm: bool,
    /// The number of the last reader.
    reader: &'a mut u32,
}

/// The topic that is written to.
#[derive(Clone, Debug)]
struct Output {
    name: TopicName,
    topic: TopicId,
    partitions: u32,
}

/// The workers of one client. A seat is a worker's place across its lives.
#[derive(Debug)]
pub(super) struct PipelineWorker {
    plan: PipelinePlan,
    group: GroupName,
    /// The how manieth client of the pipeline it is.
    client: u32,
    random: Random,
    value_bytes_max: u64,
    source: Option<(TopicName, TopicId, u32)>,
    output: Option<Output>,
    seats: Vec<Option<u32>>,
    /// Those in seats, and those whose seat another took while they lived.
    lives: BTreeMap<u32, Life>,
    next_life: u32,
    reader: u32,
    inspection: Option<Inspection>,
    disturbances: u64,
    /// Faults are over: nobody dies any more.
    is_calm: bool,
    /// Nothing of it is looked at any more.
    is_retired: bool,
}

/// A question for everything that the group has committed.
#[derive(Debug)]
struct Inspection {
    operation: OperationKey,
    asked: MonotonicNanos,
    /// What was known to be committed by then.
    known: Vec<(PartitionId, Option<Offset>)>,
}

impl Client {
    /// The clients that have workers of the scenario's pipeline.
    pub(super) fn workers_of_pipelines(first: usize, scenario: &Scenario) -> Vec<Self> {
        let Some(plan) = &scenario.pipeline else { return Vec::new() };
        let worker = |nth: u32| {
            let number = u32::try_from(first).expect("few clients") + nth;
            let seed = plan.seed ^ u64::from(nth);
            let worker = PipelineWorker {
                plan: plan.clone(),
                group: GroupName::parse("pipeline").expect("a name"),
                client: nth,
                random: Random::new(seed),
                value_bytes_max: scenario.value_bytes_max / 4,
                source: None,
                output: None,
                seats: vec![None; plan.seats],
                lives: BTreeMap::new(),
                next_life: 0,
                reader: READERS_FROM + nth * READERS_EACH,
                inspection: None,
                disturbances: plan.disturbances,
                is_calm: false,
                is_retired: false,
            };
            Self { pipeline: Some(worker), ..Self::new(number, ClientPlan::idle(), seed, scenario, false) }
        };
        (0..plan.clients).map(worker).collect()
    }

    /// Whether it has workers of a pipeline, and does nothing else.
    pub(crate) const fn is_pipeline(&self) -> bool {
        self.pipeline.is_some()
    }

    /// Nothing of its workers is looked at any more.
    pub(crate) fn retire_pipeline(&mut self) {
        if let Some(worker) = &mut self.pipeline {
            worker.is_retired = true;
            let groups = worker.lives.values().map(Life::group);
            groups.for_each(|group| self.core.abandon_group(group));
        }
    }

    /// All topics are known: workers begin.
    pub(super) fn begin_pipeline(&mut self) -> Vec<Wish> {
        let Some(worker) = &mut self.pipeline else { return Vec::new() };
        let find = |place: usize| {
            let (name, _, info) = &self.topics[place];
            let info = info.as_ref().expect("all topics are known");
            (name.clone(), info.topic, info.partitions())
        };
        worker.source = Some(find(worker.plan.source));
        let (name, topic, partitions) = find(worker.plan.output);
        worker.output = Some(Output { name, topic, partitions });
        let seats = (0..worker.seats.len()).map(|seat| PipelineTodo::Begin { seat });
        let all = seats.chain([PipelineTodo::Disturb, PipelineTodo::Inspect]).collect::<Vec<_>>();
        all.into_iter().map(|todo| worker.soon(500, todo)).collect()
    }

    /// Does something that the application of a worker wants.
    pub(super) fn act_in_pipeline(&mut self, now: Now, oracle: &mut Oracle, todo: PipelineTodo) -> Vec<Wish> {
        let worker = self.pipeline.as_mut().expect("only workers do that");
        if worker.is_retired {
            return Vec::new();
        }
        match todo {
            PipelineTodo::Begin { seat } => worker.begin(&mut self.core, now, seat),
            PipelineTodo::Step { life, turn } => {
                let step = |life: &mut Life, around: &mut Around<'_>| Ok(life.step_in_turn(around, turn));
                worker.with(&mut self.core, oracle, now, life, step).expect("steps break nothing")
            }
            PipelineTodo::Visit { seat } => worker.visit_within_reason(&mut self.core, now, seat),
            PipelineTodo::End { life } => worker.end(&mut self.core, oracle, now, life, true),
            PipelineTodo::Disturb => worker.disturb(&mut self.core, now, oracle),
            PipelineTodo::Inspect => worker.inspect(&mut self.core, now, oracle),
        }
    }

    /// Whether an answer belongs to a worker, or did until that did not wait for it any more.
    pub(crate) fn is_of_pipeline(&self, operation: OperationKey) -> bool {
        self.pipeline.is_some() && !self.operations.contains_key(&operation)
    }

    /// An answer for a worker, or a reason why none comes.
    ///
    /// # Errors
    /// It breaks a promise of transactions.
    pub(crate) fn on_pipeline_done(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        operation: OperationKey,
        result: Result<Answer, RequestError>,
    ) -> Result<Vec<Wish>, Violation> {
        let worker = self.pipeline.as_mut().expect("it waits for the answer");
        if let Some(inspection) = worker.inspection.take_if(|inspection| inspection.operation == operation) {
            if let Ok(Answer::Group(GroupAnswer::Offsets(answer))) = result {
                return inspection.check(oracle, &answer).map(|()| Vec::new());
            }
            return Ok(Vec::new());
        }
        let life = worker.lives.iter().find(|(_, life)| life.waits_for(operation)).map(|(&life, _)| life);
        let Some(life) = life else { return Ok(Vec::new()) };
        worker.with(&mut self.core, oracle, now, life, |life, around| life.on_done(around, operation, result))
    }

    /// What a worker's machine has to say about its membership or what it reads. Whatever else it is comes back.
    ///
    /// # Errors
    /// It breaks a promise of groups.
    pub(crate) fn on_pipeline_told(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        incarnation: Incarnation,
        effect: Effect,
    ) -> Result<Vec<Wish>, Violation> {
        let worker = self.pipeline.as_mut().expect("only workers hear of that");
        match effect {
            Effect::Group { group, news } => {
                let Some(life) = worker.of_group(group) else { return Ok(Vec::new()) };
                let tell = |life: &mut Life, around: &mut Around<'_>| life.on_news(around, news);
                worker.with(&mut self.core, oracle, now, life, tell)
            }
            Effect::Deliver { subscription, bytes, from, high_watermark } => {
                let Some(life) = worker.of_subscription(subscription) else { return Ok(Vec::new()) };
                worker.with(&mut self.core, oracle, now, life, |life, around| {
                    life.on_delivered(around, incarnation, subscription, bytes, from..high_watermark)
                })
            }
            Effect::Passed { subscription, next, .. } => {
                let Some(life) = worker.of_subscription(subscription) else { return Ok(Vec::new()) };
                worker
                    .with(&mut self.core, oracle, now, life, |life, around| life.on_passed(around, subscription, next))
            }
            Effect::Ended { subscription, .. } => {
                let Some(life) = worker.of_subscription(subscription) else { return Ok(Vec::new()) };
                worker.with(&mut self.core, oracle, now, life, |life, around| {
                    life.on_subscription_ended(around, subscription);
                    Ok(Next::Go(Vec::new()))
                })
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What was read of one topic.
    pub(crate) fn readings_of(&self, topic: usize) -> impl Iterator<Item = (PartitionId, &Reading)> {
        let topic = self.topics[topic].2.as_ref().map(|info| info.topic);
        let readings = self.readings.iter().filter(move |(partition, _)| Some(partition.topic) == topic);
        readings.map(|(&partition, reading)| (partition, reading))
    }

    /// Every partition of the pipeline's source, with the end that was told as durable.
    pub(crate) fn pipeline_ends(&self, oracle: &Oracle) -> Option<Vec<(PartitionId, Offset)>> {
        let worker = self.pipeline.as_ref().filter(|worker| !worker.is_retired)?;
        let partitions = worker.source_partitions();
        Some(partitions.map(|partition| (partition, oracle.durable_end(partition))).collect())
    }
}

impl PipelineWorker {
    pub(super) const fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// Whether it was disturbed as often as it is to be.
    pub(super) const fn is_through(&self) -> bool {
        self.disturbances == 0
    }

    /// A wish for some moment in so many milliseconds.
    fn soon(&mut self, most_ms: u64, todo: PipelineTodo) -> Wish {
        (Duration::from_micros(self.random.skewed(1..most_ms * 1_000)), Todo::Pipeline(todo))
    }

    fn source_partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let source = self.source.as_ref().map(|(_, topic, partitions)| (*topic, *partitions));
        source.into_iter().flat_map(|(topic, partitions)| {
            (0..partitions).map(move |index| PartitionId::new(topic, PartitionIndex(index)))
        })
    }

    fn of_group(&self, group: GroupKey) -> Option<u32> {
        self.lives.iter().find(|(_, life)| life.group() == group).map(|(&life, _)| life)
    }

    fn of_subscription(&self, subscription: SubscriptionKey) -> Option<u32> {
        self.lives.iter().find(|(_, life)| life.reads(subscription)).map(|(&life, _)| life)
    }

    /// Lets a life do something; one that is over by that goes.
    fn with(
        &mut self,
        core: &mut ClientCore,
        oracle: &mut Oracle,
        now: Now,
        number: u32,
        act: impl FnOnce(&mut Life, &mut Around<'_>) -> Result<Next, Violation>,
    ) -> Result<Vec<Wish>, Violation> {
        let (Some(life), Some(output)) = (self.lives.get_mut(&number), &self.output) else { return Ok(Vec::new()) };
        let mut around = Around {
            now,
            core,
            oracle,
            random: &mut self.random,
            plan: &self.plan,
            group: &self.group,
            output,
            value_bytes_max: self.value_bytes_max,
            is_calm: self.is_calm,
            reader: &mut self.reader,
        };
        match act(life, &mut around)? {
            Next::Go(wishes) => Ok(wishes),
            Next::Over => Ok(self.end(core, oracle, now, number, self.says_good_bye())),
        }
    }

    /// Whether a worker says good-bye to its group when it ends.
    const fn says_good_bye(&self) -> bool {
        self.next_life.is_multiple_of(2)
    }

    fn begin(&mut self, core: &mut ClientCore, now: Now, seat: usize) -> Vec<Wish> {
        if self.seats[seat].is_some() {
            return Vec::new();
        }
        let name = format!("seat-{}-{seat}", self.client);
        let number = self.join(core, now, seat, &name, self.plan.is_static);
        self.seats[seat] = Some(number);
        vec![self.soon(20, PipelineTodo::Step { life: number, turn: 0 })]
    }

    /// Somebody comes and goes again at once: what is asked back for it comes back to who had it, perhaps before it is given up,
    /// perhaps after.
    fn visit(&mut self, core: &mut ClientCore, now: Now, seat: usize) -> Vec<Wish> {
        let number = self.join(core, now, seat, &format!("visitor-{}-{}", self.client, self.next_life), false);
        let (step, end) = (PipelineTodo::Step { life: number, turn: 0 }, PipelineTodo::End { life: number });
        let step = self.soon(VISIT_MS, step);
        let stay = if self.random.is_one_in(2) {
            self.random.skewed(1..VISIT_MS * 1_000)
        } else {
            self.random.within(VISIT_MS * 500..VISIT_MS * 4_000)
        };
        vec![step, (Duration::from_micros(stay), Todo::Pipeline(end))]
    }

    /// Visits as one of so many disturbances.
    fn visit_within_reason(&mut self, core: &mut ClientCore, now: Now, seat: usize) -> Vec<Wish> {
        if self.is_calm || self.is_through() {
            return Vec::new();
        }
        self.disturbances -= 1;
        self.visit(core, now, seat)
    }

    fn join(&mut self, core: &mut ClientCore, now: Now, seat: usize, name: &str, is_static: bool) -> u32 {
        let (source, ..) = self.source.as_ref().expect("it begins when topics are known");
        let mut settings = GroupSettings::new(self.group.clone());
        settings.topics = vec![source.clone()];
        settings.strategy = Some(self.plan.strategy);
        settings.static_id = is_static.then(|| StaticId::parse(name).expect("an id"));
        settings.session_timeout = self.plan.session_timeout;
        settings.rebalance_timeout = self.plan.rebalance_timeout;
        settings.reset = ResetPolicy::Earliest;
        settings.isolation = self.plan.isolation;
        settings.credit_bytes = self.random.skewed(2_000..100_000);
        let number = self.next_life;
        self.next_life += 1;
        assert!(number < WRITERS_EACH, "a client has few lives");
        let writer = WRITERS_FROM + self.client * WRITERS_EACH + number;
        let life = Life::new(core.join_group(now, settings), seat, number, writer, format!("pipeline-{name}"));
        self.lives.insert(number, life);
        number
    }

    /// A life ends, whatever it was at. Another begins in its seat, unless that is taken.
    fn end(
        &mut self,
        core: &mut ClientCore,
        oracle: &mut Oracle,
        now: Now,
        number: u32,
        is_leaving: bool,
    ) -> Vec<Wish> {
        let Some(mut life) = self.lives.remove(&number) else { return Vec::new() };
        life.stop(core, oracle, &self.group);
        if is_leaving {
            core.leave_group(now, life.group(), false);
        } else {
            core.abandon_group(life.group());
        }
        let seat = life.seat();
        if self.seats[seat] != Some(number) {
            return Vec::new();
        }
        self.seats[seat] = None;
        let most_ms = *self.random.pick(&[20, 300, 2_000]);
        vec![self.soon(most_ms, PipelineTodo::Begin { seat })]
    }

    /// Does something bad to a worker, while faults happen.
    fn disturb(&mut self, core: &mut ClientCore, now: Now, oracle: &mut Oracle) -> Vec<Wish> {
        if self.is_calm {
            // Whoever lost its seat and has not noticed goes too.
            let strays = self.lives.keys().copied().filter(|life| !self.seats.contains(&Some(*life)));
            let strays = strays.collect::<Vec<_>>();
            return strays.into_iter().flat_map(|life| self.end(core, oracle, now, life, false)).collect();
        }
        let every = u64::try_from(self.plan.disturb_every.as_millis()).expect("seconds");
        let mut wishes = vec![self.soon(every * 2, PipelineTodo::Disturb)];
        let seat = self.random.index(self.seats.len());
        let Some(number) = self.seats[seat] else { return wishes };
        self.disturbances = self.disturbances.saturating_sub(1);
        let is_crowded = self.seats.len() * 2 <= self.lives.len();
        match self.random.within(0..7) {
            // It works on until it hears that another has its transactional id, or its static id.
            0 if !is_crowded => {
                self.seats[seat] = None;
                wishes.extend(self.begin(core, now, seat));
            }
            0 | 1 => wishes.extend(self.end(core, oracle, now, number, false)),
            2 => wishes.extend(self.end(core, oracle, now, number, true)),
            3 => {
                let life = self.lives.get_mut(&number).expect("it has a seat");
                life.stall(&mut self.random, now.monotonic, &self.plan);
            }
            4 => {}
            _ => wishes.extend(self.visit(core, now, seat)),
        }
        wishes
    }

    /// Asks for everything that the group has committed.
    fn inspect(&mut self, core: &mut ClientCore, now: Now, oracle: &Oracle) -> Vec<Wish> {
        if self.inspection.is_none() {
            let known = self.source_partitions().map(|partition| (partition, oracle.pipeline.committed(partition)));
            let known = known.collect::<Vec<_>>();
            let partitions = PartitionRange::of(known.iter().map(|(id, _)| (id.topic.0, id.index.0)));
            let body = FetchOffsets { group: self.group.as_str().to_owned(), after: None, partitions };
            let operation = core.request(now, Request::Group(GroupRequest::FetchOffsets(body)));
            self.inspection = Some(Inspection { operation, asked: now.monotonic, known });
        }
        vec![(INSPECTION, Todo::Pipeline(PipelineTodo::Inspect))]
    }
}

impl Inspection {
    fn check(self, oracle: &mut Oracle, answer: &FetchOffsetsAnswer) -> Result<(), Violation> {
        for (partition, known) in self.known {
            oracle.on_offset_told(partition, known, fetched(answer, partition))?;
        }
        oracle.on_inspected(self.asked);
        Ok(())
    }
}

/// The committed offset of a partition in an answer.
fn fetched(answer: &FetchOffsetsAnswer, partition: PartitionId) -> Option<Offset> {
    let is_it =
        |one: &&corelane_wire::FetchedOffset| (one.topic, one.partition) == (partition.topic.0, partition.index.0);
    answer.offsets.iter().find(is_it).map(|one| Offset(one.offset))
}
