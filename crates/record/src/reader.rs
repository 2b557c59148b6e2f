//! The reader's side: records lent in place.

use std::ops::Range;

use bytes::Bytes;
use corelane_model::{Offset, WallMillis};

use crate::columns::{self, Layout, NULL};
use crate::sealed::{check_span, check_whole};
use crate::{BatchError, BatchHead, Compression, Headers};

/// A batch whose records can be read; checked whole, values decompressed. Records borrow from it.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    head: BatchHead,
    bytes: Bytes,
    /// The values when they were compressed, else empty.
    decompressed: Bytes,
    layout: Layout,
}

/// One record, lent from its batch.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: Offset,
    /// The timestamp that the producer gave it, which may be anything.
    pub timestamp: WallMillis,
    /// Its key; null is not empty.
    pub key: Option<&'a [u8]>,
    /// Its value; null is not empty.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// Its headers, in the producer's order, duplicates kept: names and nullable values.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers::new(self.headers)
    }
}

impl RecordBatch {
    /// Checks a batch and makes its records readable; `bytes` is the batch and nothing else.
    ///
    /// Takes at most [`corelane_model::limits::BATCH_VALUES_BYTES_MAX`] of new memory, and none if the values are not
    /// compressed.
    ///
    /// # Errors
    /// The first thing that does not hold; reading the same bytes again gives the same.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let head = BatchHead::parse(&bytes)?;
        check_whole(&head, bytes.len())?;
        check_span(&head)?;
        let layout = columns::check(&head, &bytes)?;
        let decompressed = match head.compression() {
            Compression::None => Bytes::new(),
            compression => Bytes::from(compression.decompress(&bytes[layout.values.clone()], layout.values_len)?),
        };
        Ok(Self { head, bytes, decompressed, layout })
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &BatchHead {
        &self.head
    }

    /// Head and payload as they came.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many records it has, at least one.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head.record_count as usize
    }

    /// Never: a batch has at least one record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head.record_count == 0
    }

    /// The record at a place in the batch, from 0; `None` beyond the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        (index < self.len()).then(|| self.record(index))
    }

    /// All records in order.
    #[must_use]
    pub const fn iter(&self) -> Records<'_> {
        Records { batch: self, next: 0, end: self.len() }
    }

    /// The records from an offset on, in order; all of them if it lies before the batch, none if behind it.
    #[must_use]
    pub fn iter_from(&self, from: Offset) -> Records<'_> {
        Records { batch: self, next: self.index_at(from), end: self.len() }
    }

    /// The records from an offset on and before another.
    #[must_use]
    pub fn iter_between(&self, from: Offset, until: Offset) -> Records<'_> {
        let next = self.index_at(from);
        Records { batch: self, next, end: self.index_at(until).max(next) }
    }

    /// The first record at an offset or after it; the number of records if there is none.
    fn index_at(&self, offset: Offset) -> usize {
        let behind = offset.since(self.head.base_offset);
        match &self.layout.offsets {
            None => usize::try_from(behind).unwrap_or(usize::MAX).min(self.len()),
            Some(column) => {
                let (mut low, mut high) = (0, self.len());
                while low < high {
                    let middle = low.midpoint(high);
                    if u64::from(self.number(column, middle)) < behind {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                low
            }
        }
    }

    fn record(&self, index: usize) -> Record<'_> {
        let Layout { values, keys, headers, .. } = &self.layout;
        let values = match self.head.compression() {
            Compression::None => &self.bytes[values.clone()],
            Compression::Lz4 | Compression::Zstd => &self.decompressed,
        };
        let delta = self.layout.timestamps.as_ref().map_or(0, |column| self.number(column, index));
        let place = self.layout.offsets.as_ref().map_or(index as u64, |column| u64::from(self.number(column, index)));
        Record {
            // The head's check has shown that the batch's end is within 64 bits.
            offset: Offset(self.head.base_offset.0 + place),
            timestamp: WallMillis(self.head.max_timestamp.0 - i64::from(delta)),
            key: self.layout.key_ends.as_ref().and_then(|ends| self.slice(ends, index, &self.bytes[keys.clone()])),
            value: self.slice(&self.layout.value_ends, index, values),
            headers: self
                .layout
                .header_ends
                .as_ref()
                .and_then(|ends| self.slice(ends, index, &self.bytes[headers.clone()]))
                .unwrap_or_default(),
        }
    }

    /// What lies between the end before and the end at `index`; `None` when that end says null.
    fn slice<'a>(&self, ends: &Range<usize>, index: usize, column: &'a [u8]) -> Option<&'a [u8]> {
        let end = self.number(ends, index);
        if end & NULL != 0 {
            return None;
        }
        let start = if index == 0 { 0 } else { self.number(ends, index - 1) & !NULL };
        Some(&column[start as usize..end as usize])
    }

    fn number(&self, column: &Range<usize>, index: usize) -> u32 {
        let at = column.start + index * 4;
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// The records of a batch, in order.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    batch: &'a RecordBatch,
    next: usize,
    end: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.next == self.end {
            return None;
        }
        let record = self.batch.record(self.next);
        self.next += 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }

    fn nth(&mut self, n: usize) -> Option<Record<'a>> {
        self.next = self.next.saturating_add(n).min(self.end);
        self.next()
    }
}

impl DoubleEndedIterator for Records<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        Some(self.batch.record(self.end))
    }
}

impl ExactSizeIterator for Records<'_> {}
