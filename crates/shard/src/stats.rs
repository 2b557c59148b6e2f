//! What a shard counts.

use corelane_telemetry::Histogram;

/// Counters of one shard since its start; they only grow.
#[derive(Clone, Debug, Default)]
pub struct ShardStats {
    /// Rounds.
    pub rounds: u64,
    /// Frames that came in.
    pub frames: u64,
    /// Requests that were refused with a code.
    pub refusals: u64,
    /// Connections that were closed because of what they sent.
    pub closes: u64,
    /// Requests that were forwarded to another shard.
    pub forwards: u64,
    /// Messages that were sent to other shards.
    pub mesh_messages: u64,
    /// What was appended here.
    pub produced: Traffic,
    /// Batches that were recognised as sent again.
    pub duplicate_batches: u64,
    /// What was pushed to subscriptions of partitions here, whichever shard their connection is on.
    pub consumed: Traffic,
    /// Snapshots that shortened the log of a home of consumer groups.
    pub group_snapshots: u64,
    /// Damaged places in the logs of homes, that were read at the start: what stood there is lost.
    pub home_damages: u64,
    /// From the arrival of a batch at the owner until it was known to be durable: one sample for each waiting connection,
    /// partition and durable round, that of its oldest batch.
    pub stored: Histogram,
}

/// Record batches in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes, heads included.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one batch.
    pub(crate) const fn add(&mut self, records: u32, bytes: u64) {
        self.batches += 1;
        self.records += records as u64;
        self.bytes += bytes;
    }

    /// Adds what another counted.
    pub const fn merge(&mut self, other: Self) {
        self.batches += other.batches;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}
