//! What a run came to: for people as text, for programs as JSON (docs/report.md).

pub mod group;
pub mod queue;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::measure::{Latency, Percentiles};
use crate::slice::SliceCounts;
use crate::verify::Verdict;

/// Latencies of a run from the due time of each message, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Until the producer was told that the partition's owner has it.
    pub received: Percentiles,
    /// Until the producer was told that it is on disk.
    pub stored: Percentiles,
    /// Until a reader had it.
    pub consumed: Percentiles,
}

/// The word for reading when everything has its last word.
pub const AFTERWARDS: &str = "afterwards";
/// The word for reading while messages are sent.
pub const LIVE: &str = "live";

/// One reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Messages that it took.
    pub consumed: u64,
    /// Messages a second, from the first message of the run to its last.
    pub rate_per_s: f64,
    /// What it was limited to.
    pub rate_max: Option<u32>,
}

/// What the percentiles of a run are taken from, for who joins several runs to one figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Until messages were stored.
    pub stored: Latency,
    /// Until readers had them.
    pub consumed: Latency,
}

/// What the machine could do, measured in the same run and placement, in the unit that the name says.
pub type Floors = std::collections::BTreeMap<String, f64>;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which workload.
    pub scenario: String,
    /// Whether the figures must not be believed, because the generator itself was late in most slices of the run.
    pub void: bool,
    /// Why.
    pub void_reason: Option<String>,
    /// Messages in the plan.
    pub planned: u64,
    /// Messages handed to the producer.
    pub sent: u64,
    /// Messages that the broker acknowledged as stored (of a memory topic: as received).
    pub stored: u64,
    /// Messages that the broker acknowledged as received.
    pub received: u64,
    /// Messages that readers saw, over all readers.
    pub consumed: u64,
    /// Messages that readers should have seen.
    pub consumed_planned: u64,
    /// Messages that never came.
    pub lost: u64,
    /// Messages that came twice.
    pub duplicated: u64,
    /// Messages that came after a later one of their key.
    pub reordered: u64,
    /// Messages whose content was wrong.
    pub corrupt: u64,
    /// Sends that failed, with the first reason.
    pub failed: u64,
    /// The first reason for which a send failed.
    pub first_failure: Option<String>,
    /// From the first due time to the last message consumed; to the last one stored when reading comes afterwards.
    pub seconds: f64,
    /// Messages consumed a second, over all readers.
    pub rate_per_s: f64,
    /// What it would be if nothing held anybody back.
    pub ideal_per_s: f64,
    /// The run's slices; latencies are of those that count.
    pub slices: SliceCounts,
    /// How late the generator itself was, in all slices.
    pub lateness_us: Percentiles,
    /// Processor time that the machine's host took from all cores while messages were sent; `null` where nobody counts it.
    pub stolen_ms: Option<f64>,
    /// Latencies.
    pub latency_us: Latencies,
    /// The readers.
    pub members: Vec<Member>,
    /// The disk under the broker, when it is on this machine.
    pub disk: Option<Disk>,
    /// What the machine could do, where it was measured.
    pub floors: Option<Floors>,
    /// Whether p99 and p99.9 of send to consumed kept the scenario's budget, and the budget in microseconds.
    pub budget: Option<Budget>,
    /// The class of the topics.
    pub class: String,
    /// Whether readers read `live`, or `afterwards`, when everything was stored; then there is no latency until consumed.
    pub reading: String,
    /// Syncs of the broker's journals from the first message to the last word, where the broker's admin listener is known.
    pub journal_syncs: Option<u64>,
    /// Not in the JSON.
    #[serde(skip)]
    pub samples: Samples,
}

/// A scenario's budget for send to consumed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// For p99, in microseconds.
    pub p99_us: f64,
    /// For p99.9, in microseconds.
    pub p999_us: f64,
    /// Whether both were kept; `null` where samples are too few.
    pub is_kept: Option<bool>,
}

impl Budget {
    /// Holds measured latencies against the budget.
    #[must_use]
    pub fn judge(p99_us: f64, p999_us: f64, consumed: &Percentiles) -> Self {
        let is_kept = consumed.p99.zip(consumed.p999).map(|(p99, p999)| p99 <= p99_us && p999 <= p999_us);
        Self { p99_us, p999_us, is_kept }
    }
}

impl Report {
    /// Takes over what the readers found.
    pub const fn set_verdict(&mut self, verdict: &Verdict) {
        self.consumed = verdict.consumed;
        self.lost = verdict.lost;
        self.duplicated = verdict.duplicated;
        self.reordered = verdict.reordered;
        self.corrupt = verdict.corrupt;
    }

    /// Whether every message was sent, came once, in order and unchanged. A void run can still be right.
    #[must_use]
    pub const fn is_right(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.corrupt == 0 && self.failed == 0
    }

