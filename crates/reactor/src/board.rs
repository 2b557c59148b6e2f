//! What the supervisor knows of the shards. Touched only when a shard's life takes a turn.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use corelane_model::ShardId;

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Ready,
    Drained,
    Ended,
}

/// A shard that stopped without being told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard} failed: {text}")]
pub struct ShardFailure {
    /// The shard.
    pub shard: ShardId,
    /// The text of the panic or of the error.
    pub text: String,
}

#[derive(Debug, Default)]
struct Notes {
    lives: Vec<Life>,
    failure: Option<ShardFailure>,
}

/// The lives of all shards, and a way to wait for them.
#[derive(Debug, Default)]
pub(crate) struct Board {
    notes: Mutex<Notes>,
    turn: Condvar,
}

impl Board {
    pub(crate) fn new(shards: usize) -> Self {
        let notes = Notes { lives: vec![Life::Starting; shards], failure: None };
        Self { notes: Mutex::new(notes), turn: Condvar::new() }
    }

    pub(crate) fn ready(&self, shard: ShardId) {
        self.turn_to(shard, Life::Ready);
    }

    pub(crate) fn drained(&self, shard: ShardId) {
        self.turn_to(shard, Life::Drained);
    }

    pub(crate) fn ended(&self, shard: ShardId) {
        self.turn_to(shard, Life::Ended);
    }

    /// The first failure stays: what follows is most often its consequence.
    pub(crate) fn fail(&self, shard: ShardId, text: String) {
        let mut notes = self.notes();
        notes.lives[usize::from(shard.0)] = Life::Ended;
        notes.failure.get_or_insert(ShardFailure { shard, text });
        drop(notes);
        self.turn.notify_all();
    }

    pub(crate) fn failure(&self) -> Option<ShardFailure> {
        self.notes().failure.clone()
    }

    /// Whether every shard is ready or beyond, within the time.
    pub(crate) fn wait_ready(&self, timeout: Duration) -> Result<bool, ShardFailure> {
        self.wait(timeout, |life| life != Life::Starting)
    }

    /// Whether every shard is drained or has ended, within the time.
    pub(crate) fn wait_drained(&self, timeout: Duration) -> Result<bool, ShardFailure> {
        self.wait(timeout, |life| matches!(life, Life::Drained | Life::Ended))
    }

    /// Waits for a failure.
    pub(crate) fn wait_failure(&self, timeout: Duration) -> Option<ShardFailure> {
        self.wait(timeout, |_| false).err()
    }

    fn wait(&self, timeout: Duration, is_there: impl Fn(Life) -> bool) -> Result<bool, ShardFailure> {
        let end = Instant::now() + timeout;
        let mut notes = self.notes();
        loop {
            if let Some(failure) = &notes.failure {
                return Err(failure.clone());
            }
            if notes.lives.iter().all(|life| is_there(*life)) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            notes = self.turn.wait_timeout(notes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn turn_to(&self, shard: ShardId, life: Life) {
        self.notes().lives[usize::from(shard.0)] = life;
        self.turn.notify_all();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
