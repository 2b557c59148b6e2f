//! Counters of one transactional id, since it was made or restored.

use crate::TransactionError;

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
    /// Of these, those of a client whose id another one has.
    pub fenced: u64,
    /// Records appended to the home partition.
    pub appended_records: u64,
    /// Bytes of their keys and values.
    pub appended_bytes: u64,
}

impl TransactionStats {
    /// A request is refused.
    pub(crate) const fn refuse(&mut self, error: &TransactionError) {
        self.refused += 1;
        if let TransactionError::Fenced { .. } = error {
            self.fenced += 1;
        }
    }

    /// Adds what another id counted.
    pub const fn merge(&mut self, other: &Self) {
        self.initialised += other.initialised;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.timed_out += other.timed_out;
        self.refused += other.refused;
        self.fenced += other.fenced;
        self.appended_records += other.appended_records;
        self.appended_bytes += other.appended_bytes;
    }
}
