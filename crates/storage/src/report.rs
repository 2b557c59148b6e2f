//! What recovery found.

use corelane_model::{Offset, PartitionId};

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The broker drained before and the journal's closing mark is there: leader epochs stay.
    pub was_clean: bool,
    /// Journal entries that were replayed.
    pub entries: u64,
    /// Bytes of record batches among them that are in no segment yet.
    pub bytes: u64,
    /// Partitions that the journal knows.
    pub partitions: u64,
    /// Bytes of a torn tail that were cut: nothing in them was ever called durable.
    pub torn_bytes: u64,
    /// Stretches of the journal that were durable and are damaged now, or that may have been and cannot be read.
    pub damages: u64,
    /// Items that contradict what came before them; they were left out.
    pub misfits: u64,
    /// Records that were durable and are lost, by partition, as far as the rest of the journal tells.
    pub corrupt: Vec<CorruptRange>,
}

/// Records that are lost to damage of the disk; the rest of the partition is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptRange {
    /// The partition.
    pub partition: PartitionId,
    /// The first lost record.
    pub first: Offset,
    /// Their exclusive end.
    pub end: Offset,
}

/// Why a shard's journal cannot be recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Reading or writing a file failed.
    #[error("the journal of shard {shard} cannot be recovered: {text}")]
    Journal {
        /// The shard.
        shard: u8,
        /// What went wrong, for people.
        text: String,
    },
    /// The journal was written by a newer version or its content contradicts itself.
    #[error("the journal of shard {shard} holds {text}")]
    Content {
        /// The shard.
        shard: u8,
        /// What was found and what would be right.
        text: String,
    },
}
