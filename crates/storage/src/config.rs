//! What a shard's storage is told at its start.

use corelane_model::limits::{
    CONNECTIONS_MEMORY_PART, JOURNAL_FILE_BYTES, JOURNAL_FILES_DEFAULT, TRANSACTIONS_MEMORY_PART,
};
use corelane_model::{Incarnation, ShardId};

/// What a shard's storage is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct StorageConfig {
    /// Random 128 bits of the data directory: a journal file of another directory is not ours.
    pub data_id: u128,
    /// The shard.
    pub shard: ShardId,
    /// This start of the broker.
    pub incarnation: Incarnation,
    /// Whether the broker that ran before ended by draining. If not, or if the journal has no closing mark, every
    /// partition gets a new leader epoch.
    pub was_clean: bool,
    /// Bytes of memory of this shard, at least [`MEMORY_BYTES_MIN`]: unsettled records, memory topics, what cold reads
    /// keep, and one part in [`CONNECTIONS_MEMORY_PART`] that is left to its connections.
    pub memory_bytes: u64,
    /// Files of the journal's ring.
    pub journal_files: u32,
    /// Bytes of each.
    pub journal_file_bytes: u64,
}

/// The least memory that a shard's storage works with.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;

impl StorageConfig {
    /// A shard of a new data directory with the default ring and this much memory.
    #[must_use]
    pub const fn new(data_id: u128, shard: ShardId, memory_bytes: u64) -> Self {
        Self {
            data_id,
            shard,
            incarnation: Incarnation(1),
            was_clean: true,
            memory_bytes,
            journal_files: JOURNAL_FILES_DEFAULT,
            journal_file_bytes: JOURNAL_FILE_BYTES,
        }
    }

    /// How the memory is shared out.
    pub(crate) const fn budget(&self) -> MemoryBudget {
        let part = self.memory_bytes / 64;
        let (read_bytes, ring_bytes, id_bytes) = (12 * part, 10 * part, 2 * part);
        let (index_bytes, compact_bytes) = (part, 3 * part);
        let connection_bytes = self.memory_bytes / CONNECTIONS_MEMORY_PART;
        let transaction_bytes = self.memory_bytes / TRANSACTIONS_MEMORY_PART;
        MemoryBudget {
            unsettled_bytes: self.memory_bytes
                - read_bytes
                - index_bytes
                - ring_bytes
                - id_bytes
                - compact_bytes
                - transaction_bytes
                - connection_bytes,
            ring_bytes,
            id_bytes,
            transaction_bytes,
            read_bytes,
            index_bytes,
            compact_bytes,
        }
    }
}

/// Shares of [`StorageConfig::memory_bytes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryBudget {
    /// Journal slabs that hold unsettled records.
    pub(crate) unsettled_bytes: u64,
    /// Records of memory topics.
    pub(crate) ring_bytes: u64,
    /// Message ids of topics that deduplicate.
    pub(crate) id_bytes: u64,
    /// Open and aborted transactions that partitions remember.
    pub(crate) transaction_bytes: u64,
    /// Extents read from segments.
    pub(crate) read_bytes: u64,
    /// Segment indexes.
    pub(crate) index_bytes: u64,
    /// Keys that a pass of compaction learns.
    pub(crate) compact_bytes: u64,
}
