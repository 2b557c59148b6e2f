//! The real group machine behind frames: what a broker does between a member and its group.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_group::{
    AppendPosition, Commit, Effect, FenceReason, Group, GroupError, Join, Leave, Report, RequestTicket, Restore,
    Settings, Start, Subscription, TopicShape,
};
use corelane_model::{
    CorrelationId, ErrorCode, Generation, GroupName, MemberId, Now, Offset, PartitionId, PartitionIndex, ResetPolicy,
    StaticId, Strategy, TopicId, TopicName,
};
use corelane_wire::{
    CommitOffsets, Frame, FrameKind, GiveUp, GroupAssignment, GroupDone, GroupHeartbeat, HandOver, JoinGroup,
    JoinGroupAnswer, LeaveGroup, MemberFenced, OutFrame, OwnedPartition, PartitionRange, Refusal, RevokedPartition,
    TopicLabel, decode, encode, encode_with,
};

/// Who waits for what.
#[derive(Debug)]
struct Waiting {
    connection: u64,
    correlation: CorrelationId,
    is_join: bool,
}

#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) group: Group,
    name: GroupName,
    topics: BTreeMap<String, (u64, u32)>,
    waiting: BTreeMap<RequestTicket, Waiting>,
    /// Where each member spoke last.
    spoken: BTreeMap<MemberId, u64>,
    next_ticket: u64,
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    base: usize,
    pub(crate) outbox: Vec<(u64, OutFrame)>,
    pub(crate) commits: u64,
    /// What is refused as busy when it comes next, each once.
    pub(crate) busy_for: Vec<FrameKind>,
    /// Reports that said in full what is held.
    pub(crate) full_reports: u64,
}

fn member((high, low): (u64, u64)) -> MemberId {
    MemberId(u128::from(high) << 64 | u128::from(low))
}

fn halves(member: MemberId) -> (u64, u64) {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap();
    (half(member.0 >> 64), half(member.0))
}

fn ids(ranges: &[PartitionRange]) -> Vec<PartitionId> {
    let all = ranges.iter().flat_map(|range| range.partitions());
    all.map(|(topic, index)| PartitionId::new(TopicId(topic), PartitionIndex(index))).collect()
}

fn revoked_on_wire(now: Now, revoked: &corelane_group::RevokedPartition) -> RevokedPartition {
    RevokedPartition {
        topic: revoked.partition.topic.0,
        partition: revoked.partition.index.0,
        since: revoked.since.0,
        within_ms: u32::try_from(revoked.deadline.since(now.monotonic).as_millis()).unwrap(),
    }
}

fn ranges(partitions: &[PartitionId]) -> Vec<PartitionRange> {
    PartitionRange::of(partitions.iter().map(|partition| (partition.topic.0, partition.index.0)))
}

impl Coordinator {
    pub(crate) fn new(now: Now, name: &str, settings: Settings, topics: BTreeMap<String, (u64, u32)>) -> Self {
        let name = GroupName::parse(name).unwrap();
        Self {
            group: Group::new(now, name.clone(), settings).unwrap(),
            name,
            topics,
            waiting: BTreeMap::new(),
            spoken: BTreeMap::new(),
            next_ticket: 0,
            log: Vec::new(),
            base: 0,
            outbox: Vec::new(),
            commits: 0,
            busy_for: Vec::new(),
            full_reports: 0,
        }
    }

    pub(crate) fn crash(&mut self, now: Now) {
        let mut restore = Restore::new(self.name.clone());
        for (key, value) in &self.log {
            restore.apply(key, value.as_deref()).unwrap();
        }
        let topics = self.topics.clone();
        self.group = restore.finish(now, |subscription| resolve(&topics, subscription));
        self.base = self.log.len();
        self.waiting.clear();
        self.spoken.clear();
        self.outbox.clear();
    }

