//! What an operator does.

use std::time::Duration;

use corelane_group::{Change, Commit, GroupError, GroupState, Leave, OffsetReset, Settings, Strategy};
use corelane_model::{ErrorCode, Offset};

use crate::world::{World, partition};

#[test]
fn a_drain_ends_when_everything_was_given_up_and_survives_a_crash() {
    let mut world = World::new(Settings::default(), &[4]);
    let member = world.member(&[0], None);
    let ticket = world.ticket();
    world.group.drain(ticket).unwrap();
    world.end_round();
    assert!(!world.answered.contains(&ticket), "it still works on everything");
    assert_eq!(world.group.state(), GroupState::Draining);
    let late = world.client(&[0], None);
    let error = world.join(late).unwrap_err();
    assert_eq!(error.code(), ErrorCode::GroupDraining);
    world.clients[late].is_alive = false;
    world.settle_round();
    assert!(world.answered.contains(&ticket));
    assert_eq!((world.works(member).len(), world.group.state()), (0, GroupState::Drained));
    world.crash(0);
    assert_eq!(world.group.state(), GroupState::Drained);
    let ticket = world.ticket();
    world.group.resume(ticket).unwrap();
    world.settle_round();
    assert_eq!(world.works(member).len(), 4);
}

#[test]
fn offsets_are_reset_where_nobody_works() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    let to = OffsetReset::To(Commit { log_end: Some(Offset(10)), ..Commit::new(partition(0, 0), Offset(7)) });
    let ticket = world.ticket();
    let error = world.group.reset_offsets(world.now, ticket, std::slice::from_ref(&to)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::GroupInUse);
    world.leave(member, Leave::ForGood);
    world.settle_round();
    world.group.reset_offsets(world.now, ticket, &[to]).unwrap();
    world.end_round();
    assert_eq!(world.group.committed(partition(0, 0)).unwrap().offset, Offset(7));
    let ticket = world.ticket();
    world.group.reset_offsets(world.now, ticket, &[OffsetReset::Forget(partition(0, 0))]).unwrap();
    world.end_round();
    world.crash(0);
    assert_eq!(world.group.committed(partition(0, 0)), None);
}

#[test]
fn a_group_with_members_is_not_deleted_and_an_empty_one_leaves_nothing() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    world.commit(member, partition(0, 0), world.clients[member].seen).unwrap();
    let ticket = world.ticket();
    assert_eq!(world.group.delete(world.now, ticket), Err(GroupError::NotEmpty { members: 1 }));
    world.leave(member, Leave::ForGood);
    world.settle_round();
    world.group.delete(world.now, ticket).unwrap();
    world.end_round();
    assert!(world.answered.contains(&ticket) && world.is_removed);
    assert_eq!(world.compacted().len(), 0, "only tombstones are left");
    assert_eq!(world.join(member), Err(GroupError::Deleted));
    assert_eq!(world.group.next_deadline(), None);
}

#[test]
fn offsets_of_a_dead_group_expire_by_their_age_across_restarts() {
    let retention = Duration::from_secs(3600);
    let mut world = World::new(Settings { retention, ..Settings::default() }, &[2]);
    let member = world.member(&[0], None);
    world.commit(member, partition(0, 0), world.clients[member].seen).unwrap();
    world.leave(member, Leave::ForGood);
    world.settle_round();
    world.advance(retention / 2);
    world.end_round();
    world.crash(0);
    world.advance(retention / 2 - Duration::from_secs(1));
    world.end_round();
    assert!(world.group.committed(partition(0, 0)).is_some());
    world.advance(Duration::from_secs(1));
    world.end_round();
    assert!(world.is_removed && world.group.committed(partition(0, 0)).is_none());
    assert_eq!(world.compacted().len(), 0);
}

#[test]
fn a_group_that_lives_keeps_its_offsets() {
    let retention = Duration::from_secs(2);
    let mut world = World::new(Settings { retention, ..Settings::default() }, &[2]);
    let member = world.member(&[0], None);
    world.commit(member, partition(0, 0), world.clients[member].seen).unwrap();
    for _ in 0..20 {
        world.advance(Duration::from_secs(1));
        world.report(member);
    }
    assert!(world.group.committed(partition(0, 0)).is_some());
}

#[test]
fn settings_change_while_members_go_on() {
    let mut world = World::new(Settings::default(), &[4]);
    world.member(&[0], None);
    world.member(&[0], None);
    world.settle_round();
    let ticket = world.ticket();
    let change = Change { strategy: Some(Strategy::Range), standbys: Some(1), ..Change::default() };
    world.group.alter(world.now, ticket, change).unwrap();
    world.settle_round();
    assert_eq!(world.works(0), [partition(0, 0), partition(0, 1)]);
    assert_eq!(world.clients[0].standby, [partition(0, 2), partition(0, 3)]);
    let error = world.group.alter(world.now, ticket, Change { standbys: Some(9), ..Change::default() }).unwrap_err();
    assert_eq!(error.to_string(), "standbys of 9 is out of bounds: 0 to 3");
}
