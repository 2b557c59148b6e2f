//! What queues say, as answers and frames.

use corelane_model::limits::SESSION_DATA_STREAMS_MAX;
use corelane_model::{ConnectionKey, CorrelationId, GroupName, MemberId, ShardId, TopicId};
use corelane_queue::{Answer, LeaseRun, Queue, QueueName, Redriven};
use corelane_session::Session;
use corelane_wire::{
    DescribeQueueAnswer, JoinQueueAnswer, LeaseRange, LeasesAnswer, ListQueuesAnswer, OutFrame, QueueChange,
    QueueDeliver, QueueDone, QueueFenced, QueueRedriven, decode, encode,
};

use super::QueueKey;
use super::home::Asked;
use super::run::runs_of;
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
            self.push_to(self.me(), connection, slot, frame);
        } else {
            self.send_mesh(shard, Message::QueueRecords { connection, slot, frame });
        }
    }

    /// Records for a member on a connection here, from the queue's home. If the connection is gone they go back there.
    pub(crate) fn push_to(&mut self, home: ShardId, connection: ConnectionKey, slot: u8, frame: OutFrame) {
        if self.connections.contains_key(&connection) {
            self.effects.push_back(Effect::Send { connection, stream: OutStream::Push(slot), frame });
        } else if home == self.me() {
            self.on_unsent(Peer { shard: home, connection }, &frame);
        } else {
            self.send_mesh(home, Message::QueueUnsent { connection, frame });
        }
    }

    /// Records could not be sent to their member, whose connection is gone: its queue hands them out again as if they had not
    /// been, and nothing more to this member before it is heard of on another connection.
    pub(crate) fn on_unsent(&mut self, peer: Peer, frame: &OutFrame) {
        let body: QueueDeliver = decode(&frame.without_attachment()).expect("a frame of ours is well formed");
        let group = GroupName::parse(&body.group).expect("a queue has a good name");
        let name = QueueName { group, topic: TopicId(body.topic) };
        let (home, (high, low)) = (name.group.home(), body.member);
        let member = MemberId(u128::from(high) << 64 | u128::from(low));
        let Some(homed) = self.groups.queues_of(home).and_then(|queues| queues.by_name.get_mut(&name)) else { return };
        homed.queue.give_back(member, &runs_of(&body.leases));
        if homed.speakers.get(&member) == Some(&peer) {
            homed.speakers.remove(&member);
            homed.queue.take_credit(member);
        }
        let serial = homed.serial;
        self.touch_queue(&QueueKey { home, name, serial });
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