    /// Time passes.
    pub(crate) fn advance(&mut self, now: Now) {
        if self.group.next_deadline().is_some_and(|at| at <= now.monotonic) {
            self.group.on_deadline(now);
        }
        self.finish(now);
    }

    pub(crate) fn handle(&mut self, now: Now, connection: u64, frame: &Frame) {
        self.next_ticket += 1;
        let ticket = RequestTicket(self.next_ticket);
        let correlation = frame.head.correlation;
        let is_join = frame.head.kind == FrameKind::JoinGroup;
        if let Some(at) = self.busy_for.iter().position(|&kind| kind == frame.head.kind) {
            self.busy_for.remove(at);
            let refusal = Refusal { code: ErrorCode::Busy.to_wire(), text: "the log is full".to_owned() };
            return self.outbox.push((connection, encode(correlation, &refusal)));
        }
        self.waiting.insert(ticket, Waiting { connection, correlation, is_join });
        if let Err(error) = self.call(now, ticket, connection, frame) {
            self.waiting.remove(&ticket);
            let refusal = Refusal { code: error.code().to_wire(), text: error.to_string() };
            self.outbox.push((connection, encode(correlation, &refusal)));
        }
        self.finish(now);
    }

    fn call(&mut self, now: Now, ticket: RequestTicket, connection: u64, frame: &Frame) -> Result<(), GroupError> {
        match frame.head.kind {
            FrameKind::JoinGroup => {
                let join = self.join(&decode::<JoinGroup>(frame).unwrap());
                self.spoken.insert(join.member, connection);
                self.group.join(now, ticket, join)
            }
            FrameKind::GroupHeartbeat => {
                let body = decode::<GroupHeartbeat>(frame).unwrap();
                let holds = body.holds.as_deref().map(ids);
                self.full_reports += u64::from(holds.is_some());
                let report = Report {
                    seen: Generation(body.seen),
                    holds: holds.as_deref(),
                    processing_micros: body.processing_micros,
                };
                self.spoken.insert(member(body.member), connection);
                self.group.heartbeat(now, member(body.member), report)?;
                self.done(ticket);
                Ok(())
            }
            FrameKind::GiveUp => {
                let body = decode::<GiveUp>(frame).unwrap();
                let partition = PartitionId::new(TopicId(body.topic), PartitionIndex(body.partition));
                let blob = Some(Bytes::copy_from_slice(&frame.attachment)).filter(|blob| !blob.is_empty());
                self.spoken.insert(member(body.member), connection);
                self.group.give_up(now, member(body.member), Generation(body.seen), partition, blob)?;
                self.done(ticket);
                Ok(())
            }
            FrameKind::CommitOffsets => {
                let body = decode::<CommitOffsets>(frame).unwrap();
                let commits: Vec<Commit> = body
                    .offsets
                    .iter()
                    .map(|offset| {
                        let partition = PartitionId::new(TopicId(offset.topic), PartitionIndex(offset.partition));
                        Commit::new(partition, Offset(offset.offset))
                    })
                    .collect();
                self.commits += 1;
                self.spoken.insert(member(body.member), connection);
                self.group.commit(now, ticket, member(body.member), Generation(body.generation), &commits)
            }
            FrameKind::LeaveGroup => {
                let body = decode::<LeaveGroup>(frame).unwrap();
                let leave = if body.is_restarting { Leave::Restarting } else { Leave::ForGood };
                self.group.leave(now, ticket, member(body.member), leave)
            }
            kind => panic!("{kind:?} is no frame of a member"),
        }
    }

    fn join(&self, body: &JoinGroup) -> Join {
        let topics = body.topics.iter().map(|name| TopicName::parse(name).unwrap()).collect();
        let subscription = Subscription { topics, pattern: body.pattern.clone() };
        let shapes = resolve(&self.topics, &subscription);
        Join {
            static_id: body.static_id.as_deref().map(|id| StaticId::parse(id).unwrap()),
            strategy: body.strategy.as_deref().map(|name| Strategy::parse(name).unwrap()),
            capacity: body.capacity,
            session_timeout: Duration::from_millis(u64::from(body.session_timeout_ms)),
            rebalance_timeout: Duration::from_millis(u64::from(body.rebalance_timeout_ms)),
            reset: ResetPolicy::Earliest,
            ..Join::new(member(body.member), subscription, shapes)
        }
    }

