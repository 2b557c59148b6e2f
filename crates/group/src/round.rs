//! One round: everything that happened in it is decided, written and told together.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use corelane_model::limits::{GROUP_STEP_MAX, GROUP_UNTOLD_ROUNDS_MAX, GROUP_WAITING_MAX};
use corelane_model::{MemberId, Now, PartitionId};

use crate::encoding::{Key, encode_key};
use crate::targets::Place;
use crate::{
    AppendPosition, Assignment, Effect, FenceReason, Group, GroupError, Hold, OwnedPartition, Phase, RequestTicket,
    RevokedPartition, Start,
};

/// Partitions of a member that count as much as one more member when it is told.
const TOLD_AS_ONE: usize = 16;

/// What changed since the last round ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    /// Keys whose records are to be written.
    pub(crate) meta: bool,
    pub(crate) members: BTreeSet<MemberId>,
    pub(crate) slots: BTreeSet<PartitionId>,
    pub(crate) offsets: BTreeSet<PartitionId>,
    pub(crate) staged: BTreeSet<PartitionId>,
    pub(crate) handovers: BTreeSet<PartitionId>,
    /// Whom to answer, and whom to tell what it has.
    pub(crate) answers: Vec<RequestTicket>,
    pub(crate) tell: BTreeSet<MemberId>,
    /// Who was told last: those behind it come first.
    pub(crate) told_last: Option<MemberId>,
    /// Rounds since an assignment began to go on while members were told nothing.
    pub(crate) untold_rounds: u32,
    pub(crate) fenced: Vec<(MemberId, FenceReason)>,
    /// Members that came, went or changed since the assignment was decided, by their places.
    pub(crate) reseated: BTreeSet<Place>,
    /// The assignment has to be decided anew.
    pub(crate) is_stale: bool,
    /// A partition has another owner, who does not follow it any more, while the one before may.
    pub(crate) is_handed_on: bool,
    /// Somebody came or went, so it is another generation even if nothing moves.
    pub(crate) is_membership_changed: bool,
    /// A look at the reports of processing time is scheduled.
    pub(crate) is_shift_armed: bool,
    /// The end of the group was told.
    pub(crate) is_removal_told: bool,
}

impl Round {
    /// Takes out who is to be told next, each in turn.
    fn next_told(&mut self) -> Option<MemberId> {
        let behind = self.told_last.and_then(|last| self.tell.range((Bound::Excluded(last), Bound::Unbounded)).next());
        let next = behind.or_else(|| self.tell.first()).copied()?;
        self.tell.remove(&next);
        self.told_last = Some(next);
        Some(next)
    }
}

/// Effects on their way out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    appended: AppendPosition,
    durable: AppendPosition,
    ready: VecDeque<Effect>,
    /// What may leave when the record at this position is durable.
    waiting: VecDeque<(AppendPosition, Effect)>,
}

impl Outbox {
    fn append(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.appended.0 += 1;
        self.ready.push_back(Effect::Append { position: self.appended, key, value });
    }

    /// Leaves when everything that was appended so far is durable.
    fn tell(&mut self, effect: Effect) {
        self.waiting.push_back((self.appended, effect));
    }

    fn release(&mut self) {
        while self.waiting.front().is_some_and(|&(position, _)| position <= self.durable) {
            let (_, effect) = self.waiting.pop_front().expect("it was there");
            self.ready.push_back(effect);
        }
    }
}

impl Group {
    /// Ends the round: decides who is meant to have what if that may have changed, appends a record for everything that
    /// changed, and queues what is to be told behind the last of them. Of an assignment that moves much it does a part; then
    /// [`Group::is_unfinished`] asks for another round, and whatever comes in between is as right as at any other time.
    pub fn finish_round(&mut self, now: Now) {
        self.finish_step(now, GROUP_STEP_MAX);
    }

    /// As [`Group::finish_round`], with other steps than [`GROUP_STEP_MAX`].
    pub fn finish_step(&mut self, now: Now, step: usize) {
        let is_assignment_changed = self.round.is_stale || !self.aims.is_empty();
        if self.round.is_stale {
            self.reassign(now, step);
            self.round.is_stale = false;
            self.round.is_membership_changed = false;
        } else if !self.aims.is_empty() {
            self.go_on(now, step);
        } else if self.round.is_handed_on {
            self.fill_standbys();
        }
        self.round.is_handed_on = false;
        self.finish_drain();
        if is_assignment_changed {
            self.check_assignment();
        }
        self.append_changes();
        self.tell_changes();
        self.tell_members(step);
        self.outbox.release();
    }

