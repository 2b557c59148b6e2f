//! What members subscribe to, each distinct subscription once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use corelane_model::limits::{GROUP_PATTERN_BYTES_MAX, GROUP_SUBSCRIPTION_TOPICS_MAX};
use corelane_model::{TopicId, TopicName};

use crate::GroupError;

/// What a member wants to read: topics by name, and all topics whose names match a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// Topics by name.
    pub topics: BTreeSet<TopicName>,
    /// A pattern in a language that the group does not know: the caller resolves it.
    pub pattern: Option<String>,
}

/// A topic that a subscription resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// The topic.
    pub topic: TopicId,
    /// How many partitions it has.
    pub partitions: u32,
}

impl Subscription {
    pub(crate) fn check(&self) -> Result<(), GroupError> {
        let pattern_bytes = self.pattern.as_ref().map_or(0, String::len);
        for (what, would, limit) in [
            ("topics in one subscription", self.topics.len(), GROUP_SUBSCRIPTION_TOPICS_MAX),
            ("bytes in a pattern", pattern_bytes, GROUP_PATTERN_BYTES_MAX),
        ] {
            if limit < would {
                return Err(GroupError::Limit { what, would: would as u64, limit: limit as u64 });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for topic in &self.topics {
            write!(f, "{separator}{topic}")?;
            separator = ", ";
        }
        match &self.pattern {
            Some(pattern) => write!(f, "{separator}/{pattern}/"),
            None if self.topics.is_empty() => f.write_str("nothing"),
            None => Ok(()),
        }
    }
}

/// Topics and their numbers of partitions.
pub(crate) type Topics = BTreeMap<TopicId, u32>;

/// Place of a distinct subscription in [`Subscriptions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubscriptionKey(u64);

#[derive(Clone, Debug)]
struct Entry {
    subscription: Subscription,
    topics: Topics,
    members: usize,
}

/// The distinct subscriptions of a group. A thousand members with the same topics cost one entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscriptions {
    entries: BTreeMap<SubscriptionKey, Entry>,
    keys: BTreeMap<Subscription, SubscriptionKey>,
    next: u64,
    /// Counts the changes of the set and of what any of them resolves to.
    version: u64,
}

impl Subscriptions {
    /// One more member with this subscription. What it resolves to is replaced, because it is newer.
    /// Says whether anything changed for others that have it.
    pub(crate) fn acquire(&mut self, subscription: &Subscription, topics: Topics) -> (SubscriptionKey, bool) {
        if let Some(&key) = self.keys.get(subscription) {
            let entry = self.entries.get_mut(&key).expect("keys and entries agree");
            entry.members += 1;
            let is_changed = entry.topics != topics;
            entry.topics = topics;
            self.version += u64::from(is_changed);
            return (key, is_changed);
        }
        let key = SubscriptionKey(self.next);
        self.next += 1;
        self.version += 1;
        self.keys.insert(subscription.clone(), key);
        self.entries.insert(key, Entry { subscription: subscription.clone(), topics, members: 1 });
        (key, false)
    }

    /// One member less.
    pub(crate) fn release(&mut self, key: SubscriptionKey) {
        let entry = self.entries.get_mut(&key).expect("members hold keys of entries");
        entry.members -= 1;
        if entry.members == 0 {
            let entry = self.entries.remove(&key).expect("it was there");
            self.keys.remove(&entry.subscription);
            self.version += 1;
        }
    }

    pub(crate) fn subscription(&self, key: SubscriptionKey) -> &Subscription {
        &self.entries[&key].subscription
    }

    pub(crate) fn topics(&self, key: SubscriptionKey) -> &Topics {
        &self.entries[&key].topics
    }

    /// Resolves every subscription anew; whether anything came out differently.
    pub(crate) fn resolve(&mut self, mut resolve: impl FnMut(&Subscription) -> Vec<TopicShape>) -> bool {
        let mut is_changed = false;
        for entry in self.entries.values_mut() {
            let topics = topics_of(resolve(&entry.subscription));
            is_changed |= topics != entry.topics;
            entry.topics = topics;
        }
        self.version += u64::from(is_changed);
        is_changed
    }

    /// Drops a topic everywhere; whether anybody had it.
    pub(crate) fn forget(&mut self, topic: TopicId) -> bool {
        let mut is_changed = false;
        for entry in self.entries.values_mut() {
            is_changed |= entry.topics.remove(&topic).is_some();
        }
        self.version += u64::from(is_changed);
        is_changed
    }

    /// Everything that somebody subscribes to.
    pub(crate) fn union(&self) -> Topics {
        let mut union = Topics::new();
        for (&topic, &partitions) in self.entries.values().flat_map(|entry| &entry.topics) {
            let known = union.entry(topic).or_insert(partitions);
            *known = (*known).max(partitions);
        }
        union
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The distinct ones, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = SubscriptionKey> {
        self.entries.keys().copied()
    }

    /// While it is the same, so are the distinct ones and what they resolve to.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }
}

pub(crate) fn topics_of(shapes: Vec<TopicShape>) -> Topics {
    shapes.into_iter().map(|shape| (shape.topic, shape.partitions)).collect()
}
