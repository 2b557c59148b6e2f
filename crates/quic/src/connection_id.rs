//! Connection ids that name their shard.

use std::time::Duration;

use corelane_model::ShardId;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::hmac;

/// Bytes of a connection id: the shard, then 56 bits that nobody can guess.
pub(crate) const CONNECTION_ID_BYTES: usize = 8;

/// Makes connection ids whose byte 0 is the shard, so that the reuse-port program finds the socket by it. The other
/// bytes are a keyed hash of a counter: unpredictable to others and without a random source at run time.
pub(crate) struct ShardIds {
    shard: ShardId,
    key: hmac::Key,
    count: u64,
}

impl ShardIds {
    pub(crate) fn new(shard: ShardId, seed: &[u8; 32]) -> Self {
        Self { shard, key: hmac::Key::new(hmac::HMAC_SHA256, seed), count: 0 }
    }
}

impl ConnectionIdGenerator for ShardIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let tag = hmac::sign(&self.key, &self.count.to_le_bytes());
        let mut bytes = [0; CONNECTION_ID_BYTES];
        bytes[0] = self.shard.0;
        bytes[1..].copy_from_slice(&tag.as_ref()[..CONNECTION_ID_BYTES - 1]);
        ConnectionId::new(&bytes)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if id.first() == Some(&self.shard.0) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_shard_and_differ() {
        let mut ids = ShardIds::new(ShardId(7), &[1; 32]);
        let first = ids.generate_cid();
        let second = ids.generate_cid();
        assert_eq!(first[0], 7);
        assert_ne!(first, second);
        assert!(ids.validate(&first).is_ok());
        assert!(ShardIds::new(ShardId(8), &[1; 32]).validate(&first).is_err());
    }
}
