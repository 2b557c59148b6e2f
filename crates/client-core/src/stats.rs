//! Counters of a client.

/// What a client has done so far; plain numbers that only grow, but for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Records taken by `send`.
    pub records_sent: u64,
    /// Records delivered as their producer asked.
    pub records_delivered: u64,
    /// Records not delivered.
    pub records_failed: u64,
    /// Of those, the ones that nobody held a ticket for.
    pub detached_failed: u64,
    /// Produce frames, the repeated ones included.
    pub batches_sent: u64,
    /// Produce frames that repeated an earlier one.
    pub batches_repeated: u64,
    /// Record batches that came for subscriptions.
    pub batches_pushed: u64,
    /// Bytes of those.
    pub bytes_pushed: u64,
    /// Frames with commits of consumer groups, the repeated ones included.
    pub commits_sent: u64,
    /// Frames with acknowledgements of shared queues and the like, the repeated ones included.
    pub verdicts_sent: u64,
    /// Connections that became ready.
    pub connections_ready: u64,
    /// Connections that were lost after that.
    pub connections_lost: u64,
    /// Restarts of the broker that were noticed.
    pub incarnations: u64,
    /// Gauge: bytes in the send buffer.
    pub buffer_bytes: u64,
    /// Gauge: records in the send buffer.
    pub buffer_records: u64,
}
