//! What the command line takes and refuses, in which words and with which exit code, without a broker or with one.

use serde_json::Value;

use crate::broker::{Broker, Place};
use crate::round_trip::{numbers, values};

/// Runs commands that are refused with this code, and looks for words in what they say.
#[track_caller]
fn refuses(place: &Place, code: i32, cases: &[(&[&str], &[&str])]) {
    for (arguments, words) in cases {
        let done = place.run(arguments, b"");
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.err);
        let said = done.bad(code);
        for word in *words {
            assert!(said.contains(word), "{arguments:?}: {word:?} is missing in {said}");
        }
    }
}

#[test]
fn a_completion_script_knows_every_command() {
    let place = Place::new();
    let script = place.run(&["completions", "bash"], b"").good();
    let help = place.run(&["--help"], b"").good();
    let commands = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(commands.contains(&"serve") && commands.contains(&"queue"), "{commands:?}");
    for command in commands.into_iter().filter(|name| !name.is_empty()) {
        assert!(script.contains(&format!("corelane,{command})")), "{command} is not completed");
    }
    for nested in ["topic,truncate", "group,drain", "queue,redrive", "bench,ratios"] {
        assert!(script.contains(&format!("corelane__subcmd__{nested})")), "{nested} is not completed");
    }
    assert_eq!(place.run(&["completions", "tcsh"], b"").code, Some(2));
}

#[test]
fn the_doctor_says_the_same_to_people_and_to_programs() {
    let place = Place::new();
    let data = place.data();
    let doctor = ["doctor", "--data", data.to_str().unwrap(), "--shards", "1", "--memory", "512MiB"];
    let done = place.run(&doctor, b"");
    let json = place.run(&[&doctor[..], &["--json"]].concat(), b"");
    assert_eq!(done.code, json.code);
    let findings: Value = serde_json::from_str(&json.out).unwrap();
    let findings = findings.as_array().unwrap();
    for name in ["kernel", "io_uring", "data", "direct I/O", "broker"] {
        let finding = findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}"));
        let verdict = finding["verdict"].as_str().unwrap();
        assert!(["ok", "warn", "fail"].contains(&verdict), "{finding}");
        assert!(done.out.contains(&format!("{verdict:<4}  {name}")), "{name}: {}", done.out);
        assert_eq!(verdict == "ok", finding["advice"] == "", "{finding}");
    }
    let is_bad = findings.iter().any(|finding| finding["verdict"] == "fail");
    assert_eq!(json.code, Some(i32::from(is_bad)), "{}", json.err);
    assert!(!data.exists(), "an examination makes no data directory");

    let nowhere = place.run(&["doctor", "--data", "/proc/x", "--memory", "512MiB"], b"");
    assert_eq!(nowhere.code, Some(1));
    let line = nowhere.out.split_once("fail  data").unwrap().1;
    let advice = line.lines().nth(1).unwrap();
    assert!(advice.contains("--data") && !advice.contains("chown"), "{advice}");
}

#[test]
fn a_bad_value_is_2_and_says_what_would_be_right_in_the_units_of_the_option() {
    let place = Place::new();
    refuses(
        &place,
        2,
        &[
            (&["topic", "create", "t", "-p", "0"], &["0 is not between 1 and 16384"]),
            (&["topic", "create", "t", "--segment-bytes", "1"], &["1B is not between 1MiB and 4GiB"]),
            (&["queue", "consume", "t", "-g", "g", "--visibility", "13h"], &["13h is not between 50ms and 12h"]),
            (&["queue", "consume", "t", "-g", "g", "--exec", " "], &["acknowledge every record", "--exec ./work"]),
            (&["queue", "alter", "t", "-g", "g", "--backoff", "5s..1s"], &["5s is above the cap of 1s", "1s..5s"]),
            (&["consume", "t", "-g", "g", "--session-timeout", "1ms"], &["1ms is not between 250ms and 30m"]),
            (&["group", "alter", "g", "--standbys", "4"], &["4 is not between 0 and 3"]),
            (&["topic", "truncate", "t", "--before", "-1"], &["an offset such as 1000, or end"]),
            (&["topic", "alter", "t"], &["--dedup-window", "--dedup-count", "--no-dedup"]),
            (&["produce", "t", "-H", "corelane-deliver-at=tomorrow"], &["milliseconds since 1970", "--delay 5s"]),
            (&["produce", "t", "-H", "corelane-deliver-at=1", "--delay", "5s"], &["one of the two"]),
            (&["serve", "--log", "noise=x=y"], &["noise=x=y", "info,corelane_shard=debug"]),
            (&["serve", "--cores", "0,0"], &["core 0 is listed 2 times"]),
            (&["bench", "nope"], &["duel-60, nxm, edge", "floor, ratios", "sustained"]),
            (&["bench", "floor", "--broker", "127.0.0.1:1"], &["--broker"]),
            (&["bench", "crash", "--token-file", "x"], &["--token-file"]),
            (&["demo", "--duration", "1ms"], &["--duration 10s"]),
        ],
    );
}

