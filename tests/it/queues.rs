//! Shared queues through a running broker: from a program's side and from the command line.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::Duration;

use corelane::{Client, Lease, Nack, QueueConsumer, Record, TopicSettings, VerdictError};

use crate::DEADLINE;
use crate::broker::{Broker, Place, Running, wait_until};
use crate::round_trip::numbers;

/// Where clients find the broker.
fn address(place: &Place, broker: &Broker<'_>) -> String {
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    format!("corelane://{}?pin={}", broker.quic, pin.trim())
}

/// Runs a program as a client of the broker.
pub(crate) fn with_client<F: Future<Output = ()>>(
    place: &Place,
    broker: &Broker<'_>,
    program: impl FnOnce(Client) -> F,
) {
    let address = address(place, broker);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let program = async { program(corelane::connect(&address).await.unwrap()).await };
    runtime.block_on(async { tokio::time::timeout(DEADLINE, program).await }).expect("within the deadline");
}

pub(crate) async fn produce(client: &Client, topic: &str, numbers: std::ops::Range<u32>) {
    let producer = client.producer(topic).open().await.unwrap();
    let mut tickets = Vec::new();
    for number in numbers {
        let (key, value) = (number.to_string(), number.to_string());
        let record = Record::new(value.as_bytes()).key(&key);
        tickets.push(producer.reserve(&record).await.send(record).unwrap());
    }
    for ticket in tickets {
        ticket.stored().await.unwrap();
    }
}

async fn member(client: &Client, credit: u32) -> QueueConsumer {
    let builder = client.queue("workers", "jobs").session_timeout(Duration::from_secs(1));
    builder.credit(credit, 1 << 20).join().await.unwrap()
}

/// How often each record was handed out, by its number.
type Seen = RefCell<BTreeMap<u32, u32>>;

/// The next records with their numbers; `None` when none come for a little while.
async fn take(consumer: &mut QueueConsumer) -> Option<Vec<(u32, Lease)>> {
    let leased = tokio::time::timeout(Duration::from_millis(20), consumer.next()).await.ok()?;
    let leased = leased.unwrap().unwrap();
    let number = |value: &[u8]| str::from_utf8(value).unwrap().parse().unwrap();
    Some(leased.iter().map(|record| (number(record.value.unwrap()), record.lease)).collect())
}

/// Acknowledges everything that comes until so many different records were seen by all members; returns its own count.
async fn work(consumer: &mut QueueConsumer, seen: &Seen, different: usize) -> usize {
    let mut own = 0;
    let mut last = None;
    while seen.borrow().len() < different {
        for (number, lease) in take(consumer).await.unwrap_or_default() {
            *seen.borrow_mut().entry(number).or_default() += 1;
            own += 1;
            last = Some(consumer.ack(lease));
        }
    }
    if let Some(last) = last {
        last.durable().await.unwrap();
    }
    own
}

/// Takes records, and says nothing of them, until so many are there.
async fn hold(consumer: &mut QueueConsumer, count: usize) -> Vec<(u32, Lease)> {
    let mut held = Vec::new();
    while held.len() < count {
        held.extend(take(consumer).await.unwrap_or_default());
    }
    held
}

#[test]
fn more_members_than_partitions_share_a_topic_and_inherit_from_one_that_dies() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let address = address(&place, &broker);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 1, TopicSettings::default()).await.unwrap();
        let mut a = member(&client, 16).await;
        let mut b = member(&client, 16).await;
        produce(&client, "jobs", 0..1000).await;
        let seen = Seen::default();
        let (of_a, of_b) = tokio::join!(work(&mut a, &seen, 1000), work(&mut b, &seen, 1000));
        assert!(seen.borrow().values().all(|&count| count == 1), "each record is handed out once: {seen:?}");
        assert!(0 < of_a && 0 < of_b, "both have a part of one partition: {of_a} and {of_b}");

        b.close().await.unwrap();
        // A client of its own, so that its death is that of a process.
        let doomed = corelane::connect(&address).await.unwrap();
        let mut b = member(&doomed, 16).await;
        produce(&client, "jobs", 1000..1100).await;
        let lost = hold(&mut b, 1).await;
        drop((b, doomed));
        work(&mut a, &seen, 1100).await;
        assert!(lost.iter().all(|(number, _)| seen.borrow()[number] == 1), "what the dead one had goes to the other");
        let queue = client.queues().describe("workers", "jobs").await.unwrap();
        assert_eq!(
            (queue.summary.ready, queue.summary.leased, queue.partitions[0].done_end),
            (0, 0, 1100),
            "{queue:?}"
        );
        a.close().await.unwrap();
    });
}

