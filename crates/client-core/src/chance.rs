//! Jitter from a seed that is handed in.

use std::time::Duration;

/// A sequence of numbers that depends on nothing but its seed (splitmix64, Steele et al. 2014).
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 128 bits.
    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// The pause before attempt `attempts` (from 0): `min` doubled each time up to `max`, of which between a half and
    /// the whole, so that clients that lost their broker together do not come back together.
    pub(crate) fn backoff(&mut self, attempts: u32, min: Duration, max: Duration) -> Duration {
        let ceiling = min.saturating_mul(1 << attempts.min(20)).min(max);
        let half = ceiling / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(self.next() % span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_ceiling_and_stays_above_half() {
        let mut chance = Chance::new(7);
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(1));
        for attempts in 0..40 {
            let ceiling = min.saturating_mul(1 << attempts.min(20)).min(max);
            let pause = chance.backoff(attempts, min, max);
            assert!(ceiling / 2 <= pause && pause <= ceiling, "attempt {attempts}: {pause:?}");
        }
    }

    #[test]
    fn a_seed_replays() {
        let (mut a, mut b) = (Chance::new(3), Chance::new(3));
        assert!((0..100).all(|_| a.next() == b.next()));
    }
}
