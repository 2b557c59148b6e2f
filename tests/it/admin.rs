//! The admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::broker::{Broker, Place};
use crate::round_trip::numbers;

/// Status code and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(crate::DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: corelane\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn health_readiness_metrics_and_status_are_served() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    assert_eq!(get(broker.admin, "/healthz").0, 200);
    assert_eq!(get(broker.admin, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(broker.admin, "/else").0, 404);

    broker.good(&["topic", "create", "chat", "-p", "2"], b"");
    broker.good(&["produce", "chat", "-p", "1"], numbers(0..25).as_bytes());
    let status: serde_json::Value = serde_json::from_str(&get(broker.admin, "/status").1).unwrap();
    assert_eq!(status["ready"], true);
    assert_eq!(status["produced"]["records"], 25);
    assert_eq!(status["by_topic"]["chat"]["produced"]["records"], 25);
    assert_eq!(status["shards"].as_array().unwrap().len(), 2);
    assert_eq!(status["topics"], 1);
    assert_eq!(status["partitions"], 2);

    let (code, metrics) = get(broker.admin, "/metrics");
    assert_eq!(code, 200);
    let produced: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("corelane_topic_produced_records_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(produced, 25, "{metrics}");
}

#[test]
fn the_status_command_reads_it() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let admin = broker.admin.to_string();
    let text = broker.good(&["status", "--admin", &admin, "--json"], b"");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["ready"], true);
    assert!(broker.good(&["status", "--admin", &admin], b"").contains("ready"));
}

#[test]
fn what_readers_of_a_latest_topic_went_past_is_counted() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "states", "-p", "1", "--class", "latest"], b"");
    broker.good(&["produce", "states", "-K", ":"], b"a:1\na:2\nb:1\na:3\n");
    let read = broker.good(&["consume", "states", "--from", "0", "--until", "end"], b"");
    assert_eq!(read, "1\n3\n", "the newest of each key");
    let described = broker.good(&["topic", "describe", "states", "--json"], b"");
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["partitions"][0]["conflated_records"], 2, "{described}");
    assert!(broker.good(&["topic", "describe", "states"], b"").contains("CONFLATED"));
    let status: serde_json::Value = serde_json::from_str(&get(broker.admin, "/status").1).unwrap();
    assert_eq!(status["by_topic"]["states"]["conflated_records"], 2, "{status}");
    let (_, metrics) = get(broker.admin, "/metrics");
    assert!(metrics.contains("corelane_topic_conflated_records_total{topic=\"states\"} 2\n"), "{metrics}");
    broker.good(&["topic", "create", "inputs", "-p", "1"], b"");
    assert!(!broker.good(&["topic", "describe", "inputs"], b"").contains("CONFLATED"));
}
