//! The random histories find the bugs that a planted build holds. `cargo xtask sim planted` runs it; other builds have
//! nothing here.

#![cfg(planted)]
#![allow(dead_code, reason = "what only other tests need")]

#[path = "machine/history.rs"]
mod history;
#[path = "machine/world.rs"]
mod world;

mod bugs {
    use std::cell::Cell;

    use corelane_group::Strategy;
    use corelane_model::planted::{Bug, select};
    use proptest::prelude::prop;
    use proptest::test_runner::{Config, TestRng, TestRunner};

    use crate::history::{run, step};

    /// Histories within which a bug must be found.
    const CASES: u32 = 1000;

    /// The number of the first history that fails; they are always the same ones.
    fn find(bug: Option<Bug>) -> Option<u32> {
        let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let rng = TestRng::deterministic_rng(config.rng_algorithm);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let ran = Cell::new(0);
        select(bug);
        let histories = (0..Strategy::ALL.len(), 0u8..3, prop::collection::vec(step(), 0..160));
        let outcome = runner.run(&histories, |(strategy, standbys, steps)| {
            ran.set(ran.get() + 1);
            run(Strategy::ALL[strategy], standbys, &steps);
            Ok(())
        });
        select(None);
        outcome.is_err().then(|| ran.get())
    }

    /// One test, because a bug is switched on for the whole process.
    #[test]
    fn are_found_and_nothing_else_is() {
        assert_eq!(find(None), None, "the histories fail without a bug");
        for bug in [Bug::TwoOwners, Bug::StaleCommit, Bug::WallClockSession] {
            let found = find(Some(bug));
            assert!(found.is_some(), "{} is not found within {CASES} histories", bug.name());
            println!("planted: {} is found by history {}", bug.name(), found.unwrap_or_default());
        }
    }
}
