//! Counters of one group, since it was made or restored.

/// Plain counters; whoever scrapes copies and sums them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// Members that joined, static ones that came back included.
    pub joins: u64,
    /// Static members that took over what an earlier one of their id had.
    pub static_returns: u64,
    /// Members that left.
    pub leaves: u64,
    /// Members whose session expired.
    pub sessions_expired: u64,
    /// Members that did not give up in time.
    pub rebalance_timeouts: u64,
    /// Members whose static id was taken.
    pub static_ids_taken: u64,
    /// Changes of the assignment.
    pub generations: u64,
    /// Partitions that were given to a member.
    pub granted_partitions: u64,
    /// Partitions that were asked back from a member.
    pub revoked_partitions: u64,
    /// Offsets committed.
    pub committed_offsets: u64,
    /// Offsets staged within transactions.
    pub staged_offsets: u64,
    /// Commits refused, whole.
    pub refused_commits: u64,
    /// Commits refused because of the generation or the owner.
    pub fenced_commits: u64,
    /// Records appended to the home partition.
    pub appended_records: u64,
    /// Bytes of their keys and values.
    pub appended_bytes: u64,
    /// Committed offsets that retention removed.
    pub expired_offsets: u64,
    /// Blobs handed over.
    pub handovers: u64,
}
