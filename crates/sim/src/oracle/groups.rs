//! What must hold of consumer groups.
//!
//! Two views meet here. One is the wire at the broker: which frames of members arrived, which of the coordinator left.
//! The other is what members act upon: which partitions they work on, where they begin, what they are shown.
//!
//! A member may work on what is another's already only if the group had a reason to put it out: it was silent for its
//! session time-out, it left, it was replaced under its static id, or it had something for its rebalance time-out.

mod moving;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_client_core::{FenceReason, GroupStart};
use corelane_model::{Generation, MonotonicNanos, Offset, PartitionId, PartitionIndex, TopicId};
use corelane_wire as wire;
use corelane_wire::{Frame, FrameKind};

use self::moving::{Candidate, Drain, Move, Moved};
use super::{Oracle, Violation};

/// A member's id as it is on the wire.
pub(crate) type MemberName = (u64, u64);

/// A request, by its connection and correlation.
type Ticket = (u64, u64);

/// Between a frame's arrival at the broker and the moment at which its coordinator handles it lie a round and a message
/// between shards: silence may seem so much shorter here than there.
const HANDLING: Duration = Duration::from_millis(50);

/// One life of a member, by what was heard of it.
#[derive(Debug)]
struct Life {
    group: String,
    static_id: Option<String>,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    joined: MonotonicNanos,
    /// When it said so last.
    joined_again: MonotonicNanos,
    /// The newest connection that it spoke on: what comes late on others is not heard any more.
    link: u64,
    heard: MonotonicNanos,
    longest_silence: Duration,
    has_left: bool,
    /// A newer member came with its static id.
    is_replaced: bool,
    /// Its group was deleted.
    is_deleted: bool,
    /// It was told that it is put out if it still has then what it is asked for.
    asked_until: Option<MonotonicNanos>,
}

/// A partition within a group.
#[derive(Debug, Default)]
struct Share {
    /// The newest turn that left the broker.
    since: Generation,
    /// Who was told that this turn is theirs.
    told: BTreeSet<MemberName>,
    /// What was known when a member was first told of a turn. It may hear of it late.
    begun: BTreeMap<(MemberName, Generation), Begun>,
    /// Who works on it, in which turn and since when.
    workers: BTreeMap<MemberName, (Generation, MonotonicNanos)>,
    /// The furthest offset that was told to be committed since it was last put somewhere else.
    committed: Option<Offset>,
    /// The furthest offset that ever was.
    furthest: Option<Offset>,
    /// Everything before it was shown to some member, or left out by an operator.
    shown: Offset,
    /// Where an operator put the offset, as long as nobody else can have moved it.
    place: Option<Option<Offset>>,
    /// When it was put somewhere else, last.
    moved: Option<Move>,
    /// Where it may have been put.
    candidates: Vec<Candidate>,
    /// An operator was told that nobody has it, and nobody was told that it is theirs since.
    is_free: bool,
    /// Perhaps the group was deleted, and another of its name counts generations anew.
    may_be_another: bool,
}

/// What was known when the word of a turn left the broker.
#[derive(Clone, Debug)]
struct Begun {
    at: MonotonicNanos,
    committed: Option<Offset>,
    place: Option<Option<Offset>>,
    /// Where it may have been put instead.
    candidates: Vec<Candidate>,
    /// What a pipeline's transactions had committed.
    in_transactions: Option<Offset>,
}

/// A commit that arrived and was not answered.
#[derive(Debug)]
struct Asked {
    group: String,
    member: MemberName,
    offsets: Vec<(PartitionId, Offset)>,
    /// Why it must not be taken.
    objection: Option<String>,
    /// Who is heard if it is taken, and when it came.
    heard: Option<(MemberName, MonotonicNanos)>,
    arrived: MonotonicNanos,
}

/// Everything that is known of groups from outside.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    lives: BTreeMap<MemberName, Life>,
    shares: BTreeMap<(String, PartitionId), Share>,
    asked: BTreeMap<Ticket, Asked>,
    /// Requests of operators.
    moved: BTreeMap<Ticket, Moved>,
    /// Of those that an earlier life of the broker did not answer, what may still matter.
    forgotten: Vec<Moved>,
    drains: BTreeMap<String, Drain>,
    /// Offsets whose commit arrived outside of transactions, taken or not.
    by_themselves: BTreeSet<(PartitionId, Offset)>,
}

