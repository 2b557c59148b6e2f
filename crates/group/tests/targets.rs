//! A group whose members come, go and change round by round, and which does what there is to do in steps, comes to what its
//! strategy comes to when it is asked once about all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_group::{
    Candidate, Effect, Group, GroupName, Join, Leave, Problem, Report, RequestTicket, Settings, StaticId, Strategy,
    Subscription, TopicShape, assignor,
};
use corelane_model::limits::GROUP_STEP_MAX;
use corelane_model::{MemberId, MonotonicNanos, Now, PartitionId, PartitionIndex, TopicId, TopicName, WallMillis};
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as Generate;

/// Partitions of the topics `t0` and `t1`.
const TOPICS: [u32; 2] = [57, 20];
const MEMBERS_MAX: usize = 24;

#[derive(Clone, Debug)]
enum Step {
    /// Somebody joins who subscribes to the topics of these bits.
    Join {
        topics: u8,
        capacity: u32,
    },
    Leave(usize),
    /// A member wants something else from now on.
    Rejoin {
        at: usize,
        topics: u8,
        capacity: u32,
    },
    /// A new process with the static id of a member.
    TakeOver {
        at: usize,
        topics: u8,
        capacity: u32,
    },
    /// Everybody has heard of the newest generation and does what it says, or a few only.
    Obey(usize),
    Finish,
    /// The round ends, and so many partitions are moved.
    FinishPart(usize),
}

fn step() -> impl Generate<Value = Step> {
    let (who, topics, capacity) = (any::<usize>(), 1u8..4, 1u32..4);
    let wish = (who, topics.clone(), capacity.clone());
    prop_oneof![
        6 => (topics, capacity).prop_map(|(topics, capacity)| Step::Join { topics, capacity }),
        3 => who.prop_map(Step::Leave),
        1 => wish.clone().prop_map(|(at, topics, capacity)| Step::Rejoin { at, topics, capacity }),
        1 => wish.prop_map(|(at, topics, capacity)| Step::TakeOver { at, topics, capacity }),
        3 => who.prop_map(Step::Obey),
        4 => Just(Step::Finish),
        6 => (1usize..6).prop_map(Step::FinishPart),
    ]
}

struct Member {
    id: MemberId,
    static_id: StaticId,
    topics: BTreeMap<TopicId, u32>,
    capacity: u32,
}

impl Member {
    const fn candidate(&self) -> Candidate<'_> {
        Candidate { capacity: self.capacity, processing_micros: None, topics: &self.topics }
    }
}

struct Crowd {
    group: Group,
    strategy: Strategy,
    now: Now,
    /// In the order of joining.
    members: Vec<Member>,
    /// What the assignment under way comes to; nothing if it has to be decided anew.
    planned: Option<BTreeMap<PartitionId, MemberId>>,
    next: u128,
}

impl Crowd {
    fn new(strategy: Strategy) -> Self {
        let now = Now { monotonic: MonotonicNanos(1), wall: WallMillis(1) };
        let name = GroupName::parse("crowd").expect("it is sound");
        let group = Group::new(now, name, Settings { strategy, ..Settings::default() }).expect("it is sound");
        Self { group, strategy, now, members: Vec::new(), planned: None, next: 0 }
    }

