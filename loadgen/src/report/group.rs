//! What a run with a consumer group came to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Floors, Latencies, Member};
use crate::disk::Disk;
use crate::measure::Percentiles;
use crate::slice::SliceCounts;

/// How long partitions brought nothing although something was due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// How many partitions these are.
    pub partitions: u32,
    /// The longest of all, in microseconds; `null` without partitions.
    pub longest_us: Option<f64>,
}

/// One partition of the group's topic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionSilence {
    /// Its number.
    pub partition: u32,
    /// Whether it had another owner after the disturbance began than before.
    pub is_moved: bool,
    /// The longest time that it brought nothing although something was due, in microseconds.
    pub longest_us: f64,
}

/// A run with a consumer group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Which workload.
    pub scenario: String,
    /// Whether the figures must not be believed, because the generator itself was late.
    pub void: bool,
    /// Why.
    pub void_reason: Option<String>,
    /// Messages in the plan.
    pub planned: u64,
    /// Messages handed to the producer.
    pub sent: u64,
    /// Messages that the broker acknowledged as received.
    pub received: u64,
    /// Messages that the broker acknowledged as stored.
    pub stored: u64,
    /// Messages that members saw, each counted once.
    pub consumed: u64,
    /// Messages that never came.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that came for the first time after a later one of their partition.
    pub reordered: u64,
    /// Messages whose content was wrong.
    pub corrupt: u64,
    /// Sends that failed.
    pub failed: u64,
    /// Members that were stopped and started, or killed.
    pub disturbed: u32,
    /// Errors that members met.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// How long the partitions were silent that had another owner after the disturbance began than before.
    pub moved: Silence,
    /// How long all others were silent.
    pub unmoved: Silence,
    /// Every partition by itself.
    pub partitions: Vec<PartitionSilence>,
    /// The members' session time-out in milliseconds: what a death costs at least.
    pub session_timeout_ms: u64,
    /// From the first due time to the last message consumed.
    pub seconds: f64,
    /// Messages consumed a second.
    pub rate_per_s: f64,
    /// What it would be if nothing held anybody back: N × M.
    pub ideal_per_s: f64,
    /// How late the generator itself was.
    pub lateness_us: Percentiles,
    /// The run's slices; latencies are of those that count.
    pub slices: SliceCounts,
    /// Processor time that the machine's host took from all cores while messages were sent; `null` where nobody counts it.
    pub stolen_ms: Option<f64>,
    /// Latencies; consumed is when a member had a message.
    pub latency_us: Latencies,
    /// The members.
    pub members: Vec<Member>,
    /// The disk under the broker, when it is on this machine.
    pub disk: Option<Disk>,
    /// What the machine could do, where it was measured.
    pub floors: Option<Floors>,
}

impl GroupReport {
    /// Whether every message came, in order and unchanged; and once, unless a member was killed.
    #[must_use]
    pub const fn is_right(&self, may_repeat: bool) -> bool {
        let is_whole = self.lost == 0 && self.reordered == 0 && self.corrupt == 0 && self.failed == 0;
        is_whole && self.errors == 0 && (may_repeat || self.duplicated == 0)
    }

    /// Why the run is to be repeated: it is void. One that is not right is told, whatever else it is.
    #[must_use]
    pub fn why_again(&self, may_repeat: bool) -> Option<&str> {
        self.void_reason.as_deref().filter(|_| self.is_right(may_repeat))
    }

    /// The spread of the members' rates: fastest over slowest, less one.
    #[must_use]
    pub fn imbalance(&self) -> Option<f64> {
        super::imbalance(&self.members)
    }
}

impl fmt::Display for GroupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.scenario)?;
        if let Some(why) = &self.void_reason {
            writeln!(f, "  VOID        {why}")?;
        }
        writeln!(
            f,
            "  messages    sent {}  stored {}  consumed {}  lost {}  duplicated {}  reordered {}  corrupt {}  failed {}",
            self.sent,
            self.stored,
            self.consumed,
            self.lost,
            self.duplicated,
            self.reordered,
            self.corrupt,
            self.failed
        )?;
        if let Some(error) = &self.first_error {
            writeln!(f, "  errors      {} of members; the first: {error}", self.errors)?;
        }
        writeln!(
            f,
            "  rate        {:.0} of {:.0} messages a second ({:.1} % of ideal) in {:.1} s",
            self.rate_per_s,
            self.ideal_per_s,
            100.0 * self.rate_per_s / self.ideal_per_s.max(1e-9),
            self.seconds
        )?;
        if let Some(imbalance) = self.imbalance().filter(|_| self.disturbed == 0) {
            writeln!(f, "  balance     fastest member {:.1} % ahead of the slowest", 100.0 * imbalance)?;
        }
        if 0 < self.disturbed {
            writeln!(f, "  disturbed   {} members, session time-out {} ms", self.disturbed, self.session_timeout_ms)?;
        }
        for (name, silence) in [("moved", &self.moved), ("not moved", &self.unmoved)] {
            if let Some(longest) = silence.longest_us {
                let partitions = silence.partitions;
                writeln!(f, "  silence     {:>9.1} ms at most, {partitions} partitions {name}", longest / 1000.0)?;
            }
        }
        super::write_latencies(f, &self.latency_us)?;
        super::write_row(f, "lateness", &self.lateness_us)?;
        super::write_slices(f, self.slices)?;
        super::write_conditions(f, self.stolen_ms, self.disk.as_ref(), self.floors.as_ref())
    }
}
