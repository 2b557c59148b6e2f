//! Random histories: joins, leaves, deaths, late and lost messages, commits, jumps of the wall clock, crashes of the
//! coordinator.

use std::time::Duration;

use corelane_group::{GroupError, GroupState, Leave, Settings, Strategy};
use corelane_model::{Decision, ErrorCode, Generation, ProducerEpoch, ProducerId, Transaction};
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as Generate;

use crate::world::{REBALANCE, SESSION, World, partition};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A new process, static or not, with one or both topics.
    Start {
        topics: u8,
        is_static: bool,
    },
    /// A process with the static id of an earlier one.
    Twin(usize),
    Report(usize),
    ReportLate(usize, usize),
    Deliver(usize),
    LoseInbox(usize),
    Commit(usize, u32, u64),
    /// A member stages an offset in one of three transactions.
    Stage(usize, u32, u64),
    Settle(u64, bool),
    Kill(usize),
    Leave(usize),
    Restart(usize),
    Advance(u64),
    /// Somebody sets the wall clock, by so many seconds.
    SetClock(i64),
    Finish,
    /// The round ends and does a small part of what there is to do.
    FinishPart(usize),
    Sync(usize),
    Crash(usize),
    Grow(u64, u32),
}

pub(crate) fn step() -> impl Generate<Value = Step> {
    let who = 0usize..8;
    prop_oneof![
        3 => (1u8..4, any::<bool>()).prop_map(|(topics, is_static)| Step::Start { topics, is_static }),
        1 => who.clone().prop_map(Step::Twin),
        8 => who.clone().prop_map(Step::Report),
        2 => (who.clone(), any::<usize>()).prop_map(|(at, which)| Step::ReportLate(at, which)),
        8 => who.clone().prop_map(Step::Deliver),
        1 => who.clone().prop_map(Step::LoseInbox),
        6 => (who.clone(), 0u32..6, 0u64..4).prop_map(|(at, index, back)| Step::Commit(at, index, back)),
        4 => (who.clone(), 0u32..6, 1u64..4).prop_map(|(at, index, of)| Step::Stage(at, index, of)),
        2 => (1u64..4, any::<bool>()).prop_map(|(of, is_commit)| Step::Settle(of, is_commit)),
        1 => who.clone().prop_map(Step::Kill),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.prop_map(Step::Restart),
        3 => (1u64..6000).prop_map(Step::Advance),
        1 => (-1200i64..1200).prop_map(Step::SetClock),
        4 => Just(Step::Finish),
        4 => (1usize..4).prop_map(Step::FinishPart),
        6 => (0usize..12).prop_map(Step::Sync),
        1 => (0usize..6).prop_map(Step::Crash),
        1 => (0u64..2, 1u32..4).prop_map(|(topic, more)| Step::Grow(topic, more)),
    ]
}

fn apply(world: &mut World, step: &Step) {
    let count = world.clients.len();
    let place = |at: usize| (count != 0).then(|| at % count);
    match *step {
        Step::Start { topics, is_static } if count < 8 => {
            let topics: Vec<u64> = (0..2).filter(|topic| topics >> topic & 1 == 1).collect();
            let static_id = format!("static-{count}");
            let at = world.client(&topics, is_static.then_some(&static_id));
            world.join(at).expect("it is sound");
        }
        Step::Start { .. } => {}
        Step::Twin(at) => {
            if let Some(id) = place(at).and_then(|at| world.clients[at].static_id.clone()).filter(|_| count < 12) {
                let at = world.client(&[0, 1], Some(id.as_str()));
                world.join(at).expect("it is sound");
            }
        }
        Step::Report(at) => place(at).into_iter().for_each(|at| world.report(at)),
        Step::ReportLate(at, which) => place(at).into_iter().for_each(|at| world.report_late(at, which)),
        Step::Deliver(at) => {
            if let Some(at) = place(at) {
                world.deliver(at);
            }
        }
        Step::LoseInbox(at) => place(at).into_iter().for_each(|at| world.clients[at].inbox.clear()),
        Step::Commit(at, index, back) => place(at).into_iter().for_each(|at| commit(world, at, index, back)),
        Step::Stage(at, index, of) => place(at).into_iter().for_each(|at| stage(world, at, index, of)),
        Step::Settle(of, is_commit) => {
            let decision = if is_commit { Decision::Commit } else { Decision::Abort };
            world.settle_transaction(transaction(of), decision);
        }
        Step::Kill(at) => place(at).into_iter().for_each(|at| world.kill(at)),
        Step::Leave(at) => place(at).into_iter().for_each(|at| world.leave(at, Leave::ForGood)),
        Step::Restart(at) => place(at).into_iter().for_each(|at| restart(world, at)),
        Step::Advance(millis) => world.advance(Duration::from_millis(millis)),
        Step::SetClock(seconds) => world.now.wall.0 += seconds * 1000,
        Step::Finish => world.finish(),
        Step::FinishPart(step) => world.finish_step(step),
        Step::Sync(more) => world.sync(world.durable + more),
        Step::Crash(beyond) => world.crash(beyond),
        Step::Grow(topic, more) => grow(world, topic, more),
    }
}

