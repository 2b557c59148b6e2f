//! All shards' answers as metrics.

use std::collections::BTreeMap;

use corelane_model::TopicId;
use corelane_telemetry::{Exposition, Metric, metric};

use crate::{GroupLag, QueueStatus, ShardPhase, ShardStatus, Traffic};

type OfShard = fn(&ShardStatus) -> u64;
type OfLag = fn(&GroupLag) -> u64;
type OfQueue = fn(&QueueStatus) -> u64;
type OfTopic = fn(&TopicTotal<'_>) -> u64;

#[derive(Default)]
struct TopicTotal<'a> {
    name: &'a str,
    produced: Traffic,
    consumed: Traffic,
    conflated: u64,
}

/// Writes what all shards said, labelled by shard; lag of consumer groups by group and topic, of each shard at most
/// [`crate::STATUS_LAGS_MAX`]; shared queues in the same way, of each shard at most [`crate::STATUS_QUEUES_MAX`]; and traffic by topic, added up over the shards.
pub fn expose(statuses: &[ShardStatus], exposition: &mut Exposition) {
    let shards: Vec<String> = statuses.iter().map(|status| status.shard.to_string()).collect();
    for &(metric, value) in BY_SHARD {
        exposition.begin(metric);
        for (shard, status) in shards.iter().zip(statuses) {
            exposition.sample(&[("shard", shard)], value(status));
        }
    }
    exposition.begin(&metric::SHARD_STORED_SECONDS);
    for (shard, status) in shards.iter().zip(statuses) {
        exposition.histogram(&[("shard", shard)], &status.counters.stored);
    }
    let mut topics: BTreeMap<TopicId, TopicTotal<'_>> = BTreeMap::new();
    for topic in statuses.iter().flat_map(|status| &status.by_topic) {
        let total = topics.entry(topic.topic).or_default();
        total.name = &topic.name;
        total.produced.merge(topic.produced);
        total.consumed.merge(topic.consumed);
        total.conflated += topic.conflated;
    }
    for &(metric, value) in BY_GROUP {
        exposition.begin(metric);
        for group in statuses.iter().flat_map(|status| &status.groups) {
            for lag in &group.lag {
                exposition.sample(&[("group", &group.name), ("topic", &lag.topic)], value(lag));
            }
        }
    }
    for &(metric, value) in BY_QUEUE {
        exposition.begin(metric);
        for queue in statuses.iter().flat_map(|status| &status.queues) {
            exposition.sample(&[("group", &queue.group), ("topic", &queue.topic)], value(queue));
        }
    }
    for &(metric, value) in BY_TOPIC {
        exposition.begin(metric);
        for total in topics.values() {
            exposition.sample(&[("topic", total.name)], value(total));
        }
    }
}

