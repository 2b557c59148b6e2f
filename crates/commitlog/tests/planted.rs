//! The random histories find the bugs that a planted build holds. `cargo xtask sim planted` runs it; other builds have
//! nothing here.

#![cfg(planted)]

#[path = "transactions.rs"]
mod transactions;

mod bugs {
    use std::cell::Cell;

    use corelane_model::planted::{Bug, select};
    use proptest::collection::vec;
    use proptest::test_runner::{Config, TestRng, TestRunner};

    use crate::transactions::{op, run};

    /// Histories within which a bug must be found.
    const CASES: u32 = 1000;

    /// The number of the first history that fails; they are always the same ones.
    fn find(bug: Option<Bug>) -> Option<u32> {
        let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let rng = TestRng::deterministic_rng(config.rng_algorithm);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let ran = Cell::new(0);
        select(bug);
        let outcome = runner.run(&vec(op(), 1..150), |ops| {
            ran.set(ran.get() + 1);
            run(&ops);
            Ok(())
        });
        select(None);
        outcome.is_err().then(|| ran.get())
    }

    /// One test, because a bug is switched on for the whole process.
    #[test]
    fn are_found_and_nothing_else_is() {
        assert_eq!(find(None), None, "the histories fail without a bug");
        for bug in [Bug::AbortedVisible, Bug::StablePastOpen] {
            let found = find(Some(bug));
            assert!(found.is_some(), "{} is not found within {CASES} histories", bug.name());
            println!("planted: {} is found by history {}", bug.name(), found.unwrap_or_default());
        }
    }
}
