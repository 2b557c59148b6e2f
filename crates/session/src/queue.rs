//! Frames about shared queues as typed requests.

use std::time::Duration;

use corelane_model::limits::{GROUP_SESSION_TIMEOUT_DEFAULT, TOPIC_NAME_BYTES_MAX};
use corelane_model::{
    CorrelationId, ErrorCode, GroupName, MemberId, Offset, PartitionIndex, QueueWish, StartAt, TopicId,
};
use corelane_wire::{
    AlterQueue, DeleteQueue, DescribeQueue, Frame, FrameKind, JoinQueue, LeaseRange, LeaveQueue, QueueAck, QueueChange,
    QueueChangeError, QueueCredit, QueueExtend, QueueNack, RedriveQueue, decode,
};

use crate::request::{NoRequest, refuse};

/// A request for one shared queue. The queue's home answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRequest {
    /// Ties the answer.
    pub correlation: CorrelationId,
    /// The group.
    pub group: GroupName,
    /// The topic.
    pub topic: QueueTopic,
    /// What is asked.
    pub ask: QueueAsk,
}

/// How a request names the queue's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueTopic {
    /// By name, which may be none.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// More that may be sent to a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCredit {
    /// So many records.
    pub records: u32,
    /// So many bytes.
    pub bytes: u64,
}

/// How a member wants to be in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueJoinAsk {
    /// The member.
    pub member: MemberId,
    /// Its weight, bounds not checked yet.
    pub weight: u32,
    /// Its session time-out, bounds not checked yet.
    pub session_timeout: Duration,
    /// Settings that it insists on, bounds not checked yet.
    pub wish: QueueWish,
    /// Where a new queue begins.
    pub start: StartAt,
    /// What may be sent to it.
    pub credit: MemberCredit,
}

/// What is asked of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueAsk {
    /// A member joins.
    Join(Box<QueueJoinAsk>),
    /// More may be sent to a member, or it is only alive. Not answered.
    Credit {
        /// Who.
        member: MemberId,
        /// How much more.
        credit: MemberCredit,
    },
    /// Records are done.
    Acknowledge {
        /// Who.
        member: MemberId,
        /// Which.
        leases: Vec<LeaseRange>,
        /// Microseconds for a record.
        processing_micros: Option<u32>,
        /// More that may be sent.
        credit: MemberCredit,
    },
    /// Records failed.
    Reject {
        /// Who.
        member: MemberId,
        /// Which.
        leases: Vec<LeaseRange>,
        /// How long they rest, bounds not checked yet.
        delay: Option<Duration>,
        /// Whether they are dead letters at once.
        is_dead: bool,
        /// Why, length not checked yet.
        reason: String,
        /// More that may be sent.
        credit: MemberCredit,
    },
    /// A member needs longer.
    Extend {
        /// Who.
        member: MemberId,
        /// For which.
        leases: Vec<LeaseRange>,
        /// How long from now, bounds not checked yet.
        lease: Duration,
    },
    /// A member leaves.
    Leave {
        /// Who.
        member: MemberId,
    },
    /// The queue in full.
    Describe {
        /// Partitions from this one on.
        from_partition: u32,
        /// How many partitions at most.
        most_partitions: u32,
        /// Members after this one.
        after_member: Option<MemberId>,
        /// How many members at most.
        most_members: u32,
    },
    /// Change settings.
    Alter {
        /// To these, bounds not checked yet.
        wish: QueueWish,
    },
    /// Put dead letters back.
    Redrive {
        /// How many at most; 0 is as many as one step takes.
        most: u64,
        /// The partition of the dead-letter topic to begin with.
        partition: PartitionIndex,
        /// What its end was when its turn came, in an earlier step.
        end: Option<Offset>,
    },
    /// Delete the queue.
    Delete {
        /// Whether it may have members.
        is_forced: bool,
    },
}

impl QueueAsk {
    /// The member that speaks, if one does.
    #[must_use]
    pub fn member(&self) -> Option<MemberId> {
        match self {
            Self::Join(join) => Some(join.member),
            Self::Credit { member, .. }
            | Self::Acknowledge { member, .. }
            | Self::Reject { member, .. }
            | Self::Extend { member, .. }
            | Self::Leave { member } => Some(*member),
            Self::Describe { .. } | Self::Alter { .. } | Self::Redrive { .. } | Self::Delete { .. } => None,
        }
    }

    /// Whether it is answered.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        !matches!(self, Self::Credit { .. })
    }
}

impl From<QueueChangeError> for NoRequest {
    fn from(error: QueueChangeError) -> Self {
        let code = match error {
            QueueChangeError::Settings(_) => ErrorCode::InvalidSetting,
            QueueChangeError::DeadLetter(_) => ErrorCode::InvalidTopicName,
        };
        refuse(code, error.to_string())
    }
}