const BY_SHARD: &[(&Metric, OfShard)] = &[
    (&metric::SHARD_UP, |s| u64::from(s.phase == ShardPhase::Serving && s.storage_failure.is_none())),
    (&metric::SHARD_CONNECTIONS, |s| s.connections),
    (&metric::SHARD_SESSIONS, |s| s.sessions),
    (&metric::SHARD_SUBSCRIPTIONS, |s| s.subscriptions),
    (&metric::SHARD_PARTITIONS, |s| s.partitions),
    (&metric::SHARD_REQUESTS_WAITING, |s| s.requests_waiting),
    (&metric::SHARD_ROUNDS, |s| s.counters.rounds),
    (&metric::SHARD_FRAMES, |s| s.counters.frames),
    (&metric::SHARD_REFUSALS, |s| s.counters.refusals),
    (&metric::SHARD_CLOSES, |s| s.counters.closes),
    (&metric::SHARD_FORWARDS, |s| s.counters.forwards),
    (&metric::SHARD_MESH_MESSAGES, |s| s.counters.mesh_messages),
    (&metric::SHARD_PRODUCED_RECORDS, |s| s.counters.produced.records),
    (&metric::SHARD_PRODUCED_BATCHES, |s| s.counters.produced.batches),
    (&metric::SHARD_PRODUCED_BYTES, |s| s.counters.produced.bytes),
    (&metric::SHARD_DUPLICATE_BATCHES, |s| s.counters.duplicate_batches),
    (&metric::SHARD_CONSUMED_RECORDS, |s| s.counters.consumed.records),
    (&metric::SHARD_CONSUMED_BATCHES, |s| s.counters.consumed.batches),
    (&metric::SHARD_CONSUMED_BYTES, |s| s.counters.consumed.bytes),
    (&metric::SHARD_HOMES_STOPPED, |s| s.stopped_homes.len() as u64),
    (&metric::SHARD_HOME_DAMAGES, |s| s.counters.home_damages),
    (&metric::GROUP_GROUPS, |s| s.group_totals.groups),
    (&metric::GROUP_MEMBERS, |s| s.group_totals.members),
    (&metric::GROUP_JOINS, |s| s.group_totals.joins),
    (&metric::GROUP_LEAVES, |s| s.group_totals.leaves),
    (&metric::GROUP_REBALANCES, |s| s.group_totals.rebalances),
    (&metric::GROUP_GRANTED_PARTITIONS, |s| s.group_totals.granted_partitions),
    (&metric::GROUP_REVOKED_PARTITIONS, |s| s.group_totals.revoked_partitions),
    (&metric::GROUP_SESSIONS_EXPIRED, |s| s.group_totals.sessions_expired),
    (&metric::GROUP_REBALANCE_TIMEOUTS, |s| s.group_totals.rebalance_timeouts),
    (&metric::GROUP_COMMITS, |s| s.group_totals.commits),
    (&metric::GROUP_REFUSED_COMMITS, |s| s.group_totals.refused_commits),
    (&metric::GROUP_APPENDED_BYTES, |s| s.group_totals.appended_bytes),
    (&metric::GROUP_SNAPSHOTS, |s| s.counters.group_snapshots),
    (&metric::QUEUE_QUEUES, |s| s.queue_totals.queues),
    (&metric::QUEUE_LEFT_OUT, |s| s.queue_totals.left_out),
    (&metric::QUEUE_JOINS, |s| s.queue_totals.joins),
    (&metric::QUEUE_LEAVES, |s| s.queue_totals.leaves),
    (&metric::QUEUE_SESSIONS_EXPIRED, |s| s.queue_totals.sessions_expired),
    (&metric::QUEUE_REDRIVEN_RECORDS, |s| s.queue_totals.redriven_records),
    (&metric::QUEUE_APPENDED_BYTES, |s| s.queue_totals.appended_bytes),
    (&metric::TRANSACTION_IDS, |s| s.transaction_totals.ids),
    (&metric::TRANSACTION_OPEN, |s| s.transaction_totals.open),
    (&metric::TRANSACTION_OLDEST_OPEN_MILLISECONDS, |s| s.transaction_totals.oldest_open_ms),
    (&metric::TRANSACTION_LOST, |s| s.transaction_totals.lost),
    (&metric::TRANSACTION_COMMITTED, |s| s.transaction_totals.committed),
    (&metric::TRANSACTION_ABORTED, |s| s.transaction_totals.aborted),
    (&metric::TRANSACTION_TIMED_OUT, |s| s.transaction_totals.timed_out),
    (&metric::TRANSACTION_FENCED, |s| s.transaction_totals.fenced),
    (&metric::TRANSACTION_REFUSED, |s| s.transaction_totals.refused),
    (&metric::STORAGE_JOURNAL_FILL, |s| s.storage.journal_fill_per_mille),
    (&metric::STORAGE_JOURNAL_SYNCS, |s| s.storage.journal_syncs),
    (&metric::STORAGE_JOURNAL_ENTRIES, |s| s.storage.journal_entries),
    (&metric::STORAGE_JOURNAL_BYTES, |s| s.storage.journal_bytes),
    (&metric::STORAGE_UNSETTLED_BYTES, |s| s.storage.unsettled_bytes),
    (&metric::STORAGE_SETTLED_BYTES, |s| s.storage.settled_bytes),
    (&metric::STORAGE_CACHE_BYTES, |s| s.storage.cache_bytes),
    (&metric::STORAGE_COLD_READS, |s| s.storage.cold_reads),
    (&metric::STORAGE_REFUSED_BUSY, |s| s.storage.refused_busy),
    (&metric::STORAGE_REFUSED_FULL, |s| s.storage.refused_full),
    (&metric::STORAGE_SETTLE_FAILURES, |s| s.storage.settle_failures),
    (&metric::STORAGE_READ_FAILURES, |s| s.storage.read_failures),
    (&metric::STORAGE_COMPACTION_PASSES, |s| s.storage.compaction_passes),
    (&metric::STORAGE_COMPACTION_WRITTEN, |s| s.storage.compaction_written_bytes),
    (&metric::STORAGE_COMPACTION_REMOVED, |s| s.storage.compaction_removed_records),
    (&metric::STORAGE_COMPACTION_FAILURES, |s| s.storage.compaction_failures),
    (&metric::STORAGE_SEGMENTS_DELETED, |s| s.storage.segments_deleted),
    (&metric::STORAGE_RECOVERY_DAMAGES, |s| s.recovery.as_ref().map_or(0, |found| found.damages)),
    (&metric::STORAGE_RECOVERY_MISFITS, |s| s.recovery.as_ref().map_or(0, |found| found.misfits)),
    (&metric::STORAGE_FAILED, |s| u64::from(s.storage_failure.is_some())),
    (&metric::STORAGE_SPACE_LOW, |s| u64::from(s.is_space_low)),
    (&metric::REACTOR_PAIRED_SYNCS, |s| s.reactor.paired_syncs),
    (&metric::REACTOR_PAIRED_SYNCS_UNUSED, |s| s.reactor.paired_syncs_unused),
    (&metric::CATALOG_VERSION, |s| s.catalog_version.0),
    (&metric::CATALOG_TOPICS, |s| s.topics),
];

