//! Signals.

use std::net::UdpSocket;
use std::time::Instant;

use rustix::process::Signal;

use crate::DEADLINE;
use crate::broker::{Broker, Place};
use crate::round_trip::{numbers, values};

#[test]
fn sigterm_and_sigint_end_with_0_and_keep_what_was_stored() {
    let place = Place::new();
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Broker::start(&place, &["--shards", "2"]);
        if signal == Signal::TERM {
            broker.good(&["topic", "create", "chat"], b"");
        }
        broker.good(&["produce", "chat"], numbers(0..100).as_bytes());
        broker.signal(signal);
        assert_eq!(broker.wait(), Some(0), "{}", broker.log());
    }
    let broker = Broker::start(&place, &["--shards", "2"]);
    assert_eq!(values(&broker, "chat").len(), 200);
}

#[test]
fn a_second_signal_ends_at_once_with_130_and_loses_nothing_stored() {
    let place = Place::new();
    let mut broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "chat"], b"");
    broker.good(&["produce", "chat"], numbers(0..100).as_bytes());
    // While it stands still both signals come to wait, so that the second does not depend on how long a drain takes.
    for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
        broker.signal(signal);
    }
    assert_eq!(broker.wait(), Some(130), "{}", broker.log());
    let broker = Broker::start(&place, &["--shards", "2"]);
    assert_eq!(values(&broker, "chat").len(), 100);
}

#[test]
fn a_broker_that_was_killed_is_missed_at_once() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let (socket, address) = (broker.quic, broker.quic.to_string());
    let file = place.path().join("run/corelane").join(broker.quic.port().to_string());
    broker.kill();
    assert!(file.exists(), "a kill leaves the fingerprint");
    // The kernel takes down io_uring, which holds the socket, after the process is gone.
    let end = Instant::now() + DEADLINE;
    while UdpSocket::bind(socket).is_err() {
        assert!(Instant::now() < end, "the port of a process that is gone stays open");
    }
    let said = place.run(&["topic", "list", "--broker", &address], b"").bad(3);
    assert!(said.contains("nothing listens on that port"), "{said}");
}

#[test]
fn the_fingerprint_file_goes_with_the_broker() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let file = place.path().join("run/corelane").join(broker.quic.port().to_string());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("sha256:") && text.ends_with('\n'), "{text}");
    assert_eq!(broker.stop(), Some(0));
    assert!(!file.exists());
}
