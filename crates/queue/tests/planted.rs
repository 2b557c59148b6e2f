//! The random histories find the bugs that a planted build holds. `cargo xtask sim planted` runs it; other builds have
//! nothing here.

#![cfg(planted)]

#[path = "machine/history.rs"]
mod history;
#[path = "machine/world.rs"]
mod world;

mod bugs {
    use corelane_model::Dispatch;
    use corelane_model::planted::{Bug, select};
    use proptest::prelude::{any, prop};
    use proptest::test_runner::{Config, TestRng, TestRunner};

    use crate::history::{run, step};

    /// Histories within which a bug must be found.
    const CASES: u32 = 1000;

    /// Whether one of the histories, always the same ones, fails.
    fn is_found(bug: Option<Bug>) -> bool {
        let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let rng = TestRng::deterministic_rng(config.rng_algorithm);
        let mut runner = TestRunner::new_with_rng(config, rng);
        select(bug);
        let histories = (any::<bool>(), prop::collection::vec(step(), 0..200));
        let outcome = runner.run(&histories, |(order, steps)| {
            run(order, Dispatch::RoundRobin, &steps);
            Ok(())
        });
        select(None);
        outcome.is_err()
    }

    /// One test, because a bug is switched on for the whole process.
    #[test]
    fn are_found_and_nothing_else_is() {
        assert!(!is_found(None), "the histories fail without a bug");
        for bug in [Bug::LeaseTwice, Bug::DeadLetterLost] {
            assert!(is_found(Some(bug)), "{} is not found within {CASES} histories", bug.name());
        }
    }
}
