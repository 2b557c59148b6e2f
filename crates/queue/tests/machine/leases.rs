//! What members may say, and when.

use std::time::Duration;

use corelane_model::{MemberId, Offset, PartitionIndex, QueueSettings};
use corelane_queue::{Answer, DeadReason, Effect, FenceReason, LeaseRun, QueueError, Verdict};

use crate::world::{LIMIT, SESSION, VISIBILITY, World, settings};

const MS: Duration = Duration::from_millis(1);

fn run(first: u64, count: u32, attempt: u32) -> LeaseRun {
    LeaseRun { partition: PartitionIndex(0), first: Offset(first), count, attempt }
}

/// A world with so many records, read as soon as somebody wants them.
fn world(records: u32) -> World {
    let mut world = World::new(settings(), 1);
    (0..records).for_each(|_| world.produce(0, None, None));
    world
}

fn feed(world: &mut World) {
    world.finish();
    world.feed_all();
    world.finish();
}

#[test]
fn an_acknowledgement_is_answered_when_it_is_durable() {
    let mut world = world(3);
    let at = world.member(10);
    feed(&mut world);
    assert_eq!(world.clients[at].has, [run(0, 3, 1)]);
    let ticket = world.acknowledge(at, &[run(0, 2, 1)]).unwrap();
    world.finish();
    assert_eq!(world.answers.get(&ticket), None, "it is not on disk");
    world.sync(usize::MAX);
    assert_eq!(world.answers[&ticket], Answer::Leases { refused: vec![] });
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.done_end, partition.leased), (Offset(2), 1));
}

#[test]
fn one_bad_message_does_not_block_the_rest() {
    let mut world = world(500);
    let at = world.member(1000);
    feed(&mut world);
    world.acknowledge(at, &[run(1, 499, 1)]).unwrap();
    (0..500).for_each(|_| world.produce(0, None, None));
    feed(&mut world);
    assert_eq!(world.clients[at].has.last(), Some(&run(500, 500, 1)));
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.done_end, partition.done), (Offset(0), 499));
}

#[test]
fn an_acknowledgement_of_an_expired_lease_is_refused_and_nothing_is_lost() {
    let mut world = world(2);
    let (slow, quick) = (world.member(2), world.client());
    feed(&mut world);
    world.advance(VISIBILITY - MS);
    world.join_with(quick, 2, 1).unwrap();
    world.finish();
    assert!(world.clients[quick].has.is_empty(), "the lease still runs");
    world.advance(MS);
    world.finish();
    assert_eq!(world.clients[quick].has, [run(0, 2, 2)]);
    let ticket = world.acknowledge(slow, &[run(0, 2, 1)]).unwrap();
    world.acknowledge(quick, &[run(0, 1, 2)]).unwrap();
    world.finish();
    world.sync(usize::MAX);
    assert_eq!(world.answers[&ticket], Answer::Leases { refused: vec![run(0, 2, 1)] });
    assert_eq!(world.queue.stats().refused_leases, 2);
}

#[test]
fn leases_that_nobody_can_have_are_refused_without_being_counted_out() {
    let mut world = world(1);
    let at = world.member(1);
    feed(&mut world);
    let odd = [
        run(5, u32::MAX >> 15, 1),
        run(u64::MAX - 3, 1 << 16, 1),
        LeaseRun { partition: PartitionIndex(9), ..run(0, 1, 1) },
        run(0, 1, 7),
        run(0, 0, 1),
    ];
    let (ticket, id) = (world.ticket(), world.clients[at].id);
    let leases = [odd.as_slice(), &[run(0, 1, 1)]].concat();
    world.queue.acknowledge(world.now, ticket, id, &leases, None).unwrap();
    world.finish();
    world.sync(usize::MAX);
    let Answer::Leases { refused } = &world.answers[&ticket] else { panic!("leases") };
    assert_eq!(refused, &[odd[0], run(u64::MAX - 3, 3, 1), odd[2], odd[3]]);
    let error = world.acknowledge(at, &[run(0, u32::MAX, 1)]).unwrap_err();
    assert!(matches!(error, QueueError::Limit { would, .. } if would == u64::from(u32::MAX)), "{error}");
}

