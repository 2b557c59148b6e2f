//! Whatever a disk hands back, a log is put together from it without a panic and is sound afterwards.

use bytes::Bytes;
use corelane_commitlog::{
    CommitLog, CorruptRange, Fetch, LogState, OFFSET_MAX, ReplayError, SegmentChoice, Settled, Shutdown, StateError,
    TimeLookup, TransactionEnd,
};
use corelane_model::{
    Decision, MonotonicNanos, Now, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TopicSettings,
    Transaction, WallMillis,
};
use corelane_record::{BatchBuilder, BatchHead, Compression, ProducerStamp, Stamp, stamp};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Found {
    /// The bytes of a checkpoint, as numbers that are small so that they often fit together.
    State(Vec<u64>),
    Batch {
        base: u64,
        records: u32,
        position: u64,
        producer: u64,
        sequence: u32,
        timestamp: i64,
        is_transactional: bool,
    },
    Settled {
        segment: u64,
        base: u64,
        end: u64,
        bytes: u64,
        timestamps: (i64, i64),
    },
    LogStart(u64),
    Corrupt(u64, u64),
    End {
        producer: u64,
        epoch: u16,
        is_commit: bool,
        first: u64,
        end: u64,
    },
}

/// Mostly small, sometimes at the edge of what fits.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![30 => 0..30u64, 1 => Just(1 << 62), 1 => Just((1 << 62) - 1), 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn millis() -> impl Strategy<Value = i64> {
    prop_oneof![10 => 0..30i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()]
}

fn found() -> impl Strategy<Value = Found> {
    let batch = (offset(), 1..4u32, 0..30u64, 0..4u64, 0..8u32, millis(), any::<bool>()).prop_map(
        |(base, records, position, producer, sequence, timestamp, is_transactional)| {
            let base = base.min(u64::MAX - u64::from(records));
            Found::Batch { base, records, position, producer, sequence, timestamp, is_transactional }
        },
    );
    let end = (0..4u64, 0..2u16, any::<bool>(), offset(), offset())
        .prop_map(|(producer, epoch, is_commit, first, end)| Found::End { producer, epoch, is_commit, first, end });
    let settled = (offset(), offset(), offset(), offset(), (millis(), millis()))
        .prop_map(|(segment, base, end, bytes, timestamps)| Found::Settled { segment, base, end, bytes, timestamps });
    prop_oneof![
        1 => vec(prop_oneof![20 => 0..6u64, 1 => offset()], 8..40).prop_map(Found::State),
        6 => batch,
        4 => settled,
        1 => offset().prop_map(Found::LogStart),
        1 => (offset(), offset()).prop_map(|(first, end)| Found::Corrupt(first, end)),
        2 => end,
    ]
}

fn encode(numbers: &[u64]) -> Vec<u8> {
    encode_as(1, numbers)
}

