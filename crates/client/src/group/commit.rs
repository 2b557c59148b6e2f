//! Commits: what became of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use corelane_client_core::{CommitError, CommitKey, GroupNews};
use corelane_model::PartitionId;

/// Failures that are remembered for tickets that nobody has asked yet.
const FAILURES_MAX: usize = 1024;

#[derive(Debug, Default)]
struct State {
    /// All commits before this one are settled.
    below: CommitKey,
    failures: VecDeque<(PartitionId, RangeInclusive<CommitKey>, CommitError)>,
    /// Failures of commits before this one may have been forgotten.
    forgotten: CommitKey,
    is_ended: bool,
    wakers: Vec<Waker>,
}

/// What the tickets of one membership share.
#[derive(Debug, Default)]
pub(crate) struct CommitCell {
    state: Mutex<State>,
}

impl CommitCell {
    /// Nothing more will be heard of commits.
    pub(crate) fn on_ended(&self) {
        let mut state = self.state.lock().expect("no panic while it is held");
        state.is_ended = true;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn on_news(&self, news: GroupNews) {
        let mut state = self.state.lock().expect("no panic while it is held");
        match news {
            GroupNews::CommitsSettled { below } => state.below = below,
            GroupNews::CommitFailed { partition, commits, error } => {
                if FAILURES_MAX <= state.failures.len()
                    && let Some((_, forgotten, _)) = state.failures.pop_front()
                {
                    state.forgotten = state.forgotten.max(CommitKey(forgotten.end().0 + 1));
                }
                state.failures.push_back((partition, commits, error));
                return;
            }
            _ => return,
        }
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Tells when a commit is durable. It may be dropped at any time; the commit is carried out all the same.
#[derive(Clone, Debug)]
pub struct CommitTicket {
    cell: Arc<CommitCell>,
    key: CommitKey,
    /// The one partition that it is about; `None` is about all of the member's.
    partition: Option<PartitionId>,
}

impl CommitTicket {
    pub(super) const fn new(cell: Arc<CommitCell>, key: CommitKey, partition: Option<PartitionId>) -> Self {
        Self { cell, key, partition }
    }

    /// Waits until this commit and those before it are settled: on disk, or refused.
    ///
    /// # Errors
    /// This commit was not carried out; see [`CommitError`]. The committed offset is what it was.
    pub async fn durable(&self) -> Result<(), CommitError> {
        poll_fn(|context| {
            let mut state = self.cell.state.lock().expect("no panic while it is held");
            if let Some(result) = self.read(&state) {
                return Poll::Ready(result);
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// What [`Self::durable`] would give, if it is known already.
    #[must_use]
    pub fn try_durable(&self) -> Option<Result<(), CommitError>> {
        self.read(&self.cell.state.lock().expect("no panic while it is held"))
    }

    fn read(&self, state: &State) -> Option<Result<(), CommitError>> {
        let is_about = |failed: PartitionId| self.partition.is_none_or(|partition| partition == failed);
        let mut failures = state.failures.iter().rev();
        if let Some((_, _, error)) = failures.find(|(p, commits, _)| is_about(*p) && commits.contains(&self.key)) {
            return Some(Err(error.clone()));
        }
        if state.below <= self.key {
            return state.is_ended.then_some(Err(CommitError::Ended));
        }
        Some(if self.key < state.forgotten { Err(CommitError::Ended) } else { Ok(()) })
    }
}
