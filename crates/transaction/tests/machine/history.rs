//! Random histories: whatever happens, a transaction is visible everywhere or nowhere.

use std::time::Duration;

use corelane_model::Decision;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{CLIENTS, PARTICIPANTS, World};

#[derive(Clone, Debug)]
enum Op {
    Initialise { client: usize },
    Write { client: usize, place: usize },
    End { client: usize, decision: Decision },
    AskAgain { client: usize },
    DeliverJoin,
    Deliver { place: usize },
    DeliverApplied,
    SyncCoordinator { behind: usize },
    SyncPart { place: usize },
    Pass { millis: u64 },
    Crash { survive: usize },
    Damage { place: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    let place = || 0..PARTICIPANTS;
    let decision = prop_oneof![3 => Just(Decision::Commit), 1 => Just(Decision::Abort)];
    prop_oneof![
        2 => client().prop_map(|client| Op::Initialise { client }),
        6 => (client(), place()).prop_map(|(client, place)| Op::Write { client, place }),
        5 => (client(), decision).prop_map(|(client, decision)| Op::End { client, decision }),
        1 => client().prop_map(|client| Op::AskAgain { client }),
        6 => Just(Op::DeliverJoin),
        8 => place().prop_map(|place| Op::Deliver { place }),
        6 => Just(Op::DeliverApplied),
        6 => (0..3usize).prop_map(|behind| Op::SyncCoordinator { behind }),
        6 => place().prop_map(|place| Op::SyncPart { place }),
        1 => (0..12_000u64).prop_map(|millis| Op::Pass { millis }),
        1 => (0..3usize).prop_map(|survive| Op::Crash { survive }),
        1 => place().prop_map(|place| Op::Damage { place }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_is_seen_everywhere_or_nowhere(ops in vec(op(), 1..200)) {
        let mut world = World::new();
        for op in &ops {
            match *op {
                Op::Initialise { client } => world.initialise(client),
                Op::Write { client, place } => world.write(client, place),
                Op::End { client, decision } => world.end(client, decision),
                Op::AskAgain { client } => world.ask_again(client),
                Op::DeliverJoin => world.deliver_join(),
                Op::Deliver { place } => world.deliver(place),
                Op::DeliverApplied => world.deliver_applied(),
                Op::SyncCoordinator { behind } => world.sync_coordinator(behind),
                Op::SyncPart { place } => world.sync_part(place),
                Op::Pass { millis } => world.pass(Duration::from_millis(millis)),
                Op::Crash { survive } => world.crash(survive),
                Op::Damage { place } => {
                    world.lose_end(place);
                    world.crash(0);
                }
            }
            world.look();
        }
        world.settle();
        world.check_settled();
        world.crash(0);
        world.settle();
        world.check_settled();
    }
}
