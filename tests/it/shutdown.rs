//! Signals.

use rustix::process::Signal;

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
fn the_fingerprint_file_goes_with_the_broker() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let file = place.path().join("run/corelane").join(broker.quic.port().to_string());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("sha256:") && text.ends_with('\n'), "{text}");
    assert_eq!(broker.stop(), Some(0));
    assert!(!file.exists());
}
