//! Members of a consumer group: they join, work, commit, give up, leave, die and come back.

mod news;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{ClientCore, CommitKey, CommitOffset, GroupKey, GroupSettings, SubscriptionKey};
use corelane_model::{Generation, GroupName, Now, Offset, PartitionId, PartitionIndex, ResetPolicy, StartAt, StaticId};

use super::{Client, Todo, Wish};
use crate::oracle::groups::MemberName;
use crate::{ClientPlan, GroupPlan, Oracle, Random, Scenario};

/// Readers of members are numbered from here on, apart from those of clients.
const READERS_FROM: u32 = 1_000;
/// Numbers for the readers of one client.
const READERS_EACH: u32 = 100_000;

/// Something that the application of a member wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupTodo {
    /// Become a member in this seat, if nobody is there.
    Join { seat: usize },
    /// Leave, die, or come a second time.
    Disturb,
    /// Say what is done.
    Commit,
    /// The records of a turn before this offset are done.
    Finish { member: GroupKey, partition: PartitionId, turn: Generation, next: Offset, of: (SubscriptionKey, u64) },
    /// Move on from what was asked back.
    GiveUp { member: GroupKey, partition: PartitionId, turn: Generation },
    /// Read on after what was read with has ended.
    ReadOn { member: GroupKey, partition: PartitionId, turn: Generation },
}

/// A partition's time with a member, as its application sees it.
#[derive(Debug)]
struct Turn {
    turn: Generation,
    /// Under which id the member got it.
    name: MemberName,
    reader: u32,
    /// The next record that will come.
    next: Offset,
    /// Everything before it is done.
    finished: Offset,
    /// It is to be committed up to here.
    committed: Option<Offset>,
    subscription: Option<SubscriptionKey>,
}

/// One membership.
#[derive(Debug)]
struct Member {
    seat: usize,
    turns: BTreeMap<PartitionId, Turn>,
    /// Commits of which nothing was heard.
    commits: Vec<(CommitKey, PartitionId, Offset)>,
}

/// The memberships of one client. A seat is a member's place across its lives.
#[derive(Debug)]
pub(super) struct GroupWorker {
    plan: GroupPlan,
    group: GroupName,
    client: u32,
    random: Random,
    seats: Vec<Option<GroupKey>>,
    /// Those in seats, and those whose seat another took while they lived.
    members: BTreeMap<GroupKey, Member>,
    subscriptions: BTreeMap<SubscriptionKey, (GroupKey, PartitionId)>,
    readers: u32,
    /// How often it is to be disturbed.
    disturbances: u64,
    /// Faults are over: nobody leaves or dies any more.
    is_calm: bool,
    /// Its group is not looked at any more.
    is_retired: bool,
}

impl Client {
    /// The clients that have members of the scenario's group.
    pub(super) fn members_of_groups(first: usize, scenario: &Scenario) -> Vec<Self> {
        let Some(plan) = &scenario.group else { return Vec::new() };
        let idle = ClientPlan::idle();
        let member = |nth: u32| {
            let number = u32::try_from(first).expect("few clients") + nth;
            let seed = plan.seed ^ u64::from(nth);
            let worker = GroupWorker {
                plan: plan.clone(),
                group: GroupName::parse("workers").expect("a name"),
                client: nth,
                random: Random::new(seed),
                seats: vec![None; plan.members],
                members: BTreeMap::new(),
                subscriptions: BTreeMap::new(),
                readers: 0,
                disturbances: plan.disturbances,
                is_calm: false,
                is_retired: false,
            };
            Self { group: Some(worker), ..Self::new(number, idle, seed, scenario, false) }
        };
        (0..plan.clients).map(member).collect()
    }

    /// Whether it is a member of something, and does nothing else.
    pub(crate) const fn is_member(&self) -> bool {
        self.group.is_some()
    }

    /// Nothing that it is a member of is looked at any more.
    pub(crate) fn retire(&mut self) {
        if let Some(worker) = &mut self.group {
            worker.is_retired = true;
            worker.members.keys().for_each(|&member| self.core.abandon_group(member));
        }
        self.retire_from_queue();
        if let Some(operator) = &mut self.operator {
            operator.retire();
        }
    }

    /// All topics are known: members join.
    pub(super) fn begin_party(&mut self) -> Vec<Wish> {
        let Some(worker) = &mut self.group else { return Vec::new() };
        let seats = (0..worker.seats.len()).map(|seat| GroupTodo::Join { seat });
        let all = seats.chain([GroupTodo::Disturb, GroupTodo::Commit]).collect::<Vec<_>>();
        all.into_iter().map(|todo| worker.soon(500, todo)).collect()
    }

