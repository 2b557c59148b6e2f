//! The bytes of format 1, which never change, and bytes that are not believed.

use std::time::Duration;

use corelane_model::{
    Backoff, Dispatch, GroupName, MemberId, MonotonicNanos, Now, Offset, PartitionIndex, QueueSettings, StartAt,
    TopicId, TopicName, WallMillis,
};
use corelane_queue::{
    DecodeError, Effect, Join, LeaseRun, Queue, QueueName, ReadBatch, RecordMeta, RedriveAt, RequestTicket, Restore,
    Verdict, is_queue_key, queue_of,
};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

const KINDS: [&str; 3] = ["settings", "partition", "redrive"];

fn now() -> Now {
    Now { monotonic: MonotonicNanos(5_000_000_000), wall: WallMillis(1_700_000_000_000) }
}

fn later() -> Now {
    Now { monotonic: MonotonicNanos(6_000_000_000), wall: WallMillis(1_700_000_001_000) }
}

fn name() -> QueueName {
    QueueName { group: GroupName::parse("mailers").expect("it is sound"), topic: TopicId(7) }
}

fn settings() -> QueueSettings {
    QueueSettings {
        visibility: Duration::from_secs(30),
        dispatch: Dispatch::Weighted,
        order_per_key: true,
        delivery_limit: Some(5),
        backoff: Backoff::Steps(vec![Duration::from_millis(100), Duration::from_secs(90)]),
        dead_letter: Some(TopicName::parse("mail.dead").expect("it is sound")),
    }
}

fn run(first: u64, count: u32) -> LeaseRun {
    LeaseRun { partition: PartitionIndex(1), first: Offset(first), count, attempt: 1 }
}

/// A queue with a record of every kind: done ranges, failures that rest, one to be given up, dead letters put back.
fn queue() -> Queue {
    let start = StartAt::Time(WallMillis(1_600_000_000_000));
    let mut queue = Queue::new(name(), settings(), 2, start, 1).expect("it is sound");
    queue.on_start(PartitionIndex(0), Offset(4711));
    queue.on_start(PartitionIndex(1), Offset(1000));
    let member = MemberId(0x1111);
    let join = Join { credit_records: 500, credit_bytes: 1 << 20, ..Join::new(member) };
    queue.join(now(), RequestTicket(1), join).expect("it is sound");
    let batch = ReadBatch {
        partition: PartitionIndex(1),
        from: Offset(1000),
        end: Offset(1300),
        timestamp: WallMillis(1_699_999_999_000),
        bytes: 30_000,
        high_watermark: Offset(1300),
    };
    let meta = |offset| RecordMeta { offset: Offset(offset), bytes: 100, key: None, deliver_at: None };
    queue.on_records(now(), batch, (1000..1300).map(meta));
    queue.finish_round(now());
    queue
        .acknowledge(now(), RequestTicket(2), member, &[run(1000, 10), run(1100, 50), run(1299, 1)], None)
        .expect("it is sound");
    queue.reject(now(), RequestTicket(3), member, &[run(1010, 2)], Verdict::Retry(None), "").expect("it is sound");
    let minute = Verdict::Retry(Some(Duration::from_secs(60)));
    queue.reject(later(), RequestTicket(4), member, &[run(1290, 1)], minute, "").expect("it is sound");
    queue.reject(later(), RequestTicket(5), member, &[run(1200, 1)], Verdict::Dead, "").expect("it is sound");
    queue.redrive(RequestTicket(6), 10, RedriveAt { partition: PartitionIndex(0), end: None }).expect("it is sound");
    queue.on_redriven(TopicId(9), PartitionIndex(0), Offset(12));
    queue.on_redriven(TopicId(9), PartitionIndex(3), Offset(300));
    queue
}

/// Each record of a kind: length of the key in two bytes, key, length of the value in four, value.
fn bytes(kind: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in queue().records(later()).filter(|(key, _)| usize::from(key[1]) == kind + 16) {
        out.extend_from_slice(&u16::try_from(key.len()).expect("it is sound").to_le_bytes());
        out.extend_from_slice(&key);
        out.extend_from_slice(&u32::try_from(value.len()).expect("it is sound").to_le_bytes());
        out.extend_from_slice(&value);
    }
    out
}

