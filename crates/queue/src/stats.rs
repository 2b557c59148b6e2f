//! Counters of one queue, since it was made or restored.

/// Plain counters; whoever scrapes copies and sums them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Members that joined.
    pub joins: u64,
    /// Members that left.
    pub leaves: u64,
    /// Members whose session expired.
    pub sessions_expired: u64,
    /// Records read.
    pub read_records: u64,
    /// Of these, records whose delivery time is farther off than a queue waits.
    pub far_delivery_times: u64,
    /// Leases given.
    pub delivered_records: u64,
    /// Of these, leases of records that had been delivered before.
    pub redelivered_records: u64,
    /// Records acknowledged.
    pub acknowledged_records: u64,
    /// Records that members failed.
    pub rejected_records: u64,
    /// Leases that the visibility time-out ended.
    pub expired_leases: u64,
    /// Leases of members that were put out.
    pub orphaned_leases: u64,
    /// Leases whose records could not be sent to their members.
    pub unsent_leases: u64,
    /// Leases that were prolonged.
    pub extended_leases: u64,
    /// Leases of a request that the member did not have.
    pub refused_leases: u64,
    /// Records that are dead letters now, durable in their topic.
    pub dead_letters: u64,
    /// Dead letters that could not be appended and are tried again.
    pub dead_letter_retries: u64,
    /// Dead letters put back.
    pub redriven_records: u64,
    /// Records that were gone or unreadable before they were done.
    pub skipped_records: u64,
    /// Batches that came although the window had no room, and are read again.
    pub dropped_batches: u64,
    /// Records appended to the home partition.
    pub appended_records: u64,
    /// Bytes of their keys and values.
    pub appended_bytes: u64,
}

impl QueueStats {
    /// Adds what another queue counted.
    pub const fn merge(&mut self, other: &Self) {
        self.joins += other.joins;
        self.leaves += other.leaves;
        self.sessions_expired += other.sessions_expired;
        self.read_records += other.read_records;
        self.far_delivery_times += other.far_delivery_times;
        self.delivered_records += other.delivered_records;
        self.redelivered_records += other.redelivered_records;
        self.acknowledged_records += other.acknowledged_records;
        self.rejected_records += other.rejected_records;
        self.expired_leases += other.expired_leases;
        self.orphaned_leases += other.orphaned_leases;
        self.unsent_leases += other.unsent_leases;
        self.extended_leases += other.extended_leases;
        self.refused_leases += other.refused_leases;
        self.dead_letters += other.dead_letters;
        self.dead_letter_retries += other.dead_letter_retries;
        self.redriven_records += other.redriven_records;
        self.skipped_records += other.skipped_records;
        self.dropped_batches += other.dropped_batches;
        self.appended_records += other.appended_records;
        self.appended_bytes += other.appended_bytes;
    }
}
