//! Committed offsets.

use corelane_group::{Commit, Effect, GroupError, Leave, OffsetReset, ResetPolicy, Settings, Start};
use corelane_model::limits::GROUP_COMMIT_METADATA_BYTES_MAX;
use corelane_model::{ErrorCode, Offset, StartAt, WallMillis};

use crate::world::{World, partition};

#[test]
fn commits_of_a_round_are_one_record_and_each_is_answered_when_it_is_durable() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    let seen = world.clients[member].seen;
    let before = world.log.len();
    for _ in 0..100 {
        world.commit(member, partition(0, 0), seen).unwrap();
    }
    world.finish();
    assert_eq!(world.log.len(), before + 1);
    assert_eq!(world.acknowledged.get(&partition(0, 0)), None);
    world.sync(usize::MAX);
    assert_eq!(world.acknowledged[&partition(0, 0)], Offset(100));
    world.crash(0);
    assert_eq!(world.group.committed(partition(0, 0)).unwrap().offset, Offset(100));
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    let (id, seen) = (world.clients[member].id, world.clients[member].seen);
    let good =
        Commit { metadata: "tick 7".to_owned(), log_end: Some(Offset(9)), ..Commit::new(partition(0, 0), Offset(9)) };
    let beyond = Commit { log_end: Some(Offset(4)), ..Commit::new(partition(0, 1), Offset(5)) };
    let ticket = world.ticket();
    let error = world.group.commit(world.now, ticket, id, seen, &[good.clone(), beyond]).unwrap_err();
    assert_eq!(error.to_string(), "offset 5 of partition 0/1 is beyond the log's end 4");
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(world.group.committed(partition(0, 0)), None);
    let foreign = Commit::new(partition(3, 0), Offset(0));
    let error = world.group.commit(world.now, ticket, id, seen, &[good.clone(), foreign]).unwrap_err();
    assert!(matches!(error, GroupError::NotOwner { .. }), "{error}");
    let long = Commit { metadata: "x".repeat(GROUP_COMMIT_METADATA_BYTES_MAX + 1), ..good.clone() };
    assert!(matches!(world.group.commit(world.now, ticket, id, seen, &[long]), Err(GroupError::Limit { .. })));
    world.group.commit(world.now, ticket, id, seen, &[good]).unwrap();
    world.end_round();
    world.crash(0);
    let committed = world.group.committed(partition(0, 0)).unwrap();
    assert_eq!((committed.offset, committed.metadata.as_str()), (Offset(9), "tick 7"));
    assert_eq!(world.group.committed(partition(0, 1)), None);
}

#[test]
fn an_owner_begins_at_the_committed_offset_or_by_its_policy() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.client(&[0], None);
    let mut join = world.join_of(first);
    join.reset = ResetPolicy::Time(WallMillis(5));
    let (ticket, other) = (world.ticket(), world.ticket());
    world.group.join(world.now, ticket, join).unwrap();
    world.group.finish_round(world.now);
    let id = world.clients[first].id;
    world
        .group
        .commit(world.now, other, id, world.group.generation(), &[Commit::new(partition(0, 1), Offset(3))])
        .unwrap();
    world.group.touch(world.now, id).unwrap();
    world.group.finish_round(world.now);
    world.group.on_durable(world.group.appended());
    let mut starts = Vec::new();
    while let Some(effect) = world.group.poll_effect() {
        if let Effect::Assign { assignment, .. } = effect {
            starts = assignment.owned.iter().map(|owned| owned.start).collect();
        }
    }
    assert_eq!(starts[0], Start::Policy(ResetPolicy::Time(WallMillis(5))));
    assert_eq!(starts[0].start_at(partition(0, 0)), Ok(StartAt::Time(WallMillis(5))));
    assert_eq!(Start::Committed(Offset(3)).start_at(partition(0, 1)), Ok(StartAt::Offset(Offset(3))));
    let error = Start::Policy(ResetPolicy::Error).start_at(partition(0, 0)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoCommittedOffset);
}

#[test]
fn what_is_gone_is_written_before_what_is_new() {
    let mut world = World::new(Settings::default(), &[2]);
    let member = world.member(&[0], None);
    world.commit(member, partition(0, 1), world.clients[member].seen).unwrap();
    world.leave(member, Leave::ForGood);
    world.settle_round();
    let before = world.log.len();
    let resets = [OffsetReset::To(Commit::new(partition(0, 0), Offset(3))), OffsetReset::Forget(partition(0, 1))];
    let ticket = world.ticket();
    world.group.reset_offsets(world.now, ticket, &resets).unwrap();
    world.finish();
    // However far a reader comes, it never has more than the group may have had.
    let values: Vec<_> = world.log[before..].iter().map(|(_, value)| value.is_some()).collect();
    assert_eq!(values, [false, true]);
}
