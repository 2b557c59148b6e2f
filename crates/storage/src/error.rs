//! Why storage refuses.

use corelane_model::{ErrorCode, Offset, PartitionId};

/// Why an append was refused. Nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This shard has no such partition.
    #[error("partition {partition} is not on this shard")]
    UnknownPartition {
        /// The partition that was asked for.
        partition: PartitionId,
    },
    /// The journal is being replayed.
    #[error("the shard is recovering its journal")]
    Recovering,
    /// The shard is draining.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// The journal failed.
    #[error("the shard's journal failed and takes no writes until the broker restarts: {text}")]
    StorageFailed {
        /// What failed.
        text: String,
    },
    /// The disk is full and so is everything that can wait for it.
    #[error(
        "the disk is full: {unsettled_bytes} bytes wait to be written to segments, at most {limit_bytes} may; free \
         space on the data directory's file system or shorten retention, writes then go on by themselves"
    )]
    StorageFull {
        /// Bytes of the journal's ring that wait.
        unsettled_bytes: u64,
        /// Their bound.
        limit_bytes: u64,
    },
    /// Settling is behind.
    #[error(
        "{unsettled_bytes} bytes wait to be written to segments, at most {limit_bytes} may: the disk is slower than \
         the producers; try again in a moment, or start the broker with more --memory"
    )]
    Busy {
        /// Bytes of the journal's ring that wait.
        unsettled_bytes: u64,
        /// Their bound.
        limit_bytes: u64,
    },
    /// No entry of this journal has room for it.
    #[error("record batch of {len} bytes is over the limit of {limit} bytes that the journal's files leave")]
    BatchTooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        limit: u32,
    },
    /// This round has as much to write as a round may.
    #[error("this round's journal entries are full at {limit_bytes} bytes; try again in a moment")]
    RoundFull {
        /// The bound of one round.
        limit_bytes: u64,
    },
    /// The memory for records of memory topics is used up by other partitions.
    #[error(
        "records of memory topics take {ring_bytes} bytes of this shard, at most {limit_bytes} may: shorten their \
         --retention-bytes, or start the broker with more --memory"
    )]
    RingsFull {
        /// Bytes of memory topics on this shard.
        ring_bytes: u64,
        /// Their bound.
        limit_bytes: u64,
    },
    /// Offsets of the memory partition are leased durably in blocks and the next block is on its way.
    #[error("offsets of this memory partition are being leased; try again in a moment")]
    LeaseUsedUp,
    /// The topic keeps the newest record of each key, and this record has none.
    #[error(
        "record {record} of the batch has no key, and this topic keeps the newest record of each key: give every record \
         a key"
    )]
    KeyMissing {
        /// Its place in the batch, from 0.
        record: usize,
    },
    /// The topic deduplicates, and which message ids the partition has is being read back from its log.
    #[error("the message ids of this partition are being read back from its log; try again in a moment")]
    ReadingMessageIds,
    /// As many message ids are remembered as may be.
    #[error(
        "message ids take {id_bytes} bytes of this shard, at most {limit_bytes} may: shorten --dedup-window or \
         --dedup-count of its topics, or start the broker with more --memory"
    )]
    MessageIdsFull {
        /// Bytes of message ids on this shard.
        id_bytes: u64,
        /// Their bound.
        limit_bytes: u64,
    },
    /// As many transactions are remembered as may be.
    #[error(
        "transactions take {transaction_bytes} bytes of this shard, at most {limit_bytes} may: those that were aborted go with \
         the retention of their topics; or start the broker with more --memory"
    )]
    TransactionsFull {
        /// Bytes of open and aborted transactions on this shard.
        transaction_bytes: u64,
        /// Their bound.
        limit_bytes: u64,
    },
    /// The partition's log refuses it.
    #[error(transparent)]
    Log(#[from] corelane_commitlog::AppendError),
}

