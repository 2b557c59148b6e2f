//! Peers that speak QUIC but not our protocol, or not well.

use std::net::SocketAddr;

use bytes::Bytes;
use corelane::ShardId;
use corelane_model::CorrelationId;
use corelane_wire::{
    CreateTopic, CreateTopicAnswer, Frame, FrameDecoder, FrameHead, FrameKind, Hello, OutFrame, Produce,
    ProduceAnswers, Settings, Welcome, decode, encode, encode_with,
};

use crate::DEADLINE;
use crate::broker::{Broker, Place};
use crate::refusals::send_garbage;
use crate::round_trip::{numbers, values};

/// Runs a stranger against a broker, and checks that the broker serves others as before.
fn visit<F: Future<Output = ()>>(stranger: impl FnOnce(String) -> F) {
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    let address = format!("corelane://{}?pin={}", broker.quic, pin.trim());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let visit = async { tokio::time::timeout(DEADLINE, stranger(address)).await };
    runtime.block_on(visit).expect("the broker answers a stranger within the deadline");
    broker.good(&["topic", "create", "after", "-p", "1"], b"");
    broker.good(&["produce", "after"], numbers(0..10).as_bytes());
    assert_eq!(values(&broker, "after").len(), 10);
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
}

fn bytes_of(frame: OutFrame) -> Vec<u8> {
    frame.into_pieces().flatten().collect()
}

fn hello(version: u16) -> OutFrame {
    let body = Hello {
        version_min: version,
        version_max: version,
        session: (1, 2),
        client: "a stranger".to_owned(),
        token: String::new(),
    };
    encode(CorrelationId(1), &body)
}

/// Sends bytes as the control stream and says how the broker closes the connection.
async fn closing(address: String, bytes: Vec<u8>) -> String {
    let (connection, _endpoint) = corelane::connect_bare(&address, ShardId(0)).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    connection.closed().await.to_string()
}

#[test]
fn bytes_that_are_no_frames_close_the_connection() {
    visit(|address| async move {
        let garbage: Vec<u8> = (0..4000_u32).map(|number| number.wrapping_mul(167).to_le_bytes()[0] | 1).collect();
        let text = closing(address, garbage).await;
        assert!(text.contains("frame"), "{text}");
    });
}

#[test]
fn a_frame_over_the_limit_closes_the_connection_before_it_is_read() {
    visit(|address| async move {
        let head = FrameHead {
            length: u32::MAX,
            body_length: 10,
            kind: FrameKind::Hello,
            version: 1,
            correlation: CorrelationId(1),
        };
        let text = closing(address, head.to_bytes().to_vec()).await;
        assert!(text.contains("4294967295") && text.contains("limit"), "{text}");
    });
}

#[test]
fn a_client_of_another_version_is_told_which_are_spoken() {
    visit(|address| async move {
        let text = closing(address, bytes_of(hello(77))).await;
        assert!(text.contains("77") && text.contains('1'), "{text}");
    });
}

#[test]
fn a_first_frame_that_is_no_hello_closes_the_connection() {
    visit(|address| async move {
        let text = closing(address, bytes_of(encode(CorrelationId(1), &corelane_wire::Ping { payload: 1 }))).await;
        assert!(text.to_lowercase().contains("hello"), "{text}");
    });
}

#[test]
fn a_hello_whose_body_is_garbage_closes_the_connection() {
    visit(|address| async move {
        let head =
            FrameHead { length: 4, body_length: 4, kind: FrameKind::Hello, version: 1, correlation: CorrelationId(1) };
        let bytes = [&head.to_bytes()[..], b"what"].concat();
        let text = closing(address, bytes).await;
        assert!(text.contains("malformed"), "{text}");
    });
}

