//! Frames about consumer groups as typed requests.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::{
    GROUP_HANDOVER_BYTES_MAX, GROUP_REBALANCE_TIMEOUT_DEFAULT, GROUP_SESSION_TIMEOUT_DEFAULT, PARTITIONS_MAX,
};
use corelane_model::{
    CorrelationId, ErrorCode, Generation, GroupName, GroupNameError, MemberId, PartitionId, PartitionIndex,
    ProducerEpoch, ProducerId, ResetPolicy, StaticId, Strategy, TopicId, TopicName, Transaction, WallMillis,
};
use corelane_wire::{
    AlterGroup, CommitOffsets, DeleteGroup, DescribeGroup, DrainGroup, FetchOffsets, Frame, FrameKind, GiveUp,
    GroupHeartbeat, JoinGroup, LeaveGroup, OffsetCommit, OffsetReset, PartitionRange, RemoveStaticMember, ResetOffsets,
    ResumeGroup, StageOffsets, decode,
};

use crate::request::{NoRequest, refuse};
use crate::transaction::id_of;

/// A request for one consumer group. Its coordinator answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRequest {
    /// Ties the answer.
    pub correlation: CorrelationId,
    /// The group.
    pub group: GroupName,
    /// What is asked.
    pub ask: GroupAsk,
}

/// How a member wants to be in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAsk {
    /// The member.
    pub member: MemberId,
    /// Its name across restarts.
    pub static_id: Option<StaticId>,
    /// Topics by name.
    pub topics: BTreeSet<TopicName>,
    /// A pattern of topics' names, not checked yet.
    pub pattern: Option<String>,
    /// The strategy that it wants.
    pub strategy: Option<Strategy>,
    /// Its capacity, bounds not checked yet.
    pub capacity: u32,
    /// Its session time-out, bounds not checked yet.
    pub session_timeout: Duration,
    /// Its rebalance time-out, bounds not checked yet.
    pub rebalance_timeout: Duration,
    /// Where it begins without a committed offset.
    pub reset: ResetPolicy,
}

/// What is asked of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAsk {
    /// A member joins.
    Join(Box<JoinAsk>),
    /// A member is alive.
    Heartbeat {
        /// Who.
        member: MemberId,
        /// The newest generation that it has acted upon.
        seen: Generation,
        /// What it works on; together at most [`PARTITIONS_MAX`] partitions.
        holds: Option<Vec<PartitionRange>>,
        /// Microseconds for a record.
        processing_micros: Option<u32>,
    },
    /// A member gives up a partition.
    GiveUp {
        /// Who.
        member: MemberId,
        /// The newest generation that it has acted upon.
        seen: Generation,
        /// The partition.
        partition: PartitionId,
        /// What it leaves for the next owner; shares memory with the bytes that arrived.
        blob: Option<Bytes>,
    },
    /// A member leaves.
    Leave {
        /// Who.
        member: MemberId,
        /// Whether it will be back.
        is_restarting: bool,
    },
    /// A member commits offsets.
    Commit {
        /// Who.
        member: MemberId,
        /// The generation that it says.
        generation: Generation,
        /// The offsets.
        offsets: Vec<OffsetCommit>,
    },
    /// A member stages offsets within a transaction.
    Stage {
        /// The transaction.
        transaction: Transaction,
        /// Where its coordinator is.
        home: PartitionIndex,
        /// Who.
        member: MemberId,
        /// The generation that it says.
        generation: Generation,
        /// The offsets.
        offsets: Vec<OffsetCommit>,
    },
    /// The group in full.
    Describe {
        /// Members after this one.
        after_member: Option<MemberId>,
        /// How many members at most.
        most_members: u32,
        /// Partitions after this one.
        after_partition: Option<PartitionId>,
        /// How many partitions at most.
        most_partitions: u32,
    },
    /// Committed offsets.
    FetchOffsets {
        /// Partitions after this one.
        after: Option<PartitionId>,
        /// Of these, together at most [`PARTITIONS_MAX`]; none asks for all.
        partitions: Vec<PartitionRange>,
    },
    /// Put committed offsets elsewhere.
    ResetOffsets {
        /// Whether to make the group.
        may_create: bool,
        /// Where to.
        resets: Vec<OffsetReset>,
    },
    /// Change settings.
    Alter {
        /// Whether to make the group.
        may_create: bool,
        /// The strategy.
        strategy: Option<Strategy>,
        /// How many follow each partition, bounds not checked yet.
        standbys: Option<u8>,
        /// How long offsets are kept without members, bounds not checked yet.
        retention: Option<Duration>,
    },
    /// Ask everything back.
    Drain,
    /// Assign again.
    Resume,
    /// Delete the group.
    Delete,
    /// Remove a static member.
    RemoveStatic {
        /// Its static id.
        static_id: StaticId,
    },
}

