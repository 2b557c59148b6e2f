//! Changing and deleting shared queues on the command line, with `--json`, and what is asked for wrongly on purpose.

use serde_json::{Value, json};

use crate::broker::{Broker, Place, Running, wait_until};
use crate::round_trip::numbers;

/// A broker with topic `jobs`, whose queue of group `w` has done one record of three.
fn broker(place: &Place) -> Broker<'_> {
    let broker = Broker::start(place, &["--shards", "2"]);
    broker.good(&["topic", "create", "jobs", "-p", "1"], b"");
    broker.good(&["produce", "jobs"], numbers(0..3).as_bytes());
    broker.good(&["queue", "consume", "jobs", "-g", "w", "-n", "1"], b"");
    broker
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn settings(broker: &Broker<'_>) -> Value {
    object(&broker.good(&["queue", "describe", "jobs", "-g", "w", "--json"], b""))["settings"].clone()
}

#[test]
fn what_is_changed_is_told_as_an_object_and_shown_as_it_was_wished() {
    let place = Place::new();
    let broker = broker(&place);
    broker.good(&["topic", "create", "dead", "-p", "1"], b"");
    let alter = |wishes: &[&str]| {
        let line = [&["queue", "alter", "jobs", "-g", "w", "--json"], wishes].concat();
        let told = object(&broker.good(&line, b""));
        assert_eq!(told, json!({ "group": "w", "topic": "jobs", "done": "altered" }));
        settings(&broker)
    };
    let first = settings(&broker);
    let after = alter(&["--visibility", "2m", "--dispatch", "weighted", "--backoff", "1s,10s"]);
    let mut expected = first;
    expected["visibility_ms"] = 120_000.into();
    expected["dispatch"] = "weighted".into();
    expected["backoff"] = "1s,10s".into();
    assert_eq!(after, expected, "the rest is as it was");
    let after = alter(&["--delivery-limit", "3", "--dead-letter", "dead"]);
    expected["delivery_limit"] = 3.into();
    expected["dead_letter"] = "dead".into();
    assert_eq!(after, expected);
    // Without `--json` nothing is said.
    assert_eq!(broker.good(&["queue", "alter", "jobs", "-g", "w", "--visibility", "1s"], b""), "");
}

#[test]
fn a_change_that_makes_no_sense_says_why_and_changes_nothing() {
    let place = Place::new();
    let broker = broker(&place);
    let before = settings(&broker);
    let alter = |topic: &str, group: &str, wishes: &[&str], code: i32, parts: &[&str]| {
        let line = [&["queue", "alter", topic, "-g", group, "--json"], wishes].concat();
        let done = broker.run(&line, b"");
        assert_eq!(done.out, "", "nothing was done: {line:?}");
        let told = done.bad(code);
        for part in parts {
            assert!(told.contains(part), "{part:?} is missing: {line:?}: {told}");
        }
    };
    let visibility = ["--visibility", "1s"];
    alter("jobs", "nobody", &visibility, 1, &["no shared queue of group nobody on topic jobs"]);
    alter("nothing", "w", &visibility, 1, &["no topic nothing"]);
    alter("jobs", "w", &[], 2, &["nothing to change", "--visibility"]);
    alter(
        "jobs",
        "w",
        &["--dispatch", "fair"],
        2,
        &["fair", "round-robin", "random", "weighted", "least-response-time"],
    );
    alter("jobs", "w", &["--visibility", "1ms"], 2, &["1ms is not between 50ms and 12h"]);
    alter("jobs", "w", &["--visibility", "13h"], 2, &["13h is not between 50ms and 12h"]);
    alter("jobs", "w", &["--backoff", "8d"], 2, &["8d is not between 0ms and 7d"]);
    alter("jobs", "w", &["--delivery-limit", "-1"], 2, &["-1"]);
    alter("jobs", "w", &["--delivery-limit", "99999999"], 2, &["99999999 is not between 0 and "]);
    alter("jobs", "w", &["--delivery-limit", "3"], 1, &["delivery limit of 3", "dead-letter topic"]);
    alter("jobs", "w", &["--delivery-limit", "3", "--dead-letter", "nowhere"], 1, &["no dead-letter topic nowhere"]);
    alter("jobs", "w", &["--order-per-key", "maybe"], 2, &["maybe", "true", "false"]);
    alter("jobs", "w", &["--order-per-key", "true"], 1, &["order per key cannot be changed", "make it anew"]);
    assert_eq!(settings(&broker), before);
}

#[test]
fn a_deleted_queue_is_gone_and_one_with_members_asks_for_force() {
    let place = Place::new();
    let broker = broker(&place);
    let delete = |group: &str, more: &[&str]| {
        broker.run(&[&["queue", "delete", "jobs", "-g", group, "--json"], more].concat(), b"")
    };
    let none = delete("nobody", &[]);
    assert_eq!(none.out, "");
    let none = none.bad(1);
    assert!(none.contains("no shared queue of group nobody on topic jobs"), "{none}");

    let quic = broker.quic.to_string();
    let mut member = Running::start(&place, &["queue", "consume", "jobs", "-g", "w", "--broker", &quic]);
    member.read(|lines| lines.len() == 2);
    let refused = delete("w", &[]);
    assert_eq!(refused.out, "");
    let refused = refused.bad(1);
    assert!(refused.contains("has 1 members") && refused.contains("force"), "told at once: {refused}");
    assert_eq!(settings(&broker)["dispatch"], "round-robin", "it is still there");

    let deleted = json!({ "group": "w", "topic": "jobs", "done": "deleted" });
    assert_eq!(object(&delete("w", &["--force"]).good()), deleted);
    let gone = |group: &str| broker.run(&["queue", "describe", "jobs", "-g", group], b"").code == Some(1);
    wait_until(|| gone("w"));
    drop(member);
    // What it had done went with it: a queue of the same name begins anew.
    broker.good(&["queue", "consume", "jobs", "-g", "w", "-n", "3"], b"");
    assert_eq!(object(&delete("w", &[]).good()), deleted);
    assert!(gone("w"));
    assert_eq!(
        broker.good(&["consume", "jobs", "--from", "earliest", "-n", "3"], b""),
        numbers(0..3),
        "the topic stays"
    );
}
