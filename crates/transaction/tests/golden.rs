//! The bytes of a transactional id's record in format 1, which never change, and any other bytes.

use std::time::Duration;

use corelane_model::{
    Decision, GroupName, MonotonicNanos, Now, PartitionId, PartitionIndex, ProducerId, TopicId, TransactionalId,
    WallMillis,
};
use corelane_transaction::{
    Coordinator, DecodeError, Effect, Participant, Phase, RequestTicket, Restore, TRANSACTION_FORMAT, id_of,
};
use expect_test::expect;
use proptest::collection::vec;
use proptest::prelude::*;

const NOW: Now = Now { monotonic: MonotonicNanos(5), wall: WallMillis(1_700_000_000_000) };

fn id() -> TransactionalId {
    TransactionalId::parse("settle-matches").expect("it is sound")
}

fn participants() -> [Participant; 2] {
    let group = GroupName::parse("match-makers").expect("it is sound");
    [Participant::Partition(PartitionId::new(TopicId(258), PartitionIndex(3))), Participant::Group(group)]
}

/// One transaction is over, the next one is being committed.
fn ending() -> Coordinator {
    let mut coordinator = Coordinator::new(NOW, id());
    let ticket = RequestTicket(1);
    coordinator.initialise(NOW, ticket, ProducerId(77), Duration::from_secs(10)).expect("nothing speaks against it");
    for decision in [Decision::Abort, Decision::Commit] {
        let open = coordinator.current().expect("it was initialised");
        for participant in participants() {
            coordinator.join(NOW, ticket, open, participant).expect("it may begin");
        }
        coordinator.end(NOW, ticket, open, decision).expect("it goes on");
        if decision == Decision::Abort {
            participants().iter().for_each(|participant| coordinator.on_applied(NOW, open, participant));
        }
    }
    coordinator
}

/// Two participants come to a transaction one after the other: the id's record, and what was added to it.
fn addition() -> [(Vec<u8>, Vec<u8>); 2] {
    let mut coordinator = Coordinator::new(NOW, id());
    let ticket = RequestTicket(1);
    coordinator.initialise(NOW, ticket, ProducerId(77), Duration::from_secs(10)).expect("nothing speaks against it");
    let open = coordinator.current().expect("it was initialised");
    for participant in participants() {
        coordinator.join(NOW, ticket, open, participant).expect("it may begin");
        coordinator.finish_round();
    }
    let appended = std::iter::from_fn(|| coordinator.poll_effect()).filter_map(|effect| match effect {
        Effect::Append { key, value: Some(value), .. } => Some((key, value)),
        _ => None,
    });
    appended.collect::<Vec<_>>().try_into().expect("one for each round")
}

