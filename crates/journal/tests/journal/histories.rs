//! Random histories: rounds, completions in any order, settling, faults, crashes. After each crash recovery yields a
//! prefix of what was written that holds everything that was called durable.

use proptest::prelude::*;

use crate::disk::{Chance, Crash};
use crate::owner::Owner;

/// One step of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Round { values: u8, batches: u8, bytes: u16 },
    Complete(u16),
    CompleteAll,
    Settle(u8),
    Wait(u8),
    Short,
    FailSync,
    FailCreate,
    Close,
    Crash { is_machine: bool, seed: u64 },
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        30 => (0..6u8, 0..4u8, 0..6000u16).prop_map(|(values, batches, bytes)| Step::Round { values, batches, bytes }),
        40 => any::<u16>().prop_map(Step::Complete),
        6 => Just(Step::CompleteAll),
        12 => any::<u8>().prop_map(Step::Settle),
        4 => any::<u8>().prop_map(Step::Wait),
        1 => Just(Step::Short),
        1 => Just(Step::FailSync),
        1 => Just(Step::FailCreate),
        1 => Just(Step::Close),
        3 => (any::<bool>(), any::<u64>()).prop_map(|(is_machine, seed)| Step::Crash { is_machine, seed }),
    ];
    prop::collection::vec(step, 1..300)
}

/// Runs a history, a last crash after it, and some quiet rounds.
pub(crate) fn play(files: u32, partitions: u32, seed: u64, steps: &[Step]) -> Result<Owner, String> {
    let mut chance = Chance(seed);
    let mut owner = Owner::new(files, partitions);
    for step in steps {
        take(&mut owner, *step, &mut chance)?;
        if owner.failure.is_some() {
            assert!(!owner.journal.is_room(1));
            owner.crash(Crash::Process, &mut chance)?;
        }
    }
    owner.crash(Crash::Machine, &mut chance)?;
    // Nothing was left behind that keeps the journal from going on.
    for _ in 0..40 {
        let end = owner.unsettled.len();
        owner.settle(end);
        owner.add_values(3, &mut chance);
        owner.run_dry();
        owner.now += 200;
        owner.run_dry();
    }
    assert!(owner.journal.is_room(8000), "the ring is still {} per mille full", owner.journal.pressure());
    Ok(owner)
}

fn run(files: u32, partitions: u32, seed: u64, steps: &[Step]) -> Result<(), String> {
    play(files, partitions, seed, steps)?.crash(Crash::Machine, &mut Chance(seed))
}

fn take(owner: &mut Owner, step: Step, chance: &mut Chance) -> Result<(), String> {
    match step {
        Step::Round { values, batches, bytes } => {
            owner.add_values(u32::from(values), chance);
            for _ in 0..batches {
                owner.add_batch(usize::from(bytes));
            }
            owner.finish_round();
        }
        Step::Complete(pick) if owner.disk.in_flight() != 0 => {
            owner.complete(usize::from(pick) % owner.disk.in_flight());
            owner.finish_round();
        }
        Step::Complete(_) => {}
        Step::CompleteAll => owner.run_dry(),
        Step::Settle(count) => owner.settle(usize::from(count)),
        Step::Wait(millis) => {
            owner.now += u64::from(millis);
            owner.finish_round();
        }
        Step::Short => {
            if let Some(index) = owner.find(|op| op.write_bytes() != 0) {
                owner.complete_short(index);
            }
        }
        Step::FailSync => {
            if let Some(index) = owner.find(|op| *op == corelane_journal::JournalOp::Sync) {
                owner.fail(index);
            }
        }
        Step::FailCreate => {
            if let Some(index) = owner.find(|op| matches!(op, corelane_journal::JournalOp::Create { .. })) {
                owner.fail(index);
            }
        }
        Step::Close => {
            owner.journal.close();
            for _ in 0..20 {
                owner.run_dry();
            }
            if owner.closed {
                owner.crash(Crash::Machine, chance)?;
                assert!(owner.report.was_clean, "closed, but {:?}", owner.report);
            }
        }
        Step::Crash { is_machine, seed } => {
            let crash = if is_machine { Crash::Machine } else { Crash::Process };
            owner.crash(crash, &mut Chance(seed))?;
        }
    }
    Ok(())
}

#[cfg(not(planted))]
proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recovery_yields_a_prefix_with_everything_durable(
        files in 4..9u32, partitions in 1..30u32, seed in any::<u64>(), steps in steps(),
    ) {
        run(files, partitions, seed, &steps).map_err(TestCaseError::fail)?;
    }
}

/// Each planted bug of this crate is seen by the property above.
#[cfg(planted)]
mod bugs {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use corelane_model::planted::{Bug, select};
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    use super::*;

    fn is_found(bug: Option<Bug>) -> bool {
        let mut runner = TestRunner::deterministic();
        select(bug);
        let found = (0..1000).any(|seed| {
            let steps = steps().new_tree(&mut runner).unwrap().current();
            !matches!(catch_unwind(AssertUnwindSafe(|| run(5, 9, seed, &steps))), Ok(Ok(())))
        });
        select(None);
        found
    }

    #[test]
    fn planted_bugs_are_found() {
        let bugs = [
            Bug::AcknowledgeBeforeSync,
            Bug::DurablePastHole,
            Bug::TrustRecycledBlock,
            Bug::TrustUnproven,
            Bug::IgnoreShortWrite,
        ];
        let missed: Vec<&str> = bugs.iter().filter(|bug| !is_found(Some(**bug))).map(|bug| bug.name()).collect();
        assert!(missed.is_empty(), "not found: {missed:?}");
        assert!(!is_found(None), "something was found although nothing is planted");
    }
}
