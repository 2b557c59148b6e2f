//! What a log must know after a restart, and its bytes in a checkpoint (docs/formats/log-state.md).

use corelane_model::limits::{
    PARTITION_CORRUPT_RANGES_MAX, PARTITION_PRODUCERS_MAX, PARTITION_SEGMENTS_MAX, PRODUCER_BATCHES_MAX,
};
use corelane_model::{
    LeaderEpoch, MonotonicNanos, Offset, ProducerEpoch, ProducerId, Sequence, Transaction, WallMillis,
};

use crate::compaction::{Compacted, NullValues};
use crate::corrupt::CorruptRanges;
use crate::producers::{Producer, SeenBatch};
use crate::transactions::Reach;
use crate::varint::{self, Numbers};
use crate::{CorruptRange, ProducerTable, SEGMENT_FILE_BYTES_MAX, Segment, StateError, Transactions};

/// Version of the encoding of a log that has nothing but what every log has.
const STATE_VERSION: u8 = 1;
/// Version with sections behind it, for what few logs have.
const STATE_VERSION_SECTIONS: u8 = 2;
/// The section of transactions.
const SECTION_TRANSACTIONS: u64 = 1;
/// The section of compaction.
const SECTION_COMPACTION: u64 = 2;

/// Sections of one state, as many as there are kinds.
const SECTIONS_MAX: usize = 2;

/// Largest offset that is believed when it comes from disk. No log reaches it: at a billion records a second it takes
/// a century and a half.
pub const OFFSET_MAX: u64 = 1 << 62;

/// What a log must know after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Exclusive end of what lies in segments or was given up.
    pub settled_end: Offset,
    /// The offset that the next record gets.
    pub log_end: Offset,
    /// Term of the leader.
    pub leader_epoch: LeaderEpoch,
    /// The newest append timestamp.
    pub append_timestamp: WallMillis,
    /// The segments, oldest first.
    pub(crate) segments: Vec<Segment>,
    /// The producers' latest batches.
    pub(crate) producers: ProducerTable,
    /// Offsets lost to damage.
    pub(crate) corrupt: CorruptRanges,
    /// Transactions that are open or were aborted.
    pub(crate) transactions: Transactions,
    /// How far compaction came.
    pub(crate) compacted: Compacted,
}

impl LogState {
    /// Leaves so many producers in it at most, those that were heard of last: a checkpoint may have room for no more.
    pub fn keep_producers(&mut self, count: usize) {
        self.producers.keep(count);
    }

    /// An empty log whose first record will get this offset.
    #[must_use]
    pub fn starting_at(offset: Offset) -> Self {
        Self { log_start: offset, settled_end: offset, log_end: offset, ..Self::default() }
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The producers' latest batches.
    #[must_use]
    pub const fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Transactions that are open or were aborted.
    #[must_use]
    pub const fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// Appends its bytes, some ten for a log that was never used.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let has_transactions = !self.transactions.is_empty();
        let was_compacted =
            self.compacted.end != Offset::ZERO || self.segments.iter().any(|segment| segment.rewrite != 0);
        let sections = u64::from(has_transactions) + u64::from(was_compacted);
        out.push(if 0 < sections { STATE_VERSION_SECTIONS } else { STATE_VERSION });
        varint::put(out, self.log_start.0);
        varint::put(out, self.settled_end.since(self.log_start));
        varint::put(out, self.log_end.since(self.settled_end));
        varint::put(out, u64::from(self.leader_epoch.0));
        varint::put_signed(out, self.append_timestamp.0);
        self.encode_segments(out);
        self.encode_producers(out);
        varint::put(out, self.corrupt.as_slice().len() as u64);
        for range in self.corrupt.as_slice() {
            varint::put(out, range.first.0);
            varint::put(out, range.end.since(range.first));
        }
        if 0 < sections {
            varint::put(out, sections);
        }
        if has_transactions {
            put_section(out, SECTION_TRANSACTIONS, |out| self.encode_transactions(out));
        }
        if was_compacted {
            put_section(out, SECTION_COMPACTION, |out| self.encode_compaction(out));
        }
    }

    fn encode_compaction(&self, out: &mut Vec<u8>) {
        let Compacted { end, tombstones_end, tombstones_since, left } = self.compacted;
        varint::put(out, end.0);
        varint::put(out, end.since(tombstones_end));
        varint::put_signed(out, tombstones_since.0);
        let left = match left {
            NullValues::None => 0,
            NullValues::Some => 1,
            NullValues::Barred => 2,
        };
        varint::put(out, left);
        let rewritten = || self.segments.iter().enumerate().filter(|(_, segment)| segment.rewrite != 0);
        varint::put(out, rewritten().count() as u64);
        for (place, segment) in rewritten() {
            varint::put(out, place as u64);
            varint::put(out, u64::from(segment.rewrite));
        }
    }