/// The first records leave before the new queue's settings are on disk, so before the join is answered, and those of each
/// partition by themselves.
#[test]
fn the_first_member_of_a_new_queue_is_handed_what_is_there_in_its_first_deliveries() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 2, TopicSettings::default()).await.unwrap();
        produce(&client, "jobs", 0..10).await;
        for group in ["a", "b", "c", "d"] {
            let mut consumer = client.queue(group, "jobs").credit(10, 1 << 20).join().await.unwrap();
            let held = hold(&mut consumer, 10).await;
            assert!(held.iter().all(|(_, lease)| lease.attempt == 1), "nothing was lost on its way: {held:?}");
            consumer.close().await.unwrap();
        }
    });
}

#[test]
fn an_acknowledgement_after_its_lease_is_refused() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 1, TopicSettings::default()).await.unwrap();
        let join = async || {
            let builder = client.queue("workers", "jobs").visibility(Duration::from_millis(50));
            builder.credit(1, 1 << 20).join().await.unwrap()
        };
        let mut slow = join().await;
        produce(&client, "jobs", 0..1).await;
        let late = hold(&mut slow, 1).await[0].1;
        let mut other = join().await;
        let again = hold(&mut other, 1).await[0].1;
        assert_eq!((late.offset, late.attempt), (again.offset, 1));
        assert!(1 < again.attempt, "it is another delivery");
        assert_eq!(slow.ack(late).durable().await, Err(VerdictError::LeaseOver));
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_another_number_of_shards() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 3, TopicSettings::default()).await.unwrap();
        produce(&client, "jobs", 0..300).await;
        let mut consumer = member(&client, 300).await;
        let held = hold(&mut consumer, 300).await;
        let even = held.iter().filter(|(number, _)| number % 2 == 0);
        let tickets: Vec<_> = even.map(|&(_, lease)| consumer.ack(lease)).collect();
        for ticket in tickets {
            ticket.durable().await.unwrap();
        }
    });
    broker.kill();
    for shards in ["2", "3"] {
        let broker = Broker::start(&place, &["--shards", shards]);
        with_client(&place, &broker, async |client| {
            let mut consumer = member(&client, 300).await;
            let mut again: Vec<_> = hold(&mut consumer, 150).await.iter().map(|&(number, _)| number).collect();
            again.sort_unstable();
            let odd: Vec<_> = (0..300).filter(|number| number % 2 == 1).collect();
            assert_eq!(again, odd, "with {shards} shards what was not acknowledged comes again, and nothing else");
        });
        broker.kill();
    }
}

