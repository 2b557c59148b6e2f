//! What a shard's loop counts.

use corelane_quic::QuicStats;
use corelane_shard::ReactorStatus;

/// Counters of one shard's loop since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorStats {
    /// Rounds in which something happened.
    pub rounds_total: u64,
    /// Looks that found nothing, without parking.
    pub idle_looks_total: u64,
    /// Times that the shard parked.
    pub parks_total: u64,
    /// Calls of recvmmsg that yielded something.
    pub receives_total: u64,
    /// Calls of sendmsg.
    pub sends_total: u64,
    /// Calls of sendmsg that the socket had no room for and that were tried again.
    pub sends_blocked_total: u64,
    /// File effects that completed.
    pub file_effects_total: u64,
    /// File effects under way.
    pub file_effects: u64,
    /// Syncs of the journal that were handed to the kernel together with their write.
    pub paired_syncs_total: u64,
    /// Those of them that the journal had no use for, since another write had become complete meanwhile.
    pub paired_syncs_unused_total: u64,
    /// Files that are open.
    pub files_open: u64,
    /// How long the shard goes round without parking after it had something to do, in microseconds.
    pub spin_window_us: u64,
    /// The longest round in microseconds: how long something ready may have waited.
    pub round_us_max: u64,
    /// The endpoint's counters.
    pub quic: QuicStats,
}

impl ReactorStats {
    /// What of it goes into a shard's status.
    pub(crate) const fn status(&self) -> ReactorStatus {
        ReactorStatus { paired_syncs: self.paired_syncs_total, paired_syncs_unused: self.paired_syncs_unused_total }
    }
}
