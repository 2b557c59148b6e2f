//! A group whose members come, go and change round by round comes to what its strategy comes to when it is asked once about
//! all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_group::{
    Candidate, Effect, Group, GroupName, Join, Leave, Problem, Report, RequestTicket, Settings, StaticId, Strategy,
    Subscription, TopicShape, assignor,
};
use corelane_model::{MemberId, MonotonicNanos, Now, PartitionId, PartitionIndex, TopicId, TopicName, WallMillis};
use proptest::prelude::{ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as Generate;

/// Partitions of the topics `t0` and `t1`.
const TOPICS: [u32; 2] = [13, 6];
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
    /// Everybody does what it was told, or a few only.
    Obey(usize),
    Finish,
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
        8 => proptest::prelude::Just(Step::Finish),
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
    next: u128,
}

impl Crowd {
    fn new(strategy: Strategy) -> Self {
        let now = Now { monotonic: MonotonicNanos(1), wall: WallMillis(1) };
        let name = GroupName::parse("crowd").expect("it is sound");
        let group = Group::new(now, name, Settings { strategy, ..Settings::default() }).expect("it is sound");
        Self { group, strategy, now, members: Vec::new(), next: 0 }
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
            }
            Step::Leave(at) if count != 0 => {
                let id = self.members.remove(at % count).id;
                self.group.leave(self.now, RequestTicket(1), id, Leave::ForGood).expect("it is a member");
            }
            Step::Rejoin { at, topics, capacity } | Step::TakeOver { at, topics, capacity } if count != 0 => {
                let is_same = matches!(step, Step::Rejoin { .. });
                let id = if is_same { self.members[at % count].id } else { self.fresh_id() };
                let static_id = self.members[at % count].static_id.clone();
                let member = Member { id, static_id, topics: topics_of(topics), capacity };
                self.ask(&member);
                self.members[at % count] = member;
            }
            Step::Obey(each) => self.obey(each % 3 + 1),
            Step::Finish => self.finish(),
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

    /// Ends the round; the targets are then what the strategy says of what there was before.
    fn finish(&mut self) {
        let partitions: Vec<PartitionId> =
            (0..2).flat_map(|topic| (0..TOPICS[topic]).map(move |at| (topic as u64, at))).map(named).collect();
        let is_wanted = |at: &PartitionId| self.members.iter().any(|member| member.topics.contains_key(&at.topic));
        let partitions: Vec<PartitionId> = partitions.into_iter().filter(is_wanted).collect();
        let target = |at: &PartitionId| self.group.slot(*at).and_then(|slot| slot.hold.target());
        let place = |id: MemberId| self.members.iter().position(|member| member.id == id).expect("it is a member");
        let problem = Problem {
            candidates: self.members.iter().map(Member::candidate).collect(),
            current: partitions.iter().map(|at| target(at).map(place)).collect(),
            standbys: Vec::new(),
            partitions,
        };
        let assigned = assignor(self.strategy).assign(&problem);
        let wanted: BTreeMap<PartitionId, Option<MemberId>> = problem
            .partitions
            .iter()
            .copied()
            .zip(assigned.iter().map(|owner| owner.map(|at| self.members[at].id)))
            .collect();
        self.group.finish_round(self.now);
        for (&partition, owner) in &wanted {
            let target = self.group.slot(partition).and_then(|slot| slot.hold.target());
            assert_eq!(target, *owner, "{partition} is meant for another than the strategy says");
        }
        for (partition, slot) in self.group.slots() {
            assert!(slot.hold.target().is_none() || wanted.contains_key(&partition), "nobody wants {partition}");
        }
        self.group.on_durable(self.group.appended());
        while let Some(effect) = self.group.poll_effect() {
            assert!(!matches!(effect, Effect::Remove), "nobody deletes it");
        }
        self.now.monotonic = self.now.monotonic.after(Duration::from_millis(1));
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
        crowd.finish();
        crowd.obey(1);
        crowd.finish();
    }
}
