//! Who gets which partition: one trait, pure functions.

mod balance;
mod classes;
mod range;
mod round_robin;
mod strategies;

use std::collections::BTreeMap;

use corelane_model::{PartitionId, TopicId};

pub(crate) use balance::Balance;
pub(crate) use classes::Classes;
pub use range::Range;
pub use round_robin::RoundRobin;
pub use strategies::{CooperativeSticky, LeastResponseTime, Sticky, Weighted};

use crate::Strategy;

/// A member as a strategy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What it declared.
    pub capacity: u32,
    /// Microseconds that it takes for a record, if it said so.
    pub processing_micros: Option<u32>,
    /// The topics that it subscribes to.
    pub topics: &'a BTreeMap<TopicId, u32>,
}

/// What is to be assigned. Members are named by their place in `candidates`, which is the order in which they joined.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// The members.
    pub candidates: Vec<Candidate<'a>>,
    /// The partitions of all topics that somebody subscribes to, in order, each once.
    pub partitions: Vec<PartitionId>,
    /// Who is meant to have each of them now.
    pub current: Vec<Option<usize>>,
    /// Who follows each of them; may be left empty.
    pub standbys: Vec<Vec<usize>>,
}

/// A rule by which partitions are assigned.
pub trait Assignor {
    /// For each partition the member that is to have it: always one that subscribes to its topic, and `None` only when
    /// nobody does. The same problem always gives the same answer.
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>>;
}

/// The function of a strategy.
#[must_use]
pub const fn assignor(strategy: Strategy) -> &'static dyn Assignor {
    match strategy {
        Strategy::Range => &Range,
        Strategy::RoundRobin => &RoundRobin,
        Strategy::Sticky => &Sticky,
        Strategy::CooperativeSticky => &CooperativeSticky,
        Strategy::Weighted => &Weighted,
        Strategy::LeastResponseTime => &LeastResponseTime,
    }
}

impl Problem<'_> {
    /// Whether a member may have a partition.
    #[must_use]
    pub fn is_eligible(&self, candidate: usize, partition: PartitionId) -> bool {
        self.candidates[candidate].topics.get(&partition.topic).is_some_and(|&end| partition.index.0 < end)
    }

    /// Each topic with the range of its partitions in `partitions`.
    pub(crate) fn topics(&self) -> Vec<(TopicId, std::ops::Range<usize>)> {
        let mut topics: Vec<(TopicId, std::ops::Range<usize>)> = Vec::new();
        for (at, partition) in self.partitions.iter().enumerate() {
            match topics.last_mut() {
                Some((topic, range)) if *topic == partition.topic => range.end = at + 1,
                _ => topics.push((partition.topic, at..at + 1)),
            }
        }
        topics
    }

    /// Who subscribes to a topic, in the order of joining.
    pub(crate) fn subscribers(&self, topic: TopicId) -> Vec<usize> {
        (0..self.candidates.len()).filter(|&at| self.candidates[at].topics.contains_key(&topic)).collect()
    }

    /// The distinct subscriptions, and which of them each member has.
    pub(crate) fn kinds(&self) -> (Vec<&BTreeMap<TopicId, u32>>, Vec<usize>) {
        let mut kinds: Vec<&BTreeMap<TopicId, u32>> = Vec::new();
        let mut known: BTreeMap<&BTreeMap<TopicId, u32>, usize> = BTreeMap::new();
        let mut kind_of: Vec<usize> = Vec::with_capacity(self.candidates.len());
        for candidate in &self.candidates {
            // Neighbours often share one, which need not be compared then.
            let last = kind_of.last().copied().filter(|&kind| std::ptr::eq(kinds[kind], candidate.topics));
            kind_of.push(last.unwrap_or_else(|| {
                *known.entry(candidate.topics).or_insert_with(|| {
                    kinds.push(candidate.topics);
                    kinds.len() - 1
                })
            }));
        }
        (kinds, kind_of)
    }

    /// What an assignment must keep; strategies are ours, so a breach is a bug.
    pub(crate) fn check(&self, assigned: &[Option<usize>]) {
        assert_eq!(assigned.len(), self.partitions.len(), "each partition is assigned or left out knowingly");
        for (&partition, &owner) in self.partitions.iter().zip(assigned) {
            if let Some(owner) = owner {
                assert!(self.is_eligible(owner, partition), "partition {partition} went to a member without its topic");
            }
        }
    }
}