    pub(crate) fn finish(&mut self, now: Now) {
        self.group.finish_round(now);
        self.drain(now);
        self.group.on_durable(AppendPosition((self.log.len() - self.base) as u64));
        self.drain(now);
    }

    fn done(&mut self, ticket: RequestTicket) {
        let Some(Waiting { connection, correlation, is_join }) = self.waiting.remove(&ticket) else { return };
        let answer = if is_join {
            let (session_timeout_ms, rebalance_timeout_ms) = (0, 0);
            let strategy = String::new();
            encode(correlation, &JoinGroupAnswer { generation: 0, strategy, session_timeout_ms, rebalance_timeout_ms })
        } else {
            encode(correlation, &GroupDone { generation: 0 })
        };
        self.outbox.push((connection, answer));
    }

    fn tell(&mut self, member: MemberId, frame: OutFrame) {
        if let Some(&connection) = self.spoken.get(&member) {
            self.outbox.push((connection, frame));
        }
    }

    fn drain(&mut self, now: Now) {
        let group = self.name.as_str().to_owned();
        while let Some(effect) = self.group.poll_effect() {
            match effect {
                Effect::Append { key, value, .. } => self.log.push((key, value)),
                Effect::Done { ticket } => self.done(ticket),
                Effect::Assign { member, assignment } => {
                    let label = |(name, &(topic, _)): (&String, &(u64, u32))| TopicLabel { topic, name: name.clone() };
                    let owned = assignment.owned.iter().map(|owned| OwnedPartition {
                        topic: owned.partition.topic.0,
                        partition: owned.partition.index.0,
                        since: owned.since.0,
                        committed: match owned.start {
                            Start::Committed(offset) => Some(offset.0),
                            Start::Policy(_) => None,
                        },
                    });
                    let body = GroupAssignment {
                        group: group.clone(),
                        member: halves(member),
                        generation: assignment.generation.0,
                        is_last: true,
                        topics: self.topics.iter().map(label).collect(),
                        owned: owned.collect(),
                        revoking: assignment.revoking.iter().map(|revoked| revoked_on_wire(now, revoked)).collect(),
                        standby: ranges(&assignment.standby),
                    };
                    self.tell(member, encode(CorrelationId(0), &body));
                }
                Effect::HandOver { member, partition, blob } => {
                    let (topic, index) = (partition.topic.0, partition.index.0);
                    let body = HandOver { group: group.clone(), member: halves(member), topic, partition: index };
                    self.tell(member, encode_with(CorrelationId(0), &body, vec![blob]));
                }
                Effect::Fence { member, reason } => {
                    let number = match reason {
                        FenceReason::SessionExpired => 1,
                        FenceReason::RebalanceTimeout => 2,
                        FenceReason::StaticIdTaken => 3,
                        FenceReason::GroupDeleted => 4,
                    };
                    let body = MemberFenced {
                        group: group.clone(),
                        member: halves(member),
                        reason: number,
                        text: reason.to_string(),
                    };
                    self.tell(member, encode(CorrelationId(0), &body));
                }
                Effect::Remove => {}
            }
        }
    }
}

fn resolve(topics: &BTreeMap<String, (u64, u32)>, subscription: &Subscription) -> Vec<TopicShape> {
    let is_wanted = |name: &String| subscription.topics.iter().any(|topic| topic.as_str() == name);
    let wanted = topics.iter().filter(|(name, _)| is_wanted(name));
    wanted.map(|(_, &(topic, partitions))| TopicShape { topic: TopicId(topic), partitions }).collect()
}
