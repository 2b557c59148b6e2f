//! The bytes of a log's state in version 1, which never change.

use corelane_commitlog::{CommitLog, CompactionResult, CorruptRange, LogState, Settled, Shutdown};
use corelane_model::{
    Decision, Now, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TopicSettings, Transaction, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, Stamp, stamp};
use expect_test::expect;

/// Two segments, two producers, and a damaged range between what is settled and what is not.
fn state() -> LogState {
    let mut log = CommitLog::new(PartitionId::default(), TopicSettings::default(), LogState::default());
    for (position, (producer, sequence, base)) in [(9, 0, 300), (7, 0, 301), (9, 1, 303)].into_iter().enumerate() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(WallMillis(0), None, None, &[]).expect("small");
        let producer_id = ProducerId(producer);
        let producer =
            ProducerStamp { producer_id, producer_epoch: ProducerEpoch(1), base_sequence: Sequence(sequence) };
        let mut bytes = builder.finish(producer).to_vec();
        let given = Stamp {
            base_offset: Offset(base),
            append_timestamp: WallMillis(1_700_000_000_000 + i64::try_from(base).expect("small")),
            leader_epoch: corelane_model::LeaderEpoch(4),
        };
        stamp(&mut bytes, given);
        let head = BatchHead::parse(&bytes).expect("sound");
        log.replay(&head, bytes.into(), position as u64).expect("fits");
        if base < 302 {
            let settled = Settled {
                segment: Offset(base),
                segment_bytes: 4096 * base,
                base: Offset(base),
                end: Offset(base + 1),
                first_timestamp: given.append_timestamp,
                max_timestamp: WallMillis(given.append_timestamp.0 + 5),
            };
            log.replay_settled(&settled).expect("fits");
        }
    }
    log.replay_log_start(Offset(300)).expect("fits");
    let (corrupt, _) = log.finish_recovery(Now::default(), Shutdown::Unclean);
    assert_eq!(corrupt, [CorruptRange { first: Offset(302), end: Offset(303) }]);
    log.state().clone()
}

fn bytes() -> Vec<u8> {
    let mut out = Vec::new();
    state().encode(&mut out);
    out
}

/// A state with one transaction open and two aborted.
fn state_with_transactions() -> LogState {
    let mut log = CommitLog::new(PartitionId::default(), TopicSettings::default(), LogState::starting_at(Offset(300)));
    for (producer, epoch) in [(9, 0), (7, 3), (9, 1), (8, 0)] {
        let mut builder = BatchBuilder::new(Compression::None);
        (0..2).for_each(|_| builder.push(WallMillis(0), None, None, &[]).expect("small"));
        let stamped = ProducerStamp {
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(0),
        };
        let head = BatchHead::parse(&builder.finish_transactional(stamped, 0)).expect("sound");
        log.append(Now::default(), &head).expect("in sequence");
        let decision = match producer {
            7 => Decision::Commit,
            8 => continue,
            _ => Decision::Abort,
        };
        let transaction = Transaction::new(ProducerId(producer), ProducerEpoch(epoch));
        log.end_transaction(transaction, decision).expect("it is open");
    }
    log.state().clone()
}

const FIXTURE_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/2/log-state.bin");

#[test]
fn bytes_of_version_2_are_those_of_the_fixture_and_open() {
    let fixture = std::fs::read(FIXTURE_2).expect("the fixture is part of the repository");
    let mut bytes = Vec::new();
    state_with_transactions().encode(&mut bytes);
    assert_eq!(bytes, fixture);
    assert_eq!(LogState::decode(&fixture), Ok(state_with_transactions()));
}

