//! Which partition a key belongs to, as Kafka's clients decide it.

use corelane_model::PartitionIndex;

/// Kafka's `Utils.murmur2`: 32-bit MurmurHash2 with the seed that its clients use.
///
/// Source: `org.apache.kafka.common.utils.Utils` of Apache Kafka.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka's lengths are 32 bits wide; a key is far shorter than that.
    #[expect(clippy::cast_possible_truncation, reason = "the reference implementation takes the low 32 bits")]
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for &word in words {
        let mut k = u32::from_le_bytes(word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a key in a topic of so many partitions: `toPositive(murmur2(key)) % partitions`.
///
/// Panics if there are no partitions.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> PartitionIndex {
    assert!(partitions != 0, "a topic has at least one partition");
    PartitionIndex((murmur2(key) & 0x7fff_ffff) % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn hashes_are_those_of_kafka() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key).cast_signed(), expected, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn negative_hashes_are_masked_not_negated() {
        let positive = (-973_932_308_i32).cast_unsigned() & 0x7fff_ffff;
        assert_eq!(partition_for_key(b"21", 1000), PartitionIndex(positive % 1000));
        assert_eq!(partition_for_key(b"", 1), PartitionIndex(0));
    }
}
