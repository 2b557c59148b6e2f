//! What an entry holds: record batches and changes of the shard's durable state.
//!
//! ```text
//! 0   kind           1
//! 1   payload bytes  3   little-endian, so at most 16 MiB - 1
//! 4   partition      4   0 where the item belongs to the shard
//! 8   topic          8   0 where the item belongs to the shard
//! 16  payload            fixed fields of the kind, then its bytes
//! ```

use bytes::{Buf, Bytes, BytesMut};
use corelane_model::{
    Decision, LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, TopicId, Transaction,
};

use crate::ItemError;

/// Bytes of an item before its payload.
pub const ITEM_HEAD_BYTES: usize = 16;
/// What 24 bits can say.
pub(crate) const ITEM_PAYLOAD_BYTES_MAX: usize = (1 << 24) - 1;

pub(crate) const KIND_BATCH: u8 = 1;
const KIND_SETTLED: u8 = 2;
const KIND_LOG_START: u8 = 3;
const KIND_STATE: u8 = 4;
const KIND_CATALOG: u8 = 5;
const KIND_CATALOG_SNAPSHOT: u8 = 6;
const KIND_OFFSET_LEASE: u8 = 7;
const KIND_PRODUCER_LEASE: u8 = 8;
const KIND_EPOCH: u8 = 9;
const KIND_TRANSACTION_END: u8 = 10;

/// Bytes of the end of a transaction: two offsets, producer, epoch, decision, and one byte of zero.
const TRANSACTION_END_BYTES: usize = 28;
const DECISION_COMMIT: u8 = 1;
const DECISION_ABORT: u8 = 2;

/// One thing that is remembered. In replay each is applied in the order of the journal, and all but [`Item::Batch`] say
/// what holds from then on, so that applying one twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A stamped record batch, head and payload.
    Batch {
        /// Its partition.
        partition: PartitionId,
        /// The batch, a slice of the entry.
        batch: Bytes,
    },
    /// Records of a partition are in its segments now; written after the segments' sync.
    Settled {
        /// The partition.
        partition: PartitionId,
        /// Records below this offset need the journal no more.
        end: Offset,
        /// What changed in the list of segments, in the owner's encoding.
        changes: Bytes,
    },
    /// The log of a partition begins here now.
    LogStart {
        /// The partition.
        partition: PartitionId,
        /// Its new log start offset.
        offset: Offset,
    },
    /// All that must be known of a partition beside the batches that are not settled; part of a checkpoint. It replaces
    /// everything that earlier items said, except those batches.
    State {
        /// The partition.
        partition: PartitionId,
        /// The state in the owner's encoding.
        state: Bytes,
    },
    /// A change of the catalog; shard 0 only.
    Catalog {
        /// The change in the catalog's encoding.
        change: Bytes,
    },
    /// The whole catalog; part of a checkpoint, shard 0 only. It replaces all that earlier items said.
    CatalogSnapshot {
        /// The catalog in its own encoding.
        snapshot: Bytes,
    },
    /// A memory partition may hand out offsets below this one without asking again.
    OffsetLease {
        /// The partition.
        partition: PartitionId,
        /// The exclusive end of the lease.
        until: Offset,
    },
    /// The shard may hand out producer ids below this one without asking again.
    ProducerLease {
        /// The exclusive end of the lease.
        until: ProducerId,
    },
    /// A partition's leader epoch begins.
    Epoch {
        /// The partition.
        partition: PartitionId,
        /// The epoch.
        epoch: LeaderEpoch,
        /// The first offset that may be written in it.
        start: Offset,
    },
    /// A transaction that wrote to a partition is decided.
    TransactionEnd {
        /// The partition.
        partition: PartitionId,
        /// The transaction.
        transaction: Transaction,
        /// What was decided.
        decision: Decision,
        /// Offset of its first record in the partition.
        first: Offset,
        /// Its records lie before this.
        end: Offset,
    },
}

