//! `/metrics`: every metric of every shard.

use corelane_shard::{ShardPhase, ShardStatus, TopicStatus};
use corelane_telemetry::metric as m;
use corelane_telemetry::{Exposition, Metric};

type ByShard = (&'static Metric, fn(&ShardStatus) -> u64);
type ByTopic = (&'static Metric, fn(&TopicStatus) -> u64);

static BY_SHARD: &[ByShard] = &[
    (&m::SHARD_UP, |s| u64::from(s.phase == ShardPhase::Serving && s.storage_failure.is_none())),
    (&m::SHARD_CONNECTIONS, |s| s.connections),
    (&m::SHARD_SESSIONS, |s| s.sessions),
    (&m::SHARD_SUBSCRIPTIONS, |s| s.subscriptions),
    (&m::SHARD_PARTITIONS, |s| s.partitions),
    (&m::SHARD_REQUESTS_WAITING, |s| s.requests_waiting),
    (&m::SHARD_ROUNDS, |s| s.counters.rounds),
    (&m::SHARD_FRAMES, |s| s.counters.frames),
    (&m::SHARD_REFUSALS, |s| s.counters.refusals),
    (&m::SHARD_CLOSES, |s| s.counters.closes),
    (&m::SHARD_FORWARDS, |s| s.counters.forwards),
    (&m::SHARD_MESH_MESSAGES, |s| s.counters.mesh_messages),
    (&m::SHARD_PRODUCED_RECORDS, |s| s.counters.produced.records),
    (&m::SHARD_PRODUCED_BATCHES, |s| s.counters.produced.batches),
    (&m::SHARD_PRODUCED_BYTES, |s| s.counters.produced.bytes),
    (&m::SHARD_DUPLICATE_BATCHES, |s| s.counters.duplicate_batches),
    (&m::SHARD_CONSUMED_RECORDS, |s| s.counters.consumed.records),
    (&m::SHARD_CONSUMED_BATCHES, |s| s.counters.consumed.batches),
    (&m::SHARD_CONSUMED_BYTES, |s| s.counters.consumed.bytes),
    (&m::STORAGE_JOURNAL_FILL, |s| s.storage.journal_fill_per_mille),
    (&m::STORAGE_JOURNAL_SYNCS, |s| s.storage.journal_syncs),
    (&m::STORAGE_JOURNAL_ENTRIES, |s| s.storage.journal_entries),
    (&m::STORAGE_JOURNAL_BYTES, |s| s.storage.journal_bytes),
    (&m::STORAGE_UNSETTLED_BYTES, |s| s.storage.unsettled_bytes),
    (&m::STORAGE_SETTLED_BYTES, |s| s.storage.settled_bytes),
    (&m::STORAGE_CACHE_BYTES, |s| s.storage.cache_bytes),
    (&m::STORAGE_COLD_READS, |s| s.storage.cold_reads),
    (&m::STORAGE_FAILED, |s| u64::from(s.storage_failure.is_some())),
    (&m::STORAGE_SPACE_LOW, |s| u64::from(s.is_space_low)),
    (&m::CATALOG_VERSION, |s| s.catalog_version.0),
    (&m::CATALOG_TOPICS, |s| s.topics),
];

static BY_TOPIC: &[ByTopic] = &[
    (&m::TOPIC_PRODUCED_RECORDS, |t| t.produced.records),
    (&m::TOPIC_PRODUCED_BYTES, |t| t.produced.bytes),
    (&m::TOPIC_CONSUMED_RECORDS, |t| t.consumed.records),
    (&m::TOPIC_CONSUMED_BYTES, |t| t.consumed.bytes),
];

/// The exposition of all shards; the sum over shards is the reader's to make.
pub(super) fn exposition(shards: &[ShardStatus]) -> String {
    let mut exposition = Exposition::default();
    for (metric, value) in BY_SHARD {
        exposition.begin(metric);
        for shard in shards {
            exposition.sample(&[("shard", &shard.shard.to_string())], value(shard));
        }
    }
    exposition.begin(&m::SHARD_STORED_SECONDS);
    for shard in shards {
        exposition.histogram(&[("shard", &shard.shard.to_string())], &shard.counters.stored);
    }
    for (metric, value) in BY_TOPIC {
        exposition.begin(metric);
        for shard in shards {
            for topic in &shard.by_topic {
                exposition.sample(&[("shard", &shard.shard.to_string()), ("topic", &topic.name)], value(topic));
            }
        }
    }
    exposition.finish()
}
