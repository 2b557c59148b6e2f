//! Transactions over the death of the broker.

use std::time::Duration;

use corelane::{
    Client, Decision, Event, GroupBatch, GroupConsumer, Isolation, PartitionIndex, Record, ResetPolicy, StartAt,
    TopicSettings, TransactionError, Transactional,
};

use crate::DEADLINE;
use crate::broker::{Broker, Place};

const ROUNDS: u64 = 4;

async fn connect(broker: &Broker<'_>, place: &Place) -> Client {
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    corelane::connect(&format!("corelane://{}?pin={}", broker.quic, pin.trim())).await.unwrap()
}

/// Values of all partitions up to what is the end of committed records now.
async fn committed(client: &Client, topic: &str) -> Vec<String> {
    let builder = client.consumer(topic).from(StartAt::Earliest).isolation(Isolation::Committed);
    let mut consumer = builder.open().await.unwrap();
    let mut values = Vec::new();
    while consumer.positions().iter().any(|position| position.next < position.high_watermark) {
        let corelane::Progress::Batch(batch) = consumer.progress().await.unwrap().unwrap() else { continue };
        values.extend(batch.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
    }
    values.sort();
    values
}

fn run<F: Future<Output = ()>>(program: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, program).await }).expect("all of it within the deadline");
}

#[test]
fn a_broker_that_dies_between_records_and_commit_shows_all_of_them_or_none() {
    let place = Place::new();
    run(async {
        let mut expected: Vec<String> = Vec::new();
        for round in 0..ROUNDS {
            let broker = Broker::start(&place, &["--shards", "2"]);
            let client = connect(&broker, &place).await;
            if round == 0 {
                client.admin().create_topic("output", 4, TopicSettings::default()).await.unwrap();
            }
            let mut transactional = client.transactional("settle-matches").open().await.unwrap();
            assert_eq!(committed(&client, "output").await, expected, "what was left open is aborted");
            let values: Vec<String> = (0..4).map(|partition| format!("{round}-{partition}")).collect();
            // What is committed before the crash survives it.
            let mut transaction = transactional.begin().await.unwrap();
            for (partition, value) in (0..).zip(&values) {
                let record = Record::new(value).partition(PartitionIndex(partition));
                transaction.send("output", record).await.unwrap();
            }
            transaction.commit().await.unwrap();
            expected.extend(values);
            assert_eq!(committed(&client, "output").await, expected);
            // What is durable and not decided is seen by nobody, before and after.
            let mut transaction = transactional.begin().await.unwrap();
            for partition in 0..4 {
                let record = Record::new("never").partition(PartitionIndex(partition));
                transaction.send("output", record).await.unwrap();
            }
            transaction.flush().await.unwrap();
            assert_eq!(committed(&client, "output").await, expected);
            broker.kill();
            client.close().await;
        }
    });
}

/// Makes an output of a batch, and ends in one of five ways.
async fn settle(
    transactional: &mut Transactional,
    member: &mut GroupConsumer,
    batch: &GroupBatch,
    way: u32,
) -> Result<bool, TransactionError> {
    let mut transaction = transactional.begin().await?;
    for record in batch {
        transaction.send("output", Record::new(record.value.unwrap())).await?;
    }
    transaction.flush().await?;
    match way {
        0 => drop(transaction),
        1 => transaction.abort().await?,
        _ => {
            transaction.commit_offsets(member).await?;
            match way {
                2 => drop(transaction),
                3 => transaction.abort().await?,
                _ => transaction.commit().await?,
            }
        }
    }
    Ok(way == 4)
}

