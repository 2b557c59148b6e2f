//! A group in full, with the lag that the owners of its partitions know, and its committed offsets. Queues ask the owners
//! in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_group::{GroupDescription, GroupState, MemberDescription, MemberState};
use corelane_model::{ErrorCode, MonotonicNanos, Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use corelane_session::{GroupAsk, Refused};
use corelane_wire::{
    DescribeGroupAnswer, DescribeQueueAnswer, FetchOffsetsAnswer, FetchedOffset, GroupMember, GroupPartition,
    GroupSummary,
};

use super::GroupRequest;
use super::home::{Coordinated, HeldAnswer};
use super::lag::GroupLagging;
use super::tell::{GroupAnswer, labels, member_on_wire};
use crate::Shard;
use crate::ask::{Answer, Asker};
use crate::mesh::Message;
use crate::queues::{QueueAnswer, QueueKey, fill_in_queue};

/// How long a description waits for other shards before it leaves their lag out.
const LAG_WAIT: Duration = Duration::from_secs(1);
/// Members in one answer.
const MEMBERS_PAGE: usize = 256;
/// Partitions in one answer.
const PARTITIONS_PAGE: usize = 1024;
/// Bytes of metadata in one answer, beyond which it is cut.
const METADATA_PAGE_BYTES: usize = 256 << 10;
/// Bytes of answers with offsets that a home holds until they are durable; more are refused. One has room in any case.
const HOME_HELD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a subscription that are shown.
const SUBSCRIPTION_BYTES_MAX: usize = 1024;

const _: () = assert!(
    MEMBERS_PAGE * (SUBSCRIPTION_BYTES_MAX + 512) + PARTITIONS_PAGE * 384 + METADATA_PAGE_BYTES + 8192
        < corelane_model::limits::FRAME_BYTES_MAX as usize
);

/// What the owner of a partition says of a group's progress in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LagOf {
    pub(crate) partition: PartitionId,
    log_start: Offset,
    high_watermark: Offset,
    /// Where readers of committed records end.
    pub(crate) stable_end: Offset,
    pub(super) lag: Option<u64>,
    /// Age of the first record that is not done; zero when there is none.
    pub(crate) lag_ms: Option<u64>,
}

/// What lag is asked for.
#[derive(Debug)]
pub(crate) enum Lagging {
    Group(Asker, Box<DescribeGroupAnswer>),
    Queue(Asker, QueueKey, Box<DescribeQueueAnswer>),
    /// For the next status of the shard.
    Status(QueueKey),
    /// The same of a consumer group.
    GroupStatus(GroupLagging),
}

/// Something that waits for other shards.
#[derive(Debug)]
struct Describing {
    what: Lagging,
    missing: usize,
    deadline: MonotonicNanos,
}

/// Descriptions that wait, by ticket and thus by deadline.
#[derive(Debug, Default)]
pub(crate) struct Lags {
    waiting: BTreeMap<u64, Describing>,
}

impl Lags {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn deadline(&self) -> Option<MonotonicNanos> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.deadline)
    }

    pub(super) fn take_askers(&mut self) -> impl Iterator<Item = Asker> + use<> {
        std::mem::take(&mut self.waiting).into_values().filter_map(|waiting| match waiting.what {
            Lagging::Group(asker, _) | Lagging::Queue(asker, ..) => Some(asker),
            Lagging::Status(_) | Lagging::GroupStatus(_) => None,
        })
    }

    /// Whether owners have not yet answered what the last status asked.
    pub(crate) fn is_status_waiting(&self) -> bool {
        self.waiting.values().any(|waiting| matches!(waiting.what, Lagging::Status(_) | Lagging::GroupStatus(_)))
    }
}