impl GroupAsk {
    /// The member that speaks, if one does.
    #[must_use]
    pub fn member(&self) -> Option<MemberId> {
        match self {
            Self::Join(join) => Some(join.member),
            Self::Heartbeat { member, .. }
            | Self::GiveUp { member, .. }
            | Self::Leave { member, .. }
            | Self::Stage { member, .. }
            | Self::Commit { member, .. } => Some(*member),
            Self::Describe { .. }
            | Self::FetchOffsets { .. }
            | Self::ResetOffsets { .. }
            | Self::Alter { .. }
            | Self::Drain
            | Self::Resume
            | Self::Delete
            | Self::RemoveStatic { .. } => None,
        }
    }

    /// Whether it makes a group that is not there.
    #[must_use]
    pub const fn may_create(&self) -> bool {
        matches!(
            self,
            Self::Join(_) | Self::ResetOffsets { may_create: true, .. } | Self::Alter { may_create: true, .. }
        )
    }
}

impl From<GroupNameError> for NoRequest {
    fn from(error: GroupNameError) -> Self {
        refuse(ErrorCode::InvalidGroupName, error.to_string())
    }
}

/// What a frame about one group asks for; `None` when its kind is about something else.
pub(crate) fn parse_group(frame: &Frame) -> Result<Option<GroupRequest>, NoRequest> {
    let correlation = frame.head.correlation;
    let (group, ask) = match frame.head.kind {
        FrameKind::JoinGroup => parse_join(decode(frame)?)?,
        FrameKind::GroupHeartbeat => {
            let GroupHeartbeat { group, member, seen, holds, processing_micros } = decode(frame)?;
            check_ranges(holds.as_deref().unwrap_or_default())?;
            let (member, seen) = (member_of(member), Generation(seen));
            (group, GroupAsk::Heartbeat { member, seen, holds, processing_micros })
        }
        FrameKind::GiveUp => parse_give_up(frame)?,
        FrameKind::LeaveGroup => {
            let LeaveGroup { group, member, is_restarting } = decode(frame)?;
            (group, GroupAsk::Leave { member: member_of(member), is_restarting })
        }
        FrameKind::CommitOffsets => {
            let CommitOffsets { group, member, generation, offsets } = decode(frame)?;
            (group, GroupAsk::Commit { member: member_of(member), generation: Generation(generation), offsets })
        }
        FrameKind::StageOffsets => {
            let StageOffsets { id, producer, epoch, group, member, generation, offsets } = decode(frame)?;
            let transaction = Transaction::new(ProducerId(producer), ProducerEpoch(epoch));
            let (home, member, generation) = (id_of(&id)?.home(), member_of(member), Generation(generation));
            (group, GroupAsk::Stage { transaction, home, member, generation, offsets })
        }
        _ => match parse_management(frame)? {
            Some(parsed) => parsed,
            None => return Ok(None),
        },
    };
    Ok(Some(GroupRequest { correlation, group: GroupName::parse(&group)?, ask }))
}

