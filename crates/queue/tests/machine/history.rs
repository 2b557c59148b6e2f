//! Random histories: members that come, die and speak late, failures, lost reads, crashes.

use std::time::Duration;

use corelane_model::{Dispatch, QueueSettings};
use corelane_queue::Verdict;
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as Generate;

use crate::world::{SESSION, VISIBILITY, World, settings, singles};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Produce(u32, u32, Option<u64>),
    Feed(u32, usize),
    Start(u32),
    Credit(usize, u32),
    /// Acknowledges some of what it believes to have.
    Ack(usize, usize, usize),
    Nack(usize, usize, Option<u64>),
    Dead(usize, usize),
    Extend(usize, u64),
    /// Says something about a lease that it had once.
    Late(usize, usize, bool),
    Kill(usize),
    Leave(usize),
    Advance(u64),
    Finish,
    Sync(usize),
    DeadLetter(bool),
    LoseReads(u32),
    Crash(usize),
}

pub(crate) fn step() -> impl Generate<Value = Step> {
    let who = 0usize..6;
    prop_oneof![
        8 => (0u32..2, 0u32..5, prop::option::weighted(0.1, 1u64..900)).prop_map(|(p, k, d)| Step::Produce(p, k, d)),
        8 => (0u32..2, 1usize..4).prop_map(|(partition, batches)| Step::Feed(partition, batches)),
        2 => (1u32..8).prop_map(Step::Start),
        5 => (who.clone(), 1u32..6).prop_map(|(at, records)| Step::Credit(at, records)),
        8 => (who.clone(), 0usize..8, 1usize..6).prop_map(|(at, from, count)| Step::Ack(at, from, count)),
        3 => (who.clone(), 0usize..8, prop::option::of(0u64..500)).prop_map(|(at, which, d)| Step::Nack(at, which, d)),
        1 => (who.clone(), 0usize..8).prop_map(|(at, which)| Step::Dead(at, which)),
        2 => (who.clone(), 1u64..3000).prop_map(|(at, millis)| Step::Extend(at, millis)),
        2 => (who.clone(), any::<usize>(), any::<bool>()).prop_map(|(at, which, ack)| Step::Late(at, which, ack)),
        1 => who.clone().prop_map(Step::Kill),
        1 => who.prop_map(Step::Leave),
        4 => (1u64..1500).prop_map(Step::Advance),
        10 => Just(Step::Finish),
        6 => (0usize..6).prop_map(Step::Sync),
        3 => any::<bool>().prop_map(Step::DeadLetter),
        1 => (0u32..2).prop_map(Step::LoseReads),
        1 => (0usize..4).prop_map(Step::Crash),
    ]
}

fn apply(world: &mut World, step: &Step) {
    let count = world.clients.len();
    let place = |at: usize| (count != 0).then(|| at % count);
    match *step {
        Step::Produce(partition, key, delay) => {
            let key = (key != 0).then_some(key);
            world.produce(partition, key, delay.map(Duration::from_millis));
        }
        Step::Feed(partition, batches) => world.feed(partition, batches),
        Step::Start(records) if count < 6 => {
            world.member(records);
        }
        Step::Start(_) => {}
        Step::Credit(at, records) => place(at).into_iter().for_each(|at| credit(world, at, records)),
        Step::Ack(at, from, many) => place(at).into_iter().for_each(|at| {
            let leases = take(world, at, from, many);
            let _gone = world.acknowledge(at, &leases);
        }),
        Step::Nack(at, which, delay) => place(at).into_iter().for_each(|at| {
            let leases = take(world, at, which, 1);
            let _gone = world.reject(at, &leases, Verdict::Retry(delay.map(Duration::from_millis)));
        }),
        Step::Dead(at, which) => place(at).into_iter().for_each(|at| {
            let leases = take(world, at, which, 1);
            let _gone = world.reject(at, &leases, Verdict::Dead);
        }),
        Step::Extend(at, millis) => place(at).into_iter().for_each(|at| {
            let leases = world.clients[at].has.clone();
            let _gone = world.extend(at, &leases, Duration::from_millis(millis));
        }),
        Step::Late(at, which, is_ack) => place(at).into_iter().for_each(|at| late(world, at, which, is_ack)),
        Step::Kill(at) => place(at).into_iter().for_each(|at| world.clients[at].is_alive = false),
        Step::Leave(at) => place(at).into_iter().for_each(|at| world.leave(at)),
        Step::Advance(millis) => world.advance(Duration::from_millis(millis)),
        Step::Finish => world.finish(),
        Step::Sync(more) => world.sync(world.durable + more),
        Step::DeadLetter(is_stored) => world.settle_dead_letter(is_stored),
        Step::LoseReads(partition) => {
            world.readers[partition as usize] = (0, 0);
            world.queue.on_read_ended(corelane_model::PartitionIndex(partition));
        }
        Step::Crash(beyond) => world.crash(beyond),
    }
}

