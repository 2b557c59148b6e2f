//! Durations in fixed memory.

use std::fmt;
use std::time::Duration;

/// Buckets of one power of two.
const STEPS: usize = 4;
/// Powers of two above the linear start, and the start itself.
const BUCKETS: usize = (u64::BITS as usize - 1) * STEPS;

/// Counts durations by powers of two of nanoseconds, each cut into four: a quantile is at most 25 % too high, never too
/// low.
///
/// ```text
/// bucket   0 1 2 3 | 4 5 6 7 | 8   9    10    11 | ...
/// holds    0 1 2 3 | 4 5 6 7 | 8-9 10-11 12-13 14-15 | 16-19 ...   nanoseconds
/// ```
///
/// Takes 2 KiB, boxed, and never grows; recording is a few instructions.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), count: 0, sum: 0, max: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish()
    }
}

fn bucket_of(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return usize::try_from(nanos).expect("a small number");
    }
    let exponent = nanos.ilog2();
    let step = (nanos >> (exponent - 2)) & 3;
    (exponent as usize - 1) * STEPS + usize::try_from(step).expect("a small number")
}

/// Largest value that a bucket holds.
fn last_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let exponent = bucket / STEPS + 1;
    let step = (bucket % STEPS) as u64;
    let width = 1_u64 << (exponent - 2);
    (1_u64 << exponent) + (step * width) + (width - 1)
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanos)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.max = self.max.max(nanos);
    }

    /// Adds what another histogram counted, as a scrape does over shards.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// How many durations were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// All of them added up.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// The largest of them, exactly.
    #[must_use]
    pub const fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Their mean; zero when there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count).unwrap_or(0))
    }

    /// The duration that a share of `quantile` (0 to 1) does not exceed, rounded up to its bucket's end but never above
    /// the maximum; zero when nothing was counted.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within the count; clamped before it is used"
    )]
    pub fn quantile(&self, quantile: f64) -> Duration {
        if self.count == 0 {
            return Duration::ZERO;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if rank <= below {
                return Duration::from_nanos(last_of(bucket).min(self.max));
            }
        }
        self.max()
    }

    /// How many durations were below `1 << exponent` nanoseconds.
    #[must_use]
    pub fn count_below_power(&self, exponent: u32) -> u64 {
        let end = if exponent < 2 { 1 << exponent } else { (exponent as usize - 1) * STEPS };
        self.counts[..end.min(BUCKETS)].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(last_of(bucket)), bucket);
            if last_of(bucket) < u64::MAX {
                assert_eq!(bucket_of(last_of(bucket) + 1), bucket + 1);
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.quantile(0.99), empty.mean()), (0, Duration::ZERO, Duration::ZERO));
    }

    proptest! {
        #[test]
        fn quantiles_are_close_and_never_too_low(mut nanos in prop::collection::vec(0_u64..10_000_000_000, 1..200), q in 0.0_f64..1.0) {
            let mut histogram = Histogram::default();
            nanos.iter().for_each(|&n| histogram.record(Duration::from_nanos(n)));
            nanos.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "test ranks are small")]
            let rank = ((q * nanos.len() as f64).ceil() as usize).clamp(1, nanos.len());
            let exact = nanos[rank - 1];
            let found = u64::try_from(histogram.quantile(q).as_nanos()).unwrap();
            prop_assert!(exact <= found && found <= exact + exact / 4 + 1, "exact {exact}, found {found}");
        }

        #[test]
        fn merging_counts_everything(a in prop::collection::vec(any::<u64>(), 0..50), b in prop::collection::vec(any::<u64>(), 0..50)) {
            let fill = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|&n| histogram.record(Duration::from_nanos(n)));
                histogram
            };
            let mut merged = fill(&a);
            merged.merge(&fill(&b));
            let both: Vec<u64> = a.iter().chain(&b).copied().collect();
            prop_assert_eq!(merged, fill(&both));
        }

        #[test]
        fn counts_below_a_power_are_exact(values in prop::collection::vec(any::<u64>(), 0..50), exponent in 0_u32..64) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|&n| histogram.record(Duration::from_nanos(n)));
            let exact = values.iter().filter(|&&n| n < 1 << exponent).count() as u64;
            prop_assert_eq!(histogram.count_below_power(exponent), exact);
        }
    }
}
