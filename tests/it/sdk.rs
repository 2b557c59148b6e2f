//! The SDK against a broker that runs: tickets, consumers and admin calls from a program's side.

use std::collections::BTreeMap;

use corelane::{
    Client, Compression, Error, ErrorCode, Isolation, Offset, PartitionIndex, Record, RequestError, StartAt,
    TopicClass, TopicSettings,
};

use crate::DEADLINE;
use crate::broker::{Broker, Place};

/// Runs a program against a broker of its own.
fn with_client<F: Future<Output = ()>>(program: impl FnOnce(Client) -> F) {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "2"]);
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    let address = format!("corelane://{}?pin={}", broker.quic, pin.trim());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let program = async {
        let client = corelane::connect(&address).await.unwrap();
        program(client.clone()).await;
        client.drain().await;
    };
    runtime.block_on(async { tokio::time::timeout(DEADLINE, program).await }).expect("all of it within the deadline");
}

async fn round_trip(client: Client, class: TopicClass) {
    const RECORDS: u64 = 20_000;
    let settings = TopicSettings { class, ..TopicSettings::default() };
    client.admin().create_topic("round-trip", 4, settings).await.unwrap();
    let mut consumer = client.consumer("round-trip").from(StartAt::Earliest).open().await.unwrap();
    let producer = client.producer("round-trip").open().await.unwrap();
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
    let found = client
        .admin()
        .find_offset("round-trip", PartitionIndex(0), StartAt::Latest, Isolation::Uncommitted)
        .await
        .unwrap();
    assert_eq!(Some(found.offset), consumer.positions().first().map(|position| position.next));
}

#[test]
fn every_record_comes_back_once_and_in_order() {
    for class in [TopicClass::Durable, TopicClass::Memory] {
        with_client(|client| round_trip(client, class));
    }
}

/// While somebody writes: whoever comes gets every key and then what follows, each key in order and to its last value.
async fn snapshot_then_live(client: Client) {
    const KEYS: u64 = 200;
    const ROUNDS: u64 = 60;
    client.admin().create_topic("newest", 1, TopicSettings::latest()).await.unwrap();
    let producer = client.producer("newest").open().await.unwrap();
    let send = async |number: u64| {
        let (key, value) = (format!("player-{}", number % KEYS), number.to_le_bytes());
        let record = Record::new(&value).key(&key);
        producer.reserve(&record).await.send(record).unwrap()
    };
    let mut last = None;
    for number in 0..KEYS * ROUNDS / 2 {
        last = Some(send(number).await);
    }
    last.take().unwrap().stored().await.unwrap();
    let reading = async {
        let mut consumer = client.consumer("newest").from(StartAt::Earliest).credit_bytes(4096).open().await.unwrap();
        let mut values: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut records = 0;
        while values.values().filter(|&&number| KEYS * (ROUNDS - 1) <= number).count() < 200 {
            let batch = consumer.next().await.unwrap().unwrap();
            for record in &batch {
                let number = u64::from_le_bytes(record.value.unwrap().try_into().unwrap());
                let before = values.insert(record.key.unwrap().to_vec(), number);
                assert!(before.is_none_or(|before| before < number), "a key goes back from {before:?} to {number}");
                records += 1;
            }
        }
        assert_eq!(values.len() as u64, KEYS, "no key is missing");
        assert!(records <= KEYS + KEYS * ROUNDS / 2, "{records} records: the snapshot has one of each key");
    };
    let writing = async {
        for number in KEYS * ROUNDS / 2..KEYS * ROUNDS {
            last = Some(send(number).await);
        }
        last.take().unwrap().stored().await.unwrap();
    };
    tokio::join!(reading, writing);
}

#[test]
fn a_reader_of_newest_values_gets_a_snapshot_and_then_what_follows() {
    with_client(snapshot_then_live);
}