#[test]
fn records_that_fail_end_in_the_dead_letter_topic_with_their_story() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    for topic in ["jobs", "jobs.dead"] {
        broker.good(&["topic", "create", topic, "-p", "2"], b"");
    }
    broker.good(&["produce", "jobs"], numbers(0..10).as_bytes());
    let consume = ["queue", "consume", "jobs", "-g", "workers", "--delivery-limit", "2", "--dead-letter", "jobs.dead"];
    // The number 7 fails twice; each other is done at once.
    let worker = [&consume[..], &["--backoff", "0s", "-n", "11", "--exec", "read job; test \"$job\" != 7"]].concat();
    broker.good(&worker, b"");
    // The letter is on its way when its last failure is known.
    let since = std::time::Instant::now();
    let described = loop {
        let described = broker.good(&["queue", "describe", "jobs", "-g", "workers", "--json"], b"");
        let described: serde_json::Value = serde_json::from_str(&described).unwrap();
        if described["dead"] == 1 {
            break described;
        }
        assert!(since.elapsed() < DEADLINE, "{described}");
    };
    assert_eq!((&described["ready"], &described["leased"], &described["delayed"]), (&0.into(), &0.into(), &0.into()));
    let dead = broker.good(&["consume", "jobs.dead", "--until", "end", "--json"], b"");
    let dead: serde_json::Value = serde_json::from_str(&dead).unwrap();
    assert_eq!(dead["value"], "7");
    let text = dead["headers"].to_string();
    for part in ["corelane-dead-reason", "the command ended with exit status: 1", "corelane-dead-group", "workers"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }

    with_client(&place, &broker, async |client| {
        produce(&client, "jobs", 100..101).await;
        let mut consumer = member(&client, 1).await;
        let lease = hold(&mut consumer, 1).await[0].1;
        consumer.nack(lease, Nack::because("no such player").dead()).durable().await.unwrap();
        let mut letters = client.consumer("jobs.dead").from(corelane::StartAt::Earliest).open().await.unwrap();
        let mut values = Vec::new();
        while values.len() < 2 {
            let batch = letters.next().await.unwrap().unwrap();
            values.extend(batch.iter().map(|record| record.value.unwrap().to_vec()));
        }
        values.sort_unstable();
        assert_eq!(values, [b"100".to_vec(), b"7".to_vec()]);
    });
}

/// A queue as a program reads it.
pub(crate) fn describe(broker: &Broker<'_>, group: &str) -> serde_json::Value {
    serde_json::from_str(&broker.good(&["queue", "describe", "jobs", "-g", group, "--json"], b"")).unwrap()
}

/// How many dead letters a redrive put back.
fn redrive(broker: &Broker<'_>, group: &str, more: &[&str]) -> serde_json::Value {
    let line = [&["queue", "redrive", "jobs", "-g", group, "--json"], more].concat();
    let done: serde_json::Value = serde_json::from_str(&broker.good(&line, b"")).unwrap();
    done["records"].clone()
}

/// Key, value and partition of records that were printed as JSON, sorted, and the names of all their headers.
fn read_json(lines: &str) -> (Vec<(String, String, u64)>, BTreeSet<String>) {
    let mut names = BTreeSet::new();
    let mut records = Vec::new();
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let headers = record["headers"].as_array().unwrap().iter();
        names.extend(headers.map(|header| header["name"].as_str().unwrap().to_owned()));
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        records.push((text("key"), text("value"), record["partition"].as_u64().unwrap()));
    }
    records.sort();
    (records, names)
}

