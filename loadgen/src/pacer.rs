//! The pacer: hands out each message at its due time, whatever became of those before.

use std::thread;
use std::time::{Duration, Instant};

use corelane_model::MonotonicNanos;

use crate::measure::Latency;

/// Before a due time the pacer sleeps to this distance and yields its core for the rest, because a sleep ends late.
const SLEEP_MARGIN: Duration = Duration::from_micros(60);

/// Keeps a run's time: nanoseconds since its origin, and how late the generator itself was.
#[derive(Clone, Debug)]
pub struct Pacer {
    origin: Instant,
    lateness: Latency,
    is_excused: bool,
}

impl Pacer {
    /// A pacer whose time begins at `origin`.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, lateness: Latency::default(), is_excused: false }
    }

    /// Returns when `due` has come; at once when it has passed. Counts, and answers, by how much it was missed; lateness that
    /// is excused is none.
    pub fn wait_until(&mut self, due: MonotonicNanos) -> Duration {
        let target = self.origin + Duration::from_nanos(due.0);
        let mut now = Instant::now();
        if now < target {
            self.is_excused = false;
        }
        while now < target {
            match (target - now).checked_sub(SLEEP_MARGIN) {
                Some(long) if !long.is_zero() => thread::sleep(long),
                _ => thread::yield_now(),
            }
            now = Instant::now();
        }
        if self.is_excused {
            return Duration::ZERO;
        }
        let lateness = now - target;
        self.lateness.record(lateness);
        lateness
    }

    /// The broker held the sender up: until the pacer has caught up, lateness is not the generator's own.
    pub const fn excuse(&mut self) {
        self.is_excused = true;
    }

    /// How late messages left.
    #[must_use]
    pub const fn lateness(&self) -> &Latency {
        &self.lateness
    }
}

/// Lets a reader take at most so many messages a second, counted over a tenth of a second: after a stall it catches up
/// with what it missed in that time, and with no more.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    nanos_per_message: f64,
    next: f64,
}

/// How far a limited reader may lag behind its rate and still catch up, in nanoseconds.
const CATCH_UP_NANOS: f64 = 100_000_000.0;

impl RateLimit {
    /// A limit of `per_s` messages a second.
    #[must_use]
    pub fn new(per_s: u32) -> Self {
        Self { nanos_per_message: 1e9 / f64::from(per_s.max(1)), next: 0.0 }
    }

    /// Takes `count` messages at `now` (nanoseconds since any origin); answers how long to wait before the next.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run stay below 2^52")]
    pub fn take(&mut self, now: u64, count: u64) -> Duration {
        let now = now as f64;
        self.next = self.next.max(now - CATCH_UP_NANOS) + self.nanos_per_message * count as f64;
        Duration::from_secs_f64(((self.next - now) / 1e9).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_due_time_returns_at_once_and_is_counted() {
        let origin = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let mut pacer = Pacer::new(origin);
        assert!(Duration::from_secs(1) <= pacer.wait_until(MonotonicNanos(0)));
        assert_eq!(pacer.lateness().samples(), 1);
        pacer.excuse();
        assert_eq!(pacer.wait_until(MonotonicNanos(1)), Duration::ZERO);
        assert_eq!(pacer.lateness().samples(), 1);
    }

    #[test]
    fn a_limit_spreads_messages() {
        let mut limit = RateLimit::new(1000);
        let first = limit.take(1_000_000_000, 1);
        assert_eq!(first, Duration::ZERO);
        let waits: Vec<_> = (0..100).map(|_| limit.take(1_000_000_000, 1)).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        let last = *waits.last().unwrap();
        assert!(Duration::from_micros(500) < last && last < Duration::from_millis(2), "{last:?}");
    }
}
