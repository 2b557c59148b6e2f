//! What every strategy promises, whatever the group.

use std::collections::BTreeMap;

use corelane_group::{Candidate, Problem, Strategy, assignor};
use corelane_model::limits::GROUP_SHIFT_GAIN_PERMILLE;
use corelane_model::{PartitionId, PartitionIndex, TopicId};
use proptest::prelude::{BoxedStrategy, Just, ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as Generate;

/// A problem that owns what a [`Problem`] borrows.
#[derive(Clone, Debug)]
struct Case {
    members: Vec<Member>,
    /// Partitions of topic 0, 1, …
    topics: Vec<u32>,
    /// One entry for each partition: a number that is taken modulo the members, or nobody.
    current: Vec<Option<usize>>,
    standbys: Vec<Vec<usize>>,
}

#[derive(Clone, Debug)]
struct Member {
    capacity: u32,
    processing_micros: Option<u32>,
    topics: BTreeMap<TopicId, u32>,
}

impl Case {
    fn partitions(&self) -> Vec<PartitionId> {
        let partitions = (0u64..).zip(&self.topics).flat_map(|(topic, &end)| {
            (0..end).map(move |index| PartitionId::new(TopicId(topic), PartitionIndex(index)))
        });
        partitions.filter(|partition| self.members.iter().any(|member| member.has(*partition))).collect()
    }

    fn problem(&self) -> Problem<'_> {
        let partitions = self.partitions();
        let current = (0..partitions.len()).map(|at| self.current.get(at).copied().flatten()).collect();
        let mut standbys = self.standbys.clone();
        if !standbys.is_empty() {
            standbys.resize(partitions.len(), Vec::new());
        }
        Problem { candidates: self.members.iter().map(Member::candidate).collect(), partitions, current, standbys }
    }

    fn assign(&self, strategy: Strategy) -> Vec<Option<usize>> {
        assignor(strategy).assign(&self.problem())
    }

    fn loads(&self, assigned: &[Option<usize>]) -> Vec<u64> {
        let mut loads = vec![0; self.members.len()];
        for owner in assigned.iter().flatten() {
            loads[*owner] += 1;
        }
        loads
    }

    /// The same case, with `assigned` as what everybody has.
    fn after(&self, assigned: Vec<Option<usize>>) -> Self {
        Self { current: assigned, ..self.clone() }
    }
}

impl Member {
    const fn candidate(&self) -> Candidate<'_> {
        Candidate { capacity: self.capacity, processing_micros: self.processing_micros, topics: &self.topics }
    }

    fn has(&self, partition: PartitionId) -> bool {
        self.topics.get(&partition.topic).is_some_and(|&end| partition.index.0 < end)
    }
}

/// Members that subscribe to everything.
fn alike() -> impl Generate<Value = Case> {
    cases(Just(u32::MAX).boxed())
}

/// Members that subscribe to some topics, perhaps to none.
fn different() -> impl Generate<Value = Case> {
    cases(any::<u32>().boxed())
}

fn cases(mask: BoxedStrategy<u32>) -> impl Generate<Value = Case> {
    let topics = prop::collection::vec(1u32..20, 1..5);
    let member = (mask, 1u32..9, prop::option::of(1u32..5000));
    (topics, prop::collection::vec(member, 1..9)).prop_flat_map(|(topics, members)| {
        let total: u32 = topics.iter().sum();
        let count = members.len();
        let current = prop::collection::vec(prop::option::of(0..count), total as usize);
        let standbys = prop::collection::vec(prop::collection::vec(0..count, 0..3), 0..=total as usize);
        let members: Vec<Member> = members
            .into_iter()
            .map(|(mask, capacity, processing_micros)| Member {
                capacity,
                processing_micros,
                topics: (0u64..)
                    .zip(&topics)
                    .filter(|&(topic, _)| mask >> topic & 1 == 1)
                    .map(|(topic, &end)| (TopicId(topic), end))
                    .collect(),
            })
            .collect();
        (Just(members), Just(topics), current, standbys).prop_map(|(members, topics, current, standbys)| Case {
            members,
            topics,
            current,
            standbys,
        })
    })
}