fn encode_as(version: u8, numbers: &[u64]) -> Vec<u8> {
    let mut out = vec![version];
    for &number in numbers {
        let mut rest = number;
        while 0x7f < rest {
            out.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        out.push(rest.to_le_bytes()[0]);
    }
    out
}

fn batch(
    base: u64,
    records: u32,
    producer: u64,
    sequence: u32,
    timestamp: i64,
    is_transactional: bool,
) -> (BatchHead, Bytes) {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..records {
        builder.push(WallMillis(0), None, None, &[]).expect("small");
    }
    let stamped = ProducerStamp {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(sequence),
    };
    let is_transactional = is_transactional && producer != 0;
    let bytes = if is_transactional { builder.finish_transactional(stamped, 0) } else { builder.finish(stamped) };
    let mut bytes = bytes.to_vec();
    stamp(
        &mut bytes,
        Stamp {
            base_offset: Offset(base),
            append_timestamp: WallMillis(timestamp),
            leader_epoch: corelane_model::LeaderEpoch(0),
        },
    );
    (BatchHead::parse(&bytes).expect("sound"), bytes.into())
}

fn replay(log: &mut CommitLog, found: &Found) -> Result<(), ReplayError> {
    match *found {
        Found::State(ref numbers) => {
            for version in [1, 2] {
                if let Ok(state) = LogState::decode(&encode_as(version, numbers)) {
                    log.restore(state);
                }
            }
            Ok(())
        }
        Found::Batch { base, records, position, producer, sequence, timestamp, is_transactional } => {
            let (head, bytes) = batch(base, records, producer, sequence, timestamp, is_transactional);
            log.replay(&head, bytes, position)
        }
        Found::Settled { segment, base, end, bytes, timestamps: (first, last) } => {
            let settled = Settled {
                segment: Offset(segment),
                segment_bytes: bytes,
                base: Offset(base),
                end: Offset(end),
                first_timestamp: WallMillis(first),
                max_timestamp: WallMillis(last),
            };
            log.replay_settled(&settled)
        }
        Found::End { producer, epoch, is_commit, first, end } => log.replay_transaction_end(&TransactionEnd {
            transaction: Transaction::new(ProducerId(producer), ProducerEpoch(epoch)),
            decision: if is_commit { Decision::Commit } else { Decision::Abort },
            first: Offset(first),
            end: Offset(end),
        }),
        Found::LogStart(start) => log.replay_log_start(Offset(start)),
        Found::Corrupt(first, end) => log.replay_corrupt(CorruptRange { first: Offset(first), end: Offset(end) }),
    }
}

/// Walks over everything that can be read; each step goes forward.
fn read_all(log: &CommitLog) {
    let mut at = log.log_start();
    for _ in 0..10_000 {
        let next = match log.fetch(at, 100) {
            Fetch::Batches { next, .. } => next,
            Fetch::Cold { end, .. } | Fetch::Corrupt { end, .. } => end,
            Fetch::AtEnd => {
                assert_eq!(at, log.high_watermark());
                return;
            }
            Fetch::OutOfRange { .. } => panic!("{at} is in range"),
        };
        assert!(at < next, "stands still at {at}");
        at = next;
    }
    panic!("reading does not end");
}

fn use_it(log: &mut CommitLog, now: Now) {
    read_all(log);
    for moment in [i64::MIN, 0, 5, i64::MAX] {
        if let TimeLookup::At(offset) = log.offset_for_time(WallMillis(moment)) {
            assert!(log.log_start() <= offset && offset <= log.high_watermark());
        }
    }
    log.apply_retention(now);
    if OFFSET_MAX - 1000 < log.log_end().0 {
        return; // No log that was really written is ever here.
    }
    assert!(log.log_start() <= log.last_stable_offset() && log.last_stable_offset() <= log.high_watermark());
    let open: Vec<_> = log.state().transactions().open().collect();
    for (transaction, _) in open {
        assert!(log.end_transaction(transaction, Decision::Abort).is_some());
    }
    assert_eq!(log.last_stable_offset(), log.high_watermark());
    let (head, bytes) = batch(0, 1, 0, 0, 0, false);
    let mut bytes = bytes.to_vec();
    if let Ok(corelane_commitlog::Append::Accept(given)) = log.append(now, &head) {
        stamp(&mut bytes, given);
        log.attach(bytes.into(), 100);
    }
    log.on_durable(log.log_end());
    while let Some(plan) = log.settle_plan(300) {
        let before = match plan.segment {
            SegmentChoice::Append { bytes, .. } => bytes,
            SegmentChoice::Roll { .. } => 0,
        };
        log.note_settled(&plan.settled(before + plan.bytes));
        log.on_settled();
    }
    read_all(log);
    let mut state = Vec::new();
    log.state().encode(&mut state);
    LogState::decode(&state).expect("what a log writes it reads");
    log.truncate(log.high_watermark()).expect("all of it");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_on_disk_gives_a_sound_log(journal in vec(found(), 0..30)) {
        let settings =
            TopicSettings { retention_ms: Some(1000), retention_bytes: Some(2000), ..TopicSettings::default() };
        let now = Now { monotonic: MonotonicNanos(1), wall: WallMillis(20) };
        let mut log = CommitLog::new(PartitionId::default(), settings, LogState::default());
        for found in &journal {
            if let Err(error) = replay(&mut log, found) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
        log.finish_recovery(now, Shutdown::Unclean);
        use_it(&mut log, now);
    }

    #[test]
    fn a_state_is_read_whole_or_not_at_all(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(state) = LogState::decode(&bytes) {
            let mut again = Vec::new();
            state.encode(&mut again);
            prop_assert_eq!(LogState::decode(&again), Ok(state));
        }
    }
}

#[test]
fn a_state_says_what_is_wrong_with_it() {
    let mut empty = Vec::new();
    LogState::default().encode(&mut empty);
    assert_eq!(empty, [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(LogState::decode(&empty), Ok(LogState::default()));
    assert_eq!(LogState::decode(&[]), Err(StateError::Malformed { at: 0 }));
    assert_eq!(LogState::decode(&[3]), Err(StateError::Version { found: 3, known: 2 }));
    assert_eq!(LogState::decode(&empty[..8]), Err(StateError::Malformed { at: 8 }));
    assert_eq!(LogState::decode(&[&empty[..], &[0]].concat()), Err(StateError::Excess { excess: 1 }));
    let with = |tail: &[u64]| LogState::decode(&encode(&[&[0, 0, 5, 0, 0], tail].concat())).map(|_| ());
    let too_many = |what, limit: u64| Err(StateError::Limit { what, found: limit + 1, limit });
    assert_eq!(with(&[65_537]), too_many("segments", 65_536));
    assert_eq!(with(&[0, 1025]), too_many("producers", 1024));
    assert_eq!(with(&[0, 1, 7, 0, 65]), too_many("batches of a producer", 64));
    assert_eq!(with(&[0, 0, 257]), too_many("damaged ranges", 256));
    assert!(matches!(with(&[1, 0, 1, 9, 0, 0, 0, 0, 0]), Err(StateError::Contradiction { .. })), "beyond its end");
    assert!(matches!(with(&[0, 1, 7, 0, 0, 0]), Err(StateError::Contradiction { .. })), "a producer without batches");
    assert!(matches!(with(&[0, 1, 7, 0, 1, 0, 5, 0, 0, 0]), Err(StateError::Contradiction { .. })), "a batch too long");
    assert_eq!(with(&[0, 1, 7, 0, 1, 0, 4, 0, 0, 0]), Ok(()));
    assert!(matches!(LogState::decode(&encode(&[1 << 63])), Err(StateError::Limit { .. })));
    let section =
        |tail: &[u64]| LogState::decode(&encode_as(2, &[&[0, 0, 5, 0, 0, 0, 0, 0], tail].concat())).map(|_| ());
    assert_eq!(section(&[1, 9, 0]), Err(StateError::Section { kind: 9 }));
    assert_eq!(section(&[3]), too_many("sections", 2));
    assert!(matches!(section(&[0]), Err(StateError::Contradiction { .. })), "no section in version 2");
    let twice = [2, 2, 5, 9, 0, 0, 0, 0, 2, 5, 9, 0, 0, 0, 0];
    assert!(matches!(section(&twice), Err(StateError::Contradiction { .. })), "a section is there once");
    assert_eq!(section(&[1, 2, 5, 9, 0, 0, 0, 0]), Ok(()));
    assert!(
        matches!(section(&[1, 1, 2, 0, 0]), Err(StateError::Contradiction { .. })),
        "no transaction in the section"
    );
    assert!(matches!(section(&[1, 1, 3, 0, 0]), Err(StateError::Malformed { .. })), "a section that is cut off");
    assert_eq!(section(&[1, 1, 7, 1, 7, 0, 4, 1, 0, 7]), Err(StateError::Excess { excess: 1 }));
    let contradicts = |tail: &[u64]| matches!(section(tail), Err(StateError::Contradiction { .. }));
    assert_eq!(section(&[1, 1, 6, 1, 7, 0, 4, 1, 0]), Ok(()));
    assert!(contradicts(&[1, 1, 6, 1, 7, 0, 4, 2, 0]), "open beyond the log");
    assert!(contradicts(&[1, 1, 6, 1, 7, 0, 4, 0, 0]), "open without a record");
    assert!(contradicts(&[1, 1, 6, 1, 0, 0, 4, 1, 0]), "nobody's transaction");
    assert_eq!(section(&[1, 1, 6, 0, 1, 7, 0, 3, 2]), Ok(()));
    assert!(contradicts(&[1, 1, 6, 0, 1, 7, 0, 3, 3]), "aborted beyond the log");
    assert!(contradicts(&[1, 1, 10, 1, 7, 0, 1, 1, 1, 7, 0, 1, 1]), "open and aborted");
}