    /// Does something that the application of a member wants.
    pub(super) fn act_in_group(&mut self, now: Now, oracle: &mut Oracle, todo: GroupTodo) -> Vec<Wish> {
        let worker = self.group.as_mut().expect("only members do that");
        if worker.is_retired {
            return Vec::new();
        }
        match todo {
            GroupTodo::Join { seat } => {
                if worker.seats[seat].is_none() {
                    let topics = worker.plan.topics.iter().map(|&topic| self.topics[topic].0.clone()).collect();
                    worker.join(&mut self.core, now, seat, topics);
                }
                Vec::new()
            }
            GroupTodo::Disturb => {
                let topics = worker.plan.topics.iter().map(|&topic| self.topics[topic].0.clone()).collect();
                worker.disturb(&mut self.core, now, oracle, topics)
            }
            GroupTodo::Commit => worker.commit(&mut self.core, now),
            GroupTodo::Finish { member, partition, turn, next, of } => {
                self.core.consumed(of.0, of.1);
                worker.finish(&mut self.core, now, (member, partition, turn), next);
                Vec::new()
            }
            GroupTodo::GiveUp { member, partition, turn } => {
                worker.give_up(&mut self.core, oracle, (member, partition, turn));
                Vec::new()
            }
            GroupTodo::ReadOn { member, partition, turn } => {
                worker.read_on(&mut self.core, (member, partition, turn));
                Vec::new()
            }
        }
    }

    /// What of its group has not come to rest, if anything.
    pub(crate) fn restless_party(&self, oracle: &Oracle) -> Option<String> {
        let worker = self.group.as_ref().filter(|worker| !worker.is_retired)?;
        let number = self.number;
        if worker.seats.iter().any(Option::is_none) {
            return Some(format!("client {number} has a seat without a member"));
        }
        let group = worker.group.as_str();
        let infos = worker.plan.topics.iter().filter_map(|&topic| self.topics[topic].2.as_ref());
        let partitions = infos
            .flat_map(|info| (0..info.partitions()).map(|index| PartitionId::new(info.topic, PartitionIndex(index))));
        partitions.into_iter().find_map(|partition| {
            let workers = oracle.groups.workers(group, partition);
            let (committed, end) = (oracle.groups.committed(group, partition), oracle.durable_end(partition));
            if workers != 1 {
                return Some(format!("{workers} members of {group} work on {partition}"));
            }
            let is_done = end == Offset::ZERO || Some(end) <= committed;
            (!is_done).then(|| format!("{group} has done {partition} to {committed:?}, not to {end}"))
        })
    }
}

impl GroupWorker {
    pub(super) const fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// Whether it was disturbed as often as it is to be.
    pub(super) const fn is_through(&self) -> bool {
        self.disturbances == 0
    }

    /// A wish for some moment in so many milliseconds.
    fn soon(&mut self, most_ms: u64, todo: GroupTodo) -> Wish {
        (Duration::from_micros(self.random.skewed(1..most_ms * 1_000)), Todo::Group(todo))
    }

    fn turn(&mut self, (member, partition, turn): (GroupKey, PartitionId, Generation)) -> Option<&mut Turn> {
        let member = self.members.get_mut(&member)?;
        member.turns.get_mut(&partition).filter(|found| found.turn == turn)
    }

    fn join(&mut self, core: &mut ClientCore, now: Now, seat: usize, topics: Vec<corelane_model::TopicName>) {
        let static_id = format!("seat-{}-{seat}", self.client);
        let mut settings = GroupSettings::new(self.group.clone());
        settings.topics = topics;
        settings.strategy = Some(self.plan.strategy);
        settings.static_id = self.plan.is_static.then(|| StaticId::parse(&static_id).expect("an id"));
        settings.session_timeout = self.plan.session_timeout;
        settings.rebalance_timeout = self.plan.rebalance_timeout;
        settings.reset = ResetPolicy::Earliest;
        settings.auto_commit = self.plan.auto_commit;
        settings.credit_bytes = self.random.skewed(2_000..400_000);
        let key = core.join_group(now, settings);
        self.members.insert(key, Member { seat, turns: BTreeMap::new(), commits: Vec::new() });
        self.seats[seat] = Some(key);
    }

