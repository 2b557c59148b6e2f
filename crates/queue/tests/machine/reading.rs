//! The window: what is asked for, what comes, what is gone.

use std::time::Duration;

use corelane_model::limits::{
    QUEUE_DEAD_LETTERS_MAX, QUEUE_READ_AHEAD_BYTES, QUEUE_RING_RECORDS, QUEUE_WINDOW_RECORDS,
};
use corelane_model::{Offset, PartitionIndex};
use corelane_queue::{LeaseRun, ReadBatch, RecordMeta, Restore, Verdict};

use crate::world::{World, name, settings};

const P: PartitionIndex = PartitionIndex(0);

fn batch(from: u64, end: u64) -> ReadBatch {
    ReadBatch {
        partition: P,
        from: Offset(from),
        end: Offset(end),
        timestamp: corelane_model::WallMillis(5),
        bytes: end - from,
        high_watermark: Offset(end),
    }
}

fn records(from: u64, end: u64) -> impl Iterator<Item = RecordMeta> {
    (from..end).map(|offset| RecordMeta { offset: Offset(offset), bytes: 1, key: None, deliver_at: None })
}

fn run(first: u64, count: u32) -> LeaseRun {
    LeaseRun { partition: P, first: Offset(first), count, attempt: 1 }
}

/// Of the machine alone: the world's topic is not what it reads.
fn leased(world: &mut World) -> u64 {
    world.queue.finish_round(world.now);
    while world.queue.poll_effect().is_some() {}
    world.queue.check();
    world.queue.describe().leased
}

#[test]
fn a_stuck_record_holds_up_only_what_lies_behind_the_window() {
    let mut world = World::new(settings(), 1);
    let at = world.member(u32::MAX);
    world.finish();
    let end = QUEUE_WINDOW_RECORDS + 1000;
    assert!(world.queue.on_records(world.now, batch(0, end), records(0, end)));
    // Credit ends at the same number, so it is given again.
    assert_eq!(leased(&mut world), QUEUE_WINDOW_RECORDS);
    let id = world.clients[at].id;
    let ticket = world.ticket();
    let rest = u32::try_from(QUEUE_WINDOW_RECORDS).unwrap() - 1;
    world.queue.acknowledge(world.now, ticket, id, &[run(1, rest)], None).unwrap();
    world.queue.credit(world.now, id, 5000, 5000).unwrap();
    assert_eq!(leased(&mut world), 1, "behind the window everything waits");
    let ticket = world.ticket();
    world.queue.acknowledge(world.now, ticket, id, &[run(0, 1)], None).unwrap();
    assert_eq!(leased(&mut world), 1000);
}

#[test]
fn batches_beyond_the_ring_or_behind_a_gap_are_asked_for_again() {
    let mut world = World::new(settings(), 1);
    world.member(10);
    world.finish();
    assert!(world.queue.on_records(world.now, batch(0, 10), records(0, 10)));
    let end = QUEUE_RING_RECORDS + 11;
    assert!(!world.queue.on_records(world.now, batch(10, end), records(10, end)), "it has no room");
    assert!(!world.queue.on_records(world.now, batch(20, 30), records(20, 30)), "something is missing");
    world.queue.credit(world.now, world.clients[0].id, 10, 10).unwrap();
    world.queue.finish_round(world.now);
    let reads: Vec<_> = std::iter::from_fn(|| world.queue.poll_effect())
        .filter_map(|effect| match effect {
            corelane_queue::Effect::Read { from, bytes, .. } => Some((from, bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(reads, [(Offset(10), QUEUE_READ_AHEAD_BYTES)]);
    assert_eq!(world.queue.stats().dropped_batches, 2);
}

#[test]
fn offsets_without_a_record_and_records_that_are_gone_count_as_done() {
    let mut world = World::new(settings(), 1);
    world.member(100);
    world.finish();
    // Compaction left 3 and 7.
    let left = records(0, 10).filter(|record| [3, 7].contains(&record.offset.0));
    assert!(world.queue.on_records(world.now, batch(0, 10), left));
    assert_eq!(leased(&mut world), 2);
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.done_end, partition.read_end), (Offset(3), Offset(10)));
    // Retention took everything up to 50, with a record that somebody has.
    world.queue.skip(world.now, P, Offset(0), Offset(50));
    assert_eq!(leased(&mut world), 0);
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.done_end, partition.read_end), (Offset(50), Offset(50)));
    assert_eq!(world.queue.stats().skipped_records, 2 + 40);
    assert!(world.queue.on_records(world.now, batch(50, 60), records(50, 60)));
    assert_eq!(leased(&mut world), 10);
}

#[test]
fn what_is_not_for_queues_is_passed_over() {
    let mut world = World::new(settings(), 1);
    world.member(100);
    world.finish();
    let described = |world: &World| world.queue.describe_partitions(world.now).next().unwrap();
    // An aborted transaction at the beginning, longer than the ring.
    let far = QUEUE_RING_RECORDS + 10;
    world.queue.on_passed(P, Offset(0), Offset(far));
    assert_eq!((described(&world).done_end, described(&world).ready), (Offset(far), 0));
    assert!(world.queue.on_records(world.now, batch(far, far + 10), records(far, far + 10)));
    assert_eq!(leased(&mut world), 10);
    // One between records that are out, and one whose beginning nobody read.
    world.queue.on_passed(P, Offset(far + 10), Offset(far + 20));
    world.queue.on_passed(P, Offset(far + 30), Offset(far + 40));
    assert_eq!((described(&world).done_end, described(&world).read_end), (Offset(far), Offset(far + 20)));
    assert!(world.queue.on_records(world.now, batch(far + 20, far + 25), records(far + 20, far + 25)));
    assert_eq!(leased(&mut world), 15);
}

