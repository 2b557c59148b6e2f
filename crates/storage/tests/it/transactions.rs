//! Transactions in partitions: open over restarts until their end is durable.

use corelane_model::{Decision, Offset, ProducerEpoch, ProducerId, Transaction};
use corelane_record::BatchHead;
use corelane_storage::Fetch;

use crate::world::{World, batch, batch_within, durable_topic, memory_topic, partition, small_config};

const fn transaction(producer: u64, epoch: u16) -> Transaction {
    Transaction::new(ProducerId(producer), ProducerEpoch(epoch))
}

/// First offsets of the batches that a reader of committed records gets.
fn committed(world: &mut World, topic: u64) -> Vec<u64> {
    let id = partition(topic, 0);
    let stable = world.storage.last_stable_offset(id).expect("it is open");
    let mut at = world.storage.describe(id).expect("it is open").log_start;
    let mut bases = Vec::new();
    while at < stable {
        let Fetch::Batches { batches, next } = world.fetch(id, at, 1 << 20) else { panic!("below the stable end") };
        let heads = batches.iter().map(|bytes| BatchHead::parse(bytes).expect("sound"));
        let shown = heads.filter(|head| head.base_offset < stable && !world.storage.is_aborted(id, head));
        bases.extend(shown.map(|head| head.base_offset.0));
        at = next;
    }
    bases
}

#[test]
fn a_transaction_stays_open_over_a_crash_and_ends_once() {
    let mut world = World::new(1, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    world.append_soon(id, &batch(1, 10, 0));
    world.append_soon(id, &batch_within(transaction(7, 0), 0, 2));
    world.append_soon(id, &batch(1, 10, 1));
    world.append_soon(id, &batch_within(transaction(8, 3), 0, 1));
    world.make_durable();
    assert_eq!(world.storage.last_stable_offset(id), Some(Offset(1)));
    assert_eq!(committed(&mut world, 1), [0]);
    world.crash();
    let open: Vec<_> = world.storage.open_transactions().collect();
    assert_eq!(open, [(id, transaction(7, 0)), (id, transaction(8, 3))]);
    assert_eq!(committed(&mut world, 1), [0]);

    let ticket = world.storage.end_transaction(world.now, id, transaction(7, 0), Decision::Abort).expect("it is open");
    assert!(ticket.is_some());
    assert_eq!(committed(&mut world, 1), [0, 3], "its end is seen at once");
    let again = world.storage.end_transaction(world.now, id, transaction(7, 0), Decision::Abort);
    assert_eq!(again, Ok(ticket), "who asks again waits for the same");
    assert!(world.ended.is_empty());
    world.run_until("the end", |world| world.ended == [id]);
    assert_eq!(world.storage.end_transaction(world.now, id, transaction(7, 0), Decision::Abort), Ok(None));
    assert!(world.append(id, &batch_within(transaction(7, 0), 2, 1)).is_err(), "it is over");

    world.crash();
    assert_eq!(committed(&mut world, 1), [0, 3], "an end that was durable stands");
    world.storage.end_transaction(world.now, id, transaction(8, 3), Decision::Commit).expect("it is open");
    assert_eq!(committed(&mut world, 1), [0, 3, 4]);
    world.run_until("the second end", |world| world.ended == [id, id]);
    world.restart_cleanly();
    assert_eq!(committed(&mut world, 1), [0, 3, 4]);
    assert_eq!(world.storage.open_transactions().count(), 0);
    world.check_all();
}

#[test]
fn an_end_that_a_crash_takes_away_is_told_again() {
    let mut world = World::new(2, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    world.append_soon(id, &batch_within(transaction(7, 0), 0, 2));
    world.make_durable();
    world.storage.end_transaction(world.now, id, transaction(7, 0), Decision::Commit).expect("it is open");
    world.crash();
    assert!(world.ended.is_empty());
    assert!(world.storage.is_transaction_open(id, transaction(7, 0)));
    world.storage.end_transaction(world.now, id, transaction(7, 0), Decision::Commit).expect("it is open");
    world.run_until("the end", |world| world.ended == [id]);
    assert_eq!(committed(&mut world, 1), [0]);
}

#[test]
fn what_is_settled_and_checkpointed_is_still_known_as_aborted() {
    let mut world = World::new(3, small_config());
    world.add_topic(1, 1, durable_topic());
    let id = partition(1, 0);
    world.append_soon(id, &batch_within(transaction(7, 0), 0, 1));
    world.append_soon(id, &batch_within(transaction(8, 0), 0, 1));
    for decided in [7, 8] {
        let decision = if decided == 7 { Decision::Abort } else { Decision::Commit };
        world.storage.end_transaction(world.now, id, transaction(decided, 0), decision).expect("it is open");
    }
    // Enough to go round the ring.
    for fill in 0..300 {
        world.append_soon(id, &batch(1, 30_000, fill));
        world.make_durable();
    }
    world.storage.settle_all();
    world.run_until("settling", |world| world.said.contains(&"all settled"));
    world.crash();
    let shown = committed(&mut world, 1);
    assert_eq!((shown.len(), shown[0], shown[1]), (301, 1, 2));
    // Retention gives the aborted one up, and with its records the memory of it.
    world.storage.truncate(world.now, id, Offset(1)).expect("it is inside the log");
    assert!(!world.storage.has_aborted(id));
}

#[test]
fn a_memory_topic_takes_no_transaction() {
    let mut world = World::new(4, small_config());
    world.add_topic(1, 1, memory_topic());
    world.run_until("offsets are leased", |world| world.storage.describe(partition(1, 0)).is_some());
    world.append_soon(partition(1, 0), &batch(1, 10, 0));
    let error = world.append(partition(1, 0), &batch_within(transaction(7, 0), 0, 1)).unwrap_err();
    assert_eq!(error.code(), corelane_model::ErrorCode::TransactionMismatch, "{error}");
}
