//! The load generator against a broker that runs. What it measures is not judged here, what it verifies is.

use std::fmt::Write as _;

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::DEADLINE;
use crate::broker::{Broker, Place};

/// A match of `frames` frames of two players, as a recording is.
fn recording(frames: u32) -> String {
    let mut text = "t_us,key,kind,size\n0,0,54,353\n".to_owned();
    for frame in 0..frames {
        let t_us = u64::from(frame) * 16_667;
        for (key, kind, size) in [(1, 55, 59), (3, 55, 59), (1, 56, 38), (3, 56, 38)] {
            writeln!(text, "{t_us},{key},{kind},{size}").unwrap();
        }
    }
    text
}

fn check_right(report: &Value, sent: u64, consumed: u64) {
    for (field, expected) in [("planned", sent), ("sent", sent), ("received", sent), ("stored", sent)] {
        assert_eq!(report[field], expected, "{field}: {report}");
    }
    assert_eq!(report["consumed"], consumed, "{report}");
    for fault in ["lost", "duplicated", "reordered", "corrupt", "failed"] {
        assert_eq!(report[fault], 0, "{fault}: {report}");
    }
    assert!(report["void"].is_boolean() && report["seconds"].is_number(), "{report}");
    check_slices(report, &report["latency_us"]["consumed"]);
    assert!(report["lateness_us"]["max"].is_number() && report["members"].is_array(), "{report}");
}

/// Where all slices count there is a median; on a busy machine perhaps none does.
fn check_slices(report: &Value, latency: &Value) {
    let slices = &report["slices"];
    let (total, void) = (slices["total"].as_u64().unwrap(), slices["void"].as_u64().unwrap());
    assert!(0 < total && void <= total, "{report}");
    assert!(latency["p50"].is_number() || 0 < void, "{report}");
}

/// The report of a bench that verified everything, whether the machine was too busy for its figures or not.
#[track_caller]
fn report(broker: &Broker<'_>, arguments: &[&str]) -> Value {
    let done = broker.run(arguments, b"");
    let report: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{}", done.err));
    let expected = if report["void"] == true { 4 } else { 0 };
    assert_eq!(done.code, Some(expected), "{report}\n{}", done.err);
    assert_eq!(expected == 4, done.err.contains("the run is void"), "{}", done.err);
    report
}

#[test]
fn a_recorded_match_is_replayed_many_times_at_once_without_loss() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let file = place.path().join("match.csv");
    std::fs::write(&file, recording(60)).unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["bench", "--trace", file, "--copies", "5", "--speed", "4", "--quiet", "--json", "-"];
    let report = report(&broker, &arguments);
    assert_eq!(report["scenario"], "trace:match.csv");
    check_right(&report, 5 * 241, 5 * 241);
    let topics = broker.good(&["topic", "list"], b"");
    assert!(!topics.contains("bench-"), "the run left a topic: {topics}");
}

#[test]
fn duels_and_members_see_every_message() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    for class in ["durable", "memory"] {
        let duel =
            ["bench", "duel-60", "--matches", "3", "--duration", "500ms", "--class", class, "--quiet", "--json", "-"];
        let report = report(&broker, &duel);
        check_right(&report, 30 * 12, 30 * 18);
        assert!(report["budget"]["p99_us"].is_number(), "{report}");
    }
    let members = ["bench", "nxm", "--members", "2", "--rate", "1000", "--duration", "500ms", "--quiet", "--json", "-"];
    let report = report(&broker, &members);
    check_right(&report, 1000, 1000);
    assert_eq!(report["ideal_per_s"], 2000.0);
    assert_eq!(report["members"].as_array().unwrap().len(), 2);
}

#[test]
fn a_bench_that_a_signal_ends_takes_its_topics_along() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let address = broker.quic.to_string();
    for signal in [Signal::INT, Signal::TERM] {
        let arguments = ["bench", "nxm", "--rate", "100", "--duration", "10m", "--quiet", "--broker", &address];
        let child = place.command(&arguments).spawn().unwrap();
        let end = Instant::now() + DEADLINE;
        while !broker.good(&["topic", "list"], b"").contains("bench-") {
            assert!(Instant::now() < end, "no topic of the run came");
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        let topics = broker.good(&["topic", "list"], b"");
        assert!(!topics.contains("bench-"), "the run left a topic: {topics}");
    }
}

