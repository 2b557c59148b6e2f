//! Who is meant to have which partition: what a strategy says against what is.
//!
//! Strategies that keep what they can, by burdens that change only when somebody comes or goes, are asked through a balance
//! that is kept from one assignment to the next:
//!
//! ```text
//!            asked by such a strategy, without standbys
//!   (none) ─────────────────────────────────────────────▶ Kept ──┐
//!      ▲                                                   │ ▲   │ members came, went or changed:
//!      │                                                   │ └───┘ their shares alone
//!      └───────────────────────────────────────────────────┘
//!        another strategy, standbys, other subscriptions or topics, a drain, a restart
//! ```
//!
//! So a join costs what moves, not what the group is large. Whatever a kept balance rests on is held against what is before
//! it is used, and it comes to the same as one that is made anew (docs/decisions/0045-a-kept-balance.md).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_model::{MemberId, PartitionId, PartitionIndex};

use crate::assign::{Balance, Classes};
use crate::subscriptions::{SubscriptionKey, Topics};
use crate::{Candidate, Group, Phase, Problem, Strategy, assignor};

/// A member in the order of joining. Two share a seat where a crash cut a take-over in the middle.
pub(crate) type Place = (u64, MemberId);

/// A partition and who is meant to have it.
pub(crate) type Aim = (PartitionId, Option<MemberId>);

/// A balance that is kept, and what it rests on.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    balance: Balance<Place>,
    basis: Basis,
    /// The kind that members with a subscription are of.
    kinds: BTreeMap<SubscriptionKey, usize>,
}

/// While this is the same, only members that are noted in the round can have changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    strategy: Strategy,
    /// Of the distinct subscriptions.
    version: u64,
}

