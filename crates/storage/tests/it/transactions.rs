//! Transactions in partitions: open over restarts until their end is durable.

use corelane_model::limits::{PARTITION_TRANSACTION_BYTES, TRANSACTIONS_MEMORY_PART};
use corelane_model::{Decision, ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId, Transaction};
use corelane_record::{BatchHead, SealedBatch};
use corelane_storage::{AppendError, Fetch};

use crate::world::{World, batch, batch_from, batch_within, durable_topic, memory_topic, partition, small_config};

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

/// Why a batch is refused, once the journal has room for it.
fn refused(world: &mut World, id: PartitionId, batch: &SealedBatch) -> AppendError {
    for _ in 0..20_000 {
        match world.append(id, batch) {
            Ok(appended) => panic!("it was taken: {appended:?}"),
            Err(AppendError::Busy { .. } | AppendError::RoundFull { .. }) => world.step(),
            Err(error) => return error,
        }
    }
    panic!("no room: {:?}", world.storage.stats());
}

#[test]
fn what_the_partitions_of_a_shard_remember_of_transactions_has_a_bound() {
    let mut world = World::new(3, small_config());
    world.add_topic(1, 3, durable_topic());
    let limit = world.config.memory_bytes / TRANSACTIONS_MEMORY_PART / PARTITION_TRANSACTION_BYTES;
    let id = |number: u64| partition(1, u32::try_from(number % 3).expect("few"));
    let bytes = |world: &World| world.storage.stats().transaction_bytes;
    let open = transaction(99, 0);
    world.append_soon(id(1), &batch_within(open, 0, 1));
    for number in 1..limit {
        let aborted = transaction(1 + number % 3, u16::try_from(number / 3).expect("few"));
        world.append_soon(id(number), &batch_within(aborted, 0, 1));
        let end = world.storage.end_transaction(world.now, id(number), aborted, Decision::Abort);
        end.expect("the journal has room");
        if number % 64 == 0 {
            world.make_durable();
        }
    }
    world.make_durable();
    assert_eq!(bytes(&world), limit * PARTITION_TRANSACTION_BYTES);
    let next = batch_within(transaction(100, 0), 0, 1);
    let error = refused(&mut world, id(1), &next);
    assert!(matches!(error, AppendError::TransactionsFull { .. }), "{error}");
    assert_eq!(error.code(), ErrorCode::Busy, "it may be tried again");

    // What goes on, what was taken and what is in none need no room.
    let more = batch_within(open, 1, 1);
    world.append_soon(id(1), &more);
    assert!(world.append_soon(id(1), &more).is_duplicate);
    world.append_soon(id(1), &batch_from(101, 0, 0, 1));
    world.make_durable();
    world.crash();
    assert_eq!(bytes(&world), limit * PARTITION_TRANSACTION_BYTES, "a crash changes nothing about it");
    let error = refused(&mut world, id(1), &next);
    assert!(matches!(error, AppendError::TransactionsFull { .. }), "{error}");
    // A commit makes room for one.
    world.storage.end_transaction(world.now, id(1), open, Decision::Commit).expect("it is open");
    world.append_soon(id(1), &next);
    let error = refused(&mut world, id(2), &batch_within(transaction(102, 0), 0, 1));
    assert!(matches!(error, AppendError::TransactionsFull { .. }), "{error}");
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
    assert_eq!(error.code(), ErrorCode::TransactionMismatch, "{error}");
}
