//! The SDK against a broker that runs: tickets, consumers and admin calls from a program's side.

use std::collections::BTreeMap;

use corelane::{
    Client, Error, ErrorCode, Offset, PartitionIndex, Record, RequestError, StartAt, TopicClass, TopicSettings,
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
    let found = client.admin().find_offset("round-trip", PartitionIndex(0), StartAt::Latest).await.unwrap();
    assert_eq!(Some(found.offset), consumer.positions().first().map(|position| position.next));
}

#[test]
fn every_record_comes_back_once_and_in_order() {
    for class in [TopicClass::Durable, TopicClass::Memory] {
        with_client(|client| round_trip(client, class));
    }
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
