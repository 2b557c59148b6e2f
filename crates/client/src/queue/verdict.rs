//! What a member says of its leases, and what became of it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use corelane_client_core::{QueueNews, Verdict, VerdictError, VerdictKey};
use corelane_wire::LeaseRange;

use super::Leases;
use crate::settlement::Settlement;

/// What the tickets of one membership share. Failures are about some leases; none stands for all.
pub(crate) type VerdictCell = Settlement<Vec<LeaseRange>, VerdictError>;

impl VerdictCell {
    pub(crate) fn on_news(&self, news: QueueNews) {
        match news {
            QueueNews::Settled { below } => self.on_settled(below.0),
            QueueNews::Refused { verdicts, leases, error } => {
                self.on_failed(leases, verdicts.start().0..=verdicts.end().0, error);
            }
            _ => {}
        }
    }
}

/// How a record failed; for [`crate::QueueConsumer::nack`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "nothing is said before it is handed to `nack`"]
pub struct Nack {
    delay: Option<Duration>,
    is_dead: bool,
    reason: String,
}

impl Nack {
    /// It failed, for a reason that a dead letter will name; at most 256 bytes of it are kept. The record rests as long as
    /// the queue's back-off says.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// It rests so long instead, in whole milliseconds; zero hands it out again at once.
    pub const fn after(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// It becomes a dead letter at once, however often it was delivered.
    pub const fn dead(mut self) -> Self {
        self.is_dead = true;
        self
    }

    pub(super) fn into_verdict(self) -> Verdict {
        let Self { delay, is_dead, reason } = self;
        Verdict::Nack { delay, is_dead, reason }
    }
}

/// Tells what became of what was said of leases. It may be dropped at any time; it is carried out all the same.
#[derive(Clone, Debug)]
pub struct VerdictTicket {
    cell: Arc<VerdictCell>,
    key: VerdictKey,
    leases: Leases,
}

impl VerdictTicket {
    pub(super) const fn new(cell: Arc<VerdictCell>, key: VerdictKey, leases: Leases) -> Self {
        Self { cell, key, leases }
    }

    fn is_about(&self, failed: &[LeaseRange]) -> bool {
        let overlaps = |a: &LeaseRange, b: &LeaseRange| {
            a.partition == b.partition
                && a.first < b.first + u64::from(b.count)
                && b.first < a.first + u64::from(a.count)
        };
        failed.is_empty() || failed.iter().any(|a| self.leases.ranges().iter().any(|b| overlaps(a, b)))
    }

    /// Waits until it is carried out: for an acknowledgement, until it is on disk.
    ///
    /// # Errors
    /// Nothing came of it, for at least one of the leases; see [`VerdictError`].
    pub async fn durable(&self) -> Result<(), VerdictError> {
        poll_fn(|context| self.cell.poll(context, self.key.0, |failed| self.is_about(failed))).await
    }

    /// What [`Self::durable`] would give, if it is known already.
    #[must_use]
    pub fn try_durable(&self) -> Option<Result<(), VerdictError>> {
        self.cell.try_read(self.key.0, |failed| self.is_about(failed))
    }
}
