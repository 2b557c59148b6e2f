//! What the admin listener asks a shard and what it is told: plain numbers, copied at the moment of the question.

use corelane_model::{CatalogVersion, Incarnation, Offset, PartitionId, ShardId, TopicId};

use crate::{ShardExport, ShardStats, Traffic};

/// Ties an admin answer to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminId(pub u64);

/// What the admin listener asks a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminQuery {
    /// Counters, gauges and health of this shard.
    Status,
    /// What it knows beyond its segments; only after [`crate::Effect::Drained`] of a [`crate::Boot::Export`] start.
    Export,
}

/// What a shard answers to the admin listener. Merging over shards happens outside.
#[derive(Clone, Debug)]
pub enum AdminAnswer {
    /// To [`AdminQuery::Status`].
    Status(Box<ShardStatus>),
    /// To [`AdminQuery::Export`]; `None` when the shard was not started for it or is not through.
    Export(Option<Box<ShardExport>>),
}

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardPhase {
    /// It reads its journal or waits for the catalog.
    #[default]
    Recovering,
    /// It serves.
    Serving,
    /// It takes nothing new and makes everything durable.
    Draining,
    /// Everything acknowledged is on disk.
    Drained,
}

/// Everything that `/metrics`, `/status` and `corelane status` say about one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardStatus {
    /// Which shard.
    pub shard: ShardId,
    /// How many there are.
    pub shards: u16,
    /// Which start of the broker this is.
    pub incarnation: Incarnation,
    /// Where it is in its life.
    pub phase: ShardPhase,
    /// What happened to the journal, if it failed: the shard then takes no writes until the broker restarts. Of a shard
    /// that could not start, why.
    pub storage_failure: Option<String>,
    /// Whether writes are refused because the disk is full.
    pub is_space_low: bool,
    /// Of each home of groups, queues or transactional ids that takes nothing until the broker restarts although the shard
    /// serves: what it is and why.
    pub stopped_homes: Vec<String>,
    /// Version of the catalog that it knows.
    pub catalog_version: CatalogVersion,
    /// Topics of the catalog.
    pub topics: u64,
    /// Partitions that it owns.
    pub partitions: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were welcomed.
    pub sessions: u64,
    /// Subscriptions to its partitions.
    pub subscriptions: u64,
    /// Requests that wait for a newer catalog or for the disk.
    pub requests_waiting: u64,
    /// Counters since the start.
    pub counters: ShardStats,
    /// Gauges and counters of its storage.
    pub storage: StorageStatus,
    /// Traffic by topic, at most [`crate::STATUS_TOPICS_MAX`] of those with traffic, by topic id.
    pub by_topic: Vec<TopicStatus>,
    /// Topics with traffic that did not fit into `by_topic`.
    pub by_topic_left_out: u64,
    /// Consumer groups whose home is here, at most [`crate::STATUS_GROUPS_MAX`] of them.
    pub groups: Vec<GroupStatus>,
    /// What all of them count.
    pub group_totals: GroupTotals,
    /// Shared queues whose home is here, at most [`crate::STATUS_QUEUES_MAX`] of them.
    pub queues: Vec<QueueStatus>,
    /// What all of them count.
    pub queue_totals: QueueTotals,
    /// What the transactional ids whose home is here count.
    pub transaction_totals: TransactionTotals,
    /// What the loop counts that drives the shard; the loop fills it in.
    pub reactor: ReactorStatus,
    /// What recovery found; `None` while it runs.
    pub recovery: Option<RecoveryStatus>,
}

/// What one shard's storage says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageStatus {
    /// How full the journal's ring is, in thousandths.
    pub journal_fill_per_mille: u64,
    /// Entries written.
    pub journal_entries: u64,
    /// Bytes written to the journal, padding included.
    pub journal_bytes: u64,
    /// Syncs of the journal.
    pub journal_syncs: u64,
    /// Bytes of batches that are not in segments yet.
    pub unsettled_bytes: u64,
    /// Bytes of batches held in memory for readers.
    pub cache_bytes: u64,
    /// Bytes written to segments.
    pub settled_bytes: u64,
    /// Reads of segments.
    pub cold_reads: u64,
    /// Appends that were refused because a budget was used up.
    pub refused_busy: u64,
    /// Appends that were refused because the disk is full.
    pub refused_full: u64,
    /// Writes or syncs of segments that failed.
    pub settle_failures: u64,
    /// Reads of segments that failed or found damage.
    pub read_failures: u64,
    /// Passes of compaction that went through.
    pub compaction_passes: u64,
    /// Bytes that compaction wrote.
    pub compaction_written_bytes: u64,
    /// Superseded records that compaction left out.
    pub compaction_removed_records: u64,
    /// Passes of compaction that came to nothing.
    pub compaction_failures: u64,
    /// Segment files that were dropped.
    pub segments_deleted: u64,
}