    /// Takes a member out of its seat in one of many ways, while faults happen.
    fn disturb(
        &mut self,
        core: &mut ClientCore,
        now: Now,
        oracle: &mut Oracle,
        topics: Vec<corelane_model::TopicName>,
    ) -> Vec<Wish> {
        if self.is_calm {
            return Vec::new();
        }
        let every = u64::try_from(self.plan.disturb_every.as_millis()).expect("seconds");
        let mut wishes = vec![self.soon(every * 2, GroupTodo::Disturb)];
        let seat = self.random.index(self.seats.len());
        let Some(key) = self.seats[seat] else { return wishes };
        self.disturbances = self.disturbances.saturating_sub(1);
        match self.random.within(0..4) {
            // It goes on to work until it hears that another has its static id.
            0 if self.plan.is_static => self.join(core, now, seat, topics),
            0 | 1 => {
                self.stop(oracle, key);
                let is_restarting = self.plan.is_static && self.random.is_one_in(2);
                core.leave_group(now, key, is_restarting);
                self.members.remove(&key);
                self.seats[seat] = None;
                wishes.push(self.soon(2_000, GroupTodo::Join { seat }));
            }
            2 => {
                self.stop(oracle, key);
                core.abandon_group(key);
                self.members.remove(&key);
                self.seats[seat] = None;
                wishes.push(self.soon(2_000, GroupTodo::Join { seat }));
            }
            _ => {}
        }
        wishes
    }

    /// A member works on nothing any more.
    fn stop(&mut self, oracle: &mut Oracle, key: GroupKey) {
        let Some(member) = self.members.get(&key) else { return };
        let partitions = member.turns.keys().copied().collect::<Vec<_>>();
        partitions.into_iter().for_each(|partition| self.end_turn(oracle, key, partition));
    }

    fn end_turn(&mut self, oracle: &mut Oracle, key: GroupKey, partition: PartitionId) {
        let member = self.members.get_mut(&key);
        let Some(turn) = member.and_then(|member| member.turns.remove(&partition)) else { return };
        if let Some(subscription) = turn.subscription {
            self.subscriptions.remove(&subscription);
        }
        oracle.on_reader_gone(turn.reader, partition);
        oracle.groups.on_stopped(self.group.as_str(), partition, turn.name);
    }

    /// Commits what is done, or owes it to the automatic commit.
    fn commit(&mut self, core: &mut ClientCore, now: Now) -> Vec<Wish> {
        for (&key, member) in &mut self.members {
            let mut offsets = Vec::new();
            for (&partition, turn) in &mut member.turns {
                if Some(turn.finished) <= turn.committed || turn.finished == Offset::ZERO {
                    continue;
                }
                if self.plan.auto_commit.is_some() {
                    core.finished(now, key, partition, turn.turn, turn.finished);
                } else {
                    turn.committed = Some(turn.finished);
                    let (turn, offset) = (turn.turn, turn.finished);
                    offsets.push(CommitOffset { partition, turn, offset, metadata: String::new() });
                }
            }
            let asked = offsets.iter().map(|of| (of.partition, of.offset)).collect::<Vec<_>>();
            if !offsets.is_empty()
                && let Some(commit) = core.commit(key, offsets)
            {
                member.commits.extend(asked.into_iter().map(|(partition, offset)| (commit, partition, offset)));
            }
        }
        vec![self.soon(500, GroupTodo::Commit)]
    }

    fn finish(&mut self, core: &mut ClientCore, now: Now, of: (GroupKey, PartitionId, Generation), next: Offset) {
        let is_automatic = self.plan.auto_commit.is_some();
        let Some(turn) = self.turn(of) else { return };
        turn.finished = turn.finished.max(next);
        if is_automatic {
            let finished = turn.finished;
            core.finished(now, of.0, of.1, of.2, finished);
        }
    }

    /// Gives up what was asked back, mostly with a word for the next owner.
    fn give_up(&mut self, core: &mut ClientCore, oracle: &mut Oracle, of: (GroupKey, PartitionId, Generation)) {
        if self.turn(of).is_none() {
            return;
        }
        let (key, partition, turn) = of;
        self.end_turn(oracle, key, partition);
        let word = format!("{partition} {turn}");
        core.give_up(key, partition, self.random.is_one_in(2).then(|| Bytes::from(word)));
    }

    fn read_on(&mut self, core: &mut ClientCore, of: (GroupKey, PartitionId, Generation)) {
        let Some(turn) = self.turn(of) else { return };
        let next = turn.next;
        let start = if next == Offset::ZERO { StartAt::Earliest } else { StartAt::Offset(next) };
        let subscription = core.seek(of.0, of.1, of.2, start);
        self.turn(of).expect("just looked at").subscription = subscription;
        if let Some(subscription) = subscription {
            self.subscriptions.insert(subscription, (of.0, of.1));
        }
    }

    fn fresh_reader(&mut self) -> u32 {
        self.readers += 1;
        READERS_FROM + self.client * READERS_EACH + self.readers
    }
}