/// A commit with the generation that the client saw or an older one.
fn commit(world: &mut World, at: usize, index: u32, back: u64) {
    if !world.clients[at].is_joined {
        return;
    }
    let partition = partition(u64::from(index % 2), index / 2);
    let said = Generation(world.clients[at].seen.0.saturating_sub(back));
    let since = world.clients[at].works.get(&partition).copied();
    let is_taken = world.commit(at, partition, said).is_ok();
    if is_taken {
        assert!(world.is_member(at), "a commit was taken from who is no member");
        assert!(
            since.is_none_or(|since| since <= said),
            "a commit of generation {said} was taken, owned since {since:?}"
        );
        for (other, client) in world.clients.iter().enumerate().filter(|&(other, _)| other != at) {
            let works = client.works.contains_key(&partition);
            assert!(!(works && world.is_member(other)), "{partition} is worked on by another member");
        }
    }
}

const fn transaction(of: u64) -> Transaction {
    Transaction::new(ProducerId(of), ProducerEpoch(0))
}

fn stage(world: &mut World, at: usize, index: u32, of: u64) {
    let partition = partition(u64::from(index % 2), index / 2);
    let is_worked_on = world.clients[at].works.contains_key(&partition);
    if world.clients[at].is_joined && is_worked_on && world.stage(at, partition, transaction(of)).is_ok() {
        assert!(world.is_member(at), "an offset was staged by who is no member");
    }
}

/// A static process says that it restarts, and a new one begins in its place.
fn restart(world: &mut World, at: usize) {
    let Some(id) = world.clients[at].static_id.clone().filter(|_| world.clients[at].is_alive) else { return };
    world.leave(at, Leave::Restarting);
    world.clients[at].is_alive = true;
    world.put_out(at, None);
    assert_eq!(world.clients[at].static_id, Some(id), "it is the same process in its second life");
}

fn grow(world: &mut World, topic: u64, more: u32) {
    *world.catalog.get_mut(&corelane_model::TopicId(topic)).expect("it is sound") += more;
    let catalog = world.catalog.clone();
    world.group.on_catalog(|subscription| crate::world::resolve(&catalog, subscription));
}

/// Everybody who lives acts, and messages arrive: all partitions are worked on again within a bound.
fn calm(world: &mut World) {
    for of in 1..4 {
        world.settle_transaction(transaction(of), Decision::Abort);
    }
    let bound = (SESSION + REBALANCE).as_millis() / 500 + 20;
    for _ in 0..bound {
        world.sync(usize::MAX);
        for at in 0..world.clients.len() {
            world.deliver_all(at);
            world.report(at);
        }
        world.advance(Duration::from_millis(500));
    }
    world.settle_round();
    let mut wanted = Vec::new();
    for (&topic, &partitions) in &world.catalog {
        let name = format!("t{topic}");
        let subscribes = |client: &crate::world::Client| client.subscription.topics.iter().any(|t| t.as_str() == name);
        if world.clients.iter().any(|client| client.is_alive && client.is_joined && subscribes(client)) {
            wanted.extend((0..partitions).map(|index| partition(topic.0, index)));
        }
    }
    let alive = || world.clients.iter().filter(|client| client.is_alive);
    for &partition in &wanted {
        let owners = alive().filter(|client| client.works.contains_key(&partition)).count();
        assert_eq!(owners, 1, "{partition} has {owners} owners after things calmed down: {:#?}", world.group);
    }
    let held: usize = alive().map(|client| client.works.len()).sum();
    assert_eq!(held, wanted.len(), "somebody works on what nobody wants");
    assert!(matches!(world.group.state(), GroupState::Stable | GroupState::Empty), "{:?}", world.group.state());
}

/// What was appended is what the group has, and a restored group has the same.
fn check_restored(world: &mut World) {
    world.end_round();
    let before: std::collections::BTreeMap<_, _> = world.group.records().collect();
    assert_eq!(world.compacted(), before, "the log and the group differ");
    world.crash(0);
    let after: std::collections::BTreeMap<_, _> = world.group.records().collect();
    assert_eq!(after, before, "the restored group differs");
    world.finish();
    assert_eq!(world.log.len(), world.durable, "a restored group has nothing to write");
}

pub(crate) fn run(strategy: Strategy, standbys: u8, steps: &[Step]) {
    let mut world = World::new(Settings { strategy, standbys, ..Settings::default() }, &[4, 3]);
    for step in steps {
        apply(&mut world, step);
        world.check_owners();
    }
    calm(&mut world);
    check_restored(&mut world);
    calm(&mut world);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_owned_twice_and_everything_is_owned_again(
        strategy in 0..Strategy::ALL.len(),
        standbys in 0u8..3,
        steps in prop::collection::vec(step(), 0..160),
    ) {
        run(Strategy::ALL[strategy], standbys, &steps);
    }
}

#[test]
fn a_refusal_names_the_generation() {
    let mut world = World::new(Settings::default(), &[2]);
    let first = world.member(&[0], None);
    let error = world.commit(first, partition(0, 0), Generation(0)).unwrap_err();
    assert!(matches!(error, GroupError::StaleGeneration { said: Generation(0), .. }), "{error}");
    let error = world.commit(first, partition(0, 0), Generation(99)).unwrap_err();
    assert!(matches!(error, GroupError::FutureGeneration { said: Generation(99), .. }), "{error}");
    assert_eq!(
        error.code(),
        ErrorCode::UnknownGroup,
        "it is of a group that was deleted, and whoever says it is put out"
    );
}
