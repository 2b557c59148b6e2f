//! What a run with a shared queue came to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Floors, Latencies, Member};
use crate::disk::Disk;
use crate::measure::Percentiles;
use crate::slice::SliceCounts;

/// A run with a shared queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Which workload.
    pub scenario: String,
    /// Whether messages were sent as fast as they were done, instead of when they were due; then latencies count from when
    /// a message was sent, and grow with the number that is under way.
    pub is_closed: bool,
    /// Whether the figures must not be believed, because the generator itself was late.
    pub void: bool,
    /// Why.
    pub void_reason: Option<String>,
    /// Who got the next record.
    pub dispatch: String,
    /// Whether records of one key were handed out one after the other.
    pub order_per_key: bool,
    /// Of a hundred deliveries so many were negatively acknowledged.
    pub failing_percent: f64,
    /// Messages in the plan; in a closed run those that were handed to the producer.
    pub planned: u64,
    /// Messages handed to the producer.
    pub sent: u64,
    /// Messages that the broker acknowledged as received.
    pub received: u64,
    /// Messages that the broker acknowledged as stored.
    pub stored: u64,
    /// Messages that members had, each counted once.
    pub consumed: u64,
    /// Deliveries to members.
    pub handed_out: u64,
    /// Messages whose acknowledgement was answered as durable.
    pub acknowledged: u64,
    /// Messages that were found in the topic of dead letters.
    pub dead_letters: u64,
    /// Of these, messages that had not failed as often as the delivery limit says.
    pub dead_early: u64,
    /// Deliveries that were negatively acknowledged.
    pub nacked: u64,
    /// Deliveries of messages that had failed before.
    pub redelivered: u64,
    /// Messages that were neither acknowledged nor are dead letters.
    pub lost: u64,
    /// Deliveries and dead letters of messages that were done.
    pub duplicated: u64,
    /// Deliveries of messages of a key before the one before them was done, where order was asked for.
    pub reordered: u64,
    /// Records whose content was wrong, or that nobody sent.
    pub corrupt: u64,
    /// Words about records that the queue refused.
    pub refused: u64,
    /// Sends that failed.
    pub failed: u64,
    /// Errors that members met.
    pub errors: u64,
    /// The first of them, or of the sends.
    pub first_error: Option<String>,
    /// From the first due time until the last message was done.
    pub seconds: f64,
    /// Messages done a second.
    pub rate_per_s: f64,
    /// What it would be if nothing held anybody back; `null` in a closed run.
    pub ideal_per_s: Option<f64>,
    /// How late the generator itself was.
    pub lateness_us: Percentiles,
    /// The run's slices; latencies are of those that count.
    pub slices: SliceCounts,
    /// Processor time that the machine's host took from all cores while messages were sent; `null` where nobody counts it.
    pub stolen_ms: Option<f64>,
    /// Latencies; consumed is when a member had a message for the first time. Nobody asks what became of a single send.
    pub latency_us: Latencies,
    /// From when a record was acknowledged until its member heard that this is durable.
    pub acknowledged_us: Percentiles,
    /// The members; `consumed` is what was handed out to each.
    pub members: Vec<Member>,
    /// The disk under the broker, when it is on this machine.
    pub disk: Option<Disk>,
    /// What the machine could do, where it was measured.
    pub floors: Option<Floors>,
}

impl QueueReport {
    /// Whether every message was done once, and in order where that was asked for.
    #[must_use]
    pub const fn is_right(&self) -> bool {
        let is_whole = self.lost == 0 && self.corrupt == 0 && self.failed == 0 && self.dead_early == 0;
        is_whole && self.duplicated == 0 && self.reordered == 0 && self.refused == 0 && self.errors == 0
    }

    /// Why the run is to be repeated: it is void. One that is not right is told, whatever else it is.
    #[must_use]
    pub fn why_again(&self) -> Option<&str> {
        self.void_reason.as_deref().filter(|_| self.is_right())
    }

    /// The spread of the members' rates: fastest over slowest, less one.
    #[must_use]
    pub fn imbalance(&self) -> Option<f64> {
        super::imbalance(&self.members)
    }
}

impl fmt::Display for QueueReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.order_per_key { ", in order per key" } else { "" };
        writeln!(f, "{}  ({} members, {}{order})", self.scenario, self.members.len(), self.dispatch)?;
        if let Some(why) = &self.void_reason {
            writeln!(f, "  VOID        {why}")?;
        }
        writeln!(
            f,
            "  messages    sent {}  acknowledged {}  dead letters {}  lost {}",
            self.sent, self.acknowledged, self.dead_letters, self.lost
        )?;
        writeln!(
            f,
            "  deliveries  {}  failed {}  again {}  acknowledgements refused {}",
            self.handed_out, self.nacked, self.redelivered, self.refused
        )?;
        let verdict = if self.is_right() { "every message done once" } else { "NOT RIGHT" };
        writeln!(
            f,
            "  verdict     {verdict}: duplicated {}  reordered {}  corrupt {}  dead early {}  sends failed {}",
            self.duplicated, self.reordered, self.corrupt, self.dead_early, self.failed
        )?;
        if let Some(error) = &self.first_error {
            writeln!(f, "  errors      {} of members; the first: {error}", self.errors)?;
        }
        match self.ideal_per_s {
            Some(ideal) => writeln!(
                f,
                "  rate        {:.0} of {ideal:.0} messages a second ({:.1} % of ideal) in {:.1} s",
                self.rate_per_s,
                100.0 * self.rate_per_s / ideal.max(1e-9),
                self.seconds
            ),
            None => writeln!(
                f,
                "  rate        {:.0} messages a second in {:.1} s, sent as fast as they were done",
                self.rate_per_s, self.seconds
            ),
        }?;
        if let Some(imbalance) = self.imbalance() {
            writeln!(f, "  balance     the busiest member had {:.1} % more than the idlest", 100.0 * imbalance)?;
        }
        super::write_head(f)?;
        super::write_row(f, "handed out", &self.latency_us.consumed)?;
        super::write_row(f, "acknowledged", &self.acknowledged_us)?;
        super::write_row(f, "lateness", &self.lateness_us)?;
        super::write_slices(f, self.slices)?;
        super::write_conditions(f, self.stolen_ms, self.disk.as_ref(), self.floors.as_ref())
    }
}