    fn encode_transactions(&self, out: &mut Vec<u8>) {
        let (open, aborted) = self.transactions.counts();
        varint::put(out, open as u64);
        for (transaction, reach) in self.transactions.open_reaches() {
            put_transaction(out, transaction, reach);
        }
        varint::put(out, aborted as u64);
        for (transaction, reach) in self.transactions.aborted() {
            put_transaction(out, transaction, reach);
        }
    }

    fn encode_segments(&self, out: &mut Vec<u8>) {
        varint::put(out, self.segments.len() as u64);
        for segment in &self.segments {
            varint::put(out, segment.base.0);
            varint::put(out, segment.end.since(segment.base));
            varint::put(out, segment.bytes);
            varint::put_signed(out, segment.first_timestamp.0);
            varint::put(out, segment.max_timestamp.millis_since(segment.first_timestamp));
            varint::put(out, u64::from(segment.is_sealed));
        }
    }

    fn encode_producers(&self, out: &mut Vec<u8>) {
        varint::put(out, self.producers.len() as u64);
        for (id, producer) in self.producers.iter() {
            varint::put(out, id.0);
            varint::put(out, u64::from(producer.epoch.0));
            varint::put(out, producer.batches().len() as u64);
            let mut before = Before::default();
            for batch in producer.batches() {
                varint::put(out, u64::from(batch.base_sequence.0.wrapping_sub(before.sequence.0)));
                varint::put(out, batch.records() - 1);
                varint::put(out, batch.base_offset.since(before.offset));
                varint::put_signed(out, batch.append_timestamp.0.wrapping_sub(before.timestamp.0));
                before = Before::of(batch);
            }
        }
    }

    /// Reads what [`LogState::encode`] wrote; `bytes` is that and nothing else. The bytes are not trusted.
    ///
    /// # Errors
    /// They are cut off, of another version, over a limit, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let Some((&version, rest)) = bytes.split_first() else {
            return Err(StateError::Malformed { at: 0 });
        };
        if version != STATE_VERSION && version != STATE_VERSION_SECTIONS {
            return Err(StateError::Version { found: version, known: STATE_VERSION_SECTIONS });
        }
        let mut reader = Reader { numbers: Numbers::new(rest), before: 1 };
        let log_start = reader.offset()?;
        let settled_end = reader.offset_behind(log_start)?;
        let log_end = reader.offset_behind(settled_end)?;
        let leader_epoch = LeaderEpoch(reader.u32()?);
        let append_timestamp = WallMillis(reader.signed()?);
        let mut segments = reader.segments()?;
        let producers = reader.producers()?;
        let corrupt = reader.corrupt()?;
        let mut transactions = Transactions::default();
        let mut compacted = Compacted::default();
        if version == STATE_VERSION_SECTIONS {
            let mut last = 0;
            for _ in 0..reader.sections()? {
                let (kind, section) = reader.section()?;
                if kind <= last {
                    return Err(StateError::Contradiction {
                        what: "sections stand in the order of their kinds, each once",
                    });
                }
                last = kind;
                match (kind, section) {
                    (SECTION_TRANSACTIONS, mut section) => transactions = section.transactions(log_end)?,
                    (SECTION_COMPACTION, mut section) => compacted = section.compaction(&mut segments)?,
                    (kind, _) => return Err(StateError::Section { kind }),
                }
            }
        }
        match reader.numbers.rest() {
            0 => {}
            excess => return Err(StateError::Excess { excess }),
        }
        if segments.last().is_some_and(|last| settled_end < last.end) {
            return Err(StateError::Contradiction { what: "segments end at the settled end or before" });
        }
        if producers.iter().flat_map(|(_, producer)| producer.batches()).any(|seen| log_end < seen.end_offset()) {
            return Err(StateError::Contradiction { what: "producers' batches lie below the log end" });
        }
        Ok(Self {
            log_start,
            settled_end,
            log_end,
            leader_epoch,
            append_timestamp,
            segments,
            producers,
            corrupt,
            transactions,
            compacted,
        })
    }
}

/// A section is its kind, its bytes, and as many of them.
fn put_section(out: &mut Vec<u8>, kind: u64, content: impl FnOnce(&mut Vec<u8>)) {
    let mut section = Vec::new();
    content(&mut section);
    varint::put(out, kind);
    varint::put(out, section.len() as u64);
    out.extend_from_slice(&section);
}

