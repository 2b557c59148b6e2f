//! What operators do to groups: they drain them, put their offsets somewhere else, and delete them.
//!
//! Such a request may be carried out from its arrival at the broker on. When it is answered, it was; when it is refused, it
//! was not; and when nothing is heard of it, either way.

use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, Offset, PartitionId};
use corelane_wire as wire;
use corelane_wire::{Frame, FrameKind};

use super::{Groups, HANDLING, Share, Ticket, Violation, body, broken, display, partition};

/// A request of an operator that arrived and was not answered.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    group: String,
    arrived: MonotonicNanos,
    /// Nobody had anything then, and nobody could get anything.
    was_drained: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Drain,
    Put(Vec<(PartitionId, Option<Offset>)>),
    /// With the partitions of which it was sure before which group they are of.
    Delete(Vec<PartitionId>),
    Look,
}

/// How far a group is drained, as far as can be told from here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drain {
    /// Nobody has anything since then, and nobody gets anything.
    since: Option<MonotonicNanos>,
    /// When somebody asked to end it.
    resumed: Option<MonotonicNanos>,
}

/// Where a partition's offset may have been put by a request that was not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    ticket: Ticket,
    arrived: MonotonicNanos,
    pub(super) place: Option<Offset>,
}

/// When a partition's offset was put somewhere else, last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    /// When that was asked.
    arrived: MonotonicNanos,
    /// When the operator was told that it is so.
    answered: MonotonicNanos,
}

impl Move {
    /// Whether what a member was told, or said, came after it.
    pub(super) fn is_before(&self, moment: MonotonicNanos) -> bool {
        self.answered < moment
    }

    /// Whether a turn that was told at this moment may have begun after it.
    pub(super) fn may_be_before(&self, told: MonotonicNanos) -> bool {
        self.arrived <= told
    }
}

impl Share {
    /// A request that moves the offset has arrived.
    fn may_move(&mut self, ticket: Ticket, arrived: MonotonicNanos, place: Option<Offset>) {
        self.place = None;
        self.candidates.push(Candidate { ticket, arrived, place });
        // What lies before it may be left out.
        self.shown = self.shown.max(place.unwrap_or_default());
    }

    /// It was moved, when nobody had the partition.
    fn on_moved(&mut self, now: MonotonicNanos, arrived: MonotonicNanos, place: Option<Offset>) {
        self.candidates.retain(|other| arrived <= other.arrived.after(HANDLING));
        self.committed = place;
        self.moved = Some(Move { arrived, answered: now });
        // Somebody may have got it since, and be told sooner than the operator.
        let is_had = self.begun.values().any(|begun| arrived <= begun.at.after(HANDLING));
        if !is_had && self.candidates.iter().all(|other| other.arrived == arrived) {
            self.place = Some(place);
            self.told.clear();
            // Whoever gets it next does in a generation that nobody had it in.
            self.since.0 += u64::from(!self.is_free);
            self.is_free = true;
        }
        self.candidates.retain(|other| other.arrived != arrived);
    }

    /// What arrived so long before a turn was told is decided.
    pub(super) fn settle_candidates(&mut self, told: MonotonicNanos) {
        self.candidates.retain(|candidate| told < candidate.arrived.after(HANDLING));
    }
}

impl Groups {
    /// A request of an operator arrives at the broker.
    pub(super) fn on_operator(&mut self, now: MonotonicNanos, ticket: Ticket, frame: &Frame) {
        let (group, what) = match frame.head.kind {
            FrameKind::DrainGroup => (body::<wire::DrainGroup>(frame).group, What::Drain),
            FrameKind::DeleteGroup => (body::<wire::DeleteGroup>(frame).group, What::Delete(Vec::new())),
            FrameKind::ResetOffsets => {
                let wire::ResetOffsets { group, resets, .. } = body(frame);
                let place =
                    |reset: &wire::OffsetReset| (partition(reset.topic, reset.partition), reset.offset.map(Offset));
                (group, What::Put(resets.iter().map(place).collect()))
            }
            FrameKind::FetchOffsets => (body::<wire::FetchOffsets>(frame).group, What::Look),
            FrameKind::ResumeGroup => {
                let drain = self.drains.entry(body::<wire::ResumeGroup>(frame).group).or_default();
                *drain = Drain { since: None, resumed: Some(now) };
                return;
            }
            _ => return,
        };
        let mut moved = Moved { was_drained: self.is_drained(&group), group, arrived: now, what };
        match &mut moved.what {
            What::Put(places) => {
                for &mut (partition, place) in places {
                    let share = self.shares.entry((moved.group.clone(), partition)).or_default();
                    share.may_move(ticket, now, place);
                }
            }
            What::Delete(sure) => {
                for ((_, partition), share) in self.shares.iter_mut().filter(|((of, _), _)| *of == moved.group) {
                    share.may_move(ticket, now, None);
                    if !std::mem::replace(&mut share.may_be_another, true) {
                        sure.push(*partition);
                    }
                }
                // If it is deleted, whoever joins makes another, which is not drained.
                self.drains.entry(moved.group.clone()).or_default().since = None;
            }
            What::Drain | What::Look => {}
        }
        self.moved.insert(ticket, moved);
    }

    /// Whether nobody has anything of a group, and nobody gets anything before it is resumed.
    fn is_drained(&self, group: &str) -> bool {
        self.drains.get(group).is_some_and(|drain| drain.since.is_some())
    }