#[test]
fn the_section_of_transactions_is_drawn() {
    let mut bytes = Vec::new();
    state_with_transactions().encode(&mut bytes);
    let at = bytes.len() - 20;
    expect![[r#"010111010800b20202020900ac02020901b00202"#]].assert_eq(&hex::encode(&bytes[at..]));
}

/// The first state after compaction wrote its first segment anew.
fn compacted() -> LogState {
    let settings = TopicSettings { tombstone_ms: 0, ..TopicSettings::compacted() };
    let mut log = CommitLog::new(PartitionId::default(), settings, state());
    let wall = WallMillis(1_700_000_001_000);
    let plan = log.compaction_plan(wall).expect("it has a sealed segment");
    assert_eq!(plan.segments.len(), 1);
    log.replace_segments(&plan.segments, 8192).expect("it has them");
    let result =
        CompactionResult { end: Offset(301), tombstones_end: plan.tombstones_end, has_tombstones: true, stuck: None };
    log.on_compacted(wall, result);
    log.state().clone()
}

const FIXTURE_COMPACTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/2/log-state-compacted.bin");

#[test]
#[ignore = "writes the fixture of a new version"]
fn write_compacted_fixture() {
    let mut bytes = Vec::new();
    compacted().encode(&mut bytes);
    std::fs::write(FIXTURE_COMPACTED, bytes).expect("the folder is there");
}

#[test]
fn bytes_of_a_compacted_log_are_those_of_the_fixture_and_open() {
    let fixture = std::fs::read(FIXTURE_COMPACTED).expect("the fixture is part of the repository");
    let mut bytes = Vec::new();
    compacted().encode(&mut bytes);
    assert_eq!(bytes, fixture);
    assert_eq!(LogState::decode(&fixture), Ok(compacted()));
    let at = bytes.len() - 15;
    expect!["020dad0200d0afabfef96201010001"].assert_eq(&hex::encode(&bytes[at..]));
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/1/log-state.bin");

#[test]
#[ignore = "writes the fixture of a new version"]
fn write_fixture() {
    std::fs::write(FIXTURE, bytes()).expect("the folder is there");
    let mut bytes = Vec::new();
    state_with_transactions().encode(&mut bytes);
    std::fs::write(FIXTURE_2, bytes).expect("the folder is there");
}

#[test]
fn bytes_are_those_of_the_fixture_and_open() {
    let fixture = std::fs::read(FIXTURE).expect("the fixture is part of the repository");
    assert_eq!(bytes(), fixture);
    assert_eq!(LogState::decode(&fixture), Ok(state()));
}

#[test]
fn the_state_is_drawn() {
    let dump: Vec<_> = bytes().chunks(16).map(hex::encode).collect();
    expect![[r#"
        01ac02020205e4a4abfef96202ac0201
        80804bd8a4abfef9620501ad020180a0
        4bdaa4abfef9620500020701010000ad
        02daa4abfef9620901020000ac02d8a4
        abfef9620000020601ae0201"#]]
    .assert_eq(&dump.join("\n"));
}

/// A checkpoint has to fit the journal's ring several times over, with thousands of partitions in it.
#[test]
fn a_producer_with_a_full_window_takes_few_bytes() {
    let mut log = CommitLog::new(PartitionId::default(), TopicSettings::default(), LogState::default());
    let mut empty = Vec::new();
    log.state().encode(&mut empty);
    let now = |millis: i64| Now { wall: WallMillis(1_700_000_000_000 + millis), ..Now::default() };
    for tick in 0..64 {
        for player in 1..=10 {
            let mut builder = BatchBuilder::new(Compression::None);
            (0..20).for_each(|_| builder.push(WallMillis(0), None, None, &[]).expect("small"));
            let producer = ProducerStamp {
                producer_id: ProducerId(1 << 56 | player),
                producer_epoch: ProducerEpoch(1),
                base_sequence: Sequence(tick * 20),
            };
            let head = BatchHead::parse(&builder.finish(producer)).expect("sound");
            log.append(now(i64::from(tick) * 16), &head).expect("in sequence");
        }
    }
    let mut full = Vec::new();
    log.state().encode(&mut full);
    let each = (full.len() - empty.len()) / 10;
    assert!(each <= 5 * 64 + 32, "{each} bytes a producer");
    assert_eq!(LogState::decode(&full).as_ref(), Ok(log.state()));
}