    fn fresh_id(&mut self) -> MemberId {
        self.next += 1;
        // Ids are not in the order of joining.
        MemberId(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn ask(&mut self, member: &Member) {
        let number = |topic: &TopicId| TopicName::parse(&format!("t{}", topic.0)).expect("it is sound");
        let subscription = Subscription { topics: member.topics.keys().map(number).collect(), pattern: None };
        let shapes = member.topics.iter().map(|(&topic, &partitions)| TopicShape { topic, partitions });
        let join = Join {
            static_id: Some(member.static_id.clone()),
            capacity: member.capacity,
            ..Join::new(member.id, subscription, shapes.collect())
        };
        self.group.join(self.now, RequestTicket(1), join).expect("it is sound");
    }

    fn apply(&mut self, step: &Step) {
        let count = self.members.len();
        match *step {
            Step::Join { topics, capacity } if count < MEMBERS_MAX => {
                let id = self.fresh_id();
                let static_id = StaticId::parse(&format!("s{}", self.next)).expect("it is sound");
                let member = Member { id, static_id, topics: topics_of(topics), capacity };
                self.ask(&member);
                self.members.push(member);
                self.planned = None;
            }
            Step::Leave(at) if count != 0 => {
                let id = self.members.remove(at % count).id;
                self.group.leave(self.now, RequestTicket(1), id, Leave::ForGood).expect("it is a member");
                self.planned = None;
            }
            Step::Rejoin { at, topics, capacity } | Step::TakeOver { at, topics, capacity } if count != 0 => {
                let is_same = matches!(step, Step::Rejoin { .. });
                let id = if is_same { self.members[at % count].id } else { self.fresh_id() };
                let static_id = self.members[at % count].static_id.clone();
                let member = Member { id, static_id, topics: topics_of(topics), capacity };
                self.ask(&member);
                let before = std::mem::replace(&mut self.members[at % count], member);
                let after = &self.members[at % count];
                if (before.id, before.topics, before.capacity) != (after.id, after.topics.clone(), after.capacity) {
                    self.planned = None;
                }
            }
            Step::Obey(each) => self.obey(each % 3 + 1),
            Step::Finish => self.finish(None),
            Step::FinishPart(step) => self.finish(Some(step)),
            _ => {}
        }
    }

    /// Every so many-th member works on what it is meant to have, and on nothing else.
    fn obey(&mut self, each: usize) {
        for at in (0..self.members.len()).step_by(each) {
            let id = self.members[at].id;
            let mine = self.group.slots().filter(|(_, slot)| slot.hold.owner() == id);
            let holds: Vec<PartitionId> =
                mine.filter(|(_, slot)| slot.hold.target() == Some(id)).map(|(partition, _)| partition).collect();
            let report = Report { seen: self.group.generation(), holds: Some(&holds), processing_micros: None };
            self.group.heartbeat(self.now, id, report).expect("it is a member");
        }
    }

    /// Ends the round and does so much of what there is to do, or all.
    fn finish(&mut self, step: Option<usize>) {
        if self.planned.is_none() {
            self.planned = Some(self.plan());
        }
        let before = self.targets();
        for _ in 0..step.map_or(100, |_| 1) {
            self.group.finish_step(self.now, step.unwrap_or(GROUP_STEP_MAX));
            self.group.on_durable(self.group.appended());
            while let Some(effect) = self.group.poll_effect() {
                assert!(!matches!(effect, Effect::Remove), "nobody deletes it");
            }
            self.now.monotonic = self.now.monotonic.after(Duration::from_millis(1));
        }
        let (after, planned) = (self.targets(), self.planned.as_ref().expect("it was just made"));
        let Some(step) = step else {
            assert!(!self.group.is_unfinished(), "a hundred rounds were not enough");
            return assert_eq!(&after, planned, "another is meant to have it than the strategy says");
        };
        let changed = |at: &&PartitionId| before.get(*at) != after.get(*at);
        let all: BTreeSet<&PartitionId> = before.keys().chain(after.keys()).collect();
        assert!(all.iter().copied().filter(changed).count() <= step, "a step has its bound");
        for at in all.iter().copied().filter(changed) {
            assert_eq!(after.get(at), planned.get(at), "{at} is meant for another than the strategy says");
        }
    }

    /// Who is meant to have what.
    fn targets(&self) -> BTreeMap<PartitionId, MemberId> {
        self.group.slots().filter_map(|(partition, slot)| Some((partition, slot.hold.target()?))).collect()
    }

    /// What the strategy says of what there is, asked once about all of it.
    fn plan(&self) -> BTreeMap<PartitionId, MemberId> {
        let partitions = (0..2).flat_map(|topic| (0..TOPICS[topic]).map(move |at| (topic as u64, at))).map(named);
        let is_wanted = |at: &PartitionId| self.members.iter().any(|member| member.topics.contains_key(&at.topic));
        let partitions: Vec<PartitionId> = partitions.filter(is_wanted).collect();
        let place = |id: &MemberId| self.members.iter().position(|member| member.id == *id).expect("it is a member");
        let targets = self.targets();
        let problem = Problem {
            candidates: self.members.iter().map(Member::candidate).collect(),
            current: partitions.iter().map(|at| targets.get(at).map(place)).collect(),
            standbys: Vec::new(),
            partitions,
        };
        let assigned = assignor(self.strategy).assign(&problem);
        let owners = assigned.into_iter().map(|owner| self.members[owner.expect("somebody wants it")].id);
        problem.partitions.iter().copied().zip(owners).collect()
    }
}

fn named((topic, index): (u64, u32)) -> PartitionId {
    PartitionId::new(TopicId(topic), PartitionIndex(index))
}

fn topics_of(bits: u8) -> BTreeMap<TopicId, u32> {
    let chosen = (0..2).filter(|topic| bits >> topic & 1 == 1);
    chosen.map(|topic: usize| (TopicId(topic as u64), TOPICS[topic])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn assigned_bit_by_bit_is_what_would_be_assigned_at_once(
        strategy in 0usize..3,
        is_alike in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let strategies = [Strategy::Sticky, Strategy::Weighted, Strategy::LeastResponseTime];
        let mut crowd = Crowd::new(strategies[strategy]);
        for mut step in steps {
            if let Step::Join { topics, .. } | Step::Rejoin { topics, .. } | Step::TakeOver { topics, .. } = &mut step
                && is_alike
            {
                *topics = 3;
            }
            crowd.apply(&step);
        }
        crowd.finish(None);
        crowd.obey(1);
        crowd.finish(None);
    }
}
