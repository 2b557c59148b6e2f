//! The producer's side: records in, one batch out.

use bytes::Bytes;
use corelane_model::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_HEADERS_MAX};
use corelane_model::{ProducerEpoch, ProducerId, Sequence, WallMillis};

use crate::columns::{self, NULL, ROOT_BYTES};
use crate::compression::Compressor;
use crate::{BATCH_HEAD_BYTES, BATCH_VERSION, BatchFlags, BatchHead, CODEC_COLUMNS, Compression, PushError, header};

/// Who produced a batch, as it goes into the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer, or [`ProducerId::NONE`] for one that does not care for duplicates.
    pub producer_id: ProducerId,
    /// Its incarnation.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the batch's first record.
    pub base_sequence: Sequence,
}

/// Gathers records into a batch, and then into the next one with the same memory.
///
/// Values are copied once, to the place where they stay.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    /// Room for the head, then the values.
    front: Vec<u8>,
    rows: Vec<Row>,
    /// Places of the records behind the base offset, if they do not follow each other.
    offsets: Vec<u32>,
    keys: Vec<u8>,
    headers: Vec<u8>,
    compressor: Compressor,
    /// The columns that the records so far call for.
    flags: BatchFlags,
    timestamp_min: i64,
    timestamp_max: i64,
    /// Bytes of the last batch, as a guess at the next one's.
    bytes_before: usize,
}

/// The numbers of one record.
#[derive(Clone, Copy, Debug)]
struct Row {
    value_end: u32,
    key_end: u32,
    header_end: u32,
    timestamp: i64,
}

impl BatchBuilder {
    /// An empty builder whose batches have their values compressed so, where that makes them smaller.
    #[must_use]
    pub const fn new(compression: Compression) -> Self {
        Self {
            compression,
            front: Vec::new(),
            rows: Vec::new(),
            offsets: Vec::new(),
            keys: Vec::new(),
            headers: Vec::new(),
            compressor: Compressor::new(),
            flags: BatchFlags(0),
            timestamp_min: i64::MAX,
            timestamp_max: i64::MIN,
            bytes_before: 256,
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// It does not fit, into this batch or into any; the batch is as it was before. Besides the limits of bytes and
    /// records, timestamps of one batch lie within 2³² ms of each other.
    pub fn push(
        &mut self,
        timestamp: WallMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), PushError> {
        if RECORD_HEADERS_MAX < headers.len() {
            return Err(PushError::TooManyHeaders { count: headers.len(), limit: RECORD_HEADERS_MAX });
        }
        self.check_room(BATCH_BYTES_MAX, timestamp, key, value, headers)?;
        self.take(timestamp, key, value, headers.iter().copied());
        Ok(())
    }

    /// As [`BatchBuilder::push`], of a record without headers into a batch that may have at most `bytes_max` bytes.
    ///
    /// # Errors
    /// As there, with the smaller of both limits.
    pub fn push_within(
        &mut self,
        bytes_max: u32,
        timestamp: WallMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), PushError> {
        self.check_room(bytes_max.min(BATCH_BYTES_MAX), timestamp, key, value, &[])?;
        self.take(timestamp, key, value, std::iter::empty());
        Ok(())
    }

    /// Adds a record of a batch that is rewritten: it was held against all limits when it came.
    pub(crate) fn take<'a>(
        &mut self,
        timestamp: WallMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) {
        self.timestamp_min = self.timestamp_min.min(timestamp.0);
        self.timestamp_max = self.timestamp_max.max(timestamp.0);
        if self.front.is_empty() {
            self.front.reserve(self.bytes_before);
            self.front.resize(BATCH_HEAD_BYTES, 0);
        }
        self.front.extend_from_slice(value.unwrap_or_default());
        if key.is_some() {
            self.flags = self.flags.with(BatchFlags::KEYS);
        }
        self.keys.extend_from_slice(key.unwrap_or_default());
        for (name, value) in headers {
            self.flags = self.flags.with(BatchFlags::HEADERS);
            header::append(&mut self.headers, name, value);
        }
        self.rows.push(Row {
            value_end: end(self.front.len() - BATCH_HEAD_BYTES) | if value.is_none() { NULL } else { 0 },
            key_end: end(self.keys.len()) | if key.is_none() { NULL } else { 0 },
            header_end: end(self.headers.len()),
            timestamp: timestamp.0,
        });
    }

    fn check_room(
        &self,
        bytes_max: u32,
        timestamp: WallMillis,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Result<(), PushError> {
        let has_keys = self.flags.contains(BatchFlags::KEYS) || key.is_some();
        let has_headers = self.flags.contains(BatchFlags::HEADERS) || !headers.is_empty();
        let header_bytes = headers.iter().map(|&(name, value)| header::encoded_bytes(name, value)).sum::<u64>();
        let record_bytes = value.map_or(0, <[u8]>::len) as u64 + key.map_or(0, <[u8]>::len) as u64 + header_bytes;
        let alone = FRAME_OF_RECORDS + record_bytes + number_bytes(1, key.is_some(), !headers.is_empty(), false);
        if u64::from(bytes_max) < alone {
            return Err(PushError::RecordTooLarge { len: alone, limit: bytes_max });
        }
        let count = self.len() as u64;
        let earliest = self.timestamp_min.min(timestamp.0);
        let latest = self.timestamp_max.max(timestamp.0);
        let column_bytes = (self.values_len() + self.keys.len() + self.headers.len()) as u64;
        let numbers = number_bytes(count + 1, has_keys, has_headers, earliest < latest);
        let is_room = FRAME_OF_RECORDS + column_bytes + record_bytes + numbers <= u64::from(bytes_max)
            && count < u64::from(BATCH_RECORDS_MAX);
        let is_near = count == 0 || latest.checked_sub(earliest).is_some_and(|span| span <= i64::from(u32::MAX));
        if is_room && is_near { Ok(()) } else { Err(PushError::Full) }
    }

    /// Takes over the memory of a batch that nobody needs any more, for the next one.
    pub fn reuse(&mut self, batch: Vec<u8>) {
        if self.front.is_empty() {
            self.front = batch;
            self.front.clear();
        }
    }

    /// Records so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of memory that it holds on to between batches.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        let rows = self.rows.capacity() * size_of::<Row>() + self.offsets.capacity() * 4;
        rows + self.keys.capacity() + self.headers.capacity() + self.compressor.memory_bytes()
    }

    /// Bytes that the batch would have now; exact unless its values are to be compressed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let has_timestamps = self.timestamp_min < self.timestamp_max;
        let (has_keys, has_headers) = (self.flags.contains(BatchFlags::KEYS), self.flags.contains(BatchFlags::HEADERS));
        let numbers =
            4 * self.len() * (1 + usize::from(has_keys) + usize::from(has_headers) + usize::from(has_timestamps));
        let columns = self.values_len() + self.keys.len() + self.headers.len();
        BATCH_HEAD_BYTES + ROOT_BYTES + columns + numbers
    }

