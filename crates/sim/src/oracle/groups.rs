//! What must hold of consumer groups.
//!
//! Two views meet here. One is the wire at the broker: which frames of members arrived, which of the coordinator left.
//! The other is what members act upon: which partitions they work on, where they begin, what they are shown.
//!
//! A member may work on what is another's already only if the group had a reason to put it out: it was silent for its
//! session time-out, it left, it was replaced under its static id, or it had something for its rebalance time-out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_client_core::{FenceReason, GroupStart};
use corelane_model::{Generation, MonotonicNanos, Offset, PartitionId, PartitionIndex, TopicId};
use corelane_wire as wire;
use corelane_wire::{Frame, FrameKind};

use super::{Oracle, Violation};

/// A member's id as it is on the wire.
pub(crate) type MemberName = (u64, u64);

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
    /// The newest connection that it spoke on: what comes late on others is not heard any more.
    link: u64,
    heard: MonotonicNanos,
    longest_silence: Duration,
    has_left: bool,
    /// A newer member came with its static id.
    is_replaced: bool,
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
    /// The furthest offset that was told to be committed.
    committed: Option<Offset>,
    /// Everything before it was shown to some member.
    shown: Offset,
}

/// What was known when the word of a turn left the broker.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: MonotonicNanos,
    committed: Option<Offset>,
    /// What a pipeline's transactions had committed.
    in_transactions: Option<Offset>,
}

/// A commit that arrived and was not answered.
#[derive(Debug)]
struct Asked {
    group: String,
    offsets: Vec<(PartitionId, Offset)>,
    /// Why it must not be taken.
    objection: Option<String>,
    /// Who is heard if it is taken, and when it came.
    heard: Option<(MemberName, MonotonicNanos)>,
}

/// Everything that is known of groups from outside.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    lives: BTreeMap<MemberName, Life>,
    shares: BTreeMap<(String, PartitionId), Share>,
    asked: BTreeMap<(u64, u64), Asked>,
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
                let asked = Asked { group: commit.group, offsets, objection, heard: None };
                self.asked.insert((link, frame.head.correlation.0), asked);
            }
            FrameKind::StageOffsets => {
                let wire::StageOffsets { group, member, generation, offsets, .. } = body(frame);
                let staged = wire::CommitOffsets { group, member, generation, offsets };
                let objection = self.objection(&staged);
                // The group hears of it only if its transaction is in order.
                let heard = Some((member, now));
                let asked = Asked { group: staged.group, offsets: Vec::new(), objection, heard };
                self.asked.insert((link, frame.head.correlation.0), asked);
            }
            _ => {}
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
        self.lives.entry(join.member).or_insert_with(|| Life {
            group: join.group,
            static_id: join.static_id,
            session_timeout: Duration::from_millis(join.session_timeout_ms.into()),
            rebalance_timeout: Duration::from_millis(join.rebalance_timeout_ms.into()),
            joined: now,
            link,
            heard: now,
            longest_silence: Duration::ZERO,
            has_left: false,
            is_replaced: false,
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
            if share.told.is_empty() {
                return None;
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
        match frame.head.kind {
            FrameKind::GroupAssignment => self.on_assignment(now, &body(frame), in_transactions),
            // What is staged is committed when its transaction is, and fenced now.
            FrameKind::GroupDone | FrameKind::StageOffsetsAnswer => {
                match self.asked.remove(&(link, frame.head.correlation.0)) {
                    Some(asked) => self.on_committed(asked),
                    None => Ok(()),
                }
            }
            FrameKind::Refusal => {
                self.asked.remove(&(link, frame.head.correlation.0));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_committed(&mut self, asked: Asked) -> Result<(), Violation> {
        let Asked { group, offsets, objection, heard } = asked;
        if let Some(objection) = objection {
            return Err(broken(&group, format!("a commit was taken although {objection}")));
        }
        if let Some((member, at)) = heard {
            self.lives.entry(member).and_modify(|life| life.hear(at));
        }
        for (partition, offset) in offsets {
            let share = self.shares.entry((group.clone(), partition)).or_default();
            share.committed = share.committed.max(Some(offset));
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
        for owned in &told.owned {
            let partition = partition(owned.topic, owned.partition);
            let since = Generation(owned.since);
            let key = (told.group.clone(), partition);
            let share = self.shares.entry(key.clone()).or_default();
            let begun = Begun { at: now, committed: share.committed, in_transactions: in_transactions(partition) };
            share.begun.entry((told.member, since)).or_insert(begun);
            if since < share.since {
                // It waited for a message between shards, and was overtaken.
                continue;
            }
            if share.since < since {
                share.since = since;
                share.told.clear();
            }
            share.told.insert(told.member);
            if is_replaced {
                // Perhaps the next life of a static member has overtaken it, which goes on with the same turn.
                continue;
            }
            let share = &self.shares[&key];
            let is_other = |name: &MemberName| *name != told.member;
            let mut twins = share.told.iter().copied().filter(is_other);
            let mut workers = share.workers.keys().copied().filter(is_other);
            let other = twins.find(|other| !self.is_replaced(*other));
            if let Some(other) = other.or_else(|| workers.find(|other| !self.may_be_out(now, *other))) {
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
        life.has_left || life.is_replaced || life.may_have_expired(now) || self.may_be_overdue(now, member, life)
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
            FenceReason::Unknown | FenceReason::GroupDeleted => self.may_be_out(now, member),
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
        let committed = self.committed(group, partition);
        if Some(offset) <= committed {
            return Ok(());
        }
        Err(broken(group, format!("offset {offset} of {partition} is settled, committed was {committed:?}")))
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
        let Some(&begun) = share.begun.get(&(member, turn)) else {
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
        if start < begun.committed {
            let committed = begun.committed;
            let what = format!("{partition} begins at {start:?}, a commit of {committed:?} was answered");
            return Err(broken(group, what));
        }
        // What is told is durable, whether the commit was answered or not.
        share.committed = share.committed.max(start);
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
