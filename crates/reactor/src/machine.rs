//! What a shard's loop drives.

use corelane_model::{MonotonicNanos, Now};
use corelane_shard::{Effect, Event};

/// A function from events to effects: a shard, or what stands in for one when a floor is measured.
pub(crate) trait Machine: 'static {
    /// Takes one event.
    fn handle(&mut self, now: Now, event: Event);
    /// More datagrams wait than this round took; the next one follows at once.
    fn expect_more(&mut self) {}
    /// Nothing is to be done for the moment: what would disturb a later round may be done now.
    fn rest(&mut self, _now: Now) {}
    /// Ends a round.
    fn finish_round(&mut self, now: Now);
    /// The next thing to do.
    fn poll_effect(&mut self) -> Option<Effect>;
    /// When [`Event::Deadline`] is wanted; a moment that is not in the future asks for another round at once.
    fn next_deadline(&self) -> Option<MonotonicNanos>;
}

impl Machine for corelane_shard::Shard {
    fn handle(&mut self, now: Now, event: Event) {
        Self::handle(self, now, event);
    }

    fn expect_more(&mut self) {
        Self::expect_more(self);
    }

    fn rest(&mut self, now: Now) {
        Self::rest(self, now);
    }

    fn finish_round(&mut self, now: Now) {
        Self::finish_round(self, now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        Self::poll_effect(self)
    }

    fn next_deadline(&self) -> Option<MonotonicNanos> {
        Self::next_deadline(self)
    }
}
