//! The clock of the process.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corelane_model::{MonotonicNanos, Now, WallMillis};

/// Counts monotonic time from the same origin on all shards, so that their moments can be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) const fn origin(self) -> Instant {
        self.origin
    }

    pub(crate) fn monotonic(self) -> MonotonicNanos {
        MonotonicNanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { monotonic: self.monotonic(), wall: WallMillis(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)) }
    }
}