#[test]
fn a_corrupt_batch_is_refused_and_the_connection_goes_on() {
    visit(|address| async move {
        let (connection, _endpoint) = corelane::connect_bare(&address, ShardId(0)).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let mut decoder = FrameDecoder::default();
        let mut next = async || -> Frame {
            loop {
                if let Some(frame) = decoder.poll_frame().unwrap() {
                    return frame;
                }
                let chunk = receive.read_chunk(64 << 10, true).await.unwrap().expect("the broker goes on");
                decoder.push(chunk.bytes);
            }
        };
        send.write_all(&bytes_of(hello(1))).await.unwrap();
        decode::<Welcome>(&next().await).unwrap();
        let settings = Settings::from(corelane::TopicSettings::default());
        let create = CreateTopic { name: "corrupt".to_owned(), partitions: 1, settings };
        send.write_all(&bytes_of(encode(CorrelationId(2), &create))).await.unwrap();
        let topic = decode::<CreateTopicAnswer>(&next().await).unwrap().topic;
        for attempt in 0..3_u64 {
            let produce = Produce { topic, partition: 0, acks: 1 };
            let batch = Bytes::from(vec![attempt.to_le_bytes()[0]; 300]);
            let mut stream = connection.open_uni().await.unwrap();
            let frame = encode_with(CorrelationId(100 + attempt), &produce, vec![batch]);
            stream.write_all(&bytes_of(frame)).await.unwrap();
            stream.finish().unwrap();
            let answers = decode::<ProduceAnswers>(&next().await).unwrap();
            assert_eq!(answers.answers[0].correlation, 100 + attempt);
            let code = corelane::ErrorCode::from_wire(answers.answers[0].code);
            assert_eq!(code, corelane::ErrorCode::CorruptBatch, "{answers:?}");
            assert!(!answers.texts.is_empty(), "{answers:?}");
        }
    });
}

/// Datagrams of chance, control streams of chance, and produce streams that begin a frame and never end it.
async fn bother(to: SocketAddr, address: &str) {
    send_garbage(to, 2000);
    let garbage: Vec<u8> = (0..4000_u32).map(|number| number.wrapping_mul(167).to_le_bytes()[0] | 1).collect();
    for _ in 0..20 {
        closing(address.to_owned(), garbage.clone()).await;
        let (connection, _endpoint) = corelane::connect_bare(address, ShardId(0)).await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&bytes_of(hello(1))).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..8 {
            let mut stream = connection.open_uni().await.unwrap();
            let body = Produce { topic: 1, partition: 0, acks: 1 };
            let half = bytes_of(encode_with(CorrelationId(7), &body, vec![Bytes::from(vec![0; 16 << 10])]));
            stream.write_all(&half[..half.len() / 2]).await.unwrap();
            streams.push(stream);
        }
        connection.close(0_u32.into(), b"");
    }
}

#[test]
fn strangers_leave_no_memory_behind() {
    /// What may come on top of the broker's size after it has met strangers once. Fourfold garbage that stays would be
    /// some 80 connections with 64 KiB each in half frames, and windows beside them.
    const GROWTH_BYTES_MAX: u64 = 24 << 20;
    let place = Place::new();
    let broker = Broker::start(&place, &["--shards", "1"]);
    broker.good(&["topic", "create", "chat", "-p", "1"], b"");
    let pin = std::fs::read_to_string(place.path().join("run/corelane").join(broker.quic.port().to_string())).unwrap();
    let address = format!("corelane://{}?pin={}", broker.quic, pin.trim());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let round = || {
        let bothered = async { tokio::time::timeout(DEADLINE, bother(broker.quic, &address)).await };
        runtime.block_on(bothered).expect("the broker answers strangers within the deadline");
    };
    round();
    let before = broker.resident_bytes();
    (0..4).for_each(|_| round());
    broker.good(&["produce", "chat"], numbers(0..10).as_bytes());
    let after = broker.resident_bytes();
    assert!(after < before + GROWTH_BYTES_MAX, "the broker grew from {before} to {after} bytes");
    assert!(!broker.log().contains("panicked"), "{}", broker.log());
}
