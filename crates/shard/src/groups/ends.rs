//! Ends of logs that other shards own, for commits that must not lie beyond them.
//!
//! What is known of an end is a lower bound: logs grow. A commit below it needs nothing; one above waits until the owner
//! has answered a question that was asked after the commit came. All questions of a round to one shard are one message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_model::limits::PARTITIONS_MAX;
use corelane_model::{ErrorCode, GroupName, MemberId, Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use corelane_session::{GroupAsk, Refused};

use super::GroupRequest;
use super::home::Coordinated;
use crate::Shard;
use crate::mesh::Message;

/// Requests of one group that wait for ends at once; more are refused.
const PARKED_MAX: usize = 4096;

/// Known ends, and who waits for unknown ones.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// What the owner said to the question of that number; `None` when it could not say.
    known: BTreeMap<PartitionId, (Option<Offset>, u64)>,
    /// What is to be asked at the end of the round.
    wanted: BTreeMap<ShardId, BTreeSet<PartitionId>>,
    /// Number of the last question.
    asked: u64,
    /// Groups with parked requests.
    waiting: BTreeSet<(PartitionIndex, GroupName)>,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(super) request: GroupRequest,
    /// Answers to questions from this number on are new enough; `None` if it waits behind another of its member and has
    /// asked nothing yet.
    needs: Option<u64>,
}

/// What is known of the ends that a request needs.
pub(super) enum Known {
    /// Of each partition, in the order of the request.
    All(Vec<Offset>),
    /// These owners have to be asked first.
    Missing(Vec<(ShardId, PartitionId)>),
    /// There is no such partition, or its owner cannot say.
    Never(Refused),
}

/// The partitions and offsets that a request puts somewhere.
pub(super) fn offsets_of(ask: &GroupAsk) -> Vec<(PartitionId, Offset)> {
    let partition = |topic, index| PartitionId::new(TopicId(topic), PartitionIndex(index));
    match ask {
        GroupAsk::Commit { offsets, .. } | GroupAsk::Stage { offsets, .. } => {
            offsets.iter().map(|commit| (partition(commit.topic, commit.partition), Offset(commit.offset))).collect()
        }
        GroupAsk::ResetOffsets { resets, .. } => {
            let set = resets.iter().filter_map(|reset| Some((reset, reset.offset?)));
            set.map(|(reset, offset)| (partition(reset.topic, reset.partition), Offset(offset))).collect()
        }
        _ => Vec::new(),
    }
}

impl Shard {
    /// The ends for offsets. Answers to questions from number `needs` on are taken as they are.
    pub(super) fn ends_for(&self, offsets: &[(PartitionId, Offset)], needs: Option<u64>) -> Known {
        let mut ends = Vec::with_capacity(offsets.len());
        let mut missing = Vec::new();
        for &(partition, offset) in offsets {
            let topic = self.catalog.as_ref().and_then(|catalog| catalog.topic(partition.topic));
            let Some(&owner) = topic.and_then(|topic| topic.shards.get(partition.index.0 as usize)) else {
                let text = format!("there is no {}", self.name_of_partition(partition));
                return Known::Never(Refused::new(ErrorCode::UnknownPartition, text));
            };
            if owner == self.me() {
                let status = self.storage.describe(partition);
                ends.push(status.map(|status| status.high_watermark).unwrap_or_default());
                continue;
            }
            let known = self.groups.ends.known.get(&partition);
            let is_fresh = known.is_some_and(|(_, number)| needs.is_some_and(|needs| needs <= *number));
            match known {
                Some(&(Some(end), _)) if is_fresh || offset <= end => ends.push(end),
                Some((None, _)) if is_fresh => {
                    let name = self.name_of_partition(partition);
                    let text = format!("the owner of {name} cannot say where its log ends; try again");
                    return Known::Never(Refused::new(ErrorCode::Recovering, text));
                }
                _ => missing.push((owner, partition)),
            }
        }
        if missing.is_empty() { Known::All(ends) } else { Known::Missing(missing) }
    }