const fn partition(topic: u64, index: u32) -> PartitionId {
    PartitionId::new(TopicId(topic), PartitionIndex(index))
}

fn broken(group: &str, what: String) -> Violation {
    Violation::Group { group: group.to_owned(), what }
}

/// A well-formed body; whatever the machines send is.
pub(super) fn body<B: wire::Body>(frame: &Frame) -> B {
    wire::decode(frame).expect("machines send well-formed frames")
}

impl Groups {
    /// A frame of a client arrives at the broker.
    pub(crate) fn on_arrived(&mut self, now: MonotonicNanos, link: u64, frame: &Frame) {
        match frame.head.kind {
            FrameKind::JoinGroup => self.on_join(now, link, body(frame)),
            FrameKind::GroupHeartbeat => self.on_heard(now, link, body::<wire::GroupHeartbeat>(frame).member),
            FrameKind::GiveUp => self.on_heard(now, link, body::<wire::GiveUp>(frame).member),
            FrameKind::LeaveGroup => {
                let member = body::<wire::LeaveGroup>(frame).member;
                self.on_heard(now, link, member);
                self.lives.entry(member).and_modify(|life| life.has_left = true);
            }
            FrameKind::CommitOffsets => {
                let commit = body::<wire::CommitOffsets>(frame);
                self.on_heard(now, link, commit.member);
                let objection = self.objection(&commit);
                let offsets = commit.offsets.iter();
                let offsets = offsets.map(|of| (partition(of.topic, of.partition), Offset(of.offset)));
                let offsets = offsets.collect::<Vec<_>>();
                self.by_themselves.extend(offsets.iter().copied());
                if objection.is_none() {
                    self.on_commit_arrived(&commit.group, &offsets);
                }
                let (group, member) = (commit.group, commit.member);
                let asked = Asked { group, member, offsets, objection, heard: None, arrived: now };
                self.asked.insert((link, frame.head.correlation.0), asked);
            }
            FrameKind::StageOffsets => {
                let wire::StageOffsets { group, member, generation, offsets, .. } = body(frame);
                let staged = wire::CommitOffsets { group, member, generation, offsets };
                let objection = self.objection(&staged);
                // The group hears of it only if its transaction is in order.
                let heard = Some((member, now));
                let (group, offsets) = (staged.group, Vec::new());
                let asked = Asked { group, member, offsets, objection, heard, arrived: now };
                self.asked.insert((link, frame.head.correlation.0), asked);
            }
            _ => self.on_operator(now, (link, frame.head.correlation.0), frame),
        }
    }

    /// From now on offsets may be what an owner says.
    fn on_commit_arrived(&mut self, group: &str, offsets: &[(PartitionId, Offset)]) {
        for (partition, _) in offsets {
            self.shares.entry((group.to_owned(), *partition)).and_modify(|share| share.place = None);
        }
    }

    fn on_join(&mut self, now: MonotonicNanos, link: u64, join: wire::JoinGroup) {
        if let Some(static_id) = &join.static_id {
            let twins = self.lives.iter_mut().filter(|(name, life)| {
                **name != join.member && life.group == join.group && life.static_id.as_ref() == Some(static_id)
            });
            twins.for_each(|(_, life)| life.is_replaced = true);
        }
        self.on_heard(now, link, join.member);
        // It may have wished to join before its group was deleted, and only be let in now.
        let again = |life: &mut Life| (life.joined_again, life.is_deleted) = (now, false);
        self.lives.entry(join.member).and_modify(again).or_insert_with(|| Life {
            group: join.group,
            static_id: join.static_id,
            session_timeout: Duration::from_millis(join.session_timeout_ms.into()),
            rebalance_timeout: Duration::from_millis(join.rebalance_timeout_ms.into()),
            joined: now,
            joined_again: now,
            link,
            heard: now,
            longest_silence: Duration::ZERO,
            has_left: false,
            is_replaced: false,
            is_deleted: false,
            asked_until: None,
        });
    }

    fn on_heard(&mut self, now: MonotonicNanos, link: u64, member: MemberName) {
        if let Some(life) = self.lives.get_mut(&member).filter(|life| life.link <= link) {
            life.link = link;
            life.hear(now);
        }
    }

