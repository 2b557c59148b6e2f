//! What time it is.

use std::time::{Duration, Instant, SystemTime};

use corelane_model::{MonotonicNanos, Now, WallMillis};

/// The time of day is read again after so long; until then it is reckoned from the clock that only goes forward. At the tick of
/// many partitions a clock is read for each record, and two cost twice as much. Also how late it is noticed that the time of day
/// was set.
const WALL_AGE_MAX: Duration = Duration::from_millis(10);

/// The two clocks of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// When the time of day was read, and what it was in nanoseconds since 1970.
    read_at: MonotonicNanos,
    wall_nanos: u64,
}

impl Clock {
    /// Clocks whose monotonic moments count from now on.
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin, read_at: MonotonicNanos(nanos(origin.elapsed())), wall_nanos: wall_nanos() }
    }

    pub(crate) fn now(&mut self) -> Now {
        self.at(MonotonicNanos(nanos(self.origin.elapsed())), wall_nanos)
    }

    /// What time it is at this moment; `read_wall` reads the time of day.
    fn at(&mut self, monotonic: MonotonicNanos, read_wall: impl FnOnce() -> u64) -> Now {
        if WALL_AGE_MAX <= monotonic.since(self.read_at) {
            (self.read_at, self.wall_nanos) = (monotonic, read_wall());
        }
        let wall_millis = self.wall_nanos.saturating_add(monotonic.0 - self.read_at.0) / NANOS_OF_MILLI;
        Now { monotonic, wall: WallMillis(wall_millis.cast_signed()) }
    }
}

const NANOS_OF_MILLI: u64 = 1_000_000;

/// Enough for 500 years.
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000 * NANOS_OF_MILLI).saturating_add(duration.subsec_nanos() as u64)
}

fn wall_nanos() -> u64 {
    nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_reckoned_between_readings_and_follows_when_it_is_set() {
        let mut clock = Clock::new(Instant::now());
        clock.wall_nanos = 5_000 * NANOS_OF_MILLI;
        let begin = clock.read_at;
        let mut wall = |millis, set_to: Option<u64>| {
            let moment = begin.after(Duration::from_millis(millis));
            clock.at(moment, || set_to.expect("it is not read again") * NANOS_OF_MILLI).wall.0
        };
        assert_eq!([wall(0, None), wall(9, None)], [5_000, 5_009]);
        assert_eq!([wall(10, Some(2_000)), wall(19, None)], [2_000, 2_009], "it was set back");
        assert_eq!(wall(1_000, Some(3_000)), 3_000);
    }
}
