//! One edge of a tick through the SDK: a thousand partitions get one record of 64 B each, and all are stored before the
//! next edge.
//!
//! It wants a broker: `CORELANE_BROKER=127.0.0.1:7420 cargo bench --package corelane --bench edge`; without one it does
//! nothing. For instruction counts of a record: `valgrind --tool=callgrind` on the built bench with `--bench`, or on the
//! broker while the bench runs. `CORELANE_EDGES` says how many edges there are, 20 if it does not: the difference between two
//! numbers of edges is free of what connecting and opening cost. With `CORELANE_READ=1` a consumer on a connection of its
//! own reads all partitions meanwhile, and an edge is over when it has read everything, too.

#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]

use std::time::{Duration, Instant};

use corelane::{Client, Consumer, PartitionIndex, Record, TopicSettings};

const PARTITIONS: u32 = 1000;
/// The broker and the client come to rest between edges, as they do within a tick.
const PAUSE: Duration = Duration::from_millis(5);

fn main() {
    let Ok(broker) = std::env::var("CORELANE_BROKER") else {
        println!("edge: CORELANE_BROKER names no broker");
        return;
    };
    let edges = std::env::var("CORELANE_EDGES").map_or(20, |edges| edges.parse().expect("CORELANE_EDGES is a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&broker, edges));
}

async fn run(broker: &str, edges: usize) {
    let client = corelane::connect(broker).await.expect("the broker is there");
    let topic = format!("bench-edge-{}", std::process::id());
    client.admin().create_topic(&topic, PARTITIONS, TopicSettings::default()).await.expect("the topic is new");
    let producer = client.producer(&topic).open().await.expect("the topic is there");
    let mut reader = match std::env::var("CORELANE_READ").as_deref() {
        Ok("1") => Some(read(broker, &topic).await),
        _ => None,
    };
    let (value, mut took) = ([7; 64], Vec::new());
    for _ in 0..edges {
        let start = Instant::now();
        let gathering = client.gather();
        let send = |partition| producer.send(Record::new(&value).partition(PartitionIndex(partition)));
        let tickets: Vec<_> = (0..PARTITIONS).map(|partition| send(partition).expect("there is room")).collect();
        drop(gathering);
        for ticket in tickets {
            ticket.stored().await.expect("the broker stores it");
        }
        let mut unread = if reader.is_some() { PARTITIONS as usize } else { 0 };
        while let Some((_, consumer)) = reader.as_mut().filter(|_| unread != 0) {
            unread -= consumer.next().await.expect("the consumer is open").expect("the broker can read").len();
        }
        took.push(start.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    if let Some((client, consumer)) = reader {
        drop(consumer);
        client.close().await;
    }
    client.admin().delete_topic(&topic).await.expect("the topic is there");
    client.close().await;
    took.sort();
    println!("{PARTITIONS} partitions: median {:?} of {edges} edges", took.get(edges / 2));
}

async fn read(broker: &str, topic: &str) -> (Client, Consumer) {
    let client = corelane::connect(broker).await.expect("the broker is there");
    let consumer = client.consumer(topic).open().await.expect("the topic is there");
    (client, consumer)
}
