//! The group and what must hold between its parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use corelane_model::limits::{
    GROUP_HANDOVERS_BYTES_MAX, GROUP_MEMBERS_MAX, GROUP_OFFSETS_MAX, GROUP_RETENTION_DEFAULT, GROUP_STANDBYS_MAX,
};
use corelane_model::{Generation, MemberId, Now, PartitionId, WallMillis};

use crate::deadlines::Timers;
use crate::member::Member;
use crate::round::{Outbox, Round};
use crate::subscriptions::Subscriptions;
use crate::targets::{Aim, Kept};
use crate::{
    CommittedOffset, FenceReason, GroupError, GroupName, GroupStats, Hold, RequestTicket, Slot, StagedOffset, StaticId,
    Strategy,
};

/// What an operator decides about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How partitions are assigned. The first member may choose it.
    pub strategy: Strategy,
    /// How many members follow each partition to take it over warm.
    pub standbys: u8,
    /// How long committed offsets are kept when the group has no members, in whole milliseconds.
    pub retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { strategy: Strategy::default(), standbys: 0, retention: GROUP_RETENTION_DEFAULT }
    }
}

/// What a group is doing.
///
/// ```text
///            drain                   nobody has anything
///    Open ──────────▶ Draining ──────────────────────────▶ Drained
///     │ ▲                │                                  │   │
///     │ └────────────────┴────────────── resume ────────────┘   │
///     │                                                         │
///     └── delete or retention, ──────▶ Deleted ◀── delete ──────┘
///         without members                          retention without members
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Members join and partitions are assigned.
    Open,
    /// Everything is being revoked and nobody may join.
    Draining {
        /// Requests that are answered when nobody has anything any more. Not durable.
        asked: Vec<RequestTicket>,
    },
    /// Nobody has anything and nobody may join. Members that are there stay members.
    Drained,
    /// Only tombstones are left.
    Deleted,
}

/// One consumer group. See the crate's page for how it is driven.
#[derive(Clone, Debug)]
pub struct Group {
    pub(crate) name: GroupName,
    pub(crate) settings: Settings,
    pub(crate) phase: Phase,
    pub(crate) generation: Generation,
    /// The seat of the next member.
    pub(crate) next_seat: u64,
    /// Since when it has no members; `None` while it has some.
    pub(crate) empty_since: Option<WallMillis>,
    pub(crate) members: BTreeMap<MemberId, Member>,
    pub(crate) statics: BTreeMap<StaticId, MemberId>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) slots: BTreeMap<PartitionId, Slot>,
    /// Who is meant to have what, kept for the next assignment. Not durable.
    pub(crate) kept: Option<Kept>,
    /// What is left to do of the last assignment, in order: who is meant to have what. Not durable.
    pub(crate) aims: VecDeque<Aim>,
    /// Index of the slots that are being revoked.
    pub(crate) revoking: BTreeSet<PartitionId>,
    pub(crate) offsets: BTreeMap<PartitionId, CommittedOffset>,
    /// Offsets of transactions that are not decided.
    pub(crate) staged: BTreeMap<PartitionId, StagedOffset>,
    /// What old owners left and new ones have not taken.
    pub(crate) handovers: BTreeMap<PartitionId, Bytes>,
    pub(crate) handover_bytes: usize,
    /// Members that were put out, oldest first, so that late traffic hears why.
    pub(crate) fenced: VecDeque<(MemberId, FenceReason)>,
    pub(crate) timers: Timers,
    pub(crate) round: Round,
    pub(crate) outbox: Outbox,
    pub(crate) stats: GroupStats,
}

impl Group {
    /// A group that nobody knew before. Nothing is written until something happens to it.
    ///
    /// # Errors
    /// A setting is out of its bounds.
    pub fn new(now: Now, name: GroupName, settings: Settings) -> Result<Self, GroupError> {
        settings.check()?;
        let mut group = Self::bare(name, settings.whole());
        group.become_empty(now);
        group.check();
        Ok(group)
    }