#[test]
fn what_was_aborted_is_read_again_by_the_same_member() {
    const RECORDS: u32 = 24;
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    run(async {
        let client = connect(&broker, &place).await;
        for topic in ["input", "output"] {
            client.admin().create_topic(topic, 2, TopicSettings::default()).await.unwrap();
        }
        let producer = client.producer("input").open().await.unwrap();
        let mut expected = Vec::new();
        for number in 0..RECORDS {
            // A batch each.
            let value = format!("match {number:02}");
            let record = Record::new(&value).partition(PartitionIndex(number % 2));
            producer.send(record).unwrap().stored().await.unwrap();
            expected.push(value);
        }
        let mut transactional = client.transactional("pipe").open().await.unwrap();
        let group = client.group("pipe").topics(["input"]).reset(ResetPolicy::Earliest).manual_commit();
        let mut member = group.isolation(Isolation::Committed).join().await.unwrap();
        let (mut rounds, mut done) = (0, 0);
        while done < RECORDS {
            let Event::Batch(batch) = member.next().await.unwrap().unwrap() else { continue };
            if settle(&mut transactional, &mut member, &batch, rounds % 5).await.unwrap() {
                done += u32::try_from(batch.len()).unwrap();
            } else {
                let ended = transactional.rewind(&mut member).await.unwrap();
                assert_eq!(ended, [0, 2].contains(&(rounds % 5)).then_some(Decision::Abort));
            }
            rounds += 1;
        }
        assert!(4 * RECORDS < rounds, "each batch was aborted four times before: {rounds}");
        assert_eq!(committed(&client, "output").await, expected, "each once");
        let of_member = member.committed().await.unwrap();
        let of_group = client.groups().committed("pipe", "input").await.unwrap();
        assert!(
            of_member
                .iter()
                .map(|(partition, committed)| (partition.partition, committed))
                .eq(of_group.iter().map(|(&partition, committed)| (partition, committed)))
        );
        let half = u64::from(RECORDS / 2);
        assert!(of_group.values().all(|committed| committed.offset.0 == half && 0 < committed.at.0), "{of_group:?}");
        assert_eq!(of_group.len(), 2);
        member.rewind().await.unwrap();
        assert!(member.try_next().is_none(), "there is nothing to read again");
        let unknown = client.groups().committed("nobody", "input").await.unwrap_err();
        assert!(!unknown.is_retriable(), "{unknown}");
        client.close().await;
    });
}

#[test]
fn a_shared_queue_gets_records_of_committed_transactions_alone() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    run(async {
        let client = connect(&broker, &place).await;
        client.admin().create_topic("output", 2, TopicSettings::default()).await.unwrap();
        let mut member = client.queue("workers", "output").join().await.unwrap();
        let mut transactional = client.transactional("settle-matches").open().await.unwrap();
        for (value, decision) in [("never", Decision::Abort), ("once", Decision::Commit)] {
            let mut transaction = transactional.begin().await.unwrap();
            for partition in 0..2 {
                let record = Record::new(value).partition(PartitionIndex(partition));
                transaction.send("output", record).await.unwrap();
            }
            transaction.flush().await.unwrap();
            match decision {
                Decision::Abort => transaction.abort().await.unwrap(),
                Decision::Commit => transaction.commit().await.unwrap(),
            }
        }
        let mut values = Vec::new();
        while values.len() < 2 {
            let leased = member.next().await.unwrap().unwrap();
            values.extend(leased.iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            member.ack(&leased).durable().await.unwrap();
        }
        assert_eq!(values, ["once", "once"]);
        let queue = client.queues().describe("workers", "output").await.unwrap();
        assert_eq!((queue.lag(), queue.lag_ms()), (0, Some(0)), "{queue:?}");
        member.close().await.unwrap();
        client.close().await;
    });
    let (_, metrics) = crate::admin::get(broker.admin, "/metrics");
    let sum = |name: &str| -> u64 {
        let samples = metrics.lines().filter(|line| line.starts_with(&format!("corelane_transaction_{name}{{")));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let names = ["ids", "open", "committed_total", "aborted_total", "timed_out_total", "fenced_total"];
    assert_eq!(names.map(sum), [1, 0, 1, 1, 0, 0], "{metrics}");
}

#[test]
fn offsets_are_committed_with_what_was_made_of_them() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    run(async {
        let client = connect(&broker, &place).await;
        for topic in ["input", "output"] {
            client.admin().create_topic(topic, 1, TopicSettings::default()).await.unwrap();
        }
        let producer = client.producer("input").open().await.unwrap();
        producer.send(Record::new("match")).unwrap().stored().await.unwrap();
        let mut transactional = client.transactional("pipe").timeout(Duration::from_secs(30)).open().await.unwrap();
        for decision in [Decision::Abort, Decision::Commit] {
            let group = client.group("pipe").topics(["input"]).reset(ResetPolicy::Earliest).manual_commit();
            let mut member = group.isolation(Isolation::Committed).join().await.unwrap();
            let mut transaction = transactional.begin().await.unwrap();
            loop {
                let Event::Batch(batch) = member.next().await.unwrap().unwrap() else { continue };
                for record in &batch {
                    transaction.send("output", Record::new(record.value.unwrap())).await.unwrap();
                }
                break;
            }
            // An abort does not send what has gathered, and it is to be in the log.
            transaction.flush().await.unwrap();
            assert_eq!(transaction.commit_offsets(&mut member).await.unwrap(), 1);
            match decision {
                Decision::Abort => transaction.abort().await.unwrap(),
                Decision::Commit => transaction.commit().await.unwrap(),
            }
            member.close().await.unwrap();
        }
        assert_eq!(committed(&client, "output").await, ["match"]);
        let described = client.groups().describe("pipe").await.unwrap();
        assert_eq!(described.lag(), Some(0));
        client.close().await;
    });
    // The command line sees the same: both without, one with the isolation.
    let read = |isolation| {
        broker.good(&["consume", "output", "--until", "end", "--isolation", isolation], b"").lines().count()
    };
    assert_eq!((read("uncommitted"), read("committed")), (2, 1));
}

