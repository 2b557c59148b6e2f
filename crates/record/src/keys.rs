//! Keys alone: what the broker looks at where it must know which record replaces which. Values stay compressed.

use std::ops::Range;

use bytes::Bytes;
use corelane_model::Offset;

use crate::columns::{self, Layout, NULL};
use crate::sealed::{check_span, check_whole};
use crate::{BatchError, BatchHead};

/// The keys of a batch that was checked whole. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BatchKeys {
    head: BatchHead,
    bytes: Bytes,
    layout: Layout,
}

/// One record, as far as its key says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedRecord<'a> {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its key; null is not empty.
    pub key: Option<&'a [u8]>,
    /// Whether its value is null: it takes its key away.
    pub is_tombstone: bool,
    /// Bytes of its value, before compression.
    pub value_bytes: u32,
}

impl BatchKeys {
    /// Checks a batch as [`crate::RecordBatch::parse`] does, but decompresses nothing; `bytes` is the batch and nothing
    /// else.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let head = BatchHead::parse(&bytes)?;
        check_whole(&head, bytes.len())?;
        check_span(&head)?;
        let layout = columns::check(&head, &bytes)?;
        Ok(Self { head, bytes, layout })
    }

    /// Of a batch that was checked.
    pub(crate) fn of(head: BatchHead, bytes: Bytes) -> Self {
        let layout = columns::locate(&head, &bytes).expect("the batch was checked");
        Self { head, bytes, layout }
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &BatchHead {
        &self.head
    }

    /// Place in the batch of the first record without a key, if there is one.
    #[must_use]
    pub fn first_without_key(&self) -> Option<usize> {
        self.iter().position(|record| record.key.is_none())
    }

    /// All records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KeyedRecord<'_>> {
        (0..self.head.record_count as usize).map(|index| self.record(index))
    }

    fn record(&self, index: usize) -> KeyedRecord<'_> {
        let number = |column: &Range<usize>, index: usize| {
            let at = column.start + index * 4;
            u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
        };
        let start = |column: &Range<usize>| if index == 0 { 0 } else { number(column, index - 1) & !NULL };
        let place = self.layout.offsets.as_ref().map_or(index as u64, |column| u64::from(number(column, index)));
        let keys = &self.bytes[self.layout.keys.clone()];
        let key = self.layout.key_ends.as_ref().and_then(|ends| {
            let end = number(ends, index);
            (end & NULL == 0).then(|| &keys[start(ends) as usize..end as usize])
        });
        let value_end = number(&self.layout.value_ends, index);
        KeyedRecord {
            offset: Offset(self.head.base_offset.0 + place),
            key,
            is_tombstone: value_end & NULL != 0,
            value_bytes: (value_end & !NULL) - start(&self.layout.value_ends),
        }
    }
}
