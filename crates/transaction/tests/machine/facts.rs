//! Facts about one coordinator, each told by a few steps.

use std::time::Duration;

use corelane_model::limits::{TRANSACTION_PARTICIPANTS_MAX, TRANSACTIONAL_ID_EXPIRY};
use corelane_model::{
    Decision, ErrorCode, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, TopicId, Transaction,
};
use corelane_transaction::{Effect, Fate, Participant, Phase, RequestTicket, TransactionError};

use crate::world::{TIMEOUT, World, participant};

const fn transaction(producer: u64, epoch: u16) -> Transaction {
    Transaction::new(ProducerId(producer), ProducerEpoch(epoch))
}

#[test]
fn a_pipeline_goes_from_transaction_to_transaction() {
    let mut world = World::new();
    world.initialise(0);
    assert_eq!(world.transaction_of(0), None, "it is not durable yet");
    world.settle_a_little();
    let first = world.transaction_of(0).expect("it was initialised");
    for round in 0..3 {
        assert_eq!(world.transaction_of(0).expect("the next").epoch.0, round);
        (0..3).for_each(|place| world.write(0, place));
        world.settle_a_little();
        world.end(0, Decision::Commit);
        world.settle_a_little();
        assert_eq!(world.visible(), 3 * (usize::from(round) + 1));
    }
    assert_eq!(world.transaction_of(0), Some(transaction(first.producer.0, 3)));
    assert_eq!((world.coordinator.stats().committed, world.coordinator.stats().aborted), (3, 0));
}

#[test]
fn the_later_of_two_shuts_out_the_earlier() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let first = world.transaction_of(0).expect("it was initialised");
    world.write(0, 0);
    world.settle_a_little();
    world.initialise(1);
    world.settle_a_little();
    let second = world.transaction_of(1).expect("it was initialised");
    assert_ne!(first.producer, second.producer);
    let now = world.now;
    let late = world.coordinator.end(now, RequestTicket(900), first, Decision::Commit);
    assert_eq!(late, Err(TransactionError::Ended { asked: first, decision: Decision::Abort }));
    let next = Transaction::new(first.producer, ProducerEpoch(1));
    let fenced = world.coordinator.join(now, RequestTicket(901), next, participant(0)).unwrap_err();
    assert_eq!(fenced.code(), ErrorCode::ProducerFenced, "{fenced}");
    assert_eq!(world.visible(), 0);
}

#[test]
fn an_id_that_was_never_initialised_is_unknown() {
    let mut world = World::new();
    let now = world.now;
    let error = world.coordinator.join(now, RequestTicket(1), transaction(7, 0), participant(0)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownTransaction, "{error}");
    let error = world.coordinator.end(now, RequestTicket(1), transaction(7, 0), Decision::Commit).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownTransaction, "{error}");
    let short =
        world.coordinator.initialise(now, RequestTicket(1), ProducerId(7), Duration::from_millis(1)).unwrap_err();
    assert_eq!(short.to_string(), "time-out of 1 ms is out of bounds: 250 to 900000");
}

#[test]
fn nobody_hears_of_a_decision_that_could_be_lost() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    world.write(0, 0);
    world.settle_a_little();
    let now = world.now;
    let open = world.transaction_of(0).expect("it was initialised");
    world.coordinator.end(now, RequestTicket(900), open, Decision::Commit).expect("it goes on");
    world.coordinator.finish_round();
    let effects: Vec<_> = std::iter::from_fn(|| world.coordinator.poll_effect()).collect();
    let [Effect::Append { position, .. }] = effects[..] else { panic!("more than the record: {effects:?}") };
    let ended = TransactionError::Ended { asked: open, decision: Decision::Commit };
    assert_eq!(world.coordinator.join(now, RequestTicket(901), open, participant(1)), Err(ended));
    let busy = world.coordinator.join(now, RequestTicket(902), transaction(open.producer.0, 1), participant(1));
    assert_eq!(busy, Err(TransactionError::Busy { before: open }));
    world.coordinator.on_durable(position);
    let apply = Effect::Apply { participant: participant(0), transaction: open, decision: Decision::Commit };
    assert_eq!(world.coordinator.poll_effect(), Some(apply));
    assert_eq!(world.coordinator.poll_effect(), None, "who asked waits until it has taken effect");
    world.coordinator.on_applied(now, open, &participant(0));
    world.coordinator.finish_round();
    let next = Some(transaction(open.producer.0, 1));
    let effects: Vec<_> = std::iter::from_fn(|| world.coordinator.poll_effect()).collect();
    assert!(effects.contains(&Effect::Ended { ticket: RequestTicket(900), next }), "{effects:?}");
}

