//! The window: what is asked for, what comes, what is gone.

use std::time::Duration;

use corelane_model::limits::{
    QUEUE_DEAD_LETTERS_MAX, QUEUE_DELAY_MAX, QUEUE_DELAY_SLACK, QUEUE_READ_AHEAD_BYTES, QUEUE_RING_RECORDS,
    QUEUE_WINDOW_RECORDS,
};
use corelane_model::{Offset, PartitionIndex, WallMillis};
use corelane_queue::{DeadReason, Effect, LeaseRun, Queue, ReadBatch, RecordMeta, Restore, Verdict};

use crate::world::{World, name, settings};

const P: PartitionIndex = PartitionIndex(0);

fn batch(from: u64, end: u64) -> ReadBatch {
    ReadBatch {
        partition: P,
        from: Offset(from),
        end: Offset(end),
        timestamp: WallMillis(5),
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
fn what_lies_behind_records_that_fail_again_and_again_is_read() {
    let settings = corelane_model::QueueSettings { delivery_limit: None, dead_letter: None, ..settings() };
    let mut world = World::new(settings, 1);
    let at = world.member(0);
    world.finish();
    // Each is more than half of what is read ahead.
    let bytes = u32::try_from(QUEUE_READ_AHEAD_BYTES).unwrap() / 4 * 3;
    let large = records(0, 2).map(|meta| RecordMeta { bytes, ..meta });
    let read = ReadBatch { bytes: 2 * u64::from(bytes), ..batch(0, 2) };
    assert!(world.queue.on_records(world.now, read, large));
    let id = world.clients[at].id;
    let mut is_read = false;
    // One of them is out in each round, the other is ready: it fails again and again.
    for _ in 0..6 {
        world.queue.credit(world.now, id, 1, u64::from(bytes)).unwrap();
        let (leases, reads) = handed_out_and_read(&mut world);
        is_read |= reads.contains(&Offset(2));
        assert_eq!(leases.len(), 1, "{leases:?}");
        let ticket = world.ticket();
        world.queue.reject(world.now, ticket, id, &leases, Verdict::Retry(Some(Duration::ZERO)), "no").unwrap();
    }
    assert!(is_read, "nothing behind them was asked for");
}

/// Ends the round; what a member gets, and from where on more is asked for.
fn handed_out_and_read(world: &mut World) -> (Vec<LeaseRun>, Vec<Offset>) {
    world.queue.finish_round(world.now);
    world.queue.check();
    let (mut leased, mut reads) = (Vec::new(), Vec::new());
    while let Some(effect) = world.queue.poll_effect() {
        match effect {
            Effect::Deliver { leases, .. } => leased.extend(leases),
            Effect::Read { from, .. } => reads.push(from),
            _ => {}
        }
    }
    (leased, reads)
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
            Effect::Read { from, bytes, .. } => Some((from, bytes)),
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
        Effect::DeadLetter { offset, .. } => Some(offset.0),
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

/// Appended now, to be handed out so much later.
fn delayed(world: &mut World, offset: u64, key: Option<u32>, delay: Duration) {
    let deliver_at = WallMillis(world.now.wall.0 + i64::try_from(delay.as_millis()).expect("days"));
    let meta = RecordMeta { offset: Offset(offset), bytes: 1, key, deliver_at: Some(deliver_at) };
    let batch = ReadBatch { timestamp: world.now.wall, ..batch(offset, offset + 1) };
    assert!(world.queue.on_records(world.now, batch, [meta]));
}

/// Leases, and dead letters with why.
fn outcome(queue: &mut Queue, now: corelane_model::Now) -> (Vec<LeaseRun>, Vec<(u64, DeadReason)>) {
    queue.finish_round(now);
    queue.on_durable(queue.appended());
    queue.check();
    let (mut leased, mut dead) = (Vec::new(), Vec::new());
    while let Some(effect) = queue.poll_effect() {
        match effect {
            Effect::Deliver { leases, .. } => leased.extend(leases),
            Effect::DeadLetter { offset, reason, .. } => dead.push((offset.0, reason)),
            _ => {}
        }
    }
    (leased, dead)
}

const TOO_LONG: Duration = QUEUE_DELAY_MAX.saturating_add(QUEUE_DELAY_SLACK).saturating_add(Duration::from_millis(1));

#[test]
fn a_delivery_time_too_far_off_is_a_dead_letter() {
    let mut world = World::new(settings(), 1);
    world.member(10);
    world.finish();
    delayed(&mut world, 0, None, TOO_LONG);
    delayed(&mut world, 1, None, TOO_LONG - Duration::from_millis(1));
    assert_eq!(outcome(&mut world.queue, world.now), (Vec::new(), vec![(0, DeadReason::TooFar)]));
    assert_eq!((world.queue.describe().delayed, world.queue.stats().far_delivery_times), (1, 1));
    // The crash comes before its dead letter is durable: it still dies, for the same reason.
    let mut restore = Restore::new(name());
    let records: Vec<_> = world.queue.records(world.now).collect();
    records.iter().for_each(|(key, value)| restore.apply(key, Some(value)).unwrap());
    world.queue = restore.finish(1, 1);
    world.member(10);
    delayed(&mut world, 0, None, TOO_LONG);
    assert_eq!(outcome(&mut world.queue, world.now), (Vec::new(), vec![(0, DeadReason::TooFar)]));
    world.queue.on_dead_letter_stored(world.now, P, Offset(0));
    assert_eq!(world.queue.done_end(P), Offset(1));
}

#[test]
fn a_delivery_time_too_far_off_is_none_without_a_topic_for_dead_letters() {
    let settings = corelane_model::QueueSettings { dead_letter: None, delivery_limit: None, ..settings() };
    let mut world = World::new(settings, 1);
    world.member(10);
    world.finish();
    delayed(&mut world, 0, None, TOO_LONG);
    assert_eq!(outcome(&mut world.queue, world.now), (vec![run(0, 1)], Vec::new()));
    assert_eq!(world.queue.stats().far_delivery_times, 1);
}

#[test]
fn a_delivery_time_too_far_off_keeps_the_order_of_its_key() {
    let settings = corelane_model::QueueSettings { order_per_key: true, ..settings() };
    let mut world = World::new(settings, 1);
    let at = world.member(10);
    world.finish();
    for (offset, delay) in [(0, Duration::ZERO), (1, TOO_LONG), (2, Duration::ZERO)] {
        delayed(&mut world, offset, Some(5), delay);
    }
    assert_eq!(outcome(&mut world.queue, world.now), (vec![run(0, 1)], Vec::new()), "the others wait for it");
    let (id, ticket) = (world.clients[at].id, world.ticket());
    world.queue.acknowledge(world.now, ticket, id, &[run(0, 1)], None).unwrap();
    assert_eq!(outcome(&mut world.queue, world.now), (Vec::new(), vec![(1, DeadReason::TooFar)]));
    world.queue.on_dead_letter_stored(world.now, P, Offset(1));
    assert_eq!(outcome(&mut world.queue, world.now), (vec![run(2, 1)], Vec::new()));
}

#[test]
fn a_clock_that_is_set_back_delays_nothing_beyond_the_limit() {
    let mut world = World::new(settings(), 1);
    world.member(10);
    world.finish();
    let appended = world.now.wall;
    world.now.wall.0 -= 365 * 24 * 3600 * 1000;
    let meta = RecordMeta { offset: Offset(0), bytes: 1, key: None, deliver_at: Some(appended) };
    assert!(world.queue.on_records(world.now, ReadBatch { timestamp: appended, ..batch(0, 1) }, [meta]));
    assert_eq!(leased(&mut world), 0);
    world.now.monotonic = world.now.monotonic.after(TOO_LONG);
    world.queue.on_deadline(world.now);
    world.member(10);
    assert_eq!(leased(&mut world), 1);
}

#[test]
fn a_window_full_of_delayed_records_says_so_until_they_are_due() {
    let mut world = World::new(settings(), 1);
    let at = world.member(u32::MAX);
    world.finish();
    let delay = Duration::from_secs(1);
    let end = QUEUE_WINDOW_RECORDS;
    let deliver_at = Some(WallMillis(world.now.wall.0 + 1000));
    let metas = records(0, end).map(|meta| RecordMeta { deliver_at, ..meta });
    assert!(world.queue.on_records(world.now, ReadBatch { timestamp: world.now.wall, ..batch(0, end) }, metas));
    let is_full = |world: &World| world.queue.describe_partitions(world.now).next().unwrap().is_full;
    assert!(!is_full(&world), "nothing is behind them");
    assert!(world.queue.on_records(world.now, batch(end, end + 1), records(end, end + 1)));
    assert_eq!(leased(&mut world), 0);
    assert!(is_full(&world));
    world.now.monotonic = world.now.monotonic.after(delay);
    world.queue.on_deadline(world.now);
    assert!(!is_full(&world), "all could be handed out");
    let id = world.clients[at].id;
    world.queue.credit(world.now, id, u32::MAX, u64::MAX).unwrap();
    assert_eq!(leased(&mut world), end);
    assert!(is_full(&world), "all are handed out");
}
