//! Members with a static id as processes: one restarts, and nobody else notices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::{Broker, Place, wait_until};

const PARTITIONS: u64 = 6;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Offsets that a process has printed, by partition.
type Printed = BTreeMap<u64, BTreeSet<u64>>;

struct Lab<'a> {
    place: &'a Place,
    broker: Broker<'a>,
}

impl Lab<'_> {
    /// One life of a member; what it prints goes into a file of that name.
    fn spawn(&self, name: &str, life: &str) -> Child {
        let out = File::create(self.place.path().join(life)).unwrap();
        let address = self.broker.quic.to_string();
        let member = ["consume", "work", "-g", "g", "--static-id", name, "--session-timeout", "30s"];
        let reading = ["--reset", "earliest", "--commit", "batch", "-f", "%p %o\\n", "--broker", &address];
        let mut command = self.place.command(&[&member[..], &reading].concat());
        command.stdout(out).stderr(Stdio::null()).spawn().unwrap()
    }

    fn printed(&self, life: &str) -> Printed {
        let mut printed = Printed::new();
        let text = std::fs::read_to_string(self.place.path().join(life)).unwrap();
        for line in text.lines() {
            let (partition, offset) = line.split_once(' ').unwrap();
            printed.entry(partition.parse().unwrap()).or_default().insert(offset.parse().unwrap());
        }
        printed
    }

    fn describe(&self) -> serde_json::Value {
        let done = self.broker.run(&["group", "describe", "g", "--json"], b"");
        if done.code == Some(0) { serde_json::from_str(&done.out).unwrap() } else { serde_json::Value::Null }
    }

    /// One record into each partition.
    fn produce(&self) {
        for partition in 0..PARTITIONS {
            self.broker.good(&["produce", "work", "-p", &partition.to_string()], b"record\n");
        }
    }

    /// Waits until a life has printed an offset of all these partitions, and checks that it prints no others.
    fn expect(&self, life: &str, partitions: &BTreeSet<u64>, offset: u64) {
        wait_until(|| {
            let printed = self.printed(life);
            assert!(printed.keys().all(|partition| partitions.contains(partition)), "{life} has others: {printed:?}");
            partitions.iter().all(|partition| printed.get(partition).is_some_and(|seen| seen.contains(&offset)))
        });
    }
}

fn end(mut member: Child, signal: Signal) {
    kill_process(Pid::from_child(&member), signal).unwrap();
    member.wait().unwrap();
}

#[test]
fn one_of_three_restarts_and_the_others_never_pause() {
    let place = Place::new();
    let lab = Lab { broker: Broker::start(&place, &["--shards", "2"]), place: &place };
    lab.broker.good(&["topic", "create", "work", "-p", &PARTITIONS.to_string()], b"");
    let [mut a, b, c] = NAMES.map(|name| lab.spawn(name, name));
    wait_until(|| {
        let described = lab.describe();
        let members = described["members"].as_array().cloned().unwrap_or_default();
        members.len() == NAMES.len() && members.iter().all(|member| member["owned"] == 2 && member["state"] == "stable")
    });
    lab.produce();
    let all: BTreeSet<u64> = (0..PARTITIONS).collect();
    wait_until(|| NAMES.iter().flat_map(|name| lab.printed(name).into_keys()).collect::<BTreeSet<_>>() == all);
    let held = NAMES.map(|name| lab.printed(name).into_keys().collect::<BTreeSet<_>>());
    assert!(held.iter().all(|held| held.len() == 2), "{held:?}");
    let generation = lab.describe()["generation"].clone();

    // Once it dies, once it is told to end: each time records come while it is away, and the others have theirs at once.
    for (life, (signal, offset)) in [("a-2", (Signal::KILL, 1)), ("a-3", (Signal::TERM, 2))] {
        end(a, signal);
        lab.produce();
        lab.expect("b", &held[1], offset);
        lab.expect("c", &held[2], offset);
        a = lab.spawn("a", life);
        lab.expect(life, &held[0], offset);
        assert_eq!(lab.describe()["generation"], generation, "nothing was assigned anew");
    }
    assert_eq!(lab.describe()["members"].as_array().unwrap().len(), NAMES.len());
    for member in [a, b, c] {
        end(member, Signal::TERM);
    }
}