fn put_transaction(out: &mut Vec<u8>, transaction: Transaction, reach: Reach) {
    varint::put(out, transaction.producer.0);
    varint::put(out, u64::from(transaction.epoch.0));
    varint::put(out, reach.first.0);
    varint::put(out, reach.end.since(reach.first));
}

/// What the next batch of a producer is expected to begin with. A batch is written as its distance from that, because a
/// producer's batches follow each other: five bytes instead of twenty, in each checkpoint for each batch remembered.
#[derive(Clone, Copy, Default)]
struct Before {
    sequence: Sequence,
    offset: Offset,
    timestamp: WallMillis,
}

impl Before {
    fn of(batch: &SeenBatch) -> Self {
        let sequence = batch.last_sequence.advance(1);
        Self { sequence, offset: batch.end_offset(), timestamp: batch.append_timestamp }
    }
}

/// Numbers of a state, checked one by one.
struct Reader<'a> {
    numbers: Numbers<'a>,
    /// Bytes of the state before these.
    before: usize,
}

impl<'a> Reader<'a> {
    /// The error for a number that could not be taken.
    const fn malformed(&self) -> StateError {
        StateError::Malformed { at: self.numbers.at + self.before }
    }

    /// How many sections follow: one of each kind at most, and not none.
    fn sections(&mut self) -> Result<u64, StateError> {
        match self.count("sections", SECTIONS_MAX)? {
            0 => Err(StateError::Contradiction { what: "a state without sections is of version 1" }),
            count => Ok(count),
        }
    }

    /// The kind of the next section, and its bytes.
    fn section(&mut self) -> Result<(u64, Self), StateError> {
        let kind = self.number()?;
        let len = self.number()?;
        let before = self.before + self.numbers.at;
        let numbers = self.numbers.split(len).ok_or_else(|| self.malformed())?;
        Ok((kind, Self { numbers, before }))
    }

    fn transaction(&mut self, log_end: Offset) -> Result<(Transaction, Reach), StateError> {
        let producer = ProducerId(self.number()?);
        let epoch = ProducerEpoch(u16::try_from(self.number()?).map_err(|_| self.malformed())?);
        let first = self.offset()?;
        let end = self.offset_behind(first)?;
        if producer == ProducerId::NONE {
            return Err(StateError::Contradiction { what: "a transaction has a producer" });
        }
        if end == first || log_end < end {
            return Err(StateError::Contradiction { what: "a transaction has records below the log end" });
        }
        Ok((Transaction::new(producer, epoch), Reach { first, end }))
    }

    /// All of a section.
    fn transactions(&mut self, log_end: Offset) -> Result<Transactions, StateError> {
        let mut transactions = Transactions::default();
        let once = StateError::Contradiction { what: "each transaction is there once" };
        // How many there are is bounded where batches are taken. What a crash made of it is read whatever it is: each takes
        // four bytes at least.
        for _ in 0..self.count("open transactions", self.numbers.rest())? {
            let (transaction, reach) = self.transaction(log_end)?;
            if !transactions.restore_open(transaction, reach) {
                return Err(once);
            }
        }
        for _ in 0..self.count("aborted transactions", self.numbers.rest())? {
            let (transaction, reach) = self.transaction(log_end)?;
            if !transactions.restore_aborted(transaction, reach) {
                return Err(once);
            }
        }
        if transactions.is_empty() {
            return Err(StateError::Contradiction { what: "a section of transactions has one" });
        }
        match self.numbers.rest() {
            0 => Ok(transactions),
            excess => Err(StateError::Excess { excess }),
        }
    }

    fn number(&mut self) -> Result<u64, StateError> {
        self.numbers.take().ok_or_else(|| self.malformed())
    }

    fn signed(&mut self) -> Result<i64, StateError> {
        self.numbers.take_signed().ok_or_else(|| self.malformed())
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        self.numbers.take_u32().ok_or_else(|| self.malformed())
    }

    fn offset(&mut self) -> Result<Offset, StateError> {
        self.offset_behind(Offset::ZERO)
    }

    /// An offset that is written as its distance from one before.
    fn offset_behind(&mut self, before: Offset) -> Result<Offset, StateError> {
        let found = before.0.saturating_add(self.number()?);
        if OFFSET_MAX < found {
            return Err(StateError::Limit { what: "as an offset", found, limit: OFFSET_MAX });
        }
        Ok(Offset(found))
    }

    fn count(&mut self, what: &'static str, limit: usize) -> Result<u64, StateError> {
        let found = self.number()?;
        if (limit as u64) < found {
            return Err(StateError::Limit { what, found, limit: limit as u64 });
        }
        Ok(found)
    }

