//! One extent of a segment: a head, then record batches unchanged, padded with zeros to whole blocks.
//!
//! The format is drawn field by field in `docs/formats/segment.md`.

use bytes::{Bytes, BytesMut};
use corelane_model::limits::{BLOCK_BYTES, EXTENT_BYTES_MAX};
use corelane_model::{Incarnation, Offset, PartitionId, PartitionIndex, TopicId, WallMillis};

/// Bytes of an extent's head.
pub const EXTENT_HEAD_BYTES: usize = 96;
/// First four bytes of an extent.
pub const EXTENT_MAGIC: [u8; 4] = *b"CLXT";
/// The version of the format that this code writes, and the only one that it reads.
pub const EXTENT_VERSION: u16 = 1;
/// The largest extent on disk, head and padding included.
pub const EXTENT_DISK_BYTES_MAX: u64 = EXTENT_BYTES_MAX + BLOCK_BYTES;

const _: () = {
    assert!(EXTENT_HEAD_BYTES as u64 <= BLOCK_BYTES);
    assert!(EXTENT_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
    assert!(EXTENT_DISK_BYTES_MAX <= u32::MAX as u64);
};

/// The zeros that padding is taken from.
static ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(ZEROS.len() as u64 == BLOCK_BYTES);

/// The head of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHead {
    /// The partition whose records these are.
    pub partition: PartitionId,
    /// The start of the broker that wrote it.
    pub incarnation: Incarnation,
    /// Where in the segment file it begins, a multiple of the block: an extent at another place is not this one.
    pub position: u64,
    /// Offset of its first record.
    pub base: Offset,
    /// End of its records, exclusive. Records between the two may be missing only where corruption was reported.
    pub end: Offset,
    /// Append timestamp of its first batch.
    pub first_append: WallMillis,
    /// Append timestamp of its last batch; never before `first_append`.
    pub last_append: WallMillis,
    /// Bytes of the record batches that follow the head.
    pub payload_bytes: u32,
    /// [`payload_crc`] of these bytes.
    pub payload_crc: u64,
}

/// What is wrong with the bytes where an extent should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// Fewer bytes than a head.
    #[error("{len} bytes are no extent's head, which has {EXTENT_HEAD_BYTES}")]
    Short {
        /// The bytes there are.
        len: usize,
    },
    /// No extent begins here.
    #[error("magic is {found:02x?} where an extent should begin")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A format that this version does not read.
    #[error("extent has format version {found}; this version reads {EXTENT_VERSION}")]
    Version {
        /// The version in the head.
        found: u16,
    },
    /// The head is damaged.
    #[error("extent head's CRC is {found:08x}, its bytes have {computed:08x}")]
    HeadCrc {
        /// The CRC in the head.
        found: u32,
        /// The CRC of its bytes.
        computed: u32,
    },
    /// A head with a right CRC and numbers that no writer of this version writes.
    #[error("extent at {position} says base {base}, end {end}, {payload_bytes} payload bytes")]
    Numbers {
        /// Where the head says that it stands.
        position: u64,
        /// Its base offset.
        base: Offset,
        /// Its end offset.
        end: Offset,
        /// Its payload's length.
        payload_bytes: u32,
    },
    /// The payload is shorter than the head says.
    #[error("extent has {found} payload bytes of {payload_bytes}")]
    PayloadShort {
        /// What the head says.
        payload_bytes: u32,
        /// What is there.
        found: usize,
    },
    /// The payload is damaged.
    #[error("extent payload's CRC is {found:016x}, its bytes have {computed:016x}")]
    PayloadCrc {
        /// The CRC in the head.
        found: u64,
        /// The CRC of the bytes.
        computed: u64,
    },
}

