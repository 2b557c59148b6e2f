//! Batches of a segment file, one after another.

use bytes::Bytes;
use corelane_commitlog::Segment;
use corelane_model::PartitionId;
use corelane_record::split_batch;

use super::pass::Unreadable;
use crate::FileOp;
use crate::extent::{EXTENT_DISK_BYTES_MAX, EXTENT_HEAD_BYTES, ExtentHead};

/// Reads a segment from its beginning to its end, whole extents at a time. It does not go past damage: a log with
/// damage stays as it is, so that what was lost is reported for as long as it lies there.
#[derive(Debug)]
pub(super) struct SegmentReader {
    partition: PartitionId,
    segment: Segment,
    /// Where the next extent begins.
    position: u64,
    /// What was read from there on.
    bytes: Bytes,
    /// Batches of the extent before.
    batches: Bytes,
    /// Nothing was taken out of the last read.
    is_fresh: bool,
}

/// What comes next.
pub(super) enum Next {
    /// This batch.
    Batch(Bytes),
    /// Nothing before this was read.
    Read(FileOp),
    /// Nothing.
    End,
}

impl SegmentReader {
    pub(super) fn new(partition: PartitionId, segment: Segment) -> Self {
        let (bytes, batches) = (Bytes::new(), Bytes::new());
        Self { partition, segment, position: 0, bytes, batches, is_fresh: false }
    }

    pub(super) const fn segment(&self) -> &Segment {
        &self.segment
    }

    /// A read came back.
    pub(super) fn on_read(&mut self, bytes: Bytes) {
        self.bytes = bytes;
        self.is_fresh = true;
    }

    pub(super) fn next(&mut self) -> Result<Next, Unreadable> {
        if let Some(batch) = split_batch(&mut self.batches).map_err(|_| Unreadable)? {
            return Ok(Next::Batch(batch));
        }
        if self.segment.bytes <= self.position {
            return Ok(Next::End);
        }
        match self.take_extent()? {
            Some(payload) => {
                self.batches = payload;
                self.next()
            }
            None if self.is_fresh => Err(Unreadable),
            None => {
                let length = EXTENT_DISK_BYTES_MAX.min(self.segment.bytes - self.position);
                let length = u32::try_from(length).expect("reads are bounded");
                Ok(Next::Read(FileOp::Read { position: self.position, length }))
            }
        }
    }

    /// The payload of the next extent, if all of it was read.
    fn take_extent(&mut self) -> Result<Option<Bytes>, Unreadable> {
        if self.bytes.len() < EXTENT_HEAD_BYTES {
            return Ok(None);
        }
        let head = ExtentHead::parse(&self.bytes).map_err(|_| Unreadable)?;
        if head.partition != self.partition || head.position != self.position {
            return Err(Unreadable);
        }
        let length = usize::try_from(head.disk_bytes()).map_err(|_| Unreadable)?;
        if self.bytes.len() < length {
            return Ok(None);
        }
        let payload = head.payload(&self.bytes).map_err(|_| Unreadable)?;
        self.bytes = self.bytes.slice(length..);
        self.position += head.disk_bytes();
        self.is_fresh = false;
        Ok(Some(payload))
    }
}