/// How many partitions could at most stay where they are while loads differ by one at most.
fn kept_at_most(case: &Case) -> u64 {
    let partitions = case.partitions().len() as u64;
    let members = case.members.len() as u64;
    let mut loads = case.loads(&case.problem().current);
    loads.sort_unstable_by(|a, b| b.cmp(a));
    let (each, longer) = (partitions / members, partitions % members);
    (0..).zip(loads).map(|(place, load)| load.min(each + u64::from(place < longer))).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn each_partition_goes_to_exactly_one_member_that_subscribes(case in different()) {
        for &strategy in Strategy::ALL {
            let assigned = case.assign(strategy);
            prop_assert_eq!(assigned.len(), case.partitions().len());
            for (partition, owner) in case.partitions().into_iter().zip(&assigned) {
                let owner = owner.expect("somebody subscribes to it");
                prop_assert!(case.members[owner].has(partition), "{strategy}: {partition} went to member {owner}");
            }
            prop_assert_eq!(&assigned, &case.assign(strategy), "{} decides by chance", strategy);
        }
    }

    #[test]
    fn loads_differ_by_one_at_most(case in alike()) {
        for strategy in [Strategy::RoundRobin, Strategy::Sticky, Strategy::CooperativeSticky] {
            let loads = case.loads(&case.assign(strategy));
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            prop_assert!(most - least <= 1, "{strategy}: {loads:?}");
        }
    }

    #[test]
    fn a_range_is_contiguous_and_balanced_in_each_topic(case in alike()) {
        let assigned = case.assign(Strategy::Range);
        let mut at = 0;
        for &end in &case.topics {
            let of_topic: Vec<_> = assigned[at..at + end as usize].iter().map(|owner| owner.unwrap()).collect();
            at += end as usize;
            prop_assert!(of_topic.is_sorted(), "{of_topic:?}");
            let count = |member| of_topic.iter().filter(|&&owner| owner == member).count();
            let counts: Vec<_> = (0..case.members.len()).map(count).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn sticky_moves_as_little_as_balance_needs(case in alike()) {
        let case = Case { standbys: Vec::new(), ..case };
        let assigned = case.assign(Strategy::Sticky);
        let kept = assigned.iter().zip(&case.problem().current).filter(|(new, old)| new == old).count() as u64;
        prop_assert_eq!(kept, kept_at_most(&case));
    }

    #[test]
    fn what_is_assigned_stays_when_nothing_changes(case in different()) {
        for &strategy in Strategy::ALL {
            let assigned = case.assign(strategy);
            prop_assert_eq!(&case.after(assigned.clone()).assign(strategy), &assigned, "{}", strategy);
        }
    }

    #[test]
    fn no_partition_could_move_to_a_member_that_is_less_burdened(case in different()) {
        for strategy in [Strategy::Sticky, Strategy::Weighted] {
            let assigned = case.assign(strategy);
            let loads = case.loads(&assigned);
            let weight = |member: usize| match strategy {
                Strategy::Weighted => u64::from(case.members[member].capacity),
                _ => 1,
            };
            for (partition, owner) in case.partitions().into_iter().zip(&assigned) {
                let owner = owner.unwrap();
                for (to, member) in case.members.iter().enumerate().filter(|&(to, _)| to != owner) {
                    let is_better = (loads[to] + 1) * weight(owner) < loads[owner] * weight(to);
                    prop_assert!(!(is_better && member.has(partition)), "{strategy}: {partition} to {to}, {loads:?}");
                }
            }
        }
    }

    #[test]
    fn response_time_moves_only_what_pays(case in alike()) {
        let before = case.assign(Strategy::Sticky);
        let settled = Case { standbys: Vec::new(), ..case.after(before.clone()) };
        let after = settled.assign(Strategy::LeastResponseTime);
        let known: Vec<u64> = settled.members.iter().filter_map(|member| member.processing_micros).map(u64::from).collect();
        let mean = known.iter().sum::<u64>().checked_div(known.len() as u64).unwrap_or(1);
        let cost = |assigned: &[Option<usize>]| {
            let loads = settled.loads(assigned);
            let micros = |member: usize| settled.members[member].processing_micros.map_or(mean, u64::from);
            (0..loads.len()).map(|member| loads[member] * micros(member)).max().unwrap()
        };
        if after == before {
            return Ok(());
        }
        // Weights are rounded to a few parts in a million.
        prop_assert!(cost(&after) <= cost(&before) + cost(&before) / 100_000, "{} to {}", cost(&before), cost(&after));
    }
}

/// Members with everything of one topic.
fn group(partitions: u32, members: &[(u32, Option<u32>)]) -> Case {
    let topics = BTreeMap::from([(TopicId(0), partitions)]);
    let member = |&(capacity, processing_micros)| Member { capacity, processing_micros, topics: topics.clone() };
    let members: Vec<Member> = members.iter().map(member).collect();
    Case { members, topics: vec![partitions], current: Vec::new(), standbys: Vec::new() }
}

#[test]
fn capacity_decides_the_share() {
    let case = group(100, &[(1, None), (3, None), (6, None)]);
    assert_eq!(case.loads(&case.assign(Strategy::Weighted)), [10, 30, 60]);
}

#[test]
fn a_slow_member_gets_less_and_small_differences_move_nothing() {
    let even = group(40, &[(1, None), (1, None)]);
    let assigned = even.assign(Strategy::LeastResponseTime);
    assert_eq!(even.loads(&assigned), [20, 20]);
    let jitter = Case { current: assigned.clone(), ..group(40, &[(1, Some(100)), (1, Some(115))]) };
    assert_eq!(jitter.assign(Strategy::LeastResponseTime), assigned, "15 % slower is no reason");
    let slow = Case { current: assigned, ..group(40, &[(1, Some(100)), (1, Some(400))]) };
    let moved = slow.assign(Strategy::LeastResponseTime);
    let loads = slow.loads(&moved);
    assert!(loads[1] <= 10 && 7 <= loads[1], "four times as slow: {loads:?}");
    let back = Case { current: moved.clone(), ..group(40, &[(1, Some(100)), (1, Some(360))]) };
    assert_eq!(back.assign(Strategy::LeastResponseTime), moved, "and a little faster again moves nothing back");
    const { assert!(GROUP_SHIFT_GAIN_PERMILLE == 200, "the figures above are for a fifth") };
}

#[test]
fn a_standby_takes_over_what_it_follows() {
    let mut case = group(6, &[(1, None), (1, None), (1, None)]);
    // Member 2 followed what somebody had who is gone, and has its room for two.
    case.current = vec![Some(0), Some(0), Some(1), Some(1), None, None];
    case.standbys = vec![vec![], vec![], vec![], vec![], vec![0, 2], vec![2]];
    assert_eq!(case.assign(Strategy::Sticky)[4..], [Some(2), Some(2)]);
}

#[test]
fn a_round_goes_on_where_the_last_topic_ended() {
    let topics = BTreeMap::from([(TopicId(0), 3), (TopicId(1), 3)]);
    let mut case = group(3, &[(1, None), (1, None)]);
    case.topics = vec![3, 3];
    case.members.iter_mut().for_each(|member| member.topics = topics.clone());
    let owners: Vec<_> = case.assign(Strategy::RoundRobin).into_iter().flatten().collect();
    assert_eq!(owners, [0, 1, 0, 1, 0, 1]);
}

#[test]
fn names_of_strategies_round_trip() {
    for &strategy in Strategy::ALL {
        assert_eq!(Strategy::parse(strategy.name()), Ok(strategy));
    }
    let error = Strategy::parse("rnage").unwrap_err().to_string();
    assert!(error.contains("\"rnage\"") && error.contains("least-response-time"), "{error}");
}
