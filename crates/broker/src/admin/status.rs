//! `/status`: the same facts as JSON, for people and for `corelane status`.

use std::collections::BTreeMap;

use corelane_shard::{GroupLag, RecoveryStatus, ShardPhase, ShardStatus, Traffic};
use corelane_telemetry::Histogram;
use serde_json::{Value, json};

use super::{Source, phase};

pub(super) fn status(source: &impl Source) -> String {
    let shards = source.shards();
    let about = source.about();
    let is_ready = shards.len() == source.shard_count()
        && source.failure().is_none()
        && shards.iter().all(|shard| shard.phase == ShardPhase::Serving);
    let sum = |value: fn(&ShardStatus) -> u64| shards.iter().map(value).sum::<u64>();
    let mut stored = Histogram::default();
    let (mut produced, mut consumed) = (Traffic::default(), Traffic::default());
    for shard in &shards {
        stored.merge(&shard.counters.stored);
        produced.merge(shard.counters.produced);
        consumed.merge(shard.counters.consumed);
    }
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": is_ready,
        "failure": source.failure(),
        "quic": about.quic.to_string(),
        "data": about.data,
        "cores": about.cores,
        "started_ms": about.started_ms,
        "incarnation": shards.first().map(|shard| shard.incarnation.0),
        "topics": shards.first().map(|shard| shard.topics),
        "partitions": sum(|shard| shard.partitions),
        "connections": sum(|shard| shard.connections),
        "subscriptions": sum(|shard| shard.subscriptions),
        "produced": traffic(produced),
        "consumed": traffic(consumed),
        "stored_us": latency(&stored),
        "by_topic": by_topic(&shards),
        "groups": groups(&shards),
        "queues": queues(&shards),
        "queues_left_out": sum(|shard| shard.queue_totals.left_out),
        "transactions": {
            "ids": sum(|shard| shard.transaction_totals.ids),
            "open": sum(|shard| shard.transaction_totals.open),
            "oldest_open_ms": shards.iter().map(|shard| shard.transaction_totals.oldest_open_ms).max(),
            "lost": sum(|shard| shard.transaction_totals.lost),
            "committed": sum(|shard| shard.transaction_totals.committed),
            "aborted": sum(|shard| shard.transaction_totals.aborted),
            "timed_out": sum(|shard| shard.transaction_totals.timed_out),
            "fenced": sum(|shard| shard.transaction_totals.fenced),
            "refused": sum(|shard| shard.transaction_totals.refused),
        },
        "shards": shards.iter().map(shard).collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_string_pretty(&value).expect("a status is plain data");
    text.push('\n');
    text
}

fn shard(status: &ShardStatus) -> Value {
    let storage = &status.storage;
    json!({
        "shard": status.shard.0,
        "phase": phase(status.phase),
        "storage_failure": status.storage_failure,
        "space_low": status.is_space_low,
        "stopped_homes": status.stopped_homes,
        "home_damages": status.counters.home_damages,
        "catalog_version": status.catalog_version.0,
        "partitions": status.partitions,
        "connections": status.connections,
        "sessions": status.sessions,
        "subscriptions": status.subscriptions,
        "requests_waiting": status.requests_waiting,
        "rounds": status.counters.rounds,
        "frames": status.counters.frames,
        "refusals": status.counters.refusals,
        "closes": status.counters.closes,
        "forwards": status.counters.forwards,
        "mesh_messages": status.counters.mesh_messages,
        "duplicate_batches": status.counters.duplicate_batches,
        "produced": traffic(status.counters.produced),
        "consumed": traffic(status.counters.consumed),
        "stored_us": latency(&status.counters.stored),
        "journal": {
            "fill_per_mille": storage.journal_fill_per_mille,
            "entries": storage.journal_entries,
            "bytes": storage.journal_bytes,
            "syncs": storage.journal_syncs,
            "paired_syncs": status.reactor.paired_syncs,
            "paired_syncs_unused": status.reactor.paired_syncs_unused,
        },
        "unsettled_bytes": storage.unsettled_bytes,
        "settled_bytes": storage.settled_bytes,
        "cache_bytes": storage.cache_bytes,
        "cold_reads": storage.cold_reads,
        "refused_busy": storage.refused_busy,
        "refused_full": storage.refused_full,
        "settle_failures": storage.settle_failures,
        "read_failures": storage.read_failures,
        "compaction_passes": storage.compaction_passes,
        "compaction_written_bytes": storage.compaction_written_bytes,
        "compaction_removed_records": storage.compaction_removed_records,
        "compaction_failures": storage.compaction_failures,
        "segments_deleted": storage.segments_deleted,
        "recovery": status.recovery.as_ref().map(recovery),
    })
}