impl Shard {
    /// Answers with a page of a group, when the owners have said the lag.
    pub(super) fn describe_group(&mut self, index: PartitionIndex, request: &GroupRequest) {
        let GroupAsk::Describe { after_member, most_members, after_partition, most_partitions } = request.ask else {
            panic!("only descriptions come here");
        };
        let Some(known) = self.groups.homes.get(&index).and_then(|home| home.groups.get(&request.group)) else {
            return;
        };
        let described = known.group.describe(self.now);
        let mut answer = Box::new(DescribeGroupAnswer {
            summary: summary_of(&described),
            standbys: described.settings.standbys,
            retention_ms: u64::try_from(described.settings.retention.as_millis()).unwrap_or(u64::MAX),
            partition_count: u32::try_from(described.partitions.len()).unwrap_or(u32::MAX),
            members: Vec::new(),
            is_members_cut: false,
            topics: Vec::new(),
            partitions: Vec::new(),
            is_partitions_cut: false,
        });
        let most = (most_members as usize).min(MEMBERS_PAGE);
        let mut members =
            described.members.iter().filter(|member| after_member.is_none_or(|after| after < member.member));
        answer.members = members.by_ref().take(most).map(member_of).collect();
        answer.is_members_cut = members.next().is_some();
        let wants = page_of_partitions(&mut answer, &described, after_partition, most_partitions);
        let topics: BTreeSet<TopicId> = wants.iter().map(|(partition, _)| partition.topic).collect();
        answer.topics = labels(self.catalog.as_ref().expect("homes are open"), &topics);
        self.gather_lag(Lagging::Group(request.asker, answer), wants);
    }

    /// Asks the owners of partitions, from these offsets on.
    pub(crate) fn gather_lag(&mut self, what: Lagging, wants: Vec<(PartitionId, Option<Offset>)>) {
        let mut by_owner: BTreeMap<ShardId, Vec<(PartitionId, Option<Offset>)>> = BTreeMap::new();
        for (partition, committed) in wants {
            let topic = self.catalog.as_ref().and_then(|catalog| catalog.topic(partition.topic));
            if let Some(&owner) = topic.and_then(|topic| topic.shards.get(partition.index.0 as usize)) {
                by_owner.entry(owner).or_default().push((partition, committed));
            }
        }
        let own = by_owner.remove(&self.me()).unwrap_or_default();
        let ticket = self.groups.ticket();
        let deadline = self.now.monotonic.after(LAG_WAIT);
        let missing = by_owner.len();
        self.groups.lags.waiting.insert(ticket, Describing { what, missing: missing + 1, deadline });
        for (owner, wants) in by_owner {
            self.send_mesh(owner, Message::AskLag { ticket, wants });
        }
        let own = self.lag_of(&own);
        self.on_lag(ticket, &own);
    }

    /// What this shard knows of its partitions.
    pub(crate) fn lag_of(&self, wants: &[(PartitionId, Option<Offset>)]) -> Vec<LagOf> {
        if self.phase.recovery().is_none() {
            return Vec::new();
        }
        let lag = |&(partition, committed): &(PartitionId, Option<Offset>)| {
            let status = self.storage.describe(partition)?;
            let (log_start, high_watermark) = (status.log_start, status.high_watermark);
            // Where a turn begins without a committed offset only its reader knows; in an empty log it is behind nothing.
            let is_empty = high_watermark <= log_start;
            let next = committed.map(|committed| committed.max(log_start)).or_else(|| is_empty.then_some(log_start));
            let lag = next.map(|next| high_watermark.0.saturating_sub(next.0));
            let age = |next| {
                let appended = self.storage.append_time(partition, next)?;
                Some(self.now.wall.millis_since(appended))
            };
            let lag_ms = next.and_then(|next| if next < high_watermark { age(next) } else { Some(0) });
            let stable_end = self.storage.last_stable_offset(partition).unwrap_or(high_watermark);
            Some(LagOf { partition, log_start, high_watermark, stable_end, lag, lag_ms })
        };
        wants.iter().filter_map(lag).collect()
    }

    /// An owner said what it knows.
    pub(crate) fn on_lag(&mut self, ticket: u64, lags: &[LagOf]) {
        // An answer that comes too late belongs to nobody.
        let Some(waiting) = self.groups.lags.waiting.get_mut(&ticket) else { return };
        waiting.missing -= 1;
        match &mut waiting.what {
            Lagging::Group(_, answer) => fill_in_group(answer, lags),
            Lagging::Queue(_, key, answer) => {
                let key = key.clone();
                fill_in_queue(answer, lags);
                self.note_queue_ends(&key, lags);
            }
            Lagging::Status(key) => {
                let key = key.clone();
                self.note_queue_ends(&key, lags);
            }
            Lagging::GroupStatus(lagging) => lagging.add(lags),
        }
        self.finish_lag(ticket);
    }

