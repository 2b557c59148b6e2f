//! Repeating runs that are void.

use std::time::{Duration, Instant};

use crate::stolen::wait_until_quiet;

/// A workload whose run is void is run so often at least, however short the patience is.
pub const RUNS_MIN: u32 = 3;

/// How long somebody goes on repeating a run that is void, each time after waiting until the machine is quiet.
///
/// What makes a run void is the generator's lateness alone, never what the broker did: repeating does not choose among figures.
#[derive(Debug)]
pub struct Patience {
    until: Instant,
    waits: bool,
    runs: u32,
    runs_min: u32,
}

impl Patience {
    /// For one workload, beginning now. One of no length does not wait for anything, and ends after `runs_min` runs.
    #[must_use]
    pub fn new(limit: Duration, runs_min: u32) -> Self {
        let now = Instant::now();
        Self { until: now.checked_add(limit).unwrap_or(now), waits: !limit.is_zero(), runs: 0, runs_min }
    }

    /// Whether there is another run; waits before it. Blocks its thread.
    #[must_use]
    pub fn goes_on(&mut self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if self.runs_min <= self.runs && left.is_zero() {
            return false;
        }
        if self.waits {
            // Without quiet there is a run all the same: it is void or it is not.
            let _quiet = wait_until_quiet(left);
        }
        self.runs += 1;
        true
    }

    /// Runs so far.
    #[must_use]
    pub const fn runs(&self) -> u32 {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_patience_there_are_so_many_runs_as_there_must_be() {
        let mut none = Patience::new(Duration::ZERO, RUNS_MIN);
        assert!((0..RUNS_MIN).all(|_| none.goes_on()));
        assert!(!none.goes_on());
        assert_eq!(none.runs(), RUNS_MIN);
    }

    #[test]
    fn with_patience_there_are_more() {
        let mut long =
            Patience { until: Instant::now() + Duration::from_secs(3600), waits: false, runs: 0, runs_min: 1 };
        assert!((0..100).all(|_| long.goes_on()));
        long.until = Instant::now();
        assert!(!long.goes_on());
    }
}
