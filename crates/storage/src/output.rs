//! What storage tells its shard, and what its calls answer.

use bytes::Bytes;
use corelane_model::{Offset, PartitionId, WallMillis};

use crate::{ReadError, RecoveryError, RecoveryReport};

macro_rules! ticket {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

ticket!(
    /// A read that waits for the disk; counts up, never reused while the shard runs.
    ReadTicket
);
ticket!(
    /// A change that waits to be durable: of the catalog, of a log start, or the end of a transaction. Counts up over all kinds.
    ChangeTicket
);

/// Something that the shard should know, in the order of [`crate::Storage::poll_output`].
#[derive(Debug)]
pub enum StorageOutput {
    /// The journal is replayed; partitions can be opened and appended to. Comes once, before any other output.
    Recovered {
        /// The catalog's snapshot and changes; only shard 0 has any.
        catalog: CatalogRecovery,
        /// What was found.
        report: RecoveryReport,
    },
    /// The journal cannot be read; the shard must not start. Comes instead of [`StorageOutput::Recovered`].
    RecoveryFailed {
        /// Why.
        error: RecoveryError,
    },
    /// Records of these partitions are durable and visible; at most one of it in a round, and in it each partition at most
    /// once. A memory partition's come at the end of the round of their append.
    Durable {
        /// The partitions, each with the exclusive end of what is durable. Never empty.
        ends: Vec<(PartitionId, Offset)>,
    },
    /// The catalog change is durable, and all before it.
    CatalogDurable {
        /// From [`crate::Storage::write_catalog`].
        ticket: ChangeTicket,
    },
    /// The log start is durable; files below it go now.
    TruncateDurable {
        /// The partition.
        partition: PartitionId,
        /// Where its log starts.
        log_start: Offset,
        /// From [`crate::Storage::truncate`].
        ticket: ChangeTicket,
    },
    /// The end of a transaction in a partition is durable: whoever decided it may forget the partition.
    TransactionEnded {
        /// The partition.
        partition: PartitionId,
        /// From [`crate::Storage::end_transaction`].
        ticket: ChangeTicket,
    },
    /// [`crate::Storage::next_producer_id`] has ids again.
    ProducerIdsReady,
    /// The answer to [`Fetch::Pending`].
    Read {
        /// The read.
        ticket: ReadTicket,
        /// The partition.
        partition: PartitionId,
        /// Whole batches in order; the first may begin before the offset that was asked for. Never empty.
        result: Result<Vec<Bytes>, ReadError>,
    },
    /// The answer to [`OffsetFor::Pending`].
    TimeFound {
        /// The search.
        ticket: ReadTicket,
        /// The partition.
        partition: PartitionId,
        /// The offset of the first batch whose append timestamp is not before the moment.
        result: Result<Offset, ReadError>,
    },
    /// Retention dropped the oldest segments of a partition.
    SegmentsDropped {
        /// The partition.
        partition: PartitionId,
        /// Where its log starts now.
        log_start: Offset,
        /// How many segment files go.
        segments: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// The journal failed: nothing is written until a restart, what is durable can be read.
    Stopped {
        /// What failed, for people.
        text: String,
    },
    /// Settling or the journal's ring met a full disk. Appends go on until the ring or the cache is full, then they
    /// are refused.
    SpaceLow,
    /// There is space again.
    SpaceBack,
    /// After [`crate::Storage::settle_all`]: every record is in a segment and the journal holds no batch that is needed.
    AllSettled,
    /// After [`crate::Storage::drain`]: everything appended is durable, the closing mark is written, nothing is in
    /// flight.
    Drained,
}

/// The catalog as the journal of shard 0 holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogRecovery {
    /// The latest snapshot.
    pub snapshot: Option<Bytes>,
    /// The changes after it, in order.
    pub changes: Vec<Bytes>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// End of the batch, exclusive: durable when the partition's durable end has reached it.
    pub end_offset: Offset,
    /// The partition's time for the batch.
    pub append_timestamp: WallMillis,
    /// The batch was there already; nothing was written.
    pub is_duplicate: bool,
    /// It is durable at this moment: a duplicate of a durable batch. A fresh batch of a memory topic is not, it is
    /// durable at the end of the round.
    pub is_durable_already: bool,
}

/// What a fetch answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Whole visible batches in order; the first may begin before the offset that was asked for.
    Batches {
        /// The batches as they are stored; never empty.
        batches: Vec<Bytes>,
        /// Where to go on.
        next: Offset,
    },
    /// They come from disk, as [`StorageOutput::Read`].
    Pending(ReadTicket),
    /// Nothing is visible at this offset yet.
    AtEnd,
    /// The offset is outside the log.
    OutOfRange {
        /// The first offset there is.
        log_start: Offset,
        /// The end of what is visible.
        high_watermark: Offset,
    },
    /// These records are lost to damage of the disk; read on from `end`.
    Corrupt {
        /// The first of them, or the offset that was asked for if compaction left nothing in between.
        first: Offset,
        /// Their exclusive end.
        end: Offset,
    },
    /// As many reads wait as may; ask again after one was answered.
    Busy,
    /// This shard has no such partition.
    Unknown,
}

/// What a search for a starting offset answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetFor {
    /// This one. For a time after the last visible record: the high watermark.
    Found(Offset),
    /// It comes as [`StorageOutput::TimeFound`].
    Pending(ReadTicket),
    /// As many reads wait as may; ask again after one was answered.
    Busy,
    /// This shard has no such partition.
    Unknown,
}

/// Everything that a shard's storage knows beyond its settled records, for a start with another number of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardExport {
    /// Each partition's state, encoded, for [`crate::Storage::import`].
    pub partitions: Vec<(PartitionId, Bytes)>,
    /// No producer id at or above this one was handed out; for [`crate::Storage::import_producer_ids`].
    pub producer_ids_until: u64,
    /// The catalog; only shard 0 has any.
    pub catalog: CatalogRecovery,
}
