//! Where a group begins without a committed offset: its reset policy says it once, and every later owner finds it.

use std::time::Duration;

use corelane_client_core::GroupStart;
use corelane_model::{Offset, ResetPolicy, StartAt};
use corelane_wire::FrameKind;

use crate::members::{Members, PARTITIONS};

/// Members that begin behind everything that is there, and commit nothing by themselves before long.
fn late_members(is_auto: bool) -> Members {
    let mut members = Members::new(is_auto);
    members.reset = ResetPolicy::Latest;
    members.auto_commit = Duration::from_secs(60);
    members.produce(40);
    members.settle();
    members
}

/// What is committed for each partition, of those that have something.
fn places(members: &Members) -> Vec<u64> {
    let group = &members.world.broker.coordinator.as_ref().unwrap().group;
    group.offsets().map(|(_, committed)| committed.offset.0).collect()
}

#[test]
fn a_successor_begins_where_the_one_that_died_had_begun() {
    for is_auto in [true, false] {
        let mut members = late_members(is_auto);
        let a = members.join(None);
        members.settle();
        assert_eq!(places(&members), [10; PARTITIONS as usize], "before any record came");
        // They come to a member that does not get to commit them.
        members.produce(40);
        for _ in 0..10 {
            members.world.exchange();
            members.world.broker.sync();
            members.world.notices();
        }
        members.world.core.abandon_group(members.apps[a].key.take().unwrap());
        members.apps[a].turns.clear();
        let b = members.join(None);
        members.settle();
        members.settle();
        assert_eq!(members.held(b).len(), PARTITIONS as usize);
        for (partition, start, _) in &members.apps[b].begun {
            assert_eq!(*start, GroupStart::Committed(Offset(10)), "{partition}");
        }
        for (index, done) in &members.done {
            assert!(done.iter().copied().eq(10..20), "partition {index}: {done:?}");
        }
        assert_eq!(members.done.len(), PARTITIONS as usize);
    }
}

#[test]
fn nothing_is_handed_out_before_the_first_place_is_committed() {
    let mut members = late_members(true);
    members.join(None);
    members.world.broker.coordinator.as_mut().unwrap().busy_for = vec![FrameKind::CommitOffsets; 1000];
    members.settle();
    members.produce(40);
    members.settle();
    assert_eq!((members.done.len(), places(&members)), (0, vec![]), "a death now would lose what was handed out");
    // The broker dies, and what it had answered about the reader with it.
    members.world.crash();
    members.settle();
    members.world.broker.coordinator.as_mut().unwrap().busy_for.clear();
    members.settle();
    members.settle();
    for (index, done) in &members.done {
        assert!(done.iter().copied().eq(10..20), "partition {index}: {done:?}");
    }
    assert_eq!(members.done.len(), PARTITIONS as usize);
}

#[test]
fn where_an_application_goes_by_itself_is_not_the_groups_place() {
    let mut members = late_members(false);
    members.reset = ResetPolicy::Error;
    let a = members.join(None);
    members.settle();
    let key = members.apps[a].key.unwrap();
    let (partition, turn) = members.apps[a].turns.iter_mut().next().map(|(&p, turn)| (p, turn)).unwrap();
    turn.subscription = members.world.core.seek(key, partition, turn.turn, StartAt::Latest);
    turn.next = 10;
    members.settle();
    assert_eq!(places(&members), Vec::<u64>::new());
}
