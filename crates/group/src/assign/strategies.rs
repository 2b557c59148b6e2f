//! The strategies that keep what they can: they differ in what weighs and in what a move must gain.

use corelane_model::limits::GROUP_SHIFT_GAIN_PERMILLE;

use crate::assign::balance::balance;
use crate::{Assignor, Problem};

/// Balanced within one partition, and no assignment as balanced moves fewer.
#[derive(Clone, Copy, Debug)]
pub struct Sticky;

/// The default. See [`crate::Strategy::CooperativeSticky`].
#[derive(Clone, Copy, Debug)]
pub struct CooperativeSticky;

/// By declared capacity: no partition could move so that the more burdened of the two were less so.
#[derive(Clone, Copy, Debug)]
pub struct Weighted;

/// By reported processing time: a member's burden is its partitions times its time for a record. A partition moves when
/// the new owner would still be less burdened, by [`GROUP_SHIFT_GAIN_PERMILLE`], than the old one was, so small
/// differences move nothing and a move is not undone by the next report. A member that reported nothing counts as the
/// mean of those that did.
#[derive(Clone, Copy, Debug)]
pub struct LeastResponseTime;

/// What a member weighs that takes one microsecond for a record.
const FASTEST: u64 = 1 << 32;

impl Assignor for Sticky {
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>> {
        balance(problem, &vec![1; problem.candidates.len()], 0)
    }
}

impl Assignor for CooperativeSticky {
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>> {
        Sticky.assign(problem)
    }
}

impl Assignor for Weighted {
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>> {
        let weights: Vec<u64> = problem.candidates.iter().map(|candidate| u64::from(candidate.capacity)).collect();
        balance(problem, &weights, 0)
    }
}

impl Assignor for LeastResponseTime {
    fn assign(&self, problem: &Problem<'_>) -> Vec<Option<usize>> {
        let known = || problem.candidates.iter().filter_map(|candidate| candidate.processing_micros).map(u64::from);
        let mean = known().sum::<u64>().checked_div(known().count() as u64).unwrap_or(1);
        let weight = |micros: Option<u32>| FASTEST / micros.map_or(mean, u64::from).max(1);
        let weights: Vec<u64> =
            problem.candidates.iter().map(|candidate| weight(candidate.processing_micros)).collect();
        balance(problem, &weights, GROUP_SHIFT_GAIN_PERMILLE)
    }
}