#[test]
fn a_lease_that_was_extended_ends_later_or_earlier() {
    let mut world = world(2);
    let (at, other) = (world.member(2), world.client());
    feed(&mut world);
    world.extend(at, &[run(0, 1, 1)], VISIBILITY * 2).unwrap();
    world.extend(at, &[run(1, 1, 1)], MS * 10).unwrap();
    world.join_with(other, 2, 1).unwrap();
    world.advance(MS * 10);
    world.finish();
    assert_eq!(world.clients[other].has, [run(1, 1, 2)]);
    world.acknowledge(other, &[run(1, 1, 2)]).unwrap();
    world.advance(VISIBILITY);
    world.finish();
    assert_eq!(world.clients[other].has, [run(1, 1, 2)], "the longer lease still runs");
    world.queue.credit(world.now, world.clients[at].id, 0, 0).unwrap();
    world.queue.credit(world.now, world.clients[other].id, 2, 0).unwrap();
    world.advance(VISIBILITY);
    world.finish();
    assert!(world.clients[other].has.contains(&run(0, 1, 2)));
    let error = world.extend(other, &[], Duration::from_secs(86_400)).unwrap_err();
    assert!(matches!(error, QueueError::OutOfBounds { .. }), "{error}");
}

#[test]
fn failures_rest_by_the_back_off_and_end_at_the_limit() {
    let mut world = world(1);
    let at = world.member(10);
    feed(&mut world);
    for attempt in 1..=LIMIT {
        assert_eq!(world.clients[at].has.pop(), Some(run(0, 1, attempt)));
        world.reject(at, &[run(0, 1, attempt)], Verdict::Retry(None)).unwrap();
        world.finish();
        let rest = world.settings.backoff.after(attempt);
        world.advance(rest - MS);
        world.finish();
        assert!(world.clients[at].has.is_empty(), "it rests");
        world.advance(MS);
        world.finish();
    }
    assert!(world.dying.is_empty(), "its failures are not on disk");
    world.sync(usize::MAX);
    assert_eq!(world.dying, [(0, 0)]);
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.dying, partition.done_end), (1, Offset(0)), "not done before its dead letter is durable");
    world.settle_dead_letter(false);
    world.advance(Duration::from_secs(1));
    world.finish();
    world.settle_dead_letter(true);
    world.finish();
    let partition = world.queue.describe_partitions(world.now).next().unwrap();
    assert_eq!((partition.dying, partition.dead, partition.done_end), (0, 1, Offset(1)));
}

#[test]
fn a_dead_letter_says_why_and_survives_a_crash_as_one() {
    let mut world = world(1);
    let at = world.member(10);
    feed(&mut world);
    let (ticket, id) = (world.ticket(), world.clients[at].id);
    world.queue.reject(world.now, ticket, id, &[run(0, 1, 1)], Verdict::Dead, "no such player").unwrap();
    world.queue.finish_round(world.now);
    let mut letter = None;
    while let Some(effect) = world.queue.poll_effect() {
        match effect {
            Effect::Append { position, key, value } => {
                assert_eq!(letter, None, "that it is one is on disk first");
                world.log.push((key, value));
                world.queue.on_durable(position);
            }
            effect @ Effect::DeadLetter { .. } => letter = Some(effect),
            effect => assert!(matches!(effect, Effect::Answer { .. } | Effect::Read { .. }), "{effect:?}"),
        }
    }
    let mut restored = world.restored();
    let Some(Effect::DeadLetter { deliveries, reason, first_failed, .. }) = letter else { panic!("no dead letter") };
    assert_eq!((deliveries, first_failed), (1, world.now.wall));
    assert_eq!(reason, DeadReason::Rejected("no such player".into()));
    assert_eq!(reason.to_string(), "rejected: no such player");
    // The crash comes before the dead-letter topic has it.
    let batch = corelane_queue::ReadBatch {
        partition: PartitionIndex(0),
        from: Offset(0),
        end: Offset(1),
        timestamp: world.now.wall,
        bytes: 100,
        high_watermark: Offset(1),
    };
    assert!(restored.on_records(world.now, batch, [world.topic[0][0].meta]));
    restored.finish_round(world.now);
    std::iter::from_fn(|| restored.poll_effect()).for_each(drop);
    restored.on_durable(restored.appended());
    let letter = std::iter::from_fn(|| restored.poll_effect()).find(|e| matches!(e, Effect::DeadLetter { .. }));
    assert!(matches!(letter, Some(Effect::DeadLetter { reason: DeadReason::Restored, .. })), "{letter:?}");
}

