//! Whose a producer id is.

use corelane_model::limits::SHARDS_MAX;
use corelane_model::{ProducerId, SessionId, ShardId};
use ring::hmac::{HMAC_SHA256, Key, sign};

/// Low bits of a producer id: what its shard counted when it handed the id out. They begin again when they are used up;
/// the proof still tells ids of different clients apart then.
const COUNT_BITS: u32 = 27;
/// Bits above them: the shard.
const SHARD_BITS: u32 = 8;
/// Bits above those: proof of whom the id was handed to. The top bit stays 0, since Kafka's producer ids are signed.
const PROOF_BITS: u32 = 28;
const NUMBER_BITS: u32 = SHARD_BITS + COUNT_BITS;

const _: () = assert!(NUMBER_BITS + PROOF_BITS == 63);
const _: () = assert!(SHARDS_MAX <= 1 << SHARD_BITS);

/// Makes producer ids that only the client can use that they were handed to.
///
/// An id is a number and, above it, 28 bits of HMAC-SHA-256 over that number and the client's session id, which nobody
/// else knows: a client shows it in each hello and nowhere else. A consumer sees the ids of producers in the batches that it
/// reads and can do nothing with them. Nothing is kept: every shard of a data directory comes to the same answer, after
/// a restart too.
#[derive(Clone, Debug)]
pub struct ProducerSeal(Key);

impl ProducerSeal {
    /// The seal of a data directory, from its random 128 bits.
    #[must_use]
    pub fn new(data_id: u128) -> Self {
        let directory = Key::new(HMAC_SHA256, &data_id.to_le_bytes());
        Self(Key::new(HMAC_SHA256, sign(&directory, b"producer ids").as_ref()))
    }

    /// The id for what this shard counted, for the client of this session.
    #[must_use]
    pub fn seal(&self, session: SessionId, shard: ShardId, count: u64) -> ProducerId {
        let number = u64::from(shard.0) << COUNT_BITS | count & ((1 << COUNT_BITS) - 1);
        ProducerId(self.proof(session, number) << NUMBER_BITS | number)
    }

    /// Whether the id was handed to the client of this session.
    #[must_use]
    pub fn is_of(&self, session: SessionId, producer: ProducerId) -> bool {
        let number = producer.0 & ((1 << NUMBER_BITS) - 1);
        producer.0 >> NUMBER_BITS == self.proof(session, number)
    }

    fn proof(&self, session: SessionId, number: u64) -> u64 {
        let mut shown = [0; 24];
        shown[..16].copy_from_slice(&session.0.to_le_bytes());
        shown[16..].copy_from_slice(&number.to_le_bytes());
        let tag = sign(&self.0, &shown);
        let mut first = [0; 8];
        first.copy_from_slice(&tag.as_ref()[..8]);
        // Never 0, so that no id is 0.
        u64::from_le_bytes(first) >> (u64::BITS - PROOF_BITS) | 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_of_its_session_alone(data: u128, session: u128, shard: u8, count: u64, flip in 0_u32..128) {
            let seal = ProducerSeal::new(data);
            let id = seal.seal(SessionId(session), ShardId(shard), count);
            prop_assert!(seal.is_of(SessionId(session), id));
            prop_assert!(id != ProducerId::NONE && id.0 < 1 << 63);
            prop_assert_ne!(id.0, seal.seal(SessionId(session), ShardId(shard), count.wrapping_add(1)).0);
            // One in 2^27 would be taken for another's.
            let others = [
                seal.is_of(SessionId(session ^ (1 << flip)), id),
                seal.is_of(SessionId(session), ProducerId(id.0 ^ 1)),
                ProducerSeal::new(data ^ (1 << flip)).is_of(SessionId(session), id),
            ];
            prop_assert!(!others.iter().all(|is_taken| *is_taken));
        }
    }

    #[test]
    fn bare_numbers_and_neighbours_are_nobodys() {
        let seal = ProducerSeal::new(5);
        let taken = (1..10_000).filter(|&number| seal.is_of(SessionId(7), ProducerId(number))).count();
        assert_eq!(taken, 0);
        let foreign =
            (1..10_000).filter(|&number| seal.is_of(SessionId(8), seal.seal(SessionId(7), ShardId(0), number))).count();
        assert_eq!(foreign, 0);
    }
}
