//! What members are told.

use std::ops::Range;

use bytes::Bytes;
use corelane_client_core::{
    AssignedPartition, CommitError, CommitKey, GroupKey, GroupNews, GroupStart, LostReason, MembershipError,
    SubscriptionKey,
};
use corelane_model::{Incarnation, Isolation, Now, Offset, PartitionId};
use corelane_record::{RecordBatch, split_batch};

use super::{Client, GroupTodo, GroupWorker, Turn, Wish};
use crate::oracle::groups::MemberName;
use crate::{Oracle, Violation, payload};

/// Longest time that a member takes to move on from what is asked back, in milliseconds, mostly.
const MOVE_ON_MS: u64 = 400;

impl Client {
    /// News of a membership.
    ///
    /// # Errors
    /// It breaks a promise of groups.
    pub(crate) fn on_group_news(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        key: GroupKey,
        news: GroupNews,
    ) -> Result<Vec<Wish>, Violation> {
        let worker = self.group.as_mut().expect("only members hear of groups");
        if worker.is_retired || !worker.members.contains_key(&key) {
            return Ok(Vec::new());
        }
        match news {
            GroupNews::Assigned(turns) => {
                let Some((name, _)) = self.core.member_of_group(key) else { return Ok(Vec::new()) };
                turns.into_iter().try_for_each(|turn| worker.on_assigned(oracle, (key, name), turn))?;
                Ok(Vec::new())
            }
            GroupNews::Revoking(partitions) => Ok(worker.on_revoking(key, &partitions)),
            GroupNews::Lost { partitions, reason } => {
                worker.on_lost(now, oracle, key, reason)?;
                partitions.into_iter().for_each(|partition| worker.end_turn(oracle, key, partition));
                Ok(Vec::new())
            }
            GroupNews::Ended { error } => worker.on_ended(now, oracle, key, error.as_ref()),
            GroupNews::CommitsSettled { below } => worker.on_settled(oracle, key, below).map(|()| Vec::new()),
            GroupNews::CommitFailed { partition, commits, error } => {
                let member = worker.members.get_mut(&key).expect("just looked at");
                member.commits.retain(|(commit, of, _)| *of != partition || !commits.contains(commit));
                if let (Some(turn), CommitError::Refused { .. }) = (member.turns.get_mut(&partition), error) {
                    turn.committed = None;
                }
                Ok(Vec::new())
            }
            GroupNews::Joined { .. } | GroupNews::Standby(_) | GroupNews::HandOverRefused { .. } => Ok(Vec::new()),
        }
    }

    /// The broker took a turn's subscription.
    pub(crate) fn on_turn_subscribed(&mut self, oracle: &mut Oracle, subscription: SubscriptionKey, next: Offset) {
        let worker = self.group.as_mut().expect("only members have turns");
        let Some((group, turn, partition)) = worker.of_subscription(subscription) else { return };
        // It may begin later than was asked for only where the log was truncated.
        let from = next.min(oracle.log_start(partition));
        if turn.next < from {
            turn.next = from;
            turn.finished = turn.finished.max(from);
            oracle.groups.on_shown(&group, partition, from);
        }
    }

    /// Batches of a turn.
    ///
    /// # Errors
    /// A record is not what stands there, or not the next.
    pub(crate) fn on_turn_delivered(
        &mut self,
        oracle: &mut Oracle,
        incarnation: Incarnation,
        subscription: SubscriptionKey,
        mut bytes: Bytes,
        range: Range<Offset>,
    ) -> Result<Vec<Wish>, Violation> {
        let length = bytes.len() as u64;
        let worker = self.group.as_mut().expect("only members have turns");
        let Some(&(member, partition)) = worker.subscriptions.get(&subscription) else { return Ok(Vec::new()) };
        let (group, turn, _) = worker.of_subscription(subscription).expect("just looked at");
        let damaged = |offset, what| Violation::Foreign { partition, offset, what };
        let no_batch = |_| damaged(range.start, "what was pushed is no batch");
        while let Some(batch) = split_batch(&mut bytes).map_err(no_batch)? {
            let batch = RecordBatch::parse(batch).map_err(no_batch)?;
            for record in batch.iter().filter(|record| range.start <= record.offset) {
                let id = payload::identify(&record);
                let id = id.ok_or_else(|| damaged(record.offset, "the record's bytes changed"))?;
                if range.end <= record.offset {
                    return Err(damaged(record.offset, "the record lies above the high watermark"));
                }
                oracle.on_shown(turn.reader, partition, incarnation, record.offset, id)?;
                turn.next = record.offset.advance(1);
            }
        }
        let (generation, next) = (turn.turn, turn.next);
        oracle.groups.on_shown(&group, partition, next);
        let of = (subscription, length);
        Ok(vec![worker.soon(50, GroupTodo::Finish { member, partition, turn: generation, next, of })])
    }

