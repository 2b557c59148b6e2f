//! One frame of every kind, as bytes that never change: tests/fixtures/1/frames.
//!
//! With `CORELANE_WRITE_FIXTURES=1` in the environment missing files are written; files that are there are never
//! overwritten, because a changed byte is another version.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod group;
mod queue;
mod transaction;

use std::path::PathBuf;

use bytes::Bytes;
use corelane_model::{Cleanup, CorrelationId, ErrorCode, StartAt, TopicClass, TopicSettings, WallMillis};
use corelane_wire::{
    AlterTopic, AlterTopicAnswer, Body, CreateTopic, CreateTopicAnswer, Credit, DeleteTopic, DescribeTopic,
    DescribeTopicAnswer, DurableEnd, DurableEnds, FindOffset, FindOffsetAnswer, Frame, FrameDecoder, FrameKind, Goaway,
    Hello, Metadata, MetadataAnswer, PartitionDescription, Ping, Pong, Produce, ProduceAnswer, ProduceAnswers,
    ProduceMany, ProducerIdAnswer, Push, PushMany, Refusal, RequestProducerId, Settings, StorageStopped, Subscribe,
    SubscribeAnswer, SubscriptionEnded, TopicDescription, TopicDone, TopicMetadata, TruncatePartition, Unsubscribe,
    Welcome, decode, encode_with,
};

const TOPIC: u64 = 0x0102_0304_0506_0708;
const PARTITION: u32 = 0x1112_1314;
const CORRELATION: CorrelationId = CorrelationId(0xa1a2_a3a4_a5a6_a7a8);

fn path(kind: FrameKind) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/1/frames");
    PathBuf::from(directory).join(format!("{:02}-{kind:?}.bin", kind.to_wire()))
}

/// Holds a body against its fixture, both ways.
fn check<B: Body + PartialEq + std::fmt::Debug>(seen: &mut Vec<FrameKind>, body: &B, attachment: &'static [u8]) {
    let pieces = if attachment.is_empty() { Vec::new() } else { vec![Bytes::from_static(attachment)] };
    let bytes: Vec<u8> = encode_with(CORRELATION, body, pieces).into_pieces().flatten().collect();
    let path = path(B::KIND);
    if !path.exists() && std::env::var_os("CORELANE_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes, golden, "a {:?} frame is written otherwise than before", B::KIND);
    let frame = parse(golden);
    assert_eq!(frame.head.correlation, CORRELATION);
    assert_eq!(&decode::<B>(&frame).unwrap(), body, "a {:?} frame is read otherwise than before", B::KIND);
    assert_eq!(frame.attachment, attachment);
    seen.push(B::KIND);
}

fn parse(bytes: Vec<u8>) -> Frame {
    let mut decoder = FrameDecoder::default();
    decoder.push(bytes.into());
    let frame = decoder.poll_frame().unwrap().expect("a fixture is a whole frame");
    assert!(!decoder.is_inside_frame(), "a fixture is one frame");
    frame
}

fn settings() -> Settings {
    TopicSettings {
        class: TopicClass::Memory,
        retention_ms: Some(2_000),
        retention_bytes: None,
        segment_bytes: 128 << 20,
        cleanup: Cleanup::Compact,
        tombstone_ms: 60_000,
        dedup_window_ms: Some(120_000),
        dedup_count: None,
    }
    .into()
}

/// A number that a client acts upon never means anything else: tests/fixtures/1/error-codes.txt.
#[test]
fn every_error_code_keeps_its_number() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/1/error-codes.txt");
    let lines = ErrorCode::ALL.iter().map(|code| format!("{} {code:?} {:?}\n", code.to_wire(), code.retry()));
    let text: String = lines.collect();
    if std::env::var_os("CORELANE_WRITE_FIXTURES").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    let known: Vec<_> = text.lines().collect();
    let changed: Vec<_> = golden.lines().filter(|line| !known.contains(line)).collect();
    assert!(changed.is_empty(), "codes that mean something else than before: {changed:?}");
    assert_eq!(golden, text, "a new code is missing in the fixture");
}

#[test]
fn every_kind_keeps_its_bytes() {
    let mut seen = Vec::new();
    connection(&mut seen);
    topics(&mut seen);
    partitions(&mut seen);
    producing(&mut seen);
    reading(&mut seen);
    group::members(&mut seen);
    group::descriptions(&mut seen);
    group::offsets_and_settings(&mut seen);
    queue::members(&mut seen);
    queue::records(&mut seen);
    queue::descriptions(&mut seen);
    queue::management(&mut seen);
    transaction::transactions(&mut seen);
    seen.sort_unstable();
    assert_eq!(seen, FrameKind::ALL, "every kind has a fixture");
}

fn connection(seen: &mut Vec<FrameKind>) {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        session: (0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff),
        client: "corelane-rust/0.1.0".into(),
        token: "secret".into(),
    };
    check(seen, &hello, b"");
    let welcome = Welcome {
        version: 1,
        incarnation: 7,
        shards: 4,
        shard: 3,
        catalog_version: 12,
        frame_bytes_max: 1_310_720,
        batch_bytes_max: 1_048_576,
        wall_ms: 1_790_000_000_000,
    };
    check(seen, &welcome, b"");
    check(seen, &Goaway { within_ms: 5_000 }, b"");
    check(seen, &Refusal { code: 16, text: "there is no topic chat".into() }, b"");
    check(seen, &Ping { payload: 42 }, b"");
    check(seen, &Pong { payload: 42 }, b"");
}

