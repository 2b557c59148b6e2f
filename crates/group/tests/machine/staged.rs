//! Offsets within transactions.

use corelane_group::{Commit, Effect, GroupError, Leave, Settings, Start};
use corelane_model::{Decision, ErrorCode, Offset, ProducerEpoch, ProducerId, Transaction};

use crate::world::{World, partition};

const fn transaction(producer: u64) -> Transaction {
    Transaction::new(ProducerId(producer), ProducerEpoch(0))
}

/// Where a member was last told to begin with the partition.
fn told(world: &World, at: usize) -> Option<Start> {
    let assigned = world.clients[at].inbox.iter().rev().find_map(|effect| match effect {
        Effect::Assign { assignment, .. } => Some(assignment),
        _ => None,
    })?;
    assigned.owned.iter().find(|owned| owned.partition == partition(0, 0)).map(|owned| owned.start)
}

/// One partition; its first owner has committed 1 and staged 2, and leaves; another is to have it.
fn handed_over() -> (World, usize, Offset) {
    let mut world = World::new(Settings::default(), &[1]);
    let first = world.member(&[0], None);
    let seen = world.clients[first].seen;
    world.commit(first, partition(0, 0), seen).expect("it is the owner");
    world.settle_round();
    let staged = world.stage(first, partition(0, 0), transaction(7)).expect("it is the owner");
    let second = world.member(&[0], None);
    world.end_round();
    world.leave(first, Leave::ForGood);
    world.clients[second].inbox.clear();
    world.end_round();
    assert_eq!(world.group.slot(partition(0, 0)).expect("somebody has it").hold.owner(), world.clients[second].id);
    (world, second, staged)
}

#[test]
fn the_next_owner_begins_when_the_transaction_is_decided() {
    for decision in [Decision::Commit, Decision::Abort] {
        let (mut world, second, staged) = handed_over();
        assert_eq!(told(&world, second), None, "it is kept until then");
        assert_eq!(world.group.committed(partition(0, 0)).expect("committed before").offset, Offset(1));
        world.settle_transaction(transaction(7), decision);
        world.finish();
        assert_eq!(told(&world, second), None, "not before that is durable");
        world.sync(usize::MAX);
        let start = if decision == Decision::Commit { staged } else { Offset(1) };
        assert_eq!(told(&world, second), Some(Start::Committed(start)));
        assert!(world.group.transactions().is_empty());
    }
}

#[test]
fn what_is_staged_survives_and_is_still_kept() {
    let (mut world, second, staged) = handed_over();
    world.crash(0);
    assert!(world.group.is_open(transaction(7)));
    world.report(second);
    world.end_round();
    assert_eq!(told(&world, second), None);
    world.settle_transaction(transaction(7), Decision::Commit);
    world.end_round();
    assert_eq!(world.group.committed(partition(0, 0)).expect("committed").offset, staged);
    world.crash(0);
    assert_eq!(world.group.committed(partition(0, 0)).expect("committed").offset, staged);
    // Told again, it is answered and changes nothing.
    world.settle_transaction(transaction(7), Decision::Commit);
    let before = world.log.len();
    world.end_round();
    assert_eq!(world.log.len(), before);
}

#[test]
fn nothing_else_moves_an_offset_that_is_staged() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.member(&[0], None);
    let seen = world.clients[first].seen;
    world.stage(first, partition(0, 0), transaction(7)).expect("it is the owner");
    world.stage(first, partition(0, 0), transaction(7)).expect("the larger counts");
    let error = world.commit(first, partition(0, 0), seen).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Busy, "{error}");
    let error = world.stage(first, partition(0, 0), transaction(8)).unwrap_err();
    assert!(matches!(error, GroupError::Staged { .. }), "{error}");
    world.stage(first, partition(0, 1), transaction(8)).expect("another partition is free");
    world.settle_transaction(transaction(7), Decision::Abort);
    world.commit(first, partition(0, 0), seen).expect("it is free again");
    world.settle_round();
    assert!(world.group.is_open(transaction(8)));
}

#[test]
fn a_late_copy_of_what_was_staged_first_takes_nothing_back() {
    let mut world = World::new(Settings::default(), &[1]);
    let first = world.member(&[0], None);
    let early = world.stage(first, partition(0, 0), transaction(7)).expect("it is the owner");
    let later = world.stage(first, partition(0, 0), transaction(7)).expect("it goes on");
    assert!(early < later);
    let (now, ticket) = (world.now, world.ticket());
    let speaker = (world.clients[first].id, world.clients[first].seen);
    let copy = [Commit::new(partition(0, 0), early)];
    world.group.stage(now, ticket, transaction(7), speaker, &copy).expect("it is answered as the first was");
    world.settle_transaction(transaction(7), Decision::Commit);
    world.end_round();
    assert_eq!(world.group.committed(partition(0, 0)).expect("committed").offset, later);
    // Another transaction begins where it likes.
    let copy = [Commit::new(partition(0, 0), early)];
    let ticket = world.ticket();
    world.group.stage(now, ticket, transaction(8), speaker, &copy).expect("it is the owner");
    world.settle_transaction(transaction(8), Decision::Commit);
    world.end_round();
    assert_eq!(world.group.committed(partition(0, 0)).expect("committed").offset, early);
}
