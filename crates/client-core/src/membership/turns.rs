//! Turns of partitions: how they begin, what is committed in them, how they end.

use bytes::Bytes;
use corelane_model::{ConnectionKey, Generation, MemberId, MonotonicNanos, Offset, PartitionId, StartAt};

use super::{Assignment, Change, Giving, Membership, Phase, Revoked, State};
use crate::{
    AssignedPartition, CommitError, CommitKey, CommitOffset, GroupNews, GroupStart, LostReason, SubscriptionKey,
};

impl Membership {
    /// A frame of an assignment came. It counts when it is whole.
    pub(crate) fn on_assignment(
        &mut self,
        connection: ConnectionKey,
        member: MemberId,
        frame: Assignment,
        is_last: bool,
    ) {
        if !self.is_spoken_to(connection, member) {
            return;
        }
        let mut told = match self.partial.take() {
            Some(partial) if partial.generation == frame.generation => partial,
            Some(_) | None => Assignment { generation: frame.generation, ..Assignment::default() },
        };
        told.topics.extend(frame.topics);
        told.owned.extend(frame.owned);
        told.revoking.extend(frame.revoking);
        told.standby.extend(frame.standby);
        if is_last {
            self.act_upon(&told);
        } else {
            self.partial = Some(told);
        }
    }

    /// Before the join is answered, and after a leave, nothing counts; another member id is an earlier life, and what an
    /// earlier connection still carries may be older than what this one said.
    fn is_spoken_to(&self, connection: ConnectionKey, member: MemberId) -> bool {
        matches!(self.state, State::Member { on } if on == Some(connection)) && member == self.member
    }

    fn act_upon(&mut self, told: &Assignment) {
        let difference = self.holding.compare(told);
        let is_repeated = told.generation == self.seen;
        self.seen = told.generation;
        if !difference.lost.is_empty() {
            self.lose(&difference.lost);
        }
        for Revoked { partition, deadline, .. } in &difference.revoking {
            let held = self.holding.held.get_mut(partition).expect("only what is held is revoked");
            held.phase = Phase::Revoking { deadline: *deadline };
            self.changes.extend(held.subscription.take().map(Change::End));
        }
        let is_changed = difference != super::holding::Difference::default();
        if !difference.revoking.is_empty() {
            self.tell(GroupNews::Revoking(difference.revoking.iter().map(|revoked| revoked.partition).collect()));
        }
        let mut begun = Vec::new();
        for &(partition, since, committed) in &told.owned {
            let Some(topic) = told.topics.get(&partition.topic) else { continue };
            if self.holding.held.get(&partition).is_none_or(|held| held.since != since) {
                let (followed, subscription) = self.standbys.take_over(partition).unwrap_or_default();
                self.changes.extend(subscription.map(Change::End));
                self.placing.remove(&partition);
                self.holding.begin(partition, since, topic.clone(), (committed, followed));
                begun.push(partition);
            }
        }
        self.holding.retain_blobs(&begun);
        if !begun.is_empty() {
            self.changes.push(Change::Begin(begun));
        }
        let name = |&partition: &PartitionId| Some((partition, told.topics.get(&partition.topic)?.clone()));
        if let Some(ended) = self.standbys.replace(told.standby.iter().filter_map(name).collect()) {
            self.changes.extend(ended.into_iter().map(Change::End));
            self.changes.push(Change::Follow);
        }
        self.is_report_due |= is_changed || !is_repeated;
    }