fn topics(seen: &mut Vec<FrameKind>) {
    check(seen, &Metadata { names: vec!["chat".into(), "match-7.inputs".into()] }, b"");
    let topic = TopicMetadata { name: "chat".into(), topic: TOPIC, settings: settings(), shards: vec![0, 1, 2, 3] };
    let answer = MetadataAnswer { catalog_version: 12, shards: 4, topics: vec![topic], is_cut: true };
    check(seen, &answer, b"");
    check(seen, &CreateTopic { name: "chat".into(), partitions: 8, settings: settings() }, b"");
    check(seen, &CreateTopicAnswer { topic: TOPIC, catalog_version: 12 }, b"");
    check(seen, &AlterTopic { name: "chat".into(), partitions: Some(16), settings: None }, b"");
    check(seen, &AlterTopicAnswer { catalog_version: 13, keys_moved: true }, b"");
    check(seen, &DeleteTopic { name: "chat".into() }, b"");
    check(seen, &DescribeTopic { name: "chat".into(), from: 4, most: 64 }, b"");
    let partition = PartitionDescription {
        partition: PARTITION,
        shard: 3,
        log_start: 10,
        durable_end: 90,
        log_end: 100,
        settled_end: 80,
        unsettled_bytes: 4_096,
        disk_bytes: 1 << 20,
        segments: 2,
        corrupt: vec![(20, 30)],
        conflated: 1_234,
    };
    let topic = TopicDescription { name: "chat".into(), topic: TOPIC, settings: settings() };
    check(seen, &DescribeTopicAnswer { topic, partition_count: 8, partitions: vec![partition] }, b"");
}

fn partitions(seen: &mut Vec<FrameKind>) {
    check(seen, &TruncatePartition { topic: TOPIC, partition: PARTITION, before: u64::MAX }, b"");
    check(seen, &TopicDone { log_start: 90 }, b"");
    let start = StartAt::Time(WallMillis(-1)).into();
    check(seen, &FindOffset { topic: TOPIC, partition: PARTITION, start, isolation: 1 }, b"");
    check(seen, &FindOffsetAnswer { offset: 50, log_start: 10, high_watermark: 90 }, b"");
}

fn producing(seen: &mut Vec<FrameKind>) {
    check(seen, &RequestProducerId { producer: 77, epoch: 2 }, b"");
    check(seen, &ProducerIdAnswer { producer: 77, epoch: 3 }, b"");
    check(seen, &Produce { topic: TOPIC, partition: PARTITION, acks: 1 }, b"a record batch");
    let answers = vec![
        ProduceAnswer { correlation: CORRELATION.0, base_offset: 100, timestamp_ms: 1_790_000_000_000, code: 0 },
        ProduceAnswer { correlation: 9, base_offset: 0, timestamp_ms: 0, code: 48 },
    ];
    check(seen, &ProduceAnswers { answers, texts: vec![(1, "the shard is busy".into())] }, b"");
    let bundle = ProduceMany {
        acks: 1,
        topics: vec![TOPIC, 9],
        partitions: vec![PARTITION, 7],
        lengths: vec![14, 5],
        correlations: vec![CORRELATION.0, 10],
    };
    check(seen, &bundle, b"a record batchother");
    let ends = vec![DurableEnd { topic: TOPIC, partition: PARTITION, end: 100 }];
    check(seen, &DurableEnds { ends }, b"");
    check(seen, &StorageStopped { shard: 3, text: "the journal could not be synced".into() }, b"");
}

fn reading(seen: &mut Vec<FrameKind>) {
    let start = StartAt::Earliest.into();
    let subscribe = Subscribe { subscription: 5, topic: TOPIC, partition: PARTITION, start, credit: 4 << 20 };
    check(seen, &subscribe, b"");
    check(seen, &SubscribeAnswer { offset: 10, log_start: 10, high_watermark: 90 }, b"");
    check(seen, &Credit { subscription: 5, bytes: 1 << 20 }, b"");
    check(seen, &Unsubscribe { subscription: 5 }, b"");
    check(seen, &Push { subscription: 5, high_watermark: 90 }, b"two record batches");
    let bundle = PushMany { subscriptions: vec![5, 6], high_watermarks: vec![90, 12], lengths: vec![18, 3] };
    check(seen, &bundle, b"two record batchesone");
    let text = "records from 20 to 30 are damaged on disk".into();
    check(seen, &SubscriptionEnded { subscription: 5, code: 38, range: Some((20, 30)), text }, b"");
}

/// Whatever a frame's body holds, looking at it as any kind gives a body or an error.
#[test]
fn bodies_cut_off_anywhere_are_refused_in_words() {
    for &kind in FrameKind::ALL {
        let frame = parse(std::fs::read(path(kind)).unwrap());
        for len in 0..frame.body.len() {
            let cut = Frame { body: frame.body.slice(..len), ..frame.clone() };
            drop((decode::<Hello>(&cut), decode::<DescribeTopicAnswer>(&cut), decode::<MetadataAnswer>(&cut)));
            drop((decode::<ProduceAnswers>(&cut), decode::<DurableEnds>(&cut), decode::<Push>(&cut)));
            drop((decode::<ProduceMany>(&cut), decode::<PushMany>(&cut)));
        }
    }
}
