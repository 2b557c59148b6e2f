//! What became of things that leave gathered and are settled in order: commits, words about leases.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// Failures that are remembered for tickets that nobody has asked yet.
const FAILURES_MAX: usize = 1024;

#[derive(Debug)]
struct State<W, E> {
    /// Everything with a number below this one is settled.
    below: u64,
    failures: VecDeque<(W, RangeInclusive<u64>, E)>,
    /// Failures of what has a number below this one may have been forgotten.
    forgotten: u64,
    is_ended: bool,
    wakers: Vec<Waker>,
}

/// What the tickets of one membership share. Things are numbered as they are said; `W` says what failed, `E` why.
#[derive(Debug)]
pub(crate) struct Settlement<W, E> {
    state: Mutex<State<W, E>>,
    /// What is said of things whose end is not known.
    unknown: E,
}

impl<W, E: Clone> Settlement<W, E> {
    pub(crate) const fn new(unknown: E) -> Self {
        let state = State { below: 0, failures: VecDeque::new(), forgotten: 0, is_ended: false, wakers: Vec::new() };
        Self { state: Mutex::new(state), unknown }
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
        if FAILURES_MAX <= state.failures.len()
            && let Some((_, forgotten, _)) = state.failures.pop_front()
        {
            state.forgotten = state.forgotten.max(forgotten.end() + 1);
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
            return state.is_ended.then_some(Err(self.unknown.clone()));
        }
        Some(if number < state.forgotten { Err(self.unknown.clone()) } else { Ok(()) })
    }
}
