//! Batches that are in memory: slices of the journal's slabs, oldest first.

use std::collections::VecDeque;

use bytes::Bytes;
use corelane_model::{Offset, WallMillis};
use corelane_record::BatchHead;

/// One stamped batch.
#[derive(Clone, Debug)]
pub(crate) struct CachedBatch {
    pub(crate) bytes: Bytes,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) append_timestamp: WallMillis,
    /// Where it lies in the journal, as a number that grows.
    pub(crate) position: u64,
}

impl CachedBatch {
    pub(crate) fn new(head: &BatchHead, bytes: Bytes, position: u64) -> Self {
        let (base, end) = (head.base_offset, head.end_offset());
        Self { bytes, base, end, append_timestamp: head.append_timestamp, position }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Batches in the order of their offsets. Gaps between them exist only where damage made them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchCache {
    batches: VecDeque<CachedBatch>,
    bytes: u64,
}

/// An idle partition keeps no more room for batches than this.
const IDLE_CAPACITY: usize = 4;

impl BatchCache {
    pub(crate) fn push(&mut self, batch: CachedBatch) {
        if let Some(last) = self.batches.back() {
            assert!(last.end <= batch.base, "batch from {} after one up to {}", batch.base, last.end);
        }
        self.bytes += batch.len();
        self.batches.push_back(batch);
    }

    pub(crate) fn pop_front(&mut self) -> Option<CachedBatch> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.len();
        if self.batches.is_empty() && IDLE_CAPACITY < self.batches.capacity() {
            self.batches = VecDeque::new();
        }
        Some(batch)
    }

    /// Forgets batches that lie wholly below the offset; returns their bytes.
    pub(crate) fn drop_below(&mut self, offset: Offset) -> u64 {
        let before = self.bytes;
        while self.front().is_some_and(|batch| batch.end <= offset) {
            self.pop_front();
        }
        before - self.bytes
    }

    pub(crate) fn front(&self) -> Option<&CachedBatch> {
        self.batches.front()
    }

    pub(crate) fn back(&self) -> Option<&CachedBatch> {
        self.batches.back()
    }

    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Bytes of the batches.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the list itself takes.
    pub(crate) fn list_bytes(&self) -> usize {
        self.batches.capacity() * size_of::<CachedBatch>()
    }

    /// The batch that contains the offset and those behind it, up to the first gap; nothing if none contains it.
    pub(crate) fn run_from(&self, offset: Offset) -> impl Iterator<Item = &CachedBatch> {
        let start = self.batches.partition_point(|batch| batch.end <= offset);
        let mut expected = self.batches.get(start).filter(|batch| batch.base <= offset).map(|batch| batch.base);
        self.batches.range(start..).take_while(move |batch| {
            let is_next = expected == Some(batch.base);
            expected = Some(batch.end);
            is_next
        })
    }

    /// The first batch that was not appended before the moment.
    pub(crate) fn at_time(&self, moment: WallMillis) -> Option<&CachedBatch> {
        self.batches.get(self.batches.partition_point(|batch| batch.append_timestamp < moment))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CachedBatch> {
        self.batches.iter()
    }
}
