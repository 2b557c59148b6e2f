//! A shard's answer to the admin listener.

use crate::{AdminAnswer, ReactorStatus, STATUS_TOPICS_MAX, Shard, ShardStatus, StorageStatus, TopicStatus};

impl Shard {
    pub(crate) fn status(&self) -> AdminAnswer {
        let mut counters = self.stats.clone();
        let mut sessions = 0;
        for state in self.connections.values() {
            sessions += u64::from(state.session.is_open());
            counters.refusals += state.session.stats().refusals;
        }
        let catalog = self.catalog.as_ref();
        let by_topic = self
            .traffic
            .iter()
            .filter_map(|(&topic, traffic)| {
                Some(TopicStatus {
                    topic,
                    name: catalog?.topic(topic)?.name.as_str().to_owned(),
                    produced: traffic.produced,
                    consumed: traffic.consumed,
                    conflated: traffic.conflated.values().sum(),
                })
            })
            .take(STATUS_TOPICS_MAX)
            .collect();
        let waiting = self.parked.len()
            + self.backlog.len()
            + self.changes.len()
            + self.describes.len()
            + self.truncations.len()
            + self.producer_askers.len()
            + self.subscriptions.reads_len();
        let waiting = waiting + self.groups_waiting();
        let (groups, group_totals) = self.groups_status();
        let (queues, queue_totals) = self.queues_status();
        AdminAnswer::Status(Box::new(ShardStatus {
            shard: self.config.shard,
            shards: self.config.shards,
            incarnation: self.config.incarnation,
            phase: self.phase.status(),
            storage_failure: self.storage_failure.clone(),
            is_space_low: self.is_space_low,
            stopped_homes: self.stopped_homes(),
            catalog_version: catalog.map(|catalog| catalog.version()).unwrap_or_default(),
            topics: catalog.map_or(0, |catalog| catalog.topics().len() as u64),
            partitions: catalog.map_or(0, |catalog| catalog.partitions_owned_by(self.config.shard)),
            connections: self.connections.len() as u64,
            sessions,
            subscriptions: self.subscriptions.len() as u64,
            requests_waiting: waiting as u64,
            counters,
            storage: self.storage_status(),
            by_topic,
            by_topic_left_out: self.traffic.len().saturating_sub(STATUS_TOPICS_MAX) as u64,
            groups,
            group_totals,
            queues,
            queue_totals,
            transaction_totals: self.transactions_status(),
            reactor: ReactorStatus::default(),
            recovery: self.phase.recovery().cloned(),
        }))
    }

    /// When the whole shard takes nothing, that is said once and not of each home.
    fn stopped_homes(&self) -> Vec<String> {
        if self.storage_failure.is_some() || self.refuse_phase().is_some() {
            return Vec::new();
        }
        let homes = self.groups.broken_homes().chain(self.transactions.broken_homes());
        homes.map(|refused| refused.text.clone()).collect()
    }

    fn storage_status(&self) -> StorageStatus {
        let storage = self.storage.stats();
        StorageStatus {
            journal_fill_per_mille: storage.journal_fill_permille,
            journal_entries: storage.journal_entries_total,
            journal_bytes: storage.journal_bytes_total,
            journal_syncs: storage.journal_syncs_total,
            unsettled_bytes: storage.unsettled_bytes,
            cache_bytes: storage.unsettled_bytes + storage.ring_bytes + storage.read_cache_bytes,
            settled_bytes: storage.settled_bytes_total,
            cold_reads: storage.fetches_cold_total,
            refused_busy: storage.busy_total,
            refused_full: storage.full_total,
            settle_failures: storage.settle_failures_total,
            read_failures: storage.read_failures_total,
            compaction_passes: storage.compaction_passes_total,
            compaction_written_bytes: storage.compaction_written_bytes_total,
            compaction_removed_records: storage.compaction_removed_records_total,
            compaction_failures: storage.compaction_failures_total,
            segments_deleted: storage.segments_deleted_total,
        }
    }
}