#[test]
fn what_runs_out_of_time_is_aborted_and_its_client_hears_so() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    world.write(0, 0);
    world.settle_a_little();
    let open = world.transaction_of(0).expect("it was initialised");
    assert!(matches!(world.coordinator.phase(), Phase::Open { .. }));
    world.pass(TIMEOUT - Duration::from_millis(1));
    assert!(matches!(world.coordinator.phase(), Phase::Open { .. }));
    world.pass(Duration::from_millis(1));
    world.settle_a_little();
    let now = world.now;
    let late = world.coordinator.end(now, RequestTicket(900), open, Decision::Commit);
    assert_eq!(late, Err(TransactionError::Ended { asked: open, decision: Decision::Abort }));
    assert_eq!(world.coordinator.stats().timed_out, 1);
}

#[test]
fn what_comes_late_to_a_transaction_with_nothing_in_it_is_no_part_of_the_next() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let empty = world.transaction_of(0).expect("it was initialised");
    let now = world.now;
    for decision in [Decision::Abort, Decision::Abort] {
        world.coordinator.end(now, RequestTicket(900), empty, decision).expect("it may be asked for again");
        world.coordinator.finish_round();
        let told = |effect: &Effect| matches!(effect, Effect::Ended { .. });
        let effects: Vec<Effect> = std::iter::from_fn(|| world.coordinator.poll_effect()).collect();
        assert!(!effects.iter().any(told), "a crash would begin the same one again: {effects:?}");
    }
    let appended = world.coordinator.appended();
    world.coordinator.on_durable(appended);
    let next = world.coordinator.current().expect("the producer has epochs left");
    let told = Effect::Ended { ticket: RequestTicket(900), next: Some(next) };
    assert_eq!(world.coordinator.poll_effect(), Some(told.clone()));
    assert_eq!(world.coordinator.poll_effect(), Some(told));
    assert_ne!(next, empty);
    let late = world.coordinator.join(now, RequestTicket(901), empty, participant(0));
    assert_eq!(late, Err(TransactionError::Ended { asked: empty, decision: Decision::Abort }));
    let otherwise = world.coordinator.end(now, RequestTicket(902), empty, Decision::Commit);
    assert_eq!(otherwise, Err(TransactionError::Ended { asked: empty, decision: Decision::Abort }));
    let stats = world.coordinator.stats();
    assert_eq!((stats.committed, stats.aborted), (0, 0), "nothing was decided");
}

#[test]
fn a_producer_ends_with_its_last_epoch() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let now = world.now;
    let mut next = world.transaction_of(0);
    let mut ended = 0u32;
    while let Some(open) = next {
        world.coordinator.join(now, RequestTicket(1), open, participant(0)).expect("it may begin");
        world.coordinator.end(now, RequestTicket(2), open, Decision::Commit).expect("it goes on");
        world.coordinator.finish_round();
        world.coordinator.on_durable(world.coordinator.appended());
        world.coordinator.on_applied(now, open, &participant(0));
        world.coordinator.finish_round();
        let ends = std::iter::from_fn(|| world.coordinator.poll_effect()).filter_map(|effect| match effect {
            Effect::Ended { next, .. } => Some(next),
            _ => None,
        });
        next = ends.last().expect("it was answered");
        ended += 1;
    }
    assert_eq!(ended, 1 << 16);
    assert_eq!(*world.coordinator.phase(), Phase::Unused);
}

#[test]
fn a_transaction_has_only_so_many_participants() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let now = world.now;
    let open = world.transaction_of(0).expect("it was initialised");
    let partition = |index: usize| {
        let index = PartitionIndex(u32::try_from(index).expect("few"));
        Participant::Partition(PartitionId::new(TopicId(1), index))
    };
    for index in 0..TRANSACTION_PARTICIPANTS_MAX {
        world.coordinator.join(now, RequestTicket(1), open, partition(index)).expect("there is room");
    }
    let error = world.coordinator.join(now, RequestTicket(1), open, partition(1024)).unwrap_err();
    assert_eq!(error.to_string(), "the transaction would have 1025 partitions and groups, over the limit of 1024");
    world.coordinator.join(now, RequestTicket(1), open, partition(5)).expect("who is in it may ask again");
}

/// What a participant hears that asks, as far as the coordinator's records are durable.
fn fate(world: &mut World, asked: Transaction, place: usize) -> Option<Fate> {
    world.coordinator.inquire(world.now, RequestTicket(777), asked, &participant(place)).expect("there is room");
    world.coordinator.finish_round();
    let effects = std::iter::from_fn(|| world.coordinator.poll_effect());
    effects.filter_map(|effect| if let Effect::Fate { fate, .. } = effect { Some(fate) } else { None }).last()
}

