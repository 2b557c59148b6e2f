//! Who gets how much.

use std::time::Duration;

use corelane_model::{Dispatch, QueueSettings};
use corelane_queue::Verdict;

use crate::world::{RECORD_BYTES, World, settings};

fn world(dispatch: Dispatch, partitions: u32, records: u32) -> World {
    let mut world = World::new(QueueSettings { dispatch, ..settings() }, partitions);
    for record in 0..records {
        world.produce(record % partitions, None, None);
    }
    world
}

fn counts(world: &World) -> Vec<u64> {
    let counts = world.clients.iter().map(|client| client.has.iter().map(|run| u64::from(run.count)).sum());
    counts.collect()
}

#[test]
fn round_robin_is_even_with_more_members_than_partitions() {
    let mut world = world(Dispatch::RoundRobin, 2, 600);
    (0..6).for_each(|_| {
        world.member(1000);
    });
    world.finish();
    world.feed_all();
    world.finish();
    assert_eq!(counts(&world).iter().sum::<u64>(), 600);
    let (least, most) = (counts(&world).into_iter().min().unwrap(), counts(&world).into_iter().max().unwrap());
    assert!(most - least <= 64, "within one turn: {:?}", counts(&world));
}

#[test]
fn few_records_are_spread_one_by_one() {
    let mut world = world(Dispatch::RoundRobin, 1, 3);
    (0..6).for_each(|_| {
        world.member(1000);
    });
    world.finish();
    world.feed_all();
    world.finish();
    assert_eq!(counts(&world), [1, 1, 1, 0, 0, 0]);
}

#[test]
fn random_is_fair_in_the_long_run_and_replays() {
    let deal = || {
        let mut world = world(Dispatch::Random, 1, 4000);
        (0..4).for_each(|_| {
            world.member(4000);
        });
        world.finish();
        while counts(&world).iter().sum::<u64>() < 4000 {
            world.feed(0, 1);
            world.finish();
        }
        counts(&world)
    };
    let first = deal();
    assert!(first.iter().all(|count| (850..1150).contains(count)), "{first:?}");
    assert_eq!(first, deal());
}

#[test]
fn weights_say_who_gets_how_much() {
    let mut world = world(Dispatch::Weighted, 1, 4000);
    for weight in [1, 3, 4] {
        let at = world.client();
        world.join_with(at, 4000, weight).unwrap();
    }
    world.finish();
    world.feed_all();
    world.finish();
    let counts = counts(&world);
    for (count, share) in counts.iter().zip([500u64, 1500, 2000]) {
        assert!(count.abs_diff(share) <= 40, "{counts:?}");
    }
}

#[test]
fn who_answers_faster_gets_more() {
    let mut world = world(Dispatch::LeastResponseTime, 1, 3000);
    let (slow, fast) = (world.member(3000), world.member(3000));
    for (at, micros) in [(slow, 3000), (fast, 1000)] {
        let (ticket, id) = (world.ticket(), world.clients[at].id);
        world.queue.acknowledge(world.now, ticket, id, &[], Some(micros)).unwrap();
    }
    world.finish();
    world.feed_all();
    world.finish();
    let counts = counts(&world);
    let ratio = counts[fast] as f64 / counts[slow] as f64;
    assert!((2.7..3.3).contains(&ratio), "{counts:?}");
}

#[test]
fn credit_bounds_what_a_member_has_in_records_and_bytes() {
    let mut world = world(Dispatch::RoundRobin, 2, 100);
    let (by_records, by_bytes) = (world.member(7), world.member(0));
    let id = world.clients[by_bytes].id;
    world.queue.credit(world.now, id, 1000, 0).unwrap();
    world.finish();
    world.feed_all();
    world.finish();
    // Joined with 2^20 bytes: all the rest.
    assert_eq!(counts(&world), [7, 93]);
    let mut world = World::new(settings(), 1);
    (0..100).for_each(|_| world.produce(0, None, None));
    let at = world.member(0);
    let id = world.clients[at].id;
    let ticket = world.ticket();
    let mut join = corelane_queue::Join::new(id);
    (join.credit_records, join.credit_bytes) = (100, u64::from(RECORD_BYTES) * 3 / 2);
    world.queue.join(world.now, ticket, join).unwrap();
    world.finish();
    world.feed_all();
    world.finish();
    assert_eq!(counts(&world), [2], "the last record may go beyond");
    world.queue.credit(world.now, id, 0, u64::from(RECORD_BYTES) * 2).unwrap();
    world.finish();
    assert_eq!(counts(&world), [4], "what went beyond counts");
    assert!(by_records < by_bytes);
}

