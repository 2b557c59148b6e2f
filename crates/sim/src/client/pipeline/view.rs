//! What a worker's machine is told, and what its application has looked at of that.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use corelane_client_core::{
    CommitOffset, GroupKey, GroupNews, GroupStart, LostReason, MembershipError, SubscriptionKey,
};
use corelane_model::{Generation, Incarnation, Offset, PartitionId, StartAt};
use corelane_record::{RecordBatch, split_batch};

use super::Around;
use super::life::{Life, Next};
use crate::oracle::groups::MemberName;
use crate::{Oracle, Violation, payload};

/// Records that are handed out together, so that a transaction is made of few enough for its time.
const HANDED_OUT_MAX: usize = 12;

/// A partition's time with a worker, as its application sees it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) turn: Generation,
    subscription: Option<SubscriptionKey>,
    /// The next record that it will look at.
    position: Offset,
    /// What it looked at and has not committed ends here.
    pub(super) uncommitted: Option<Offset>,
    /// What it looked at since the turn began, or since it was read from elsewhere.
    pub(super) read: Option<Range<Offset>>,
}

/// Ownership, which goes before data.
#[derive(Debug)]
enum News {
    Assigned { partition: PartitionId, turn: Generation, start: Offset, subscription: Option<SubscriptionKey> },
    Revoking(Vec<PartitionId>),
    Lost(Vec<PartitionId>),
}

#[derive(Debug)]
enum Data {
    Batch { inputs: Vec<Offset>, from: Offset, end: Offset, bytes: u64 },
    Passed { next: Offset },
    Ended,
}

impl Data {
    /// Cuts off what is handed out later, with the credit for all of it.
    fn split_rest(&mut self) -> Option<Self> {
        let Self::Batch { inputs, end, bytes, .. } = self else { return None };
        if inputs.len() <= HANDED_OUT_MAX {
            return None;
        }
        let inputs = inputs.split_off(HANDED_OUT_MAX);
        let (from, until) = (inputs[0], std::mem::replace(end, inputs[0]));
        Some(Self::Batch { inputs, from, end: until, bytes: std::mem::take(bytes) })
    }
}

/// Records of one partition that the application works on.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) partition: PartitionId,
    pub(super) turn: Generation,
    pub(super) inputs: Vec<Offset>,
}

/// A membership: what is true of it, and how much of that its application knows.
#[derive(Debug)]
pub(super) struct View {
    pub(super) group: GroupKey,
    /// What its machine works on, and under which id.
    works: BTreeMap<PartitionId, MemberName>,
    /// What is read with, of which partition and by which reader.
    reading: BTreeMap<SubscriptionKey, (PartitionId, u32)>,
    news: VecDeque<News>,
    data: VecDeque<(SubscriptionKey, PartitionId, Data)>,
    pub(super) turns: BTreeMap<PartitionId, Turn>,
    /// What the application was asked for, and gives up when it goes on.
    asked_back: Vec<PartitionId>,
}

impl View {
    pub(super) const fn new(group: GroupKey) -> Self {
        Self {
            group,
            works: BTreeMap::new(),
            reading: BTreeMap::new(),
            news: VecDeque::new(),
            data: VecDeque::new(),
            turns: BTreeMap::new(),
            asked_back: Vec::new(),
        }
    }

    pub(super) fn reads(&self, subscription: SubscriptionKey) -> bool {
        self.reading.contains_key(&subscription)
    }

    fn read_with(&mut self, around: &mut Around<'_>, partition: PartitionId, with: SubscriptionKey, from: Offset) {
        self.stop_reading(around.oracle, partition);
        *around.reader += 1;
        around.oracle.on_reader(*around.reader, partition, around.plan.isolation, Some(from));
        self.reading.insert(with, (partition, *around.reader));
    }

    fn stop_reading(&mut self, oracle: &mut Oracle, partition: PartitionId) {
        for (_, (_, reader)) in self.reading.extract_if(.., |_, (read, _)| *read == partition) {
            oracle.on_reader_gone(reader, partition);
        }
    }

    /// It works on nothing any more.
    pub(super) fn stop(&mut self, oracle: &mut Oracle, group: &str) {
        let works = self.works.keys().copied().collect::<Vec<_>>();
        works.into_iter().for_each(|partition| self.stop_work(oracle, group, partition));
    }

    fn stop_work(&mut self, oracle: &mut Oracle, group: &str, partition: PartitionId) {
        self.stop_reading(oracle, partition);
        if let Some(name) = self.works.remove(&partition) {
            oracle.groups.on_stopped(group, partition, name);
        }
    }