/// What a frame about one queue asks for; `None` when its kind is about something else.
pub(crate) fn parse_queue(frame: &Frame) -> Result<Option<QueueRequest>, NoRequest> {
    let correlation = frame.head.correlation;
    let parsed = match frame.head.kind {
        FrameKind::JoinQueue => Some(parse_join(decode(frame)?)?),
        FrameKind::QueueCredit
        | FrameKind::QueueAck
        | FrameKind::QueueNack
        | FrameKind::QueueExtend
        | FrameKind::LeaveQueue => Some(parse_member(frame)?),
        _ => parse_management(frame)?,
    };
    let Some((group, topic, ask)) = parsed else { return Ok(None) };
    if let QueueTopic::Name(name) = &topic
        && TOPIC_NAME_BYTES_MAX < name.len()
    {
        let text = format!("topic name of {} bytes is over the limit of {TOPIC_NAME_BYTES_MAX} bytes", name.len());
        return Err(refuse(ErrorCode::InvalidTopicName, text));
    }
    Ok(Some(QueueRequest { correlation, group: GroupName::parse(&group)?, topic, ask }))
}

type Parsed = (String, QueueTopic, QueueAsk);

fn parse_join(join: JoinQueue) -> Result<Parsed, NoRequest> {
    let start = join.start.to_model().ok_or_else(|| {
        let text = format!("start position of kind {} is not known; 0 to 3 are", join.start.kind);
        refuse(ErrorCode::InvalidSetting, text)
    })?;
    let session_timeout = match join.session_timeout_ms {
        0 => GROUP_SESSION_TIMEOUT_DEFAULT,
        millis => Duration::from_millis(millis.into()),
    };
    let ask = QueueJoinAsk {
        member: member_of(join.member),
        weight: join.weight.max(1),
        session_timeout,
        wish: join.settings.to_model()?,
        start,
        credit: MemberCredit { records: join.credit_records, bytes: join.credit_bytes },
    };
    Ok((join.group, QueueTopic::Name(join.topic), QueueAsk::Join(Box::new(ask))))
}

fn parse_member(frame: &Frame) -> Result<Parsed, NoRequest> {
    Ok(match frame.head.kind {
        FrameKind::QueueCredit => {
            let QueueCredit { group, topic, member, records, bytes } = decode(frame)?;
            let credit = MemberCredit { records, bytes };
            (group, by_id(topic), QueueAsk::Credit { member: member_of(member), credit })
        }
        FrameKind::QueueAck => {
            let QueueAck { group, topic, member, leases, processing_micros, credit_records, credit_bytes } =
                decode(frame)?;
            let credit = MemberCredit { records: credit_records, bytes: credit_bytes };
            let member = member_of(member);
            (group, by_id(topic), QueueAsk::Acknowledge { member, leases, processing_micros, credit })
        }
        FrameKind::QueueNack => {
            let QueueNack { group, topic, member, leases, delay_ms, is_dead, reason, credit_records, credit_bytes } =
                decode(frame)?;
            let credit = MemberCredit { records: credit_records, bytes: credit_bytes };
            let (member, delay) = (member_of(member), delay_ms.map(Duration::from_millis));
            (group, by_id(topic), QueueAsk::Reject { member, leases, delay, is_dead, reason, credit })
        }
        FrameKind::QueueExtend => {
            let QueueExtend { group, topic, member, leases, lease_ms } = decode(frame)?;
            let lease = Duration::from_millis(lease_ms);
            (group, by_id(topic), QueueAsk::Extend { member: member_of(member), leases, lease })
        }
        kind => {
            assert_eq!(kind, FrameKind::LeaveQueue, "only frames of members come here");
            let LeaveQueue { group, topic, member } = decode(frame)?;
            (group, by_id(topic), QueueAsk::Leave { member: member_of(member) })
        }
    })
}

fn parse_management(frame: &Frame) -> Result<Option<Parsed>, NoRequest> {
    Ok(Some(match frame.head.kind {
        FrameKind::DescribeQueue => {
            let DescribeQueue { group, topic, from_partition, most_partitions, after_member, most_members } =
                decode(frame)?;
            let after_member = after_member.map(member_of);
            let ask = QueueAsk::Describe { from_partition, most_partitions, after_member, most_members };
            (group, QueueTopic::Name(topic), ask)
        }
        FrameKind::AlterQueue => {
            let AlterQueue { group, topic, settings } = decode(frame)?;
            (group, QueueTopic::Name(topic), QueueAsk::Alter { wish: QueueChange::to_model(&settings)? })
        }
        FrameKind::RedriveQueue => {
            let RedriveQueue { group, topic, most, partition, end } = decode(frame)?;
            let ask = QueueAsk::Redrive { most, partition: PartitionIndex(partition), end: end.map(Offset) };
            (group, QueueTopic::Name(topic), ask)
        }
        FrameKind::DeleteQueue => {
            let DeleteQueue { group, topic, topic_id, is_forced } = decode(frame)?;
            let topic = if topic.is_empty() { by_id(topic_id) } else { QueueTopic::Name(topic) };
            (group, topic, QueueAsk::Delete { is_forced })
        }
        _ => return Ok(None),
    }))
}

const fn by_id(topic: u64) -> QueueTopic {
    QueueTopic::Id(TopicId(topic))
}

fn member_of((high, low): (u64, u64)) -> MemberId {
    MemberId(u128::from(high) << 64 | u128::from(low))
}
