//! Counters, histograms, one list of metrics, and their text exposition.
//!
//! Machines keep plain `u64` fields in their `stats.rs`; a scrape copies them and adds them up outside of the shards.
//! This crate holds what is common to that: the [`Histogram`] that a machine can afford on its hot path, the one list
//! [`METRICS`] of everything that is exposed, and [`Exposition`], which writes Prometheus' text format.
//!
//! It knows no machine, reads no clock and does no I/O.

mod exposition;
mod histogram;
pub mod metric;

pub use exposition::Exposition;
pub use histogram::Histogram;
pub use metric::{METRICS, Metric, MetricKind};
