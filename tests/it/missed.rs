//! Records that were gone before anybody read them: whoever reads is told.

use std::collections::BTreeSet;

use corelane::{Offset, OutOfRange, Progress, StartAt};

use crate::broker::{Broker, Place};
use crate::queues::with_client;

/// Values of 100 kB: eleven of them are more than a ring of 1 MiB holds.
fn large(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|number| format!("{number} {}\n", "x".repeat(100_000))).collect()
}

fn broker(place: &Place) -> Broker<'_> {
    let broker = Broker::start(place, &["--shards", "1"]);
    broker.good(&["topic", "create", "ring", "--class", "memory", "--retention-bytes", "1MiB"], b"");
    broker
}

#[test]
fn a_command_that_reads_says_what_it_has_missed_and_goes_on() {
    let place = Place::new();
    let broker = broker(&place);
    broker.good(&["produce", "ring"], large(0..30).as_bytes());
    let line = ["consume", "ring", "--from", "2", "--until", "end", "-f", "%o\\n"];
    let done = broker.run(&line, b"");
    let first: u64 = done.out.lines().next().expect("some are left").parse().unwrap();
    let text = format!(
        "topic ring partition 0: what was at offsets 2 to {} was gone before it could be read; reading goes on at {first}",
        first - 1
    );
    assert!((2..30).contains(&first) && done.err.contains(&text), "{first}: {}", done.err);
    assert_eq!(done.code, Some(0));
    assert_eq!(done.out.lines().count() as u64, 30 - first);
    // Nothing is missing from where the log begins.
    assert_eq!(broker.run(&["consume", "ring", "--until", "end"], b"").err, "");
}

#[test]
fn a_member_of_a_group_says_what_it_has_missed_and_goes_on() {
    let place = Place::new();
    let broker = broker(&place);
    broker.good(&["produce", "ring"], large(0..3).as_bytes());
    let line = ["consume", "ring", "-g", "scores", "--reset", "earliest", "-n", "2", "-f", "%o\\n"];
    assert_eq!(broker.good(&line, b""), "0\n1\n");
    broker.good(&["produce", "ring"], large(3..30).as_bytes());
    let done = broker.run(&line, b"");
    let first: u64 = done.out.lines().next().expect("some are left").parse().unwrap();
    assert!(2 < first, "{first}");
    assert!(done.err.contains("topic ring partition 0: what was at offset"), "{}", done.err);
    assert!(done.err.contains(&format!("reading goes on at {first}")), "{}", done.err);
}

#[test]
fn what_a_slow_reader_gets_and_what_it_is_told_it_missed_is_everything() {
    let place = Place::new();
    let broker = broker(&place);
    broker.good(&["produce", "ring"], large(0..2).as_bytes());
    with_client(&place, &broker, async |client| {
        let builder = client.consumer("ring").from(StartAt::Earliest).credit_bytes(1);
        let mut consumer = builder.open().await.unwrap();
        let mut seen = BTreeSet::new();
        let (mut has_missed, mut is_filled) = (0, false);
        while seen.len() < 30 {
            match consumer.progress().await.unwrap().unwrap() {
                Progress::Batch(batch) => {
                    seen.extend(batch.iter().map(|record| record.offset.0));
                    if !std::mem::replace(&mut is_filled, true) {
                        // Its credit was for what it has by now.
                        broker.good(&["produce", "ring"], large(2..30).as_bytes());
                    }
                }
                Progress::Missed { partition, offsets } => {
                    assert_eq!(partition.0, 0);
                    has_missed += offsets.end.since(offsets.start);
                    let offsets: BTreeSet<_> = (offsets.start.0..offsets.end.0).collect();
                    assert!(seen.is_disjoint(&offsets), "{offsets:?} of {seen:?}");
                    seen.extend(offsets);
                }
                Progress::Passed(position) => panic!("{position:?}"),
            }
        }
        assert!(seen.into_iter().eq(0..30), "in all, everything");
        assert!(0 < has_missed);
        assert_eq!(consumer.positions()[0].missed, has_missed);

        // Who does not want to go on hears it as an error.
        let strict = client.consumer("ring").from(StartAt::Offset(Offset(0))).out_of_range(OutOfRange::Fail);
        let error = strict.open().await.unwrap_err();
        assert!(error.to_string().contains("offset 0 is outside the log"), "{error}");
    });
}
