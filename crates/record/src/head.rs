//! The head of a record batch: 80 bytes, little-endian, with a checksum of its own.

use corelane_model::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use corelane_model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Transaction, WallMillis};

use crate::{BatchError, Compression, Stamp};

/// Bytes of the head.
pub const BATCH_HEAD_BYTES: usize = 80;
/// First four bytes of each batch, `CLRB` when read as text.
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"CLRB");
/// Version of the head that this build writes and reads.
pub const BATCH_VERSION: u8 = 1;
/// Codec of a payload of rkyv columns.
pub const CODEC_COLUMNS: u8 = 0;
/// Codec kept for batches of other systems that are carried verbatim; not accepted yet.
pub const CODEC_FOREIGN: u8 = 1;

/// Where the head's own checksum stands: over all bytes before it.
const HEAD_CRC_AT: usize = 76;
const _: () = assert!(HEAD_CRC_AT + 4 == BATCH_HEAD_BYTES);
const _: () = assert!(BATCH_HEAD_BYTES < BATCH_BYTES_MAX as usize);

/// What a batch says about its payload, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BatchFlags(pub u16);

impl BatchFlags {
    /// Bits 0 and 1: the [`Compression`] of the values.
    pub const COMPRESSION: Self = Self(0b11);
    /// The batch belongs to the transaction that its producer id and producer epoch name.
    pub const TRANSACTIONAL: Self = Self(1 << 2);
    /// The batch is a marker of the broker and holds no user's records. Kept for later.
    pub const CONTROL: Self = Self(1 << 3);
    /// The number column holds key ends; without it every key is null.
    pub const KEYS: Self = Self(1 << 4);
    /// The number column holds header ends; without it no record has headers.
    pub const HEADERS: Self = Self(1 << 5);
    /// The number column holds timestamp deltas; without it every record has the head's max timestamp.
    pub const TIMESTAMPS: Self = Self(1 << 6);

    /// The number column says which offset each record has; without it they follow each other. Compaction sets it.
    pub const OFFSETS: Self = Self(1 << 7);

    /// Every bit that this version gives a meaning.
    pub const KNOWN: Self = Self(0b1111_1111);
    /// What a producer may set.
    pub const PRODUCER: Self = Self(Self::KNOWN.0 & !Self::CONTROL.0 & !Self::OFFSETS.0);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// How the values are compressed; `None` for a number that this version does not know.
    #[must_use]
    pub const fn compression(self) -> Option<Compression> {
        Compression::from_bits(self.0 & Self::COMPRESSION.0)
    }
}

/// The head of a record batch.
///
/// The producer fills in all but base offset, append timestamp and leader epoch, which the partition's owner gives
/// (see [`crate::stamp`]); until then they are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchHead {
    /// Version of the head: [`BATCH_VERSION`].
    pub version: u8,
    /// How the payload is laid out: [`CODEC_COLUMNS`].
    pub codec: u8,
    /// What the payload holds.
    pub flags: BatchFlags,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Records in the payload, at least 1.
    pub record_count: u32,
    /// Offsets that the batch takes. Equal to the record count; larger only when compaction has left holes.
    pub offset_span: u32,
    /// Term of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// When the partition's owner took it; never goes back within a partition.
    pub append_timestamp: WallMillis,
    /// Latest of the timestamps that the producer gave its records.
    pub max_timestamp: WallMillis,
    /// Who produced it, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Incarnation of the producer.
    pub producer_epoch: ProducerEpoch,
    /// Where the coordinator of the batch's transaction is: an index among the homes; 0 without a transaction.
    pub home: u16,
    /// Sequence of the first record.
    pub base_sequence: Sequence,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// CRC-32C of the head's bytes before it.
    pub head_crc: u32,
}

