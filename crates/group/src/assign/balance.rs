//! Keeps what it can, gives what is free to who is least burdened, and then moves as little as balance needs.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use corelane_model::PartitionId;

use crate::Problem;
use crate::assign::classes::Classes;

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

/// A member as it is weighed.
#[derive(Clone, Debug)]
struct Holder {
    weight: u64,
    load: u64,
    /// Which of the distinct subscriptions it has.
    kind: usize,
    /// What it has, by class and place.
    parts: BTreeSet<(usize, usize)>,
}

impl Holder {
    const fn burden(&self, more: u64) -> Burden {
        Burden { load: self.load + more, weight: self.weight }
    }
}

/// Partitions, named by their places in order, and who is to have them. Members are named by `M`, whose order is that of
/// joining.
///
/// It can be kept from one assignment to the next: then one costs what came and went since, not what the group is large.
/// Members are seated and unseated, and [`Balance::settle`] comes to the very owners that it would come to anew.
#[derive(Clone, Debug)]
pub(crate) struct Balance<M> {
    partitions: Vec<PartitionId>,
    owners: Vec<Option<M>>,
    classes: Classes,
    /// Of each class its subscribers by what their burden would be with one partition more, so that the least burdened is
    /// found without a search.
    by_next: Vec<BTreeSet<(Burden, M)>>,
    holders: BTreeMap<M, Holder>,
    /// All members by their burden.
    by_burden: BTreeSet<(Burden, M)>,
    /// Partitions without an owner.
    free: BTreeSet<usize>,
    /// Who had what was given to another since the last assignment.
    before: BTreeMap<usize, Option<M>>,
    /// What members have by that which they did not have before, by class and place.
    fresh: BTreeSet<(M, usize, usize)>,
}

/// Assigns `problem`'s partitions to members of these weights. A partition moves away from a member that may keep it only if
/// its new owner is then less burdened than the old one was, by `gain_permille`.
pub(super) fn balance(problem: &Problem<'_>, weights: &[u64], gain_permille: u64) -> Vec<Option<usize>> {
    let (kinds, kind_of) = problem.kinds();
    let classes = Classes::new(&problem.partitions, &kinds);
    let members = kind_of.into_iter().enumerate().map(|(member, kind)| (member, weights[member], kind));
    let mut balance = Balance::new(problem.partitions.clone(), classes, members, problem.current.iter().copied());
    if !problem.standbys.is_empty() {
        balance.prefer_standbys(&problem.standbys);
    }
    balance.fill();
    balance.shift(gain_permille);
    balance.owners
}

impl<M: Ord + Copy + std::fmt::Debug> Balance<M> {
    /// Members with their weights and kinds of subscription, in order, each of which keeps what of `current` it may have.
    pub(crate) fn new(
        partitions: Vec<PartitionId>,
        classes: Classes,
        members: impl Iterator<Item = (M, u64, usize)>,
        current: impl Iterator<Item = Option<M>>,
    ) -> Self {
        let holder = |weight: u64, kind| Holder { weight: weight.max(1), load: 0, kind, parts: BTreeSet::new() };
        let mut holders: BTreeMap<M, Holder> =
            members.map(|(member, weight, kind)| (member, holder(weight, kind))).collect();
        let mut owners = vec![None; partitions.len()];
        for (at, member) in current.enumerate() {
            let Some(holder) = member.as_ref().and_then(|member| holders.get_mut(member)) else { continue };
            if let Some(class) = classes.shared(at, holder.kind) {
                holder.parts.insert((class, at));
                holder.load += 1;
                owners[at] = member;
            }
        }
        let free = owners.iter().enumerate().filter(|(_, owner)| owner.is_none()).map(|(at, _)| at).collect();
        let by_burden = holders.iter().map(|(&member, holder)| (holder.burden(0), member)).collect();
        let mut subscribers = vec![Vec::new(); classes.len()];
        for (&member, holder) in &holders {
            for &class in classes.of_kind(holder.kind) {
                subscribers[class].push((holder.burden(1), member));
            }
        }
        let by_next = subscribers.into_iter().map(BTreeSet::from_iter).collect();
        let (before, fresh) = (BTreeMap::new(), BTreeSet::new());
        Self { partitions, owners, classes, by_next, holders, by_burden, free, before, fresh }
    }

    /// A member that has nothing yet.
    pub(crate) fn seat(&mut self, member: M, weight: u64, kind: usize) {
        let holder = Holder { weight: weight.max(1), load: 0, kind, parts: BTreeSet::new() };
        assert!(self.holders.insert(member, holder).is_none(), "member {member:?} is seated once");
        self.list(member);
    }

    /// A member goes, if it was there. What it had is free; answered with the places.
    pub(crate) fn unseat(&mut self, member: M) -> Vec<usize> {
        if !self.holders.contains_key(&member) {
            return Vec::new();
        }
        self.unlist(member);
        let holder = self.holders.remove(&member).expect("it was just there");
        let freed: Vec<usize> = holder.parts.into_iter().map(|(_, at)| at).collect();
        for &at in &freed {
            self.owners[at] = None;
            self.free.insert(at);
        }
        freed
    }

    /// A partition is free, whoever had it.
    pub(crate) fn clear(&mut self, at: usize) {
        if let (Some(member), Some(class)) = (self.owners[at], self.classes.of_place(at)) {
            self.lift(at, class, member);
        }
    }

    /// A member has a free partition already, if it may have it.
    pub(crate) fn keep(&mut self, at: usize, member: M) {
        let kind = self.holders[&member].kind;
        if let Some(class) = self.classes.shared(at, kind) {
            self.put(at, class, member);
        }
    }