/// Room for more, from a process that lives; after a restart of the broker it joins again.
fn credit(world: &mut World, at: usize, records: u32) {
    if !world.clients[at].is_alive {
        return;
    }
    let id = world.clients[at].id;
    if world.queue.credit(world.now, id, records, 1 << 16).is_err() && !world.fenced.contains(&id) {
        world.join_with(at, records, 1).expect("it was not put out");
    }
}

/// Some of the leases that a client believes to have, one by one.
fn take(world: &mut World, at: usize, from: usize, many: usize) -> Vec<corelane_queue::LeaseRun> {
    let client = &mut world.clients[at];
    let all = singles(&client.has);
    let from = from.min(all.len());
    let end = (from + many).min(all.len());
    let taken = all[from..end].to_vec();
    client.has = [&all[..from], &all[end..]].concat();
    client.had.extend(&taken);
    taken
}

fn late(world: &mut World, at: usize, which: usize, is_ack: bool) {
    let had = &world.clients[at].had;
    let Some(&run) = (!had.is_empty()).then(|| &had[which % had.len()]) else { return };
    if is_ack {
        let _gone = world.acknowledge(at, &[run]);
    } else {
        let _gone = world.reject(at, &[run], Verdict::Retry(None));
    }
}

/// Everybody works, and nothing fails any more: everything is done within a bound.
fn calm(world: &mut World) {
    let worker = world.member(64);
    for _ in 0..200 {
        world.feed_all();
        world.finish();
        world.sync(usize::MAX);
        while !world.dying.is_empty() {
            world.settle_dead_letter(true);
        }
        let has = std::mem::take(&mut world.clients[worker].has);
        world.acknowledge(worker, &has).expect("it is a member");
        credit(world, worker, 64);
        world.advance(Duration::from_millis(200));
    }
    world.finish();
    world.sync(usize::MAX);
    let left: Vec<_> = world.topic.iter().flatten().filter(|record| record.done.is_none()).collect();
    assert!(left.is_empty(), "not done in the end: {left:#?}\n{:#?}", world.queue);
    let sum = world.queue.describe();
    assert_eq!((sum.ready, sum.leased, sum.delayed), (0, 0, 0));
}

/// What was answered is so, also after a crash.
fn check_answers(world: &World) {
    for (ticket, places) in &world.acknowledged {
        if world.answers.contains_key(ticket) {
            for &(partition, offset) in places {
                let record = &world.topic[partition as usize][usize::try_from(offset).expect("few")];
                assert!(record.done.is_some_and(|at| at <= world.durable as u64), "{record:?} was answered");
            }
        }
    }
}

pub(crate) fn run(order_per_key: bool, dispatch: Dispatch, steps: &[Step]) {
    let mut world = World::new(QueueSettings { order_per_key, dispatch, ..settings() }, 2);
    for step in steps {
        apply(&mut world, step);
        check_answers(&world);
    }
    assert!(VISIBILITY < SESSION, "leases end before sessions");
    calm(&mut world);
    let before: Vec<_> = world.queue.records(world.now).collect();
    let after: Vec<_> = world.restored().records(world.now).collect();
    assert_eq!(before, after, "the restored queue differs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_leased_twice_and_everything_is_done_in_the_end(
        order_per_key in any::<bool>(),
        dispatch in 0..Dispatch::ALL.len(),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        run(order_per_key, Dispatch::ALL[dispatch], &steps);
    }
}