    /// Why the run is to be repeated: it is void. One that is not right is told, whatever else it is.
    #[must_use]
    pub fn why_again(&self) -> Option<&str> {
        self.void_reason.as_deref().filter(|_| self.is_right())
    }

    /// The spread of the members' rates: fastest over slowest, less one.
    #[must_use]
    pub fn imbalance(&self) -> Option<f64> {
        imbalance(&self.members)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  ({} topics)", self.scenario, self.class)?;
        if let Some(why) = &self.void_reason {
            writeln!(f, "  VOID        {why}")?;
        }
        writeln!(
            f,
            "  messages    planned {}  sent {}  received {}  stored {}  consumed {} of {}",
            self.planned, self.sent, self.received, self.stored, self.consumed, self.consumed_planned
        )?;
        let verdict = if self.is_right() { "every message once, in order, unchanged" } else { "NOT RIGHT" };
        writeln!(
            f,
            "  verdict     {verdict}: lost {}  duplicated {}  reordered {}  corrupt {}  failed {}",
            self.lost, self.duplicated, self.reordered, self.corrupt, self.failed
        )?;
        if let Some(reason) = &self.first_failure {
            writeln!(f, "              first failure: {reason}")?;
        }
        writeln!(
            f,
            "  rate        {:.0} of {:.0} messages a second ({:.1} % of ideal) in {:.1} s",
            self.rate_per_s,
            self.ideal_per_s,
            100.0 * self.rate_per_s / self.ideal_per_s.max(1e-9),
            self.seconds
        )?;
        if self.reading == AFTERWARDS {
            writeln!(f, "  reading     afterwards, when all were stored, so that no reader took the producer's core")?;
        }
        if let Some(syncs) = self.journal_syncs {
            writeln!(f, "  syncs       {syncs} of the journal from the first message to the last word")?;
        }
        if let Some(imbalance) = self.imbalance() {
            writeln!(f, "  balance     fastest member {:.1} % ahead of the slowest", 100.0 * imbalance)?;
        }
        write_latencies(f, &self.latency_us)?;
        write_row(f, "lateness", &self.lateness_us)?;
        if let Some(budget) = &self.budget {
            let kept = match budget.is_kept {
                Some(true) => "kept",
                Some(false) => "MISSED",
                None => "too few samples",
            };
            writeln!(f, "  budget      p99 {:.0} µs, p99.9 {:.0} µs: {kept}", budget.p99_us, budget.p999_us)?;
        }
        write_slices(f, self.slices)?;
        write_conditions(f, self.stolen_ms, self.disk.as_ref(), self.floors.as_ref())
    }
}

/// How much of the run counts.
fn write_slices(f: &mut fmt::Formatter<'_>, slices: SliceCounts) -> fmt::Result {
    let SliceCounts { slice_ms, total, void } = slices;
    if void == 0 {
        return Ok(());
    }
    writeln!(f, "  slices      {void} of {total} of {slice_ms} ms do not count: the generator was late in them")
}

/// The spread of members' rates: fastest over slowest, less one.
fn imbalance(members: &[Member]) -> Option<f64> {
    let rates = || members.iter().map(|member| member.rate_per_s);
    let slowest = rates().fold(f64::INFINITY, f64::min);
    (1 < members.len() && 0.0 < slowest).then(|| rates().fold(0.0, f64::max) / slowest - 1.0)
}

fn write_head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "  latency µs  {:>12} {:>9} {:>9} {:>9} {:>9} {:>9}", "p50", "p90", "p99", "p99.9", "p99.99", "max")
}

fn write_row(f: &mut fmt::Formatter<'_>, name: &str, row: &Percentiles) -> fmt::Result {
    if row.samples == 0 {
        return Ok(());
    }
    write!(f, "    {name:<12}  {:>10}", cell(row.p50))?;
    for value in [row.p90, row.p99, row.p999, row.p9999, row.max] {
        write!(f, " {:>9}", cell(value))?;
    }
    writeln!(f)
}

/// The head of the table of latencies, and those of messages.
fn write_latencies(f: &mut fmt::Formatter<'_>, latencies: &Latencies) -> fmt::Result {
    write_head(f)?;
    write_row(f, "received", &latencies.received)?;
    write_row(f, "stored", &latencies.stored)?;
    write_row(f, "consumed", &latencies.consumed)
}

/// Under what conditions a run was made, as far as they are known.
fn write_conditions(
    f: &mut fmt::Formatter<'_>,
    stolen_ms: Option<f64>,
    disk: Option<&Disk>,
    floors: Option<&Floors>,
) -> fmt::Result {
    if let Some(stolen) = stolen_ms.filter(|stolen| 0.0 < *stolen) {
        writeln!(f, "  stolen      {stolen:.0} ms of the cores' time, taken by the machine's host")?;
    }
    for (name, floor) in floors.into_iter().flatten() {
        writeln!(f, "  floor       {name} {floor:.1}")?;
    }
    disk.map_or(Ok(()), |disk| writeln!(f, "  disk        {disk}"))
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}
