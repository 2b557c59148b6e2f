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

/// Batches of one block of the list.
const BLOCK_BATCHES: usize = 8;
/// Blocks that an empty list keeps room to name.
const IDLE_BLOCKS: usize = 4;

/// Batches in the order of their offsets. Gaps between them exist only where damage made them.
///
/// The list is made of blocks, so that a batch that is added moves no other one: the partitions of a tick grow in step, and
/// lists that doubled would all be copied on the same edge. No block is empty, and all between the first and the last are
/// full.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchCache {
    blocks: VecDeque<VecDeque<CachedBatch>>,
    len: usize,
    bytes: u64,
}

impl BatchCache {
    pub(crate) fn push(&mut self, batch: CachedBatch) {
        if let Some(last) = self.back() {
            assert!(last.end <= batch.base, "batch from {} after one up to {}", batch.base, last.end);
        }
        self.bytes += batch.len();
        self.len += 1;
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK_BATCHES => block.push_back(batch),
            _ => {
                let mut block = VecDeque::with_capacity(BLOCK_BATCHES);
                block.push_back(batch);
                self.blocks.push_back(block);
            }
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<CachedBatch> {
        let block = self.blocks.front_mut()?;
        let batch = block.pop_front()?;
        if block.is_empty() {
            self.blocks.pop_front();
        }
        self.bytes -= batch.len();
        self.len -= 1;
        if self.len == 0 && IDLE_BLOCKS < self.blocks.capacity() {
            self.blocks = VecDeque::new();
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
        self.blocks.front()?.front()
    }

    pub(crate) fn back(&self) -> Option<&CachedBatch> {
        self.blocks.back()?.back()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the batches.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the list itself takes.
    pub(crate) fn list_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<VecDeque<CachedBatch>>()
            + self.blocks.len() * BLOCK_BATCHES * size_of::<CachedBatch>()
    }

    /// The batch that contains the offset and those behind it, up to the first gap; nothing if none contains it.
    pub(crate) fn run_from(&self, offset: Offset) -> impl Iterator<Item = &CachedBatch> {
        let mut batches = self.from(move |batch| batch.end <= offset).peekable();
        let mut expected = batches.peek().filter(|batch| batch.base <= offset).map(|batch| batch.base);
        batches.take_while(move |batch| {
            let is_next = expected == Some(batch.base);
            expected = Some(batch.end);
            is_next
        })
    }

    /// The first batch that was not appended before the moment.
    pub(crate) fn at_time(&self, moment: WallMillis) -> Option<&CachedBatch> {
        self.from(move |batch| batch.append_timestamp < moment).next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CachedBatch> {
        self.blocks.iter().flatten()
    }

    /// Batches from the first on for which `is_before` does not hold; it holds for none behind that.
    fn from(&self, is_before: impl Fn(&CachedBatch) -> bool) -> impl Iterator<Item = &CachedBatch> {
        let at = self.blocks.partition_point(|block| block.back().is_some_and(&is_before));
        let start = self.blocks.get(at).map_or(0, |block| block.partition_point(is_before));
        self.blocks.range(at..).flatten().skip(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of `records` from `base` on, appended at the millisecond of its offset.
    fn batch(base: u64, records: u64) -> CachedBatch {
        let (base, end) = (Offset(base), Offset(base + records));
        let append_timestamp = WallMillis(i64::try_from(base.0).expect("small"));
        CachedBatch { bytes: Bytes::from_static(b"three"), base, end, append_timestamp, position: base.0 }
    }

    #[test]
    fn it_answers_as_a_plain_list_does_however_its_blocks_lie() {
        let (mut cache, mut plain) = (BatchCache::default(), VecDeque::new());
        let mut end = 0;
        for step in 0..400_u64 {
            // Lists of all lengths up to five blocks come and go; every seventh batch follows a gap.
            let is_growing = step % 80 < 40;
            if is_growing || plain.is_empty() {
                let base = end + u64::from(step % 7 == 0);
                end = base + 1 + step % 3;
                cache.push(batch(base, end - base));
                plain.push_back(batch(base, end - base));
            } else {
                assert_eq!(cache.pop_front().map(|batch| batch.base), plain.pop_front().map(|batch| batch.base));
            }
            let bases =
                |list: &mut dyn Iterator<Item = &CachedBatch>| list.map(|batch| batch.base.0).collect::<Vec<_>>();
            assert_eq!(bases(&mut cache.iter()), bases(&mut plain.iter()));
            assert_eq!((cache.len(), cache.bytes()), (plain.len(), 5 * plain.len() as u64));
            assert_eq!(cache.front().map(|batch| batch.base), plain.front().map(|batch| batch.base));
            assert_eq!(cache.back().map(|batch| batch.base), plain.back().map(|batch| batch.base));
            for from in end.saturating_sub(90)..=end {
                let first = plain.iter().position(|batch| batch.base.0 <= from && from < batch.end.0);
                let mut run = Vec::new();
                for batch in plain.iter().skip(first.unwrap_or(plain.len())) {
                    if run.last().is_some_and(|&(_, end)| end != batch.base.0) {
                        break;
                    }
                    run.push((batch.base.0, batch.end.0));
                }
                let found: Vec<_> = cache.run_from(Offset(from)).map(|batch| (batch.base.0, batch.end.0)).collect();
                assert_eq!(found, run, "from {from}");
                let moment = WallMillis(i64::try_from(from).expect("small"));
                let at = plain.iter().find(|batch| moment <= batch.append_timestamp).map(|batch| batch.base);
                assert_eq!(cache.at_time(moment).map(|batch| batch.base), at, "at {from}");
            }
        }
    }

    #[test]
    fn an_empty_list_keeps_next_to_nothing() {
        let mut cache = BatchCache::default();
        for base in 0..1000 {
            cache.push(batch(base, 1));
        }
        assert!(1000 * size_of::<CachedBatch>() <= cache.list_bytes());
        assert_eq!(cache.drop_below(Offset(1000)), 5000);
        assert_eq!((cache.len(), cache.list_bytes()), (0, 0));
    }
}