#[test]
fn options_of_another_workload_are_refused() {
    let place = Place::new();
    for (arguments, text) in [
        (&["bench", "--members", "3"][..], "--members is an option of nxm and means nothing to duel-60"),
        (&["bench", "nxm", "--matches", "3"], "--matches is an option of duel-60 and means nothing to nxm"),
        (&["bench", "edge", "--size", "99"], "--size is an option of nxm and means nothing to edge"),
        (&["bench", "--trace", "x", "--rate", "9"], "--rate is an option of nxm and means nothing to --trace"),
    ] {
        let said = place.run(arguments, b"").bad(2);
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn a_file_that_is_no_recording_is_told_what_one_is() {
    let place = Place::new();
    let file = place.path().join("garbage");
    std::fs::write(&file, [0x1f, 0x8b, 3, 1, 4, 1, 5]).unwrap();
    let said = place.run(&["bench", "--trace", file.to_str().unwrap()], b"").bad(2);
    assert!(said.contains("garbage"), "{said}");
    std::fs::write(&file, "time,who\n1,2\n").unwrap();
    let said = place.run(&["bench", "--trace", file.to_str().unwrap()], b"").bad(2);
    assert!(said.contains("t_us,key,kind,size"), "{said}");
}

#[test]
fn a_bench_removes_nothing_that_no_bench_has_made() {
    let place = Place::new();
    let data = place.path().to_str().unwrap();
    for bench in ["crash", "start", "idle", "sustained", "join", "commit", "ratios", "floor"] {
        let thesis = place.path().join(bench).join("data/thesis.txt");
        std::fs::create_dir_all(thesis.parent().unwrap()).unwrap();
        std::fs::write(&thesis, "years of work").unwrap();
        let text = place.run(&["bench", bench, "--data", data, "--quiet"], b"").bad(1);
        assert!(text.contains("no bench has made") && text.contains("--data") && text.contains(bench), "{text}");
        assert_eq!(std::fs::read_to_string(&thesis).unwrap(), "years of work");
    }
}

#[test]
fn nothing_stored_is_lost_by_kills_under_load() {
    let place = Place::new();
    let data = place.path().join("lab");
    let arguments = ["bench", "crash", "--rounds", "3", "--quiet", "--json", "-", "--data", data.to_str().unwrap()];
    let report: Value = serde_json::from_str(&place.run(&arguments, b"").good()).unwrap();
    assert_eq!(report["rounds"], 3);
    assert!(0 < report["stored"].as_u64().unwrap(), "{report}");
    for fault in ["lost", "duplicated", "reordered", "gaps", "corrupt"] {
        assert_eq!(report[fault], 0, "{fault}: {report}");
    }
}

#[test]
fn a_member_that_comes_and_goes_settles_and_every_commit_is_durable() {
    let place = Place::new();
    let data = place.path().join("lab");
    let own = ["--quiet", "--json", "-", "--data", data.to_str().unwrap()];
    let join = ["bench", "join", "--members", "12", "--partitions", "20", "--rounds", "1", "--duration", "1s"];
    let joins: Value = serde_json::from_str(&place.run(&[&join[..], &own[..]].concat(), b"").good()).unwrap();
    assert!(!joins["settled_ms"].as_array().unwrap().is_empty(), "{joins}");
    let commit = ["bench", "commit", "--records", "5000", "--rounds", "1"];
    let commits: Value = serde_json::from_str(&place.run(&[&commit[..], &own[..]].concat(), b"").good()).unwrap();
    let of = |field: &str| commits[0][field].as_u64().unwrap();
    assert_eq!(of("commits"), 5000, "{commits}");
    assert!((1..=5000).contains(&of("written")), "{commits}");
}

#[test]
fn a_group_under_load_loses_no_message_when_a_member_restarts_or_dies() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    for (disturb, session_timeout) in [("restart", "30s"), ("crash", "1s")] {
        let load = ["bench", "group", "--members", "3", "--rate", "300", "--duration", "2s", "--disturb", disturb];
        let rest = ["--session-timeout", session_timeout, "--quiet", "--json", "-"];
        let report = report(&broker, &[&load[..], &rest[..]].concat());
        assert_eq!((&report["sent"], &report["consumed"]), (&1800.into(), &1800.into()), "{report}");
        for fault in ["lost", "reordered", "corrupt", "failed", "errors"] {
            assert_eq!(report[fault], 0, "{fault}: {report}");
        }
        let partitions = |which: &str| report[which]["partitions"].as_u64().unwrap();
        assert_eq!(partitions("moved") + partitions("unmoved"), 6, "{report}");
        assert!(2 <= partitions("moved"), "what the member had went to others: {report}");
        let each = report["partitions"].as_array().unwrap();
        let moved = each.iter().filter(|partition| partition["is_moved"] == true).count() as u64;
        assert_eq!((each.len(), moved), (6, partitions("moved")), "{report}");
        check_slices(&report, &report["latency_us"]["stored"]);
        assert_eq!(report["stored"], 1800, "{report}");
    }
    assert_eq!(broker.good(&["group", "list"], b"").lines().count(), 1, "the groups of the runs are gone");
}

#[test]
fn every_message_of_a_shared_queue_is_acknowledged_once_or_is_a_dead_letter() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let load = ["bench", "queue", "--members", "3", "--rate", "2000", "--duration", "1s", "--quiet", "--json", "-"];
    let fail = ["--failing", "30", "--delivery-limit", "2", "--backoff", "50ms"];
    for order in [&[][..], &["--per-key-order"]] {
        let report = report(&broker, &[&load[..], &fail, order].concat());
        let count = |field: &str| report[field].as_u64().unwrap();
        assert_eq!((count("sent"), count("acknowledged") + count("dead_letters")), (2000, 2000), "{report}");
        assert_eq!(count("handed_out"), 2000 + count("redelivered"), "{report}");
        // Which deliveries fail is decided by the messages' numbers.
        assert_eq!(count("nacked"), count("redelivered") + count("dead_letters"), "{report}");
        assert!(0 < count("dead_letters") && 0 < count("redelivered"), "{report}");
        check_slices(&report, &report["latency_us"]["consumed"]);
        check_slices(&report, &report["acknowledged_us"]);
    }
    let closed = report(&broker, &[&load[..4], &["--rate", "max"], &load[6..]].concat());
    assert_eq!((&closed["is_closed"], &closed["acknowledged"]), (&true.into(), &closed["sent"]), "{closed}");
    let topics = broker.good(&["topic", "list"], b"");
    assert!(!topics.contains("bench-"), "the runs left a topic: {topics}");
}
