//! What a member has: told as a whole, compared with what it had.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::{Generation, MonotonicNanos, Offset, PartitionId, TopicName};

use crate::SubscriptionKey;

/// How far a member is with a partition.
///
/// ```text
///            assigned            asked back              the application has moved on
///   (other) ─────────▶ Owned ──────────────▶ Revoking ─────────────────────────────▶ (other)
///      ▲                 │                      │
///      └─────────────────┴── lost: fenced, or not among what it was told ──┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It works on it.
    Owned,
    /// It finishes, and is put out if it has not by then.
    Revoking { deadline: MonotonicNanos },
}

/// A partition that a member has.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) topic: TopicName,
    pub(crate) since: Generation,
    pub(crate) committed: Option<Offset>,
    /// How far the application had followed it before.
    pub(crate) followed: Option<Offset>,
    pub(crate) phase: Phase,
    pub(crate) subscription: Option<SubscriptionKey>,
    /// What was finished and is not on its way to be committed.
    pub(crate) owed: Option<Offset>,
    /// Whether an offset is committed or on its way, so that whoever comes next finds one.
    pub(crate) is_placed: bool,
}

/// Everything that a member has, as it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) generation: Generation,
    /// Names of the topics that it speaks of.
    pub(crate) topics: BTreeMap<corelane_model::TopicId, TopicName>,
    pub(crate) owned: Vec<(PartitionId, Generation, Option<Offset>)>,
    pub(crate) revoking: Vec<Revoked>,
    pub(crate) standby: Vec<PartitionId>,
}

/// A partition that a member is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) partition: PartitionId,
    /// The turn that is to end.
    pub(crate) since: Generation,
    pub(crate) deadline: MonotonicNanos,
}

/// What an assignment changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) lost: Vec<PartitionId>,
    pub(crate) revoking: Vec<Revoked>,
    pub(crate) begun: Vec<PartitionId>,
}

/// All partitions that a member has, and what was left for it.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    pub(crate) held: BTreeMap<PartitionId, Held>,
    blobs: BTreeMap<PartitionId, Bytes>,
}

impl Holding {
    /// What the old owner of a partition left comes before the assignment that names the partition.
    pub(crate) fn on_hand_over(&mut self, partition: PartitionId, blob: Bytes) {
        if !self.held.contains_key(&partition) {
            self.blobs.insert(partition, blob);
        }
    }

    pub(crate) fn take_blob(&mut self, partition: PartitionId) -> Option<Bytes> {
        self.blobs.remove(&partition)
    }

    /// Takes on what was told. What was lost is still in `held`, so that its subscription can be ended, unless it has
    /// begun anew.
    pub(crate) fn compare(&self, told: &Assignment) -> Difference {
        let owned: BTreeMap<PartitionId, Generation> = told.owned.iter().map(|&(p, since, _)| (p, since)).collect();
        let revoking: BTreeMap<PartitionId, Revoked> = told.revoking.iter().map(|&one| (one.partition, one)).collect();
        let mut difference = Difference::default();
        for (&partition, held) in &self.held {
            match (owned.get(&partition), revoking.get(&partition)) {
                (Some(&since), _) if since == held.since => {}
                (None, Some(&revoked)) if revoked.since == held.since => {
                    if held.phase == Phase::Owned {
                        difference.revoking.push(revoked);
                    }
                }
                // Another turn began, and may be over: the first one was lost in between.
                _ => difference.lost.push(partition),
            }
        }
        for &(partition, since, _) in &told.owned {
            if self.held.get(&partition).is_none_or(|held| held.since != since) {
                difference.begun.push(partition);
            }
        }
        difference
    }

    /// A turn begins.
    pub(crate) fn begin(
        &mut self,
        partition: PartitionId,
        since: Generation,
        topic: TopicName,
        (committed, followed): (Option<Offset>, Option<Offset>),
    ) {
        let (phase, is_placed) = (Phase::Owned, committed.is_some());
        let held = Held { topic, since, committed, followed, phase, subscription: None, owed: None, is_placed };
        self.held.insert(partition, held);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) -> BTreeMap<PartitionId, Held> {
        self.blobs.clear();
        std::mem::take(&mut self.held)
    }

    /// Drops what was left for partitions that went elsewhere.
    pub(crate) fn retain_blobs(&mut self, owned: &[PartitionId]) {
        self.blobs.retain(|partition, _| owned.contains(partition));
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn what_is_asked_back_is_one_turn_and_no_other() {
        let partition = PartitionId::new(TopicId(1), PartitionIndex(0));
        let mut holding = Holding::default();
        holding.begin(partition, Generation(3), TopicName::parse("t").unwrap(), (None, None));
        let asked = |since| {
            let revoked = Revoked { partition, since: Generation(since), deadline: MonotonicNanos(9) };
            Assignment { revoking: vec![revoked], ..Assignment::default() }
        };
        assert_eq!(holding.compare(&asked(3)).revoking.len(), 1);
        // It was lost, given back and asked for while nothing of that was heard: its first turn is over.
        let difference = holding.compare(&asked(7));
        assert_eq!((difference.lost, difference.revoking), (vec![partition], vec![]));
    }
}
