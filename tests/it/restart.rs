//! What survives the end of a broker.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::admin::get;
use crate::broker::{Broker, Place, wait_until};
use crate::round_trip::{numbers, values};

#[test]
fn what_was_stored_survives_kill_9() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "chat", "-p", "3"], b"");
    for partition in ["0", "1", "2"] {
        broker.good(&["produce", "chat", "-p", partition], numbers(0..1000).as_bytes());
    }
    broker.kill();
    let broker = Broker::start(&place, &["--shards", "2"]);
    for partition in ["0", "1", "2"] {
        let found = broker.good(&["consume", "chat", "-p", partition, "--until", "end", "-f", "%o %s\\n"], b"");
        let right: String = (0..1000).map(|number| format!("{number} {number}\n")).collect();
        assert!(found == right, "partition {partition}: {found}");
    }
    // Offsets go on where they were.
    broker.good(&["produce", "chat", "-p", "0"], b"more\n");
    assert_eq!(
        broker.good(&["consume", "chat", "-p", "0", "--from", "1000", "--until", "end", "-f", "%o %s\\n"], b""),
        "1000 more\n"
    );
}

#[test]
fn several_crashes_in_a_row_lose_nothing() {
    let place = Place::new();
    let mut expected = Vec::new();
    for round in 0..4 {
        let broker = Broker::start(&place, &["--shards", "1"]);
        if round == 0 {
            broker.good(&["topic", "create", "log", "-p", "1"], b"");
        }
        assert_eq!(values(&broker, "log"), expected);
        let more = numbers(round * 100..round * 100 + 100);
        broker.good(&["produce", "log"], more.as_bytes());
        expected.extend(more.lines().map(str::to_owned));
        broker.kill();
    }
    let broker = Broker::start(&place, &["--shards", "1"]);
    assert_eq!(values(&broker, "log"), expected);
}

/// Writes are under way when the broker dies, and the next one is there at once: none of them may land in its journal.
#[test]
fn kills_under_load_with_a_start_at_once_leave_what_was_there_before() {
    let place = Place::new();
    let mut broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "log", "-p", "2"], b"");
    let mut known = [Vec::new(), Vec::new()];
    for round in 0..5_u64 {
        let quic = broker.quic.to_string();
        let mut command = place.command(&["produce", "log", "--broker", &quic]);
        let mut producer = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = producer.stdin.take().unwrap();
        // Ends when nobody reads any more.
        let writer = std::thread::spawn(move || while lines.write_all(numbers(0..1000).as_bytes()).is_ok() {});
        let produced = || {
            let status: Value = serde_json::from_str(&get(broker.admin, "/status").1).unwrap();
            status["produced"]["records"].as_u64().unwrap()
        };
        wait_until(|| 20_000 * (round % 2 + 1) < produced());
        broker = broker.kill_and_start(&["--shards", "2"]);
        producer.kill().unwrap();
        producer.wait().unwrap();
        writer.join().unwrap();
        let recovery: Value = serde_json::from_str(&get(broker.admin, "/status").1).unwrap();
        for (partition, known) in known.iter_mut().enumerate() {
            let shard = &recovery["shards"][partition]["recovery"];
            assert_eq!((&shard["damages"], &shard["misfits"]), (&0.into(), &0.into()), "round {round}: {shard}");
            let line = ["consume", "log", "-p", &partition.to_string(), "--until", "end", "-f", "%o %s\\n"];
            let found: Vec<_> = broker.good(&line, b"").lines().map(str::to_owned).collect();
            assert!(found.starts_with(known), "round {round}: something of partition {partition} has changed");
            for (offset, line) in found.iter().enumerate() {
                assert!(line.starts_with(&format!("{offset} ")), "round {round}: {line} at offset {offset}");
            }
            *known = found;
        }
    }
    assert!(known.iter().any(|known| 20_000 < known.len()));
}

#[test]
fn a_clean_restart_keeps_records_topics_and_counts_the_start() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "chat", "-p", "4"], b"");
    broker.good(&["produce", "chat"], numbers(0..500).as_bytes());
    assert_eq!(broker.stop(), Some(0));
    let manifest =
        || -> Value { serde_json::from_slice(&std::fs::read(place.data().join("corelane.json")).unwrap()).unwrap() };
    assert_eq!((manifest()["clean"].clone(), manifest()["incarnation"].clone()), (true.into(), 1.into()));
    let broker = Broker::start(&place, &["--shards", "2"]);
    assert_eq!((manifest()["clean"].clone(), manifest()["incarnation"].clone()), (false.into(), 2.into()));
    assert_eq!(values(&broker, "chat").len(), 500);
}

#[test]
fn another_number_of_shards_moves_the_partitions_and_loses_nothing() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "chat", "-p", "6"], b"");
    for partition in 0..6 {
        broker.good(&["produce", "chat", "-p", &partition.to_string()], numbers(0..200).as_bytes());
    }
    broker.kill();
    for shards in ["3", "2", "1"] {
        let broker = Broker::start(&place, &["--shards", shards]);
        assert_eq!(broker.shards.to_string(), shards);
        for partition in 0..6 {
            let partition = partition.to_string();
            let found = broker.good(&["consume", "chat", "-p", &partition, "--until", "end", "-f", "%s\\n"], b"");
            assert!(found == numbers(0..200), "{shards} shards, partition {partition}: {found}");
        }
        broker.good(&["topic", "create", &format!("made-with-{shards}")], b"");
        assert_eq!(broker.stop(), Some(0));
    }
}
