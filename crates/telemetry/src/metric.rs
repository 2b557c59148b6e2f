//! The one list of everything that is exposed.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process runs; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A [`crate::Histogram`]; its name ends in `_seconds`.
    Histogram,
}

/// One metric: `corelane_<crate>_<noun>_<unit>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// What it says, for people.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric { name: $name, kind: MetricKind::$kind, help: $help };
        )*

        /// Every metric that is exposed, in the order of the exposition.
        pub static METRICS: &[&Metric] = &[$(&$constant,)*];
    };
}

metrics! {
    SHARD_UP Gauge "corelane_shard_up" "1 when the shard serves, 0 when it recovers, drains or its journal failed.";
    SHARD_CONNECTIONS Gauge "corelane_shard_connections" "Connections that are open.";
    SHARD_SESSIONS Gauge "corelane_shard_sessions" "Connections that have said hello and were welcomed.";
    SHARD_SUBSCRIPTIONS Gauge "corelane_shard_subscriptions" "Subscriptions to partitions of this shard.";
    SHARD_PARTITIONS Gauge "corelane_shard_partitions" "Partitions that this shard owns.";
    SHARD_REQUESTS_WAITING Gauge "corelane_shard_requests_waiting" "Requests that wait for a newer catalog or for another shard.";
    SHARD_ROUNDS Counter "corelane_shard_rounds_total" "Rounds of the shard.";
    SHARD_FRAMES Counter "corelane_shard_frames_total" "Frames that came in.";
    SHARD_REFUSALS Counter "corelane_shard_refusals_total" "Requests that were refused with a code.";
    SHARD_CLOSES Counter "corelane_shard_closes_total" "Connections that were closed because of what they sent.";
    SHARD_FORWARDS Counter "corelane_shard_forwards_total" "Requests that were forwarded to another shard.";
    SHARD_MESH_MESSAGES Counter "corelane_shard_mesh_messages_total" "Messages that were sent to other shards.";
    SHARD_PRODUCED_RECORDS Counter "corelane_shard_produced_records_total" "Records that were appended.";
    SHARD_PRODUCED_BATCHES Counter "corelane_shard_produced_batches_total" "Record batches that were appended.";
    SHARD_PRODUCED_BYTES Counter "corelane_shard_produced_bytes_total" "Bytes of record batches that were appended.";
    SHARD_DUPLICATE_BATCHES Counter "corelane_shard_duplicate_batches_total" "Record batches that were recognised as sent again.";
    SHARD_CONSUMED_RECORDS Counter "corelane_shard_consumed_records_total" "Records that were pushed to subscriptions.";
    SHARD_CONSUMED_BATCHES Counter "corelane_shard_consumed_batches_total" "Record batches that were pushed to subscriptions.";
    SHARD_CONSUMED_BYTES Counter "corelane_shard_consumed_bytes_total" "Bytes of record batches that were pushed to subscriptions.";
    SHARD_HOMES_STOPPED Gauge "corelane_shard_homes_stopped" "Homes of groups, queues and transactional ids that take nothing until the broker restarts.";
    SHARD_HOME_DAMAGES Counter "corelane_shard_home_damages_total" "Damaged places in the logs of groups, queues and transactional ids that the start went past.";
    SHARD_STORED_SECONDS Histogram "corelane_shard_stored_seconds" "Time from a batch's arrival until it was known to be durable.";
    TOPIC_PRODUCED_RECORDS Counter "corelane_topic_produced_records_total" "Records that were appended to a topic.";
    TOPIC_PRODUCED_BYTES Counter "corelane_topic_produced_bytes_total" "Bytes of record batches that were appended to a topic.";
    TOPIC_CONSUMED_RECORDS Counter "corelane_topic_consumed_records_total" "Records of a topic that were pushed.";
    TOPIC_CONSUMED_BYTES Counter "corelane_topic_consumed_bytes_total" "Bytes of record batches of a topic that were pushed.";
    TOPIC_CONFLATED_RECORDS Counter "corelane_topic_conflated_records_total" "Records of a topic of class latest that readers were not pushed, because newer ones of their keys had come.";
    GROUP_GROUPS Gauge "corelane_group_groups" "Consumer groups whose home is on this shard.";
    GROUP_MEMBERS Gauge "corelane_group_members" "Members of those groups.";
    GROUP_JOINS Counter "corelane_group_joins_total" "Members that joined, static ones that came back included.";
    GROUP_LEAVES Counter "corelane_group_leaves_total" "Members that left.";
    GROUP_REBALANCES Counter "corelane_group_rebalances_total" "Changes of an assignment.";
    GROUP_GRANTED_PARTITIONS Counter "corelane_group_granted_partitions_total" "Partitions that were given to a member.";
    GROUP_REVOKED_PARTITIONS Counter "corelane_group_revoked_partitions_total" "Partitions that were asked back from a member.";
    GROUP_SESSIONS_EXPIRED Counter "corelane_group_sessions_expired_total" "Members whose session expired.";
    GROUP_REBALANCE_TIMEOUTS Counter "corelane_group_rebalance_timeouts_total" "Members that did not give up in time.";
    GROUP_COMMITS Counter "corelane_group_commits_total" "Offsets that were committed.";
    GROUP_REFUSED_COMMITS Counter "corelane_group_refused_commits_total" "Commits that were refused, whole.";
    GROUP_APPENDED_BYTES Counter "corelane_group_appended_bytes_total" "Bytes of records of groups that were appended.";
    GROUP_SNAPSHOTS Counter "corelane_group_snapshots_total" "Snapshots that shortened the log of a home of groups.";
    GROUP_LAG_RECORDS Gauge "corelane_group_lag_records" "Records of a topic between a group's committed offsets and the high watermarks.";
    GROUP_LAG_MILLISECONDS Gauge "corelane_group_lag_milliseconds" "Age of the oldest of those records; 0 when there are none.";
    QUEUE_QUEUES Gauge "corelane_queue_queues" "Shared queues whose home is on this shard.";
    QUEUE_LEFT_OUT Gauge "corelane_queue_left_out" "Of them, those that are over the limit of queues with samples of their own.";
    QUEUE_JOINS Counter "corelane_queue_joins_total" "Members that joined a shared queue.";
    QUEUE_LEAVES Counter "corelane_queue_leaves_total" "Members that left a shared queue.";
    QUEUE_SESSIONS_EXPIRED Counter "corelane_queue_sessions_expired_total" "Members of shared queues whose session expired.";
    QUEUE_REDRIVEN_RECORDS Counter "corelane_queue_redriven_records_total" "Dead letters that were put back.";
    QUEUE_APPENDED_BYTES Counter "corelane_queue_appended_bytes_total" "Bytes of records of shared queues that were appended.";
    QUEUE_MEMBERS Gauge "corelane_queue_members" "Members of a shared queue.";
    QUEUE_READY_RECORDS Gauge "corelane_queue_ready_records" "Records that a shared queue could hand out.";
    QUEUE_LEASED_RECORDS Gauge "corelane_queue_leased_records" "Records that members of a shared queue have.";
    QUEUE_DELAYED_RECORDS Gauge "corelane_queue_delayed_records" "Records of a shared queue that rest until they are handed out.";
    QUEUE_DYING_RECORDS Gauge "corelane_queue_dying_records" "Records of a shared queue on their way to the dead-letter topic.";
    QUEUE_OLDEST_UNDONE_MILLISECONDS Gauge "corelane_queue_oldest_undone_milliseconds" "Age of the oldest record of a shared queue that is not done; 0 when all are.";
    QUEUE_DEAD_LETTERS Counter "corelane_queue_dead_letters_total" "Dead letters of a shared queue, since it was made.";
    QUEUE_DELIVERIES Counter "corelane_queue_deliveries_total" "Records that a shared queue handed out.";
    QUEUE_REDELIVERIES Counter "corelane_queue_redeliveries_total" "Of them, those that had been handed out before.";
    QUEUE_ACKNOWLEDGEMENTS Counter "corelane_queue_acknowledgements_total" "Records of a shared queue that were acknowledged.";
    QUEUE_REJECTIONS Counter "corelane_queue_rejections_total" "Records of a shared queue that members failed.";
    QUEUE_LEASE_TIMEOUTS Counter "corelane_queue_lease_timeouts_total" "Leases of a shared queue that the visibility time-out ended.";
    QUEUE_UNSENT_LEASES Counter "corelane_queue_unsent_leases_total" "Leases of a shared queue whose members had no connection any more when their records left: handed out again.";
    QUEUE_FAR_DELIVERY_TIMES Counter "corelane_queue_far_delivery_times_total" "Records of a shared queue whose delivery time is farther off than queues wait.";
    TRANSACTION_IDS Gauge "corelane_transaction_ids" "Transactional ids whose home is on this shard.";
    TRANSACTION_OPEN Gauge "corelane_transaction_open" "Transactions of them that are not decided.";
    TRANSACTION_OLDEST_OPEN_MILLISECONDS Gauge "corelane_transaction_oldest_open_milliseconds" "For how long a partition or group of this shard has had a transaction open, at most, counted from this start at the earliest.";
    TRANSACTION_LOST Counter "corelane_transaction_lost_total" "Transactions that were open in a partition or group here and that no transactional id knew: aborted there.";
    TRANSACTION_COMMITTED Counter "corelane_transaction_committed_total" "Transactions that were committed, empty ones not counted.";
    TRANSACTION_ABORTED Counter "corelane_transaction_aborted_total" "Transactions that were aborted, for whatever reason.";
    TRANSACTION_TIMED_OUT Counter "corelane_transaction_timed_out_total" "Of them, those that ran out of time.";
    TRANSACTION_FENCED Counter "corelane_transaction_fenced_total" "Requests of a client whose transactional id another has now.";
    TRANSACTION_REFUSED Counter "corelane_transaction_refused_total" "Requests of transactions that were refused, for whatever reason.";
    STORAGE_JOURNAL_FILL Gauge "corelane_storage_journal_fill_permille" "How full the ring of the journal is.";
    STORAGE_JOURNAL_SYNCS Counter "corelane_storage_journal_syncs_total" "Syncs of the journal.";
    STORAGE_JOURNAL_ENTRIES Counter "corelane_storage_journal_entries_total" "Entries written to the journal.";
    STORAGE_JOURNAL_BYTES Counter "corelane_storage_journal_bytes_total" "Bytes written to the journal, padding included.";
    STORAGE_UNSETTLED_BYTES Gauge "corelane_storage_unsettled_bytes" "Bytes of record batches that are not in segments yet.";
    STORAGE_SETTLED_BYTES Counter "corelane_storage_settled_bytes_total" "Bytes written to segments.";
    STORAGE_CACHE_BYTES Gauge "corelane_storage_cache_bytes" "Bytes of record batches held in memory for readers.";
    STORAGE_COLD_READS Counter "corelane_storage_cold_reads_total" "Reads of segments on behalf of subscriptions.";
    STORAGE_REFUSED_BUSY Counter "corelane_storage_refused_busy_total" "Appends that were refused because settling or memory is behind.";
    STORAGE_REFUSED_FULL Counter "corelane_storage_refused_full_total" "Appends that were refused because the disk is full.";
    STORAGE_SETTLE_FAILURES Counter "corelane_storage_settle_failures_total" "Writes or syncs of segments that failed.";
    STORAGE_READ_FAILURES Counter "corelane_storage_read_failures_total" "Reads of segments that failed or found damage.";
    STORAGE_COMPACTION_PASSES Counter "corelane_storage_compaction_passes_total" "Passes of compaction that went through.";
    STORAGE_COMPACTION_WRITTEN Counter "corelane_storage_compaction_written_bytes_total" "Bytes that compaction wrote.";
    STORAGE_COMPACTION_REMOVED Counter "corelane_storage_compaction_removed_records_total" "Superseded records that compaction left out.";
    STORAGE_COMPACTION_FAILURES Counter "corelane_storage_compaction_failures_total" "Passes of compaction that came to nothing.";
    STORAGE_SEGMENTS_DELETED Counter "corelane_storage_segments_deleted_total" "Segment files that were dropped.";
    STORAGE_RECOVERY_DAMAGES Gauge "corelane_storage_recovery_damages" "Stretches of the journal that the start found damaged.";
    STORAGE_RECOVERY_MISFITS Gauge "corelane_storage_recovery_misfits" "Items of the journal that contradict what came before them and were left out at the start.";
    STORAGE_FAILED Gauge "corelane_storage_failed" "1 when the journal failed and the shard takes no writes until a restart.";
    STORAGE_SPACE_LOW Gauge "corelane_storage_space_low" "1 while writes are refused because the disk is full.";
    REACTOR_PAIRED_SYNCS Counter "corelane_reactor_paired_syncs_total" "Syncs of the journal that were handed to the kernel together with their write.";
    REACTOR_PAIRED_SYNCS_UNUSED Counter "corelane_reactor_paired_syncs_unused_total" "Of them, those for which the journal had no use any more.";
    CATALOG_VERSION Gauge "corelane_catalog_version" "Version of the catalog that the shard knows.";
    CATALOG_TOPICS Gauge "corelane_catalog_topics" "Topics in the catalog.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn operators_find_each_metric_in_the_docs() {
        let page = include_str!("../../../docs/operations.md");
        for Metric { name, .. } in METRICS {
            assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/operations.md");
        }
    }

    #[test]
    fn names_follow_the_scheme_and_are_unique() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(metric.name.starts_with("corelane_"), "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.kind == MetricKind::Histogram, "{}", metric.name);
        }
    }
}
