//! What the endpoint promises about frames, streams and ends.

use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::{
    CONNECTION_IDLE, CONNECTION_QUEUE_BYTES_MAX, CONNECTION_ROUND_BYTES, CONNECTION_WINDOW_BYTES_MIN, QUIC_MTU_BYTES,
    QUIC_MTU_BYTES_MAX, SESSION_SEND_BYTES_MAX,
};
use corelane_model::{CorrelationId, ErrorCode};
use corelane_quic::{QuicEvent, SendStream};
use corelane_wire::{FrameError, OutFrame, Ping, Pong, Produce, Push, decode, encode, encode_with};
use quinn_proto::{Dir, VarInt};

use crate::pair::Pair;

fn ping(payload: u64) -> OutFrame {
    encode(CorrelationId(payload), &Ping { payload })
}

fn push(serial: u64, bytes: usize) -> OutFrame {
    let body = Push { subscription: 1, high_watermark: serial };
    // Two pieces, so that the order of pieces is checked too.
    let (first, second) = (bytes / 3, bytes - bytes / 3);
    let fill = u8::try_from(serial % 251).unwrap();
    encode_with(CorrelationId(serial), &body, vec![Bytes::from(vec![fill; first]), Bytes::from(vec![fill; second])])
}

fn produce(serial: u64, bytes: usize) -> OutFrame {
    encode_with(CorrelationId(serial), &Produce { topic: 1, partition: 0, acks: 1 }, vec![Bytes::from(vec![1; bytes])])
}

fn frames(pair: &Pair) -> Vec<u64> {
    let serials = pair.events.iter().filter_map(|event| match event {
        QuicEvent::Frame { frame, .. } => Some(frame.head.correlation.0),
        _ => None,
    });
    serials.collect()
}

fn is_over(pair: &Pair) -> bool {
    pair.events.iter().any(|event| matches!(event, QuicEvent::Disconnected { .. }))
}

#[test]
fn a_frame_goes_there_and_its_answer_comes_back() {
    let mut pair = Pair::new();
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(7));
    pair.run_until(|pair| frames(pair) == [7]);
    pair.send(key, SendStream::Control, encode(CorrelationId(7), &Pong { payload: 7 }));
    pair.run_until(|pair| !pair.clients[client].frames.is_empty());
    let (stream, frame) = &pair.clients[client].frames[0];
    assert_eq!(*stream, control);
    assert_eq!(decode::<Pong>(frame).unwrap().payload, 7);
}

#[test]
fn pushes_keep_their_order_on_each_stream_whatever_is_lost() {
    let mut pair = Pair::new();
    pair.loss = 20;
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    for serial in 0..120_u64 {
        let slot = u8::try_from(serial % 3).unwrap();
        pair.send(key, SendStream::Push(slot), push(serial, 20_000));
    }
    pair.run_until(|pair| pair.clients[client].frames.len() == 120);
    let mut last = std::collections::BTreeMap::new();
    for (stream, frame) in &pair.clients[client].frames {
        assert_eq!(frame.attachment.len(), 20_000);
        let fill = u8::try_from(frame.head.correlation.0 % 251).unwrap();
        assert!(frame.attachment.iter().all(|byte| *byte == fill));
        assert!(last.insert(*stream, frame.head.correlation.0) < Some(frame.head.correlation.0));
    }
    assert_eq!(last.len(), 3, "one stream for each slot");
}

/// The largest datagram that arrives at a client over a path that carries datagrams of so many bytes, and the largest transmit.
fn sizes_over(path_bytes: usize) -> (usize, usize) {
    let mut pair = Pair::new();
    pair.path_bytes = path_bytes;
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    for serial in 0..50_u64 {
        pair.send(key, SendStream::Push(0), push(serial, 100_000));
        let expected = usize::try_from(serial).unwrap() + 1;
        pair.run_until(|pair| pair.clients[client].frames.len() == expected);
    }
    (pair.largest_to_client, pair.largest_transmit)
}

#[test]
fn packets_grow_to_what_the_path_carries() {
    let (mtu, most) = (usize::from(QUIC_MTU_BYTES), usize::from(QUIC_MTU_BYTES_MAX));
    let (packet, transmit) = sizes_over(usize::MAX);
    assert!((most - 50..=most).contains(&packet), "{packet} of {most} bytes");
    assert!(mtu * 40 < transmit && transmit < 1 << 16, "a transmit of {transmit} bytes");
    let (packet, _) = sizes_over(4_000);
    assert!((3_900..=4_000).contains(&packet), "{packet} of 4000 bytes");
    let (packet, transmit) = sizes_over(mtu);
    assert_eq!(packet, mtu, "Ethernet carries no more");
    assert!(transmit < 1 << 16, "a transmit of {transmit} bytes");
}

