//! A batch of a single record, written at once.

use corelane_model::WallMillis;
use corelane_model::limits::BATCH_BYTES_MAX;

use crate::builder::{complete, end};
use crate::columns::{NULL, ROOT_BYTES, write_behind_numbers};
use crate::{BATCH_HEAD_BYTES, BatchBuilder, BatchFlags, BatchHead, ProducerStamp, PushError};

/// A batch of a single record without headers, but for its head.
///
/// At the tick of many partitions each gets one record. Such a batch lies where it stays as soon as the record is there: it has
/// no columns to gather, and its head alone is left for later. If another record comes first, [`Self::move_into`] puts this one
/// into a [`BatchBuilder`].
#[derive(Debug)]
pub struct SingleBatch {
    /// Room for the head, then the payload.
    bytes: Vec<u8>,
    timestamp: WallMillis,
    value_bytes: Option<usize>,
    key_bytes: Option<usize>,
}

impl SingleBatch {
    /// A batch of this record in `memory`, whatever was there before.
    ///
    /// # Errors
    /// [`PushError::RecordTooLarge`]: it fits into no batch.
    pub fn new(
        memory: Vec<u8>,
        timestamp: WallMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Self, PushError> {
        let (value_bytes, key_bytes) = (value.map(<[u8]>::len), key.map(<[u8]>::len));
        let numbers = if key.is_some() { 8 } else { 4 };
        let payload = value_bytes.unwrap_or_default() + numbers + key_bytes.unwrap_or_default() + ROOT_BYTES;
        let len = (BATCH_HEAD_BYTES + payload) as u64;
        if u64::from(BATCH_BYTES_MAX) < len {
            return Err(PushError::RecordTooLarge { len, limit: BATCH_BYTES_MAX });
        }
        let mut bytes = memory;
        // All of the head is written in the end.
        bytes.resize(BATCH_HEAD_BYTES, 0);
        bytes.reserve_exact(payload);
        bytes.extend_from_slice(value.unwrap_or_default());
        let numbers_at = bytes.len();
        let mark = |bytes: Option<usize>| bytes.map_or(NULL, end);
        bytes.extend_from_slice(&mark(value_bytes).to_le_bytes());
        if key.is_some() {
            bytes.extend_from_slice(&mark(key_bytes).to_le_bytes());
        }
        write_behind_numbers(&mut bytes, numbers_at, key.unwrap_or_default(), &[]);
        Ok(Self { bytes, timestamp, value_bytes, key_bytes })
    }

    /// Bytes that the batch has.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch, as memory that has one holder.
    #[must_use]
    pub fn finish(self, producer: ProducerStamp) -> Vec<u8> {
        let mut bytes = self.bytes;
        let head = BatchHead {
            flags: if self.key_bytes.is_some() { BatchFlags::KEYS } else { BatchFlags(0) },
            record_count: 1,
            offset_span: 1,
            max_timestamp: self.timestamp,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            base_sequence: producer.base_sequence,
            ..BatchHead::default()
        };
        complete(head, &mut bytes);
        bytes
    }

    /// Puts the record into an empty builder, for others to follow.
    pub fn move_into(self, builder: &mut BatchBuilder) {
        let values = &self.bytes[BATCH_HEAD_BYTES..];
        let value = self.value_bytes.map(|len| &values[..len]);
        let keys = &values[..values.len() - ROOT_BYTES];
        let key = self.key_bytes.map(|len| &keys[keys.len() - len..]);
        builder.take(self.timestamp, key, value, std::iter::empty());
    }
}
