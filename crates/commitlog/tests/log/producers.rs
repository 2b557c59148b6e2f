//! Batches that are sent again, come out of sequence, or come from the past.

use corelane_commitlog::{Append, AppendError, CommitLog, LogState};
use corelane_model::limits::{PARTITION_PRODUCERS_MAX, PRODUCER_BATCHES_MAX, PRODUCER_EXPIRY, PRODUCER_SPARED};
use corelane_model::{Offset, ProducerEpoch, ProducerId, Sequence, WallMillis};

use crate::rig::{PARTITION, Rig, is_accepted};

#[test]
fn a_batch_that_is_sent_again_is_answered_and_not_appended() {
    let mut rig = Rig::durable();
    let batches = u32::try_from(PRODUCER_BATCHES_MAX).expect("few") + 1;
    for n in 0..batches {
        assert!(is_accepted(&rig.append_as((9, 0, n * 2), 2)));
        rig.wait(1);
    }
    let first_time =
        Append::Duplicate { base_offset: Offset(2), append_timestamp: WallMillis(1001), end_offset: Offset(4) };
    assert_eq!(rig.append_as((9, 0, 2), 2), Ok(first_time));
    // The first of all is forgotten, and is still not taken for new.
    let (producer, expected) = (ProducerId(9), Sequence(batches * 2));
    let too_old = AppendError::OutOfSequence { producer, expected, found: Sequence(0) };
    assert_eq!(rig.append_as((9, 0, 0), 2), Err(too_old));
    // What reaches beyond a batch is not that batch.
    let other = AppendError::OutOfSequence { producer, expected, found: Sequence(2) };
    assert_eq!(rig.append_as((9, 0, 2), 3), Err(other));
    assert_eq!(rig.ends(), [0, 0, 0, u64::from(batches) * 2]);
    assert_eq!((rig.log.stats().duplicate_batches, rig.log.stats().refused_batches), (1, 2));
}

#[test]
fn batches_of_one_millisecond_are_remembered_together_and_told_apart() {
    let mut rig = Rig::durable();
    let batches = u32::try_from(PRODUCER_BATCHES_MAX).expect("few") * 3;
    for n in 0..batches {
        assert!(is_accepted(&rig.append_as((9, 0, n * 2), 2)));
    }
    for n in [0, 1, batches - 1] {
        let (base, end) = (Offset(u64::from(n) * 2), Offset(u64::from(n) * 2 + 2));
        let again = Append::Duplicate { base_offset: base, append_timestamp: WallMillis(1000), end_offset: end };
        assert_eq!(rig.append_as((9, 0, n * 2), 2), Ok(again));
    }
}

#[test]
fn a_gap_in_sequences_is_refused() {
    let mut rig = Rig::durable();
    let producer = ProducerId(9);
    assert_eq!(rig.decide((9, 0, 5), 1), Err(AppendError::UnknownProducer { producer, found: Sequence(5) }));
    assert!(is_accepted(&rig.append_as((9, 0, 0), 3)));
    let gap = AppendError::OutOfSequence { producer, expected: Sequence(3), found: Sequence(4) };
    assert_eq!(rig.decide((9, 0, 4), 1), Err(gap));
    assert!(is_accepted(&rig.append_as((9, 0, 3), 1)));
}

#[test]
fn a_new_epoch_begins_at_zero_and_fences_the_old() {
    let mut rig = Rig::durable();
    assert!(is_accepted(&rig.append_as((9, 1, 0), 3)));
    let producer = ProducerId(9);
    let gap = AppendError::OutOfSequence { producer, expected: Sequence(0), found: Sequence(3) };
    assert_eq!(rig.decide((9, 2, 3), 1), Err(gap));
    assert!(is_accepted(&rig.append_as((9, 2, 0), 3)));
    let (current, found) = (ProducerEpoch(2), ProducerEpoch(1));
    assert_eq!(rig.decide((9, 1, 3), 1), Err(AppendError::ProducerFenced { producer, current, found }));
}

