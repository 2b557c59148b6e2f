//! Keeps what it can, gives what is free to who is least burdened, and then moves as little as balance needs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use corelane_model::TopicId;

use crate::Problem;

/// How burdened a member is: partitions by weight. Ordered as a fraction, without rounding.
#[derive(Clone, Copy, Debug)]
struct Burden {
    load: u64,
    weight: u64,
}

impl Burden {
    /// Whether it is still less than `other` when `other` is cut by so many thousandths.
    fn is_less_by(self, other: Self, gain_permille: u64) -> bool {
        let scaled = |load: u64, permille: u64, weight: u64| u128::from(load * permille) * u128::from(weight);
        scaled(self.load, 1000, other.weight) < scaled(other.load, 1000 - gain_permille, self.weight)
    }
}

impl Ord for Burden {
    fn cmp(&self, other: &Self) -> Ordering {
        let product = |load: u64, weight: u64| u128::from(load) * u128::from(weight);
        product(self.load, other.weight).cmp(&product(other.load, self.weight))
    }
}

impl PartialOrd for Burden {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Burden {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Burden {}

/// Members that subscribe to the same topics of the problem are told apart by nothing; topics with the same subscribers
/// form one class, so that the least burdened member of a topic is found without a search.
struct Class {
    members: Vec<usize>,
    /// By what the burden would be with one partition more.
    by_burden: BTreeSet<(Burden, usize)>,
}

struct Balance<'a> {
    problem: &'a Problem<'a>,
    weights: Vec<u64>,
    loads: Vec<u64>,
    owners: Vec<Option<usize>>,
    /// Class of each partition; `None` when nobody subscribes.
    class_of: Vec<Option<usize>>,
    classes: Vec<Class>,
    /// Classes that each member belongs to.
    classes_of: Vec<Vec<usize>>,
    /// What each member has of each class.
    parts: Vec<BTreeMap<usize, BTreeSet<usize>>>,
    /// All members by their burden.
    by_burden: BTreeSet<(Burden, usize)>,
}

/// Assigns `problem`'s partitions to members of these weights, each at least 1. A partition moves away from a member that
/// may keep it only if its new owner is then less burdened than the old one was, by `gain_permille`.
pub(super) fn balance(problem: &Problem<'_>, weights: Vec<u64>, gain_permille: u64) -> Vec<Option<usize>> {
    let mut balance = Balance::new(problem, weights);
    balance.keep();
    balance.prefer_standbys();
    balance.fill();
    balance.shift(gain_permille);
    balance.owners
}

impl<'a> Balance<'a> {
    fn new(problem: &'a Problem<'a>, weights: Vec<u64>) -> Self {
        let members = problem.candidates.len();
        let mut classes: Vec<Class> = Vec::new();
        let mut known: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut class_of = vec![None; problem.partitions.len()];
        let burden = |load, member: usize| Burden { load, weight: weights[member].max(1) };
        let ends: BTreeSet<(TopicId, u32)> = problem
            .candidates
            .iter()
            .flat_map(|candidate| candidate.topics.iter().map(|(&topic, &end)| (topic, end)))
            .collect();
        for at in 0..problem.partitions.len() {
            // Neighbours have the same subscribers unless the topic changes or a subscription knows fewer partitions.
            let subscribers: Vec<usize> = if at != 0 && Self::is_alike(problem, &ends, at) {
                class_of[at] = class_of[at - 1];
                continue;
            } else {
                (0..members).filter(|&member| problem.is_eligible(member, problem.partitions[at])).collect()
            };
            if subscribers.is_empty() {
                continue;
            }
            let class = *known.entry(subscribers).or_insert_with_key(|subscribers| {
                let by_burden = subscribers.iter().map(|&member| (burden(1, member), member)).collect();
                classes.push(Class { members: subscribers.clone(), by_burden });
                classes.len() - 1
            });
            class_of[at] = Some(class);
        }
        let mut classes_of = vec![Vec::new(); members];
        for (class, entry) in classes.iter().enumerate() {
            for &member in &entry.members {
                classes_of[member].push(class);
            }
        }
        let by_burden = (0..members).map(|member| (burden(0, member), member)).collect();
        let owners = vec![None; problem.partitions.len()];
        let (loads, parts) = (vec![0; members], vec![BTreeMap::new(); members]);
        Self { problem, weights, loads, owners, class_of, classes, classes_of, parts, by_burden }
    }

    /// Whether the partition at `at` has the same subscribers as the one before it for certain. `ends` are the numbers of
    /// partitions that subscriptions know.
    fn is_alike(problem: &Problem<'_>, ends: &BTreeSet<(TopicId, u32)>, at: usize) -> bool {
        let (before, this) = (problem.partitions[at - 1], problem.partitions[at]);
        let between = (this.topic, before.index.0 + 1)..=(this.topic, this.index.0);
        before.topic == this.topic && ends.range(between).next().is_none()
    }