    /// Why a commit that arrives now must not be taken, by what has left the broker before.
    fn objection(&self, commit: &wire::CommitOffsets) -> Option<String> {
        commit.offsets.iter().find_map(|of| {
            let partition = partition(of.topic, of.partition);
            let share = self.shares.get(&(commit.group.clone(), partition))?;
            if share.may_be_another {
                return None;
            }
            if share.told.is_empty() {
                return share
                    .is_free
                    .then(|| format!("{partition} is nobody's since an operator put its offset elsewhere"));
            }
            let since = share.since;
            if !share.told.contains(&commit.member) {
                return Some(format!("{partition} was another's since generation {since}"));
            }
            let said = commit.generation;
            (said < since.0).then(|| format!("generation {said} is older than the turn of {partition}, {since}"))
        })
    }

    /// A frame of the broker leaves.
    fn on_left(
        &mut self,
        now: MonotonicNanos,
        link: u64,
        frame: &Frame,
        in_transactions: impl Fn(PartitionId) -> Option<Offset>,
    ) -> Result<(), Violation> {
        let ticket = (link, frame.head.correlation.0);
        match frame.head.kind {
            FrameKind::GroupAssignment => self.on_assignment(now, &body(frame), in_transactions),
            // What is staged is committed when its transaction is, and fenced now.
            FrameKind::GroupDone | FrameKind::StageOffsetsAnswer => match self.asked.remove(&ticket) {
                Some(asked) => self.on_committed(asked),
                None => self.on_operated(now, ticket),
            },
            FrameKind::FetchOffsetsAnswer => self.on_offsets_told(ticket, &body(frame)),
            FrameKind::Refusal => match self.asked.remove(&ticket) {
                Some(_) => Ok(()),
                None => self.on_operator_refused(ticket, body::<wire::Refusal>(frame).code),
            },
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, asked: Asked) -> Result<(), Violation> {
        let Asked { group, member, offsets, objection, heard, arrived } = asked;
        if let Some(objection) = objection {
            return Err(broken(&group, format!("a commit was taken although {objection}")));
        }
        if let Some((member, at)) = heard {
            self.lives.entry(member).and_modify(|life| life.hear(at));
        }
        for (partition, offset) in offsets {
            let share = self.shares.entry((group.clone(), partition)).or_default();
            share.furthest = share.furthest.max(Some(offset));
            // What came before an operator was told that nobody has the partition was taken before.
            let may_be_since = |moved: &Move| {
                let mut turns = share.begun.iter().filter(|((name, _), _)| *name == member);
                moved.is_before(arrived) || turns.any(|(_, begun)| moved.may_be_before(begun.at))
            };
            if share.moved.as_ref().is_none_or(may_be_since) {
                share.committed = share.committed.max(Some(offset));
            }
        }
        Ok(())
    }

    fn on_assignment(
        &mut self,
        now: MonotonicNanos,
        told: &wire::GroupAssignment,
        in_transactions: impl Fn(PartitionId) -> Option<Offset>,
    ) -> Result<(), Violation> {
        let within = told.revoking.iter().map(|revoked| Duration::from_millis(revoked.within_ms.into()));
        let asked_until = within.min().map(|within| now.after(within));
        self.lives.entry(told.member).and_modify(|life| life.asked_until = asked_until);
        let is_replaced = self.is_replaced(told.member);
        let life = self.lives.get(&told.member);
        let is_of_deleted = life.is_some_and(|life| life.is_deleted);
        let is_new = life.is_some_and(|life| !self.may_be_deleted(&told.group, life.joined_again));
        for owned in &told.owned {
            let partition = partition(owned.topic, owned.partition);
            let since = Generation(owned.since);
            let key = (told.group.clone(), partition);
            let share = self.shares.entry(key.clone()).or_default();
            let (committed, place) = (share.committed, share.place);
            let candidates = &share.candidates;
            share.begun.entry((told.member, since)).or_insert_with(|| Begun {
                at: now,
                committed,
                place,
                candidates: candidates.clone(),
                in_transactions: in_transactions(partition),
            });
            if is_of_deleted {
                continue;
            }
            if share.may_be_another && is_new {
                // Whatever became of the group: this is the count of the one that there is.
                share.since = since;
                share.told.clear();
                share.may_be_another = false;
            }
            if since < share.since {
                // It waited for a message between shards, and was overtaken.
                continue;
            }
            if share.since < since {
                share.since = since;
                share.told.clear();
            }
            share.told.insert(told.member);
            share.is_free = false;
            if is_replaced {
                // Perhaps the next life of a static member has overtaken it, which goes on with the same turn.
                continue;
            }
            let share = &self.shares[&key];
            let is_other = |name: &MemberName| *name != told.member;
            let mut twins = share.told.iter().copied().filter(is_other);
            let mut workers = share.workers.keys().copied().filter(is_other);
            let other = twins.find(|other| !self.is_replaced(*other) && !share.may_be_another);
            if let Some(other) = other.or_else(|| workers.find(|other| !self.may_be_over(now, *other))) {
                let (member, other) = (display(told.member), display(other));
                let what = format!("{partition} is told to be {member}'s since {since} and is still {other}'s");
                return Err(broken(&told.group, what));
            }
        }
        Ok(())
    }

    fn is_replaced(&self, member: MemberName) -> bool {
        self.lives.get(&member).is_some_and(|life| life.is_replaced)
    }

    /// Whether the group may have put a member out by now.
    fn may_be_out(&self, now: MonotonicNanos, member: MemberName) -> bool {
        let Some(life) = self.lives.get(&member) else { return false };
        let is_gone = life.has_left || life.is_replaced || life.is_deleted;
        is_gone || life.may_have_expired(now) || self.may_be_overdue(now, member, life)
    }

    /// The same, if the group may be no more.
    fn may_be_over(&self, now: MonotonicNanos, member: MemberName) -> bool {
        let may_be_deleted = |life: &Life| self.may_be_deleted(&life.group, life.joined_again);
        self.lives.get(&member).is_some_and(may_be_deleted) || self.may_be_out(now, member)
    }

    /// Whether a member may have been asked for something for its rebalance time-out: as it was told, or if it was told of
    /// nothing, since it has what it has. The time counts from the decision, which waits for the disk before it is told, even
    /// together with the turn that it ends.
    fn may_be_overdue(&self, now: MonotonicNanos, member: MemberName, life: &Life) -> bool {
        if life.asked_until.is_some_and(|until| until <= now.after(HANDLING)) {
            return true;
        }
        let works = self.shares.values().filter_map(|share| share.workers.get(&member));
        let oldest = works.map(|(_, from)| *from).min().unwrap_or(life.joined);
        life.rebalance_timeout <= now.since(oldest) + HANDLING
    }

    /// A member is told that it was put out.
    ///
    /// # Errors
    /// There was no reason to.
    pub(crate) fn on_fenced(
        &self,
        now: MonotonicNanos,
        member: MemberName,
        reason: FenceReason,
    ) -> Result<(), Violation> {
        let Some(life) = self.lives.get(&member) else { return Ok(()) };
        let is_just = match reason {
            FenceReason::SessionExpired => life.may_have_expired(now),
            FenceReason::StaticIdTaken => life.is_replaced,
            FenceReason::RebalanceTimeout => life.rebalance_timeout <= now.since(life.joined) + HANDLING,
            FenceReason::Unknown | FenceReason::GroupDeleted => self.may_be_over(now, member),
        };
        if is_just {
            return Ok(());
        }
        let silence = life.longest_silence.max(now.since(life.heard));
        let what = format!("{} was put out ({reason}), silent for {silence:?} at most", display(member));
        Err(broken(&life.group, what))
    }

    /// Nothing that arrived is answered any more: the broker is gone.
    pub(crate) fn on_broker_gone(&mut self) {
        self.asked.clear();
        self.forget_operator();
    }

    /// A member stops to work on a partition.
    pub(crate) fn on_stopped(&mut self, group: &str, partition: PartitionId, member: MemberName) {
        if let Some(share) = self.shares.get_mut(&(group.to_owned(), partition)) {
            share.workers.remove(&member);
        }
    }

    /// A member reads on from here: everything before was shown to the group, or is no longer in the log.
    pub(crate) fn on_shown(&mut self, group: &str, partition: PartitionId, next: Offset) {
        let share = self.shares.entry((group.to_owned(), partition)).or_default();
        share.shown = share.shown.max(next);
    }

    /// A member is told that it has committed an offset.
    ///
    /// # Errors
    /// No such commit was answered.
    pub(crate) fn on_told_committed(
        &self,
        group: &str,
        partition: PartitionId,
        offset: Offset,
    ) -> Result<(), Violation> {
        let furthest = self.shares.get(&(group.to_owned(), partition)).and_then(|share| share.furthest);
        if Some(offset) <= furthest {
            return Ok(());
        }
        Err(broken(group, format!("offset {offset} of {partition} is settled, committed was {furthest:?}")))
    }

    /// The furthest offset that was told to be committed.
    pub(crate) fn committed(&self, group: &str, partition: PartitionId) -> Option<Offset> {
        self.shares.get(&(group.to_owned(), partition)).and_then(|share| share.committed)
    }

    /// What the group's transactions were known to have committed of a partition when a member was told of its turn.
    pub(crate) fn committed_at_turn(
        &self,
        group: &str,
        partition: PartitionId,
        turn: (MemberName, Generation),
    ) -> Option<Offset> {
        let share = self.shares.get(&(group.to_owned(), partition))?;
        share.begun.get(&turn).and_then(|begun| begun.in_transactions)
    }

    /// Whether anybody asked to commit this outside of a transaction, as members do with where a group begins.
    pub(super) fn may_be_committed_by_itself(&self, partition: PartitionId, offset: Offset) -> bool {
        self.by_themselves.contains(&(partition, offset))
    }

    /// How many members work on a partition.
    pub(crate) fn workers(&self, group: &str, partition: PartitionId) -> usize {
        self.shares.get(&(group.to_owned(), partition)).map_or(0, |share| share.workers.len())
    }
}

impl Oracle {
    /// A frame about groups leaves the broker.
    ///
    /// # Errors
    /// It gives a partition to a second member, or takes a commit that is not its sender's to make.
    pub(crate) fn on_group_left(&mut self, now: MonotonicNanos, link: u64, frame: &Frame) -> Result<(), Violation> {
        self.groups.on_left(now, link, frame, |partition| self.pipeline.committed(partition))
    }