#[test]
fn produce_streams_arrive_whole_whatever_is_lost_and_in_bounded_rounds() {
    let mut pair = Pair::new();
    pair.loss = 30;
    let (client, _) = pair.connected();
    let streams: Vec<_> = (0..4).map(|_| pair.clients[client].connection.streams().open(Dir::Uni).unwrap()).collect();
    for serial in 0..40_u64 {
        let stream = streams[usize::try_from(serial % 4).unwrap()];
        pair.write(client, stream, produce(serial, 300_000));
    }
    pair.run_until(|pair| frames(pair).len() == 40);
    let mut seen = frames(&pair);
    for lane in 0..4 {
        assert!(seen.iter().filter(|serial| **serial % 4 == lane).is_sorted());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    // Frames that were under way may complete in a round beside what the round read.
    assert!(pair.largest_server_batch <= CONNECTION_ROUND_BYTES + 4 * 300_100);
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    let mut pair = Pair::new();
    pair.loss = 10;
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    pair.run_until(|pair| frames(pair) == [1]);
    for serial in 0..50 {
        pair.send(key, SendStream::Push(0), push(serial, 10_000));
    }
    pair.send(key, SendStream::Control, ping(99));
    let now = pair.nanos();
    pair.server.close(now, key, ErrorCode::ShuttingDown, "see you".to_owned());
    pair.run_until(|pair| pair.clients[client].lost.is_some());
    assert_eq!(pair.clients[client].frames.len(), 51);
    let reason = pair.clients[client].lost.clone().unwrap();
    assert!(reason.contains("see you") && reason.contains("52"), "{reason}");
    assert!(is_over(&pair));
}

#[test]
fn a_close_does_not_wait_for_a_client_that_vanished() {
    let mut pair = Pair::new();
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    pair.run_until(|pair| frames(pair) == [1]);
    pair.send(key, SendStream::Push(0), push(1, 1_000_000));
    pair.clients.clear();
    let now = pair.nanos();
    pair.server.close(now, key, ErrorCode::ShuttingDown, String::new());
    pair.run_until(is_over);
    assert!(pair.now < now.0 + 4_000_000_000);
}

#[test]
fn garbage_on_a_stream_is_reported_once_and_the_rest_goes_on() {
    let mut pair = Pair::new();
    let (client, _) = pair.connected();
    let bad = pair.clients[client].connection.streams().open(Dir::Uni).unwrap();
    let good = pair.clients[client].connection.streams().open(Dir::Uni).unwrap();
    pair.write_bytes(client, bad, &[0xff; 4000]);
    pair.run_until(|pair| !pair.events.is_empty());
    assert!(matches!(pair.events[..], [QuicEvent::Garbage { error: FrameError::TooLarge { .. }, .. }]));
    pair.write(client, good, produce(5, 100));
    pair.run_until(|pair| frames(pair) == [5]);
    assert_eq!(pair.events.len(), 2);
}

#[test]
fn random_datagrams_and_broken_copies_of_real_ones_do_nothing() {
    let mut pair = Pair::new();
    let (client, _) = pair.connected();
    let mut dice = 3_u64;
    for round in 0..20_000_u64 {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
        let length = usize::try_from((dice >> 40) % 1500).unwrap();
        let mut bytes: Vec<u8> =
            (0..length).map(|i| dice.rotate_left(u32::try_from(i % 64).unwrap()).to_le_bytes()[i % 8]).collect();
        // Half of them look like the first packet of QUIC version 1, or like a packet to this shard.
        match round % 4 {
            0 if 20 < length => bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
            1 if 20 < length => bytes[..2].copy_from_slice(&[0x43, 3]),
            _ => {}
        }
        pair.inject(&bytes);
        if round % 100 == 0 {
            pair.step();
        }
    }
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(7));
    pair.run_until(|pair| frames(pair) == [7]);
    assert!(pair.server.stats().connections == 1);
}