fn parse_join(join: JoinGroup) -> Result<(String, GroupAsk), NoRequest> {
    let topics = join.topics.iter().map(|name| TopicName::parse(name)).collect::<Result<_, _>>();
    let ask = JoinAsk {
        member: member_of(join.member),
        static_id: join.static_id.map(|id| StaticId::parse(&id)).transpose()?,
        topics: topics.map_err(|error| refuse(ErrorCode::InvalidTopicName, error.to_string()))?,
        pattern: join.pattern,
        strategy: join.strategy.map(|name| Strategy::parse(&name)).transpose()?,
        capacity: join.capacity,
        session_timeout: millis_or(join.session_timeout_ms, GROUP_SESSION_TIMEOUT_DEFAULT),
        rebalance_timeout: millis_or(join.rebalance_timeout_ms, GROUP_REBALANCE_TIMEOUT_DEFAULT),
        reset: match join.reset.kind {
            0 => ResetPolicy::Earliest,
            1 => ResetPolicy::Latest,
            2 => ResetPolicy::Time(WallMillis(join.reset.value.cast_signed())),
            3 => ResetPolicy::Error,
            kind => {
                let text = format!("reset policy of kind {kind} is not known; 0 to 3 are");
                return Err(refuse(ErrorCode::InvalidSetting, text));
            }
        },
    };
    Ok((join.group, GroupAsk::Join(Box::new(ask))))
}

fn parse_give_up(frame: &Frame) -> Result<(String, GroupAsk), NoRequest> {
    let GiveUp { group, member, seen, topic, partition } = decode(frame)?;
    let bytes = frame.attachment.len();
    if GROUP_HANDOVER_BYTES_MAX < bytes {
        let text = format!("{bytes} bytes handed over are over the limit of {GROUP_HANDOVER_BYTES_MAX} bytes");
        return Err(refuse(ErrorCode::LimitReached, text));
    }
    let blob = (bytes != 0).then(|| frame.attachment.clone());
    let partition = partition_of((topic, partition));
    Ok((group, GroupAsk::GiveUp { member: member_of(member), seen: Generation(seen), partition, blob }))
}

fn parse_management(frame: &Frame) -> Result<Option<(String, GroupAsk)>, NoRequest> {
    Ok(Some(match frame.head.kind {
        FrameKind::DescribeGroup => {
            let DescribeGroup { group, after_member, most_members, after_partition, most_partitions } = decode(frame)?;
            let after_member = after_member.map(member_of);
            let after_partition = after_partition.map(partition_of);
            (group, GroupAsk::Describe { after_member, most_members, after_partition, most_partitions })
        }
        FrameKind::FetchOffsets => {
            let FetchOffsets { group, after, partitions } = decode(frame)?;
            check_ranges(&partitions)?;
            (group, GroupAsk::FetchOffsets { after: after.map(partition_of), partitions })
        }
        FrameKind::ResetOffsets => {
            let ResetOffsets { group, may_create, resets } = decode(frame)?;
            (group, GroupAsk::ResetOffsets { may_create, resets })
        }
        FrameKind::AlterGroup => {
            let AlterGroup { group, may_create, strategy, standbys, retention_ms } = decode(frame)?;
            let strategy = strategy.map(|name| Strategy::parse(&name)).transpose()?;
            let retention = retention_ms.map(Duration::from_millis);
            (group, GroupAsk::Alter { may_create, strategy, standbys, retention })
        }
        FrameKind::DrainGroup => (decode::<DrainGroup>(frame)?.group, GroupAsk::Drain),
        FrameKind::ResumeGroup => (decode::<ResumeGroup>(frame)?.group, GroupAsk::Resume),
        FrameKind::DeleteGroup => (decode::<DeleteGroup>(frame)?.group, GroupAsk::Delete),
        FrameKind::RemoveStaticMember => {
            let RemoveStaticMember { group, static_id } = decode(frame)?;
            (group, GroupAsk::RemoveStatic { static_id: StaticId::parse(&static_id)? })
        }
        _ => return Ok(None),
    }))
}

/// A few bytes can name very many partitions, so their sum is bounded before anybody counts them out.
fn check_ranges(ranges: &[PartitionRange]) -> Result<(), NoRequest> {
    let total: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
    if PARTITIONS_MAX < total {
        let text = format!("{total} partitions in one request are over the limit of {PARTITIONS_MAX}");
        return Err(refuse(ErrorCode::LimitReached, text));
    }
    Ok(())
}

fn member_of((high, low): (u64, u64)) -> MemberId {
    MemberId(u128::from(high) << 64 | u128::from(low))
}

const fn partition_of((topic, partition): (u64, u32)) -> PartitionId {
    PartitionId::new(TopicId(topic), PartitionIndex(partition))
}

fn millis_or(millis: u32, default: Duration) -> Duration {
    if millis == 0 { default } else { Duration::from_millis(u64::from(millis)) }
}
