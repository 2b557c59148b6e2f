//! Logs that are put together again.

use bytes::Bytes;
use corelane_commitlog::{Append, CorruptRange, Fetch, LogState, ReplayError, Shutdown};
use corelane_model::{LeaderEpoch, Offset};
use corelane_record::BatchHead;

use crate::rig::{Rig, is_accepted};

/// A log that holds 0 to 2 settled and 2 to 6 in two batches, and everything as it would be read from the journal.
fn journal() -> (Vec<u8>, Vec<(BatchHead, Bytes)>) {
    let mut rig = Rig::durable();
    rig.append_as((9, 0, 0), 2).expect("taken");
    rig.sync();
    rig.settle();
    let mut state = Vec::new();
    rig.log.state().encode(&mut state);
    rig.append_as((9, 0, 2), 2).expect("taken");
    rig.append_as((9, 0, 4), 2).expect("taken");
    rig.sync();
    let Fetch::Batches { batches, .. } = rig.log.fetch(Offset(2), u32::MAX) else { panic!("in memory") };
    (state, batches.into_iter().map(|bytes| (BatchHead::parse(&bytes).expect("sound"), bytes)).collect())
}

fn recover(state: &[u8], batches: &[(BatchHead, Bytes)]) -> (Rig, Vec<CorruptRange>) {
    let mut rig = Rig::durable();
    rig.log.restore(LogState::decode(state).expect("sound"));
    for (position, (head, bytes)) in (0..).zip(batches) {
        rig.log.replay(head, bytes.clone(), position).expect("fits");
    }
    let (corrupt, _) = rig.log.finish_recovery(rig.now, Shutdown::Unclean);
    (rig, corrupt)
}

#[test]
fn recovery_puts_the_log_together_again() {
    let (state, batches) = journal();
    let (mut rig, corrupt) = recover(&state, &batches);
    assert_eq!((rig.ends(), corrupt), ([0, 2, 6, 6], vec![]));
    assert_eq!(rig.log.leader_epoch(), LeaderEpoch(1));
    assert_eq!(rig.fetch(2, u32::MAX), "2 4 then 6");
    assert!(matches!(rig.append_as((9, 0, 4), 2), Ok(Append::Duplicate { base_offset: Offset(4), .. })));
    assert!(is_accepted(&rig.append_as((9, 0, 6), 1)));
}

#[test]
fn a_lost_batch_is_reported_and_never_served() {
    let (state, batches) = journal();
    let (mut rig, corrupt) = recover(&state, &batches[1..]);
    assert_eq!(corrupt, [CorruptRange { first: Offset(2), end: Offset(4) }]);
    assert_eq!(rig.fetch(0, 1), "cold in 0 to 2");
    assert_eq!(rig.fetch(3, 1), "corrupt 2 to 4");
    assert_eq!(rig.fetch(4, 1), "4 then 6");
    rig.settle();
    assert_eq!(rig.fetch(3, 1), "corrupt 2 to 4");
    assert_eq!(rig.fetch(0, 1), "cold in 0 to 2");
    let mut state = Vec::new();
    rig.log.state().encode(&mut state);
    let (rig, corrupt) = recover(&state, &[]);
    assert_eq!(corrupt.len(), 1, "a checkpoint keeps what is lost");
    assert_eq!(rig.log.leader_epoch(), LeaderEpoch(2));
}

#[test]
fn what_comes_before_the_first_checkpoint_is_no_loss() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.append(1);
    rig.sync();
    rig.settle();
    rig.append(1);
    rig.append(1);
    rig.sync();
    let Fetch::Batches { batches, .. } = rig.log.fetch(Offset(2), u32::MAX) else { panic!("in memory") };
    let plan = rig.log.settle_plan(1).expect("durable");
    let note = plan.settled(3 * 216);
    rig.log.note_settled(&note);
    rig.log.on_settled();
    let expected = rig.log.clone();

    // The oldest file that is needed begins after the first two were settled, with the note of the third and the fourth.
    let mut rig = Rig::durable();
    rig.log.replay_settled(&note).expect("fits");
    let head = BatchHead::parse(&batches[1]).expect("sound");
    rig.log.replay(&head, batches[1].clone(), 4).expect("fits");
    rig.log.restore(expected.state().clone());
    assert_eq!(rig.log.finish_recovery(rig.now, Shutdown::Clean).0, []);
    assert_eq!((rig.log.state(), rig.ends()), (expected.state(), [0, 3, 4, 4]));
}

#[test]
fn a_checkpoint_that_is_behind_the_notes_keeps_them() {
    let mut rig = Rig::durable();
    rig.append(1);
    rig.append(1);
    rig.append(1);
    rig.sync();
    let first = rig.log.settle_plan(1).expect("durable");
    rig.log.note_settled(&first.settled(216));
    rig.log.on_settled();
    let behind = rig.log.state().clone();
    let second = rig.log.settle_plan(1).expect("durable");
    rig.log.note_settled(&second.settled(432));
    rig.log.on_settled();
    for (note, segments) in [(second.settled(432), vec![(0, 2, false)]), (first.settled(216), vec![(0, 1, false)])] {
        let mut again = Rig::durable();
        again.log.replay_settled(&note).expect("fits");
        again.log.restore(behind.clone());
        assert_eq!((again.ends()[1], again.segments()), (note.end.0, segments));
    }
}

#[test]
fn damage_at_the_end_keeps_its_offsets() {
    let (state, batches) = journal();
    let mut rig = Rig::durable();
    rig.log.restore(LogState::decode(&state).expect("sound"));
    rig.log.replay(&batches[0].0, batches[0].1.clone(), 0).expect("fits");
    rig.log.replay_corrupt(CorruptRange { first: Offset(4), end: Offset(6) }).expect("fits");
    rig.log.finish_recovery(rig.now, Shutdown::Clean);
    assert_eq!(rig.log.leader_epoch(), LeaderEpoch(0));
    rig.append(1);
    rig.sync();
    assert_eq!((rig.fetch(4, 1), rig.fetch(6, 1)), ("corrupt 4 to 6".to_owned(), "6 then 7".to_owned()));
}

#[test]
fn what_does_not_fit_is_left_out_of_recovery() {
    let (state, batches) = journal();
    let mut rig = Rig::durable();
    rig.log.restore(LogState::decode(&state).expect("sound"));
    let forged = |base: u64, span: u32| {
        let mut head = batches[0].0;
        (head.base_offset, head.offset_span) = (Offset(base), span);
        head
    };
    let bytes = || batches[0].1.clone();
    assert!(matches!(rig.log.replay(&forged(1, 3), bytes(), 0), Err(ReplayError::Overlap { .. })));
    assert!(matches!(rig.log.replay(&forged(1 << 62, 3), bytes(), 0), Err(ReplayError::OffsetTooLarge { .. })));
    assert_eq!(rig.log.replay(&forged(2, 2), bytes(), 7), Ok(()));
    assert!(matches!(rig.log.replay(&forged(2, 2), bytes(), 8), Err(ReplayError::OutOfOrder { .. })));
    assert!(matches!(rig.log.replay(&forged(4, 2), bytes(), 6), Err(ReplayError::OutOfOrder { .. })));
    rig.log.finish_recovery(rig.now, Shutdown::Clean);
}