    /// A member begins to work on a partition, perhaps long after it was told to.
    ///
    /// # Errors
    /// It begins before an offset whose commit had been answered when it was told, or after records that nobody was shown.
    pub(crate) fn on_turn(
        &mut self,
        group: &str,
        partition: PartitionId,
        member: MemberName,
        (turn, start): (Generation, GroupStart),
    ) -> Result<(), Violation> {
        let log_start = self.log_start(partition);
        let share = self.groups.shares.entry((group.to_owned(), partition)).or_default();
        let Some(begun) = share.begun.get(&(member, turn)).cloned() else {
            return Err(broken(
                group,
                format!("{partition} is {}'s since {turn}, which nobody told it", display(member)),
            ));
        };
        share.workers.insert(member, (turn, begun.at));
        let start = match start {
            GroupStart::Committed(offset) => Some(offset),
            GroupStart::Reset(_) | GroupStart::Nowhere => None,
        };
        if let Some(place) = begun.place.filter(|place| *place != start) {
            let what = format!("{partition} begins at {start:?}, an operator had put it to {place:?}");
            return Err(broken(group, what));
        }
        let may_be_put = begun.candidates.iter().any(|candidate| candidate.place == start);
        if start < begun.committed && !may_be_put {
            let committed = begun.committed;
            let what = format!("{partition} begins at {start:?}, a commit of {committed:?} was answered");
            return Err(broken(group, what));
        }
        share.furthest = share.furthest.max(start);
        if share.moved.is_none_or(|moved| moved.may_be_before(begun.at)) {
            // What is told is durable, whether the commit was answered or not. If it was put there, what was committed before
            // does not count.
            let is_put = may_be_put && share.since <= turn;
            share.committed = if is_put { start } else { share.committed.max(start) };
            share.settle_candidates(begun.at);
        }
        let shown = share.shown.max(log_start);
        match start.filter(|start| shown < *start) {
            Some(start) => Err(broken(group, format!("{partition} begins at {start}, it was shown to {shown}"))),
            None => Ok(()),
        }
    }
}

impl Life {
    /// It was heard of at that moment; perhaps that is known late.
    fn hear(&mut self, at: MonotonicNanos) {
        if self.heard < at {
            self.longest_silence = self.longest_silence.max(at.since(self.heard));
            self.heard = at;
        }
    }

    /// Whether it was silent for its session time-out, as far as can be told from here.
    fn may_have_expired(&self, now: MonotonicNanos) -> bool {
        self.session_timeout <= self.longest_silence.max(now.since(self.heard)) + HANDLING
    }
}

fn display((high, _): MemberName) -> String {
    format!("member {high:016x}")
}

#[cfg(test)]
mod tests;