    /// Goes on to the next event: gives up what the application was asked for before, and takes in what is new of ownership.
    /// Says whether there was anything to tell the application about.
    pub(super) fn go_on(&mut self, around: &mut Around<'_>) -> bool {
        for partition in std::mem::take(&mut self.asked_back) {
            self.turns.remove(&partition);
            if around.core.give_up(self.group, partition, None) {
                self.stop_work(around.oracle, around.group.as_str(), partition);
            }
        }
        self.look()
    }

    /// Whether anything is asked back that was not given up, be it that the application has not looked.
    pub(super) fn is_asked(&self) -> bool {
        !self.asked_back.is_empty() || self.news.iter().any(|news| matches!(news, News::Revoking(_)))
    }

    /// Takes in what is new of ownership; whether anything is taken away.
    pub(super) fn look(&mut self) -> bool {
        let mut is_less = false;
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Assigned { partition, turn, start, subscription } => {
                    let turn = Turn { turn, subscription, position: start, uncommitted: None, read: None };
                    self.turns.insert(partition, turn);
                }
                News::Revoking(partitions) => {
                    for partition in &partitions {
                        self.turns.entry(*partition).and_modify(|turn| turn.subscription = None);
                    }
                    self.asked_back.extend(partitions);
                    is_less = true;
                }
                News::Lost(partitions) => {
                    self.asked_back.retain(|partition| !partitions.contains(partition));
                    self.turns.retain(|partition, _| !partitions.contains(partition));
                    is_less = true;
                }
            }
        }
        is_less
    }

    /// The next batch that is there for the application.
    pub(super) fn next_batch(&mut self, around: &mut Around<'_>) -> Option<InHand> {
        while let Some((subscription, partition, mut data)) = self.data.pop_front() {
            if let Some(rest) = data.split_rest() {
                self.data.push_front((subscription, partition, rest));
            }
            if let Data::Batch { bytes, .. } = data {
                around.core.consumed(subscription, bytes);
            }
            let Some(turn) = self.turns.get_mut(&partition) else { continue };
            if turn.subscription != Some(subscription) {
                continue;
            }
            match data {
                Data::Batch { inputs, from, end, .. } => {
                    turn.take(from, end);
                    return Some(InHand { partition, turn: turn.turn, inputs });
                }
                Data::Passed { next } => turn.take(turn.position, next),
                Data::Ended => {
                    turn.subscription = None;
                    let from = turn.position;
                    self.seek(around, partition, from);
                }
            }
        }
        None
    }

    /// Reads a partition from elsewhere, if it is still the worker's to read.
    fn seek(&mut self, around: &mut Around<'_>, partition: PartitionId, to: Offset) {
        let Some(turn) = self.turns.get_mut(&partition) else { return };
        let start = if to == Offset::ZERO { StartAt::Earliest } else { StartAt::Offset(to) };
        let Some(with) = around.core.seek(self.group, partition, turn.turn, start) else { return };
        *turn = Turn { subscription: Some(with), position: to, uncommitted: None, read: None, ..*turn };
        self.read_with(around, partition, with, to);
    }

    /// Offsets of all that the application looked at and has not committed.
    pub(super) fn take_uncommitted(&mut self) -> Vec<CommitOffset> {
        let of = |(&partition, turn): (&PartitionId, &mut Turn)| {
            let offset = turn.uncommitted.take()?;
            Some(CommitOffset { partition, turn: turn.turn, offset, metadata: String::new() })
        };
        self.turns.iter_mut().filter_map(of).collect()
    }

    /// What the application looked at without a break, of each partition.
    pub(super) fn read(&self) -> BTreeMap<PartitionId, Range<Offset>> {
        self.turns.iter().filter_map(|(&id, turn)| Some((id, turn.read.clone()?))).collect()
    }

    /// Reads again what is not committed.
    pub(super) fn rewind(&mut self, around: &mut Around<'_>, committed: impl Fn(PartitionId) -> Option<Offset>) {
        for (partition, read) in self.read() {
            let to = committed(partition).unwrap_or(read.start);
            if to < read.end {
                self.seek(around, partition, to);
            }
        }
    }
}

impl Turn {
    fn take(&mut self, from: Offset, end: Offset) {
        let start = self.read.as_ref().map_or(from, |read| read.start);
        self.read = Some(start..end);
        self.uncommitted = Some(end);
        self.position = end;
    }
}