impl BatchHead {
    /// The head at the beginning of `bytes`, which may go on beyond the batch or end before its payload does.
    ///
    /// Checks magic, checksum, version, reserved bytes, flags and limits; says nothing about the payload.
    ///
    /// # Errors
    /// The first of these that does not hold. A head of a later version fails by its version only if its checksum
    /// stands where ours does, which every version keeps.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<BATCH_HEAD_BYTES>() else {
            return Err(BatchError::Truncated { len: bytes.len(), needed: BATCH_HEAD_BYTES });
        };
        let magic = u32_at(head, 0);
        if magic != BATCH_MAGIC {
            return Err(BatchError::Magic { found: magic });
        }
        let computed = crc_fast::crc32_iscsi(&head[..HEAD_CRC_AT]);
        let stated = u32_at(head, HEAD_CRC_AT);
        if computed != stated {
            return Err(BatchError::HeadChecksum { stated, computed });
        }
        let parsed = Self::read(head);
        parsed.check(head)?;
        Ok(parsed)
    }

    /// The head of a batch that this process has checked or sealed itself and holds in memory since; nothing is checked again.
    ///
    /// Panics if `batch` is shorter than a head.
    #[must_use]
    pub fn of_checked(batch: &[u8]) -> Self {
        Self::read(batch.first_chunk().expect("a batch has a whole head"))
    }

    /// The fields, unchecked.
    fn read(head: &[u8; BATCH_HEAD_BYTES]) -> Self {
        Self {
            version: head[4],
            codec: head[5],
            flags: BatchFlags(u16_at(head, 6)),
            payload_bytes: u32_at(head, 8),
            record_count: u32_at(head, 12),
            offset_span: u32_at(head, 16),
            leader_epoch: LeaderEpoch(u32_at(head, 20)),
            base_offset: Offset(u64_at(head, 24)),
            append_timestamp: WallMillis(u64_at(head, 32).cast_signed()),
            max_timestamp: WallMillis(u64_at(head, 40).cast_signed()),
            producer_id: ProducerId(u64_at(head, 48)),
            producer_epoch: ProducerEpoch(u16_at(head, 56)),
            home: u16_at(head, 58),
            base_sequence: Sequence(u32_at(head, 60)),
            payload_crc: u32_at(head, 64),
            head_crc: u32_at(head, HEAD_CRC_AT),
        }
    }

    #[inline]
    fn check(&self, head: &[u8; BATCH_HEAD_BYTES]) -> Result<(), BatchError> {
        if self.version != BATCH_VERSION {
            return Err(BatchError::Version { found: self.version, known: BATCH_VERSION });
        }
        if self.codec != CODEC_COLUMNS {
            return Err(BatchError::Codec { found: self.codec, known: CODEC_COLUMNS });
        }
        if !BatchFlags::KNOWN.contains(self.flags) || self.flags.compression().is_none() {
            return Err(BatchError::Flags { found: self.flags.0, accepted: BatchFlags::KNOWN.0 });
        }
        let is_homeless = self.transaction().is_none() && self.home != 0;
        if is_homeless || head[68..HEAD_CRC_AT] != [0; 8] {
            return Err(BatchError::Reserved);
        }
        let len = u64::from(self.payload_bytes) + BATCH_HEAD_BYTES as u64;
        if u64::from(BATCH_BYTES_MAX) < len {
            return Err(BatchError::TooLarge { len, limit: BATCH_BYTES_MAX });
        }
        if self.record_count == 0 || BATCH_RECORDS_MAX < self.record_count {
            return Err(BatchError::RecordCount { count: self.record_count, limit: BATCH_RECORDS_MAX });
        }
        // An offset that is not yet given is 0, so that this is no limit on producers. It keeps `end_offset` total.
        let is_countable = self.base_offset.0.checked_add(u64::from(self.offset_span)).is_some();
        if self.offset_span < self.record_count || !is_countable {
            return Err(BatchError::OffsetSpan { span: self.offset_span, count: self.record_count });
        }
        Ok(())
    }

    /// Writes the fields and their checksum. `head_crc` of `self` is not looked at.
    ///
    /// Panics if `out` is shorter than a head.
    pub fn write(&self, out: &mut [u8]) {
        let out = out.first_chunk_mut::<BATCH_HEAD_BYTES>().expect("the caller leaves room for a head");
        out[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        out[4] = self.version;
        out[5] = self.codec;
        out[6..8].copy_from_slice(&self.flags.0.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.record_count.to_le_bytes());
        out[16..20].copy_from_slice(&self.offset_span.to_le_bytes());
        out[20..24].copy_from_slice(&self.leader_epoch.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.base_offset.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.append_timestamp.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.max_timestamp.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.producer_id.0.to_le_bytes());
        out[56..58].copy_from_slice(&self.producer_epoch.0.to_le_bytes());
        out[58..60].copy_from_slice(&self.home.to_le_bytes());
        out[60..64].copy_from_slice(&self.base_sequence.0.to_le_bytes());
        out[64..68].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[68..HEAD_CRC_AT].copy_from_slice(&[0; 8]);
        seal(out);
    }

    /// Bytes of head and payload.
    #[must_use]
    pub fn batch_bytes(&self) -> u32 {
        HEAD_BYTES_U32 + self.payload_bytes
    }

    /// Exclusive end of the offsets that the batch takes.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(u64::from(self.offset_span))
    }

    /// Sequence of the last record, wrapping.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        self.base_sequence.advance(self.record_count.wrapping_sub(1))
    }

    /// The transaction that it belongs to, if it belongs to one.
    #[must_use]
    pub const fn transaction(&self) -> Option<Transaction> {
        if self.flags.contains(BatchFlags::TRANSACTIONAL) {
            Some(Transaction::new(self.producer_id, self.producer_epoch))
        } else {
            None
        }
    }

    /// How the values are compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.flags.compression().unwrap_or_default()
    }
}