impl Item {
    /// Bytes that the item takes in an entry.
    #[must_use]
    pub fn encoded_bytes(&self) -> u64 {
        let (fixed, bytes) = match self {
            Self::Batch { batch, .. } => (0, batch.len()),
            Self::Settled { changes, .. } => (8, changes.len()),
            Self::State { state, .. } => (0, state.len()),
            Self::Catalog { change } => (0, change.len()),
            Self::CatalogSnapshot { snapshot } => (0, snapshot.len()),
            Self::LogStart { .. } | Self::OffsetLease { .. } | Self::ProducerLease { .. } => (8, 0),
            Self::Epoch { .. } => (12, 0),
            Self::TransactionEnd { .. } => (TRANSACTION_END_BYTES, 0),
        };
        (ITEM_HEAD_BYTES + fixed + bytes) as u64
    }

    /// Appends the item; `out` has room for [`Item::encoded_bytes`].
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Batch { partition, batch } => put(out, KIND_BATCH, *partition, &[], batch),
            Self::Settled { partition, end, changes } => {
                put(out, KIND_SETTLED, *partition, &end.0.to_le_bytes(), changes);
            }
            Self::LogStart { partition, offset } => put(out, KIND_LOG_START, *partition, &offset.0.to_le_bytes(), &[]),
            Self::State { partition, state } => put(out, KIND_STATE, *partition, &[], state),
            Self::Catalog { change } => put(out, KIND_CATALOG, PartitionId::default(), &[], change),
            Self::CatalogSnapshot { snapshot } => {
                put(out, KIND_CATALOG_SNAPSHOT, PartitionId::default(), &[], snapshot);
            }
            Self::OffsetLease { partition, until } => {
                put(out, KIND_OFFSET_LEASE, *partition, &until.0.to_le_bytes(), &[]);
            }
            Self::ProducerLease { until } => {
                put(out, KIND_PRODUCER_LEASE, PartitionId::default(), &until.0.to_le_bytes(), &[]);
            }
            Self::Epoch { partition, epoch, start } => {
                let mut fixed = [0; 12];
                fixed[..8].copy_from_slice(&start.0.to_le_bytes());
                fixed[8..].copy_from_slice(&epoch.0.to_le_bytes());
                put(out, KIND_EPOCH, *partition, &fixed, &[]);
            }
            Self::TransactionEnd { partition, transaction, decision, first, end } => {
                let mut fixed = [0; TRANSACTION_END_BYTES];
                fixed[..8].copy_from_slice(&first.0.to_le_bytes());
                fixed[8..16].copy_from_slice(&end.0.to_le_bytes());
                fixed[16..24].copy_from_slice(&transaction.producer.0.to_le_bytes());
                fixed[24..26].copy_from_slice(&transaction.epoch.0.to_le_bytes());
                fixed[26] = match decision {
                    Decision::Commit => DECISION_COMMIT,
                    Decision::Abort => DECISION_ABORT,
                };
                put(out, KIND_TRANSACTION_END, *partition, &fixed, &[]);
            }
        }
    }

    /// Takes the item that begins at byte `at` of `body` and returns it with the byte after it. Payloads are slices of
    /// `body`.
    ///
    /// # Errors
    /// [`ItemError`] when the body ends too early, the kind is unknown, or the payload is not as long as its kind says.
    pub fn parse(body: &Bytes, at: usize) -> Result<(Self, usize), ItemError> {
        let (kind, partition, payload, end) = split(body, at)?;
        let mut rest = payload.clone();
        let is_right_length = match kind {
            KIND_SETTLED => 8 <= rest.len(),
            KIND_LOG_START | KIND_OFFSET_LEASE | KIND_PRODUCER_LEASE => rest.len() == 8,
            KIND_EPOCH => rest.len() == 12,
            KIND_TRANSACTION_END => {
                rest.len() == TRANSACTION_END_BYTES
                    && matches!(rest[26], DECISION_COMMIT | DECISION_ABORT)
                    && rest[27] == 0
            }
            _ => true,
        };
        if !is_right_length {
            return Err(ItemError::Payload { at, kind, bytes: payload.len() });
        }
        let item = match kind {
            KIND_BATCH => Self::Batch { partition, batch: payload },
            KIND_SETTLED => Self::Settled { partition, end: Offset(rest.get_u64_le()), changes: rest },
            KIND_LOG_START => Self::LogStart { partition, offset: Offset(rest.get_u64_le()) },
            KIND_STATE => Self::State { partition, state: payload },
            KIND_CATALOG => Self::Catalog { change: payload },
            KIND_CATALOG_SNAPSHOT => Self::CatalogSnapshot { snapshot: payload },
            KIND_OFFSET_LEASE => Self::OffsetLease { partition, until: Offset(rest.get_u64_le()) },
            KIND_PRODUCER_LEASE => Self::ProducerLease { until: ProducerId(rest.get_u64_le()) },
            KIND_EPOCH => {
                let start = Offset(rest.get_u64_le());
                Self::Epoch { partition, epoch: LeaderEpoch(rest.get_u32_le()), start }
            }
            KIND_TRANSACTION_END => {
                let (first, end) = (Offset(rest.get_u64_le()), Offset(rest.get_u64_le()));
                let producer = ProducerId(rest.get_u64_le());
                let transaction = Transaction::new(producer, ProducerEpoch(rest.get_u16_le()));
                let decision = if rest.get_u8() == DECISION_COMMIT { Decision::Commit } else { Decision::Abort };
                Self::TransactionEnd { partition, transaction, decision, first, end }
            }
            _ => return Err(ItemError::Kind { at, kind }),
        };
        Ok((item, end))
    }
}