    /// What a turn was read with has ended.
    pub(crate) fn on_turn_ended(&mut self, subscription: SubscriptionKey) -> Vec<Wish> {
        let worker = self.group.as_mut().expect("only members have turns");
        let Some((member, partition)) = worker.subscriptions.remove(&subscription) else { return Vec::new() };
        let turn = worker.members.get_mut(&member).and_then(|member| member.turns.get_mut(&partition));
        let Some(turn) = turn else { return Vec::new() };
        turn.subscription = None;
        let turn = turn.turn;
        vec![worker.soon(50, GroupTodo::ReadOn { member, partition, turn })]
    }
}

impl GroupWorker {
    fn of_subscription(&mut self, subscription: SubscriptionKey) -> Option<(String, &mut Turn, PartitionId)> {
        let &(member, partition) = self.subscriptions.get(&subscription)?;
        let turn = self.members.get_mut(&member)?.turns.get_mut(&partition)?;
        Some((self.group.as_str().to_owned(), turn, partition))
    }

    fn on_assigned(
        &mut self,
        oracle: &mut Oracle,
        (key, name): (GroupKey, MemberName),
        told: AssignedPartition,
    ) -> Result<(), Violation> {
        let AssignedPartition { partition, turn, start, subscription, blob, .. } = told;
        let group = self.group.as_str();
        oracle.on_turn(group, partition, name, (turn, start))?;
        if let Some(word) = blob {
            let word = String::from_utf8_lossy(&word).into_owned();
            let is_for_it = word.split_once(' ').is_some_and(|(of, earlier)| {
                of == partition.to_string() && earlier.parse().is_ok_and(|earlier: u64| earlier < turn.0)
            });
            if !is_for_it {
                let what = format!("the owner of {partition} since {turn} was left {word:?}");
                return Err(Violation::Group { group: group.to_owned(), what });
            }
        }
        let next = match start {
            GroupStart::Committed(offset) => offset,
            GroupStart::Reset(_) | GroupStart::Nowhere => Offset::ZERO,
        };
        let reader = self.fresh_reader();
        oracle.on_reader(reader, partition, Isolation::Uncommitted, Some(next));
        if let Some(subscription) = subscription {
            self.subscriptions.insert(subscription, (key, partition));
        }
        let committed = matches!(start, GroupStart::Committed(_)).then_some(next);
        let turn = Turn { turn, name, reader, next, finished: next, committed, subscription };
        self.members.get_mut(&key).expect("it lives").turns.insert(partition, turn);
        Ok(())
    }

    fn on_revoking(&mut self, key: GroupKey, partitions: &[PartitionId]) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let rebalance_ms = u64::try_from(self.plan.rebalance_timeout.as_millis()).expect("a minute at most");
        for &partition in partitions {
            let turn = self.members.get_mut(&key).and_then(|member| member.turns.get_mut(&partition));
            let Some(turn) = turn else { continue };
            if let Some(subscription) = turn.subscription.take() {
                self.subscriptions.remove(&subscription);
            }
            let turn = turn.turn;
            // Some take too long, where that is possible within a run.
            let is_slow = !self.is_calm && self.random.is_one_in(8) && rebalance_ms < 10_000;
            let most_ms = if is_slow { rebalance_ms * 4 } else { MOVE_ON_MS.min(rebalance_ms / 2) };
            wishes.push(self.soon(most_ms, GroupTodo::GiveUp { member: key, partition, turn }));
        }
        wishes
    }

    fn on_lost(&mut self, now: Now, oracle: &mut Oracle, key: GroupKey, reason: LostReason) -> Result<(), Violation> {
        let LostReason::Fenced(reason) = reason else { return Ok(()) };
        let name = self.members[&key].turns.values().next().map(|turn| turn.name);
        let Some(name) = name else { return Ok(()) };
        oracle.groups.on_fenced(now.monotonic, name, reason)?;
        self.stop(oracle, key);
        Ok(())
    }

    /// A membership is over: somebody else takes the seat.
    fn on_ended(
        &mut self,
        now: Now,
        oracle: &mut Oracle,
        key: GroupKey,
        error: Option<&MembershipError>,
    ) -> Result<Vec<Wish>, Violation> {
        if let Some(&MembershipError::Fenced(reason)) = error {
            self.on_lost(now, oracle, key, LostReason::Fenced(reason))?;
        }
        self.stop(oracle, key);
        let member = self.members.remove(&key).expect("it lives");
        if self.seats[member.seat] != Some(key) {
            return Ok(Vec::new());
        }
        self.seats[member.seat] = None;
        Ok(vec![self.soon(300, GroupTodo::Join { seat: member.seat })])
    }

    fn on_settled(&mut self, oracle: &Oracle, key: GroupKey, below: CommitKey) -> Result<(), Violation> {
        let group = self.group.as_str();
        let member = self.members.get_mut(&key).expect("it lives");
        let (settled, open) = std::mem::take(&mut member.commits).into_iter().partition(|(commit, ..)| *commit < below);
        member.commits = open;
        let settled: Vec<(CommitKey, PartitionId, Offset)> = settled;
        settled
            .into_iter()
            .try_for_each(|(_, partition, offset)| oracle.groups.on_told_committed(group, partition, offset))
    }
}
