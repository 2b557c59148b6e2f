//! The SDK against a broker that runs already, named by `CORELANE_BROKER`:
//! `CORELANE_BROKER=127.0.0.1:7420 cargo test -p corelane --test live -- --ignored`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use corelane::{
    Acks, Client, Error, ErrorCode, Offset, PartitionIndex, Record, RequestError, SendError, StartAt, TopicClass,
    TopicSettings,
};

async fn client() -> Client {
    let broker = std::env::var("CORELANE_BROKER").expect("CORELANE_BROKER names a broker");
    corelane::connect(&broker).await.unwrap()
}

/// A topic of its own for each test and run.
async fn topic(client: &Client, what: &str, partitions: u32, class: TopicClass) -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("live-{what}-{nanos}");
    let settings = TopicSettings { class, ..TopicSettings::default() };
    client.admin().create_topic(&name, partitions, settings).await.unwrap();
    name
}

async fn round_trip(class: TopicClass) {
    const RECORDS: u64 = 20_000;
    let client = client().await;
    let name = topic(&client, "round-trip", 4, class).await;
    let mut consumer = client.consumer(&name).from(StartAt::Earliest).open().await.unwrap();
    let producer = client.producer(&name).open().await.unwrap();
    assert_eq!(producer.partitions(), 4);
    let sending = async {
        let mut tickets = Vec::new();
        for number in 0..RECORDS {
            let (key, value) = (format!("player-{}", number % 10), number.to_le_bytes());
            let record = Record::new(&value).key(&key);
            tickets.push(producer.reserve(&record).await.send(record).unwrap());
        }
        for ticket in &tickets {
            ticket.stored().await.unwrap();
        }
    };
    let reading = async {
        let mut last: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut next: BTreeMap<PartitionIndex, Offset> = BTreeMap::new();
        let mut count = 0;
        while count < RECORDS {
            let batch = consumer.next().await.unwrap().unwrap();
            for record in &batch {
                let number = u64::from_le_bytes(record.value.unwrap().try_into().unwrap());
                let before = last.insert(record.key.unwrap().to_vec(), number);
                assert!(before.is_none_or(|before| before < number), "keys stay in order");
                let expected = next.insert(batch.partition(), record.offset.advance(1)).unwrap_or(Offset::ZERO);
                assert_eq!(record.offset, expected, "offsets are dense");
                count += 1;
            }
        }
    };
    tokio::join!(sending, reading);
    let found = client.admin().find_offset(&name, PartitionIndex(0), StartAt::Latest).await.unwrap();
    assert_eq!(Some(found.offset), consumer.positions().first().map(|position| position.next));
    client.admin().delete_topic(&name).await.unwrap();
    client.drain().await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn every_durable_record_comes_back_once_and_in_order() {
    round_trip(TopicClass::Durable).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a broker"]
async fn every_record_in_memory_comes_back_once_and_in_order() {
    round_trip(TopicClass::Memory).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_topic_is_managed() {
    let client = client().await;
    let name = topic(&client, "managed", 2, TopicClass::Durable).await;
    let admin = client.admin();
    let again = admin.create_topic(&name, 2, TopicSettings::default()).await;
    let exists = matches!(&again, Err(Error::Request(RequestError::Refused { code: ErrorCode::TopicExists, .. })));
    assert!(exists, "{again:?}");
    assert!(admin.list_topics().await.unwrap().topics.iter().any(|topic| topic.name.as_str() == name));
    assert!(admin.alter_topic(&name, Some(5), None).await.unwrap(), "more partitions move keys");
    let producer = client.producer(&name).open().await.unwrap();
    assert_eq!(producer.partitions(), 5);
    let partition = PartitionIndex(4);
    for number in 0..10_u64 {
        let value = number.to_le_bytes();
        producer.send(Record::new(&value).partition(partition)).unwrap().stored().await.unwrap();
    }
    assert_eq!(admin.truncate(&name, partition, Some(Offset(6))).await.unwrap(), Offset(6));
    let described = admin.describe_topic(&name).await.unwrap();
    assert_eq!(described.partitions.len(), 5);
    assert_eq!((described.partitions[4].log_start, described.partitions[4].durable_end), (6, 10));
    let mut consumer = client.consumer(&name).partition(partition).from(StartAt::Earliest).open().await.unwrap();
    let batch = consumer.next().await.unwrap().unwrap();
    assert_eq!(batch.iter().next().unwrap().offset, Offset(6));
    let outside = client.consumer(&name).partition(partition).from(StartAt::Offset(Offset(2))).open().await;
    assert!(outside.is_err(), "an offset before the log start is refused");
    admin.delete_topic(&name).await.unwrap();
    assert!(client.producer(&name).open().await.is_err());
    assert!(client.producer("no such name").open().await.is_err());
}

/// Kill the broker with SIGKILL and start it again as often as you like while this runs, for `CORELANE_SECONDS`.
#[tokio::test]
#[ignore = "needs a broker, and somebody who kills it"]
async fn nothing_is_lost_or_doubled_over_crashes() {
    const PARTITIONS: u32 = 4;
    let seconds = std::env::var("CORELANE_SECONDS").map_or(5, |text| text.parse().unwrap());
    let client = client().await;
    let name = topic(&client, "crashes", PARTITIONS, TopicClass::Durable).await;
    let producer = client.producer(&name).open().await.unwrap();
    let began = Instant::now();
    let mut tickets = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while began.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        for _ in 0..20 {
            let number = u32::try_from(tickets.len()).unwrap();
            let value = number.to_le_bytes();
            let record = Record::new(&value).partition(PartitionIndex(number % PARTITIONS));
            tickets.push(producer.reserve(&record).await.send(record).unwrap());
        }
    }
    let mut stored = BTreeMap::new();
    let mut unknown = 0;
    for (number, ticket) in (0..).zip(&tickets) {
        match ticket.stored().await {
            Ok(delivered) => drop(stored.insert((delivered.partition, delivered.offset), number)),
            Err(error) => {
                assert!(error.may_be_stored(), "{number}: {error}");
                unknown += 1;
            }
        }
    }
    let (text, sent) = (format!("{unknown} unknown of {}, {:?}", tickets.len(), client.stats()), tickets.len());
    std::fs::write(std::env::temp_dir().join("corelane-live-crashes.txt"), &text).unwrap();
    let mut consumer = client.consumer(&name).from(StartAt::Earliest).open().await.unwrap();
    let ends: u64 = consumer.positions().iter().map(|position| position.high_watermark.0).sum();
    let mut last: BTreeMap<PartitionIndex, u32> = BTreeMap::new();
    let mut found = 0;
    for _ in 0..ends {
        if found == ends {
            break;
        }
        let batch = consumer.next().await.unwrap().unwrap();
        for record in &batch {
            let number = u32::from_le_bytes(record.value.unwrap().try_into().unwrap());
            let before = last.insert(batch.partition(), number);
            assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
            if let Some(told) = stored.remove(&(batch.partition(), record.offset)) {
                assert_eq!(told, number, "what was told lies elsewhere");
            }
            found += 1;
        }
    }
    assert!(stored.is_empty(), "{} stored records are lost; {text}", stored.len());
    assert_eq!(usize::try_from(found).unwrap(), sent - unknown, "records that were not told are unknown");
    client.drain().await;
}

/// Not a benchmark: shows the order of size on the machine at hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs a broker"]
async fn sending_does_not_wait() {
    const RECORDS: u32 = 1_000_000;
    let client = client().await;
    let name = topic(&client, "speed", 1, TopicClass::Memory).await;
    let producer = client.producer(&name).acks(Acks::Received).open().await.unwrap();
    let value = [7; 64];
    let began = Instant::now();
    let mut full = 0;
    for _ in 0..RECORDS {
        while let Err(error) = producer.send_detached(Record::new(&value)) {
            assert!(matches!(error, SendError::Full(_)));
            full += 1;
            drop(producer.reserve(&Record::new(&value)).await);
        }
    }
    let sent = began.elapsed();
    producer.flush().await;
    let delivered = began.elapsed();
    let mut trips: Vec<Duration> = Vec::new();
    for _ in 0..2_000 {
        let began = Instant::now();
        producer.send(Record::new(&value)).unwrap().received().await.unwrap();
        trips.push(began.elapsed());
    }
    trips.sort();
    let text = format!(
        "sent in {sent:?}, delivered in {delivered:?}, {full} times full, round trip p50 {:?} p99 {:?}, {:?}",
        trips[1_000],
        trips[1_980],
        client.stats()
    );
    std::fs::write(std::env::temp_dir().join("corelane-live.txt"), &text).unwrap();
    assert_eq!(client.stats().records_failed, 0, "{text}");
    client.drain().await;
}