#[test]
fn a_redrive_puts_dead_letters_back_once_and_they_are_worked_off() {
    const DEAD: usize = 3;
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    for (topic, partitions) in [("jobs", "2"), ("jobs.dead", "3")] {
        broker.good(&["topic", "create", topic, "-p", partitions], b"");
    }
    let lines: String = (0..10).map(|number| format!("player-{number}:{number}\n")).collect();
    broker.good(&["produce", "jobs", "-K", ":", "-H", "match=7"], lines.as_bytes());
    let (mut doomed, _) = read_json(&broker.good(&["consume", "jobs", "--until", "end", "--json"], b""));
    doomed.drain(..7);

    // A queue that has none: what it has is told from what others have in the same topic.
    let queue =
        |group| ["queue", "consume", "jobs", "-g", group, "--delivery-limit", "2", "--dead-letter", "jobs.dead"];
    broker.good(&[&queue("happy")[..], &["-n", "10"]].concat(), b"");
    // Each of the last three fails twice.
    let worker = ["--backoff", "0s", "-n", "13", "--exec", "read job; test \"$job\" -lt 7"];
    broker.good(&[&queue("workers")[..], &worker].concat(), b"");
    wait_until(|| describe(&broker, "workers")["dead"] == DEAD);
    let (dead, names) = read_json(&broker.good(&["consume", "jobs.dead", "--until", "end", "--json"], b""));
    let mut values: Vec<_> = dead.iter().map(|(_, value, _)| value.as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["7", "8", "9"]);
    let story = ["reason", "deliveries", "group", "topic", "partition", "offset", "first-failed"];
    let story = story.map(|name| format!("corelane-dead-{name}"));
    let expected: BTreeSet<_> = story.into_iter().chain(["match".to_owned()]).collect();
    assert_eq!(names, expected, "their own header is kept beside the story");

    assert_eq!(redrive(&broker, "happy", &[]), 0, "these are another queue's");
    broker.run(&["queue", "redrive", "jobs", "-g", "workers", "-n", "0"], b"").bad(2);
    assert_eq!(redrive(&broker, "workers", &["-n", "1"]), 1);
    let rest = broker.good(&["queue", "redrive", "jobs", "-g", "workers"], b"");
    assert_eq!(rest, "2 records put back into jobs\n");
    assert_eq!(redrive(&broker, "workers", &[]), 0, "a second redrive puts back nothing twice");
    let broker = broker.kill_and_start(&["--shards", "2"]);
    assert_eq!(redrive(&broker, "workers", &[]), 0, "not after a crash either");

    let (back, names) =
        read_json(&broker.good(&["queue", "consume", "jobs", "-g", "workers", "-n", "3", "--json"], b""));
    assert_eq!(back, doomed, "they are what they were, in the partitions that they come from");
    assert_eq!(names, BTreeSet::from(["match".to_owned()]), "without the story of their death");
    let described = describe(&broker, "workers");
    assert_eq!((&described["ready"], &described["leased"], &described["delayed"]), (&0.into(), &0.into(), &0.into()));
    let whole = broker.good(&["consume", "jobs", "--until", "end"], b"");
    assert_eq!(whole.lines().count(), 10 + DEAD);

    // Since this start three were handed out and acknowledged; dead letters count from the queue's beginning.
    let (_, metrics) = crate::admin::get(broker.admin, "/metrics");
    for (name, value) in [("deliveries", 3), ("acknowledgements", 3), ("redeliveries", 0), ("dead_letters", 3)] {
        let line = format!("corelane_queue_{name}_total{{group=\"workers\",topic=\"jobs\"}} {value}\n");
        assert!(metrics.contains(&line), "{line} is missing in {metrics}");
    }
    let status: serde_json::Value = serde_json::from_str(&crate::admin::get(broker.admin, "/status").1).unwrap();
    let queues = status["queues"].as_array().unwrap();
    assert!(queues.iter().any(|queue| queue["group"] == "workers" && queue["acknowledgements"] == 3), "{status}");

    broker.good(&["queue", "consume", "jobs", "-g", "plain", "-n", "1"], b"");
    let plain = describe(&broker, "plain");
    assert_eq!((&plain["lag"], &plain["partitions"].as_array().unwrap().len()), (&12.into(), &2), "{plain}");
    assert!(plain["lag_ms"].as_u64().is_some_and(|ms| 0 < ms), "{plain}");
    let without = broker.run(&["queue", "redrive", "jobs", "-g", "plain"], b"").bad(1);
    assert!(without.contains("dead-letter"), "{without}");
    let unknown = broker.run(&["queue", "redrive", "jobs", "-g", "nobody"], b"").bad(1);
    assert!(unknown.contains("no shared queue of group nobody on topic jobs"), "{unknown}");
}