#[test]
fn without_a_dead_letter_topic_nothing_is_given_up() {
    let plain = QueueSettings { delivery_limit: None, dead_letter: None, ..settings() };
    let mut world = World::new(plain, 1);
    world.produce(0, None, None);
    let at = world.member(1);
    feed(&mut world);
    assert_eq!(world.reject(at, &[run(0, 1, 1)], Verdict::Dead), Err(QueueError::NoDeadLetterTopic));
    assert_eq!(world.clients[at].has, [run(0, 1, 1)]);
}

#[test]
fn what_a_dead_member_had_goes_to_others_and_what_a_leaving_one_had_does_not_count() {
    let mut world = world(4);
    let (dead, leaving) = (world.member(2), world.member(2));
    feed(&mut world);
    let had = world.clients[dead].has.clone();
    world.extend(dead, &had, SESSION * 3).unwrap();
    world.leave(leaving);
    let other = world.client();
    world.join_with(other, 10, 1).unwrap();
    world.finish();
    assert!(world.clients[other].has.iter().all(|run| run.attempt == 1), "{:?}", world.clients[other].has);
    let has = std::mem::take(&mut world.clients[other].has);
    world.acknowledge(other, &has).unwrap();
    world.advance(SESSION - MS);
    world.queue.credit(world.now, world.clients[other].id, 0, 0).unwrap();
    world.finish();
    assert!(world.clients[other].has.is_empty());
    world.advance(MS);
    world.finish();
    assert!(world.clients[other].has.iter().all(|run| run.attempt == 2), "{:?}", world.clients[other].has);
    let id = world.clients[dead].id;
    assert!(world.fenced.contains(&id));
    let error = world.acknowledge(dead, &had).unwrap_err();
    assert_eq!(error, QueueError::Fenced { member: id, reason: FenceReason::SessionExpired });
    let error = world.queue.credit(world.now, MemberId(99), 1, 1).unwrap_err();
    assert_eq!(error, QueueError::UnknownMember { member: MemberId(99) });
}

#[test]
fn after_a_restart_a_record_rests_no_longer_than_it_had_to_wherever_the_wall_clock_is_set() {
    let mut world = world(2);
    let at = world.member(10);
    feed(&mut world);
    world.reject(at, &[run(0, 1, 1)], Verdict::Retry(Some(Duration::ZERO))).unwrap();
    world.reject(at, &[run(1, 1, 1)], Verdict::Retry(Some(MS * 300))).unwrap();
    world.finish();
    world.sync(usize::MAX);
    world.now.wall.0 -= 3_600_000;
    world.crash(0);
    world.join_with(at, 10, 1).unwrap();
    feed(&mut world);
    assert_eq!(world.clients[at].has, [run(0, 1, 2)], "it rests not at all");
    world.advance(MS * 300);
    world.finish();
    assert_eq!(world.clients[at].has, [run(0, 1, 2), run(1, 1, 2)]);
}

#[test]
fn a_delayed_record_is_handed_out_at_its_time_and_holds_up_only_its_key() {
    let mut world = World::new(QueueSettings { order_per_key: true, ..settings() }, 1);
    world.produce(0, Some(1), Some(MS * 300));
    world.produce(0, Some(1), None);
    world.produce(0, Some(2), None);
    world.produce(0, None, None);
    let at = world.member(10);
    feed(&mut world);
    assert_eq!(world.clients[at].has, [run(2, 2, 1)]);
    world.advance(MS * 299);
    world.finish();
    assert_eq!(world.clients[at].has.len(), 1);
    world.advance(MS);
    world.finish();
    assert_eq!(world.clients[at].has[1], run(0, 1, 1));
    world.acknowledge(at, &[run(0, 1, 1)]).unwrap();
    world.finish();
    assert_eq!(world.clients[at].has[2], run(1, 1, 1));
}
