//! The shard itself.

use std::collections::VecDeque;

use corelane_model::{MonotonicNanos, Now};

use crate::{Effect, Event, ShardConfig};

/// Everything that one core owns.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    now: Now,
    effects: VecDeque<Effect>,
}

impl Shard {
    /// A shard that begins to recover in its first round.
    #[must_use]
    pub const fn new(config: ShardConfig) -> Self {
        Self {
            config,
            now: Now { monotonic: MonotonicNanos(0), wall: corelane_model::WallMillis(0) },
            effects: VecDeque::new(),
        }
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        drop(event);
    }

    /// Ends the round: what it decided becomes effects.
    pub fn finish_round(&mut self, now: Now) {
        self.now = now;
    }

    /// The next thing to do; nothing when the round is over.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When the shard wants a round even if nothing happens; a moment that is not in the future asks for one at once.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<MonotonicNanos> {
        None
    }

    /// What it was told at its start.
    #[must_use]
    pub const fn config(&self) -> &ShardConfig {
        &self.config
    }
}