impl ExtentHead {
    /// Bytes of the whole extent on disk, padding included: where the next one begins.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(self.payload_bytes)
    }

    /// Writes the head's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; EXTENT_HEAD_BYTES] {
        let mut bytes = [0; EXTENT_HEAD_BYTES];
        bytes[0..4].copy_from_slice(&EXTENT_MAGIC);
        bytes[4..6].copy_from_slice(&EXTENT_VERSION.to_le_bytes());
        // 6..8 is reserved.
        bytes[8..16].copy_from_slice(&self.partition.topic.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.partition.index.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.position.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.end.0.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.first_append.0.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.last_append.0.to_le_bytes());
        // 72..80 is reserved.
        bytes[80..88].copy_from_slice(&self.payload_crc.to_le_bytes());
        // 88..92 is reserved.
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..96].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the head at the front of `bytes`; believes nothing beyond its CRC without a check of the bounds.
    ///
    /// # Errors
    /// What is wrong, in the order of the fields of [`ExtentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ExtentError> {
        let Some(bytes) = bytes.first_chunk::<EXTENT_HEAD_BYTES>() else {
            return Err(ExtentError::Short { len: bytes.len() });
        };
        let magic = array(bytes, 0);
        if magic != EXTENT_MAGIC {
            return Err(ExtentError::Magic { found: magic });
        }
        let found = u32::from_le_bytes(array(bytes, 92));
        let computed = crc32c::crc32c(&bytes[..92]);
        if found != computed {
            return Err(ExtentError::HeadCrc { found, computed });
        }
        let version = u16::from_le_bytes(array(bytes, 4));
        if version != EXTENT_VERSION {
            return Err(ExtentError::Version { found: version });
        }
        let head = Self {
            partition: PartitionId::new(
                TopicId(u64::from_le_bytes(array(bytes, 8))),
                PartitionIndex(u32::from_le_bytes(array(bytes, 16))),
            ),
            payload_bytes: u32::from_le_bytes(array(bytes, 20)),
            incarnation: Incarnation(u64::from_le_bytes(array(bytes, 24))),
            position: u64::from_le_bytes(array(bytes, 32)),
            base: Offset(u64::from_le_bytes(array(bytes, 40))),
            end: Offset(u64::from_le_bytes(array(bytes, 48))),
            first_append: WallMillis(i64::from_le_bytes(array(bytes, 56))),
            last_append: WallMillis(i64::from_le_bytes(array(bytes, 64))),
            payload_crc: u64::from_le_bytes(array(bytes, 80)),
        };
        let is_sound = head.base < head.end
            && head.position.is_multiple_of(BLOCK_BYTES)
            && 0 < head.payload_bytes
            && u64::from(head.payload_bytes) <= EXTENT_BYTES_MAX;
        if !is_sound {
            let Self { position, base, end, payload_bytes, .. } = head;
            return Err(ExtentError::Numbers { position, base, end, payload_bytes });
        }
        Ok(head)
    }

    /// The record batches of the extent that `bytes` begins with, their CRC checked.
    ///
    /// # Errors
    /// [`ExtentError::PayloadShort`] or [`ExtentError::PayloadCrc`].
    pub fn payload(&self, bytes: &Bytes) -> Result<Bytes, ExtentError> {
        let end = EXTENT_HEAD_BYTES + self.payload_bytes as usize;
        if bytes.len() < end {
            let found = bytes.len().saturating_sub(EXTENT_HEAD_BYTES);
            return Err(ExtentError::PayloadShort { payload_bytes: self.payload_bytes, found });
        }
        let payload = bytes.slice(EXTENT_HEAD_BYTES..end);
        let computed = payload_crc(&payload);
        if computed != self.payload_crc {
            return Err(ExtentError::PayloadCrc { found: self.payload_crc, computed });
        }
        Ok(payload)
    }
}

/// The checksum of an extent's record batches. Not a CRC-32C: batches end their heads with their own, and to a CRC of the
/// same polynomial all such heads look alike, so that an older one in the place of a newer would pass.
#[must_use]
pub fn payload_crc(payload: &[u8]) -> u64 {
    crc_fast::checksum(PAYLOAD_CRC, payload)
}

const PAYLOAD_CRC: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc64Nvme;

/// Bytes on disk of an extent with this payload.
#[must_use]
pub(crate) fn disk_bytes(payload_bytes: u32) -> u64 {
    (EXTENT_HEAD_BYTES as u64 + u64::from(payload_bytes)).next_multiple_of(BLOCK_BYTES)
}

/// The pieces of one write: the head, the batches as they are, and zeros up to the block. Fills in payload length and
/// CRC of `head`.
pub(crate) fn seal_extent(head: &mut ExtentHead, batches: &[Bytes]) -> Vec<Bytes> {
    let payload_bytes: usize = batches.iter().map(Bytes::len).sum();
    assert!(payload_bytes as u64 <= EXTENT_BYTES_MAX, "extent of {payload_bytes} bytes is over its limit");
    assert!(head.position.is_multiple_of(BLOCK_BYTES), "extent at {} is not aligned", head.position);
    assert!(head.base < head.end, "extent from {} to {} holds nothing", head.base, head.end);
    head.payload_bytes = u32::try_from(payload_bytes).expect("the limit of an extent fits 32 bits");
    let mut crc = crc_fast::Digest::new(PAYLOAD_CRC);
    batches.iter().for_each(|batch| crc.update(batch));
    head.payload_crc = crc.finalize();
    let mut pieces = Vec::with_capacity(batches.len() + 2);
    pieces.push(BytesMut::from(&head.encode()[..]).freeze());
    pieces.extend(batches.iter().cloned());
    let padding =
        usize::try_from(head.disk_bytes()).expect("an extent fits memory") - EXTENT_HEAD_BYTES - payload_bytes;
    if 0 < padding {
        pieces.push(Bytes::from_static(&ZEROS[..padding]));
    }
    pieces
}

