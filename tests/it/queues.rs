//! Shared queues through a running broker: from a program's side and from the command line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use corelane::{Client, Lease, Nack, QueueConsumer, Record, TopicSettings, VerdictError};

use crate::DEADLINE;
use crate::broker::{Broker, Place};
use crate::round_trip::numbers;

/// Where clients find the broker.
fn address(place: &Place, broker: &Broker<'_>) -> String {
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    format!("corelane://{}?pin={}", broker.quic, pin.trim())
}

/// Runs a program as a client of the broker.
fn with_client<F: Future<Output = ()>>(place: &Place, broker: &Broker<'_>, program: impl FnOnce(Client) -> F) {
    let address = address(place, broker);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let program = async { program(corelane::connect(&address).await.unwrap()).await };
    runtime.block_on(async { tokio::time::timeout(DEADLINE, program).await }).expect("within the deadline");
}

async fn produce(client: &Client, topic: &str, numbers: std::ops::Range<u32>) {
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

/// The first records leave before the new queue's settings are on disk, so before the join is answered.
#[test]
fn the_first_member_of_a_new_queue_is_handed_what_is_there_in_its_first_delivery() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    with_client(&place, &broker, async |client| {
        client.admin().create_topic("jobs", 1, TopicSettings::default()).await.unwrap();
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
