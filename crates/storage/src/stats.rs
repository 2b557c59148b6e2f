//! Numbers about one shard's storage. Plain fields; merging over shards happens outside.

use corelane_model::{LeaderEpoch, Offset, TopicClass};

/// Counters and gauges of one shard's storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageStats {
    /// Partitions that are open.
    pub partitions: u64,
    /// Batches appended since the start, duplicates not counted.
    pub appended_batches_total: u64,
    /// Their bytes.
    pub appended_bytes_total: u64,
    /// Batches that were there already.
    pub duplicate_batches_total: u64,
    /// Appends refused because a budget was used up.
    pub busy_total: u64,
    /// Appends refused because the disk is full.
    pub full_total: u64,
    /// Journal entries handed to the disk.
    pub journal_entries_total: u64,
    /// Bytes of the journal handed to the disk, padding included.
    pub journal_bytes_total: u64,
    /// Syncs of the journal that were asked for.
    pub journal_syncs_total: u64,
    /// Fill of the journal's ring, in thousandths.
    pub journal_fill_permille: u64,
    /// Bytes of the journal's ring that are in use.
    pub unsettled_bytes: u64,
    /// Bound of `unsettled_bytes` for appends.
    pub unsettled_bytes_max: u64,
    /// Memory of the journal entries that hold unsettled records.
    pub cache_bytes: u64,
    /// Bound of `cache_bytes` for appends.
    pub cache_bytes_max: u64,
    /// Turns of settling that were made durable.
    pub settle_turns_total: u64,
    /// Extents written to segments.
    pub settled_extents_total: u64,
    /// Bytes of the record batches in them.
    pub settled_bytes_total: u64,
    /// Bytes that the extents take on disk, heads and padding included.
    pub settled_disk_bytes_total: u64,
    /// Turns that met a full disk.
    pub settle_no_space_total: u64,
    /// Writes or syncs of segments that failed otherwise.
    pub settle_failures_total: u64,
    /// 1 while settling waits for space on the disk.
    pub is_space_low: u64,
    /// 1 when the journal failed and nothing is written any more.
    pub is_stopped: u64,
    /// Bytes of records of memory topics.
    pub ring_bytes: u64,
    /// Bytes of message ids of topics that deduplicate.
    pub id_bytes: u64,
    /// Bytes of open and aborted transactions that partitions remember.
    pub transaction_bytes: u64,
    /// Fetches that the cache of unsettled records answered.
    pub fetches_hot_total: u64,
    /// Fetches below the settled end that the read cache answered.
    pub fetches_cached_total: u64,
    /// Fetches that waited for the disk.
    pub fetches_cold_total: u64,
    /// Reads of segments, read-ahead included.
    pub reads_total: u64,
    /// Bytes of these reads.
    pub read_bytes_total: u64,
    /// Reads that failed or found damage.
    pub read_failures_total: u64,
    /// Bytes of segments in the read cache.
    pub read_cache_bytes: u64,
    /// Entries of segment indexes in memory.
    pub index_entries: u64,
    /// Passes of compaction that went through.
    pub compaction_passes_total: u64,
    /// Bytes that compaction read.
    pub compaction_read_bytes_total: u64,
    /// Bytes that compaction wrote.
    pub compaction_written_bytes_total: u64,
    /// Superseded records that compaction left out.
    pub compaction_removed_records_total: u64,
    /// Passes that came to nothing.
    pub compaction_failures_total: u64,
    /// Segment files dropped by retention, truncation or deletion of topics.
    pub segments_deleted_total: u64,
}

/// One partition as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// What its records survive.
    pub class: TopicClass,
    /// The first offset there is.
    pub log_start: Offset,
    /// End of what is in segments.
    pub settled_end: Offset,
    /// End of what survives a crash.
    pub durable_end: Offset,
    /// End of what consumers may read.
    pub high_watermark: Offset,
    /// End of what readers of committed records may read.
    pub last_stable_offset: Offset,
    /// End of what was appended.
    pub log_end: Offset,
    /// Its leader's term.
    pub leader_epoch: LeaderEpoch,
    /// Bytes of batches that are in memory: not yet in segments, or all of a memory topic.
    pub unsettled_bytes: u64,
    /// Bytes of its segments.
    pub disk_bytes: u64,
    /// Segment files.
    pub segments: u32,
    /// Records were lost to damage of the disk.
    pub is_damaged: bool,
    /// Its settling met a failing write or sync and waits to begin a new segment file.
    pub is_settling_failed: bool,
}
