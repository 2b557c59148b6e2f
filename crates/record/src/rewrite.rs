//! Batches with some of their records left out, for compaction. What stays keeps its offset, timestamp and headers.

use bytes::Bytes;
use corelane_model::limits::BATCH_BYTES_MAX;

use crate::{BatchBuilder, BatchError, BatchHead, Compression, RecordBatch};

/// Writes batches anew without records that are superseded, one after another with the same memory.
#[derive(Debug, Default)]
pub struct Rewriter {
    /// One for each compression that came up.
    builders: Vec<(Compression, BatchBuilder)>,
}

impl Rewriter {
    /// Appends to `out` the batch without the records at places for which `keeps` is false; nothing if none is kept.
    ///
    /// All bytes come back as they were if all records are kept. What is left keeps producer, stamp and compression. The
    /// column of offsets can make it larger than a batch may be; then it becomes several. Decompresses values, at most
    /// [`corelane_model::limits::BATCH_VALUES_BYTES_MAX`]. Panics if `keeps` has not one entry a record.
    ///
    /// # Errors
    /// The batch is none, or a record that came compressed cannot be made as small again; `out` is as it was.
    pub fn rewrite(&mut self, bytes: Bytes, keeps: &[bool], out: &mut Vec<Bytes>) -> Result<(), BatchError> {
        if !keeps.contains(&false) {
            out.push(bytes);
            return Ok(());
        }
        let places: Vec<usize> = (0..keeps.len()).filter(|&place| keeps[place]).collect();
        if places.is_empty() {
            return Ok(());
        }
        let batch = RecordBatch::parse(bytes)?;
        assert_eq!(batch.len(), keeps.len(), "each record is kept or not");
        let before = out.len();
        let written = self.write(&batch, &places, out);
        if written.is_err() {
            out.truncate(before);
        }
        written
    }

    /// Writes the records at these places, in halves if they do not fit one batch.
    fn write(&mut self, batch: &RecordBatch, places: &[usize], out: &mut Vec<Bytes>) -> Result<(), BatchError> {
        let rewritten = self.write_one(batch, places);
        if rewritten.len() <= BATCH_BYTES_MAX as usize {
            out.push(rewritten);
            return Ok(());
        }
        if places.len() == 1 {
            return Err(BatchError::TooLarge { len: rewritten.len() as u64, limit: BATCH_BYTES_MAX });
        }
        let (first, second) = places.split_at(places.len() / 2);
        self.write(batch, first, out)?;
        self.write(batch, second, out)
    }

    fn write_one(&mut self, batch: &RecordBatch, places: &[usize]) -> Bytes {
        let builder = self.builder(batch.head().compression());
        let mut offsets = Vec::with_capacity(places.len());
        let first = batch.get(places[0]).expect("the place is within the batch").offset;
        for &place in places {
            let record = batch.get(place).expect("the place is within the batch");
            builder.take(record.timestamp, record.key, record.value, record.headers());
            offsets.push(u32::try_from(record.offset.since(first)).expect("a span has 32 bits"));
        }
        let behind = u32::try_from(first.since(batch.head().base_offset)).expect("a span has 32 bits");
        let head = BatchHead {
            base_offset: first,
            base_sequence: batch.head().base_sequence.advance(behind),
            flags: crate::BatchFlags(0),
            ..*batch.head()
        };
        builder.finish_rewritten(&head, &offsets)
    }

    fn builder(&mut self, compression: Compression) -> &mut BatchBuilder {
        let known = self.builders.iter().position(|(known, _)| *known == compression);
        let at = known.unwrap_or_else(|| {
            self.builders.push((compression, BatchBuilder::new(compression)));
            self.builders.len() - 1
        });
        &mut self.builders[at].1
    }
}
