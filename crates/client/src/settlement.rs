//! What became of things that leave gathered and are settled in order: commits, words about leases.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// Failures that are remembered for tickets that nobody has asked yet.
const FAILURES_MAX: usize = 1024;
/// Ranges of numbers of which is remembered that something of them failed, and no longer what and why.
const FORGOTTEN_MAX: usize = 1024;

#[derive(Debug)]
struct State<W, E> {
    /// Everything with a number below this one is settled.
    below: u64,
    failures: VecDeque<(W, RangeInclusive<u64>, E)>,
    /// Ranges in which something failed that is forgotten: last numbers by first ones, apart from each other.
    forgotten: BTreeMap<u64, u64>,
    is_ended: bool,
    wakers: Vec<Waker>,
}

/// What the tickets of one membership share. Things are numbered as they are said; `W` says what failed, `E` why.
#[derive(Debug)]
pub(crate) struct Settlement<W, E> {
    state: Mutex<State<W, E>>,
    /// What is said of things that had no answer when all ended.
    ended: E,
    /// What is said of things of which it is no longer known whether they failed.
    forgotten: E,
}

impl<W, E> State<W, E> {
    /// Remembers of the oldest failure only that there was one.
    fn forget_oldest(&mut self) {
        let Some((_, numbers, _)) = self.failures.pop_front() else { return };
        let (mut first, mut last) = (*numbers.start(), *numbers.end());
        while let Some((&before, &end)) = self.forgotten.range(..=last.saturating_add(1)).next_back()
            && first <= end.saturating_add(1)
        {
            (first, last) = (first.min(before), last.max(end));
            self.forgotten.remove(&before);
        }
        self.forgotten.insert(first, last);
        if FORGOTTEN_MAX < self.forgotten.len() {
            // The oldest two become one, with what lies between them.
            let (first, _) = self.forgotten.pop_first().expect("there are many");
            let (_, last) = self.forgotten.pop_first().expect("there are many");
            self.forgotten.insert(first, last);
        }
    }

    fn is_forgotten(&self, number: u64) -> bool {
        self.forgotten.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }
}

impl<W, E: Clone> Settlement<W, E> {
    /// `ended` is said of things that have no answer when all ends, `forgotten` of those that may have failed a long time ago.
    pub(crate) const fn new(ended: E, forgotten: E) -> Self {
        let state = State {
            below: 0,
            failures: VecDeque::new(),
            forgotten: BTreeMap::new(),
            is_ended: false,
            wakers: Vec::new(),
        };
        Self { state: Mutex::new(state), ended, forgotten }
    }

    /// Everything below that number is settled.
    pub(crate) fn on_settled(&self, below: u64) {
        self.change(|state| state.below = below);
    }

    /// Nothing more will be heard.
    pub(crate) fn on_ended(&self) {
        self.change(|state| state.is_ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut State<W, E>)) {
        let mut state = self.state.lock().expect("no panic while it is held");
        change(&mut state);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Something failed; it is settled, which is told after it.
    pub(crate) fn on_failed(&self, what: W, numbers: RangeInclusive<u64>, error: E) {
        let mut state = self.state.lock().expect("no panic while it is held");
        if FAILURES_MAX <= state.failures.len() {
            state.forget_oldest();
        }
        state.failures.push_back((what, numbers, error));
    }

    /// What became of the thing with that number; `is_about` says whether a failure is about it.
    pub(crate) fn poll(
        &self,
        context: &mut Context<'_>,
        number: u64,
        is_about: impl Fn(&W) -> bool,
    ) -> Poll<Result<(), E>> {
        let mut state = self.state.lock().expect("no panic while it is held");
        if let Some(result) = self.read(&state, number, is_about) {
            return Poll::Ready(result);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// As [`Self::poll`], without waiting.
    pub(crate) fn try_read(&self, number: u64, is_about: impl Fn(&W) -> bool) -> Option<Result<(), E>> {
        self.read(&self.state.lock().expect("no panic while it is held"), number, is_about)
    }

    fn read(&self, state: &State<W, E>, number: u64, is_about: impl Fn(&W) -> bool) -> Option<Result<(), E>> {
        let mut failures = state.failures.iter().rev();
        if let Some((_, _, error)) = failures.find(|(what, numbers, _)| numbers.contains(&number) && is_about(what)) {
            return Some(Err(error.clone()));
        }
        if state.below <= number {
            return state.is_ended.then_some(Err(self.ended.clone()));
        }
        Some(if state.is_forgotten(number) { Err(self.forgotten.clone()) } else { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Wrong {
        Refused,
        Ended,
        Forgotten,
    }

    fn settlement() -> Settlement<(), Wrong> {
        Settlement::new(Wrong::Ended, Wrong::Forgotten)
    }

    fn read(settlement: &Settlement<(), Wrong>, number: u64) -> Option<Result<(), Wrong>> {
        settlement.try_read(number, |()| true)
    }

    #[test]
    fn what_succeeded_is_said_to_have_succeeded_however_much_failed_since() {
        let settlement = settlement();
        let many = 3 * FAILURES_MAX as u64;
        // Every second one fails.
        (0..many).for_each(|at| settlement.on_failed((), 2 * at..=2 * at, Wrong::Refused));
        settlement.on_settled(2 * many);
        let found = |number| read(&settlement, number).unwrap();
        assert_eq!(found(2 * many - 2), Err(Wrong::Refused));
        assert_eq!(found(2 * many - 2 * FAILURES_MAX as u64 - 2), Err(Wrong::Forgotten));
        // As far as ranges of what is forgotten are apart.
        let apart = 2 * (many - FAILURES_MAX as u64 - FORGOTTEN_MAX as u64) + 1;
        for number in (apart..2 * many).step_by(2) {
            assert_eq!(found(number), Ok(()), "number {number}");
        }
        for number in (0..2 * many).step_by(2) {
            assert!(found(number).is_err(), "number {number} failed");
        }
        assert_eq!(found(1), Err(Wrong::Forgotten), "it is not said that it ended");
    }

    #[test]
    fn ranges_of_what_is_forgotten_are_joined_in_any_order() {
        let settlement = settlement();
        for numbers in [20..=25, 10..=12, 40..=40, 13..=19, 39..=41, 5..=50] {
            settlement.on_failed((), numbers, Wrong::Refused);
            settlement.state.lock().unwrap().forget_oldest();
            let state = settlement.state.lock().unwrap();
            let ranges: Vec<_> = state.forgotten.iter().map(|(&first, &last)| (first, last)).collect();
            assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{ranges:?} touch");
        }
        let state = settlement.state.lock().unwrap();
        assert_eq!(state.forgotten, [(5, 50)].into());
    }

    #[test]
    fn the_end_answers_what_is_open_and_nothing_else() {
        let settlement = settlement();
        settlement.on_settled(5);
        assert_eq!(read(&settlement, 5), None);
        settlement.on_ended();
        assert_eq!([read(&settlement, 4), read(&settlement, 5)], [Some(Ok(())), Some(Err(Wrong::Ended))]);
    }
}
