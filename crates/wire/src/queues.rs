//! Management of shared queues.

use crate::body::body;
use crate::queue::QueueChange;

/// A queue in one line. Records that are not handed out and not read yet count as ready.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct QueueSummary {
    /// The group.
    pub group: String,
    /// The topic, by name; empty if it was deleted.
    pub topic: String,
    /// The topic, by id.
    pub topic_id: u64,
    /// How many members it has.
    pub members: u32,
    /// Records that could be handed out.
    pub ready: u64,
    /// Records that members have.
    pub leased: u64,
    /// Records that rest, by their delivery time or after a failure.
    pub delayed: u64,
    /// Dead letters so far.
    pub dead: u64,
    /// What is wrong with a record of it on disk, so that it takes nothing but that it be deleted and all numbers are 0; empty
    /// if nothing is.
    pub broken: String,
}

/// One partition of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct QueuePartition {
    /// Its index.
    pub partition: u32,
    /// The first record that is not done.
    pub done_end: u64,
    /// Exclusive end of what the queue has read.
    pub read_end: u64,
    /// Exclusive end of what can be read, as far as the queue knows.
    pub high_watermark: u64,
    /// Records that could be handed out, those beyond the read end included.
    pub ready: u64,
    /// Records that members have.
    pub leased: u64,
    /// Records that rest.
    pub delayed: u64,
    /// Records that wait until one before them with their key is done.
    pub held: u64,
    /// Records on their way to the dead-letter topic.
    pub dying: u64,
    /// Records beyond the first that is not done that are done.
    pub done: u64,
    /// Dead letters so far.
    pub dead: u64,
    /// Age in milliseconds of the oldest record that is not done; `None` if there is none, or if it was not read yet and its
    /// owner did not say in time.
    pub oldest_ms: Option<u64>,
    /// The window is full: there are records behind it, and nothing within it can be handed out before something is done or
    /// its rest is over.
    pub is_full: bool,
}

impl QueuePartition {
    /// What a full window waits for: the state that most of its records are in which are not done. `None` if it is not full.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        let states = [("dying", self.dying), ("held", self.held), ("leased", self.leased), ("delayed", self.delayed)];
        let most = states.into_iter().max_by_key(|&(_, records)| records);
        most.filter(|_| self.is_full).map(|(state, _)| state)
    }

    /// Records that are not done, those included that were not read.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.high_watermark.saturating_sub(self.done_end).saturating_sub(self.done)
    }

    /// For how long the oldest of them has waited, in milliseconds: zero when there is none, `None` when nobody said.
    #[must_use]
    pub const fn lag_ms(&self) -> Option<u64> {
        if self.lag() == 0 { Some(0) } else { self.oldest_ms }
    }
}

/// One member of a queue.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct QueueMember {
    /// Its id.
    pub member: (u64, u64),
    /// What its client said of itself.
    pub client: String,
    /// What it declared.
    pub weight: u32,
    /// Records that it has.
    pub leased: u64,
    /// Records that may still be sent to it.
    pub credit_records: u32,
    /// Bytes that may still be sent to it.
    pub credit_bytes: u64,
    /// Microseconds that it takes for a record, if it reports them.
    pub processing_micros: Option<u32>,
    /// Records that were sent to it.
    pub delivered: u64,
    /// Records that it has done.
    pub acknowledged: u64,
    /// Records that it failed, or let the time run out for.
    pub failed: u64,
    /// Milliseconds for which it was not heard of.
    pub silent_ms: u64,
}

body! {
    /// Asks which queues there are.
    ListQueues (ListQueues, 1) {
        /// Queues after this one, as group and topic id; empty and 0 begin at the first.
        after: (String, u64),
        /// How many at most; the broker may answer fewer.
        most: u32,
    }

    /// Answers [`ListQueues`].
    ListQueuesAnswer (ListQueuesAnswer, 1) {
        /// The queues, by group and topic id.
        queues: Vec<QueueSummary>,
        /// Whether there are more after the last of them.
        is_cut: bool,
        /// Shards that did not answer in time, so that their queues are missing.
        missing_shards: Vec<u8>,
    }

    /// Asks for a queue in full, or for the next partitions and members of it.
    DescribeQueue (DescribeQueue, 1) {
        /// The group.
        group: String,
        /// The topic, by name.
        topic: String,
        /// Partitions from this one on.
        from_partition: u32,
        /// How many partitions at most; the broker may answer fewer.
        most_partitions: u32,
        /// Members after this one; `None` begins at the first.
        after_member: Option<(u64, u64)>,
        /// How many members at most; the broker may answer fewer.
        most_members: u32,
    }

    /// Answers [`DescribeQueue`].
    DescribeQueueAnswer (DescribeQueueAnswer, 1) {
        /// The queue in one line.
        summary: QueueSummary,
        /// Its settings; all but the dead-letter topic are there.
        settings: QueueChange,
        /// How many partitions it has.
        partition_count: u32,
        /// The partitions asked for, by index.
        partitions: Vec<QueuePartition>,
        /// The members asked for, by id.
        members: Vec<QueueMember>,
        /// Whether there are more members after the last of them.
        has_more_members: bool,
    }

    /// Changes a queue's settings; what is `None` stays. Answered by [`crate::QueueDone`].
    AlterQueue (AlterQueue, 1) {
        /// The group.
        group: String,
        /// The topic, by name.
        topic: String,
        /// What is to be different. Leases that are out keep their time.
        settings: QueueChange,
    }

    /// Puts dead letters of a queue back into its topic, as many as one step takes. Answered by [`QueueRedriven`] when they
    /// are durable there.
    RedriveQueue (RedriveQueue, 1) {
        /// The group.
        group: String,
        /// The topic, by name.
        topic: String,
        /// How many at most; 0 is as many as one step takes.
        most: u64,
        /// Partition of the dead-letter topic to begin with: 0, or where the step before ended.
        partition: u32,
        /// What that partition's end was when its turn came, if the step before said so.
        end: Option<u64>,
    }

    /// Answers [`RedriveQueue`].
    QueueRedriven (QueueRedriven, 1) {
        /// How many were put back.
        records: u64,
        /// Whether nothing is left of what there was; else the next step begins where this one ended.
        is_over: bool,
        /// The partition of the dead-letter topic where it ended.
        partition: u32,
        /// What that partition's end was when its turn came; none if it did not come yet.
        end: Option<u64>,
        /// What it ended before its time for, in words; empty if for nothing.
        stopped: String,
    }

    /// Deletes a queue, not its topic. Answered by [`crate::QueueDone`].
    DeleteQueue (DeleteQueue, 1) {
        /// The group.
        group: String,
        /// The topic, by name; empty if it was deleted, then `topic_id` counts.
        topic: String,
        /// The topic, by id; 0 with a name.
        topic_id: u64,
        /// Whether it may have members; they are put out.
        is_forced: bool,
    }
}
