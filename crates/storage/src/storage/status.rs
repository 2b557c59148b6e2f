//! What storage says of itself.

use corelane_model::PartitionId;

use super::Storage;
use crate::partition::SettleState;
use crate::{PartitionStatus, ShardExport, StorageStats};

impl Storage {
    /// One partition as an operator sees it; `None` when it is not open here.
    #[must_use]
    pub fn describe(&self, partition: PartitionId) -> Option<PartitionStatus> {
        let known = self.table.open(partition)?;
        let log = &known.log;
        Some(PartitionStatus {
            class: known.class(),
            log_start: log.log_start(),
            settled_end: log.settled_end(),
            durable_end: log.durable_end(),
            high_watermark: log.high_watermark(),
            last_stable_offset: log.last_stable_offset(),
            log_end: log.log_end(),
            leader_epoch: log.leader_epoch(),
            unsettled_bytes: log.cached_bytes(),
            disk_bytes: log.disk_bytes(),
            segments: u32::try_from(log.segments().len()).unwrap_or(u32::MAX),
            is_damaged: !log.corrupt().is_empty(),
            is_settling_failed: matches!(known.settle, SettleState::Failed { .. }),
        })
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> StorageStats {
        let journal = self.journal.stats();
        let reads = self.reads.stats;
        let compaction = self.compaction.stats;
        StorageStats {
            partitions: self.table.len() as u64,
            journal_entries_total: journal.entries_total,
            journal_bytes_total: journal.written_bytes_total,
            journal_syncs_total: journal.syncs_total,
            journal_fill_permille: u64::from(self.journal.pressure()),
            unsettled_bytes: journal.used_bytes,
            unsettled_bytes_max: journal.room_bytes,
            cache_bytes: self.slabs.bytes(),
            cache_bytes_max: self.budget.unsettled_bytes,
            is_space_low: u64::from(self.is_space_low()),
            is_stopped: u64::from(self.failure.is_some()),
            ring_bytes: self.table.ring_bytes(),
            id_bytes: self.table.id_bytes(),
            transaction_bytes: self.table.transaction_bytes(),
            fetches_cached_total: reads.cached_total,
            fetches_cold_total: reads.cold_total,
            reads_total: reads.reads_total,
            read_bytes_total: reads.bytes_total,
            read_failures_total: reads.failures_total,
            read_cache_bytes: self.reads.cache_bytes(),
            index_entries: self.reads.index_entries() as u64,
            compaction_passes_total: compaction.passes_total,
            compaction_read_bytes_total: compaction.read_bytes_total,
            compaction_written_bytes_total: compaction.written_bytes_total,
            compaction_removed_records_total: compaction.removed_records_total,
            compaction_failures_total: compaction.failures_total,
            ..self.stats
        }
    }

    /// Everything that the shard's journal knows, after [`crate::StorageOutput::AllSettled`].
    #[must_use]
    pub fn export(&self) -> ShardExport {
        let partitions = self.table.iter().map(|(id, partition)| (id, partition.record().encode()));
        ShardExport {
            partitions: partitions.collect(),
            producer_ids_until: self.producers.asked,
            catalog: self.catalog.content(),
        }
    }
}
