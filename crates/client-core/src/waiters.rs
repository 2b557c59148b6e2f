//! Who waits for the durable end of which partition.

use std::collections::BTreeMap;

use corelane_model::{PartitionId, TopicId};

use crate::ProducerKey;

/// Producers that have had batches under way for a partition, so that its durable end finds them.
///
/// A tick of a thousand partitions asks for each of them, so a partition is found by its place.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// By topic, then by partition.
    topics: BTreeMap<TopicId, Vec<Vec<ProducerKey>>>,
}

impl Waiters {
    /// Lists a producer. It is not listed yet for this partition, which is one of its topic's.
    pub(crate) fn add(&mut self, partition: PartitionId, producer: ProducerKey) {
        let partitions = self.topics.entry(partition.topic).or_default();
        let at = partition.index.0 as usize;
        if partitions.len() <= at {
            partitions.resize_with(at + 1, Vec::new);
        }
        partitions[at].push(producer);
    }

    /// The producers that are listed for a partition.
    pub(crate) fn of(&self, partition: PartitionId) -> &[ProducerKey] {
        self.topics
            .get(&partition.topic)
            .and_then(|partitions| partitions.get(partition.index.0 as usize))
            .map_or(&[], Vec::as_slice)
    }

    /// Strikes a producer off everywhere.
    pub(crate) fn forget(&mut self, producer: ProducerKey) {
        self.topics.retain(|_, partitions| {
            partitions.iter_mut().for_each(|waiters| waiters.retain(|waiter| *waiter != producer));
            partitions.iter().any(|waiters| !waiters.is_empty())
        });
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::PartitionIndex;

    use super::*;

    #[test]
    fn a_durable_end_finds_its_partition_only() {
        let mut waiters = Waiters::default();
        let partition = |topic, index| PartitionId::new(TopicId(topic), PartitionIndex(index));
        waiters.add(partition(1, 2), ProducerKey(0));
        waiters.add(partition(1, 2), ProducerKey(1));
        waiters.add(partition(2, 0), ProducerKey(1));
        assert_eq!(waiters.of(partition(1, 2)), [ProducerKey(0), ProducerKey(1)]);
        assert!(waiters.of(partition(1, 1)).is_empty() && waiters.of(partition(1, 3)).is_empty());
        waiters.forget(ProducerKey(1));
        assert_eq!(waiters.of(partition(1, 2)), [ProducerKey(0)]);
        assert!(!waiters.topics.contains_key(&TopicId(2)), "nobody is left there");
    }
}