/// The command waits for a word of ours, for several leases, while another member waits for the record.
#[test]
fn a_command_that_runs_for_longer_than_a_lease_keeps_its_record() {
    const LEASE: Duration = Duration::from_secs(1);
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "jobs", "-p", "1"], b"");
    broker.good(&["produce", "jobs"], b"a\n");
    let (words, attempts) = (place.path().join("words"), place.path().join("attempts"));
    assert!(std::process::Command::new("mkfifo").arg(&words).status().unwrap().success());
    // Open at both ends, so that nobody waits for anybody.
    let mut say = std::fs::OpenOptions::new().read(true).write(true).open(&words).unwrap();
    let command = format!("echo $CORELANE_ATTEMPT >> {}; read word < {}", attempts.display(), words.display());
    let quic = broker.quic.to_string();
    let slow = ["queue", "consume", "jobs", "-g", "workers", "--visibility", "1s", "-n", "1", "--exec", &command];
    let slow = [&slow[..], &["--broker", &quic]].concat();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| place.run(&slow, b""));
        wait_until(|| attempts.exists());
        let mut other = Running::start(&place, &["queue", "consume", "jobs", "-g", "workers", "--broker", &quic]);
        assert!(other.is_silent(LEASE * 5 / 2), "it was handed to another: {:?}", other.lines());
        say.write_all(b"enough\n").unwrap();
        slow.join().unwrap().good();
        other.interrupt();
    });
    assert_eq!(std::fs::read_to_string(&attempts).unwrap(), "1\n", "it was handed out once");
    let described = describe(&broker, "workers");
    assert_eq!(described["partitions"][0]["done_end"], 1, "{described}");
    let (_, metrics) = crate::admin::get(broker.admin, "/metrics");
    let line = "corelane_queue_deliveries_total{group=\"workers\",topic=\"jobs\"} 1\n";
    assert!(metrics.contains(line), "{line} is missing in {metrics}");
}

#[test]
fn wrong_wishes_for_queues_are_told_with_what_would_be_right() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "jobs", "-p", "1"], b"");
    broker.good(&["produce", "jobs"], numbers(0..9).as_bytes());
    let consume = |group: &str, more: &[&str], code: i32| {
        let line = [&["queue", "consume", "jobs", "-n", "1", "-g", group], more].concat();
        broker.run(&line, b"").bad(code)
    };
    let tells = |text: &str, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    };
    tells(&consume("w", &["--dispatch", "fair"], 2), &["round-robin", "random", "weighted", "least-response-time"]);
    tells(&consume("w", &["--delivery-limit", "3"], 1), &["delivery limit of 3", "dead-letter topic"]);
    let dead = ["--delivery-limit", "3", "--dead-letter", "nowhere"];
    tells(&consume("w", &dead, 1), &["no dead-letter topic nowhere", "create it"]);
    tells(&consume("w", &["--visibility", "1ms"], 2), &["--visibility", "1ms is not between 50ms and 12h"]);
    consume("w", &["--weight", "0"], 2);
    broker.good(&["queue", "consume", "jobs", "-n", "1", "-g", "w"], b"");
    tells(&consume("w", &["--backoff", "0s,5s"], 1), &["back-off 1s..60s, not 0s,5s", "alter the queue"]);
    broker.good(&["queue", "alter", "jobs", "-g", "w", "--visibility", "50ms"], b"");
    // While the command runs, the member is stopped until the lease has ended.
    let (program, quic) = (env!("CARGO_BIN_EXE_corelane"), broker.quic);
    let describe_again = format!("{program} queue describe jobs -g w --json --broker {quic}");
    let wait = format!("until {describe_again} | grep -q '\"failed\": [1-9]'; do :; done");
    let slow = consume("w", &["--exec", &format!("kill -STOP $PPID; {wait}; kill -CONT $PPID")], 1);
    let parts = [
        "not acknowledged: jobs 0@1: the lease is over",
        "1 record was",
        "corelane queue alter jobs -g w --visibility",
    ];
    tells(&slow, &parts);
    assert_eq!(describe(&broker, "w")["partitions"][0]["done_end"], 1, "what was done before it is");
    let members = describe(&broker, "w");
    assert_eq!(members["members"], 0, "it has left all the same");

    broker.good(&["consume", "jobs", "-g", "g", "--reset", "earliest", "-n", "1"], b"");
    tells(&consume("g", &[], 1), &["g is in use as a consumer group"]);
    let group = broker.run(&["consume", "jobs", "-g", "w", "-n", "1"], b"").bad(1);
    tells(&group, &["w is in use as a shared queue on topic jobs"]);
    let none = broker.run(&["queue", "describe", "jobs", "-g", "nobody"], b"").bad(1);
    tells(&none, &["no shared queue of group nobody on topic jobs", "the first member makes it"]);
    let none = broker.run(&["queue", "consume", "nothing", "-g", "w"], b"").bad(1);
    tells(&none, &["there is no topic nothing"]);
}