    /// Without members and without a deadline.
    pub(crate) fn bare(name: GroupName, settings: Settings) -> Self {
        Self {
            name,
            settings,
            phase: Phase::Open,
            generation: Generation(0),
            next_seat: 0,
            empty_since: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            slots: BTreeMap::new(),
            kept: None,
            aims: VecDeque::new(),
            revoking: BTreeSet::new(),
            offsets: BTreeMap::new(),
            staged: BTreeMap::new(),
            handovers: BTreeMap::new(),
            handover_bytes: 0,
            fenced: VecDeque::new(),
            timers: Timers::default(),
            round: Round::default(),
            outbox: Outbox::default(),
            stats: GroupStats::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &GroupName {
        &self.name
    }

    /// What an operator decided about it.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it is doing.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Counts its assignments. Never moves back, not by a restart either.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// How many members it has, away ones included.
    #[must_use]
    pub fn members_len(&self) -> usize {
        self.members.len()
    }

    /// Whether somebody is a member, also one that is away.
    #[must_use]
    pub fn has_member(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// Who has a partition; `None` while nobody does.
    #[must_use]
    pub fn slot(&self, partition: PartitionId) -> Option<&Slot> {
        self.slots.get(&partition)
    }

    /// The partitions that somebody has, in order.
    pub fn slots(&self) -> impl Iterator<Item = (PartitionId, &Slot)> {
        self.slots.iter().map(|(&partition, slot)| (partition, slot))
    }

    /// How many partitions somebody has.
    #[must_use]
    pub fn slots_len(&self) -> usize {
        self.slots.len()
    }

    /// Counters since it was made or restored.
    #[must_use]
    pub const fn stats(&self) -> &GroupStats {
        &self.stats
    }

    /// What must hold after each assignment. In release builds that is looked at which changed, because everything else
    /// costs as much as the group is large: a millisecond for a thousand members, during which nothing else moves.
    pub(crate) fn check_assignment(&self) {
        if cfg!(debug_assertions) {
            self.check();
            return self.check_balance();
        }
        self.check_bounds();
        for partition in &self.round.slots {
            if let Some(slot) = self.slots.get(partition) {
                self.check_slot(*partition, slot);
            }
        }
        for member in self.round.members.iter().filter_map(|member| self.members.get(member)) {
            for partition in &member.holds {
                assert!(self.slots.contains_key(partition), "partition {partition} is held and has no slot");
            }
        }
    }

    /// What must hold, looked at everywhere.
    pub(crate) fn check(&self) {
        self.check_bounds();
        let mut held = 0;
        let mut followed = 0;
        let is_revoking = |slot: &&Slot| matches!(slot.hold, Hold::Revoking { .. });
        assert_eq!(self.slots.values().filter(is_revoking).count(), self.revoking.len(), "index of what is revoked");
        for (&partition, slot) in &self.slots {
            self.check_slot(partition, slot);
            held += 1;
            followed += slot.standbys.len();
        }
        assert_eq!(self.members.values().map(|member| member.holds.len()).sum::<usize>(), held, "index of owners");
        assert_eq!(self.members.values().map(|member| member.follows.len()).sum::<usize>(), followed, "of standbys");
        for (static_id, member) in &self.statics {
            let member = &self.members[member];
            assert_eq!(member.static_id.as_ref(), Some(static_id), "static ids and members agree");
        }
    }

    fn check_bounds(&self) {
        assert!(self.members.len() <= GROUP_MEMBERS_MAX, "{} members are over the limit", self.members.len());
        let offsets = self.offsets.len() + self.staged.len();
        assert!(offsets <= GROUP_OFFSETS_MAX, "{offsets} committed and staged offsets are over the limit");
        assert!(self.handover_bytes <= GROUP_HANDOVERS_BYTES_MAX, "{} bytes handed over", self.handover_bytes);
        assert!(self.subscriptions.len() <= self.members.len(), "a subscription without a member");
        assert_eq!(self.members.is_empty(), self.empty_since.is_some(), "an empty group knows since when it is empty");
    }

    fn check_slot(&self, partition: PartitionId, slot: &Slot) {
        let owner = slot.hold.owner();
        assert!(self.members.contains_key(&owner), "partition {partition} belongs to {owner}, who is no member");
        assert!(self.members[&owner].holds.contains(&partition), "owner {owner} does not know of {partition}");
        assert!(slot.hold.since() <= self.generation, "partition {partition} was assigned in the future");
        if let Hold::Revoking { since, revoked, next, .. } = slot.hold {
            assert!(self.revoking.contains(&partition), "partition {partition} is revoked but not indexed");
            assert!(since < revoked, "partition {partition} was revoked in the generation that gave it");
            assert!(revoked <= self.generation, "partition {partition} was revoked in the future");
            assert!(next.is_none_or(|next| self.members.contains_key(&next)), "next of {partition} is no member");
        }
        assert!(slot.standbys.len() <= GROUP_STANDBYS_MAX, "partition {partition} has too many standbys");
        let distinct: BTreeSet<_> = slot.standbys.iter().collect();
        assert_eq!(distinct.len(), slot.standbys.len(), "a standby of {partition} stands twice");
        for standby in &slot.standbys {
            assert!(*standby != owner, "partition {partition} is followed by its owner");
            assert!(self.members[standby].follows.contains(&partition), "standby {standby} knows what it follows");
        }
    }
}

impl Settings {
    /// In whole milliseconds, because that is what its record says.
    pub(crate) fn whole(self) -> Self {
        let millis = u64::try_from(self.retention.as_millis()).expect("it was checked");
        Self { retention: Duration::from_millis(millis), ..self }
    }

    pub(crate) fn check(&self) -> Result<(), GroupError> {
        use corelane_model::limits::{GROUP_RETENTION_MAX, GROUP_RETENTION_MIN};
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (min, max) = (millis(GROUP_RETENTION_MIN), millis(GROUP_RETENTION_MAX));
        for (setting, value, min, max) in [
            ("retention in milliseconds", millis(self.retention), min, max),
            ("standbys", u64::from(self.standbys), 0, GROUP_STANDBYS_MAX as u64),
        ] {
            if value < min || max < value {
                return Err(GroupError::OutOfBounds { setting, value, min, max });
            }
        }
        Ok(())
    }
}