fn traffic(traffic: Traffic) -> Value {
    json!({ "batches": traffic.batches, "records": traffic.records, "bytes": traffic.bytes })
}

fn latency(histogram: &Histogram) -> Value {
    let micros = |quantile| u64::try_from(histogram.quantile(quantile).as_micros()).unwrap_or(u64::MAX);
    if histogram.count() == 0 {
        return Value::Null;
    }
    json!({ "samples": histogram.count(), "p50": micros(0.5), "p99": micros(0.99), "max": micros(1.0) })
}

fn recovery(found: &RecoveryStatus) -> Value {
    let corrupt = found.corrupt.iter().map(|(partition, first, end)| {
        json!({ "topic": partition.topic.0, "partition": partition.index.0, "first": first.0, "end": end.0 })
    });
    json!({
        "micros": found.micros,
        "entries": found.entries,
        "torn_bytes": found.torn_bytes,
        "damages": found.damages,
        "misfits": found.misfits,
        "corrupt": corrupt.collect::<Vec<_>>(),
    })
}

/// Consumer groups by name, at most some of each shard.
fn groups(shards: &[ShardStatus]) -> Value {
    let entries = shards.iter().flat_map(|shard| &shard.groups).map(|group| {
        let value = json!({
            "state": group.state,
            "strategy": group.strategy,
            "generation": group.generation,
            "members": group.members,
            "partitions": group.partitions,
            "lag": Value::Object(group.lag.iter().map(lag).collect()),
        });
        (group.name.clone(), value)
    });
    Value::Object(entries.collect())
}

fn lag(lag: &GroupLag) -> (String, Value) {
    (lag.topic.clone(), json!({ "records": lag.records, "oldest_ms": lag.oldest_ms }))
}

/// Shared queues, at most some of each shard.
fn queues(shards: &[ShardStatus]) -> Value {
    let entries = shards.iter().flat_map(|shard| &shard.queues).map(|queue| {
        json!({
            "group": queue.group,
            "topic": queue.topic,
            "members": queue.members,
            "ready": queue.ready,
            "leased": queue.leased,
            "delayed": queue.delayed,
            "dying": queue.dying,
            "dead": queue.dead,
            "oldest_ms": queue.oldest_ms,
            "deliveries": queue.deliveries,
            "redeliveries": queue.redeliveries,
            "acknowledgements": queue.acknowledgements,
            "rejections": queue.rejections,
            "lease_timeouts": queue.lease_timeouts,
            "unsent_leases": queue.unsent_leases,
            "far_delivery_times": queue.far_delivery_times,
        })
    });
    entries.collect()
}

/// Traffic of each topic over all shards, by name.
fn by_topic(shards: &[ShardStatus]) -> Value {
    let mut topics: BTreeMap<&str, (Traffic, Traffic, u64)> = BTreeMap::new();
    for topic in shards.iter().flat_map(|shard| &shard.by_topic) {
        let (produced, consumed, conflated) = topics.entry(&topic.name).or_default();
        produced.merge(topic.produced);
        consumed.merge(topic.consumed);
        *conflated += topic.conflated;
    }
    let entries = topics.into_iter().map(|(name, (produced, consumed, conflated))| {
        let value = json!({
            "produced": traffic(produced),
            "consumed": traffic(consumed),
            "conflated_records": conflated,
        });
        (name.to_owned(), value)
    });
    Value::Object(entries.collect())
}
