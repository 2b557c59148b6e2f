//! The partitions of a member, from when they are assigned until they are another's.

mod handing_out;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use corelane_client_core::{
    AssignedPartition, CommitOffset, Effect, GroupNews, GroupStart, SubscriptionError, SubscriptionKey,
};
use corelane_model::{Generation, Offset, PartitionId};

use super::{Assigned, Event, GroupConsumer, GroupError, TopicPartition};
pub(super) use handing_out::{InHand, Role, Run};

/// A partition's time with this member.
#[derive(Debug)]
struct Turn {
    partition: Arc<TopicPartition>,
    turn: Generation,
    subscription: Option<SubscriptionKey>,
    /// The first record that was not handed out, if something was since the last commit.
    uncommitted: Option<Offset>,
    /// What was handed out since the turn began, or since it was read from elsewhere.
    read: Option<Range<Offset>>,
    /// What a standby had missed when it took over: done by the group, and wanted by the state.
    missed: Option<Range<Offset>>,
    is_lagging: bool,
}

/// All partitions of a member.
#[derive(Debug)]
pub(super) struct Turns {
    by_id: BTreeMap<PartitionId, Turn>,
    by_subscription: BTreeMap<SubscriptionKey, PartitionId>,
    /// Partitions that may have something to commit.
    touched: Vec<PartitionId>,
    /// Subscriptions that nothing comes for any more.
    stale: Vec<SubscriptionKey>,
    lagging_above: Option<u64>,
}

impl Turns {
    pub(super) const fn new(lagging_above: Option<u64>) -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_subscription: BTreeMap::new(),
            touched: Vec::new(),
            stale: Vec::new(),
            lagging_above,
        }
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &Arc<TopicPartition>> {
        self.by_id.values().map(|turn| &turn.partition)
    }

    pub(super) fn subscriptions(&self) -> Vec<SubscriptionKey> {
        self.by_subscription.keys().chain(&self.stale).copied().collect()
    }

    pub(super) fn find(&self, wanted: &TopicPartition) -> Option<PartitionId> {
        self.by_id.iter().find(|(_, turn)| *turn.partition == *wanted).map(|(&id, _)| id)
    }

    pub(super) fn turn(&self, id: PartitionId) -> Option<Generation> {
        self.by_id.get(&id).map(|turn| turn.turn)
    }

    pub(super) fn by_id(&self) -> BTreeMap<PartitionId, Arc<TopicPartition>> {
        self.by_id.iter().map(|(&id, turn)| (id, Arc::clone(&turn.partition))).collect()
    }

    /// What was handed out of each partition without a break, if anything was.
    pub(super) fn read(&self) -> BTreeMap<PartitionId, Range<Offset>> {
        self.by_id.iter().filter_map(|(&id, turn)| Some((id, turn.read.clone()?))).collect()
    }

    /// A turn begins; `told` is how far it was followed as the application knows it.
    fn begin(&mut self, assigned: AssignedPartition, told: Option<Offset>) -> Assigned {
        let AssignedPartition { partition: id, topic, turn, start, followed, subscription, blob } = assigned;
        // What was in hand when the machine decided where reading begins may be done by now.
        let missed = match (start, followed) {
            (GroupStart::Committed(committed), Some(followed)) if followed < committed => {
                Some(told.unwrap_or(followed).max(followed)..committed)
            }
            _ => None,
        };
        let partition = Arc::new(TopicPartition { topic, partition: id.index });
        self.end(id);
        self.by_subscription.extend(subscription.map(|subscription| (subscription, id)));
        let begun = Turn {
            partition: Arc::clone(&partition),
            turn,
            subscription,
            uncommitted: None,
            read: None,
            missed,
            is_lagging: false,
        };
        self.by_id.insert(id, begun);
        Assigned { partition, start, followed: told, blob }
    }

    pub(super) fn on_seek(&mut self, id: PartitionId, subscription: SubscriptionKey) {
        if let Some(turn) = self.by_id.get_mut(&id) {
            if let Some(before) = turn.subscription.replace(subscription) {
                self.by_subscription.remove(&before);
                self.stale.push(before);
            }
            turn.uncommitted = None;
            turn.missed = None;
            turn.read = None;
            self.by_subscription.insert(subscription, id);
        }
    }

    /// Nothing comes with these any more.
    pub(super) fn on_stale(&mut self, subscriptions: impl IntoIterator<Item = SubscriptionKey>) {
        self.stale.extend(subscriptions);
    }

    /// Nothing more is handed out; commits may still come.
    fn stop(&mut self, id: PartitionId) -> Option<Arc<TopicPartition>> {
        let turn = self.by_id.get_mut(&id)?;
        if let Some(subscription) = turn.subscription.take() {
            self.by_subscription.remove(&subscription);
            self.stale.push(subscription);
        }
        Some(Arc::clone(&turn.partition))
    }

    pub(super) fn end(&mut self, id: PartitionId) -> Option<Arc<TopicPartition>> {
        let partition = self.stop(id);
        self.by_id.remove(&id);
        partition
    }

    /// Offsets of all that was handed out and not committed.
    pub(super) fn take_uncommitted(&mut self) -> Vec<CommitOffset> {
        let mut offsets = Vec::with_capacity(self.touched.len());
        for partition in self.touched.drain(..) {
            let Some(turn) = self.by_id.get_mut(&partition) else { continue };
            if let Some(offset) = turn.uncommitted.take() {
                offsets.push(CommitOffset { partition, turn: turn.turn, offset, metadata: String::new() });
            }
        }
        offsets
    }

    pub(super) fn on_committed(&mut self, id: PartitionId, turn: Generation, next: Offset) {
        if let Some(known) = self.by_id.get_mut(&id)
            && known.turn == turn
            && known.uncommitted.is_some_and(|uncommitted| uncommitted <= next)
        {
            known.uncommitted = None;
        }
    }

    /// Whether a lag is to be told.
    fn is_news(&mut self, id: PartitionId, lag: u64) -> Option<Event> {
        let above = self.lagging_above?;
        let turn = self.by_id.get_mut(&id)?;
        if lag <= above / 2 {
            turn.is_lagging = false;
        }
        if above < lag && !std::mem::replace(&mut turn.is_lagging, true) {
            return Some(Event::Lagging { partition: Arc::clone(&turn.partition), lag });
        }
        None
    }
}

