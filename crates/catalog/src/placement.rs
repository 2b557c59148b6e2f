//! Which shard gets a new partition.

use corelane_model::ShardId;

/// How many partitions each shard owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    by_shard: Vec<u64>,
}

impl Load {
    pub(crate) fn new(shards: u16) -> Self {
        Self { by_shard: vec![0; usize::from(shards)] }
    }

    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.by_shard.len()).expect("built from a u16")
    }

    pub(crate) fn partitions(&self) -> u64 {
        self.by_shard.iter().sum()
    }

    pub(crate) fn owns(&self, shard: ShardId) -> u64 {
        self.by_shard[usize::from(shard.0)]
    }

    pub(crate) fn add(&mut self, owners: &[ShardId]) {
        for owner in owners {
            self.by_shard[usize::from(owner.0)] += 1;
        }
    }

    pub(crate) fn remove(&mut self, owners: &[ShardId]) {
        for owner in owners {
            let count = &mut self.by_shard[usize::from(owner.0)];
            assert!(*count != 0, "shard {owner} owned no partition that could go");
            *count -= 1;
        }
    }

    /// Owners for `count` partitions that come to those of one topic that exist.
    ///
    /// Each goes to the shard that has the fewest of this topic, so that a topic is spread evenly by itself; among
    /// those to the one that has the fewest of all, so that topics of one partition do not all sit on shard 0.
    pub(crate) fn place(&self, existing: &[ShardId], count: u32) -> Vec<ShardId> {
        let mut of_topic = Self::new(self.shards());
        of_topic.add(existing);
        let mut total = self.clone();
        (0..count)
            .map(|_| {
                let next = (0..self.by_shard.len())
                    .min_by_key(|&shard| (of_topic.by_shard[shard], total.by_shard[shard], shard))
                    .expect("there is at least one shard");
                let owner = ShardId(u8::try_from(next).expect("there are at most 256 shards"));
                of_topic.add(&[owner]);
                total.add(&[owner]);
                owner
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics_of_one_partition_go_round() {
        let mut load = Load::new(3);
        let owners: Vec<u8> = (0..6)
            .map(|_| {
                let placed = load.place(&[], 1);
                load.add(&placed);
                placed[0].0
            })
            .collect();
        assert_eq!(owners, [0, 1, 2, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn topics_are_even_by_themselves_and_together(shards in 1_u16..9, sizes in prop::collection::vec(1_u32..40, 1..30)) {
            let mut load = Load::new(shards);
            for size in sizes {
                let placed = load.place(&[], size);
                prop_assert_eq!(placed.len(), size as usize);
                let mut own = Load::new(shards);
                own.add(&placed);
                prop_assert!(own.by_shard.iter().max().unwrap() - own.by_shard.iter().min().unwrap() <= 1);
                load.add(&placed);
                prop_assert!(load.by_shard.iter().max().unwrap() - load.by_shard.iter().min().unwrap() <= 1);
            }
        }
    }
}
