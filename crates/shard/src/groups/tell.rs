//! What groups say, as answers and frames.

use std::collections::BTreeSet;

use bytes::Bytes;
use corelane_catalog::Catalog;
use corelane_group::{Assignment, FenceReason, Group, Start};
use corelane_model::{CorrelationId, ErrorCode, GroupName, MemberId, MonotonicNanos, PartitionId, TopicId};
use corelane_session::{Refused, Session};
use corelane_wire::{
    DescribeGroupAnswer, FetchOffsetsAnswer, GroupAssignment, GroupDone, HandOver, JoinGroupAnswer, ListGroupsAnswer,
    MemberFenced, OutFrame, OwnedPartition, PartitionRange, RevokedPartition, StageOffsetsAnswer, TopicLabel, encode,
    encode_with,
};

use super::home::Asked;
use crate::Shard;
use crate::ask::{Answer, Asker, Peer};
use crate::mesh::Message;
use crate::transactions::Apply;

/// Partitions and ranges in one frame of an assignment, each with the name of a topic at worst.
const ASSIGNMENT_PARTS_MAX: usize = 2048;
const _: () = assert!(ASSIGNMENT_PARTS_MAX * (29 + 16 + 256) < corelane_model::limits::FRAME_BYTES_MAX as usize);

/// The answer to a request for a group.
#[derive(Clone, Debug)]
pub(crate) enum GroupAnswer {
    Joined(JoinGroupAnswer),
    Done(GroupDone),
    Staged(StageOffsetsAnswer),
    Described(Box<DescribeGroupAnswer>),
    Offsets(FetchOffsetsAnswer),
    Listed(ListGroupsAnswer),
}

impl GroupAnswer {
    pub(crate) fn encode(&self, session: &mut Session, correlation: CorrelationId) -> OutFrame {
        match self {
            Self::Joined(body) => session.answer(correlation, body),
            Self::Done(body) => session.answer(correlation, body),
            Self::Staged(body) => session.answer(correlation, body),
            Self::Described(body) => session.answer(correlation, &**body),
            Self::Offsets(body) => session.answer(correlation, body),
            Self::Listed(body) => session.answer(correlation, body),
        }
    }
}

/// Something for somebody.
#[derive(Debug)]
pub(super) enum Telling {
    Answer(Asker, GroupAnswer),
    Refuse(Asker, Refused),
    Frame(Peer, OutFrame),
    /// A decision about a transaction is durable here.
    Applied(Apply),
}

impl Telling {
    /// What a request asked for is done.
    pub(super) fn done(asked: &Asked, group: &Group) -> Self {
        let generation = group.generation().0;
        let answer = match asked.joined {
            Some((session_timeout_ms, rebalance_timeout_ms)) => {
                let strategy = group.settings().strategy.name().to_owned();
                let body = JoinGroupAnswer { generation, strategy, session_timeout_ms, rebalance_timeout_ms };
                GroupAnswer::Joined(body)
            }
            None => match asked.staged {
                Some(offsets) => GroupAnswer::Staged(StageOffsetsAnswer { offsets }),
                None => GroupAnswer::Done(GroupDone { generation }),
            },
        };
        Self::Answer(asked.asker, answer)
    }

    /// The group went while the request waited.
    pub(super) fn gone(asker: Asker, group: &GroupName) -> Self {
        Self::Refuse(asker, Refused::new(ErrorCode::UnknownGroup, format!("consumer group {group} was deleted")))
    }
}

impl Shard {
    pub(super) fn tell(&mut self, tellings: Vec<Telling>) {
        for telling in tellings {
            match telling {
                Telling::Answer(asker, answer) => self.answer(asker, None, Answer::Group(answer)),
                Telling::Applied(apply) => self.on_apply_done(apply),
                Telling::Refuse(asker, refused) => self.refuse(asker, None, refused),
                Telling::Frame(Peer { shard, connection }, frame) if shard == self.me() => {
                    self.tell_member(connection, frame);
                }
                Telling::Frame(Peer { shard, connection }, frame) => {
                    self.send_mesh(shard, Message::Member { connection, frame });
                }
            }
        }
    }

    /// A frame for a member on a connection here; if that is gone the member hears of it after its next heartbeat.
    pub(crate) fn tell_member(&mut self, connection: corelane_model::ConnectionKey, frame: OutFrame) {
        if self.connections.contains_key(&connection) {
            self.send_control(connection, frame);
        }
    }
}

pub(crate) const fn member_on_wire(member: MemberId) -> (u64, u64) {
    let bytes = member.0.to_be_bytes();
    let [h0, h1, h2, h3, h4, h5, h6, h7, l0, l1, l2, l3, l4, l5, l6, l7] = bytes;
    (u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]), u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]))
}

pub(super) fn labels(catalog: &Catalog, topics: &BTreeSet<TopicId>) -> Vec<TopicLabel> {
    let named = topics.iter().filter_map(|&topic| catalog.topic(topic));
    named.map(|topic| TopicLabel { topic: topic.id.0, name: topic.name.as_str().to_owned() }).collect()
}

fn ranges(partitions: &[PartitionId]) -> Vec<PartitionRange> {
    PartitionRange::of(partitions.iter().map(|partition| (partition.topic.0, partition.index.0)))
}