    fn shares_of<'a>(&'a mut self, group: &'a str) -> impl Iterator<Item = &'a mut Share> {
        self.shares.iter_mut().filter(move |((of, _), _)| of == group).map(|(_, share)| share)
    }

    /// A request of an operator was carried out.
    pub(super) fn on_operated(&mut self, now: MonotonicNanos, ticket: Ticket) -> Result<(), Violation> {
        let Some(Moved { group, arrived, what, .. }) = self.moved.remove(&ticket) else { return Ok(()) };
        match what {
            What::Drain => {
                let drain = self.drains.entry(group).or_default();
                // Whoever resumes answers those who wait for the end of a drain.
                let is_resumed = drain.resumed.is_some_and(|at| arrived <= at.after(HANDLING));
                drain.since = (!is_resumed).then_some(now);
            }
            What::Put(places) => {
                for (partition, place) in places {
                    self.check_free(now, (&group, arrived), Some(partition), "its offset was put somewhere else")?;
                    let share = self.shares.get_mut(&(group.clone(), partition)).expect("it arrived");
                    share.on_moved(now, arrived, place);
                }
            }
            What::Delete(_) => {
                self.check_free(now, (&group, arrived), None, "the group was deleted")?;
                self.drains.remove(&group);
                for life in self.lives.values_mut().filter(|life| life.group == group) {
                    life.is_deleted |= life.joined_again <= arrived;
                }
                // A new group counts its generations anew.
                self.shares_of(&group).for_each(|share| {
                    share.on_moved(now, arrived, None);
                    if share.is_free {
                        share.since.0 = 0;
                        share.may_be_another = false;
                    }
                });
            }
            What::Look => {}
        }
        Ok(())
    }

    /// Nobody who surely has the partition, any of the group if none is named, had it when an operator asked.
    fn check_free(
        &self,
        now: MonotonicNanos,
        (group, arrived): (&str, MonotonicNanos),
        partition: Option<PartitionId>,
        what: &str,
    ) -> Result<(), Violation> {
        let of_group = self.shares.iter().filter(|((of, at), _)| of == group && partition.is_none_or(|of| of == *at));
        for ((_, partition), share) in of_group {
            let mut workers = share.workers.iter();
            let owner =
                workers.find(|(name, (_, from))| from.after(HANDLING) < arrived && !self.may_be_out(now, **name));
            if let Some((owner, _)) = owner {
                return Err(broken(group, format!("{what} while {} works on {partition}", display(*owner))));
            }
        }
        Ok(())
    }

    /// A request of an operator was refused.
    pub(super) fn on_operator_refused(&mut self, ticket: Ticket, code: u16) -> Result<(), Violation> {
        // What could not be written down may be on disk.
        if code == ErrorCode::StorageFailed.to_wire() {
            return Ok(());
        }
        let Some(Moved { group, arrived, was_drained, what }) = self.moved.remove(&ticket) else { return Ok(()) };
        for ((_, partition), share) in self.shares.iter_mut().filter(|((of, _), _)| *of == group) {
            share.candidates.retain(|candidate| candidate.ticket != ticket);
            share.may_be_another &= !matches!(&what, What::Delete(sure) if sure.contains(partition));
        }
        let resumed = self.drains.get(&group).and_then(|drain| drain.resumed);
        let is_resumed = resumed.is_some_and(|at| arrived <= at.after(HANDLING));
        let is_in_use = code == ErrorCode::GroupInUse.to_wire();
        if is_in_use && was_drained && !is_resumed {
            return Err(broken(&group, format!("it is drained and was said to be in use when {what:?} was asked")));
        }
        Ok(())
    }

    /// Somebody is told what a group has committed.
    pub(super) fn on_offsets_told(&mut self, ticket: Ticket, told: &wire::FetchOffsetsAnswer) -> Result<(), Violation> {
        let Some(Moved { group, was_drained, .. }) = self.moved.remove(&ticket) else { return Ok(()) };
        if told.is_cut || !was_drained || !self.is_drained(&group) {
            return Ok(());
        }
        for ((_, at), share) in self.shares.iter().filter(|((of, _), _)| *of == group) {
            let Some(place) = share.place else { continue };
            let mut offsets = told.offsets.iter();
            let found =
                offsets.find(|found| partition(found.topic, found.partition) == *at).map(|of| Offset(of.offset));
            if found != place {
                return Err(broken(
                    &group,
                    format!("{at} was put to {place:?}, and {found:?} is told to be committed"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a request that was not answered may have deleted a group that a member joined at that moment.
    pub(super) fn may_be_deleted(&self, group: &str, joined: MonotonicNanos) -> bool {
        let all = self.moved.values().chain(&self.forgotten);
        let mut deletes = all.filter(|moved| matches!(moved.what, What::Delete(_)) && moved.group == group);
        deletes.any(|moved| joined <= moved.arrived.after(Duration::from_secs(1)))
    }

    /// The broker is gone: what was asked is carried out later no more, and perhaps it was.
    pub(super) fn forget_operator(&mut self) {
        let deletes = std::mem::take(&mut self.moved).into_values();
        self.forgotten.extend(deletes.filter(|moved| matches!(moved.what, What::Delete(_))));
        // Of a drain that was asked for nobody hears any more, and one that was answered is written down.
    }
}
