//! What can be wrong with what a partition's log is given.

use corelane_model::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, Transaction};

/// Why a batch was not appended. The log is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A newer incarnation of the producer has appended here.
    #[error("producer {producer} has epoch {found}, but epoch {current} has appended since")]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// The newest epoch seen.
        current: ProducerEpoch,
        /// The batch's epoch.
        found: ProducerEpoch,
    },
    /// Batches are missing before this one, or it is older than what the log remembers.
    #[error("producer {producer} sent sequence {found}, expected is {expected}")]
    OutOfSequence {
        /// The producer.
        producer: ProducerId,
        /// The sequence that comes next.
        expected: Sequence,
        /// The batch's sequence.
        found: Sequence,
    },
    /// The log knows nothing of this producer, but the batch is not its first. It must take a new epoch.
    #[error("producer {producer} is not known here, but sent sequence {found}")]
    UnknownProducer {
        /// The producer.
        producer: ProducerId,
        /// The batch's sequence.
        found: Sequence,
    },
    /// A record with a message id is not alone, so that it could not be told from the others.
    #[error(
        "a batch of {records} records has one with a message id, and the topic deduplicates by message ids: such a record \
         travels in a batch of its own"
    )]
    SeveralMessageIds {
        /// Records of the batch.
        records: u32,
    },
    /// The transaction was aborted already.
    #[error("transaction {transaction} was aborted; begin another")]
    TransactionEnded {
        /// The transaction.
        transaction: Transaction,
    },
    /// A batch outside of the transaction that its producer has open here: it would be seen without the others.
    #[error("the batch is of no transaction, but its producer has transaction {open} open here")]
    OutsideTransaction {
        /// The transaction.
        open: Transaction,
    },
    /// A topic that keeps nothing over a restart cannot keep a transaction whole, and compaction would let an aborted record
    /// take the place of a committed one.
    #[error(
        "transaction {transaction} can only write to durable topics that are not compacted, and this one is kept in memory or \
         compacted"
    )]
    NotDurable {
        /// The transaction.
        transaction: Transaction,
    },
    /// Readers of committed records would have to know of too many.
    #[error(
        "the partition remembers {known} open and aborted transactions, the limit is {limit}; it forgets aborted ones as \
         retention gives their records up"
    )]
    TooManyTransactions {
        /// How many there are.
        known: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The newest records of all keys would take more than the partition may hold.
    #[error(
        "the newest records of all keys would count {bytes} bytes, the partition's bound is {limit_bytes}: new keys are \
         refused until others are taken away by null values or by the time to live; raise --retention-bytes"
    )]
    LatestFull {
        /// What they would count.
        bytes: u64,
        /// What they may.
        limit_bytes: u64,
    },
    /// The partition would have too many keys.
    #[error(
        "the partition would have {keys} keys, the limit is {limit}: new keys are refused until others are taken away"
    )]
    TooManyKeys {
        /// How many it would have.
        keys: usize,
        /// How many it may.
        limit: usize,
    },
}

impl AppendError {
    /// The code that goes over the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::ProducerFenced { .. } => ErrorCode::ProducerFenced,
            Self::OutOfSequence { .. } => ErrorCode::OutOfSequence,
            Self::UnknownProducer { .. } => ErrorCode::UnknownProducer,
            Self::SeveralMessageIds { .. } => ErrorCode::SeveralMessageIds,
            Self::LatestFull { .. } | Self::TooManyKeys { .. } => ErrorCode::LimitReached,
            Self::TransactionEnded { .. } => ErrorCode::TransactionEnded,
            Self::OutsideTransaction { .. } | Self::NotDurable { .. } => ErrorCode::TransactionMismatch,
            Self::TooManyTransactions { .. } => ErrorCode::LimitReached,
        }
    }
}

/// Why a log was not truncated. It is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TruncateError {
    /// Only what is visible can be given up.
    #[error("offset {asked} is beyond the high watermark {high_watermark}")]
    BeyondEnd {
        /// The new log start that was asked for.
        asked: Offset,
        /// The largest possible one.
        high_watermark: Offset,
    },
}

/// Why something that recovery found on disk does not fit what it found before. It is left out; the log stays usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A batch with offsets that the log has already.
    #[error("batch of offsets {base} to {end} overlaps the log, whose end is {log_end}")]
    Overlap {
        /// The batch's first offset.
        base: Offset,
        /// Its exclusive end.
        end: Offset,
        /// The log's end.
        log_end: Offset,
    },
    /// A batch of which nothing is known and that cannot lie in a segment any more.
    #[error("batch of offsets {base} to {end} comes after a batch from {after}")]
    OutOfOrder {
        /// The batch's first offset.
        base: Offset,
        /// Its exclusive end.
        end: Offset,
        /// Exclusive end of the batch before it in the journal.
        after: Offset,
    },
    /// An offset beyond what any log reaches.
    #[error("offset {found} is beyond {limit}, which no log reaches")]
    OffsetTooLarge {
        /// The offset.
        found: Offset,
        /// The largest that is believed.
        limit: u64,
    },
    /// A note of the end of a transaction that had no records or no producer.
    #[error("transaction {transaction} ended without a record or without a producer")]
    EmptyTransaction {
        /// The transaction.
        transaction: Transaction,
    },
    /// A note of settling with a segment beyond what any disk holds.
    #[error("segment {segment} cannot have {bytes} bytes")]
    SegmentTooLarge {
        /// The segment's first offset.
        segment: Offset,
        /// Its bytes.
        bytes: u64,
    },
    /// A note of settling that names an impossible segment.
    #[error("segment {segment} cannot have been settled up to offset {end}: the last one is {last}")]
    Settled {
        /// The segment's first offset.
        segment: Offset,
        /// The exclusive end.
        end: Offset,
        /// First offset of the last segment.
        last: Offset,
    },
}

/// Why bytes are not a [`crate::LogState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A version of the encoding that this build does not know.
    #[error("log state is of version {found}, this build reads version {known}")]
    Version {
        /// What stands there.
        found: u8,
        /// What this build reads.
        known: u8,
    },
    /// A section that this build does not know.
    #[error("log state has a section of kind {kind}, which this build does not know")]
    Section {
        /// Its kind.
        kind: u64,
    },
    /// The bytes end within it, or a number is longer than 64 bits.
    #[error("log state is cut off or has a malformed number at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
    },
    /// Bytes are left over behind it.
    #[error("log state is followed by {excess} bytes that do not belong to it")]
    Excess {
        /// How many.
        excess: usize,
    },
    /// More of something than there may be.
    #[error("log state has {found} {what}, the limit is {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
    /// Numbers that contradict each other.
    #[error("log state contradicts itself: {what}")]
    Contradiction {
        /// The rule that does not hold.
        what: &'static str,
    },
}