    /// Whether the round that was ended left something for another one, which should come soon.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        !self.aims.is_empty() || !self.round.tell.is_empty()
    }

    /// All records up to this position are on disk: what waited for them may leave.
    pub fn on_durable(&mut self, position: AppendPosition) {
        let (durable, appended) = (self.outbox.durable, self.outbox.appended);
        assert!(position <= appended, "record {} is durable but only {} were appended", position.0, appended.0);
        self.outbox.durable = durable.max(position);
        self.outbox.release();
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.ready.pop_front()
    }

    /// The position of the newest record that was appended.
    #[must_use]
    pub const fn appended(&self) -> AppendPosition {
        self.outbox.appended
    }

    /// Whether one more request may wait for the disk.
    pub(crate) fn check_room(&self) -> Result<(), GroupError> {
        let waiting = self.outbox.waiting.len() + self.round.answers.len();
        if GROUP_WAITING_MAX <= waiting { Err(GroupError::Busy { waiting }) } else { Ok(()) }
    }

    fn append_changes(&mut self) {
        let mut keys = Vec::new();
        let round = &mut self.round;
        // The generation goes first: whatever prefix of a round survives, no partition is younger than its group.
        if std::mem::take(&mut round.meta) {
            keys.push(Key::Meta);
        }
        // Tombstones before the living: two members never share a static id.
        let members = gone_first(std::mem::take(&mut round.members), |id| self.members.contains_key(id));
        keys.extend(members.map(Key::Member));
        let handovers = gone_first(std::mem::take(&mut round.handovers), |at| self.handovers.contains_key(at));
        keys.extend(handovers.map(Key::Handover));
        keys.extend(std::mem::take(&mut round.slots).into_iter().map(Key::Slot));
        // Committed before what was staged is gone: a transaction whose end was cut is told again.
        let offsets = gone_first(std::mem::take(&mut round.offsets), |at| self.offsets.contains_key(at));
        keys.extend(offsets.map(Key::Offset));
        let staged = gone_first(std::mem::take(&mut round.staged), |at| self.staged.contains_key(at));
        keys.extend(staged.map(Key::Staged));
        for key in keys {
            let value = self.encode_value(key);
            let key = encode_key(&self.name, key);
            self.stats.appended_records += 1;
            self.stats.appended_bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
            self.outbox.append(key, value);
        }
    }

    fn tell_changes(&mut self) {
        for (member, reason) in std::mem::take(&mut self.round.fenced) {
            self.outbox.tell(Effect::Fence { member, reason });
        }
        for ticket in std::mem::take(&mut self.round.answers) {
            self.outbox.tell(Effect::Done { ticket });
        }
        if self.phase == Phase::Deleted && !self.round.is_removal_told {
            self.round.is_removal_told = true;
            self.outbox.tell(Effect::Remove);
        }
    }

    /// Tells members what they have, in turn, until a step is done. While an assignment goes on they are not told of
    /// each part, but neither do they wait for ever.
    fn tell_members(&mut self, step: usize) {
        if !self.aims.is_empty() && self.round.untold_rounds < GROUP_UNTOLD_ROUNDS_MAX {
            self.round.untold_rounds += 1;
            return;
        }
        let mut told = 0;
        while told < step
            && let Some(id) = self.round.next_told()
        {
            if let Some(member) = self.members.get(&id) {
                told += 1 + member.holds.len() / TOLD_AS_ONE;
                self.tell_member(id);
            }
        }
        if self.round.tell.is_empty() {
            self.round.untold_rounds = 0;
        }
    }

    fn tell_member(&mut self, id: MemberId) {
        let member = &self.members[&id];
        let mut assignment = Assignment {
            generation: self.generation,
            owned: Vec::new(),
            revoking: Vec::new(),
            standby: member.follows.iter().copied().collect(),
        };
        for &partition in &member.holds {
            match self.slots[&partition].hold {
                Hold::Revoking { since, deadline, .. } => {
                    assignment.revoking.push(RevokedPartition { partition, since, deadline });
                }
                // It hears of the partition when the transaction of an earlier owner is decided.
                hold @ Hold::Owned { .. } if self.is_kept(partition, hold) => {}
                Hold::Owned { since, .. } => {
                    if let Some(blob) = self.handovers.get(&partition) {
                        self.outbox.tell(Effect::HandOver { member: id, partition, blob: blob.clone() });
                    }
                    let committed = self.offsets.get(&partition);
                    let start =
                        committed.map_or(Start::Policy(member.reset), |committed| Start::Committed(committed.offset));
                    assignment.owned.push(OwnedPartition { partition, since, start });
                }
            }
        }
        self.outbox.tell(Effect::Assign { member: id, assignment });
        self.members.get_mut(&id).expect("it is there").told = self.generation;
    }
}

/// What changed, tombstones first: however far a round is read, there is never more than the group's limits allow.
fn gone_first<K: Ord>(changed: BTreeSet<K>, is_there: impl FnMut(&K) -> bool) -> impl Iterator<Item = K> {
    let (living, gone): (Vec<_>, Vec<_>) = changed.into_iter().partition(is_there);
    gone.into_iter().chain(living)
}
