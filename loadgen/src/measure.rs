//! Latencies, recorded by each worker on its own and merged at the end.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart; longer ones count as this.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// A histogram of durations in nanoseconds with three significant digits.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    histogram: Histogram<u64>,
}

/// Percentiles in microseconds. One that would rest on fewer than ten samples beyond it is `null`, the maximum excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many samples there are.
    pub samples: u64,
    /// Half are faster.
    pub p50: Option<f64>,
    /// Nine of ten are faster.
    pub p90: Option<f64>,
    /// 99 of a hundred are faster.
    pub p99: Option<f64>,
    /// 999 of a thousand are faster.
    pub p999: Option<f64>,
    /// 9,999 of ten thousand are faster.
    pub p9999: Option<f64>,
    /// The slowest of all.
    pub max: Option<f64>,
}

/// Samples that must lie beyond a percentile before it is worth printing.
const TAIL_SAMPLES_MIN: f64 = 10.0;

impl Default for Latency {
    fn default() -> Self {
        let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("ten minutes fit into 64 bits of nanoseconds");
        Self { histogram: Histogram::new_with_max(max, 3).expect("the bounds are valid") }
    }
}

impl Latency {
    /// Counts one duration.
    pub fn record(&mut self, latency: Duration) {
        self.record_nanos(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts one duration in nanoseconds.
    pub fn record_nanos(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos.max(1));
    }

    /// Counts the same duration in nanoseconds so many times: for things that happen together.
    pub fn record_nanos_of(&mut self, nanos: u64, count: u64) {
        self.histogram.saturating_record_n(nanos.max(1), count);
    }

    /// Adds another worker's samples.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("both histograms have the same bounds");
    }

    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.histogram.len()
    }

    /// The percentiles in microseconds.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let samples = self.histogram.len();
        let at = |quantile: f64| {
            #[expect(clippy::cast_precision_loss, reason = "sample counts are far below 2^52")]
            let beyond = samples as f64 * (1.0 - quantile);
            (TAIL_SAMPLES_MIN <= beyond + 1e-6).then(|| micros(self.histogram.value_at_quantile(quantile)))
        };
        Percentiles {
            samples,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: (0 < samples).then(|| micros(self.histogram.max())),
        }
    }
}

/// Microseconds with a decimal.
fn micros(nanos: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "the histogram keeps three digits, a float sixteen")]
    let micros = (nanos as f64 / 100.0).round() / 10.0;
    micros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_need_samples_beyond_them() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles().max, None);
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        let shown = latency.percentiles();
        assert_eq!(shown.samples, 1000);
        assert!((499.0..=502.0).contains(&shown.p50.unwrap()));
        assert!((989.0..=992.0).contains(&shown.p99.unwrap()));
        assert_eq!(shown.p999, None);
        assert!(shown.max.is_some());
    }

    #[test]
    fn merging_adds_samples() {
        let (mut a, mut b) = (Latency::default(), Latency::default());
        a.record(Duration::from_micros(5));
        b.record(Duration::from_hours(1));
        a.merge(&b);
        assert_eq!(a.samples(), 2);
        assert!((599_000_000.0..=601_000_000.0).contains(&a.percentiles().max.unwrap()));
    }
}