#[test]
fn without_credit_nothing_is_read() {
    let mut world = world(Dispatch::RoundRobin, 2, 100);
    let at = world.member(0);
    world.finish();
    assert_eq!(world.readers, [(0, 0), (0, 0)], "a slow member's backlog stays on disk");
    world.queue.credit(world.now, world.clients[at].id, 1, 0).unwrap();
    world.advance(Duration::from_millis(1));
    world.finish();
    assert!(world.readers.iter().all(|&(_, asked)| 0 < asked));
}

/// The member says something of the only record that it has and has room for another. Which one it was.
fn turn(world: &mut World, at: usize, verdict: Option<Verdict>) -> (u32, u64) {
    world.finish();
    let has = std::mem::take(&mut world.clients[at].has);
    let [run] = has[..] else { panic!("one record at a time: {has:?}") };
    match verdict {
        Some(verdict) => world.reject(at, &has, verdict).expect("it is a member"),
        None => drop(world.acknowledge(at, &has).expect("it is a member")),
    }
    let credit = world.queue.credit(world.now, world.clients[at].id, 1, u64::from(RECORD_BYTES));
    credit.expect("it is a member");
    (run.partition.0, run.first.0)
}

#[test]
fn a_member_with_little_credit_gets_records_of_all_partitions() {
    let mut world = world(Dispatch::RoundRobin, 3, 30);
    let at = world.member(1);
    world.finish();
    world.feed_all();
    let turns: Vec<_> = (0..9).map(|_| turn(&mut world, at, None).0).collect();
    for partition in 0..3 {
        assert_eq!(turns.iter().filter(|&&from| from == partition).count(), 3, "{turns:?}");
    }
}

#[test]
fn records_that_fail_without_a_rest_do_not_keep_others_waiting() {
    let settings = QueueSettings { delivery_limit: None, dead_letter: None, ..settings() };
    let mut world = World::new(settings, 1);
    (0..10).for_each(|_| world.produce(0, None, None));
    let at = world.member(1);
    world.finish();
    world.feed_all();
    let retry = || Some(Verdict::Retry(Some(Duration::ZERO)));
    let (_, bad) = turn(&mut world, at, retry());
    let mut others = 0;
    for _ in 0..4 {
        world.finish();
        let is_bad = world.clients[at].has[0].first.0 == bad;
        others += u64::from(!is_bad);
        turn(&mut world, at, if is_bad { retry() } else { None });
    }
    assert_eq!(others, 2, "every other turn is theirs");
}

#[test]
fn a_partition_that_is_not_read_yet_waits_for_no_record_that_fails_again_and_again() {
    let settings = QueueSettings { delivery_limit: None, dead_letter: None, ..settings() };
    let mut world = World::new(settings, 1);
    world.produce(0, None, None);
    let at = world.member(1);
    world.finish();
    world.feed_all();
    // Its beginning is known when the only member's credit goes to what fails already.
    world.topic.push(Vec::new());
    world.readers.push((0, 0));
    world.queue.on_partitions(2);
    world.produce(1, None, None);
    let turns = (0..4).map(|_| {
        let turn = turn(&mut world, at, Some(Verdict::Retry(Some(Duration::ZERO))));
        world.feed_all();
        turn.0
    });
    let turns: Vec<_> = turns.collect();
    assert!(turns.contains(&1), "only {turns:?} had a turn");
}