#[test]
fn a_reset_stream_ends_silently() {
    let mut pair = Pair::new();
    let (client, _) = pair.connected();
    let stream = pair.clients[client].connection.streams().open(Dir::Uni).unwrap();
    let mut bytes = Vec::new();
    produce(1, 5000).into_pieces().for_each(|piece| bytes.extend_from_slice(&piece));
    pair.write_bytes(client, stream, &bytes[..3000]);
    pair.run_for(Duration::from_millis(5));
    pair.clients[client].connection.send_stream(stream).reset(VarInt::from_u32(1)).unwrap();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(2));
    pair.run_until(|pair| frames(pair) == [2]);
    assert_eq!(pair.events.len(), 1);
}

#[test]
fn a_client_that_stops_its_control_stream_is_closed() {
    let mut pair = Pair::new();
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    pair.run_until(|pair| frames(pair) == [1]);
    pair.clients[client].connection.recv_stream(control).stop(VarInt::from_u32(3)).unwrap();
    pair.send(key, SendStream::Control, ping(2));
    pair.run_until(is_over);
}

#[test]
fn a_client_that_reads_nothing_is_closed_before_it_costs_too_much() {
    let mut pair = Pair::with(16, |transport| {
        transport.stream_receive_window(VarInt::from_u32(100_000));
    });
    let (client, key) = pair.connected();
    pair.clients[client].is_reading = false;
    let big = push(1, 1 << 20);
    let mut sent = 0;
    while sent <= CONNECTION_QUEUE_BYTES_MAX + (9 << 20) {
        pair.send(key, SendStream::Push(0), big.clone());
        sent += big.len();
    }
    pair.run_until(is_over);
    assert_eq!(pair.server.stats().overflowed_total, 1);
}

#[test]
fn slow_readers_share_what_there_is_and_the_greediest_goes_first() {
    let share = 8 << 20;
    let mut pair = Pair::sharing(share, 16, |transport| {
        transport.stream_receive_window(VarInt::from_u32(100_000));
    });
    let readers: Vec<_> = (0..3).map(|_| pair.connected()).collect();
    for &(client, _) in &readers {
        pair.clients[client].is_reading = false;
    }
    // As a shard does: nothing more is pushed to whom is said to be congested.
    let mut congested = Vec::new();
    for serial in 0..200 {
        for &(_, key) in readers.iter().filter(|(_, key)| !congested.contains(key)).collect::<Vec<_>>() {
            pair.send(key, SendStream::Push(0), push(serial, 100_000));
        }
        pair.run_for(Duration::from_millis(1));
        congested.extend(pair.events.drain(..).map(|event| match event {
            QuicEvent::Congested { connection } => connection,
            event => panic!("{event:?}"),
        }));
    }
    assert_eq!(congested.len(), 3, "all three were told to pause, long before each held what one alone may");
    let held = pair.server.stats().held_bytes;
    assert!(share / 2 < held && held < share, "{held} of {share}");
    assert_eq!(pair.server.stats().overflowed_total, 0);
    // A shard that pushes on regardless loses the connection, not the memory; the others live.
    for serial in 0..100 {
        pair.send(readers[1].1, SendStream::Push(0), push(serial, 100_000));
    }
    pair.run_until(is_over);
    assert_eq!(pair.events, [QuicEvent::Disconnected { connection: readers[1].1 }]);
    assert!(pair.server.stats().held_bytes < share);
    for client in [readers[0].0, readers[2].0] {
        pair.clients[client].is_reading = true;
    }
    pair.run_until(|pair| pair.server.stats().held_bytes == 0);
    assert_eq!(pair.server.stats().connections, 2);
}

#[test]
fn frames_that_never_become_whole_cost_their_connection_and_no_more_than_the_share() {
    let share = 2 << 20;
    let mut pair = Pair::sharing(share, 16, |_| {});
    let (client, key) = pair.connected();
    let (other, other_key) = pair.connected();
    for key in [key, other_key] {
        pair.send(key, SendStream::Control, ping(1));
    }
    let mut bytes = Vec::new();
    produce(1, 1 << 20).into_pieces().for_each(|piece| bytes.extend_from_slice(&piece));
    while let Some(stream) = pair.clients[client].connection.streams().open(Dir::Uni) {
        for piece in bytes[..900_000].chunks(20_000) {
            pair.write_bytes(client, stream, piece);
            assert!(pair.server.stats().held_bytes <= share + (1 << 20));
        }
    }
    pair.run_until(|pair| pair.events.contains(&QuicEvent::Disconnected { connection: key }));
    assert_eq!(pair.server.stats().overflowed_total, 1);
    assert!(pair.server.stats().held_bytes < 100, "the other's ping waits for its control stream");
    assert!(pair.clients[other].lost.is_none());
}