/// A whole assignment, in as many frames as it takes.
pub(super) fn tell_assignment(
    out: &mut Vec<Telling>,
    peer: Peer,
    (group, member): (&GroupName, MemberId),
    now: MonotonicNanos,
    assignment: &Assignment,
    catalog: &Catalog,
) {
    let owned: Vec<OwnedPartition> = assignment
        .owned
        .iter()
        .map(|owned| OwnedPartition {
            topic: owned.partition.topic.0,
            partition: owned.partition.index.0,
            since: owned.since.0,
            committed: match owned.start {
                Start::Committed(offset) => Some(offset.0),
                Start::Policy(_) => None,
            },
        })
        .collect();
    let revoking: Vec<RevokedPartition> =
        assignment.revoking.iter().map(|revoked| revoked_on_wire(now, revoked)).collect();
    let standby = ranges(&assignment.standby);
    let (mut owned, mut revoking, mut standby) = (&owned[..], &revoking[..], &standby[..]);
    loop {
        let mut room = ASSIGNMENT_PARTS_MAX;
        let owned_part = take(&mut owned, &mut room);
        let revoking_part = take(&mut revoking, &mut room);
        let standby_part = take(&mut standby, &mut room);
        let topics = owned_part.iter().map(|part| part.topic);
        let topics = topics.chain(revoking_part.iter().map(|part| part.topic));
        let topics = topics.chain(standby_part.iter().map(|part| part.topic));
        let is_last = owned.is_empty() && revoking.is_empty() && standby.is_empty();
        let body = GroupAssignment {
            group: group.as_str().to_owned(),
            member: member_on_wire(member),
            generation: assignment.generation.0,
            is_last,
            topics: labels(catalog, &topics.map(TopicId).collect()),
            owned: owned_part.to_vec(),
            revoking: revoking_part.to_vec(),
            standby: standby_part.to_vec(),
        };
        out.push(Telling::Frame(peer, encode(CorrelationId(0), &body)));
        if is_last {
            return;
        }
    }
}

fn revoked_on_wire(now: MonotonicNanos, revoked: &corelane_group::RevokedPartition) -> RevokedPartition {
    RevokedPartition {
        topic: revoked.partition.topic.0,
        partition: revoked.partition.index.0,
        since: revoked.since.0,
        within_ms: u32::try_from(revoked.deadline.since(now).as_millis()).unwrap_or(u32::MAX),
    }
}

/// The first of a list, as many as there is room for.
fn take<'a, T>(list: &mut &'a [T], room: &mut usize) -> &'a [T] {
    let (first, rest) = list.split_at((*room).min(list.len()));
    *list = rest;
    *room -= first.len();
    first
}

pub(super) fn tell_hand_over(
    peer: Peer,
    group: &GroupName,
    member: MemberId,
    partition: PartitionId,
    blob: Bytes,
) -> Telling {
    let body = HandOver {
        group: group.as_str().to_owned(),
        member: member_on_wire(member),
        topic: partition.topic.0,
        partition: partition.index.0,
    };
    Telling::Frame(peer, encode_with(CorrelationId(0), &body, vec![blob]))
}

pub(super) fn tell_fence(peer: Peer, group: &GroupName, member: MemberId, reason: FenceReason) -> Telling {
    let number = match reason {
        FenceReason::SessionExpired => 1,
        FenceReason::RebalanceTimeout => 2,
        FenceReason::StaticIdTaken => 3,
        FenceReason::GroupDeleted => 4,
    };
    let body = MemberFenced {
        group: group.as_str().to_owned(),
        member: member_on_wire(member),
        reason: number,
        text: reason.to_string(),
    };
    Telling::Frame(peer, encode(CorrelationId(0), &body))
}

#[cfg(test)]
mod tests {
    use corelane_group::OwnedPartition as Owned;
    use corelane_model::{ConnectionKey, Generation, Offset, PartitionIndex, ShardId};
    use corelane_wire::{FrameDecoder, decode};

    use super::*;

    #[test]
    fn a_large_assignment_comes_in_several_frames_that_together_are_whole() {
        let partition = |index| PartitionId::new(TopicId(1), PartitionIndex(index));
        let owned = |index| Owned {
            partition: partition(index),
            since: Generation(3),
            start: Start::Committed(Offset(u64::from(index))),
        };
        let now = MonotonicNanos(3_000_000_000);
        let revoked = |index| corelane_group::RevokedPartition {
            partition: partition(index),
            since: Generation(2),
            deadline: MonotonicNanos(5_500_000_000),
        };
        let assignment = Assignment {
            generation: Generation(4),
            owned: (0..5000).map(owned).collect(),
            revoking: (6000..6010).map(revoked).collect(),
            standby: (7000..7003).map(partition).collect(),
        };
        let peer = Peer { shard: ShardId(0), connection: ConnectionKey(1) };
        let group = GroupName::parse("lobby").expect("a good name");
        let mut out = Vec::new();
        tell_assignment(&mut out, peer, (&group, MemberId(7)), now, &assignment, &Catalog::new(1));
        let mut decoder = FrameDecoder::default();
        let mut parts = Vec::new();
        for telling in out {
            let Telling::Frame(_, frame) = telling else { panic!("only frames") };
            frame.into_pieces().for_each(|piece| decoder.push(piece));
            while let Some(frame) = decoder.poll_frame().expect("whole frames") {
                parts.push(decode::<GroupAssignment>(&frame).expect("an assignment"));
            }
        }
        assert_eq!(parts.iter().map(|part| part.is_last).collect::<Vec<_>>(), [false, false, true]);
        let all: Vec<u32> = parts.iter().flat_map(|part| &part.owned).map(|owned| owned.partition).collect();
        assert_eq!(all, (0..5000).collect::<Vec<_>>());
        let revoking: Vec<_> = parts.iter().flat_map(|part| part.revoking.clone()).collect();
        assert_eq!(revoking.len(), 10);
        assert_eq!(revoking[0], RevokedPartition { topic: 1, partition: 6000, since: 2, within_ms: 2500 });
        assert_eq!(parts.iter().map(|part| part.standby.len()).sum::<usize>(), 1);
    }
}
