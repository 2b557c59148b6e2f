//! Consumer groups: what a member says and hears.
//!
//! A group's coordinator is the owner of its home partition of the internal topic `__groups`; any shard passes these
//! requests on to it. A member is a random id of 128 bits for each life, high half first, and not a connection.

use crate::body::body;

/// Partitions of one topic that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct PartitionRange {
    /// The topic.
    pub topic: u64,
    /// The first partition.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl PartitionRange {
    /// The fewest ranges for partitions, given in order as topic and index.
    #[must_use]
    pub fn of(partitions: impl IntoIterator<Item = (u64, u32)>) -> Vec<Self> {
        let mut ranges: Vec<Self> = Vec::new();
        for (topic, index) in partitions {
            match ranges.last_mut() {
                Some(last) if last.topic == topic && last.first.checked_add(last.count) == Some(index) => {
                    last.count += 1;
                }
                _ => ranges.push(Self { topic, first: index, count: 1 }),
            }
        }
        ranges
    }

    /// Its partitions, as topic and index. Whoever reads ranges from outside sums their counts up first.
    pub fn partitions(self) -> impl Iterator<Item = (u64, u32)> {
        let end = self.first.saturating_add(self.count);
        (self.first..end).map(move |index| (self.topic, index))
    }
}

/// Where a member begins without a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct ResetPolicy {
    /// 0 earliest, 1 latest, 2 time, 3 nowhere: the application is told.
    pub kind: u8,
    /// The milliseconds since the Unix epoch as their two's complement; else 0.
    pub value: u64,
}

/// A topic's id and name, for whoever knows only one of them.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct TopicLabel {
    /// The id.
    pub topic: u64,
    /// The name.
    pub name: String,
}

/// A partition that a member owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct OwnedPartition {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// The generation in which the member got it. Another one than before means that it was lost in between.
    pub since: u64,
    /// The first record that the group has not done; `None` means that the member's reset policy says where to begin.
    pub committed: Option<u64>,
}

/// A partition that a member is to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct RevokedPartition {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// The generation in which the member got it: names the turn that ends.
    pub since: u64,
    /// A member that has not given it up within this time of the frame is put out.
    pub within_ms: u32,
}

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct OffsetCommit {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// The first record that the group has not done.
    pub offset: u64,
    /// The leader's term in which the record before was read; 0 today.
    pub leader_epoch: u32,
    /// What the application wants to find again, at most 4,096 bytes.
    pub metadata: String,
}

body! {
    /// A member joins, or says again what it said. Answered when that is durable; the assignment follows.
    JoinGroup (JoinGroup, 1) {
        /// The group; a new name makes a group.
        group: String,
        /// Random, made by the client for this life of the member.
        member: (u64, u64),
        /// Its name across restarts.
        static_id: Option<String>,
        /// What it reads, by name. A name that is no topic yet counts from when it is one.
        topics: Vec<String>,
        /// And all topics whose whole name matches this regular expression.
        pattern: Option<String>,
        /// How partitions are to be assigned; `None` takes the group's.
        strategy: Option<String>,
        /// What it can do compared to others; 1 if that does not matter.
        capacity: u32,
        /// Silent for longer, it has died; 0 takes the default.
        session_timeout_ms: u32,
        /// It gives up what is revoked within this time; 0 takes the default.
        rebalance_timeout_ms: u32,
        /// Where it begins without a committed offset.
        reset: ResetPolicy,
    }

    /// Answers [`JoinGroup`].
    JoinGroupAnswer (JoinGroupAnswer, 1) {
        /// The group's generation at that moment.
        generation: u64,
        /// How partitions are assigned.
        strategy: String,
        /// The session time-out that holds.
        session_timeout_ms: u32,
        /// The rebalance time-out that holds.
        rebalance_timeout_ms: u32,
    }

    /// A member is alive and says what it is at. Answered at once by [`GroupDone`].
    GroupHeartbeat (GroupHeartbeat, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// Generation of the newest assignment that it has acted upon; 0 for none.
        seen: u64,
        /// All that it works on, in order. What was revoked up to `seen` and is not among it has been given up. `None`
        /// says that nothing changed.
        holds: Option<Vec<PartitionRange>>,
        /// Microseconds that it takes for a record, for the strategy least-response-time.
        processing_micros: Option<u32>,
    }

    /// A member gives up a revoked partition: everything is done and committed. The attachment is what it leaves for the
    /// next owner, at most 65,536 bytes; without one it leaves nothing. Answered by [`GroupDone`] at once.
    GiveUp (GiveUp, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// Generation of the newest assignment that it has acted upon.
        seen: u64,
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
    }

    /// A member leaves. Answered by [`GroupDone`] when that is durable.
    LeaveGroup (LeaveGroup, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// It will be back: a static member keeps its partitions for its session time-out.
        is_restarting: bool,
    }

    /// A member commits offsets, all of them or none. Answered by [`GroupDone`] when they are durable.
    CommitOffsets (CommitOffsets, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// A generation in which it owned all of them: that of the newest assignment that it has acted upon.
        generation: u64,
        /// The offsets; as many as fit into the body.
        offsets: Vec<OffsetCommit>,
    }

    /// Answers every request for a group that asks for nothing else.
    GroupDone (GroupDone, 1) {
        /// The group's generation at that moment.
        generation: u64,
    }

    /// Everything that a member has at one moment; it replaces all assignments before it. One that does not fit into a
    /// frame comes in several, in order and with nothing of this member and group between them.
    GroupAssignment (GroupAssignment, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// The group's generation.
        generation: u64,
        /// Whether it is whole now.
        is_last: bool,
        /// Names of the topics that this frame speaks of.
        topics: Vec<TopicLabel>,
        /// What the member works on.
        owned: Vec<OwnedPartition>,
        /// What it is to give up: finish, commit, stop, say so.
        revoking: Vec<RevokedPartition>,
        /// What it should follow so that it can take over warm.
        standby: Vec<PartitionRange>,
    }

    /// What the old owner of a partition left for this member: the attachment. It comes before the assignment that names
    /// the partition, and again until the member has said that it holds the partition.
    HandOver (HandOver, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
    }

    /// A member is no longer in the group and must drop what it holds; it may come back under another member id.
    MemberFenced (MemberFenced, 1) {
        /// The group.
        group: String,
        /// Who.
        member: (u64, u64),
        /// 1 session expired, 2 did not give up in time, 3 a newer member has its static id, 4 the group was deleted.
        reason: u8,
        /// The same in words.
        text: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_were_made_of() {
        let partitions = vec![(1, 0), (1, 1), (1, 3), (2, 4), (2, 5), (3, u32::MAX)];
        let ranges = PartitionRange::of(partitions.clone());
        assert_eq!(ranges.len(), 4);
        let back: Vec<_> = ranges.iter().take(3).flat_map(|range| range.partitions()).collect();
        assert_eq!(back, partitions[..5]);
    }
}
