//! What a shard is told at its start.

use bytes::Bytes;
use corelane_model::limits::{CONNECTIONS_MEMORY_PART, JOURNAL_FILE_BYTES, JOURNAL_FILES_DEFAULT};
use corelane_model::{Incarnation, PartitionId, ShardId};
use corelane_session::TokenDigest;

/// Everything that a shard must be told, since it reads no file, clock or environment itself.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard it is.
    pub shard: ShardId,
    /// How many shards there are: 1 to [`corelane_model::limits::SHARDS_MAX`].
    pub shards: u16,
    /// Random 128 bits of the data directory, made at its first start.
    pub data_id: u128,
    /// Which start of the broker this is.
    pub incarnation: Incarnation,
    /// Whether the start before ended with [`crate::Effect::Drained`] on every shard.
    pub was_clean: bool,
    /// Bytes that this shard may hold: batches that are not settled, memory topics, reads, and its connections.
    pub memory_bytes: u64,
    /// Files of the journal's ring.
    pub journal_files: u32,
    /// Bytes of each of them.
    pub journal_file_bytes: u64,
    /// Digests of the bearer tokens that are let in; none lets everybody in.
    pub tokens: Vec<TokenDigest>,
    /// What the start is for.
    pub boot: Boot,
}

impl ShardConfig {
    /// What of the memory is for connections: frames that wait to be sent, frames that are not whole, and windows.
    #[must_use]
    pub const fn connection_bytes(&self) -> u64 {
        self.memory_bytes / CONNECTIONS_MEMORY_PART
    }

    /// The first start of a broker with the defaults; every field can be set afterwards.
    #[must_use]
    pub fn first_start(shard: ShardId, shards: u16, data_id: u128) -> Self {
        Self {
            shard,
            shards,
            data_id,
            incarnation: Incarnation(1),
            was_clean: true,
            memory_bytes: 256 << 20,
            journal_files: JOURNAL_FILES_DEFAULT,
            journal_file_bytes: JOURNAL_FILE_BYTES,
            tokens: Vec::new(),
            boot: Boot::Serve,
        }
    }
}

/// What a start is for.
///
/// The number of shards changes in two starts: one with the old number and [`Boot::Export`], then one with the new number,
/// empty journals and [`Boot::Import`] with what [`crate::reshard`] made of the exports.
#[derive(Clone, Debug)]
pub enum Boot {
    /// Recover, then serve.
    Serve,
    /// Recover, bring everything into segments, say [`crate::Effect::Drained`], then answer
    /// [`crate::AdminQuery::Export`]. No connection is served.
    Export,
    /// Begin with empty journals and this, then serve.
    Import(Box<ShardExport>),
}

/// What one shard knows beyond its segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardExport {
    /// The catalog as an encoded snapshot; only shard 0 has it.
    pub catalog: Option<Bytes>,
    /// The encoded state of each of its partitions.
    pub partitions: Vec<(PartitionId, Bytes)>,
    /// No producer id at or above this one was handed out by it.
    pub producer_ids_until: u64,
}
