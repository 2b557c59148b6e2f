//! Echo, ingest, egress and the disk, through the loop that the broker runs on.

use bytes::Bytes;
use corelane_model::CorrelationId;
use corelane_reactor::floor::{DiskConfig, DiskOperation, DiskPath, measure_disk};
use corelane_record::{RecordBatch, split_batch};
use corelane_wire::{
    Credit, FrameKind, Hello, Ping, Pong, Produce, ProduceAnswers, Push, Start, Subscribe, SubscribeAnswer, Welcome,
    decode, encode, encode_with,
};

use crate::client::{Reader, directory, server, tls, write};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(std::time::Duration::from_secs(60), test).await.unwrap();
    });
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 1, session: (1, 2), client: "test".to_owned(), token: String::new() }
}

#[test]
fn a_client_reaches_the_shard_that_it_names_and_stays_there_when_its_port_changes() {
    let server = server(3);
    run(async {
        for shard in [0, 1, 2, 4, 200] {
            let mut client = server.connect(shard).await;
            client.write(encode(CorrelationId(1), &hello())).await;
            let welcome = decode::<Welcome>(&client.control.frame().await).unwrap();
            assert_eq!((welcome.shard, welcome.shards), (shard % 3, 3));
            for payload in 0..5 {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                client.endpoint.rebind(socket).unwrap();
                client.write(encode(CorrelationId(2), &Ping { payload })).await;
                assert_eq!(decode::<Pong>(&client.control.frame().await).unwrap().payload, payload);
            }
        }
    });
    server.handle.join().unwrap();
}

#[test]
fn ingest_answers_every_frame() {
    let server = server(1);
    run(async {
        let mut client = server.connect(0).await;
        client.write(encode(CorrelationId(0), &hello())).await;
        assert_eq!(client.control.frame().await.head.kind, FrameKind::Welcome);
        let count = 2_000;
        let connection = client.connection.clone();
        let producer = tokio::spawn(async move {
            let mut streams = Vec::new();
            for _ in 0..4 {
                streams.push(connection.open_uni().await.unwrap());
            }
            let batch = Bytes::from(vec![7; 10_000]);
            for serial in 0..count {
                let body = Produce { topic: 1, partition: 0, acks: 1 };
                let frame = encode_with(CorrelationId(serial), &body, vec![batch.clone()]);
                let stream = usize::try_from(serial).unwrap() % streams.len();
                write(&mut streams[stream], frame).await;
            }
            streams
        });
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < usize::try_from(count).unwrap() {
            let answers = decode::<ProduceAnswers>(&client.control.frame().await).unwrap();
            for answer in answers.answers {
                assert!(answer.correlation < count && seen.insert(answer.correlation));
            }
        }
        drop(producer.await.unwrap());
    });
    let stats = server.handle.stats();
    assert!(2_000 <= stats[0].1.quic.frames_received_total);
    server.handle.join().unwrap();
}

#[test]
fn egress_pushes_whole_batches_within_the_credit() {
    let server = server(1);
    run(async {
        let mut client = server.connect(0).await;
        client.write(encode(CorrelationId(0), &hello())).await;
        assert_eq!(client.control.frame().await.head.kind, FrameKind::Welcome);
        let start = Start { kind: 0, value: 0 };
        let body = Subscribe { subscription: 9, topic: 1, partition: 0, start, credit: 3 << 20 };
        client.write(encode(CorrelationId(1), &body)).await;
        assert_eq!(decode::<SubscribeAnswer>(&client.control.frame().await).unwrap().offset, 0);
        let mut pushes = Reader::new(client.connection.accept_uni().await.unwrap());
        let mut next = 0;
        let mut bytes = 0;
        let mut granted = 3_u64 << 20;
        while bytes < 20 << 20 {
            let frame = pushes.frame().await;
            assert_eq!(decode::<Push>(&frame).unwrap().subscription, 9);
            bytes += frame.attachment.len() as u64;
            assert!(bytes <= granted);
            let mut attachment = frame.attachment;
            while let Some(batch) = split_batch(&mut attachment).unwrap() {
                let batch = RecordBatch::parse(batch).unwrap();
                assert_eq!(batch.head().base_offset.0, next);
                next += batch.len() as u64;
            }
            if granted < bytes + (2 << 20) {
                granted += 4 << 20;
                client.write(encode(CorrelationId(0), &Credit { subscription: 9, bytes: 4 << 20 })).await;
            }
        }
    });
    server.handle.join().unwrap();
}

#[test]
fn the_disk_is_measured_both_ways() {
    let directory = directory();
    for path in [DiskPath::Reactor, DiskPath::Plain] {
        for (operation, depth) in [(DiskOperation::WriteSync, 1), (DiskOperation::Read, 1)] {
            let config = DiskConfig {
                directory: directory.path().to_owned(),
                cpu: None,
                operation,
                path,
                bytes: 65_536,
                count: 20,
                depth,
                tls: tls().0,
            };
            let samples = measure_disk(&config).unwrap();
            assert_eq!(samples.total.len(), 20);
            assert_eq!(samples.sync.len(), if operation == DiskOperation::WriteSync { 20 } else { 0 });
        }
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == ".probe" || name == "journal"), "{left:?}");
}