#[test]
fn a_stranger_has_small_windows_until_something_is_said_to_it() {
    let mut pair = Pair::new();
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    pair.run_until(|pair| frames(pair) == [1]);
    let mut much = Vec::new();
    produce(2, 1 << 20).into_pieces().for_each(|piece| much.extend_from_slice(&piece));
    let stream = pair.clients[client].connection.streams().open(Dir::Uni).unwrap();
    let write = |pair: &mut Pair| pair.clients[client].connection.send_stream(stream).write(&much).unwrap();
    let first = write(&mut pair);
    assert!(0 < first && first <= CONNECTION_WINDOW_BYTES_MIN as usize, "{first} bytes");
    pair.send(key, SendStream::Control, ping(2));
    pair.run_until(|pair| pair.clients[client].frames.len() == 1);
    assert!(CONNECTION_WINDOW_BYTES_MIN as usize * 4 < write(&mut pair));
}

#[test]
fn nothing_more_is_heard_of_a_client_that_takes_no_answers_until_it_does() {
    let mut pair = Pair::with(16, |transport| {
        transport.stream_receive_window(VarInt::from_u32(1 << 20));
    });
    let (client, key) = pair.connected();
    let stream = pair.clients[client].connection.streams().open(Dir::Uni).unwrap();
    pair.write(client, stream, ping(1));
    pair.run_until(|pair| frames(pair).len() == 1);
    pair.clients[client].is_reading = false;
    let count = 2 * SESSION_SEND_BYTES_MAX / 100_000 + 100;
    for serial in 0..count {
        pair.send(key, SendStream::Push(0), push(serial, 100_000));
    }
    pair.run_for(Duration::from_millis(20));
    for number in 0..100 {
        pair.write(client, stream, ping(number));
    }
    pair.run_for(Duration::from_millis(100));
    assert_eq!(frames(&pair).len(), 1);
    assert!(!pair.server.has_work(), "an endpoint that waits for its peer rests");
    pair.clients[client].is_reading = true;
    pair.run_until(|pair| frames(pair).len() == 101);
}

#[test]
fn much_that_waits_is_told_and_so_is_its_end() {
    let mut pair = Pair::with(16, |transport| {
        transport.stream_receive_window(VarInt::from_u32(1 << 20));
    });
    let (client, key) = pair.connected();
    pair.clients[client].is_reading = false;
    let count = SESSION_SEND_BYTES_MAX / 100_000 + 100;
    for serial in 0..count {
        pair.send(key, SendStream::Push(0), push(serial, 100_000));
    }
    pair.run_for(Duration::from_millis(20));
    assert!(matches!(pair.events[..], [QuicEvent::Congested { .. }]), "{:?}", pair.events);
    pair.clients[client].is_reading = true;
    pair.run_until(|pair| pair.clients[client].frames.len() as u64 == count);
    assert!(matches!(pair.events[..], [QuicEvent::Congested { .. }, QuicEvent::Relieved { .. }]));
}

#[test]
fn a_silent_client_is_gone_after_the_idle_time_and_its_memory_with_it() {
    let mut pair = Pair::new();
    let (_, _) = pair.connected();
    pair.clients.clear();
    let start = pair.now;
    pair.run_until(is_over);
    let idle = u64::try_from(CONNECTION_IDLE.as_nanos()).unwrap();
    assert!(start < pair.now && pair.now <= start + idle + 1_000_000_000);
    assert_eq!(pair.server.stats().connections, 0);
    assert_eq!(pair.server.next_timeout(), None);
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut pair = Pair::with(2, |_| {});
    let (_, _) = pair.connected();
    let (_, _) = pair.connected();
    let third = pair.connect();
    pair.run_until(|pair| pair.clients[third].lost.is_some());
    assert_eq!(pair.server.stats().refused_total, 1);
}

#[test]
fn a_client_may_change_its_address() {
    let mut pair = Pair::new();
    let (client, key) = pair.connected();
    let control = pair.clients[client].control.unwrap();
    pair.write(client, control, ping(1));
    pair.run_until(|pair| frames(pair) == [1]);
    pair.clients[client].address.set_port(4321);
    pair.write(client, control, ping(2));
    pair.run_until(|pair| frames(pair) == [1, 2]);
    pair.send(key, SendStream::Control, ping(3));
    pair.run_until(|pair| pair.clients[client].frames.len() == 1);
}