fn array<const N: usize>(bytes: &[u8; EXTENT_HEAD_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("fields lie inside the head")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> ExtentHead {
        ExtentHead {
            partition: PartitionId::new(TopicId(7), PartitionIndex(3)),
            incarnation: Incarnation(5),
            position: 8192,
            base: Offset(100),
            end: Offset(164),
            first_append: WallMillis(1_700_000_000_000),
            last_append: WallMillis(1_700_000_000_016),
            payload_bytes: 0,
            payload_crc: 0,
        }
    }

    fn golden() -> Vec<u8> {
        let batches = [Bytes::from_static(b"first batch, "), Bytes::from_static(b"second batch")];
        seal_extent(&mut head(), &batches).concat()
    }

    #[test]
    fn bytes_are_those_of_the_fixture() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/1/segment-extent.bin");
        let kept = std::fs::read(path).expect("the fixture is part of the repository");
        assert_eq!(golden(), kept);
    }

    #[test]
    fn the_fixture_opens() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/1/segment-extent.bin");
        let bytes = Bytes::from(std::fs::read(path).expect("the fixture is part of the repository"));
        let found = ExtentHead::parse(&bytes).expect("the fixture is an extent");
        assert_eq!(found.base..found.end, Offset(100)..Offset(164));
        assert_eq!(found.disk_bytes(), 4096);
        assert_eq!(&found.payload(&bytes).expect("its payload is sound")[..], b"first batch, second batch");
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let whole = golden();
        for bit in 0..(EXTENT_HEAD_BYTES + 25) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let bytes = Bytes::from(bytes);
            let is_noticed = ExtentHead::parse(&bytes).and_then(|head| head.payload(&bytes)).is_err();
            assert!(is_noticed, "bit {bit}");
        }
    }

    #[test]
    fn the_head_of_another_batch_in_the_place_of_one_is_noticed() {
        let batch = |base: u64| {
            let mut builder = corelane_record::BatchBuilder::new(corelane_record::Compression::None);
            builder.push(WallMillis(0), None, Some(b"score"), &[]).expect("small");
            let mut bytes = builder.finish(corelane_record::ProducerStamp::default()).to_vec();
            let stamp = corelane_record::Stamp {
                base_offset: Offset(base),
                append_timestamp: WallMillis(1),
                leader_epoch: corelane_model::LeaderEpoch(1),
            };
            corelane_record::stamp(&mut bytes, stamp);
            Bytes::from(bytes)
        };
        let newer = Bytes::from(seal_extent(&mut head(), &[batch(100), batch(101)]).concat());
        let older = seal_extent(&mut head(), &[batch(36), batch(37)]).concat();
        let mut torn = newer.to_vec();
        let second = EXTENT_HEAD_BYTES + batch(0).len();
        let place = second..second + corelane_record::BATCH_HEAD_BYTES;
        torn[place.clone()].copy_from_slice(&older[place]);
        assert_ne!(torn[..], newer[..]);
        let found = ExtentHead::parse(&newer).expect("sound").payload(&Bytes::from(torn));
        assert!(matches!(found, Err(ExtentError::PayloadCrc { .. })), "{found:?}");
    }

    #[test]
    fn the_largest_payload_fits_its_limit() {
        let batch = Bytes::from(vec![7; usize::try_from(EXTENT_BYTES_MAX).expect("fits")]);
        let mut head = head();
        let pieces = seal_extent(&mut head, &[batch]);
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>() as u64, EXTENT_DISK_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), crc: bool) {
            let mut bytes = bytes;
            if crc && EXTENT_HEAD_BYTES <= bytes.len() {
                bytes[0..4].copy_from_slice(&EXTENT_MAGIC);
                bytes[4..6].copy_from_slice(&EXTENT_VERSION.to_le_bytes());
                let crc = crc32c::crc32c(&bytes[..92]);
                bytes[92..96].copy_from_slice(&crc.to_le_bytes());
            }
            let bytes = Bytes::from(bytes);
            if let Ok(head) = ExtentHead::parse(&bytes) {
                prop_assert!(head.disk_bytes() <= EXTENT_DISK_BYTES_MAX);
                drop(head.payload(&bytes));
            }
        }

        #[test]
        fn heads_round_trip(
            topic: u64, index: u32, incarnation: u64, block in 0u64..1 << 30, base in 0u64..u64::MAX - 1000,
            span in 1u64..1000, first: i64, payload in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let mut head = ExtentHead {
                partition: PartitionId::new(TopicId(topic), PartitionIndex(index)),
                incarnation: Incarnation(incarnation),
                position: block * BLOCK_BYTES,
                base: Offset(base),
                end: Offset(base + span),
                first_append: WallMillis(first),
                last_append: WallMillis(first),
                payload_bytes: 0,
                payload_crc: 0,
            };
            let bytes = Bytes::from(seal_extent(&mut head, &[Bytes::from(payload.clone())]).concat());
            prop_assert_eq!(ExtentHead::parse(&bytes), Ok(head));
            prop_assert_eq!(&head.payload(&bytes).expect("sound")[..], &payload[..]);
            prop_assert_eq!(bytes.len() as u64, head.disk_bytes());
        }
    }
}