#[test]
fn new_keys_are_refused_when_a_partition_of_newest_values_is_full() {
    with_client(|client| async move {
        let settings = TopicSettings { retention_bytes: Some(1 << 20), ..TopicSettings::latest() };
        client.admin().create_topic("small", 1, settings).await.unwrap();
        let producer = client.producer("small").open().await.unwrap();
        let value = vec![7; 200 << 10];
        for key in ["a", "b", "c", "d", "e"] {
            producer.send(Record::new(&value).key(key)).unwrap().stored().await.unwrap();
        }
        let refused = producer.send(Record::new(&value).key("f")).unwrap().stored().await.unwrap_err();
        assert!(refused.to_string().contains("new keys are refused"), "{refused}");
        producer.send(Record::new(&value).key("a")).unwrap().stored().await.unwrap();
        let keyless = producer.send(Record::new(&value)).unwrap().stored().await.unwrap_err();
        assert!(keyless.to_string().contains("has no key"), "{keyless}");
    });
}

#[test]
fn a_topic_is_managed_by_a_program() {
    with_client(|client| async move {
        let (admin, name) = (client.admin(), "managed");
        admin.create_topic(name, 2, TopicSettings::default()).await.unwrap();
        let again = admin.create_topic(name, 2, TopicSettings::default()).await;
        let exists = matches!(&again, Err(Error::Request(RequestError::Refused { code: ErrorCode::TopicExists, .. })));
        assert!(exists, "{again:?}");
        assert!(admin.alter_topic(name, Some(5), None).await.unwrap(), "more partitions move keys");
        let producer = client.producer(name).open().await.unwrap();
        assert_eq!(producer.partitions(), 5);
        let partition = PartitionIndex(4);
        for number in 0..10_u64 {
            let value = number.to_le_bytes();
            producer.send(Record::new(&value).partition(partition)).unwrap().stored().await.unwrap();
        }
        assert_eq!(admin.truncate(name, partition, Some(Offset(6))).await.unwrap(), Offset(6));
        let described = admin.describe_topic(name).await.unwrap();
        assert_eq!(described.partitions.len(), 5);
        assert_eq!((described.partitions[4].log_start, described.partitions[4].durable_end), (6, 10));
        let mut consumer = client.consumer(name).partition(partition).from(StartAt::Earliest).open().await.unwrap();
        let batch = consumer.next().await.unwrap().unwrap();
        assert_eq!(batch.iter().next().unwrap().offset, Offset(6));
        let outside = client.consumer(name).partition(partition).from(StartAt::Offset(Offset(2))).open().await;
        assert!(outside.is_err(), "an offset before the log start is refused");
        admin.delete_topic(name).await.unwrap();
        assert!(client.producer(name).open().await.is_err());
        assert!(client.producer("no such name").open().await.is_err());
    });
}

async fn compressed_round_trip(client: Client) {
    const RECORDS: u64 = 500;
    client.admin().create_topic("compressed", 1, TopicSettings::default()).await.unwrap();
    let value = |number: u64| format!("{number}: {}", "state of the match ".repeat(40));
    for (place, compression) in [Compression::None, Compression::Lz4, Compression::Zstd].into_iter().enumerate() {
        let producer = client.producer("compressed").compression(compression).open().await.unwrap();
        let mut last = None;
        for number in 0..RECORDS {
            let value = value(number + place as u64 * RECORDS);
            let headers = [("kind", Some(b"state".as_slice()))];
            let record = Record::new(value.as_bytes()).key("match-7").header(&headers);
            last = Some(producer.reserve(&record).await.send(record).unwrap());
        }
        last.unwrap().stored().await.unwrap();
    }
    let mut consumer = client.consumer("compressed").from(StartAt::Earliest).open().await.unwrap();
    let mut number = 0;
    while number < 3 * RECORDS {
        let batch = consumer.next().await.unwrap().unwrap();
        for record in &batch {
            assert_eq!(record.offset.0, number);
            assert_eq!((record.key, record.value), (Some(b"match-7".as_slice()), Some(value(number).as_bytes())));
            assert_eq!(record.headers().collect::<Vec<_>>(), [("kind", Some(b"state".as_slice()))]);
            number += 1;
        }
    }
}

#[test]
fn compressed_records_come_back_as_they_were() {
    with_client(compressed_round_trip);
}
