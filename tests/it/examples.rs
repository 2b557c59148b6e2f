//! The SDK's examples, each as a program of its own against a broker: what they print, and that they end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::broker::{Broker, Place, Running, wait_until};
use crate::round_trip::numbers;

/// Where the examples are. Cargo has built them when it tests the whole workspace; then this builds nothing.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_corelane")).parent().unwrap();
        let name = match profile.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            name => name,
        };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // What cargo sets for this test is nothing that a build is to depend on.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("CARGO_PKG_") || variable == "CARGO_MANIFEST_DIR" {
                cargo.env_remove(variable);
            }
        }
        // With the whole workspace, so that the features of dependencies are those of `cargo test --workspace`.
        cargo.args(["build", "--quiet", "--locked", "--workspace", "--examples", "--profile", name]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the examples are not built");
        profile.join("examples")
    })
}

/// A broker, and the examples as its clients.
struct Stage<'a> {
    place: &'a Place,
    broker: Broker<'a>,
}

fn on_stage(test: impl FnOnce(Stage<'_>)) {
    // Before the broker starts: it may take longer than a test waits.
    let _built = folder();
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    test(Stage { place: &place, broker });
}

impl Stage<'_> {
    fn example(&self, name: &str, args: &[&str]) -> Running {
        let mut command = self.place.program(&folder().join(name), args);
        Running::spawn(command.env("CORELANE_BROKER", self.broker.quic.to_string()))
    }

    fn create(&self, topic: &str, partitions: &str) {
        self.broker.good(&["topic", "create", topic, "-p", partitions], b"");
    }

    fn produce(&self, topic: &str, partition: &str, range: std::ops::Range<u32>) {
        self.broker.good(&["produce", topic, "-p", partition], numbers(range).as_bytes());
    }

    /// What a group has committed in each partition of one topic.
    fn committed(&self, group: &str) -> Vec<u64> {
        let done = self.broker.run(&["group", "describe", group, "--json"], b"");
        let Ok(described) = serde_json::from_str::<Value>(&done.out) else { return Vec::new() };
        let partitions = described["partitions"].as_array().unwrap();
        partitions.iter().map(|partition| partition["committed"].as_u64().unwrap_or_default()).collect()
    }
}

#[test]
fn what_one_example_produces_another_consumes() {
    on_stage(|stage| {
        let produced = stage.example("produce", &["chat", "hello", "world", "again"]).finish();
        assert_eq!(produced, ["partition 0 offset 0", "partition 0 offset 1", "partition 0 offset 2"]);
        assert_eq!(stage.example("consume", &["chat", "2"]).finish(), ["0/0: hello", "0/1: world"]);
        assert_eq!(stage.example("consume", &["chat", "3"]).finish().len(), 3);
    });
}

#[test]
fn a_group_with_manual_commit_goes_on_where_it_left() {
    on_stage(|stage| {
        stage.create("chat", "1");
        stage.produce("chat", "0", 0..50);
        let printed = stage.example("group_manual", &["chat", "50"]).finish();
        assert!(printed[0].starts_with("chat/0 is ours, from "), "{printed:?}");
        let line = |number: u32| format!("chat/0/{number}: {number}");
        assert_eq!(printed[1..], (0..50).map(line).collect::<Vec<_>>());
        assert_eq!(stage.committed("archive"), [50]);
        stage.produce("chat", "0", 50..51);
        let printed = stage.example("group_manual", &["chat", "1"]).finish();
        assert_eq!(printed[1..], [line(50)], "what was committed does not come again");
    });
}

#[test]
fn a_group_with_automatic_commit_is_committed_while_it_runs_and_takes_new_topics() {
    on_stage(|stage| {
        stage.create("chat", "2");
        let member = stage.example("group_auto", &["gateway-3"]);
        for partition in ["0", "1"] {
            stage.produce("chat", partition, 0..100);
        }
        stage.create("match-7", "1");
        stage.produce("match-7", "0", 0..20);
        wait_until(|| stage.committed("statistics") == [100, 100, 20]);
        assert_eq!(member.interrupt(), ["220 records"]);
        stage.produce("chat", "1", 100..103);
        let member = stage.example("group_auto", &["gateway-3"]);
        wait_until(|| stage.committed("statistics") == [100, 103, 20]);
        assert_eq!(member.interrupt(), ["3 records"]);
    });
}

#[test]
fn a_shared_queue_puts_aside_what_fails() {
    on_stage(|stage| {
        stage.create("jobs", "1");
        stage.create("jobs.dead", "1");
        stage.broker.good(&["produce", "jobs"], b"resize 7\nbroken\nresize 8\n");
        // The bad one three times.
        let printed = stage.example("shared_queue", &["5"]).finish();
        for avatar in ["avatar 7 resized", "avatar 8 resized"] {
            assert_eq!(printed.iter().filter(|line| *line == avatar).count(), 1, "{printed:?}");
        }
        for attempt in 1..=3 {
            let failed = format!("\"broken\" failed at delivery {attempt}: ");
            assert_eq!(printed.iter().filter(|line| line.starts_with(&failed)).count(), 1, "{printed:?}");
        }
        let dead = stage.broker.good(&["consume", "jobs.dead", "-n", "1", "-f", "%s %h\\n"], b"");
        assert!(dead.starts_with("broken ") && dead.contains("is no job"), "{dead}");
    });
}