#[test]
fn sequences_wrap() {
    let mut rig = Rig::durable();
    // In steps of the largest batch a wrap would take a quarter of a million batches: begin shortly before it.
    let mut state = LogState::default();
    for sequence in 0..3 {
        assert!(is_accepted(&rig.append_as((9, 0, sequence), 1)));
        rig.wait(1);
        state = rig.log.state().clone();
    }
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    // The producer's batches are the last thing in it but for the count of damaged ranges: each its distance from the one
    // before in sequence, its records, its distance in offset and in time. From 2 on, 2^32 - 4 leads to -2.
    let near_end = [0xfc, 0xff, 0xff, 0xff, 0x0f];
    let at = bytes.len() - 5;
    assert_eq!(bytes[at..], [0, 0, 0, 2, 0], "the last batch in {bytes:?}");
    bytes.splice(at..=at, near_end);
    rig.log = CommitLog::new(PARTITION, *rig.log.settings(), LogState::decode(&bytes).expect("sound"));
    assert!(is_accepted(&rig.append_as((9, 0, u32::MAX), 3)));
    let again = Append::Duplicate { base_offset: Offset(3), append_timestamp: WallMillis(1003), end_offset: Offset(6) };
    assert_eq!(rig.append_as((9, 0, u32::MAX), 3), Ok(again));
    assert!(is_accepted(&rig.append_as((9, 0, 2), 1)));
}

#[test]
fn one_producer_too_many_pushes_out_the_one_that_was_silent_longest() {
    let mut rig = Rig::durable();
    let count = PARTITION_PRODUCERS_MAX as u64;
    for id in 1..=count {
        rig.append_as((id, 0, 0), 1).expect("taken");
    }
    rig.append_as((1, 0, 1), 1).expect("taken");
    rig.append_as((count + 1, 0, 0), 1).expect("taken");
    assert_eq!(rig.log.state().producers().len(), PARTITION_PRODUCERS_MAX);
    assert!(matches!(rig.decide((2, 0, 1), 1), Err(AppendError::UnknownProducer { .. })));
    assert!(is_accepted(&rig.decide((1, 0, 2), 1)));
    assert!(is_accepted(&rig.decide((3, 0, 1), 1)));
}

#[test]
fn a_silent_producer_is_forgotten_by_the_clock_that_does_not_jump() {
    let mut rig = Rig::durable();
    rig.append_as((9, 0, 0), 1).expect("taken");
    rig.now.wall.0 += 1_000_000_000_000;
    rig.log.apply_retention(rig.now);
    assert!(is_accepted(&rig.append_as((9, 0, 1), 1)));
    rig.now.monotonic = rig.now.monotonic.after(PRODUCER_EXPIRY);
    rig.log.apply_retention(rig.now);
    assert!(matches!(rig.decide((9, 0, 2), 1), Err(AppendError::UnknownProducer { .. })));
}

#[test]
fn the_producers_that_were_heard_last_are_kept() {
    let mut rig = Rig::durable();
    for id in [3, 1, 2, 4] {
        assert!(is_accepted(&rig.append_as((id, 0, 0), 1)));
    }
    assert!(is_accepted(&rig.append_as((3, 0, 1), 1)));
    let kept = |rig: &Rig| rig.log.state().producers().len();
    let later = corelane_model::Now { monotonic: rig.now.monotonic.after(PRODUCER_SPARED), ..rig.now };
    rig.log.forget_producers(rig.now, 0);
    assert_eq!(kept(&rig), 4, "they may send again what they have just sent");
    let mut checkpoint = rig.log.state().clone();
    checkpoint.keep_producers(1);
    assert_eq!(checkpoint.producers().len(), 1);
    rig.log.forget_producers(later, 4);
    assert_eq!(kept(&rig), 4);
    rig.log.forget_producers(later, 2);
    assert_eq!(kept(&rig), 2);
    assert!(is_accepted(&rig.append_as((3, 0, 2), 1)));
    assert!(is_accepted(&rig.append_as((4, 0, 1), 1)));
    let unknown = AppendError::UnknownProducer { producer: ProducerId(1), found: Sequence(1) };
    assert_eq!(rig.decide((1, 0, 1), 1), Err(unknown));
    rig.log.forget_producers(later, 0);
    assert_eq!(kept(&rig), 0);
}
