//! Management of consumer groups.

use crate::body::body;
use crate::group::{PartitionRange, TopicLabel};

/// A group in one line.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct GroupSummary {
    /// Its name.
    pub name: String,
    /// 0 empty, 1 stable, 2 reconciling, 3 draining, 4 drained, 5 deleted.
    pub state: u8,
    /// How partitions are assigned.
    pub strategy: String,
    /// Counts its assignments.
    pub generation: u64,
    /// How many members it has.
    pub members: u32,
    /// How many partitions somebody has.
    pub owned: u32,
}

/// A member in full; what it has stands with the partitions.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct GroupMember {
    /// Its id.
    pub member: (u64, u64),
    /// Its name across restarts.
    pub static_id: Option<String>,
    /// What its client said of itself when it joined.
    pub client: String,
    /// 0 stable, 1 giving up, 2 awaiting, 3 away.
    pub state: u8,
    /// What it subscribes to, as text.
    pub subscription: String,
    /// What it declared.
    pub capacity: u32,
    /// Smoothed microseconds for a record, if it reports them.
    pub processing_micros: Option<u32>,
    /// Milliseconds for which it was not heard of.
    pub silent_ms: u64,
    /// How many partitions it has and keeps.
    pub owned: u32,
    /// How many it was asked for.
    pub revoking: u32,
    /// How many it waits for.
    pub awaiting: u32,
    /// How many it follows.
    pub standby: u32,
}

/// A partition that somebody has or that has a committed offset.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct GroupPartition {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// Who has it.
    pub owner: Option<(u64, u64)>,
    /// Whether the owner was asked for it.
    pub is_revoking: bool,
    /// The first record that the group has not done.
    pub committed: Option<u64>,
    /// When that was committed, in milliseconds since the Unix epoch; 0 if nothing was.
    pub committed_ms: i64,
    /// What the application wanted to find again.
    pub metadata: String,
    /// Log start offset; `None` if the partition's owner did not say in time.
    pub log_start: Option<u64>,
    /// Exclusive end of what can be read; `None` if the partition's owner did not say in time.
    pub high_watermark: Option<u64>,
    /// Records between the committed offset, or the log start if that is larger, and the high watermark.
    pub lag: Option<u64>,
    /// Age in milliseconds of the oldest record that is not done; 0 when all are.
    pub lag_ms: Option<u64>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct FetchedOffset {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// The first record that the group has not done.
    pub offset: u64,
    /// The leader's term, as it was committed.
    pub leader_epoch: u32,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_ms: i64,
    /// What the application wanted to find again.
    pub metadata: String,
}

/// Where a committed offset is to be put.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct OffsetReset {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// There; `None` forgets it, so that the owner begins by its reset policy.
    pub offset: Option<u64>,
    /// What whoever resets wants to be found again.
    pub metadata: String,
}

body! {
    /// Asks which groups there are.
    ListGroups (ListGroups, 1) {
        /// Names after this one; empty begins at the first.
        after: String,
        /// How many at most; the broker may answer fewer.
        most: u32,
    }

    /// Answers [`ListGroups`].
    ListGroupsAnswer (ListGroupsAnswer, 1) {
        /// The groups, by name.
        groups: Vec<GroupSummary>,
        /// Whether there are more after the last of them.
        is_cut: bool,
        /// Shards that did not answer in time, so that their groups are missing.
        missing_shards: Vec<u8>,
    }

    /// Asks for a group in full, or for the next members and partitions of it.
    DescribeGroup (DescribeGroup, 1) {
        /// The group.
        group: String,
        /// Members after this one; `None` begins at the first.
        after_member: Option<(u64, u64)>,
        /// How many members at most; the broker may answer fewer.
        most_members: u32,
        /// Partitions after this one, as topic and index; `None` begins at the first.
        after_partition: Option<(u64, u32)>,
        /// How many partitions at most; the broker may answer fewer.
        most_partitions: u32,
    }

    /// Answers [`DescribeGroup`].
    DescribeGroupAnswer (DescribeGroupAnswer, 1) {
        /// The group in one line.
        summary: GroupSummary,
        /// How many follow each partition.
        standbys: u8,
        /// How long committed offsets are kept without members.
        retention_ms: u64,
        /// How many partitions somebody has or has committed for.
        partition_count: u32,
        /// The members asked for, by id.
        members: Vec<GroupMember>,
        /// Whether there are more after the last of them.
        is_members_cut: bool,
        /// Names of the topics that this frame speaks of; a topic that was deleted is missing.
        topics: Vec<TopicLabel>,
        /// The partitions asked for, in order.
        partitions: Vec<GroupPartition>,
        /// Whether there are more after the last of them.
        is_partitions_cut: bool,
    }

    /// Asks for committed offsets.
    FetchOffsets (FetchOffsets, 1) {
        /// The group.
        group: String,
        /// Partitions after this one, as topic and index; `None` begins at the first.
        after: Option<(u64, u32)>,
        /// Of these partitions; none asks for all.
        partitions: Vec<PartitionRange>,
    }

    /// Answers [`FetchOffsets`] when what it says is durable.
    FetchOffsetsAnswer (FetchOffsetsAnswer, 1) {
        /// The offsets, in the order of partitions; one without a committed offset is left out.
        offsets: Vec<FetchedOffset>,
        /// Whether there are more after the last of them.
        is_cut: bool,
    }

    /// Puts committed offsets somewhere else, all or none; nobody may own the partitions. Answered by
    /// [`crate::GroupDone`] when it is durable.
    ResetOffsets (ResetOffsets, 1) {
        /// The group.
        group: String,
        /// Whether to make the group if there is none.
        may_create: bool,
        /// Where to.
        resets: Vec<OffsetReset>,
    }

    /// Changes a group's settings; what is `None` stays. Answered by [`crate::GroupDone`] when it is durable.
    AlterGroup (AlterGroup, 1) {
        /// The group.
        group: String,
        /// Whether to make the group if there is none.
        may_create: bool,
        /// How partitions are assigned.
        strategy: Option<String>,
        /// How many follow each partition, 0 to 3.
        standbys: Option<u8>,
        /// How long committed offsets are kept without members.
        retention_ms: Option<u64>,
    }

    /// Asks everything back from the members. Answered by [`crate::GroupDone`] when nobody has anything.
    DrainGroup (DrainGroup, 1) {
        /// The group.
        group: String,
    }

    /// Assigns again after a drain. Answered by [`crate::GroupDone`].
    ResumeGroup (ResumeGroup, 1) {
        /// The group.
        group: String,
    }

    /// Removes a group without members, or a drained one, with its offsets. Answered by [`crate::GroupDone`].
    DeleteGroup (DeleteGroup, 1) {
        /// The group.
        group: String,
    }

    /// Removes a static member that will not come back. Answered by [`crate::GroupDone`].
    RemoveStaticMember (RemoveStaticMember, 1) {
        /// The group.
        group: String,
        /// Its static id.
        static_id: String,
    }
}
