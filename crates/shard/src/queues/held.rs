//! Batches that were read and may still be needed, and records out of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::PUSH_BYTES;
use corelane_model::queue::HEADER_DELIVER_AT;
use corelane_model::{CorrelationId, MemberId, Offset, WallMillis};
use corelane_queue::{LeaseRun, QueueName, RecordMeta};
use corelane_record::{BatchBuilder, BatchError, BatchFlags, ProducerStamp, Record, RecordBatch, murmur2};
use corelane_wire::{LeaseRange, OutFrame, QueueDeliver, encode_with};

use crate::groups::member_on_wire;

/// What a record costs beside its bytes.
const RECORD_BYTES: usize = 16;
/// Ranges of leases in one frame.
const RANGES_MAX: usize = 4096;

/// Batches of one partition, by their first offset. They are copies: a slice of the journal's memory would keep all of it.
#[derive(Debug, Default)]
pub(super) struct Held {
    batches: BTreeMap<u64, RecordBatch>,
    bytes: u64,
}

impl Held {
    /// Checks a batch and keeps it.
    pub(super) fn insert(&mut self, bytes: &Bytes) -> Result<&RecordBatch, BatchError> {
        let batch = RecordBatch::parse(Bytes::copy_from_slice(bytes))?;
        let base = batch.head().base_offset.0;
        self.bytes += bytes.len() as u64;
        if let Some(before) = self.batches.insert(base, batch) {
            self.bytes -= before.bytes().len() as u64;
        }
        Ok(&self.batches[&base])
    }

    /// Drops what lies wholly before `done_end`, and the oldest as long as there is more than `bytes_max`.
    pub(super) fn trim(&mut self, done_end: Offset, bytes_max: u64) {
        while let Some((_, batch)) = self.batches.first_key_value()
            && (batch.head().end_offset() <= done_end || bytes_max < self.bytes)
        {
            let (_, batch) = self.batches.pop_first().expect("it was there");
            self.bytes -= batch.bytes().len() as u64;
        }
    }

    /// The record at an offset, if its batch is here.
    pub(super) fn record(&self, offset: u64) -> Option<Record<'_>> {
        let (_, batch) = self.batches.range(..=offset).next_back()?;
        // A batch that compaction has rewritten lacks records, so a distance is no place.
        batch.iter_from(Offset(offset)).next().filter(|record| record.offset.0 == offset)
    }
}

/// What a queue has to know of the records of a batch.
pub(super) fn metas(batch: &RecordBatch, has_order: bool) -> impl Iterator<Item = RecordMeta> {
    let flags = batch.head().flags;
    let (has_headers, is_control) = (flags.contains(BatchFlags::HEADERS), flags.contains(BatchFlags::CONTROL));
    batch.iter().filter(move |_| !is_control).map(move |record| RecordMeta {
        offset: record.offset,
        bytes: bytes_of(&record),
        key: record.key.filter(|_| has_order).map(murmur2),
        deliver_at: if has_headers { deliver_at(&record) } else { None },
    })
}

/// What a record takes off a member's credit.
fn bytes_of(record: &Record<'_>) -> u32 {
    let headers: usize = record.headers().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
    let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers + RECORD_BYTES;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn deliver_at(record: &Record<'_>) -> Option<WallMillis> {
    let (_, value) = record.headers().find(|&(name, _)| name == HEADER_DELIVER_AT)?;
    std::str::from_utf8(value?).ok()?.parse().ok().map(WallMillis)
}

/// Puts records into the frames of one delivery.
pub(super) struct Packer<'a> {
    pub(super) builder: &'a mut BatchBuilder,
    pub(super) name: &'a QueueName,
    pub(super) member: MemberId,
    /// For how long a member has a record, and what is left of that.
    pub(super) lease: (Duration, Duration),
    leases: Vec<LeaseRange>,
    bytes: u64,
    frames: Vec<OutFrame>,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        builder: &'a mut BatchBuilder,
        name: &'a QueueName,
        member: MemberId,
        lease: (Duration, Duration),
    ) -> Self {
        builder.clear();
        Self { builder, name, member, lease, leases: Vec::new(), bytes: 0, frames: Vec::new() }
    }

    /// Adds the records of a run; those that are not held are handed back as runs.
    pub(super) fn add(&mut self, held: &Held, run: LeaseRun, missing: &mut Vec<LeaseRun>) {
        for offset in run.first.0..run.first.0 + u64::from(run.count) {
            let one = LeaseRun { first: Offset(offset), count: 1, ..run };
            match held.record(offset) {
                Some(record) => self.add_record(&record, one),
                None => match missing.last_mut() {
                    Some(last)
                        if last.partition == run.partition
                            && last.attempt == run.attempt
                            && last.first.0 + u64::from(last.count) == offset =>
                    {
                        last.count += 1;
                    }
                    _ => missing.push(one),
                },
            }
        }
    }

    fn add_record(&mut self, record: &Record<'_>, run: LeaseRun) {
        let headers: Vec<_> = record.headers().collect();
        if self.builder.push(record.timestamp, record.key, record.value, &headers).is_err() {
            self.cut();
            let pushed = self.builder.push(record.timestamp, record.key, record.value, &headers);
            pushed.expect("a record that came in a batch fits into one");
        }
        self.bytes += u64::from(bytes_of(record));
        match self.leases.last_mut() {
            Some(last)
                if last.partition == run.partition.0
                    && last.attempt == run.attempt
                    && last.first + u64::from(last.count) == run.first.0 =>
            {
                last.count += 1;
            }
            _ => self.leases.push(LeaseRange {
                partition: run.partition.0,
                first: run.first.0,
                count: 1,
                attempt: run.attempt,
            }),
        }
        if PUSH_BYTES as usize <= self.builder.bytes() || RANGES_MAX <= self.leases.len() {
            self.cut();
        }
    }

    /// Ends a frame.
    fn cut(&mut self) {
        if self.builder.is_empty() {
            return;
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let body = QueueDeliver {
            group: self.name.group.as_str().to_owned(),
            topic: self.name.topic.0,
            member: member_on_wire(self.member),
            lease_ms: millis(self.lease.0),
            left_ms: millis(self.lease.1),
            credit_bytes: std::mem::take(&mut self.bytes),
            leases: std::mem::take(&mut self.leases),
        };
        let batch = self.builder.finish(ProducerStamp::default());
        self.frames.push(encode_with(CorrelationId(0), &body, vec![batch]));
    }

    pub(super) fn finish(mut self) -> Vec<OutFrame> {
        self.cut();
        self.frames
    }
}
