//! Wrong input says what was wrong and what would be right, and breaks nothing.

use std::net::{SocketAddr, UdpSocket};

use crate::broker::{Broker, Place};
use crate::round_trip::{numbers, values};

#[test]
fn a_second_broker_on_one_directory_is_refused() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let text = place.refused(&["--shards", "1"]).bad(1);
    assert!(text.contains("in use by process"), "{text}");
    broker.good(&["topic", "create", "still-here"], b"");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    let manifest = r#"{"format": 99, "data_id": "00", "shards": 1, "incarnation": 1, "clean": true, "new": 1}"#;
    std::fs::write(place.data().join("corelane.json"), manifest).unwrap();
    let text = place.refused(&[]).bad(1);
    assert!(text.contains("format 99") && text.contains("knows 1"), "{text}");
    assert_eq!(std::fs::read_to_string(place.data().join("corelane.json")).unwrap(), manifest);
}

#[test]
fn a_data_directory_that_lost_a_journal_is_not_started_over() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "chat"], b"");
    assert_eq!(broker.stop(), Some(0));
    let journal = place.data().join("journal/1");
    let kept = place.path().join("kept");
    std::fs::rename(&journal, &kept).unwrap();
    let text = place.refused(&["--shards", "2"]).bad(1);
    assert!(text.contains("journal/1 is missing"), "{text}");
    std::fs::rename(&kept, &journal).unwrap();
    Broker::start(&place, &["--shards", "2"]).good(&["topic", "describe", "chat"], b"");
}

#[test]
fn everything_that_is_wrong_with_a_configuration_is_said_at_once() {
    let place = Place::new();
    let file = place.path().join("corelane.toml");
    std::fs::write(&file, "listen = \"0.0.0.0:0\"\nshards = 0\n").unwrap();
    let text = place.run(&["serve", "--config", file.to_str().unwrap(), "--drain", "0s"], b"").bad(2);
    for part in ["insecure_no_auth", "shards = 0", "drain"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    std::fs::write(&file, "sharts = 1\n").unwrap();
    let text = place.run(&["serve", "--config", file.to_str().unwrap()], b"").bad(2);
    assert!(text.contains("sharts") && text.contains("`shards`"), "{text}");
    let text = place.run(&["serve", "--listen", "127.0.0.1:99999"], b"").bad(2);
    assert!(text.contains("127.0.0.1:7420"), "{text}");
}

#[test]
fn a_file_where_the_data_should_be_is_named() {
    let place = Place::new();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = place.refused(&["--data", file.to_str().unwrap()]).bad(1);
    assert!(text.contains("--data"), "{text}");
}

#[test]
fn unknown_topics_and_partitions_are_named() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    for command in [
        &["produce", "nowhere"][..],
        &["consume", "nowhere"],
        &["topic", "delete", "nowhere"],
        &["topic", "describe", "nowhere"],
    ] {
        let text = broker.run(command, b"x\n").bad(1);
        assert!(text.contains("nowhere"), "{command:?}: {text}");
    }
    broker.good(&["topic", "create", "two", "-p", "2"], b"");
    let text = broker.run(&["produce", "two", "-p", "2"], b"x\n").bad(1);
    assert!(text.contains("no partition 2") && text.contains("partitions is 2"), "{text}");
    let text = broker.run(&["topic", "create", "two"], b"").bad(1);
    assert!(text.contains("two") && text.contains("exists"), "{text}");
    let text = broker.run(&["topic", "create", "a/b"], b"").bad(2);
    assert!(text.contains("'/'"), "{text}");
    let text = broker.run(&["topic", "alter", "two", "-p", "1"], b"").bad(1);
    assert!(text.contains('2') && text.contains('1'), "{text}");
}

#[test]
fn an_oversized_record_is_refused_and_its_neighbours_are_not() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "big", "-p", "1"], b"");
    let fits = "y".repeat(1_000_000);
    broker.good(&["produce", "big"], format!("{fits}\n").as_bytes());
    for length in [(1 << 20) - 8, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let lines = format!("before\n{}\n", "x".repeat(length));
        let text = broker.run(&["produce", "big"], lines.as_bytes()).bad(1);
        assert!(text.contains("line 2"), "{length}: {text}");
    }
    assert_eq!(values(&broker, "big").len(), 5);
}

/// Datagrams of chance; every second one looks like the first packet of a connection.
pub(crate) fn send_garbage(to: SocketAddr, datagrams: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..datagrams {
        let mut datagram = vec![0_u8; round % 1500];
        for byte in &mut datagram {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
        if round % 2 == 0 && 6 <= datagram.len() {
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        // A full socket buffer drops, as a network does.
        drop(socket.send_to(&datagram, to));
    }
}

#[test]
fn garbage_datagrams_do_no_harm() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "chat", "-p", "2"], b"");
    send_garbage(broker.quic, 2000);
    broker.good(&["produce", "chat"], numbers(0..100).as_bytes());
    assert_eq!(values(&broker, "chat").len(), 100);
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
}

#[test]
fn a_broker_that_is_not_there_is_exit_code_3() {
    let place = Place::new();
    // A port that was free a moment ago.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = place.run(&["topic", "list", "--broker", &port.to_string()], b"").bad(3);
    assert!(text.contains(&port.to_string()), "{text}");
}

#[test]
fn a_token_is_asked_for_and_checked() {
    let place = Place::new();
    let tokens = place.path().join("tokens");
    std::fs::write(&tokens, "# ours\nright-token\n").unwrap();
    let broker = Broker::start(&place, &["--shards", "1", "--token-file", tokens.to_str().unwrap()]);
    let text = broker.run(&["topic", "list"], b"").bad(3);
    assert!(text.contains("token"), "{text}");
    let wrong = place.path().join("wrong");
    std::fs::write(&wrong, "wrong-token\n").unwrap();
    broker.run(&["topic", "list", "--token-file", wrong.to_str().unwrap()], b"").bad(3);
    broker.good(&["topic", "list", "--token-file", tokens.to_str().unwrap()], b"");
}
