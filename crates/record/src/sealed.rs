//! The broker's side: a batch that was checked once and is never looked into again.

use bytes::Bytes;
use corelane_model::{LeaderEpoch, Offset, ProducerId, WallMillis};

use crate::{BATCH_HEAD_BYTES, BatchError, BatchFlags, BatchHead, BatchKeys, columns, head};

/// A batch from a producer, checked whole: head and payload checksums, the archive, ends, counts and limits. Cheap to
/// clone.
///
/// There is no other way in from the network. Compressed values are not decompressed: their checksum holds and their
/// announced length is within the limit; whether they decompress to it is for readers to find.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    head: BatchHead,
    bytes: Bytes,
}

impl SealedBatch {
    /// Checks a batch that a producer sent; `bytes` is the batch and nothing else.
    ///
    /// # Errors
    /// The first thing that does not hold. A producer may not set flags of the broker's, nor leave holes between
    /// offsets.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let head = BatchHead::parse(&bytes)?;
        check_whole(&head, bytes.len())?;
        if !BatchFlags::PRODUCER.contains(head.flags) {
            return Err(BatchError::Flags { found: head.flags.0, accepted: BatchFlags::PRODUCER.0 });
        }
        if head.transaction().is_some_and(|transaction| transaction.producer == ProducerId::NONE) {
            return Err(BatchError::NobodysTransaction);
        }
        check_span(&head)?;
        columns::check(&head, &bytes)?;
        Ok(Self { head, bytes })
    }

    /// The head as the producer sent it.
    #[must_use]
    pub const fn head(&self) -> &BatchHead {
        &self.head
    }

    /// Head and payload as the producer sent them.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The payload alone.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[BATCH_HEAD_BYTES..]
    }

    /// Its keys; their offsets count from 0 until the batch is stamped.
    #[must_use]
    pub fn keys(&self) -> BatchKeys {
        BatchKeys::of(self.head, self.bytes.clone())
    }

    /// A head for this batch with the stamp in it, to be put in front of [`SealedBatch::payload`].
    #[must_use]
    pub fn stamped_head(&self, stamp: Stamp) -> [u8; BATCH_HEAD_BYTES] {
        let mut bytes = [0; BATCH_HEAD_BYTES];
        bytes.copy_from_slice(&self.bytes[..BATCH_HEAD_BYTES]);
        self::stamp(&mut bytes, stamp);
        bytes
    }
}

/// What the partition's owner gives a batch when it appends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// When it was appended.
    pub append_timestamp: WallMillis,
    /// Term of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
}

/// Patches the stamp into the head at the beginning of `head`, and its checksum accordingly. The payload is not touched. A head
/// whose checksum does not hold is none afterwards either.
///
/// Panics if `head` is shorter than a head.
pub fn stamp(head: &mut [u8], stamp: Stamp) {
    let head = head.first_chunk_mut::<BATCH_HEAD_BYTES>().expect("a batch has a whole head");
    head::put_stamp(head, stamp);
}

/// Cuts the first whole batch off a run of batches that lie one after another; `None` when nothing is left. The
/// payload is not checked.
///
/// # Errors
/// There is no head at the beginning, or the run ends within its batch. `bytes` is as it was before.
pub fn split_batch(bytes: &mut Bytes) -> Result<Option<Bytes>, BatchError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let needed = BatchHead::parse(bytes)?.batch_bytes() as usize;
    if bytes.len() < needed {
        return Err(BatchError::Truncated { len: bytes.len(), needed });
    }
    Ok(Some(bytes.split_to(needed)))
}

/// Checks that a batch has the length that its head says.
pub(crate) fn check_whole(head: &BatchHead, len: usize) -> Result<(), BatchError> {
    let needed = head.batch_bytes() as usize;
    if len < needed {
        return Err(BatchError::Truncated { len, needed });
    }
    if needed < len {
        return Err(BatchError::Excess { needed, excess: len - needed });
    }
    Ok(())
}

/// Checks that each offset has a record, unless a column says which ones are left.
pub(crate) fn check_span(head: &BatchHead) -> Result<(), BatchError> {
    let has_holes = head.record_count < head.offset_span;
    if has_holes == head.flags.contains(BatchFlags::OFFSETS) {
        Ok(())
    } else {
        Err(BatchError::OffsetSpan { span: head.offset_span, count: head.record_count })
    }
}