/// The head's length in the type of lengths on disk.
const HEAD_BYTES_U32: u32 = 80;
const _: () = assert!(HEAD_BYTES_U32 as usize == BATCH_HEAD_BYTES);

/// Puts the checksum over a new head.
fn seal(head: &mut [u8; BATCH_HEAD_BYTES]) {
    let crc = crc_fast::crc32_iscsi(&head[..HEAD_CRC_AT]);
    head[HEAD_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// Where a stamp stands: leader epoch, base offset and append timestamp.
const STAMP_AT: usize = 20;
/// Bytes of a stamp.
const STAMP_BYTES: usize = 20;

/// Puts a stamp in, and its changes into the checksum, which agrees with the head afterwards if it did before: what else went
/// wrong in the head since it was checked is found by whoever checks it next.
pub(crate) fn put_stamp(head: &mut [u8; BATCH_HEAD_BYTES], stamp: Stamp) {
    let mut new = [0; STAMP_BYTES];
    new[..4].copy_from_slice(&stamp.leader_epoch.0.to_le_bytes());
    new[4..12].copy_from_slice(&stamp.base_offset.0.to_le_bytes());
    new[12..].copy_from_slice(&stamp.append_timestamp.0.to_le_bytes());
    let old = head[STAMP_AT..].first_chunk_mut::<STAMP_BYTES>().expect("a stamp is part of the head");
    let mut change = 0;
    for ((crcs, new), old) in STAMP_CRCS.iter().zip(new).zip(old) {
        change ^= crcs[usize::from(*old ^ new)];
        *old = new;
    }
    let crc = u32_at(head, HEAD_CRC_AT) ^ change;
    head[HEAD_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// What bits of a byte of the stamp that change do to the head's checksum. A CRC is linear: the change of each byte can be
/// looked up by itself.
static STAMP_CRCS: [[u32; 256]; STAMP_BYTES] = stamp_crcs();

/// The polynomial of CRC-32C, reflected.
const CRC32C: u32 = 0x82f6_3b78;

const fn stamp_crcs() -> [[u32; 256]; STAMP_BYTES] {
    let mut crcs = [[0; 256]; STAMP_BYTES];
    let mut byte = 0_u32;
    while byte < 256 {
        let mut crc = byte;
        let mut bits = 8;
        let mut place = HEAD_CRC_AT;
        while STAMP_AT < place {
            while 0 < bits {
                crc = if crc & 1 == 1 { (crc >> 1) ^ CRC32C } else { crc >> 1 };
                bits -= 1;
            }
            bits = 8;
            place -= 1;
            if place < STAMP_AT + STAMP_BYTES {
                crcs[place - STAMP_AT][byte as usize] = crc;
            }
        }
        byte += 1;
    }
    crcs
}

fn u16_at(head: &[u8; BATCH_HEAD_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(head[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(head: &[u8; BATCH_HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(head: &[u8; BATCH_HEAD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"))
}
