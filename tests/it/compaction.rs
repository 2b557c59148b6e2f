//! Compacted topics across the end of a broker.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use crate::DEADLINE;
use crate::admin::get;
use crate::broker::{Broker, Place};

/// What is in partition 0 of a topic: offset, key and value.
fn read(broker: &Broker<'_>, topic: &str) -> Vec<(u64, String, String)> {
    let text = broker.good(&["consume", topic, "-p", "0", "--until", "end", "-f", "%o %k %s\\n"], b"");
    let line = |line: &str| {
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let offset = parts.next().unwrap().parse().unwrap();
        (offset, parts.next().unwrap(), parts.next().unwrap())
    };
    text.lines().map(line).collect()
}

/// Waits until the broker has compacted so often.
fn wait_for_passes(broker: &Broker<'_>, passes: u64) {
    let until = Instant::now() + DEADLINE;
    loop {
        let status: serde_json::Value = serde_json::from_str(&get(broker.admin, "/status").1).unwrap();
        let shards = status["shards"].as_array().unwrap().iter();
        let found: u64 = shards.map(|shard| shard["compaction_passes"].as_u64().unwrap()).sum();
        if passes <= found {
            return;
        }
        assert!(Instant::now() < until, "{found} of {passes} passes: {status:#}");
    }
}

#[test]
fn the_newest_value_of_each_key_survives_compaction_and_kill_9() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "profiles", "--cleanup", "compact", "--tombstones", "100ms"], b"");
    let mut newest = BTreeMap::new();
    let mut lines = String::new();
    for number in 0..2000_u64 {
        let key = format!("player-{}", number % 50);
        writeln!(lines, "{key}:value-{number}").unwrap();
        newest.insert(key, (number, format!("value-{number}")));
    }
    broker.good(&["produce", "profiles", "-K", ":"], lines.as_bytes());
    broker.kill();
    // A start with another number of shards puts all that the journal holds into segments; they are sealed by age.
    let broker = Broker::start(&place, &["--shards", "2"]);
    wait_for_passes(&broker, 1);
    broker.good(&["produce", "profiles", "-K", ":"], b"player-7:the last\n");
    newest.insert("player-7".to_owned(), (2000, "the last".to_owned()));
    broker.kill();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let found = read(&broker, "profiles");
    assert!(found.len() < 200, "{} records are left of 2001", found.len());
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets go up");
    for (offset, key, value) in &found {
        let expected = if *offset == 2000 { "the last".to_owned() } else { format!("value-{offset}") };
        assert_eq!(*value, expected, "offset {offset} of {key} holds what was written there");
    }
    for (key, (offset, value)) in newest {
        assert!(found.contains(&(offset, key.clone(), value)), "the newest value of {key} is gone");
    }
    let description = broker.good(&["topic", "describe", "profiles"], b"");
    assert!(description.contains("cleanup compact, tombstones 100ms"), "{description}");
}

#[test]
fn a_record_without_a_key_is_refused_in_words() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "profiles", "--cleanup", "compact"], b"");
    let error = broker.run(&["produce", "profiles"], b"nobody's value\n").bad(1);
    assert!(error.contains("has no key"), "{error}");
    broker.good(&["produce", "profiles", "-K", ":"], b"ada:1\n");
    assert_eq!(read(&broker, "profiles"), [(0, "ada".to_owned(), "1".to_owned())]);
    let error = broker.run(&["topic", "create", "x", "--cleanup", "compact", "--retention", "7d"], b"").bad(2);
    assert!(error.contains("--cleanup delete"), "{error}");
}
