//! Partitions that a member stands by for and follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelane_client_core::{StandbyPartition, SubscriptionKey};
use corelane_model::{Offset, PartitionId, StartAt};

use super::turns::{InHand, Role};
use super::{Event, FollowedBatch, GroupConsumer, GroupError, TopicPartition};
use crate::Batch;

/// A partition that is followed.
#[derive(Debug)]
struct Followed {
    partition: Arc<TopicPartition>,
    subscription: Option<SubscriptionKey>,
    /// The first record that was not handed out, once it is known where following begins.
    next: Option<Offset>,
}

/// All partitions that a member stands by for.
#[derive(Debug, Default)]
pub(super) struct Following {
    by_id: BTreeMap<PartitionId, Followed>,
    by_subscription: BTreeMap<SubscriptionKey, PartitionId>,
}

impl Following {
    /// Takes on what was told; returns what nothing comes for any more.
    fn replace(&mut self, told: Vec<StandbyPartition>) -> Vec<SubscriptionKey> {
        let mut before = std::mem::take(&mut self.by_id);
        let mut by_subscription = BTreeMap::new();
        for StandbyPartition { partition: id, topic, subscription } in told {
            // What is known already may have been sought since that was told.
            let followed = before.remove(&id).unwrap_or_else(|| {
                let partition = Arc::new(TopicPartition { topic, partition: id.index });
                Followed { partition, subscription, next: None }
            });
            by_subscription.extend(followed.subscription.map(|subscription| (subscription, id)));
            self.by_id.insert(id, followed);
        }
        let stale = std::mem::replace(&mut self.by_subscription, by_subscription);
        stale.into_keys().filter(|subscription| !self.by_subscription.contains_key(subscription)).collect()
    }

    /// The member has the partition itself from now on: how far it had followed it, and with what.
    pub(super) fn take_over(&mut self, id: PartitionId) -> (Option<Offset>, Option<SubscriptionKey>) {
        let Some(followed) = self.by_id.remove(&id) else { return (None, None) };
        if let Some(subscription) = followed.subscription {
            self.by_subscription.remove(&subscription);
        }
        (followed.next, followed.subscription)
    }

    pub(super) fn find(&self, wanted: &TopicPartition) -> Option<PartitionId> {
        self.by_id.iter().find(|(_, followed)| *followed.partition == *wanted).map(|(&id, _)| id)
    }

    pub(super) fn by_subscription(&self, subscription: SubscriptionKey) -> Option<PartitionId> {
        self.by_subscription.get(&subscription).copied()
    }

    pub(super) fn partition_of(&self, subscription: SubscriptionKey) -> Option<Arc<TopicPartition>> {
        let id = self.by_subscription.get(&subscription)?;
        self.by_id.get(id).map(|followed| Arc::clone(&followed.partition))
    }

    pub(super) fn subscriptions(&self) -> impl Iterator<Item = SubscriptionKey> {
        self.by_subscription.keys().copied()
    }

    fn partitions(&self) -> Vec<Arc<TopicPartition>> {
        self.by_id.values().map(|followed| Arc::clone(&followed.partition)).collect()
    }

    /// Nothing more comes with it.
    pub(super) fn on_ended(&mut self, subscription: SubscriptionKey) -> Option<Arc<TopicPartition>> {
        let id = self.by_subscription.remove(&subscription)?;
        let followed = self.by_id.get_mut(&id)?;
        followed.subscription = None;
        Some(Arc::clone(&followed.partition))
    }
}

impl GroupConsumer {
    pub(super) fn stand_by(&mut self, told: Vec<StandbyPartition>) {
        let stale = self.following.replace(told);
        self.turns.on_stale(stale);
        self.ready.push_back(Ok(Event::Standby(self.following.partitions())));
    }

    /// Follows from elsewhere; `None` when the member only stands by.
    pub(super) fn seek_followed(&mut self, id: PartitionId, start: StartAt) -> Option<()> {
        let queue = Arc::clone(&self.queue);
        let subscription = self.handle.shared.act(|inner, _| {
            let subscription = inner.core.seek_standby(self.key, id, start)?;
            inner.readers.insert(subscription, queue);
            Some(subscription)
        })?;
        let followed = self.following.by_id.get_mut(&id)?;
        followed.next = None;
        if let Some(before) = followed.subscription.replace(subscription) {
            self.following.by_subscription.remove(&before);
            self.turns.on_stale(vec![before]);
        }
        self.following.by_subscription.insert(subscription, id);
        Some(())
    }

    /// It is known where following begins.
    pub(super) fn on_following(&mut self, id: PartitionId, next: Offset) {
        let Some(followed) = self.following.by_id.get_mut(&id) else { return };
        if followed.next.is_none() {
            self.pass_followed(id, next);
        }
    }

    /// Everything before an offset was handed out and finished, or there is nothing to hand out.
    pub(super) fn pass_followed(&mut self, id: PartitionId, next: Offset) {
        if let Some(followed) = self.following.by_id.get_mut(&id) {
            followed.next = Some(next);
            self.handle.shared.lock().core.followed(self.key, id, next);
        }
    }

    /// A batch of a partition that is followed is handed out.
    pub(super) fn hand_out_followed(
        &mut self,
        (id, subscription): (PartitionId, SubscriptionKey),
        batch: Batch,
        bytes: u64,
    ) -> Option<Result<Event, GroupError>> {
        let followed = self.following.by_id.get_mut(&id)?;
        let end = batch.end_offset();
        followed.next = Some(end);
        self.in_hand = Some(InHand { id, subscription, end, bytes, role: Role::Standby });
        Some(Ok(Event::Followed(FollowedBatch { partition: Arc::clone(&followed.partition), batch })))
    }
}
