//! What people are shown of a group.

use std::time::Duration;

use corelane_model::{Generation, MemberId, Now, PartitionId};

use crate::{CommittedOffset, Group, GroupName, Hold, Phase, Presence, Settings, StaticId, Subscription};

/// How a group is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// It has no members; its offsets age.
    Empty,
    /// Everybody has what it is meant to have.
    Stable,
    /// Something is being moved.
    Reconciling,
    /// Everything is being asked back.
    Draining,
    /// Nobody has anything and nobody may join.
    Drained,
    /// It was deleted.
    Deleted,
}

/// How a member is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// It has what it is meant to have.
    Stable,
    /// It was asked for something that it has not given up.
    GivingUp,
    /// Something that it is meant to have is still another's.
    Awaiting,
    /// It restarts; its partitions wait for it.
    Away,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Who.
    pub member: MemberId,
    /// What its client said of itself when it joined.
    pub client: String,
    /// Its name across restarts.
    pub static_id: Option<StaticId>,
    /// How it is.
    pub state: MemberState,
    /// What it wants to read.
    pub subscription: Subscription,
    /// What it declared.
    pub capacity: u32,
    /// Smoothed microseconds for a record, if it reports them.
    pub processing_micros: Option<u32>,
    /// How long it was not heard of.
    pub silent: Duration,
    /// What it has and keeps.
    pub owned: Vec<PartitionId>,
    /// What it was asked for.
    pub revoking: Vec<PartitionId>,
    /// What it waits for.
    pub awaiting: Vec<PartitionId>,
    /// What it follows.
    pub standby: Vec<PartitionId>,
}

/// One partition that somebody has or that has a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDescription {
    /// The partition.
    pub partition: PartitionId,
    /// Who has it; the caller adds the log's end and so the lag.
    pub owner: Option<MemberId>,
    /// What was committed.
    pub committed: Option<CommittedOffset>,
}

/// A group as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub name: GroupName,
    /// How it is.
    pub state: GroupState,
    /// Counts its assignments.
    pub generation: Generation,
    /// What an operator decided.
    pub settings: Settings,
    /// The members, by id.
    pub members: Vec<MemberDescription>,
    /// The partitions, in order.
    pub partitions: Vec<PartitionDescription>,
}

impl Group {
    /// How it is, in one word.
    #[must_use]
    pub fn state(&self) -> GroupState {
        match self.phase {
            Phase::Deleted => GroupState::Deleted,
            Phase::Draining { .. } => GroupState::Draining,
            Phase::Drained => GroupState::Drained,
            Phase::Open if self.members.is_empty() => GroupState::Empty,
            Phase::Open if self.round.is_stale || !self.aims.is_empty() || !self.revoking.is_empty() => {
                GroupState::Reconciling
            }
            Phase::Open => GroupState::Stable,
        }
    }

    /// Everything that people are shown of it.
    #[must_use]
    pub fn describe(&self, now: Now) -> GroupDescription {
        let mut partitions: Vec<PartitionId> = self.slots.keys().chain(self.offsets.keys()).copied().collect();
        partitions.sort_unstable();
        partitions.dedup();
        let partition = |partition: PartitionId| PartitionDescription {
            partition,
            owner: self.slots.get(&partition).map(|slot| slot.hold.owner()),
            committed: self.offsets.get(&partition).cloned(),
        };
        GroupDescription {
            name: self.name.clone(),
            state: self.state(),
            generation: self.generation,
            settings: self.settings,
            members: self.members.keys().map(|&member| self.describe_member(now, member)).collect(),
            partitions: partitions.into_iter().map(partition).collect(),
        }
    }

    fn describe_member(&self, now: Now, id: MemberId) -> MemberDescription {
        let member = &self.members[&id];
        let is_owned = |partition: &&PartitionId| matches!(self.slots[*partition].hold, Hold::Owned { .. });
        let owned: Vec<_> = member.holds.iter().filter(is_owned).copied().collect();
        let revoking: Vec<_> = member.holds.iter().filter(|partition| !is_owned(partition)).copied().collect();
        let is_awaited =
            |hold: &Hold| matches!(hold, Hold::Revoking { next: Some(next), .. } if *next == id && hold.owner() != id);
        let awaiting: Vec<_> =
            self.revoking.iter().filter(|partition| is_awaited(&self.slots[*partition].hold)).copied().collect();
        let state = match member.presence {
            Presence::Away => MemberState::Away,
            Presence::Present if !revoking.is_empty() => MemberState::GivingUp,
            Presence::Present if !awaiting.is_empty() => MemberState::Awaiting,
            Presence::Present => MemberState::Stable,
        };
        MemberDescription {
            member: id,
            client: member.client.clone(),
            static_id: member.static_id.clone(),
            state,
            subscription: self.subscriptions.subscription(member.subscription).clone(),
            capacity: member.capacity,
            processing_micros: member.processing_micros,
            silent: member.session_timeout.saturating_sub(member.expires.since(now.monotonic)),
            owned,
            revoking,
            awaiting,
            standby: member.follows.iter().copied().collect(),
        }
    }
}
