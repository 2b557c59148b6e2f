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

/// Values by partition, in the order of their ids.
///
/// What a batch passes on its way looks its partition up again and again, so a look-up costs one in a tree of pages of 64
/// neighbours, of which there are few, and an index. A page takes 512 bytes beside its values, however many it has: indexes
/// that nobody bounds cost no more than that each.
#[derive(Clone, Debug)]
pub struct PartitionMap<T> {
    pages: BTreeMap<(TopicId, u32), Page<T>>,
    len: usize,
}

impl<T> Default for PartitionMap<T> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }
}

/// Page and place of a partition.
const fn place(partition: PartitionId) -> ((TopicId, u32), usize) {
    let PartitionIndex(index) = partition.index;
    ((partition.topic, index / PAGE), (index % PAGE) as usize)
}

fn id_at((topic, page): (TopicId, u32), place: u32) -> PartitionId {
    PartitionId::new(topic, PartitionIndex(page * PAGE + place))
}

impl<T> PartitionMap<T> {
    /// The partition's value.
    #[must_use]
    pub fn get(&self, partition: PartitionId) -> Option<&T> {
        let (page, at) = place(partition);
        self.pages.get(&page)?.values[at].as_deref()
    }

    /// The partition's value, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, partition: PartitionId) -> Option<&mut T> {
        let (page, at) = place(partition);
        self.pages.get_mut(&page)?.values[at].as_deref_mut()
    }

    /// The partition's value, made if it is not there.
    pub fn get_or_insert_with(&mut self, partition: PartitionId, make: impl FnOnce() -> T) -> &mut T {
        let (page, at) = place(partition);
        let empty = || Page { values: Box::new([const { None }; PAGE as usize]), used: 0 };
        let page = self.pages.entry(page).or_insert_with(empty);
        self.len += usize::from(page.values[at].is_none());
        page.used |= 1 << at;
        page.values[at].get_or_insert_with(|| Box::new(make()))
    }

    /// Takes the partition's value out.
    pub fn remove(&mut self, partition: PartitionId) -> Option<T> {
        let (key, at) = place(partition);
        let page = self.pages.get_mut(&key)?;
        let value = page.values[at].take()?;
        page.used &= !(1 << at);
        self.len -= 1;
        if page.used == 0 {
            self.pages.remove(&key);
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
        self.pages.iter().flat_map(|(&key, page)| page.iter(key, 0))
    }

    /// The values of this partition and of those after it, in the order of their partitions.
    pub fn iter_from(&self, partition: PartitionId) -> impl Iterator<Item = (PartitionId, &T)> {
        let (first, at) = place(partition);
        let from = move |key| if key == first { at } else { 0 };
        self.pages.range(first..).flat_map(move |(&key, page)| page.iter(key, from(key)))
    }

    /// The topic's partitions that have a value, in order.
    pub fn ids_of(&self, topic: TopicId) -> impl Iterator<Item = PartitionId> {
        let pages = self.pages.range((topic, 0)..=(topic, u32::MAX));
        pages.flat_map(|(&key, page)| page.iter(key, 0)).map(|(id, _)| id)
    }
}

impl<T> Page<T> {
    fn iter(&self, key: (TopicId, u32), from: usize) -> impl Iterator<Item = (PartitionId, &T)> {
        let values = (0..PAGE).zip(self.values.iter()).skip(from);
        values.filter_map(move |(at, value)| Some((id_at(key, at), value.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition() -> impl Strategy<Value = PartitionId> {
        let index = prop_oneof![0..4_u32, 62..67_u32, 126..130_u32, u32::MAX - 1..=u32::MAX];
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
                prop_assert!(map.pages.values().all(|page| page.values.iter().any(Option::is_some)));
            }
        }
    }
}