/// Kind, partition and payload of the item at byte `at`, and the byte after it.
pub(crate) fn split(body: &Bytes, at: usize) -> Result<(u8, PartitionId, Bytes, usize), ItemError> {
    let rest = body.len().saturating_sub(at);
    if rest < ITEM_HEAD_BYTES {
        return Err(ItemError::Truncated { at, missing: ITEM_HEAD_BYTES - rest });
    }
    let mut head = &body[at..at + ITEM_HEAD_BYTES];
    let word = head.get_u32_le();
    let kind = u8::try_from(word & 0xff).expect("one byte is left");
    let payload_bytes = (word >> 8) as usize;
    let index = PartitionIndex(head.get_u32_le());
    let topic = TopicId(head.get_u64_le());
    let rest = rest - ITEM_HEAD_BYTES;
    if rest < payload_bytes {
        return Err(ItemError::Truncated { at, missing: payload_bytes - rest });
    }
    let start = at + ITEM_HEAD_BYTES;
    let end = start + payload_bytes;
    Ok((kind, PartitionId::new(topic, index), body.slice(start..end), end))
}

/// Appends an item's head and payload.
pub(crate) fn put(out: &mut BytesMut, kind: u8, partition: PartitionId, fixed: &[u8], bytes: &[u8]) {
    let payload = fixed.len() + bytes.len();
    assert!(payload <= ITEM_PAYLOAD_BYTES_MAX, "item payload of {payload} bytes does not fit 24 bits");
    let word = (u32::try_from(payload).expect("24 bits fit 32") << 8) | u32::from(kind);
    let mut head = [0; ITEM_HEAD_BYTES];
    head[..4].copy_from_slice(&word.to_le_bytes());
    head[4..8].copy_from_slice(&partition.index.0.to_le_bytes());
    head[8..].copy_from_slice(&partition.topic.0.to_le_bytes());
    out.extend_from_slice(&head);
    if !fixed.is_empty() {
        out.extend_from_slice(fixed);
    }
    out.extend_from_slice(bytes);
}
