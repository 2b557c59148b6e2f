//! A coordinator that cannot take something now: it is said again, and nothing of it is forgotten.

use std::time::Duration;

use corelane_wire::FrameKind;

use crate::members::{Members, PARTITIONS};

/// Members whose heartbeats are rare, so that only what is said again comes in time.
fn patient_members() -> Members {
    let mut members = Members::new(true);
    members.session = Duration::from_secs(30);
    members
}

fn refuse(members: &mut Members, kinds: &[FrameKind]) {
    members.world.broker.coordinator.as_mut().unwrap().busy_for = kinds.to_vec();
}

/// Everything that was to be refused was.
fn check_refused(members: &Members) {
    let left = &members.world.broker.coordinator.as_ref().unwrap().busy_for;
    assert!(left.is_empty(), "{left:?} did not come");
}

#[test]
fn a_leave_goes_again() {
    let mut members = patient_members();
    let (a, b) = (members.join(None), members.join(None));
    members.settle();
    refuse(&mut members, &[FrameKind::LeaveGroup; 2]);
    members.world.core.leave_group(members.world.now, members.apps[a].key.unwrap(), false);
    members.settle();
    check_refused(&members);
    assert_eq!(members.apps[a].end, Some(None));
    assert_eq!(members.held(b).len(), PARTITIONS as usize, "nobody waits for the session of who left");
}

#[test]
fn a_leave_waits_for_the_commits_before_it() {
    let mut members = patient_members();
    members.auto_commit = Duration::from_secs(60);
    let a = members.join(None);
    members.produce(40);
    members.settle();
    let before: u64 = (0..PARTITIONS).map(|index| members.committed(index)).sum();
    assert_eq!(before, 0, "so far it only owes");
    refuse(&mut members, &[FrameKind::CommitOffsets; 2]);
    members.world.core.leave_group(members.world.now, members.apps[a].key.unwrap(), false);
    members.settle();
    check_refused(&members);
    assert_eq!(members.apps[a].end, Some(None));
    members.check_all_done();
}

#[test]
fn what_is_left_for_the_next_owner_goes_again() {
    let mut members = patient_members();
    let a = members.join(None);
    members.settle();
    refuse(&mut members, &[FrameKind::GiveUp; 3]);
    let b = members.join(None);
    members.settle();
    check_refused(&members);
    assert_eq!((members.held(a).len(), members.held(b).len()), (2, 2));
    assert_eq!(members.apps[b].blobs.len(), 2, "a full report must not give up without");
}

#[test]
fn what_is_given_up_without_a_word_goes_again() {
    let mut members = patient_members();
    members.blob = None;
    let a = members.join(None);
    members.settle();
    // The first says that it was heard what is asked back, the others that it is given up.
    refuse(&mut members, &[FrameKind::GroupHeartbeat; 4]);
    let b = members.join(None);
    members.settle();
    check_refused(&members);
    assert_eq!((members.held(a).len(), members.held(b).len()), (2, 2));
}