impl GroupConsumer {
    /// The next event is asked for: the batch in hand is finished, and what was asked back is given up.
    pub(super) fn move_on(&mut self) {
        if let Some(in_hand) = self.in_hand.take() {
            self.finish(in_hand);
        }
        for id in std::mem::take(&mut self.asked_back) {
            self.turns.end(id);
            self.handle.shared.act(|inner, _| inner.core.give_up(self.key, id, None));
        }
        if !self.turns.stale.is_empty() {
            let mut inner = self.handle.shared.lock();
            for subscription in self.turns.stale.drain(..) {
                inner.readers.remove(&subscription);
            }
        }
    }

    pub(super) fn finish(&self, in_hand: InHand) {
        let InHand { id, subscription, end, bytes, role } = in_hand;
        let shared = &self.handle.shared;
        let mut inner = shared.lock();
        let now = inner.clock.now();
        let mut has_work = inner.core.consumed(subscription, bytes);
        match role {
            Role::Owner { turn, records, since } => {
                if self.is_auto {
                    has_work |= inner.core.finished(now, self.key, id, turn, end);
                }
                if !self.is_measured_by_hand && 0 < records {
                    let micros = since.elapsed().as_micros() / u128::from(records);
                    inner.core.measure(self.key, u32::try_from(micros).unwrap_or(u32::MAX).max(1));
                }
            }
            Role::Standby => inner.core.followed(self.key, id, end),
        }
        let driver = if has_work { shared.notify_locked(&mut inner) } else { None };
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Takes in what the machine said; what is to be told is put into `ready`.
    pub(super) fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Group { news, .. } => self.take_news(news),
            Effect::Deliver { subscription, bytes, from, high_watermark } => {
                self.current = Some(Run { subscription, bytes, from, high_watermark });
            }
            Effect::Passed { subscription, next, .. } => self.pass(subscription, next),
            Effect::Missed { subscription, offsets } => self.miss(subscription, offsets),
            Effect::Ended { subscription, error } => self.on_ended(subscription, error),
            Effect::Subscribed { subscription, next, high_watermark, .. } => {
                if let Some(id) = self.following.by_subscription(subscription) {
                    self.on_following(id, next);
                }
                if let Some(&id) = self.turns.by_subscription.get(&subscription) {
                    self.ready.extend(self.turns.is_news(id, high_watermark.since(next)).map(Ok));
                }
            }
            _ => {}
        }
    }

    /// Aborted records are done by being passed: everything before them was handed out and finished.
    fn pass(&mut self, subscription: SubscriptionKey, next: Offset) {
        if let Some(id) = self.following.by_subscription(subscription) {
            return self.pass_followed(id, next);
        }
        let Some(&id) = self.turns.by_subscription.get(&subscription) else { return };
        let Some(turn) = self.turns.by_id.get_mut(&id) else { return };
        if turn.missed.as_ref().is_some_and(|missed| next <= missed.end) {
            return;
        }
        if turn.uncommitted.replace(next).is_none() {
            self.turns.touched.push(id);
        }
        if self.is_auto {
            let turn = turn.turn;
            self.handle.shared.act(|inner, now| inner.core.finished(now, self.key, id, turn, next));
        }
    }

    /// Records were gone before they could be read; who has or follows the partition is told.
    fn miss(&mut self, subscription: SubscriptionKey, offsets: Range<Offset>) {
        let owned = self.turns.by_subscription.get(&subscription).and_then(|id| self.turns.by_id.get(id));
        let owned = owned.map(|turn| Arc::clone(&turn.partition));
        if let Some(partition) = owned.or_else(|| self.following.partition_of(subscription)) {
            self.ready.push_back(Ok(Event::Missed { partition, offsets }));
        }
    }

    fn take_news(&mut self, news: GroupNews) {
        match news {
            GroupNews::Assigned(assigned) => {
                let is_nowhere = |one: &&Assigned| one.start == GroupStart::Nowhere;
                let assigned: Vec<Assigned> = assigned.into_iter().map(|one| self.begin(one)).collect();
                let nowhere: Vec<_> =
                    assigned.iter().filter(is_nowhere).map(|one| Arc::clone(&one.partition)).collect();
                self.ready.push_back(Ok(Event::Assigned(assigned)));
                self.ready.extend(nowhere.iter().map(|partition| {
                    let (topic, partition) = (partition.topic.clone(), partition.partition);
                    Err(GroupError::NoCommittedOffset { topic, partition })
                }));
            }
            GroupNews::Revoking(partitions) => {
                let named: Vec<_> = partitions.iter().filter_map(|&id| self.turns.stop(id)).collect();
                let deadline = self.first_deadline(&partitions);
                self.asked_back.extend(partitions);
                self.ready.push_back(Ok(Event::Revoking { partitions: named, deadline }));
            }
            GroupNews::Lost { partitions, reason } => {
                self.asked_back.retain(|id| !partitions.contains(id));
                let partitions = partitions.into_iter().filter_map(|id| self.turns.end(id)).collect();
                self.ready.push_back(Ok(Event::Lost { partitions, reason }));
            }
            GroupNews::Standby(partitions) => self.stand_by(partitions),
            GroupNews::HandOverRefused { partition, text } => {
                self.ready.push_back(Err(GroupError::HandOverRefused { partition, text }));
            }
            GroupNews::Ended { error } => {
                self.is_ended = true;
                self.ready.extend(error.map(|error| Err(self.membership(error))));
            }
            GroupNews::Joined { .. } | GroupNews::CommitsSettled { .. } | GroupNews::CommitFailed { .. } => {}
        }
    }

    fn first_deadline(&self, partitions: &[PartitionId]) -> Instant {
        let shared = &self.handle.shared;
        let mut inner = shared.lock();
        let deadlines = partitions.iter().filter_map(|&id| inner.core.revoke_deadline(self.key, id));
        // One that was lost meanwhile has no time left.
        let first = deadlines.min().unwrap_or_default();
        shared.instant(first)
    }

    /// A turn begins. What it was followed with until then is not read any more.
    fn begin(&mut self, assigned: AssignedPartition) -> Assigned {
        let (told, followed_with) = self.following.take_over(assigned.partition);
        self.turns.on_stale(followed_with);
        self.turns.begin(assigned, told)
    }

    fn on_ended(&mut self, subscription: SubscriptionKey, error: SubscriptionError) {
        let owned = self.turns.by_subscription.remove(&subscription).and_then(|id| self.turns.by_id.get_mut(&id));
        let owned = owned.map(|turn| {
            turn.subscription = None;
            Arc::clone(&turn.partition)
        });
        let Some(ended) = owned.or_else(|| self.following.on_ended(subscription)) else { return };
        // The group assigns its partitions anew when a topic is gone.
        if !matches!(error, SubscriptionError::UnknownTopic { .. } | SubscriptionError::TopicReplaced { .. }) {
            let (topic, partition) = (ended.topic.clone(), ended.partition);
            self.ready.push_back(Err(GroupError::Partition { topic, partition, error }));
        }
    }
}