    fn segments(&mut self) -> Result<Vec<Segment>, StateError> {
        let mut segments: Vec<Segment> = Vec::new();
        for _ in 0..self.count("segments", PARTITION_SEGMENTS_MAX)? {
            let base = self.offset()?;
            let end = self.offset_behind(base)?;
            let bytes = self.number()?;
            if SEGMENT_FILE_BYTES_MAX < bytes {
                return Err(StateError::Limit {
                    what: "bytes in a segment",
                    found: bytes,
                    limit: SEGMENT_FILE_BYTES_MAX,
                });
            }
            let first_timestamp = WallMillis(self.signed()?);
            let span = self.number()?;
            let max_timestamp =
                first_timestamp.0.checked_add_unsigned(span).map(WallMillis).ok_or_else(|| self.malformed())?;
            let is_sealed = match self.number()? {
                0 => false,
                1 => true,
                _ => return Err(self.malformed()),
            };
            if base == end || segments.last().is_some_and(|last| base < last.end) {
                return Err(StateError::Contradiction { what: "segments are not empty and follow each other" });
            }
            segments.push(Segment { base, end, bytes, first_timestamp, max_timestamp, is_sealed, rewrite: 0 });
        }
        if segments.iter().rev().skip(1).any(|segment| !segment.is_sealed) {
            return Err(StateError::Contradiction { what: "only the last segment is not sealed" });
        }
        Ok(segments)
    }

    /// All of a section: how far compaction came, and which of the segments it wrote.
    fn compaction(&mut self, segments: &mut [Segment]) -> Result<Compacted, StateError> {
        let end = self.offset()?;
        let behind = self.number()?;
        let tombstones_end = end.0.checked_sub(behind).map(Offset).ok_or_else(|| self.malformed())?;
        let tombstones_since = WallMillis(self.signed()?);
        let left = match self.number()? {
            0 => NullValues::None,
            1 => NullValues::Some,
            2 => NullValues::Barred,
            _ => return Err(self.malformed()),
        };
        let mut next = 0;
        for _ in 0..self.count("segments that were written anew", segments.len())? {
            let place = usize::try_from(self.number()?).map_err(|_| self.malformed())?;
            let rewrite = self.u32()?;
            let known = segments.get_mut(place).filter(|segment| next <= place && segment.is_sealed && rewrite != 0);
            let Some(segment) = known else {
                return Err(StateError::Contradiction {
                    what: "segments that were written anew are sealed, each there once",
                });
            };
            segment.rewrite = rewrite;
            next = place + 1;
        }
        match self.numbers.rest() {
            0 => Ok(Compacted { end, tombstones_end, tombstones_since, left }),
            excess => Err(StateError::Excess { excess }),
        }
    }

    fn producers(&mut self) -> Result<ProducerTable, StateError> {
        let mut producers = ProducerTable::default();
        for _ in 0..self.count("producers", PARTITION_PRODUCERS_MAX)? {
            let id = ProducerId(self.number()?);
            let epoch = ProducerEpoch(u16::try_from(self.number()?).map_err(|_| self.malformed())?);
            let count = self.count("batches of a producer", PRODUCER_BATCHES_MAX)?;
            let mut producer: Option<Producer> = None;
            let mut before = Before::default();
            for _ in 0..count {
                let batch = self.seen_batch(before)?;
                before = Before::of(&batch);
                match &mut producer {
                    Some(producer) => producer.push(batch),
                    None => producer = Some(Producer::new(epoch, MonotonicNanos(0), batch)),
                }
            }
            let is_new = producer.is_some_and(|producer| producers.restore(id, producer));
            if !is_new || id == ProducerId::NONE {
                return Err(StateError::Contradiction { what: "each producer is there once and has a batch" });
            }
        }
        Ok(producers)
    }

    fn seen_batch(&mut self, before: Before) -> Result<SeenBatch, StateError> {
        let base_sequence = before.sequence.advance(self.u32()?);
        let last_sequence = base_sequence.advance(self.u32()?);
        let base_offset = self.offset_behind(before.offset)?;
        let append_timestamp = WallMillis(before.timestamp.0.wrapping_add(self.signed()?));
        Ok(SeenBatch { base_sequence, last_sequence, base_offset, append_timestamp })
    }

    fn corrupt(&mut self) -> Result<CorruptRanges, StateError> {
        let mut corrupt = CorruptRanges::default();
        for _ in 0..self.count("damaged ranges", PARTITION_CORRUPT_RANGES_MAX)? {
            let first = self.offset()?;
            let end = self.offset_behind(first)?;
            if first == end {
                return Err(StateError::Contradiction { what: "damaged ranges are not empty" });
            }
            corrupt.add(CorruptRange { first, end });
        }
        Ok(corrupt)
    }
}
