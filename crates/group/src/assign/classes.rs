//! Partitions that nothing tells apart but their names.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::{PartitionId, TopicId};

/// Members with the same subscription are of one *kind*. Partitions with the same subscribers form a *class*: it does not
/// change as long as no kind comes or goes, whoever joins and leaves.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    /// Class of each partition, by its place; `None` when nobody subscribes.
    of: Vec<Option<usize>>,
    /// The classes of each kind, in order.
    of_kind: Vec<Vec<usize>>,
    len: usize,
}

impl Classes {
    /// Of these partitions, in order, for kinds that resolve to these topics with so many partitions.
    pub(crate) fn new(partitions: &[PartitionId], kinds: &[&BTreeMap<TopicId, u32>]) -> Self {
        // Neighbours have the same subscribers unless the topic changes or a subscription knows fewer partitions.
        let ends: BTreeSet<(TopicId, u32)> =
            kinds.iter().flat_map(|topics| topics.iter().map(|(&topic, &end)| (topic, end))).collect();
        let is_alike = |before: PartitionId, this: PartitionId| {
            let between = (this.topic, before.index.0 + 1)..=(this.topic, this.index.0);
            before.topic == this.topic && ends.range(between).next().is_none()
        };
        let mut known: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut of: Vec<Option<usize>> = Vec::with_capacity(partitions.len());
        let mut before: Option<(PartitionId, Option<usize>)> = None;
        for &partition in partitions {
            let class = match before {
                Some((before, class)) if is_alike(before, partition) => class,
                _ => {
                    let has = |topics: &&BTreeMap<TopicId, u32>| {
                        topics.get(&partition.topic).is_some_and(|&end| partition.index.0 < end)
                    };
                    let subscribers: Vec<usize> = (0..kinds.len()).filter(|&kind| has(&kinds[kind])).collect();
                    let next = known.len();
                    (!subscribers.is_empty()).then(|| *known.entry(subscribers).or_insert(next))
                }
            };
            before = Some((partition, class));
            of.push(class);
        }
        let mut of_kind = vec![Vec::new(); kinds.len()];
        let len = known.len();
        let mut by_class: Vec<(usize, Vec<usize>)> = known.into_iter().map(|(kinds, class)| (class, kinds)).collect();
        by_class.sort_unstable();
        for (class, kinds) in by_class {
            kinds.into_iter().for_each(|kind| of_kind[kind].push(class));
        }
        Self { of, of_kind, len }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The class of the partition at a place; `None` when nobody subscribes.
    pub(crate) fn of_place(&self, at: usize) -> Option<usize> {
        self.of[at]
    }

    /// The classes of a kind, in order.
    pub(crate) fn of_kind(&self, kind: usize) -> &[usize] {
        &self.of_kind[kind]
    }

    /// The class of the partition at a place if members of the kind may have it.
    pub(crate) fn shared(&self, at: usize, kind: usize) -> Option<usize> {
        self.of[at].filter(|class| self.of_kind[kind].binary_search(class).is_ok())
    }
}