    fn values_len(&self) -> usize {
        self.front.len().saturating_sub(BATCH_HEAD_BYTES)
    }

    /// The batch of all records so far; the builder is empty afterwards and keeps its memory.
    ///
    /// Panics if there is no record: a batch has at least one.
    pub fn finish(&mut self, producer: ProducerStamp) -> Bytes {
        share(self.finish_with(producer, BatchFlags(0), 0))
    }

    /// As [`BatchBuilder::finish`], as memory that has one holder and can be given to [`BatchBuilder::reuse`].
    pub fn finish_unshared(&mut self, producer: ProducerStamp) -> Vec<u8> {
        self.finish_with(producer, BatchFlags(0), 0)
    }

    /// As [`BatchBuilder::finish`], a batch of the transaction that the stamp's producer and epoch name and whose coordinator
    /// is at this home.
    ///
    /// Panics too if there is no producer.
    pub fn finish_transactional(&mut self, producer: ProducerStamp, home: u16) -> Bytes {
        assert!(producer.producer_id != ProducerId::NONE, "a transaction has a producer");
        share(self.finish_with(producer, BatchFlags::TRANSACTIONAL, home))
    }

    fn finish_with(&mut self, producer: ProducerStamp, flags: BatchFlags, home: u16) -> Vec<u8> {
        let count = u32::try_from(self.len()).expect("pushing stops at the limit of records");
        let out = self.seal(BatchHead {
            flags,
            offset_span: count,
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            home,
            base_sequence: producer.base_sequence,
            ..BatchHead::default()
        });
        assert!(out.len() <= BATCH_BYTES_MAX as usize, "batch of {} bytes is over the limit", out.len());
        out
    }

    /// The batch of all records so far with these places behind the base offset of `head`, from which come producer and
    /// stamp. It may be over the limit of bytes.
    pub(crate) fn finish_rewritten(&mut self, head: &BatchHead, offsets: &[u32]) -> Bytes {
        assert_eq!(offsets.len(), self.len(), "each record has its offset");
        let offset_span = offsets.last().expect("a batch has at least one record") + 1;
        if self.len() < offset_span as usize {
            self.offsets.extend_from_slice(offsets);
            self.flags = self.flags.with(BatchFlags::OFFSETS);
        }
        share(self.seal(BatchHead { offset_span, ..*head }))
    }