/// One topic's traffic on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStatus {
    /// Its id.
    pub topic: TopicId,
    /// Its name.
    pub name: String,
    /// What was appended.
    pub produced: Traffic,
    /// What was pushed.
    pub consumed: Traffic,
    /// Records of a topic of class `latest` that readers were not pushed, because newer ones of their keys had come.
    pub conflated: u64,
}

/// One consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// How it is, in one word.
    pub state: &'static str,
    /// How partitions are assigned.
    pub strategy: &'static str,
    /// Counts its assignments.
    pub generation: u64,
    /// How many members it has.
    pub members: u64,
    /// How many partitions somebody has.
    pub partitions: u64,
    /// How far it is behind, by topic with a committed offset, as of the last status; at most
    /// [`crate::STATUS_LAGS_MAX`] of all groups of the shard.
    pub lag: Vec<GroupLag>,
}

/// How far a consumer group is behind in one topic: in the partitions for which it has a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLag {
    /// The topic's name.
    pub topic: String,
    /// Records from the committed offsets to the high watermarks.
    pub records: u64,
    /// Age of the oldest of them in milliseconds; zero when there are none.
    pub oldest_ms: u64,
}

/// All consumer groups of a shard: the first two as they are, everything else since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTotals {
    /// How many there are.
    pub groups: u64,
    /// Members of all of them.
    pub members: u64,
    /// Members that joined, static ones that came back included.
    pub joins: u64,
    /// Members that left.
    pub leaves: u64,
    /// Changes of an assignment.
    pub rebalances: u64,
    /// Partitions that were given to a member.
    pub granted_partitions: u64,
    /// Partitions that were asked back from a member.
    pub revoked_partitions: u64,
    /// Members whose session expired.
    pub sessions_expired: u64,
    /// Members that did not give up in time.
    pub rebalance_timeouts: u64,
    /// Offsets committed.
    pub commits: u64,
    /// Commits refused, whole.
    pub refused_commits: u64,
    /// Bytes of records appended to homes.
    pub appended_bytes: u64,
}

/// One shared queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// How many members it has.
    pub members: u64,
    /// Records that could be handed out, as far as is known.
    pub ready: u64,
    /// Records that members have.
    pub leased: u64,
    /// Records that rest.
    pub delayed: u64,
    /// Records on their way to the dead-letter topic.
    pub dying: u64,
    /// Dead letters since the queue was made.
    pub dead: u64,
    /// Age in milliseconds of the oldest record that is not done; `None` when all are, as far as is known.
    pub oldest_ms: Option<u64>,
    /// Records that were handed out.
    pub deliveries: u64,
    /// Of these, those that had been handed out before.
    pub redeliveries: u64,
    /// Records that were acknowledged.
    pub acknowledgements: u64,
    /// Records that members failed.
    pub rejections: u64,
    /// Leases that the visibility time-out ended.
    pub lease_timeouts: u64,
    /// Leases whose records could not be sent to their members.
    pub unsent_leases: u64,
    /// Records whose delivery time is farther off than queues wait.
    pub far_delivery_times: u64,
}

/// All shared queues of a shard: how many there are, everything else since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// How many there are.
    pub queues: u64,
    /// Queues that did not fit into the status.
    pub left_out: u64,
    /// Members that joined.
    pub joins: u64,
    /// Members that left.
    pub leaves: u64,
    /// Members whose session expired.
    pub sessions_expired: u64,
    /// Dead letters that were put back.
    pub redriven_records: u64,
    /// Bytes of records appended to homes.
    pub appended_bytes: u64,
}

/// All transactional ids of a shard, and what participants of the shard have open: the first three as they are, everything
/// else since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionTotals {
    /// How many there are.
    pub ids: u64,
    /// Transactions that go on and are not decided.
    pub open: u64,
    /// For how many milliseconds a partition or group of the shard has had something of a transaction that is not decided, at
    /// most; those that the start found are counted from there.
    pub oldest_open_ms: u64,
    /// Transactions that a participant of the shard had open and no transactional id knew: they were aborted there.
    pub lost: u64,
    /// Transactions that were committed.
    pub committed: u64,
    /// Transactions that were aborted.
    pub aborted: u64,
    /// Of these, those that ran out of time.
    pub timed_out: u64,
    /// Requests of a client whose id another has.
    pub fenced: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// What the loop of a shard counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorStatus {
    /// Syncs of the journal that went to the kernel with their write.
    pub paired_syncs: u64,
    /// Of these, those for which the journal had no use any more.
    pub paired_syncs_unused: u64,
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStatus {
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Journal entries that were replayed.
    pub entries: u64,
    /// Bytes of torn tails that were cut: never acknowledged as stored.
    pub torn_bytes: u64,
    /// Stretches of the journal that were stored and are damaged, or that may have been and cannot be read.
    pub damages: u64,
    /// Items that contradict what came before them and were left out.
    pub misfits: u64,
    /// Damaged ranges: the partition, the first offset and the exclusive end. The rest is readable.
    pub corrupt: Vec<(PartitionId, Offset, Offset)>,
}
