//! What queues say, as answers and frames.

use corelane_model::limits::SESSION_DATA_STREAMS_MAX;
use corelane_model::{ConnectionKey, CorrelationId, MemberId};
use corelane_queue::{Answer, LeaseRun, Queue, QueueName, Redriven};
use corelane_session::Session;
use corelane_wire::{
    DescribeQueueAnswer, JoinQueueAnswer, LeaseRange, LeasesAnswer, ListQueuesAnswer, OutFrame, QueueChange, QueueDone,
    QueueFenced, QueueRedriven, encode,
};

use super::home::Asked;
use crate::ask::Peer;
use crate::groups::member_on_wire;
use crate::mesh::Message;
use crate::{Effect, OutStream, Shard};

/// The answer to a request for a queue.
#[derive(Clone, Debug)]
pub(crate) enum QueueAnswer {
    Joined(JoinQueueAnswer),
    Leases(LeasesAnswer),
    Done(QueueDone),
    Redriven(QueueRedriven),
    Described(Box<DescribeQueueAnswer>),
    Listed(ListQueuesAnswer),
}

impl QueueAnswer {
    pub(crate) fn encode(&self, session: &mut Session, correlation: CorrelationId) -> OutFrame {
        match self {
            Self::Joined(body) => session.answer(correlation, body),
            Self::Leases(body) => session.answer(correlation, body),
            Self::Done(body) => session.answer(correlation, body),
            Self::Redriven(body) => session.answer(correlation, body),
            Self::Described(body) => session.answer(correlation, &**body),
            Self::Listed(body) => session.answer(correlation, body),
        }
    }

    /// What a request led to.
    pub(super) fn of(answer: Answer, asked: &Asked, queue: &Queue) -> Self {
        match answer {
            Answer::Joined { is_new } => Self::Joined(JoinQueueAnswer {
                topic: queue.name().topic.0,
                partitions: queue.partitions_len(),
                settings: QueueChange::from(queue.settings()),
                session_timeout_ms: asked.joined.unwrap_or_default(),
                is_new,
            }),
            Answer::Leases { refused } => {
                Self::Leases(LeasesAnswer { refused: refused.into_iter().map(range_of).collect() })
            }
            Answer::Done => Self::Done(QueueDone { reserved: 0 }),
            Answer::Redriven(Redriven { records, next, stopped }) => Self::Redriven(QueueRedriven {
                records,
                is_over: next.is_none() && stopped.is_empty(),
                partition: next.map_or(0, |at| at.partition.0),
                end: next.and_then(|at| at.end).map(|end| end.0),
                stopped,
            }),
        }
    }
}

pub(super) const fn range_of(run: LeaseRun) -> LeaseRange {
    LeaseRange { partition: run.partition.0, first: run.first.0, count: run.count, attempt: run.attempt }
}

/// 1 session expired, 2 queue deleted, 3 no such member.
pub(super) fn fenced(name: &QueueName, member: MemberId, reason: u8, text: String) -> OutFrame {
    let body = QueueFenced {
        group: name.group.as_str().to_owned(),
        topic: name.topic.0,
        member: member_on_wire(member),
        reason,
        text,
    };
    encode(CorrelationId(0), &body)
}

impl Shard {
    /// Records for a member, on a push stream: one for each queue, as far as there are so many.
    pub(super) fn push_member(&mut self, peer: Peer, name: &QueueName, frame: OutFrame) {
        let slot = u8::try_from(name.topic.0 % u64::from(SESSION_DATA_STREAMS_MAX)).expect("there are 64");
        let Peer { shard, connection } = peer;
        if shard == self.me() {
            self.push_to(connection, slot, frame);
        } else {
            self.send_mesh(shard, Message::QueueRecords { connection, slot, frame });
        }
    }

    /// Records for a member on a connection here; if that is gone, their leases end by themselves.
    pub(crate) fn push_to(&mut self, connection: ConnectionKey, slot: u8, frame: OutFrame) {
        if self.connections.contains_key(&connection) {
            self.effects.push_back(Effect::Send { connection, stream: OutStream::Push(slot), frame });
        }
    }

    /// A notice for a member.
    pub(super) fn notify_member(&mut self, peer: Peer, frame: OutFrame) {
        let Peer { shard, connection } = peer;
        if shard == self.me() {
            self.tell_member(connection, frame);
        } else {
            self.send_mesh(shard, Message::Member { connection, frame });
        }
    }
}
