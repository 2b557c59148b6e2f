//! Counters of one partition's log, since it was opened.

/// Plain counters; whoever scrapes copies and sums them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches appended.
    pub appended_batches: u64,
    /// Records appended.
    pub appended_records: u64,
    /// Bytes of batches appended, heads included.
    pub appended_bytes: u64,
    /// Batches recognised as duplicates and not appended.
    pub duplicate_batches: u64,
    /// Batches refused by the producer's epoch or sequence.
    pub refused_batches: u64,
    /// Transactions that had batches here and were committed.
    pub committed_transactions: u64,
    /// Transactions that had batches here and were aborted.
    pub aborted_transactions: u64,
    /// Bytes of batches that went into segments.
    pub settled_bytes: u64,
    /// Records given up by retention and truncation.
    pub dropped_records: u64,
}
