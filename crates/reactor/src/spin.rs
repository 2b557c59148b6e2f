//! How long a shard that has nothing to do goes on looking before it parks.
//!
//! A parked shard answers some 20 µs later than one that looks (measured), but one that looks takes a core. So it looks for
//! as long as it usually takes until something comes, not at all when that is long, and less when others want its core.

use std::time::Duration;

use corelane_model::MonotonicNanos;

use crate::process::involuntary_switches;

/// The longest window.
const WINDOW_MAX: Duration = Duration::from_micros(200);
/// The shortest window that is not none: below it a look finds nothing that parking would have missed.
const WINDOW_MIN: Duration = Duration::from_micros(4);
/// How often involuntary switches are counted.
const CHECK_EVERY: Duration = Duration::from_millis(5);
/// More switches than this between two counts mean that others want the core.
const SWITCHES_MAX: u64 = 2;
/// Switches that a file effect brings by itself.
const SWITCHES_PER_EFFECT: u64 = 2;
/// A cap that was halved doubles again after so many quiet counts.
const CALM_CHECKS: u32 = 20;
/// Waits beyond the window in a row after which waiting for more like them stops.
const MISSES_MAX: u32 = 4;

/// Whether and how a shard may spin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// As traffic and neighbours suggest.
    #[default]
    Adaptive,
    /// Parks at once.
    Off,
    /// Always looks for this long before it parks.
    Fixed(Duration),
}

/// The window of one shard.
#[derive(Debug)]
pub(crate) struct Spinner {
    policy: Spin,
    window: Duration,
    cap: Duration,
    misses: u32,
    checked: MonotonicNanos,
    switches: u64,
    file_effects: u64,
    calm: u32,
    /// Whether a peer on this machine would find no core but this one.
    is_crowded: bool,
}

impl Spinner {
    /// `is_crowded` says that shards fill all cores of the machine.
    pub(crate) fn new(policy: Spin, is_crowded: bool) -> Self {
        Self {
            policy,
            window: WINDOW_MAX,
            cap: WINDOW_MAX,
            misses: 0,
            checked: MonotonicNanos(0),
            switches: involuntary_switches(),
            file_effects: 0,
            calm: 0,
            is_crowded,
        }
    }

    /// The window at the moment; `has_local_peer` says that a peer may need a core of this machine.
    pub(crate) fn window(&self, has_local_peer: bool) -> Duration {
        match self.policy {
            Spin::Off => Duration::ZERO,
            Spin::Fixed(window) => window,
            Spin::Adaptive if self.is_crowded && has_local_peer => Duration::ZERO,
            Spin::Adaptive => self.window.min(self.cap),
        }
    }

    /// Whether the shard may look for a completion instead of parking. It offers its core at each look, so that it does not
    /// matter whether others want it, but for a peer that would find no other.
    pub(crate) fn may_look(&self, has_local_peer: bool) -> bool {
        match self.policy {
            Spin::Off => false,
            Spin::Fixed(window) => !window.is_zero(),
            Spin::Adaptive => !(self.is_crowded && has_local_peer),
        }
    }

    /// Something came `gap` after the last thing: the window follows what traffic does.
    pub(crate) fn on_gap(&mut self, gap: Duration) {
        if gap <= WINDOW_MAX {
            self.misses = 0;
            let wanted = (gap * 2).clamp(WINDOW_MIN, WINDOW_MAX);
            // Up at once, down slowly: one short gap says little about the next.
            self.window = if self.window < wanted { wanted } else { (self.window * 63 + wanted) / 64 };
        } else {
            self.misses += 1;
            if MISSES_MAX <= self.misses {
                self.window = WINDOW_MIN;
            }
        }
    }

    /// Looks now and then whether others want the core. `file_effects` counts those that completed so far: the kernel's
    /// workers for them run on this core too, and are no reason to look less.
    pub(crate) fn check(&mut self, now: MonotonicNanos, file_effects: u64) {
        if now.since(self.checked) < CHECK_EVERY {
            return;
        }
        self.checked = now;
        let switches = involuntary_switches();
        let rise = switches - self.switches;
        self.switches = switches;
        let allowed = SWITCHES_MAX + SWITCHES_PER_EFFECT * (file_effects - self.file_effects);
        self.file_effects = file_effects;
        if allowed < rise {
            self.calm = 0;
            self.cap = if self.cap <= WINDOW_MIN { Duration::ZERO } else { self.cap / 2 };
        } else {
            self.calm += 1;
            if CALM_CHECKS <= self.calm && self.cap < WINDOW_MAX {
                self.calm = 0;
                self.cap = (self.cap * 2).clamp(WINDOW_MIN, WINDOW_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_after(gaps_us: &[u64]) -> Duration {
        let mut spinner = Spinner::new(Spin::Adaptive, false);
        gaps_us.iter().for_each(|&gap| spinner.on_gap(Duration::from_micros(gap)));
        spinner.window(true)
    }

    #[test]
    fn the_window_follows_traffic() {
        assert_eq!(window_after(&[30; 5000]).as_micros(), 60);
        assert_eq!(window_after(&[16_000; 4]), WINDOW_MIN);
        assert_eq!(window_after(&[16_000, 16_000, 16_000, 16_000, 50]), Duration::from_micros(100));
    }

    #[test]
    fn a_crowded_machine_and_a_local_peer_leave_no_window() {
        let spinner = Spinner::new(Spin::Adaptive, true);
        assert_eq!(spinner.window(true), Duration::ZERO);
        assert_eq!(spinner.window(false), WINDOW_MAX);
        assert_eq!(Spinner::new(Spin::Off, false).window(false), Duration::ZERO);
        assert!(!spinner.may_look(true) && spinner.may_look(false));
        assert!(!Spinner::new(Spin::Off, false).may_look(false));
    }
}
