//! A member of a consumer group that keeps to what docs/groups.md asks of its client.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_model::{CorrelationId, ErrorCode};
use corelane_wire::{
    CommitOffsets, GiveUp, GroupAssignment, GroupDone, GroupHeartbeat, HandOver, JoinGroup, JoinGroupAnswer,
    LeaveGroup, MemberFenced, OffsetCommit, PartitionRange, ResetPolicy, encode_with,
};

use crate::world::{Client, World, frame_of};

pub(crate) type Partition = (u64, u32);

/// What a member has, as it was told.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) group: String,
    pub(crate) id: (u64, u64),
    pub(crate) generation: u64,
    /// Since when it has each of its partitions, and where it began.
    pub(crate) owned: BTreeMap<Partition, (u64, Option<u64>)>,
    pub(crate) revoking: BTreeSet<Partition>,
    pub(crate) standby: Vec<PartitionRange>,
    pub(crate) handed_over: Vec<(Partition, Bytes)>,
    pub(crate) fenced: Option<(u8, String)>,
    /// An assignment that has not come whole yet.
    half: Option<GroupAssignment>,
}

pub(crate) fn join_of(group: &str, id: u64, topics: &[&str]) -> JoinGroup {
    JoinGroup {
        group: group.to_owned(),
        member: (id, !id),
        static_id: None,
        topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        pattern: None,
        strategy: None,
        capacity: 1,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        reset: ResetPolicy { kind: 0, value: 0 },
    }
}

impl Member {
    /// Joins, runs, and takes in what it is told.
    pub(crate) fn join(world: &mut World, client: Client, join: &JoinGroup) -> Result<Self, (ErrorCode, String)> {
        let answer: JoinGroupAnswer = world.ask(client, join)?;
        let mut member = Self::new(client, join);
        member.generation = answer.generation;
        member.hear(world);
        Ok(member)
    }

    pub(crate) fn new(client: Client, join: &JoinGroup) -> Self {
        Self {
            client,
            group: join.group.clone(),
            id: join.member,
            generation: 0,
            owned: BTreeMap::new(),
            revoking: BTreeSet::new(),
            standby: Vec::new(),
            handed_over: Vec::new(),
            fenced: None,
            half: None,
        }
    }

    /// Takes in what came for it on its connection; what is for others stays there.
    pub(crate) fn hear(&mut self, world: &mut World) {
        let is_mine = |frame: &corelane_wire::Frame, member: &Self| {
            use corelane_wire::decode;
            decode::<GroupAssignment>(frame).is_ok_and(|told| told.member == member.id && told.group == member.group)
                || decode::<HandOver>(frame).is_ok_and(|told| told.member == member.id && told.group == member.group)
                || decode::<MemberFenced>(frame)
                    .is_ok_and(|told| told.member == member.id && told.group == member.group)
        };
        let control = &mut world.inbox(self.client).control;
        let (mine, rest) = std::mem::take(control).into_iter().partition::<Vec<_>, _>(|frame| is_mine(frame, self));
        *control = rest.into();
        for frame in mine {
            if let Ok(part) = corelane_wire::decode::<GroupAssignment>(&frame) {
                self.hear_assignment(part);
            } else if let Ok(told) = corelane_wire::decode::<HandOver>(&frame) {
                self.handed_over.push(((told.topic, told.partition), frame.attachment));
            } else if let Ok(told) = corelane_wire::decode::<MemberFenced>(&frame) {
                self.fenced = Some((told.reason, told.text));
                self.owned.clear();
                self.revoking.clear();
            }
        }
    }

    fn hear_assignment(&mut self, part: GroupAssignment) {
        let mut whole = match self.half.take() {
            Some(mut half) => {
                half.owned.extend(part.owned);
                half.revoking.extend(part.revoking);
                half.standby.extend(part.standby);
                half
            }
            None => part.clone(),
        };
        if !part.is_last {
            self.half = Some(whole);
            return;
        }
        whole.is_last = true;
        self.generation = whole.generation;
        let owned = whole.owned.iter().map(|owned| ((owned.topic, owned.partition), (owned.since, owned.committed)));
        self.owned = owned.collect();
        self.revoking = whole.revoking.into_iter().map(|revoked| (revoked.topic, revoked.partition)).collect();
        self.standby = whole.standby;
    }

    pub(crate) fn partitions(&self) -> Vec<Partition> {
        self.owned.keys().copied().collect()
    }

    /// Says all that it works on, runs, and takes in what it is told. What is asked back is given up by that.
    pub(crate) fn report(&mut self, world: &mut World) -> Result<GroupDone, (ErrorCode, String)> {
        let holds = Some(PartitionRange::of(self.owned.keys().copied()));
        let body = GroupHeartbeat {
            group: self.group.clone(),
            member: self.id,
            seen: self.generation,
            holds,
            processing_micros: None,
        };
        let answer = world.ask(self.client, &body);
        self.hear(world);
        answer
    }

    pub(crate) fn heartbeat(&mut self, world: &mut World) -> Result<GroupDone, (ErrorCode, String)> {
        let body = GroupHeartbeat {
            group: self.group.clone(),
            member: self.id,
            seen: self.generation,
            holds: None,
            processing_micros: None,
        };
        let answer = world.ask(self.client, &body);
        self.hear(world);
        answer
    }

    pub(crate) fn give_up(
        &mut self,
        world: &mut World,
        partition: Partition,
        blob: &[u8],
    ) -> Result<GroupDone, (ErrorCode, String)> {
        let body = GiveUp {
            group: self.group.clone(),
            member: self.id,
            seen: self.generation,
            topic: partition.0,
            partition: partition.1,
        };
        let correlation = 1_000_000 + u64::from(partition.1);
        let pieces = if blob.is_empty() { Vec::new() } else { vec![Bytes::copy_from_slice(blob)] };
        world.send_frame(self.client, frame_of(encode_with(CorrelationId(correlation), &body, pieces)));
        world.run();
        let answer = world.answer(self.client, correlation).expect("giving up is answered at once");
        self.hear(world);
        answer
    }

    pub(crate) fn commit_of(&self, offsets: &[(Partition, u64)]) -> CommitOffsets {
        let commit = |&((topic, partition), offset): &(Partition, u64)| OffsetCommit {
            topic,
            partition,
            offset,
            leader_epoch: 0,
            metadata: format!("at {offset}"),
        };
        let offsets = offsets.iter().map(commit).collect();
        CommitOffsets { group: self.group.clone(), member: self.id, generation: self.generation, offsets }
    }

    pub(crate) fn commit(
        &mut self,
        world: &mut World,
        offsets: &[(Partition, u64)],
    ) -> Result<GroupDone, (ErrorCode, String)> {
        let answer = world.ask(self.client, &self.commit_of(offsets));
        self.hear(world);
        answer
    }

    pub(crate) fn leave_of(&self, is_restarting: bool) -> LeaveGroup {
        LeaveGroup { group: self.group.clone(), member: self.id, is_restarting }
    }
}

/// Lets members take in, report and give up until nothing moves any more.
pub(crate) fn settle(world: &mut World, members: &mut [&mut Member]) {
    for _ in 0..20 {
        world.run();
        for member in members.iter_mut() {
            member.hear(world);
            if member.fenced.is_none() {
                member.report(world).expect("a member of the group");
            }
        }
    }
    for member in members.iter() {
        assert!(member.revoking.is_empty(), "{member:?} was asked for something that it has given up");
    }
}