#[test]
fn an_exactly_once_pipeline_writes_each_output_once() {
    on_stage(|stage| {
        stage.create("matches", "2");
        stage.create("wallets", "1");
        stage.produce("matches", "0", 0..30);
        stage.produce("matches", "1", 30..60);
        let wallets = || {
            let line = ["consume", "wallets", "--isolation", "committed", "--until", "end", "-f", "%s\\n"];
            let mut found: Vec<_> = stage.broker.good(&line, b"").lines().map(str::to_owned).collect();
            found.sort_by_key(|line| line.strip_prefix("settled ").unwrap().parse::<u32>().unwrap());
            found
        };
        let settled = |end: u32| (0..end).map(|number| format!("settled {number}")).collect::<Vec<_>>();
        let printed = stage.example("exactly_once", &["matches", "wallets", "60"]).finish();
        for partition in ["matches/0 up to 30", "matches/1 up to 30"] {
            assert!(printed.iter().any(|line| line == partition), "{printed:?}");
        }
        assert_eq!(wallets(), settled(60));
        stage.produce("matches", "1", 60..61);
        let printed = stage.example("exactly_once", &["matches", "wallets", "1"]).finish();
        assert_eq!(printed.last().unwrap(), "matches/1 up to 31", "it goes on where it was");
        assert_eq!(wallets(), settled(61));
    });
}

#[test]
fn a_dashboard_shows_all_players_and_ends_when_they_are_gone() {
    on_stage(|stage| {
        let printed = stage.example("latest_dashboard", &["120"]).finish();
        assert!(printed.iter().any(|line| line.starts_with("20 players, ")), "{printed:?}");
        assert!(printed.iter().any(|line| line.starts_with("  player-19  x=")), "{printed:?}");
        assert!(printed.last().unwrap().starts_with("0 players, "), "{printed:?}");
    });
}

#[test]
fn a_tick_loop_applies_inputs_and_sends_states() {
    on_stage(|stage| {
        let server = stage.example("tick_loop", &[]);
        // A state of a tick says that the inputs are read from here on.
        wait_until(|| stage.broker.run(&["topic", "describe", "match-states"], b"").code == Some(0));
        let quic = stage.broker.quic.to_string();
        let mut states = Running::start(stage.place, &["consume", "match-states", "-f", "%s\\n", "--broker", &quic]);
        states.read(|lines| !lines.is_empty());
        stage.broker.good(&["produce", "match-inputs"], numbers(0..25).as_bytes());
        states.read(|lines| lines.iter().any(|line| line.ends_with(": 25 inputs applied")));
        assert_eq!(server.interrupt(), ["25 inputs applied, 0 records not delivered"]);
    });
}

#[test]
fn a_server_of_a_group_takes_over_what_another_leaves_for_it() {
    on_stage(|stage| {
        stage.create("match-inputs", "2");
        let mut first = stage.example("group_tick_loop", &[]);
        first.read(|lines| lines.len() == 2);
        for partition in ["0", "1"] {
            stage.produce("match-inputs", partition, 0..40);
        }
        wait_until(|| stage.committed("servers") == [40, 40]);
        let mut second = stage.example("group_tick_loop", &[]);
        second.read(|lines| lines.len() == 1);
        let taken = second.lines()[0].clone();
        assert!(taken.ends_with(" is ours, with 40 inputs"), "{taken}");
        assert_eq!(second.interrupt().last().unwrap(), "1 partitions, 40 inputs");
        let printed = first.interrupt();
        assert!(printed.last().unwrap().contains(" partitions, "), "{printed:?}");
    });
}

#[test]
fn a_standby_goes_on_with_what_it_followed() {
    on_stage(|stage| {
        stage.create("match-inputs", "1");
        stage.broker.good(&["group", "alter", "servers", "--standbys", "1"], b"");
        let mut owner = stage.example("group_standby", &[]);
        owner.read(|lines| lines.len() == 1);
        let mut standby = stage.example("group_standby", &[]);
        let stands_by = || {
            let described = stage.broker.good(&["group", "describe", "servers", "--json"], b"");
            let described: Value = serde_json::from_str(&described).unwrap();
            let mut members = described["members"].as_array().unwrap().iter();
            members.any(|member| member["standby"] == 1)
        };
        wait_until(stands_by);
        stage.produce("match-inputs", "0", 0..60);
        wait_until(|| stage.committed("servers") == [60]);
        // Killed.
        drop(owner);
        standby.read(|lines| lines.len() == 1);
        let warm = standby.lines()[0].clone();
        assert!(warm.starts_with("match-inputs/0 from ") && warm.contains("followed up to Some("), "{warm}");
        stage.produce("match-inputs", "0", 60..65);
        wait_until(|| stage.committed("servers") == [65]);
        let printed = standby.interrupt();
        assert!(printed.last().unwrap().contains("inputs: 65, "), "each input counts once: {printed:?}");
    });
}