    fn burden(&self, member: usize, load: u64) -> Burden {
        Burden { load, weight: self.weights[member].max(1) }
    }

    fn set_load(&mut self, member: usize, load: u64) {
        let old = self.loads[member];
        let (before, after) = (self.burden(member, old), self.burden(member, load));
        assert!(self.by_burden.remove(&(before, member)), "member {member} is known by its burden");
        self.by_burden.insert((after, member));
        let (before, after) = (self.burden(member, old + 1), self.burden(member, load + 1));
        for &class in &self.classes_of[member] {
            let by_burden = &mut self.classes[class].by_burden;
            assert!(by_burden.remove(&(before, member)), "member {member} is known in its class");
            by_burden.insert((after, member));
        }
        self.loads[member] = load;
    }

    fn give(&mut self, partition: usize, class: usize, member: usize) {
        assert!(self.owners[partition].is_none(), "a partition is given once");
        self.owners[partition] = Some(member);
        self.parts[member].entry(class).or_default().insert(partition);
        self.set_load(member, self.loads[member] + 1);
    }

    fn take(&mut self, partition: usize, class: usize, member: usize) {
        assert_eq!(self.owners[partition].take(), Some(member), "it is taken from who has it");
        let parts = self.parts[member].get_mut(&class).expect("it was given");
        parts.remove(&partition);
        if parts.is_empty() {
            self.parts[member].remove(&class);
        }
        self.set_load(member, self.loads[member] - 1);
    }

    /// Everybody keeps what it has and may have.
    fn keep(&mut self) {
        for partition in 0..self.owners.len() {
            if let (Some(class), Some(member)) = (self.class_of[partition], self.problem.current[partition])
                && self.problem.is_eligible(member, self.problem.partitions[partition])
            {
                self.give(partition, class, member);
            }
        }
    }

    /// What is free goes to who follows it already, up to that member's share of the whole.
    fn prefer_standbys(&mut self) {
        if self.problem.standbys.is_empty() {
            return;
        }
        let total: u128 = self.weights.iter().map(|&weight| u128::from(weight.max(1))).sum();
        let partitions = self.owners.len() as u128;
        for partition in 0..self.owners.len() {
            let (Some(class), None) = (self.class_of[partition], self.owners[partition]) else { continue };
            let id = self.problem.partitions[partition];
            let warm = self.problem.standbys[partition].iter().copied().filter(|&member| {
                let share = (partitions * u128::from(self.weights[member].max(1))).div_ceil(total);
                u128::from(self.loads[member]) < share && self.problem.is_eligible(member, id)
            });
            if let Some(member) = warm.min_by_key(|&member| (self.burden(member, self.loads[member] + 1), member)) {
                self.give(partition, class, member);
            }
        }
    }

    /// What is free goes to who is least burdened with it.
    fn fill(&mut self) {
        for partition in 0..self.owners.len() {
            if let (Some(class), None) = (self.class_of[partition], self.owners[partition]) {
                let &(_, member) = self.classes[class].by_burden.first().expect("a class has members");
                self.give(partition, class, member);
            }
        }
    }

    /// Moves single partitions from the most burdened while that pays. Each move lowers the larger of two burdens, so it
    /// ends; the bound only turns a mistake in that reasoning into an assertion.
    fn shift(&mut self, gain_permille: u64) {
        let bound = (self.owners.len() + 1) * (self.problem.candidates.len() + 1);
        for _ in 0..bound {
            let Some((from, class, to)) = self.best_move(gain_permille) else { return };
            let parts = &self.parts[from][&class];
            // What its owner does not have yet moves before what it would have to give up.
            let is_new = |partition: &usize| self.problem.current[*partition] != Some(from);
            let partition = parts.iter().rev().copied().find(is_new).or_else(|| parts.last().copied());
            let partition = partition.expect("only what has parts is listed");
            self.take(partition, class, from);
            self.give(partition, class, to);
        }
        panic!("balancing {} partitions did not end after {bound} moves", self.owners.len());
    }

    /// The move that helps the most burdened member that can be helped.
    fn best_move(&self, gain_permille: u64) -> Option<(usize, usize, usize)> {
        for &(burden, from) in self.by_burden.iter().rev() {
            let classes = self.parts[from].keys();
            let targets = classes.filter_map(|&class| Some((self.classes[class].by_burden.first()?, class)));
            let Some((&(after, to), class)) = targets.min() else { continue };
            if to != from && after.is_less_by(burden, gain_permille) {
                return Some((from, class, to));
            }
            if self.classes.len() == 1 {
                // The most burdened and the least burdened of all do not pay, so no other two do.
                return None;
            }
        }
        None
    }
}