#[test]
fn whoever_lost_an_end_hears_of_it_as_long_as_it_is_known() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let first = world.transaction_of(0).expect("it was initialised");
    assert_eq!(fate(&mut world, transaction(99, 0), 0), Some(Fate::Unknown));
    for round in 0..2 {
        world.write(0, 0);
        world.write(0, 1);
        world.settle_a_little();
        world.end(0, Decision::Commit);
        world.settle_a_little();
        let expected = if round == 0 { Fate::Decided(Decision::Commit) } else { Fate::Unknown };
        assert_eq!(fate(&mut world, first, 1), Some(expected), "round {round}");
    }
    assert!(world.lose_end(1));
    assert_eq!(world.visible(), 3, "one of four is hidden");
    world.crash(0);
    world.settle_a_little();
    assert_eq!(world.visible(), 4);
}

#[test]
fn nobody_is_told_what_could_be_lost() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    world.write(0, 0);
    world.settle_a_little();
    let open = world.transaction_of(0).expect("it was initialised");
    assert_eq!(fate(&mut world, open, 0), Some(Fate::Open));
    let now = world.now;
    world.coordinator.end(now, RequestTicket(900), open, Decision::Commit).expect("it goes on");
    assert_eq!(fate(&mut world, open, 0), None, "the decision is not durable");
    world.coordinator.on_durable(world.coordinator.appended());
    let told = std::iter::from_fn(|| world.coordinator.poll_effect());
    let told = told.filter(|effect| matches!(effect, Effect::Fate { fate: Fate::Decided(Decision::Commit), .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_participant_that_damage_took_out_of_the_record_is_told_all_the_same() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let open = world.transaction_of(0).expect("it was initialised");
    let now = world.now;
    for place in [1, 0] {
        // What the record says of it is not durable yet.
        assert_eq!(fate(&mut world, open, place), None);
        world.coordinator.on_durable(world.coordinator.appended());
        let told = Effect::Fate { ticket: RequestTicket(777), fate: Fate::Open };
        assert_eq!(world.coordinator.poll_effect(), Some(told));
    }
    assert!(matches!(world.coordinator.phase(), Phase::Open { participants, .. } if participants.len() == 2));
    world.coordinator.end(now, RequestTicket(900), open, Decision::Commit).expect("it goes on");
    world.coordinator.finish_round();
    world.coordinator.on_durable(world.coordinator.appended());
    let told = std::iter::from_fn(|| world.coordinator.poll_effect());
    assert_eq!(told.filter(|effect| matches!(effect, Effect::Apply { .. })).count(), 2);
}

/// Bytes of keys and values in the home's log of a transaction that so many partitions join one after the other.
fn bytes_of(participants: u32) -> u64 {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    let (now, open) = (world.now, world.transaction_of(0).expect("it was initialised"));
    let before = world.coordinator.stats().appended_bytes;
    let partition = |index| Participant::Partition(PartitionId::new(TopicId(1), PartitionIndex(index)));
    for index in 0..participants {
        world.coordinator.join(now, RequestTicket(1), open, partition(index)).expect("there is room");
        world.coordinator.finish_round();
        world.coordinator.on_durable(world.coordinator.appended());
    }
    world.coordinator.end(now, RequestTicket(2), open, Decision::Commit).expect("it goes on");
    world.coordinator.finish_round();
    world.coordinator.on_durable(world.coordinator.appended());
    (0..participants).for_each(|index| world.coordinator.on_applied(now, open, &partition(index)));
    world.coordinator.finish_round();
    world.coordinator.stats().appended_bytes - before
}

#[test]
fn what_is_written_of_a_transaction_grows_with_its_participants() {
    let bytes = [1, 10, 100, 1000].map(bytes_of);
    // For each one after the first 45 bytes when it joins, 13 in the decision and 19 to remove what was said of it.
    assert_eq!(bytes, [188, 881, 7811, 77_111]);
}

#[test]
fn an_id_that_nobody_uses_is_forgotten() {
    let mut world = World::new();
    world.initialise(0);
    world.settle_a_little();
    world.pass(TRANSACTIONAL_ID_EXPIRY / 2);
    world.crash(0);
    world.pass(TRANSACTIONAL_ID_EXPIRY / 2 - Duration::from_secs(1));
    assert!(!world.is_removed);
    world.pass(Duration::from_secs(1));
    assert!(!world.is_removed, "not before the tombstone is durable");
    world.sync_coordinator(0);
    assert!(world.is_removed);
    assert_eq!(world.log.last().map(|(_, value)| value.clone()), Some(None));
}