    /// The batch of all records so far; what `head` says of its payload is filled in.
    fn seal(&mut self, head: BatchHead) -> Vec<u8> {
        assert!(!self.is_empty(), "a batch has at least one record");
        let count = u32::try_from(self.len()).expect("pushing stops at the limit of records");
        let compression = self.compress_values();
        let mut out = self.write_payload();
        let head = BatchHead {
            flags: self.flags.with(BatchFlags(compression.to_bits())).with(head.flags),
            record_count: count,
            max_timestamp: WallMillis(self.timestamp_max),
            ..head
        };
        complete(head, &mut out);
        self.bytes_before = out.len();
        self.clear();
        out
    }

    /// Forgets all records.
    pub fn clear(&mut self) {
        self.front.clear();
        self.rows.clear();
        self.offsets.clear();
        self.keys.clear();
        self.headers.clear();
        self.flags = BatchFlags(0);
        self.timestamp_min = i64::MAX;
        self.timestamp_max = i64::MIN;
    }

    /// Replaces the values by compressed ones if they are to be and that makes them smaller.
    fn compress_values(&mut self) -> Compression {
        let Some(compressed) = self.compressor.compress(self.compression, &self.front[BATCH_HEAD_BYTES..]) else {
            return Compression::None;
        };
        self.front.truncate(BATCH_HEAD_BYTES);
        self.front.extend_from_slice(compressed);
        self.compression
    }

    /// Head room and values, and behind them the columns that the records call for, and the root.
    fn write_payload(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.front);
        let numbers_at = out.len();
        let has_timestamps = self.timestamp_min < self.timestamp_max;
        let (has_keys, has_headers) = (self.flags.contains(BatchFlags::KEYS), self.flags.contains(BatchFlags::HEADERS));
        let columns = 1 + usize::from(has_keys) + usize::from(has_headers) + usize::from(has_timestamps);
        let numbers = self.len() * columns + self.offsets.len();
        out.reserve_exact(numbers * 4 + self.keys.len() + self.headers.len() + ROOT_BYTES);
        let rows = &self.rows[..];
        append(&mut out, rows, |row| row.value_end);
        if has_keys {
            append(&mut out, rows, |row| row.key_end);
        }
        if has_headers {
            append(&mut out, rows, |row| row.header_end);
        }
        if has_timestamps {
            self.flags = self.flags.with(BatchFlags::TIMESTAMPS);
            let latest = self.timestamp_max;
            let delta = |row: &Row| u32::try_from(latest - row.timestamp).expect("pushing keeps timestamps near");
            append(&mut out, rows, delta);
        }
        append(&mut out, &self.offsets, |&offset| offset);
        columns::write_behind_numbers(&mut out, numbers_at, &self.keys, &self.headers);
        out
    }
}

/// Writes the head of a batch whose payload is there; what it says of the payload's bytes is filled in.
pub(crate) fn complete(head: BatchHead, batch: &mut [u8]) {
    let payload = &batch[BATCH_HEAD_BYTES..];
    let head = BatchHead {
        version: BATCH_VERSION,
        codec: CODEC_COLUMNS,
        payload_bytes: end(payload.len()),
        payload_crc: crc_fast::crc32_iscsi(payload),
        head_crc: 0,
        ..head
    };
    head.write(batch);
}

/// The batch as bytes that may have several holders.
fn share(mut batch: Vec<u8>) -> Bytes {
    if batch.capacity() <= SMALL_BATCH_BYTES {
        // A batch that fills its memory needs no count of its holders while there is one.
        batch.shrink_to_fit();
    }
    Bytes::from(batch)
}

/// Appends a number of each to a payload.
fn append<T>(out: &mut Vec<u8>, each: &[T], number: impl Fn(&T) -> u32) {
    let start = out.len();
    out.resize(start + each.len() * 4, 0);
    for (place, one) in out[start..].as_chunks_mut::<4>().0.iter_mut().zip(each) {
        *place = number(one).to_le_bytes();
    }
}

/// A batch of at most so many bytes is small: its memory is worth less than the word about who holds it.
const SMALL_BATCH_BYTES: usize = 1024;
/// Bytes of a batch that belong to no record.
const FRAME_OF_RECORDS: u64 = (BATCH_HEAD_BYTES + ROOT_BYTES) as u64;
/// Bytes of a single record's numbers when it has a key and headers.
const NUMBERS_OF_SINGLE: u64 = number_bytes(1, true, true, false);
const _: () = assert!(FRAME_OF_RECORDS + NUMBERS_OF_SINGLE <= 128);

/// Bytes of the number column for so many records.
const fn number_bytes(count: u64, has_keys: bool, has_headers: bool, has_timestamps: bool) -> u64 {
    count * 4 * (1 + has_keys as u64 + has_headers as u64 + has_timestamps as u64)
}

/// A column's length as an end.
pub(crate) fn end(len: usize) -> u32 {
    u32::try_from(len).expect("a column is far below 4 GiB")
}
