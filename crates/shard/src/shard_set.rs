//! A set of shards.

use corelane_model::ShardId;
use corelane_model::limits::SHARDS_MAX;

/// A set of shards in 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet([u64; SHARDS_MAX / 64]);

impl ShardSet {
    pub(crate) const fn insert(&mut self, shard: ShardId) {
        self.0[shard.0 as usize / 64] |= 1 << (shard.0 % 64);
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..=u8::MAX).map(ShardId).filter(move |shard| self.0[usize::from(shard.0) / 64] & 1 << (shard.0 % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in() {
        let mut set = ShardSet::default();
        for shard in [255, 0, 64, 63, 0] {
            set.insert(ShardId(shard));
        }
        assert_eq!(set.iter().map(|shard| shard.0).collect::<Vec<_>>(), [0, 63, 64, 255]);
    }
}
