//! What a shard says of its transactional ids to the admin listener.

use corelane_transaction::{Phase, TransactionStats};

use crate::{Shard, TransactionTotals};

impl Shard {
    /// Everything that the ids of this shard's homes counted.
    pub(crate) fn transactions_status(&self) -> TransactionTotals {
        let mut stats = TransactionStats::default();
        let mut totals = TransactionTotals::default();
        self.transactions.homes.values().for_each(|home| stats.merge(&home.retired));
        for known in self.transactions.homes.values().flat_map(|home| home.ids.values()) {
            totals.ids += 1;
            totals.open += u64::from(matches!(known.coordinator.phase(), Phase::Open { .. }));
            stats.merge(known.coordinator.stats());
        }
        let inquiries = &self.transactions.inquiries;
        let oldest = inquiries.oldest().map(|since| self.now.monotonic.since(since));
        totals.oldest_open_ms = oldest.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        totals.lost = inquiries.lost;
        totals.committed = stats.committed;
        totals.aborted = stats.aborted;
        totals.timed_out = stats.timed_out;
        totals.fenced = stats.fenced;
        totals.refused = stats.refused;
        totals
    }
}