impl AppendError {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition { .. } => ErrorCode::UnknownPartition,
            Self::Recovering | Self::ReadingMessageIds => ErrorCode::Recovering,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::StorageFailed { .. } => ErrorCode::StorageFailed,
            Self::StorageFull { .. } => ErrorCode::StorageFull,
            Self::Busy { .. }
            | Self::RoundFull { .. }
            | Self::RingsFull { .. }
            | Self::LeaseUsedUp
            | Self::MessageIdsFull { .. }
            | Self::TransactionsFull { .. } => ErrorCode::Busy,
            Self::BatchTooLarge { .. } => ErrorCode::BatchTooLarge,
            Self::KeyMissing { .. } => ErrorCode::KeyMissing,
            Self::Log(error) => error.code(),
        }
    }

    /// Whether waiting is of no use: this batch is refused again as long as the partition is what it is. That the whole shard
    /// is recovering, shutting down or stopped says nothing about the batch.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::UnknownPartition { .. } | Self::BatchTooLarge { .. } | Self::KeyMissing { .. } => true,
            Self::Log(error) => !matches!(error.code(), ErrorCode::LimitReached),
            Self::Recovering
            | Self::ShuttingDown
            | Self::StorageFailed { .. }
            | Self::StorageFull { .. }
            | Self::Busy { .. }
            | Self::RoundFull { .. }
            | Self::RingsFull { .. }
            | Self::LeaseUsedUp
            | Self::ReadingMessageIds
            | Self::MessageIdsFull { .. }
            | Self::TransactionsFull { .. } => false,
        }
    }
}

/// Why a read from a segment has no records to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The records were dropped while the read waited; fetch again to learn where the log starts now.
    #[error("the records were dropped while the read waited")]
    Gone,
    /// These records are damaged on disk; the rest of the log can be read.
    #[error("records from {first} to {end} of partition {partition} are damaged on disk; read on from {end}")]
    Corrupt {
        /// The partition.
        partition: PartitionId,
        /// The first damaged record, or where the reader is if compaction left nothing in between.
        first: Offset,
        /// Their exclusive end.
        end: Offset,
    },
    /// The disk does not give the bytes. It may at the next try.
    #[error("reading a segment of partition {partition} failed: {text}")]
    Failed {
        /// The partition.
        partition: PartitionId,
        /// What the operating system said.
        text: String,
    },
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This shard has no such partition.
    #[error("partition {partition} is not on this shard")]
    UnknownPartition {
        /// The partition that was asked for.
        partition: PartitionId,
    },
    /// The offset is not inside the log.
    #[error("offset {offset} is outside the log, which is from {log_start} to {high_watermark}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset there is.
        log_start: Offset,
        /// The end of what is visible.
        high_watermark: Offset,
    },
    /// The change is larger than a journal entry.
    #[error("a change of {len} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The journal is being replayed.
    #[error("the shard is recovering its journal")]
    Recovering,
    /// As many changes wait for room in the journal as may; settling makes some.
    #[error("the journal is full; try again in a moment")]
    Busy,
    /// The shard is draining.
    #[error("the broker is shutting down")]
    ShuttingDown,
    /// The journal failed.
    #[error("the shard's journal failed and takes no writes until the broker restarts: {text}")]
    StorageFailed {
        /// What failed.
        text: String,
    },
}

impl ChangeError {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition { .. } => ErrorCode::UnknownPartition,
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::TooLarge { .. } => ErrorCode::LimitReached,
            Self::Recovering => ErrorCode::Recovering,
            Self::Busy => ErrorCode::Busy,
            Self::ShuttingDown => ErrorCode::ShuttingDown,
            Self::StorageFailed { .. } => ErrorCode::StorageFailed,
        }
    }
}

impl ReadError {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Gone => ErrorCode::OffsetOutOfRange,
            Self::Corrupt { .. } => ErrorCode::CorruptLog,
            Self::Failed { .. } => ErrorCode::Busy,
        }
    }
}

/// Why a partition's state cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The bytes are no state, or one of a newer version.
    #[error("what was exported holds {text}")]
    Malformed {
        /// What was found and what would be right.
        text: String,
    },
}