    pub(super) fn expire_lags(&mut self) {
        while let Some(mut first) = self.groups.lags.waiting.first_entry()
            && first.get().deadline <= self.now.monotonic
        {
            // A lag without some owners' part would say that it got better.
            if matches!(first.get().what, Lagging::GroupStatus(_)) {
                first.remove();
                continue;
            }
            first.get_mut().missing = 0;
            let ticket = *first.key();
            self.finish_lag(ticket);
        }
    }

    fn finish_lag(&mut self, ticket: u64) {
        if self.groups.lags.waiting.get(&ticket).is_some_and(|waiting| waiting.missing == 0) {
            let Describing { what, .. } = self.groups.lags.waiting.remove(&ticket).expect("it was just there");
            match what {
                Lagging::Group(asker, answer) => {
                    self.answer(asker, None, Answer::Group(GroupAnswer::Described(answer)));
                }
                Lagging::Queue(asker, _, answer) => {
                    self.answer(asker, None, Answer::Queue(QueueAnswer::Described(answer)));
                }
                Lagging::Status(_) => {}
                Lagging::GroupStatus(lagging) => self.note_group_lag(lagging),
            }
        }
    }

    /// Answers with committed offsets, when all of them are durable.
    pub(super) fn fetch_offsets(&mut self, index: PartitionIndex, request: &GroupRequest) {
        let GroupAsk::FetchOffsets { after, partitions } = &request.ask else { panic!("only fetches come here") };
        let Some(home) = self.groups.homes.get_mut(&index) else { return };
        let Some(known) = home.groups.get_mut(&request.group) else { return };
        let asked: BTreeSet<(u64, u32)> = partitions.iter().flat_map(|range| range.partitions()).collect();
        let wanted = |partition: PartitionId| {
            after.is_none_or(|after| after < partition)
                && (asked.is_empty() || asked.contains(&(partition.topic.0, partition.index.0)))
        };
        let mut answer = FetchOffsetsAnswer { offsets: Vec::new(), is_cut: false };
        let mut bytes = 0;
        for (partition, committed) in known.group.offsets().filter(|&(partition, _)| wanted(partition)) {
            bytes += committed.metadata.len();
            if answer.offsets.len() == PARTITIONS_PAGE || METADATA_PAGE_BYTES < bytes {
                answer.is_cut = true;
                break;
            }
            answer.offsets.push(FetchedOffset {
                topic: partition.topic.0,
                partition: partition.index.0,
                offset: committed.offset.0,
                leader_epoch: committed.leader_epoch.0,
                committed_ms: committed.at.0,
                metadata: committed.metadata.clone(),
            });
        }
        let bytes = bytes + answer.offsets.len() * size_of::<FetchedOffset>();
        let would = home.held_bytes + bytes;
        if 0 < home.held_bytes && HOME_HELD_BYTES_MAX < would {
            let text = format!("answers of {would} bytes with offsets wait for the disk; try again in a moment");
            return self.refuse(request.asker, None, Refused::new(ErrorCode::Busy, text));
        }
        home.held_bytes = would;
        let answer = GroupAnswer::Offsets(answer);
        known.held.push_back(HeldAnswer { position: None, asker: request.asker, answer, bytes });
        home.touch(&request.group);
    }
}

fn fill_in_group(answer: &mut DescribeGroupAnswer, lags: &[LagOf]) {
    let lags: BTreeMap<(u64, u32), &LagOf> =
        lags.iter().map(|lag| ((lag.partition.topic.0, lag.partition.index.0), lag)).collect();
    for partition in &mut answer.partitions {
        let Some(lag) = lags.get(&(partition.topic, partition.partition)) else { continue };
        partition.log_start = Some(lag.log_start.0);
        partition.high_watermark = Some(lag.high_watermark.0);
        (partition.lag, partition.lag_ms) = (lag.lag, lag.lag_ms);
    }
}