#[test]
fn many_batches_of_a_transaction_are_on_their_way_and_the_first_failure_is_told() {
    const RECORDS: usize = 400;
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    run(async {
        let client = connect(&broker, &place).await;
        client.admin().create_topic("output", 3, TopicSettings::default()).await.unwrap();
        let mut transactional = client.transactional("load").open().await.unwrap();
        // Batches of three partitions, several of each at once.
        let filler = ".".repeat(30_000);
        let values: Vec<_> = (0..RECORDS).map(|number| format!("{number:04} {filler}")).collect();
        let mut transaction = transactional.begin().await.unwrap();
        for (number, value) in (0..).zip(&values) {
            transaction.send("output", Record::new(value).partition(PartitionIndex(number % 3))).await.unwrap();
        }
        assert_eq!(committed(&client, "output").await.len(), 0);
        transaction.commit().await.unwrap();
        assert!(committed(&client, "output").await == values, "each once");

        // Its time runs out while it is at work: the first batch that is refused says so, and nothing more is taken.
        let mut transactional = client.transactional("short").timeout(Duration::from_millis(500)).open().await.unwrap();
        let mut transaction = transactional.begin().await.unwrap();
        let refused = loop {
            if let Err(error) = transaction.send("output", Record::new("never")).await {
                break error;
            }
            if let Err(error) = transaction.flush().await {
                break error;
            }
        };
        let TransactionError::AbortOnly { because: Some(because), .. } = &refused else { panic!("{refused}") };
        assert!(refused.is_retriable() && because.to_string().contains("Ended"), "{refused}");
        assert_eq!(transaction.send("output", Record::new("never")).await, Err(refused.clone()));
        let ended = transaction.commit().await.unwrap_err();
        assert!(matches!(&ended, TransactionError::Aborted { because: Some(_), .. }), "{ended}");
        let mut transaction = transactional.begin().await.unwrap();
        transaction.send("output", Record::new("next")).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(committed(&client, "output").await.len(), RECORDS + 1);
        client.close().await;
    });
}

#[test]
fn the_end_of_committed_records_lies_before_an_open_transaction() {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    run(async {
        let client = connect(&broker, &place).await;
        client.admin().create_topic("output", 1, TopicSettings::default()).await.unwrap();
        let mut transactional = client.transactional("open").open().await.unwrap();
        let mut transaction = transactional.begin().await.unwrap();
        transaction.send("output", Record::new("first")).await.unwrap();
        transaction.commit().await.unwrap();
        let mut transaction = transactional.begin().await.unwrap();
        transaction.send("output", Record::new("open")).await.unwrap();
        transaction.flush().await.unwrap();
        let producer = client.producer("output").open().await.unwrap();
        producer.send(Record::new("behind")).unwrap().stored().await.unwrap();
        let end = async |start, isolation| {
            let found = client.admin().find_offset("output", PartitionIndex(0), start, isolation).await.unwrap();
            (found.offset.0, found.high_watermark.0)
        };
        assert_eq!(end(StartAt::Latest, Isolation::Uncommitted).await, (3, 3));
        assert_eq!(end(StartAt::Latest, Isolation::Committed).await, (1, 1));
        assert_eq!(end(StartAt::Earliest, Isolation::Committed).await, (0, 1));
        // The command line ends there too, while the transaction is open.
        let read = |isolation| {
            broker.good(&["consume", "output", "--until", "end", "--isolation", isolation], b"").lines().count()
        };
        assert_eq!((read("uncommitted"), read("committed"), read("read-committed")), (3, 1, 1));
        broker.good(&["group", "seek", "g", "output", "--to", "latest", "--isolation", "committed"], b"");
        assert_eq!(client.groups().committed("g", "output").await.unwrap()[&PartitionIndex(0)].offset.0, 1);
        transaction.commit().await.unwrap();
        assert_eq!(end(StartAt::Latest, Isolation::Committed).await, (3, 3));
        client.close().await;
    });
}