#[test]
fn a_file_that_is_not_there_is_1() {
    let place = Place::new();
    let data = place.data();
    let free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--memory", "512MiB"];
    let token = [&["serve", "--token-file", "nope", "--data", data.to_str().unwrap()], &free[..]].concat();
    refuses(
        &place,
        1,
        &[
            (&["serve", "--config", "nope"], &["nope", "No such file"]),
            (&token, &["nope", "No such file"]),
            (&["doctor", "--config", "nope"], &["nope", "No such file"]),
            (&["bench", "--trace", "nope"], &["nope", "No such file"]),
            (&["topic", "list", "--token-file", "nope"], &["nope", "No such file"]),
            (&["topic", "list", "--broker", "127.0.0.1:1?ca=nope"], &["nope"]),
        ],
    );
}

#[test]
fn everything_wrong_in_a_configuration_file_is_said_with_its_lines() {
    let place = Place::new();
    let file = place.path().join("corelane.toml");
    std::fs::write(&file, "sharts = 1\nmemory = \"lots\"\nshards = 0\n").unwrap();
    let parts = ["line 1: sharts", "line 2: memory", "512MiB", "shards = 0"];
    refuses(&place, 2, &[(&["serve", "--config", file.to_str().unwrap()], &parts)]);
}

#[test]
fn a_truncation_that_one_partition_cannot_bear_cuts_none() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "uneven", "-p", "3"], b"");
    for (partition, records) in [("0", 20), ("1", 5), ("2", 10)] {
        broker.good(&["produce", "uneven", "-p", partition], numbers(0..records).as_bytes());
    }
    let said = broker.run(&["topic", "truncate", "uneven", "--before", "10"], b"").bad(1);
    for part in ["nothing was cut", "partition 1 of topic uneven", "from 0 to 5", "5 at most"] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert_eq!(values(&broker, "uneven").len(), 35, "nothing was cut");
    let cut = broker.good(&["topic", "truncate", "uneven", "--before", "4"], b"");
    assert_eq!(cut.lines().count(), 3, "{cut}");
    assert_eq!(values(&broker, "uneven").len(), 35 - 12);
    let again = broker.good(&["topic", "truncate", "uneven", "-p", "1", "--before", "2"], b"");
    assert!(again.contains("partition 1 starts at offset 4 already"), "{again}");
    let said = broker.run(&["topic", "truncate", "uneven", "-p", "7", "--before", "2"], b"").bad(1);
    assert!(said.contains("no partition 7"), "{said}");
}

#[test]
fn what_is_not_there_is_named_with_what_to_do() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    for arguments in [&["topic", "describe", "nope"][..], &["produce", "nope"], &["consume", "nope"]] {
        let said = broker.run(arguments, b"x\n").bad(1);
        assert!(said.contains("nope") && said.contains("`corelane topic list`"), "{arguments:?}: {said}");
    }
    let said = broker.run(&["group", "describe", "nope"], b"").bad(1);
    assert!(said.contains("nope") && said.contains("`corelane group list`"), "{said}");
    broker.good(&["topic", "create", "chat", "-p", "2"], b"");
    broker.good(&["produce", "chat", "-p", "1"], numbers(0..7).as_bytes());
    let said = broker.run(&["consume", "chat", "-p", "1", "--from", "999"], b"").bad(1);
    for part in ["topic chat partition 1", "offset 999", "from 0 to 7", "earliest"] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert!(!said.contains("1/1"), "an id that nobody knows: {said}");
    let said = broker.run(&["consume", "-g", "scores", "--pattern", "a["], b"").bad(2);
    assert!(said.contains("InvalidPattern") && said.contains("at byte 1"), "{said}");
}

#[test]
fn what_was_done_to_a_group_is_said_as_json_on_request() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let told = |arguments: &[&str]| -> Value {
        serde_json::from_str(&broker.good(&[&["group"], arguments, &["--json"]].concat(), b"")).unwrap()
    };
    let altered = told(&["alter", "scores", "--retention", "30d", "--standbys", "1"]);
    assert_eq!((&altered["group"], &altered["done"]), (&"scores".into(), &"altered".into()), "{altered}");
    assert_eq!((&altered["retention_ms"], &altered["standbys"]), (&2_592_000_000_u64.into(), &1.into()), "{altered}");
    assert!(altered["strategy"].is_null(), "{altered}");
    let described = broker.good(&["group", "describe", "scores"], b"");
    assert!(described.contains("offsets kept 30d without members"), "{described}");
    for (command, done) in [("drain", "drained"), ("resume", "resumed"), ("delete", "deleted")] {
        let told = told(&[command, "scores"]);
        assert_eq!((&told["group"], &told["done"]), (&"scores".into(), &done.into()), "{told}");
    }
}

#[test]
fn a_record_with_a_delay_is_there_at_once_and_handed_out_later() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "jobs"], b"");
    broker.good(&["produce", "jobs", "--delay", "1h"], b"later\n");
    broker.good(&["produce", "jobs", "--delay", "0ms"], b"now\n");
    assert_eq!(values(&broker, "jobs"), ["later", "now"], "a reader waits for nothing");
    let found = broker.good(&["queue", "consume", "jobs", "-g", "workers", "-n", "1"], b"");
    assert_eq!(found, "now\n");
    let queue: Value =
        serde_json::from_str(&broker.good(&["queue", "describe", "jobs", "-g", "workers", "--json"], b"")).unwrap();
    assert_eq!((&queue["delayed"], &queue["ready"]), (&1.into(), &0.into()), "{queue}");
}
