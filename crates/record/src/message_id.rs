//! Message ids: what an application calls a message, in a header, so that the same message is taken once.

use crate::{BatchError, BatchFlags, BatchHead, Headers, SealedBatch, columns};

/// The header whose value is a record's message id. Null and empty are no id; of several the first counts.
pub const MESSAGE_ID_HEADER: &str = "message-id";

/// 128 bits of a message id, under a key that clients do not know: nobody can make up two ids that look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

/// The key of [`MessageId`]s.
#[derive(Clone, Copy)]
pub struct MessageIdKey(u64, u64);

impl std::fmt::Debug for MessageIdKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MessageIdKey(..)")
    }
}

impl MessageIdKey {
    /// A key from 128 random bits.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a number")]
    pub const fn new(seed: u128) -> Self {
        Self(seed as u64, (seed >> 64) as u64)
    }

    /// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, 2012).
    #[must_use]
    pub fn hash(&self, id: &[u8]) -> MessageId {
        let mut state = Sip {
            v0: self.0 ^ 0x736f_6d65_7073_6575,
            v1: self.1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: self.0 ^ 0x6c79_6765_6e65_7261,
            v3: self.1 ^ 0x7465_6462_7974_6573,
        };
        let (words, rest) = id.as_chunks::<8>();
        for word in words {
            state.absorb(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = id.len().to_le_bytes()[0];
        state.absorb(u64::from_le_bytes(last));
        state.v2 ^= 0xee;
        let low = state.finish();
        state.v1 ^= 0xdd;
        MessageId(u128::from(state.finish()) << 64 | u128::from(low))
    }
}

struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    fn finish(&mut self) -> u64 {
        for _ in 0..4 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

/// The message id among these headers, if there is one.
pub fn find_message_id<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Option<&'a [u8]> {
    headers.into_iter().find_map(|(name, value)| value.filter(|id| name == MESSAGE_ID_HEADER && !id.is_empty()))
}

/// The message ids of a whole batch's records, each with its record's place in the batch. Values are not decompressed.
///
/// # Errors
/// The payload is no batch's.
pub fn message_ids(head: &BatchHead, batch: &[u8], key: MessageIdKey) -> Result<Vec<(u32, MessageId)>, BatchError> {
    if !head.flags.contains(BatchFlags::HEADERS) {
        return Ok(Vec::new());
    }
    crate::sealed::check_whole(head, batch.len())?;
    let layout = columns::check(head, batch)?;
    let Some(ends) = &layout.header_ends else { return Ok(Vec::new()) };
    let headers = &batch[layout.headers.clone()];
    let mut ids = Vec::new();
    let mut start = 0;
    for (place, end) in (0..).zip(batch[ends.clone()].as_chunks::<4>().0) {
        let end = u32::from_le_bytes(*end) as usize;
        if let Some(id) = find_message_id(Headers::new(&headers[start..end])) {
            ids.push((place, key.hash(id)));
        }
        start = end;
    }
    Ok(ids)
}

impl SealedBatch {
    /// The message ids of its records, each with its record's place in the batch.
    #[must_use]
    pub fn message_ids(&self, key: MessageIdKey) -> Vec<(u32, MessageId)> {
        message_ids(self.head(), self.bytes(), key).expect("a sealed batch was checked")
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::WallMillis;
    use proptest::prelude::*;

    use super::*;
    use crate::{BatchBuilder, Compression, ProducerStamp};

    /// From the reference implementation's `vectors_sip128`: key 00 01 … 0f, input 00 01 … of the length given.
    #[test]
    fn the_hash_is_siphash_2_4_of_128_bits() {
        let seed: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let key = MessageIdKey::new(u128::from_le_bytes(seed));
        let vectors = [
            (0_u8, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
        ];
        for (len, expected) in vectors {
            let input: Vec<u8> = (0..len).collect();
            assert_eq!(hex::encode(key.hash(&input).0.to_le_bytes()), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn every_record_with_an_id_is_found(
            records in prop::collection::vec((prop::option::of("[a-c]{0,3}"), any::<bool>(), any::<bool>()), 1..20),
            is_compressed: bool,
        ) {
            let key = MessageIdKey::new(7);
            let compression = if is_compressed { Compression::Lz4 } else { Compression::None };
            let mut builder = BatchBuilder::new(compression);
            let mut expected = Vec::new();
            for (place, (id, has_other, is_null)) in (0..).zip(&records) {
                let id = id.as_ref().map(String::as_bytes);
                let mut headers = Vec::new();
                if *has_other {
                    headers.push(("other", Some(&b"x"[..])));
                }
                if let Some(id) = id {
                    headers.push((MESSAGE_ID_HEADER, (!is_null).then_some(id)));
                    headers.push((MESSAGE_ID_HEADER, Some(id)));
                    if !id.is_empty() {
                        expected.push((place, key.hash(id)));
                    }
                }
                builder.push(WallMillis(1), None, Some(b"value"), &headers).unwrap();
            }
            let sealed = SealedBatch::parse(builder.finish(ProducerStamp::default())).unwrap();
            prop_assert_eq!(sealed.message_ids(key), expected);
        }
    }
}
