//! The bytes of format 1, which never change, and bytes that are not believed.

use bytes::Bytes;
use corelane_group::{
    Commit, DecodeError, Group, GroupName, Join, ResetPolicy, Restore, Settings, StaticId, Strategy, Subscription,
    TopicShape, group_of,
};
use corelane_group::{Effect, RequestTicket};
use corelane_model::{
    LeaderEpoch, MemberId, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId,
    TopicId, TopicName, Transaction, WallMillis,
};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

const NAME: &str = "match-makers";
const KINDS: [&str; 6] = ["meta", "member", "slot", "offset", "handover", "staged"];

fn now() -> Now {
    Now { monotonic: MonotonicNanos(5_000_000_000), wall: WallMillis(1_700_000_000_000) }
}

fn resolve(_: &Subscription) -> Vec<TopicShape> {
    vec![TopicShape { topic: TopicId(7), partitions: 2 }]
}

fn join(member: u128, static_id: Option<&str>) -> Join {
    let topics = ["inputs", "match.events"].map(|name| TopicName::parse(name).expect("it is sound"));
    let subscription = Subscription { topics: topics.into(), pattern: Some("chat-.*".to_owned()) };
    Join {
        client: "corelane-rust/0.1.0".to_owned(),
        static_id: static_id.map(|id| StaticId::parse(id).expect("it is sound")),
        capacity: 3,
        reset: ResetPolicy::Time(WallMillis(1_600_000_000_000)),
        ..Join::new(MemberId(member), subscription.clone(), resolve(&subscription))
    }
}

/// A group with a record of every kind: a static member, one that waits, a commit, and a blob on its way.
fn group() -> Group {
    let settings = Settings { strategy: Strategy::Weighted, standbys: 1, ..Settings::default() };
    let mut group = Group::new(now(), GroupName::parse(NAME).expect("it is sound"), settings).expect("it is sound");
    group.join(now(), RequestTicket(1), join(0x1111, Some("server-1"))).expect("it is sound");
    group.finish_round(now());
    let commit = Commit {
        leader_epoch: LeaderEpoch(4),
        metadata: "tick 512".to_owned(),
        ..Commit::new(partition(1), Offset(4711))
    };
    group.commit(now(), RequestTicket(2), MemberId(0x1111), group.generation(), &[commit]).expect("it is sound");
    let transaction = Transaction::new(ProducerId(77), ProducerEpoch(2));
    let (speaker, staged) = ((MemberId(0x1111), group.generation()), Commit::new(partition(0), Offset(815)));
    group.stage(now(), RequestTicket(4), transaction, speaker, &[staged]).expect("it is sound");
    group.join(now(), RequestTicket(3), join(0x2222, None)).expect("it is sound");
    group.finish_round(now());
    let moved = revoked(&group);
    let seen = group.generation();
    group.give_up(now(), MemberId(0x1111), seen, moved, Some(Bytes::from_static(b"warm state"))).expect("it is sound");
    group.finish_round(now());
    group
}

fn revoked(group: &Group) -> PartitionId {
    let description = group.describe(now());
    description.members.iter().flat_map(|member| member.revoking.clone()).next().expect("one of two moves")
}

fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId(7), PartitionIndex(index))
}

/// Each record of a kind: length of the key in two bytes, key, length of the value in four, value.
fn bytes(kind: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in group().records().filter(|(key, _)| usize::from(key[1]) == kind + 1) {
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
    format!("{}/../../tests/fixtures/1/group-{kind}.bin", env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "writes the fixtures of a new format"]
fn write_fixtures() {
    for (at, kind) in KINDS.iter().enumerate() {
        std::fs::write(path(kind), bytes(at)).unwrap();
    }
}

#[test]
fn bytes_are_those_of_the_fixtures_and_make_the_same_group() {
    let mut restore = Restore::new(GroupName::parse(NAME).unwrap());
    for (at, kind) in KINDS.iter().enumerate() {
        let fixture = std::fs::read(path(kind)).expect("the fixture is part of the repository");
        assert!(!fixture.is_empty(), "there is a record of the kind {kind}");
        assert_eq!(bytes(at), fixture, "{kind}");
        for (key, value) in records(&fixture) {
            assert_eq!(group_of(&key).unwrap().as_str(), NAME);
            restore.apply(&key, Some(&value)).unwrap();
        }
    }
    let mut restored = restore.finish(now(), resolve);
    assert!(restored.records().eq(group().records()));
    restored.finish_round(now());
    assert_eq!(restored.poll_effect(), None, "there is nothing to repair");
}

#[test]
fn another_format_kind_or_group_is_named() {
    let mut restore = Restore::new(GroupName::parse("other").unwrap());
    let (key, value) = group().records().next().unwrap();
    let error = restore.apply(&key, Some(&value)).unwrap_err();
    assert_eq!(error, DecodeError::Group { found: NAME.to_owned(), expected: "other".to_owned() });
    let later = |at: usize, byte: u8| {
        let mut key = key.clone();
        key[at] = byte;
        group_of(&key).unwrap_err()
    };
    assert_eq!(later(0, 2), DecodeError::Format { found: 2, known: 1 });
    assert_eq!(later(1, 9), DecodeError::Kind { kind: 9 });
}

#[test]
fn a_prefix_of_what_was_written_always_makes_a_group() {
    let mut group = group();
    let mut log = Vec::new();
    while let Some(effect) = group.poll_effect() {
        if let Effect::Append { key, value, .. } = effect {
            log.push((key, value));
        }
    }
    for end in 0..=log.len() {
        let mut restore = Restore::new(GroupName::parse(NAME).unwrap());
        for (key, value) in &log[..end] {
            restore.apply(key, value.as_deref()).unwrap();
        }
        let mut restored = restore.finish(now(), resolve);
        restored.finish_round(now());
        assert!(restored.members_len() == 0 || restored.slots().count() == 2, "after {end} of {} records", log.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_records_are_refused_or_make_a_group(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let mut records: Vec<_> = group().records().collect();
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
        let mut restore = Restore::new(GroupName::parse(NAME).unwrap());
        for (key, value) in &records {
            // What is refused is left out; what is taken must hold together.
            let _refused = restore.apply(key, Some(value));
        }
        let mut group = restore.finish(now(), resolve);
        group.finish_round(now());
    }
}