fn path(name: &str) -> String {
    format!("{}/../../tests/fixtures/1/transaction-{name}.bin", env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "writes the fixtures of a new version"]
fn write_fixtures() {
    let (key, value) = ending().record().expect("it is in use");
    std::fs::write(path("key"), key).expect("the folder is there");
    std::fs::write(path("value"), value).expect("the folder is there");
    let [_, (key, value)] = addition();
    std::fs::write(path("addition-key"), key).expect("the folder is there");
    std::fs::write(path("addition-value"), value).expect("the folder is there");
}

#[test]
fn bytes_are_those_of_the_fixtures_and_open() {
    let [key, value] = ["key", "value"].map(|name| std::fs::read(path(name)).expect("it is part of the repository"));
    assert_eq!(ending().record(), Some((key.clone(), value.clone())));
    assert_eq!(id_of(&key), Ok(id()));
    let mut restore = Restore::new(id());
    restore.apply(&key, Some(&value)).expect("it was written so");
    let mut restored = restore.finish(NOW);
    assert_eq!(restored.phase(), ending().phase());
    assert_eq!(restored.record(), Some((key, value)));
    let told = std::iter::from_fn(|| restored.poll_effect()).filter(|effect| matches!(effect, Effect::Apply { .. }));
    assert_eq!(told.count(), 2, "a decision that was durable is told again");
}

#[test]
fn bytes_of_an_addition_are_those_of_the_fixtures_and_open() {
    let bytes =
        ["addition-key", "addition-value"].map(|name| std::fs::read(path(name)).expect("it is part of the repository"));
    let [(key, value), added] = addition();
    assert_eq!([added.0.clone(), added.1.clone()], bytes);
    assert_eq!(id_of(&added.0), Ok(id()));
    let restored = |records: &[&(Vec<u8>, Vec<u8>)]| {
        let mut restore = Restore::new(id());
        for (key, value) in records {
            restore.apply(key, Some(value)).expect("it was written so");
        }
        restore
    };
    let both = restored(&[&(key.clone(), value.clone()), &added]).finish(NOW);
    let Phase::Open { participants: found, .. } = both.phase() else { panic!("it goes on: {both:?}") };
    assert!(found.iter().eq(&participants()), "{found:?}");
    assert!(restored(&[&added]).is_nothing());
    // What damage leaves of a transaction without the record of its beginning says nothing.
    assert_eq!(*restored(&[&added]).finish(NOW).phase(), Phase::Unused);
    let decided = ending().record().expect("it is in use");
    assert_eq!(restored(&[&decided, &added]).finish(NOW).phase(), ending().phase());
}

#[test]
fn where_no_number_is_left_the_record_has_everybody() {
    let [(key, value), (mut last, added)] = addition();
    let at = last.len() - 2;
    last[at..].copy_from_slice(&1023u16.to_le_bytes());
    let mut restore = Restore::new(id());
    restore.apply(&key, Some(&value)).expect("it was written so");
    restore.apply(&last, Some(&added)).expect("it is sound");
    let mut full = restore.finish(NOW);
    let open = full.current().expect("it goes on");
    let third = Participant::Partition(PartitionId::new(TopicId(258), PartitionIndex(4)));
    full.join(NOW, RequestTicket(1), open, third).expect("there is room");
    full.finish_round();
    let appended = std::iter::from_fn(|| full.poll_effect()).filter_map(|effect| match effect {
        Effect::Append { key, value, .. } => Some((key, value)),
        _ => None,
    });
    let appended: Vec<_> = appended.collect();
    assert_eq!(appended.len(), 1 + 1024, "the record, and all numbers are free again");
    let mut restore = Restore::new(id());
    for (key, value) in &appended {
        restore.apply(key, value.as_deref()).expect("it was written so");
    }
    let restored = restore.finish(NOW);
    assert_eq!(restored.phase(), full.phase());
    assert!(matches!(restored.phase(), Phase::Open { participants, .. } if participants.len() == 3));
}

#[test]
fn the_addition_is_drawn() {
    let [_, (key, value)] = addition();
    let lines = |bytes: &[u8]| bytes.chunks(16).map(hex::encode).collect::<Vec<_>>().join("\n");
    expect![[r#"
        01020e736574746c652d6d6174636865
        730000"#]]
    .assert_eq(&lines(&key));
    expect![[r#"
        014d0000000000000000000100020c6d
        617463682d6d616b657273"#]]
    .assert_eq(&lines(&value));
}

#[test]
fn wrong_bytes_of_an_addition_are_named() {
    let [_, (key, value)] = addition();
    let with = |at: usize, byte: u8| {
        let mut value = value.clone();
        value[at] = byte;
        Restore::new(id()).apply(&key, Some(&value)).unwrap_err().to_string()
    };
    assert_eq!(with(0, 9), "transaction format 9 is not known to this version, which reads format 1");
    assert_eq!(with(1, 0), "a transaction expected at byte 1");
    assert_eq!(with(12, 255), "65281 partitions and groups are over the limit of 1024");
    assert_eq!(with(13, 3), "a partition or a group expected at byte 13");
    let empty = [&value[..11], &[0, 0]].concat();
    let error = Restore::new(id()).apply(&key, Some(&empty)).unwrap_err();
    assert_eq!(error.to_string(), "a participant expected at byte 11");
    let far = [&key[..key.len() - 1], &[4]].concat();
    assert_eq!(id_of(&far).unwrap_err().to_string(), "1025 additions are over the limit of 1024");
}

#[test]
fn the_record_is_drawn() {
    let (key, value) = ending().record().expect("it is in use");
    let lines = |bytes: &[u8]| bytes.chunks(16).map(hex::encode).collect::<Vec<_>>().join("\n");
    expect![[r#"
        01010e736574746c652d6d6174636865
        73"#]]
    .assert_eq(&lines(&key));
    expect![[r#"
        01102700000068e5cf8b0100004d0000
        000000000001004d0000000000000000
        00020202000102010000000000000300
        0000020c6d617463682d6d616b657273"#]]
    .assert_eq(&lines(&value));
}

#[test]
fn a_tombstone_leaves_nothing() {
    let (key, value) = ending().record().expect("it is in use");
    let mut restore = Restore::new(id());
    restore.apply(&key, Some(&value)).expect("it was written so");
    assert!(!restore.is_nothing());
    restore.apply(&key, None).expect("it was written so");
    assert!(restore.is_nothing());
    assert_eq!(*restore.finish(NOW).phase(), Phase::Unused);
}

#[test]
fn wrong_bytes_are_named() {
    let (key, value) = ending().record().expect("it is in use");
    let with = |at: usize, byte: u8| {
        let mut value = value.clone();
        value[at] = byte;
        Restore::new(id()).apply(&key, Some(&value)).unwrap_err().to_string()
    };
    assert_eq!(with(0, 9), "transaction format 9 is not known to this version, which reads format 1");
    assert_eq!(with(4, 255), "a time-out within its bounds expected at byte 1");
    assert_eq!(with(33, 0), "a decision about the last transaction expected at byte 33");
    assert_eq!(with(34, 7), "a phase expected at byte 34");
    assert_eq!(with(34, 0), "a phase that fits its participants expected at byte 34");
    assert_eq!(with(36, 255), "65282 partitions and groups are over the limit of 1024");
    assert_eq!(with(37, 3), "a partition or a group expected at byte 37");
    let other = Restore::new(TransactionalId::parse("other").expect("sound")).apply(&key, None);
    assert!(matches!(other, Err(DecodeError::Id { .. })));
    assert_eq!(id_of(&[TRANSACTION_FORMAT, 3]), Err(DecodeError::Kind { kind: 3 }));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_a_sound_coordinator_or_none(mut bytes in vec(any::<u8>(), 0..120), changes in vec((0..80usize, any::<u8>()), 0..3)) {
        let (key, value) = ending().record().expect("it is in use");
        let mut near = value;
        for (at, byte) in changes {
            let at = at % near.len();
            near[at] = byte;
        }
        if let Some(first) = bytes.first_mut() {
            *first = TRANSACTION_FORMAT;
        }
        drop(id_of(&bytes));
        let [(open_key, open_value), (added_key, added_value)] = addition();
        let mut added = added_value;
        for (place, &byte) in bytes.iter().enumerate().take(4) {
            let at = (usize::from(byte) + place) % added.len();
            added[at] = byte;
        }
        for value in [&bytes, &added] {
            let mut restore = Restore::new(id());
            restore.apply(&open_key, Some(&open_value)).expect("it was written so");
            drop(restore.apply(&added_key, Some(value)));
            drop(restore.finish(NOW));
        }
        for value in [&bytes, &near] {
            let mut restore = Restore::new(id());
            if restore.apply(&key, Some(value)).is_ok() {
                let restored = restore.finish(NOW);
                prop_assert_eq!(restored.record().map(|(_, value)| value), Some(value.clone()));
            }
        }
    }
}