impl Group {
    /// Whether what was balanced before still holds for everybody but those that are noted in the round.
    pub(crate) fn is_balance_kept(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| self.basis() == Some(kept.basis))
    }

    /// What a balance would rest on that is made now; `None` if none can be kept.
    fn basis(&self) -> Option<Basis> {
        let strategy = self.settings.strategy;
        let is_open = self.phase == Phase::Open && self.settings.standbys == 0;
        (is_open && weight(strategy, 1).is_some()).then(|| Basis { strategy, version: self.subscriptions.version() })
    }

    /// The partitions whose target is to be another, in order. What was left of the last assignment is decided anew.
    pub(crate) fn moved_targets(&mut self) -> Vec<Aim> {
        let moved_anew = if cfg!(debug_assertions) { Some(self.targets_anew()) } else { None };
        let reseated = std::mem::take(&mut self.round.reseated);
        let left = std::mem::take(&mut self.aims);
        let basis = self.basis();
        let kept = self.kept.take().filter(|kept| Some(kept.basis) == basis);
        let moved = match (kept, basis) {
            (Some(kept), _) => self.balance_on(kept, &reseated, left),
            (None, Some(basis)) => self.balance_anew(basis),
            (None, None) => self.targets_anew(),
        };
        // What takes long is not asked twice where time counts; random histories and the simulator ask it.
        if let Some(anew) = moved_anew {
            assert_eq!(moved, anew, "a kept balance comes to what one that is made anew comes to");
        }
        moved
    }

    /// What moves when these members came, went or changed, and this was left to do.
    fn balance_on(&mut self, mut kept: Kept, reseated: &BTreeSet<Place>, left: VecDeque<Aim>) -> Vec<Aim> {
        let balance = &mut kept.balance;
        let mut freed = Vec::new();
        let mut unwanted = Vec::new();
        for (partition, target) in left {
            match balance.partitions().binary_search(&partition) {
                Ok(at) => {
                    balance.clear(at);
                    freed.push(at);
                }
                Err(_) => unwanted.extend(self.target_place(partition).map(|_| (partition, target))),
            }
        }
        for &place in reseated {
            freed.extend(balance.unseat(place));
            if let Some(member) = self.members.get(&place.1).filter(|member| member.seat == place.0) {
                let weight = weight(kept.basis.strategy, member.capacity).expect("a balance is kept by its weights");
                balance.seat(place, weight, kept.kinds[&member.subscription]);
            }
        }
        for at in freed {
            if let Some(place) = self.target_place(balance.partitions()[at]) {
                balance.keep(at, place);
            }
        }
        let moved = balance.settle().into_iter();
        let mut moved: Vec<Aim> = moved.map(|(at, (_, id))| (balance.partitions()[at], Some(id))).collect();
        moved.extend(unwanted);
        moved.sort_unstable();
        self.kept = Some(kept);
        moved
    }

    /// What moves, found for the whole group; the balance is kept.
    fn balance_anew(&mut self, basis: Basis) -> Vec<Aim> {
        let (union, order) = self.union_and_order();
        let partitions = partitions_of(&union);
        let kinds: BTreeMap<SubscriptionKey, usize> = self.subscriptions.keys().zip(0..).collect();
        let topics: Vec<&Topics> = kinds.keys().map(|&key| self.subscriptions.topics(key)).collect();
        let classes = Classes::new(&partitions, &topics);
        let members = order.iter().map(|id| {
            let member = &self.members[id];
            let weight = weight(basis.strategy, member.capacity).expect("the caller asked");
            ((member.seat, *id), weight, kinds[&member.subscription])
        });
        let current: Vec<Option<Place>> = partitions.iter().map(|&partition| self.target_place(partition)).collect();
        let mut balance = Balance::new(partitions, classes, members, current.iter().copied());
        balance.settle();
        let targets = (0..current.len()).map(|at| (balance.partitions()[at], current[at], balance.owner(at)));
        let moved = targets.filter(|(_, before, after)| before != after);
        let mut moved: Vec<_> = moved.map(|(partition, _, after)| (partition, after.map(|(_, id)| id))).collect();
        moved.extend(self.unwanted(&union));
        moved.sort_unstable();
        self.kept = Some(Kept { balance, basis, kinds });
        moved
    }

    /// What moves, found for the whole group by asking its strategy.
    fn targets_anew(&self) -> Vec<Aim> {
        let (union, order) = self.union_and_order();
        let partitions = partitions_of(&union);
        let places: BTreeMap<MemberId, usize> = order.iter().enumerate().map(|(at, &id)| (id, at)).collect();
        let slot = |partition: &PartitionId| self.slots.get(partition);
        let target = |partition| slot(partition).and_then(|slot| slot.hold.target());
        let current = partitions.iter().map(|partition| target(partition).map(|id| places[&id])).collect();
        let followers = |partition: &PartitionId| {
            slot(partition).map_or_else(Vec::new, |slot| slot.standbys.iter().map(|id| places[id]).collect())
        };
        let standbys =
            if self.settings.standbys == 0 { Vec::new() } else { partitions.iter().map(followers).collect() };
        let candidate = |id: &MemberId| {
            let member = &self.members[id];
            let (capacity, processing_micros) = (member.capacity, member.processing_micros);
            Candidate { capacity, processing_micros, topics: self.subscriptions.topics(member.subscription) }
        };
        let candidates = order.iter().map(candidate).collect();
        let problem = Problem { candidates, partitions, current, standbys };
        let assigned = assignor(self.settings.strategy).assign(&problem);
        problem.check(&assigned);
        let targets = problem.partitions.iter().zip(problem.current.iter().zip(&assigned));
        let moved = targets.filter(|(_, (before, after))| before != after);
        let mut moved: Vec<_> = moved.map(|(&partition, (_, after))| (partition, after.map(|at| order[at]))).collect();
        moved.extend(self.unwanted(&union));
        moved.sort_unstable();
        moved
    }

    /// Partitions that somebody is meant to have and nobody wants.
    fn unwanted(&self, union: &Topics) -> impl Iterator<Item = Aim> {
        let is_wanted =
            |partition: &PartitionId| union.get(&partition.topic).is_some_and(|&end| partition.index.0 < end);
        let meant = self.slots.iter().filter(|(_, slot)| slot.hold.target().is_some());
        meant.filter(move |(partition, _)| !is_wanted(partition)).map(|(&partition, _)| (partition, None))
    }

    /// Who is meant to have a partition.
    fn target_place(&self, partition: PartitionId) -> Option<Place> {
        let target = self.slots.get(&partition)?.hold.target()?;
        Some((self.members[&target].seat, target))
    }

    /// What the members want, and the members in the order of their seats.
    pub(crate) fn union_and_order(&self) -> (Topics, Vec<MemberId>) {
        let union = if self.phase == Phase::Open { self.subscriptions.union() } else { Topics::new() };
        let mut seats: Vec<Place> = self.members.iter().map(|(&id, member)| (member.seat, id)).collect();
        seats.sort_unstable();
        (union, seats.into_iter().map(|(_, id)| id).collect())
    }

    /// A kept balance says of each partition who is meant to have it.
    pub(crate) fn check_balance(&self) {
        let is_done = self.round.reseated.is_empty() && self.aims.is_empty();
        let Some(kept) = self.kept.as_ref().filter(|_| is_done && self.is_balance_kept()) else { return };
        for (at, &partition) in kept.balance.partitions().iter().enumerate() {
            assert_eq!(kept.balance.owner(at), self.target_place(partition), "the kept owner of {partition}");
        }
    }
}

/// What a member of this capacity weighs where a balance can be kept; `None` where more than capacity decides.
fn weight(strategy: Strategy, capacity: u32) -> Option<u64> {
    match strategy {
        Strategy::Sticky | Strategy::CooperativeSticky => Some(1),
        Strategy::Weighted => Some(u64::from(capacity)),
        Strategy::Range | Strategy::RoundRobin | Strategy::LeastResponseTime => None,
    }
}

/// The partitions of topics, in order.
fn partitions_of(topics: &Topics) -> Vec<PartitionId> {
    let of = |(&topic, &end)| (0..end).map(move |index| PartitionId::new(topic, PartitionIndex(index)));
    topics.iter().flat_map(of).collect()
}
