//! Counters of one transactional id, since it was made or restored.

/// Plain counters; whoever scrapes copies and sums them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionStats {
    /// Initialisations that were answered.
    pub initialised: u64,
    /// Transactions that were committed, empty ones not counted.
    pub committed: u64,
    /// Transactions that were aborted, for whatever reason.
    pub aborted: u64,
    /// Those of them that ran out of time.
    pub timed_out: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Records appended to the home partition.
    pub appended_records: u64,
    /// Bytes of their keys and values.
    pub appended_bytes: u64,
}
