//! What a member stands by for: told as a whole, read alongside, never committed.

use std::collections::BTreeMap;

use corelane_model::{Offset, PartitionId, TopicName};

use crate::{StandbyPartition, SubscriptionKey};

/// A partition that a member stands by for.
#[derive(Debug)]
struct Followed {
    topic: TopicName,
    /// What it is read with; `None` until it is opened, and when the member does not follow.
    subscription: Option<SubscriptionKey>,
    /// The first record that the application was not through with, once something is known of it.
    next: Option<Offset>,
}

/// All partitions that a member stands by for.
#[derive(Debug, Default)]
pub(crate) struct Standbys {
    followed: BTreeMap<PartitionId, Followed>,
    /// As the application knows them: those that were taken over since are among them.
    told: Vec<PartitionId>,
}

impl Standbys {
    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Takes on what was told; returns what nothing is to be read with any more, and `None` when nothing has changed.
    pub(crate) fn replace(&mut self, told: BTreeMap<PartitionId, TopicName>) -> Option<Vec<SubscriptionKey>> {
        if self.told.iter().eq(told.keys()) {
            return None;
        }
        self.told = told.keys().copied().collect();
        let gone = self.followed.extract_if(.., |partition, _| !told.contains_key(partition));
        let ended = gone.filter_map(|(_, followed)| followed.subscription).collect();
        for (partition, topic) in told {
            self.followed.entry(partition).or_insert(Followed { topic, subscription: None, next: None });
        }
        Some(ended)
    }

    /// The member has the partition itself from now on: how far it had followed, and what it was read with.
    pub(crate) fn take_over(&mut self, partition: PartitionId) -> Option<(Option<Offset>, Option<SubscriptionKey>)> {
        let followed = self.followed.remove(&partition)?;
        Some((followed.next, followed.subscription))
    }

    /// Partitions that nothing is read with.
    pub(crate) fn unopened(&self) -> Vec<(PartitionId, TopicName)> {
        let unopened = self.followed.iter().filter(|(_, followed)| followed.subscription.is_none());
        unopened.map(|(&partition, followed)| (partition, followed.topic.clone())).collect()
    }

    pub(crate) fn open(&mut self, partition: PartitionId, subscription: SubscriptionKey) {
        if let Some(followed) = self.followed.get_mut(&partition) {
            followed.subscription = Some(subscription);
        }
    }

    /// The application is through with everything before an offset.
    pub(crate) fn on_followed(&mut self, partition: PartitionId, next: Offset) {
        if let Some(followed) = self.followed.get_mut(&partition) {
            followed.next = Some(next);
        }
    }

    /// It is to be read from elsewhere: what it was read with until now, and its topic. `None` when the member does not
    /// stand by for it.
    pub(crate) fn seek(&mut self, partition: PartitionId) -> Option<(TopicName, Option<SubscriptionKey>)> {
        let followed = self.followed.get_mut(&partition)?;
        followed.next = None;
        Some((followed.topic.clone(), followed.subscription.take()))
    }

    /// Nothing is followed any more; returns what was read with.
    pub(crate) fn clear(&mut self) -> Vec<SubscriptionKey> {
        std::mem::take(self).followed.into_values().filter_map(|followed| followed.subscription).collect()
    }

    pub(crate) fn told(&self) -> Vec<StandbyPartition> {
        let told = self.followed.iter().map(|(&partition, followed)| StandbyPartition {
            partition,
            topic: followed.topic.clone(),
            subscription: followed.subscription,
        });
        told.collect()
    }
}