    /// Gives what is free and moves what has to move; answered with what is another's now than it was, in order. Without
    /// a member that may have it a partition stays free.
    pub(crate) fn settle(&mut self) -> Vec<(usize, M)> {
        self.fill();
        self.shift(0);
        self.fresh.clear();
        let before = std::mem::take(&mut self.before);
        let owners = before.into_iter().map(|(at, before)| (at, before, self.owners[at]));
        owners.filter(|(_, before, owner)| before != owner).filter_map(|(at, _, owner)| Some((at, owner?))).collect()
    }

    /// The partitions, by their places.
    pub(crate) fn partitions(&self) -> &[PartitionId] {
        &self.partitions
    }

    /// Who is to have the partition at a place.
    pub(crate) fn owner(&self, at: usize) -> Option<M> {
        self.owners[at]
    }

    fn list(&mut self, member: M) {
        let holder = &self.holders[&member];
        self.by_burden.insert((holder.burden(0), member));
        for &class in self.classes.of_kind(holder.kind) {
            self.by_next[class].insert((holder.burden(1), member));
        }
    }

    fn unlist(&mut self, member: M) {
        let holder = &self.holders[&member];
        assert!(self.by_burden.remove(&(holder.burden(0), member)), "member {member:?} is known by its burden");
        for &class in self.classes.of_kind(holder.kind) {
            assert!(self.by_next[class].remove(&(holder.burden(1), member)), "member {member:?} is known in its class");
        }
    }

    fn holder(&mut self, member: M) -> &mut Holder {
        self.holders.get_mut(&member).expect("only members have partitions")
    }

    /// A free partition becomes a member's.
    fn put(&mut self, at: usize, class: usize, member: M) {
        assert!(self.free.remove(&at), "a partition is given once");
        self.owners[at] = Some(member);
        self.unlist(member);
        let holder = self.holder(member);
        holder.parts.insert((class, at));
        holder.load += 1;
        self.list(member);
    }

    /// A free partition becomes a member's that did not have it before, unless it is back.
    fn give(&mut self, at: usize, class: usize, member: M) {
        if *self.before.entry(at).or_insert(None) != Some(member) {
            self.fresh.insert((member, class, at));
        }
        self.put(at, class, member);
    }

    fn take(&mut self, at: usize, class: usize, member: M) {
        self.before.entry(at).or_insert(Some(member));
        self.fresh.remove(&(member, class, at));
        self.lift(at, class, member);
    }

    /// A member's partition becomes free.
    fn lift(&mut self, at: usize, class: usize, member: M) {
        assert_eq!(self.owners[at].take(), Some(member), "it is taken from who has it");
        self.free.insert(at);
        self.unlist(member);
        let holder = self.holder(member);
        assert!(holder.parts.remove(&(class, at)), "it is one of its parts");
        holder.load -= 1;
        self.list(member);
    }

    /// What is free goes to who follows it already, up to that member's share of the whole.
    fn prefer_standbys(&mut self, standbys: &[Vec<M>]) {
        let total: u128 = self.holders.values().map(|holder| u128::from(holder.weight)).sum();
        let partitions = self.owners.len() as u128;
        for at in self.free.clone() {
            let has_room = |member: &M| {
                let holder = &self.holders[member];
                let share = (partitions * u128::from(holder.weight)).div_ceil(total);
                u128::from(holder.load) < share && self.classes.shared(at, holder.kind).is_some()
            };
            let warm = standbys[at].iter().copied().filter(has_room);
            let chosen = warm.min_by_key(|member| (self.holders[member].burden(1), *member));
            if let (Some(member), Some(class)) = (chosen, self.classes.of_place(at)) {
                self.give(at, class, member);
            }
        }
    }

    /// What is free goes to who is least burdened with it.
    fn fill(&mut self) {
        for at in self.free.clone() {
            if let Some(class) = self.classes.of_place(at) {
                let &(_, member) = self.by_next[class].first().expect("a class has members");
                self.give(at, class, member);
            }
        }
    }

    /// Moves single partitions from the most burdened while that pays. Each move lowers the larger of two burdens, so it
    /// ends; the bound only turns a mistake in that reasoning into an assertion.
    fn shift(&mut self, gain_permille: u64) {
        let bound = (self.owners.len() + 1) * (self.holders.len() + 1);
        for _ in 0..bound {
            let Some((from, class, to)) = self.best_move(gain_permille) else { return };
            // What its owner did not have before moves before what it would have to give up.
            let fresh = self.fresh.range((from, class, 0)..=(from, class, usize::MAX)).next_back();
            let parts = self.holders[&from].parts.range((class, 0)..=(class, usize::MAX));
            let at = fresh.map(|&(_, _, at)| at).or_else(|| parts.last().map(|&(_, at)| at));
            let at = at.expect("only what has parts is listed");
            self.take(at, class, from);
            self.give(at, class, to);
        }
        panic!("balancing {} partitions did not end after {bound} moves", self.owners.len());
    }

    /// The move that helps the most burdened member that can be helped.
    fn best_move(&self, gain_permille: u64) -> Option<(M, usize, M)> {
        for &(burden, from) in self.by_burden.iter().rev() {
            let parts = &self.holders[&from].parts;
            let first = |class: usize| parts.range((class, 0)..).next().map(|&(class, _)| class);
            let classes = std::iter::successors(first(0), |&class| first(class + 1));
            let targets = classes.filter_map(|class| Some((self.by_next[class].first()?, class)));
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