#[test]
fn a_hole_that_is_longer_than_the_ring_is_passed_when_there_is_room() {
    let mut world = World::new(settings(), 1);
    world.member(100);
    world.finish();
    assert!(world.queue.on_records(world.now, batch(0, 1), records(0, 1)));
    assert_eq!(leased(&mut world), 1);
    let first = 2 * QUEUE_RING_RECORDS;
    let read = |world: &mut World| {
        let from = world.queue.describe_partitions(world.now).next().unwrap().read_end;
        let next = ReadBatch { from, ..batch(0, first + 10) };
        world.queue.on_records(world.now, next, records(first, first + 10))
    };
    assert!(!read(&mut world), "the ring has no room for the hole while its first record is out");
    let (id, ticket) = (world.clients[0].id, world.ticket());
    world.queue.acknowledge(world.now, ticket, id, &[run(0, 1)], None).unwrap();
    assert_eq!(leased(&mut world), 0);
    assert!(read(&mut world), "it has when that is done");
    assert_eq!(leased(&mut world), 10);
}

#[test]
fn damage_in_the_middle_is_stepped_over_while_others_are_out() {
    let mut world = World::new(settings(), 1);
    world.member(100);
    world.finish();
    assert!(world.queue.on_records(world.now, batch(0, 10), records(0, 10)));
    assert_eq!(leased(&mut world), 10);
    world.queue.skip(world.now, P, Offset(10), Offset(25));
    assert!(world.queue.on_records(world.now, batch(25, 30), records(25, 30)));
    assert_eq!(leased(&mut world), 15);
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.done_end, partition.done), (Offset(0), 15));
}

#[test]
fn a_later_partition_is_read_from_its_beginning() {
    let mut world = World::new(settings(), 1);
    world.topic.push(Vec::new());
    world.readers.push((0, 0));
    world.queue.on_partitions(2);
    world.produce(1, None, None);
    let at = world.member(5);
    world.finish();
    world.finish();
    world.feed_all();
    world.finish();
    assert_eq!(world.clients[at].has, [LeaseRun { partition: PartitionIndex(1), ..run(0, 1) }]);
}

#[test]
fn dead_letters_of_records_that_are_gone_leave_room_for_others() {
    let mut world = World::new(settings(), 1);
    let at = world.member(1000);
    world.finish();
    let (limit, count) = (QUEUE_DEAD_LETTERS_MAX as u64, QUEUE_DEAD_LETTERS_MAX as u64 + 44);
    assert!(world.queue.on_records(world.now, batch(0, count), records(0, count)));
    assert_eq!(leased(&mut world), count);
    let (id, ticket) = (world.clients[at].id, world.ticket());
    let runs = [run(0, u32::try_from(count).unwrap())];
    world.queue.reject(world.now, ticket, id, &runs, Verdict::Dead, "no").unwrap();
    assert_eq!(dead_letters(&mut world).len() as u64, limit, "as many as may be on their way");
    world.queue.skip(world.now, P, Offset(0), Offset(limit));
    assert_eq!(dead_letters(&mut world), (limit..count).collect::<Vec<_>>());
}

/// Ends the round, durably; which dead letters leave.
fn dead_letters(world: &mut World) -> Vec<u64> {
    world.queue.finish_round(world.now);
    let appended = world.queue.appended();
    world.queue.on_durable(appended);
    world.queue.check();
    let effects = std::iter::from_fn(|| world.queue.poll_effect());
    let offset = |effect| match effect {
        corelane_queue::Effect::DeadLetter { offset, .. } => Some(offset.0),
        _ => None,
    };
    effects.filter_map(offset).collect()
}

#[test]
fn a_failure_whose_record_is_gone_after_a_restart_is_forgotten() {
    let mut world = World::new(settings(), 1);
    let at = world.member(10);
    (0..4).for_each(|_| world.produce(0, None, None));
    world.finish();
    world.feed_all();
    world.finish();
    let rest = Verdict::Retry(Some(Duration::from_secs(3600)));
    world.reject(at, &[run(1, 1), run(3, 1)], rest).unwrap();
    world.finish();
    world.sync(usize::MAX);
    world.queue = world.restored();
    let id = world.clients[at].id;
    let join = corelane_queue::Join { credit_records: 10, credit_bytes: 100, ..corelane_queue::Join::new(id) };
    let ticket = world.ticket();
    world.queue.join(world.now, ticket, join).unwrap();
    // Retention has taken everything but 2 meanwhile.
    assert!(world.queue.on_records(world.now, batch(0, 4), records(2, 3)));
    world.queue.finish_round(world.now);
    let mut restore = Restore::new(name());
    for (key, value) in world.queue.records(world.now) {
        restore.apply(&key, Some(&value)).expect("what was written can be read");
    }
    restore.finish(1, 1).check();
}