/// The partitions of a page, and what the owners are asked about them.
fn page_of_partitions(
    answer: &mut DescribeGroupAnswer,
    described: &GroupDescription,
    after: Option<PartitionId>,
    most: u32,
) -> Vec<(PartitionId, Option<Offset>)> {
    let most = (most as usize).min(PARTITIONS_PAGE);
    let revoking: BTreeSet<PartitionId> =
        described.members.iter().flat_map(|member| &member.revoking).copied().collect();
    let mut wants = Vec::new();
    let mut bytes = 0;
    for known in described.partitions.iter().filter(|known| after.is_none_or(|after| after < known.partition)) {
        let metadata = known.committed.as_ref().map(|committed| committed.metadata.clone()).unwrap_or_default();
        bytes += metadata.len();
        if wants.len() == most || METADATA_PAGE_BYTES < bytes {
            answer.is_partitions_cut = true;
            break;
        }
        let committed = known.committed.as_ref().map(|committed| committed.offset);
        wants.push((known.partition, committed));
        answer.partitions.push(GroupPartition {
            topic: known.partition.topic.0,
            partition: known.partition.index.0,
            owner: known.owner.map(member_on_wire),
            is_revoking: revoking.contains(&known.partition),
            committed: committed.map(|committed| committed.0),
            committed_ms: known.committed.as_ref().map_or(0, |committed| committed.at.0),
            metadata,
            log_start: None,
            high_watermark: None,
            lag: None,
            lag_ms: None,
        });
    }
    wants
}

pub(super) fn summary_of(described: &GroupDescription) -> GroupSummary {
    let owned = described.partitions.iter().filter(|partition| partition.owner.is_some()).count();
    GroupSummary {
        name: described.name.as_str().to_owned(),
        state: state_on_wire(described.state),
        strategy: described.settings.strategy.name().to_owned(),
        generation: described.generation.0,
        members: u32::try_from(described.members.len()).unwrap_or(u32::MAX),
        owned: u32::try_from(owned).unwrap_or(u32::MAX),
    }
}

/// A group in one line, without looking at each of its partitions in full.
pub(super) fn summary(known: &Coordinated) -> GroupSummary {
    let group = &known.group;
    GroupSummary {
        name: group.name().as_str().to_owned(),
        state: state_on_wire(group.state()),
        strategy: group.settings().strategy.name().to_owned(),
        generation: group.generation().0,
        members: u32::try_from(group.members_len()).unwrap_or(u32::MAX),
        owned: u32::try_from(group.slots_len()).unwrap_or(u32::MAX),
    }
}

const fn state_on_wire(state: GroupState) -> u8 {
    match state {
        GroupState::Empty => 0,
        GroupState::Stable => 1,
        GroupState::Reconciling => 2,
        GroupState::Draining => 3,
        GroupState::Drained => 4,
        GroupState::Deleted => 5,
    }
}

fn member_of(member: &MemberDescription) -> GroupMember {
    let count = |partitions: &[PartitionId]| u32::try_from(partitions.len()).unwrap_or(u32::MAX);
    let mut subscription = member.subscription.to_string();
    subscription.truncate(subscription.floor_char_boundary(SUBSCRIPTION_BYTES_MAX));
    GroupMember {
        member: member_on_wire(member.member),
        static_id: member.static_id.as_ref().map(|id| id.as_str().to_owned()),
        client: member.client.clone(),
        state: match member.state {
            MemberState::Stable => 0,
            MemberState::GivingUp => 1,
            MemberState::Awaiting => 2,
            MemberState::Away => 3,
        },
        subscription,
        capacity: member.capacity,
        processing_micros: member.processing_micros,
        silent_ms: u64::try_from(member.silent.as_millis()).unwrap_or(u64::MAX),
        owned: count(&member.owned),
        revoking: count(&member.revoking),
        awaiting: count(&member.awaiting),
        standby: count(&member.standby),
    }
}