fn records(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (key, rest) = rest.split_at(u16::from_le_bytes(*length).into());
        let (length, rest) = rest.split_first_chunk::<4>().expect("it is sound");
        let (value, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        records.push((key.to_vec(), value.to_vec()));
        bytes = rest;
    }
    records
}

fn path(kind: &str) -> String {
    format!("{}/../../tests/fixtures/1/queue-{kind}.bin", env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "writes the fixtures of a new format"]
fn write_fixtures() {
    for (at, kind) in KINDS.iter().enumerate() {
        std::fs::write(path(kind), bytes(at)).unwrap();
    }
}

#[test]
fn bytes_are_those_of_the_fixtures_and_make_the_same_queue() {
    let mut restore = Restore::new(name());
    for (at, kind) in KINDS.iter().enumerate() {
        let fixture = std::fs::read(path(kind)).expect("the fixture is part of the repository");
        assert!(!fixture.is_empty(), "there is a record of the kind {kind}");
        assert_eq!(bytes(at), fixture, "{kind}");
        for (key, value) in records(&fixture) {
            assert!(is_queue_key(&key));
            assert_eq!(queue_of(&key).unwrap(), name());
            restore.apply(&key, Some(&value)).unwrap();
        }
    }
    let mut restored = restore.finish(2, 1);
    assert!(restored.records(later()).eq(queue().records(later())));
    assert_eq!(restored.settings(), &settings());
    restored.finish_round(later());
    assert_eq!(restored.poll_effect(), None, "there is nothing to repair, and nobody to read for");
}

#[test]
fn another_format_kind_or_queue_is_named() {
    let other = QueueName { topic: TopicId(8), ..name() };
    let (key, value) = queue().records(now()).next().unwrap();
    let error = Restore::new(other).apply(&key, Some(&value)).unwrap_err();
    assert_eq!(error.to_string(), "record of queue mailers on topic 7 came for queue mailers on topic 8");
    let later = |at: usize, byte: u8| {
        let mut key = key.clone();
        key[at] = byte;
        queue_of(&key).unwrap_err()
    };
    assert_eq!(later(0, 2), DecodeError::Format { found: 2, known: 1 });
    assert_eq!(later(1, 19), DecodeError::Kind { kind: 19 });
    assert!(!is_queue_key(&[1, 5]) && !is_queue_key(&[]));
}

#[test]
fn a_prefix_of_what_was_written_always_makes_a_queue() {
    let mut queue = queue();
    queue.finish_round(later());
    let mut log = Vec::new();
    while let Some(effect) = queue.poll_effect() {
        if let Effect::Append { key, value, .. } = effect {
            log.push((key, value));
        }
    }
    assert!(5 <= log.len(), "{log:?}");
    for end in 0..=log.len() {
        let mut restore = Restore::new(name());
        for (key, value) in &log[..end] {
            restore.apply(key, value.as_deref()).unwrap();
        }
        let mut restored = restore.finish(2, 1);
        assert_eq!(restored.partitions_len(), 2);
        restored.finish_round(later());
        restored.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_records_are_refused_or_make_a_queue(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let mut records: Vec<_> = queue().records(later()).collect();
        let count = records.len();
        for (which, at, byte) in damage {
            let value = &mut records[which.index(count)].1;
            let at = at.index(value.len());
            value[at] = byte;
        }
        if let Some((which, at)) = cut {
            let value = &mut records[which.index(count)].1;
            value.truncate(at.index(value.len()));
        }
        let mut restore = Restore::new(name());
        for (key, value) in &records {
            // What is refused is left out; what is taken must hold together.
            let _refused = restore.apply(key, Some(value));
        }
        let mut queue = restore.finish(2, 1);
        queue.finish_round(later());
        queue.check();
        assert!(queue.records(later()).count() <= 4);
    }
}
