//! Order per key: records of one key stand in a line, by the hash of the key.

use corelane_model::limits::QUEUE_KEY_LINES;

/// The last record that was read of each line. Who stands behind whom is in the slots.
#[derive(Clone, Debug)]
pub(crate) struct KeyLines {
    /// One more than the offset; 0 is nobody.
    last: Box<[u64]>,
}

impl KeyLines {
    pub(crate) fn new() -> Self {
        Self { last: vec![0; QUEUE_KEY_LINES].into_boxed_slice() }
    }

    /// Puts a record at the end of its line. Who stood there before, if anybody.
    pub(crate) fn join(&mut self, key: u32, offset: u64) -> Option<u64> {
        std::mem::replace(&mut self.last[line_of(key)], offset + 1).checked_sub(1)
    }
}

/// The line of a key. The hash has chosen the partition already: in one of 2^k partitions its low k bits are the same for
/// all keys, so the line is taken from the high bits of a product, in which every bit of the hash has a part.
fn line_of(key: u32) -> usize {
    const SHIFT: u32 = u64::BITS - QUEUE_KEY_LINES.trailing_zeros();
    const { assert!(QUEUE_KEY_LINES.is_power_of_two()) };
    let line = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> SHIFT;
    usize::try_from(line).expect("lines are few")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dispatch::Chance;

    /// Distinct lines of `count` keys, whose hashes are any of those that lead to this partition.
    fn lines_of_partition(partitions: u32, partition: u32, count: usize) -> usize {
        let mut chance = Chance::new(u64::from(partitions));
        let keys = std::iter::repeat_with(|| {
            let positive = chance.below(1 << 31) as u64 / u64::from(partitions) * u64::from(partitions);
            u32::try_from(positive + u64::from(partition)).expect("a hash has 32 bits")
        });
        keys.take(count).map(line_of).collect::<BTreeSet<_>>().len()
    }

    /// Of `keys` balls thrown into as many lines as there are, so many lines get one.
    #[expect(clippy::cast_precision_loss, reason = "both are far below 2^52")]
    fn expected(keys: usize) -> f64 {
        let lines = QUEUE_KEY_LINES as f64;
        lines * (1.0 - (-(keys as f64) / lines).exp())
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "lines are few")]
    fn keys_of_one_partition_use_all_lines_however_many_partitions_there_are() {
        for partitions in [1, 2, 16, 61, 64, 100, 1024, 4096] {
            for keys in [750, 20_000] {
                let found = lines_of_partition(partitions, partitions / 3, keys) as f64;
                let least = expected(keys) * 0.95;
                assert!(
                    least < found,
                    "{keys} keys in one of {partitions} partitions: {found} lines, {least} at least"
                );
            }
        }
    }
}
