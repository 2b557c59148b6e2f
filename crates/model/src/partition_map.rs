//! Values by partition.

use std::collections::BTreeMap;

use crate::{PartitionId, PartitionIndex, TopicId};

/// Partitions of one page.
const PAGE: u32 = 64;

/// Neighbouring partitions of one topic. A page that is there has a value.
#[derive(Clone, Debug)]
struct Page<T> {
    values: Box<[Option<Box<T>>; PAGE as usize]>,
    /// Bit `n` is set where `values` has something at `n`.
    used: u64,
}

const _: () = assert!(PAGE == u64::BITS);

/// Pages of a topic that are found by their number: those of its first 16,384 partitions.
const NEAR_PAGES: u32 = 256;

/// The pages of one topic, at least one. The last near one is there.
#[derive(Clone, Debug)]
struct Topic<T> {
    near: Vec<Option<Page<T>>>,
    /// Those from [`NEAR_PAGES`] on.
    far: BTreeMap<u32, Page<T>>,
}

/// Values by partition, in the order of their ids.
///
/// What a batch passes on its way looks its partition up again and again, so a look-up costs one in a tree of topics, of which
/// there are few, and two indexes. A page of 64 neighbours takes 512 bytes beside its values, however many it has, and the
/// list of a topic's pages 4 KiB at most: indexes that nobody bounds cost no more than that each.
#[derive(Clone, Debug)]
pub struct PartitionMap<T> {
    topics: BTreeMap<TopicId, Topic<T>>,
    len: usize,
}

impl<T> Default for PartitionMap<T> {
    fn default() -> Self {
        Self { topics: BTreeMap::new(), len: 0 }
    }
}

/// Page and place of a partition within its topic.
const fn place(PartitionIndex(index): PartitionIndex) -> (u32, usize) {
    (index / PAGE, (index % PAGE) as usize)
}

impl<T> PartitionMap<T> {
    /// The partition's value.
    #[must_use]
    pub fn get(&self, partition: PartitionId) -> Option<&T> {
        let (page, at) = place(partition.index);
        self.topics.get(&partition.topic)?.page(page)?.values[at].as_deref()
    }

    /// The partition's value, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, partition: PartitionId) -> Option<&mut T> {
        let (page, at) = place(partition.index);
        self.topics.get_mut(&partition.topic)?.page_mut(page)?.values[at].as_deref_mut()
    }

    /// The partition's value, made if it is not there.
    pub fn get_or_insert_with(&mut self, partition: PartitionId, make: impl FnOnce() -> T) -> &mut T {
        let (page, at) = place(partition.index);
        let topic = self.topics.entry(partition.topic);
        let page = topic.or_insert_with(|| Topic { near: Vec::new(), far: BTreeMap::new() }).page_or_insert(page);
        self.len += usize::from(page.values[at].is_none());
        page.used |= 1 << at;
        page.values[at].get_or_insert_with(|| Box::new(make()))
    }

    /// Takes the partition's value out.
    pub fn remove(&mut self, partition: PartitionId) -> Option<T> {
        let (number, at) = place(partition.index);
        let topic = self.topics.get_mut(&partition.topic)?;
        let page = topic.page_mut(number)?;
        let value = page.values[at].take()?;
        page.used &= !(1 << at);
        self.len -= 1;
        if page.used == 0 {
            topic.remove(number);
            if topic.near.is_empty() && topic.far.is_empty() {
                self.topics.remove(&partition.topic);
            }
        }
        Some(*value)
    }

    /// How many values there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values, in the order of their partitions.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, &T)> {
        self.topics.iter().flat_map(|(&id, topic)| topic.iter_from(id, PartitionIndex(0)))
    }

    /// The values of this partition and of those after it, in the order of their partitions.
    pub fn iter_from(&self, partition: PartitionId) -> impl Iterator<Item = (PartitionId, &T)> {
        let from = move |id| if id == partition.topic { partition.index } else { PartitionIndex(0) };
        self.topics.range(partition.topic..).flat_map(move |(&id, topic)| topic.iter_from(id, from(id)))
    }

    /// The topic's partitions that have a value, in order.
    pub fn ids_of(&self, topic: TopicId) -> impl Iterator<Item = PartitionId> {
        let known = self.topics.get(&topic).into_iter();
        known.flat_map(move |known| known.iter_from(topic, PartitionIndex(0))).map(|(id, _)| id)
    }
}