const BY_GROUP: &[(&Metric, OfLag)] =
    &[(&metric::GROUP_LAG_RECORDS, |lag| lag.records), (&metric::GROUP_LAG_MILLISECONDS, |lag| lag.oldest_ms)];

const BY_QUEUE: &[(&Metric, OfQueue)] = &[
    (&metric::QUEUE_MEMBERS, |q| q.members),
    (&metric::QUEUE_READY_RECORDS, |q| q.ready),
    (&metric::QUEUE_LEASED_RECORDS, |q| q.leased),
    (&metric::QUEUE_DELAYED_RECORDS, |q| q.delayed),
    (&metric::QUEUE_DYING_RECORDS, |q| q.dying),
    (&metric::QUEUE_OLDEST_UNDONE_MILLISECONDS, |q| q.oldest_ms.unwrap_or(0)),
    (&metric::QUEUE_DEAD_LETTERS, |q| q.dead),
    (&metric::QUEUE_DELIVERIES, |q| q.deliveries),
    (&metric::QUEUE_REDELIVERIES, |q| q.redeliveries),
    (&metric::QUEUE_ACKNOWLEDGEMENTS, |q| q.acknowledgements),
    (&metric::QUEUE_REJECTIONS, |q| q.rejections),
    (&metric::QUEUE_LEASE_TIMEOUTS, |q| q.lease_timeouts),
    (&metric::QUEUE_UNSENT_LEASES, |q| q.unsent_leases),
    (&metric::QUEUE_FAR_DELIVERY_TIMES, |q| q.far_delivery_times),
];

const BY_TOPIC: &[(&Metric, OfTopic)] = &[
    (&metric::TOPIC_PRODUCED_RECORDS, |t| t.produced.records),
    (&metric::TOPIC_PRODUCED_BYTES, |t| t.produced.bytes),
    (&metric::TOPIC_CONSUMED_RECORDS, |t| t.consumed.records),
    (&metric::TOPIC_CONSUMED_BYTES, |t| t.consumed.bytes),
    (&metric::TOPIC_CONFLATED_RECORDS, |t| t.conflated),
];

#[cfg(test)]
mod tests {
    use corelane_model::ShardId;
    use corelane_telemetry::METRICS;

    use super::*;
    use crate::TopicStatus;

    #[test]
    fn every_metric_of_the_list_is_exposed_once() {
        let mut exposition = Exposition::default();
        expose(&[ShardStatus::default()], &mut exposition);
        let text = exposition.finish();
        for metric in METRICS {
            assert_eq!(text.matches(&format!("# TYPE {} ", metric.name)).count(), 1, "{}", metric.name);
        }
        assert_eq!(text.matches("# TYPE ").count(), METRICS.len());
    }

    #[test]
    fn queues_are_labelled_by_group_and_topic() {
        let queue = QueueStatus {
            group: "workers".to_owned(),
            topic: "jobs".to_owned(),
            ready: 3,
            oldest_ms: Some(40),
            ..QueueStatus::default()
        };
        let mut exposition = Exposition::default();
        expose(
            &[ShardStatus::default(), ShardStatus { queues: vec![queue], ..ShardStatus::default() }],
            &mut exposition,
        );
        let text = exposition.finish();
        for line in ["ready_records", "oldest_undone_milliseconds"].into_iter().zip([3, 40]) {
            let line = format!("corelane_queue_{}{{group=\"workers\",topic=\"jobs\"}} {}\n", line.0, line.1);
            assert!(text.contains(&line), "{line} is missing in {text}");
        }
    }

    #[test]
    fn topics_are_added_up_over_shards() {
        let traffic = |records| Traffic { batches: 1, records, bytes: 10 * records };
        let status = |shard, records| ShardStatus {
            shard: ShardId(shard),
            by_topic: vec![TopicStatus {
                topic: TopicId(1),
                name: "inputs".to_owned(),
                produced: traffic(records),
                consumed: traffic(0),
                conflated: records,
            }],
            ..ShardStatus::default()
        };
        let mut exposition = Exposition::default();
        expose(&[status(0, 5), status(1, 5)], &mut exposition);
        let text = exposition.finish();
        assert!(text.contains("corelane_topic_produced_records_total{topic=\"inputs\"} 10\n"), "{text}");
        assert!(text.contains("corelane_topic_conflated_records_total{topic=\"inputs\"} 10\n"), "{text}");
    }
}