    /// Keeps a request until the owners have said the ends; `needs` if they were asked on its behalf before.
    pub(super) fn park(
        &mut self,
        index: PartitionIndex,
        request: GroupRequest,
        needs: Option<u64>,
        missing: Vec<(ShardId, PartitionId)>,
    ) {
        let home = self.groups.homes.get_mut(&index).expect("the caller found the group there");
        let known = home.groups.get_mut(&request.group).expect("the caller found it");
        if PARKED_MAX <= known.parked.len() {
            let text = format!("{PARKED_MAX} requests of the group wait for ends of logs already");
            return self.refuse(request.asker, None, Refused::new(ErrorCode::Busy, text));
        }
        let ends = &mut self.groups.ends;
        ends.waiting.insert((index, request.group.clone()));
        let mut is_heard = false;
        let needs = needs.or_else(|| (!missing.is_empty()).then_some(ends.asked + 1));
        if needs == Some(ends.asked + 1) {
            for (owner, partition) in missing {
                ends.wanted.entry(owner).or_default().insert(partition);
            }
        }
        if let Some(member) = request.ask.member() {
            *known.parked_of.entry(member).or_default() += 1;
            // Who speaks lives, however long another shard lets its words wait. A stranger hears that when its turn comes.
            if known.group.touch(self.now, member).is_ok() {
                is_heard = true;
            }
        }
        let name = request.group.clone();
        known.parked.push_back(Parked { request, needs });
        if is_heard {
            home.touch(&name);
        }
    }

    /// Asks what this round wants to know.
    pub(super) fn ask_ends(&mut self) {
        if self.groups.ends.wanted.is_empty() {
            return;
        }
        self.groups.ends.asked += 1;
        let number = self.groups.ends.asked;
        for (owner, partitions) in std::mem::take(&mut self.groups.ends.wanted) {
            self.send_mesh(owner, Message::AskEnds { number, partitions: partitions.into_iter().collect() });
        }
    }

    /// A coordinator elsewhere wants to know ends of partitions here.
    pub(crate) fn answer_ends(&mut self, from: ShardId, number: u64, partitions: &[PartitionId]) {
        let is_ready = self.phase.recovery().is_some();
        let end = |partition| {
            let status = self.storage.describe(partition).filter(|_| is_ready);
            (partition, status.map(|status| status.high_watermark))
        };
        let ends = partitions.iter().map(|&partition| end(partition)).collect();
        self.send_mesh(from, Message::Ends { number, ends });
    }

    /// An owner said ends: whoever waited goes on, in order.
    pub(crate) fn on_ends(&mut self, number: u64, told: Vec<(PartitionId, Option<Offset>)>) {
        let ends = &mut self.groups.ends;
        if PARTITIONS_MAX <= ends.known.len() as u64 && ends.waiting.is_empty() {
            ends.known.clear();
        }
        ends.known.extend(told.into_iter().map(|(partition, end)| (partition, (end, number))));
        for (index, name) in std::mem::take(&mut ends.waiting) {
            let home = self.groups.homes.get_mut(&index);
            let Some(known) = home.and_then(|home| home.groups.get_mut(&name)) else { continue };
            let mut blocked: BTreeSet<MemberId> = BTreeSet::new();
            for Parked { request, needs } in known.take_parked() {
                let member = request.ask.member();
                if member.is_some_and(|member| blocked.contains(&member)) {
                    self.park(index, request, needs, Vec::new());
                } else if !self.run_parked(index, request, needs) {
                    blocked.extend(member);
                }
            }
        }
    }

    /// Whether an earlier request of the same member waits.
    pub(super) fn is_behind(&self, index: PartitionIndex, request: &GroupRequest) -> bool {
        let known = self.groups.homes.get(&index).and_then(|home| home.groups.get(&request.group));
        let member = request.ask.member();
        known.is_some_and(|known| member.is_some_and(|member| known.parked_of.contains_key(&member)))
    }
}

impl Coordinated {
    /// Everything that waits for ends, in order; nothing does afterwards.
    pub(super) fn take_parked(&mut self) -> VecDeque<Parked> {
        self.parked_of.clear();
        std::mem::take(&mut self.parked)
    }
}