impl<T> Topic<T> {
    fn page(&self, number: u32) -> Option<&Page<T>> {
        if number < NEAR_PAGES { self.near.get(number as usize)?.as_ref() } else { self.far.get(&number) }
    }

    fn page_mut(&mut self, number: u32) -> Option<&mut Page<T>> {
        if number < NEAR_PAGES { self.near.get_mut(number as usize)?.as_mut() } else { self.far.get_mut(&number) }
    }

    fn page_or_insert(&mut self, number: u32) -> &mut Page<T> {
        let empty = || Page { values: Box::new([const { None }; PAGE as usize]), used: 0 };
        if NEAR_PAGES <= number {
            return self.far.entry(number).or_insert_with(empty);
        }
        let at = number as usize;
        if self.near.len() <= at {
            self.near.resize_with(at + 1, || None);
        }
        self.near[at].get_or_insert_with(empty)
    }

    fn remove(&mut self, number: u32) {
        if NEAR_PAGES <= number {
            self.far.remove(&number);
            return;
        }
        self.near[number as usize] = None;
        let end = self.near.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.near.truncate(end);
    }

    fn iter_from(&self, id: TopicId, from: PartitionIndex) -> impl Iterator<Item = (PartitionId, &T)> {
        let (first, at) = place(from);
        let near = (0..).zip(&self.near).skip(first as usize);
        let near = near.filter_map(|(number, page)| Some((number, page.as_ref()?)));
        let far = self.far.range(first..).map(|(&number, page)| (number, page));
        let skipped = move |number| if number == first { at } else { 0 };
        near.chain(far).flat_map(move |(number, page)| page.iter(id, number, skipped(number)))
    }
}

impl<T> Page<T> {
    fn iter(&self, topic: TopicId, number: u32, from: usize) -> impl Iterator<Item = (PartitionId, &T)> {
        let values = (number * PAGE..=number * PAGE + (PAGE - 1)).zip(self.values.iter()).skip(from);
        values
            .filter_map(move |(index, value)| Some((PartitionId::new(topic, PartitionIndex(index)), value.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition() -> impl Strategy<Value = PartitionId> {
        let last_near = NEAR_PAGES * PAGE - 1;
        let index =
            prop_oneof![0..4_u32, 62..67_u32, 126..130_u32, last_near - 1..last_near + 3, u32::MAX - 1..=u32::MAX];
        (0..3_u64, index).prop_map(|(topic, index)| PartitionId::new(TopicId(topic), PartitionIndex(index)))
    }

    proptest! {
        #[test]
        fn it_is_a_tree(steps in prop::collection::vec((partition(), any::<Option<u8>>()), 0..200)) {
            let (mut map, mut tree) = (PartitionMap::default(), BTreeMap::new());
            for (partition, value) in steps {
                match value {
                    Some(value) => {
                        let known = *tree.entry(partition).or_insert(value);
                        prop_assert_eq!(*map.get_or_insert_with(partition, || value), known);
                    }
                    None => prop_assert_eq!(map.remove(partition), tree.remove(&partition)),
                }
                prop_assert_eq!(map.get(partition), tree.get(&partition));
                prop_assert_eq!(map.get_mut(partition), tree.get_mut(&partition));
                prop_assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
                prop_assert!(map.iter().eq(tree.iter().map(|(&id, value)| (id, value))));
                prop_assert!(map.iter_from(partition).eq(tree.range(partition..).map(|(&id, value)| (id, value))));
                let topic = partition.topic;
                prop_assert!(map.ids_of(topic).eq(tree.keys().copied().filter(|id| id.topic == topic)));
                let is_used = |page: &Page<u8>| page.used != 0 && page.values.iter().any(Option::is_some);
                for topic in map.topics.values() {
                    prop_assert!(topic.near.iter().flatten().chain(topic.far.values()).all(is_used));
                    prop_assert!(topic.near.last().is_none_or(Option::is_some));
                    prop_assert!(!topic.near.is_empty() || !topic.far.is_empty());
                }
            }
        }
    }
}
