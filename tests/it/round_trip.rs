//! Records go in and come out.

use crate::broker::{Broker, Place};

/// Values of all records of a topic, in order.
pub(crate) fn values(broker: &Broker<'_>, topic: &str) -> Vec<String> {
    let out = broker.good(&["consume", topic, "--from", "earliest", "--until", "end", "-f", "%s\\n"], b"");
    out.lines().map(str::to_owned).collect()
}

/// Numbers as lines.
pub(crate) fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[test]
fn records_come_out_in_order_with_dense_offsets() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    assert_eq!(broker.shards, 2);
    broker.good(&["topic", "create", "chat", "-p", "1"], b"");
    broker.good(&["produce", "chat"], numbers(0..5000).as_bytes());
    let out = broker.good(&["consume", "chat", "--until", "end", "-f", "%t %p %o %s\\n"], b"");
    let right: String = (0..5000).map(|number| format!("chat 0 {number} {number}\n")).collect();
    assert!(out == right, "{out}");
}

#[test]
fn keys_decide_the_partition_and_headers_arrive() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "inputs", "-p", "8"], b"");
    let lines: String = (0..800).map(|number| format!("player-{}:{number}\n", number % 40)).collect();
    broker.good(&["produce", "inputs", "-K", ":", "-H", "match=7", "-H", "flag"], lines.as_bytes());
    let out = broker.good(&["consume", "inputs", "--until", "end", "--json"], b"");
    let mut partition_of = std::collections::BTreeMap::new();
    let mut last_of: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    let mut count = 0;
    for line in out.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let key = record["key"].as_str().unwrap().to_owned();
        let number: u64 = record["value"].as_str().unwrap().parse().unwrap();
        let partition = record["partition"].as_u64().unwrap();
        assert_eq!(*partition_of.entry(key.clone()).or_insert(partition), partition, "{key} moved");
        assert!(last_of.insert(key, number).is_none_or(|last| last < number), "out of order: {line}");
        assert_eq!(record["headers"][0]["value"], "7");
        assert_eq!(record["headers"][1]["value"], serde_json::Value::Null);
        count += 1;
    }
    assert_eq!(count, 800);
    assert!(2 <= partition_of.values().collect::<std::collections::BTreeSet<_>>().len());
}

#[test]
fn consume_starts_where_it_is_told_and_stops_after_n() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "log", "-p", "1"], b"");
    broker.good(&["produce", "log"], numbers(0..100).as_bytes());
    let from_offset = broker.good(&["consume", "log", "--from", "90", "-n", "3", "-f", "%o\\n"], b"");
    assert_eq!(from_offset, "90\n91\n92\n");
    let recent = broker.good(&["consume", "log", "--from", "-5m", "--until", "end", "-f", "%o\\n"], b"");
    assert_eq!(recent.lines().count(), 100);
    assert_eq!(broker.good(&["consume", "log", "--from", "latest", "--until", "end"], b""), "");
}

#[test]
fn memory_topics_work_beside_durable_ones() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "states", "-p", "2", "--class", "memory", "--ttl", "1h"], b"");
    broker.good(&["produce", "states", "-p", "1", "--acks", "received"], numbers(0..100).as_bytes());
    assert_eq!(values(&broker, "states").len(), 100);
}

#[test]
fn topics_are_listed_described_altered_truncated_and_deleted() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "a", "-p", "2", "--retention", "1d", "--segment-bytes", "1MiB"], b"");
    broker.good(&["topic", "create", "b"], b"");
    let list: serde_json::Value = serde_json::from_str(&broker.good(&["topic", "list", "--json"], b"")).unwrap();
    let names: Vec<&str> =
        list["topics"].as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    broker.good(&["produce", "a", "-p", "1"], numbers(0..10).as_bytes());

    let describe = |topic: &str| -> serde_json::Value {
        serde_json::from_str(&broker.good(&["topic", "describe", topic, "--json"], b"")).unwrap()
    };
    let topic = describe("a");
    assert_eq!(topic["settings"]["retention_ms"], 86_400_000);
    assert_eq!(topic["partitions"][1]["durable_end"], 10);
    let shards: Vec<u64> = (0..2).map(|index| topic["partitions"][index]["shard"].as_u64().unwrap()).collect();
    assert_ne!(shards[0], shards[1], "two partitions on two shards are spread");

    let altered = broker.run(&["topic", "alter", "a", "-p", "4", "--retention", "2d"], b"");
    assert!(altered.err.contains("keys"), "a person is told that keys move: {}", altered.err);
    altered.good();
    let topic = describe("a");
    assert_eq!(topic["partitions"].as_array().unwrap().len(), 4);
    assert_eq!(topic["settings"]["retention_ms"], 2 * 86_400_000);

    broker.good(&["topic", "truncate", "a", "-p", "1", "--before", "7"], b"");
    assert_eq!(describe("a")["partitions"][1]["log_start"], 7);
    assert_eq!(values(&broker, "a"), ["7", "8", "9"]);

    broker.good(&["topic", "delete", "a"], b"");
    let gone = broker.run(&["topic", "describe", "a"], b"").bad(1);
    assert!(gone.contains('a'), "{gone}");
}
