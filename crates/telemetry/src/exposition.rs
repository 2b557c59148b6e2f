//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use crate::{Histogram, Metric, MetricKind};

/// Powers of two of nanoseconds that a histogram is exposed at: 4 µs to 34 s.
const EXPOSED_POWERS: std::ops::RangeInclusive<u32> = 12..=35;

/// Writes metrics as text (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
///
/// Every metric is begun once, with its help and type, and then all its samples follow.
///
/// ```text
/// # HELP corelane_shard_connections Connections that are open.
/// # TYPE corelane_shard_connections gauge
/// corelane_shard_connections{shard="0"} 12
/// ```
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    current: Option<&'static Metric>,
}

impl Exposition {
    /// Begins a metric: its help and its type. The samples that follow belong to it.
    pub fn begin(&mut self, metric: &'static Metric) {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let Metric { name, help, .. } = metric;
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a string");
        self.current = Some(metric);
    }

    /// One sample of the metric that was begun. Panics if none was, or if it is a histogram.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let metric = self.current.expect("a sample follows its metric");
        assert!(metric.kind != MetricKind::Histogram, "{} is a histogram", metric.name);
        self.line(metric.name, labels, None, &value.to_string());
    }

    /// One histogram of the metric that was begun. Panics if none was, or if it is of another kind.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let metric = self.current.expect("a sample follows its metric");
        assert!(metric.kind == MetricKind::Histogram, "{} is no histogram", metric.name);
        let bucket = format!("{}_bucket", metric.name);
        for power in EXPOSED_POWERS {
            let edge = seconds(1 << power);
            self.line(&bucket, labels, Some(&edge), &histogram.count_below_power(power).to_string());
        }
        self.line(&bucket, labels, Some("+Inf"), &histogram.count().to_string());
        let sum = seconds(u64::try_from(histogram.sum().as_nanos()).unwrap_or(u64::MAX));
        self.line(&format!("{}_sum", metric.name), labels, None, &sum);
        self.line(&format!("{}_count", metric.name), labels, None, &histogram.count().to_string());
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], edge: Option<&str>, value: &str) {
        self.text.push_str(name);
        let pairs = labels.iter().copied().chain(edge.map(|edge| ("le", edge)));
        let mut opening = '{';
        for (label, text) in pairs {
            self.text.push(opening);
            opening = ',';
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if opening == ',' {
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect("writing to a string");
    }
}

/// Nanoseconds as decimal seconds, exactly.
fn seconds(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metric::{SHARD_CONNECTIONS, SHARD_STORED_SECONDS};

    #[test]
    fn a_gauge_has_help_type_and_escaped_labels() {
        let mut exposition = Exposition::default();
        exposition.begin(&SHARD_CONNECTIONS);
        exposition.sample(&[("shard", "0")], 12);
        exposition.sample(&[("shard", "a\"b\\c\n")], 1);
        exposition.sample(&[], 3);
        assert_eq!(
            exposition.finish(),
            "# HELP corelane_shard_connections Connections that are open.\n\
             # TYPE corelane_shard_connections gauge\n\
             corelane_shard_connections{shard=\"0\"} 12\n\
             corelane_shard_connections{shard=\"a\\\"b\\\\c\\n\"} 1\n\
             corelane_shard_connections 3\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative_in_seconds() {
        let mut histogram = Histogram::default();
        [3_000, 5_000, 2_000_000_000].into_iter().for_each(|n| histogram.record(Duration::from_nanos(n)));
        let mut exposition = Exposition::default();
        exposition.begin(&SHARD_STORED_SECONDS);
        exposition.histogram(&[("shard", "1")], &histogram);
        let text = exposition.finish();
        assert!(text.contains("_bucket{shard=\"1\",le=\"0.000004096\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{shard=\"1\",le=\"0.000008192\"} 2\n"), "{text}");
        assert!(text.contains("_bucket{shard=\"1\",le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("_sum{shard=\"1\"} 2.000008\n"), "{text}");
        assert!(text.contains("_count{shard=\"1\"} 3\n"), "{text}");
    }
}
