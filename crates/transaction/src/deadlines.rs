//! What happens by itself when time passes.

use std::time::Duration;

use corelane_model::limits::TRANSACTIONAL_ID_EXPIRY;
use corelane_model::{Decision, MonotonicNanos, Now};

use crate::{Coordinator, Phase};

impl Coordinator {
    /// When [`Coordinator::on_deadline`] wants to be called; `None` while only participants are waited for.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<MonotonicNanos> {
        match &self.phase {
            Phase::Open { deadline, .. } => Some(*deadline),
            Phase::Unused | Phase::Empty => Some(self.expiry),
            Phase::Ending { .. } | Phase::Forgotten => None,
        }
    }

    /// Aborts a transaction that ran out of time, and forgets an id that nobody used for long.
    ///
    /// Call it after the round's requests were handled, so that a client whose request waited behind a stalled shard is not
    /// too late by that.
    pub fn on_deadline(&mut self, now: Now) {
        match &self.phase {
            Phase::Open { deadline, .. } if *deadline <= now.monotonic => {
                self.stats.timed_out += 1;
                self.decide(now, Decision::Abort);
            }
            Phase::Unused | Phase::Empty if self.expiry <= now.monotonic => {
                self.phase = Phase::Forgotten;
                self.current = None;
                self.last = None;
                self.round.is_changed = true;
            }
            _ => {}
        }
        self.check();
    }

    /// The id is kept for the whole time from now on, less what has passed since it was last used.
    pub(crate) fn arm_expiry(&mut self, now: Now) {
        let passed = Duration::from_millis(now.wall.millis_since(self.touched));
        self.expiry = now.monotonic.after(TRANSACTIONAL_ID_EXPIRY.saturating_sub(passed));
    }
}