    fn lose(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            let failed = self.commits.forget(*partition);
            self.changes.extend(failed.map(Change::Tell));
            if let Some(held) = self.holding.held.remove(partition) {
                self.changes.extend(held.subscription.map(Change::End));
            }
        }
        self.tell(GroupNews::Lost { partitions: partitions.to_vec(), reason: LostReason::Reassigned });
    }

    /// What the old owner of a partition left.
    pub(crate) fn on_hand_over(
        &mut self,
        connection: ConnectionKey,
        member: MemberId,
        partition: PartitionId,
        blob: Bytes,
    ) {
        if self.is_spoken_to(connection, member) {
            self.holding.on_hand_over(partition, blob);
        }
    }

    /// A turn as it is told, with what it is read with.
    pub(crate) fn assigned(
        &mut self,
        partition: PartitionId,
        subscription: Option<SubscriptionKey>,
    ) -> Option<AssignedPartition> {
        let start = self.start_of(partition)?;
        let blob = self.holding.take_blob(partition);
        let held = self.holding.held.get_mut(&partition)?;
        held.subscription = subscription;
        let (topic, turn, followed) = (held.topic.clone(), held.since, held.followed);
        Some(AssignedPartition { partition, topic, turn, start, followed, subscription, blob })
    }

    /// Where a turn begins.
    pub(crate) fn start_of(&self, partition: PartitionId) -> Option<GroupStart> {
        let held = self.holding.held.get(&partition)?;
        Some(GroupStart::of(held.committed, self.settings.reset))
    }

    /// Where a turn is read from: a state that was kept warm misses nothing between where it was and where the group is.
    pub(crate) fn read_from(&self, partition: PartitionId) -> Option<StartAt> {
        let held = self.holding.held.get(&partition)?;
        match (held.followed, held.committed) {
            (Some(followed), Some(committed)) if followed < committed => Some(StartAt::Offset(followed)),
            _ => self.start_of(partition)?.start_at(),
        }
    }

    /// Reading of a turn is to begin where the reset policy says, which is known now. Nobody else would find that place: by
    /// the same policy another owner may begin behind records that were handed out and not committed. So it is committed
    /// first. Whether reading has to wait for that; [`Change::Start`] says when it is done.
    pub(crate) fn place(&mut self, partition: PartitionId, subscription: SubscriptionKey, first: Offset) -> bool {
        let Some(held) = self.holding.held.get_mut(&partition) else { return false };
        if held.subscription != Some(subscription) {
            return false;
        }
        if !std::mem::replace(&mut held.is_placed, true) {
            self.commits.add(partition, held.since, first, String::new(), None);
            self.placing.insert(partition);
        }
        self.placing.contains(&partition)
    }

    /// Commits were settled: reading begins where it waited for one. Of a commit that was refused for good the application
    /// hears if it was its own; there is nothing better to wait for.
    pub(super) fn settle_places(&mut self) {
        let commits = &self.commits;
        for partition in self.placing.extract_if(.., |&partition| !commits.has(partition)) {
            let subscription = self.holding.held.get(&partition).and_then(|held| held.subscription);
            self.changes.extend(subscription.map(Change::Start));
        }
    }

    /// Commits offsets of turns that last; the others fail.
    pub(crate) fn commit(&mut self, offsets: Vec<CommitOffset>) -> CommitKey {
        let key = self.commits.next_key();
        for CommitOffset { partition, turn, offset, metadata } in offsets {
            if !self.has_turn(partition, turn) {
                let error = CommitError::Lost { partition };
                self.tell(GroupNews::CommitFailed { partition, commits: key..=key, error });
                continue;
            }
            let held = self.holding.held.get_mut(&partition).expect("it has this turn");
            held.owed = None;
            if !std::mem::replace(&mut held.is_placed, true) {
                self.placing.insert(partition);
            }
            self.commits.add(partition, turn, offset, metadata, Some(key));
        }
        key
    }

    /// Whether offsets that were read in a turn may be committed: it lasts, and the member has not said good-bye.
    pub(crate) fn has_turn(&self, partition: PartitionId, turn: Generation) -> bool {
        let is_leaving = matches!(self.state, State::Leaving { .. });
        !is_leaving && self.holding.held.get(&partition).is_some_and(|held| held.since == turn)
    }

    /// The application is through with everything of a turn before `offset`; auto-commit owes it from now on. Returns
    /// whether that is the first that it owes.
    pub(crate) fn finished(
        &mut self,
        now: MonotonicNanos,
        partition: PartitionId,
        turn: Generation,
        offset: Offset,
    ) -> bool {
        let Some(interval) = self.settings.auto_commit else { return false };
        let Some(held) = self.holding.held.get_mut(&partition).filter(|held| held.since == turn) else { return false };
        held.owed = Some(offset);
        let is_first = self.auto_commit_at.is_none();
        if is_first {
            self.auto_commit_at = Some(now.after(interval));
        }
        is_first
    }

    /// What is owed goes with the next commit.
    pub(super) fn owe_all(&mut self) {
        for (&partition, held) in &mut self.holding.held {
            if let Some(offset) = held.owed.take() {
                self.commits.add(partition, held.since, offset, String::new(), None);
            }
        }
    }

    pub(crate) fn revoke_deadline(&self, partition: PartitionId) -> Option<MonotonicNanos> {
        match self.holding.held.get(&partition)?.phase {
            Phase::Owned => None,
            Phase::Revoking { deadline } => Some(deadline),
        }
    }

    /// The application has moved on from a partition that it was asked for. False if it was not asked for it.
    pub(crate) fn give_up(&mut self, partition: PartitionId, blob: Option<Bytes>) -> bool {
        let Some(Phase::Revoking { deadline }) = self.holding.held.get(&partition).map(|held| held.phase) else {
            return false;
        };
        let held = self.holding.held.remove(&partition).expect("just looked at");
        if let Some(offset) = held.owed {
            self.commits.add(partition, held.since, offset, String::new(), None);
        }
        match blob {
            Some(blob) => drop(self.giving.insert(partition, Giving { blob, was_sent: false, deadline })),
            None => self.is_report_due = true,
        }
        true
    }

    /// The application reads a partition from elsewhere. What was finished before says nothing any more.
    pub(crate) fn seek(&mut self, partition: PartitionId, turn: Generation) -> bool {
        match self.holding.held.get_mut(&partition) {
            Some(held) if held.since == turn && held.phase == Phase::Owned => {
                held.owed = None;
                self.changes.extend(held.subscription.take().map(Change::End));
                true
            }
            Some(_) | None => false,
        }
    }
}