impl Life {
    /// News of its membership.
    ///
    /// # Errors
    /// It breaks a promise of groups, or begins where no transaction has left off.
    pub(super) fn on_news(&mut self, around: &mut Around<'_>, news: GroupNews) -> Result<Next, Violation> {
        let view = &mut self.view;
        match news {
            GroupNews::Assigned(turns) => {
                let Some((name, _)) = around.core.member_of_group(view.group) else { return Ok(Next::Go(Vec::new())) };
                for told in turns {
                    let (partition, turn) = (told.partition, told.turn);
                    let start = (turn, told.start);
                    let group = around.group.as_str();
                    around.oracle.on_turn(group, partition, name, start)?;
                    let committed = match told.start {
                        GroupStart::Committed(offset) => Some(offset),
                        GroupStart::Reset(_) | GroupStart::Nowhere => None,
                    };
                    let known = around.oracle.groups.committed_at_turn(group, partition, (name, turn));
                    around.oracle.on_offset_told(partition, known, committed)?;
                    let start = committed.unwrap_or_default();
                    view.works.insert(partition, name);
                    if let Some(with) = told.subscription {
                        view.read_with(around, partition, with, start);
                    }
                    let subscription = told.subscription;
                    view.news.push_back(News::Assigned { partition, turn, start, subscription });
                }
            }
            GroupNews::Revoking(partitions) => {
                partitions.iter().for_each(|partition| view.stop_reading(around.oracle, *partition));
                view.news.push_back(News::Revoking(partitions));
            }
            GroupNews::Lost { partitions, reason } => {
                if let LostReason::Fenced(reason) = reason {
                    view.check_fenced(around, reason)?;
                }
                let group = around.group.as_str();
                partitions.iter().for_each(|partition| view.stop_work(around.oracle, group, *partition));
                view.news.push_back(News::Lost(partitions));
            }
            GroupNews::Ended { error } => {
                if let Some(MembershipError::Fenced(reason)) = error {
                    view.check_fenced(around, reason)?;
                }
                return Ok(Next::Over);
            }
            GroupNews::Joined { .. }
            | GroupNews::Standby(_)
            | GroupNews::CommitsSettled { .. }
            | GroupNews::CommitFailed { .. }
            | GroupNews::HandOverRefused { .. } => {}
        }
        Ok(Next::Go(Vec::new()))
    }

    /// Batches of a partition.
    ///
    /// # Errors
    /// A record is not what stands there, or not the next.
    pub(super) fn on_delivered(
        &mut self,
        around: &mut Around<'_>,
        incarnation: Incarnation,
        subscription: SubscriptionKey,
        mut bytes: Bytes,
        range: Range<Offset>,
    ) -> Result<Next, Violation> {
        let taken = bytes.len() as u64;
        let (partition, reader) = self.view.reading[&subscription];
        let damaged = |offset, what| Violation::Foreign { partition, offset, what };
        let no_batch = |_| damaged(range.start, "what was pushed is no batch");
        let mut inputs = Vec::new();
        while let Some(batch) = split_batch(&mut bytes).map_err(no_batch)? {
            let batch = RecordBatch::parse(batch).map_err(no_batch)?;
            for record in batch.iter().filter(|record| range.start <= record.offset) {
                let id = payload::identify(&record);
                let id = id.ok_or_else(|| damaged(record.offset, "the record's bytes changed"))?;
                around.oracle.on_shown(reader, partition, incarnation, record.offset, id)?;
                around.oracle.pipeline.on_input((partition, record.offset));
                inputs.push(record.offset);
            }
        }
        let Some(last) = inputs.last() else { return Ok(Next::Go(Vec::new())) };
        let (from, end) = (inputs[0], last.advance(1));
        around.oracle.groups.on_shown(around.group.as_str(), partition, end);
        let data = Data::Batch { inputs, from, end, bytes: taken };
        self.view.data.push_back((subscription, partition, data));
        Ok(Next::Go(Vec::new()))
    }

    /// Everything before `next` is aborted, or was delivered.
    ///
    /// # Errors
    /// Something that stands there must be shown.
    pub(super) fn on_passed(
        &mut self,
        around: &mut Around<'_>,
        subscription: SubscriptionKey,
        next: Offset,
    ) -> Result<Next, Violation> {
        let (partition, reader) = self.view.reading[&subscription];
        around.oracle.on_passed(reader, partition, next)?;
        around.oracle.groups.on_shown(around.group.as_str(), partition, next);
        self.view.data.push_back((subscription, partition, Data::Passed { next }));
        Ok(Next::Go(Vec::new()))
    }

    /// What a partition was read with has ended.
    pub(super) fn on_subscription_ended(&mut self, around: &mut Around<'_>, subscription: SubscriptionKey) {
        if let Some((partition, reader)) = self.view.reading.remove(&subscription) {
            around.oracle.on_reader_gone(reader, partition);
            self.view.data.push_back((subscription, partition, Data::Ended));
        }
    }
}

impl View {
    fn check_fenced(&self, around: &Around<'_>, reason: corelane_client_core::FenceReason) -> Result<(), Violation> {
        match self.works.values().next() {
            Some(&name) => around.oracle.groups.on_fenced(around.now.monotonic, name, reason),
            None => Ok(()),
        }
    }
}