/// One client and its member live through the death of the broker.
#[test]
fn a_broker_that_is_killed_under_leases_and_acknowledgements_delivers_again_what_was_not_done() {
    const RECORDS: u32 = 400;
    let place = Place::new();
    let broker = RefCell::new(Some(Broker::start(&place, &["--shards", "2"])));
    let address = address(&place, broker.borrow().as_ref().unwrap());
    let program = async {
        let client = corelane::connect(&address).await.unwrap();
        client.admin().create_topic("jobs", 3, TopicSettings::default()).await.unwrap();
        let mut a = member(&client, RECORDS / 2).await;
        let mut b = member(&client, RECORDS / 2).await;
        produce(&client, "jobs", 0..RECORDS).await;
        let (of_a, of_b) = (hold(&mut a, 200).await, hold(&mut b, 200).await);
        let answered: Vec<_> = of_a.iter().take(100).map(|&(number, lease)| (number, a.ack(lease))).collect();
        let mut done = BTreeSet::new();
        for (number, ticket) in answered {
            ticket.durable().await.unwrap();
            done.insert(number);
        }
        // Said, and not answered when the broker dies: each of these is done or comes again, and its ticket says what.
        let said: Vec<_> = of_b.iter().take(100).map(|&(number, lease)| (number, b.ack(lease))).collect();
        let before = broker.borrow_mut().take().unwrap();
        *broker.borrow_mut() = Some(before.kill_and_start(&["--shards", "2"]));

        let seen = RefCell::new(BTreeSet::new());
        let settled = async {
            let mut settled = BTreeSet::new();
            for (number, ticket) in said {
                if ticket.durable().await.is_ok() {
                    settled.insert(number);
                }
            }
            settled
        };
        let drain = async |consumer: &mut QueueConsumer| {
            loop {
                for (number, lease) in take(consumer).await.unwrap_or_default() {
                    seen.borrow_mut().insert(number);
                    consumer.ack(lease);
                }
                let queue = client.queues().describe("workers", "jobs").await.unwrap();
                let done: u64 = queue.partitions.iter().map(|partition| partition.done_end).sum();
                if done == u64::from(RECORDS) {
                    break;
                }
            }
        };
        let (settled, (), ()) = tokio::join!(settled, drain(&mut a), drain(&mut b));
        let seen = seen.into_inner();
        assert!(seen.is_disjoint(&done), "what was acknowledged and answered is not delivered again");
        for number in 0..RECORDS {
            let is_known = done.contains(&number) || settled.contains(&number);
            assert!(
                is_known || seen.contains(&number),
                "record {number} was leased, not done, and came to nobody again"
            );
        }
        a.close().await.unwrap();
        b.close().await.unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, program).await }).expect("within the deadline");
}

/// A running command goes on when its broker is back.
#[test]
fn a_worker_on_the_command_line_goes_on_after_the_broker_was_killed() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    broker.good(&["topic", "create", "jobs", "-p", "2"], b"");
    broker.good(&["produce", "jobs"], numbers(0..300).as_bytes());
    let quic = broker.quic.to_string();
    let mut worker = Running::start(&place, &["queue", "consume", "jobs", "-g", "workers", "--broker", &quic]);
    worker.read(|lines| 300 <= lines.len());
    let broker = broker.kill_and_start(&["--shards", "2"]);
    broker.good(&["produce", "jobs"], numbers(300..600).as_bytes());
    let is_whole = |lines: &[String]| {
        let different: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
        different.len() == 600
    };
    worker.read(is_whole);
    wait_until(|| describe(&broker, "workers")["ready"] == 0 && describe(&broker, "workers")["leased"] == 0);
    worker.interrupt();
    assert_eq!(describe(&broker, "workers")["members"], 0);
}
