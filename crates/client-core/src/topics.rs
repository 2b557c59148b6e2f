//! What is known about topics.

use std::collections::BTreeMap;

use corelane_model::{MonotonicNanos, PartitionIndex, ShardId, TopicClass, TopicId, TopicName, TopicSettings};
use corelane_wire::TopicMetadata;

use crate::settings::METADATA_NAMES_MAX;

/// A topic as a client needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub topic: TopicId,
    /// Its settings.
    pub settings: TopicSettings,
    /// The owner of each partition, by partition index.
    pub shards: Vec<ShardId>,
}

impl TopicInfo {
    /// Reads an answer; `None` when it holds what this version does not know.
    pub(crate) fn from_wire(wire: &TopicMetadata) -> Option<Self> {
        Some(Self {
            name: TopicName::parse(&wire.name).ok()?,
            topic: TopicId(wire.topic),
            settings: wire.settings.to_model()?,
            shards: wire.shards.iter().copied().map(ShardId).collect(),
        })
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.shards.len()).expect("a frame holds fewer than 2^32 partitions")
    }

    /// The owner of a partition.
    #[must_use]
    pub fn shard(&self, partition: PartitionIndex) -> Option<ShardId> {
        self.shards.get(usize::try_from(partition.0).ok()?).copied()
    }

    /// What its records survive.
    #[must_use]
    pub const fn class(&self) -> TopicClass {
        self.settings.class
    }
}

/// What the broker said about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing yet.
    Nothing,
    /// There is no such topic.
    Missing,
    /// There is.
    Topic(TopicInfo),
}

#[derive(Debug)]
struct Entry {
    known: Known,
    is_stale: bool,
}

/// The topics that somebody asked about, by name.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    entries: BTreeMap<TopicName, Entry>,
    is_asking: bool,
    retry_at: MonotonicNanos,
}

impl Topics {
    pub(crate) fn known(&self, name: &TopicName) -> &Known {
        self.entries.get(name).map_or(&Known::Nothing, |entry| &entry.known)
    }

    pub(crate) fn info(&self, name: &TopicName) -> Option<&TopicInfo> {
        match self.known(name) {
            Known::Topic(info) => Some(info),
            Known::Nothing | Known::Missing => None,
        }
    }

    /// Asks about a name unless it is a topic already. A name that was missing may have been created since.
    pub(crate) fn need(&mut self, name: &TopicName) {
        match self.entries.get_mut(name) {
            None => {
                self.entries.insert(name.clone(), Entry { known: Known::Nothing, is_stale: true });
            }
            Some(entry) if entry.known == Known::Missing => *entry = Entry { known: Known::Nothing, is_stale: true },
            Some(_) => {}
        }
    }

    /// What is known about a name may be out of date.
    pub(crate) fn refresh(&mut self, name: &TopicName) {
        self.need(name);
        self.entries.get_mut(name).expect("just put there").is_stale = true;
    }

    pub(crate) fn refresh_all(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.is_stale = true);
    }

    /// Keeps only names that somebody still uses.
    pub(crate) fn retain(&mut self, is_used: impl Fn(&TopicName) -> bool) {
        self.entries.retain(|name, _| is_used(name));
    }

    /// Names to ask about now; the request is under way when this returns some.
    pub(crate) fn take_stale(&mut self, now: MonotonicNanos) -> Vec<TopicName> {
        if self.is_asking || now < self.retry_at {
            return Vec::new();
        }
        let stale = self.entries.iter_mut().filter(|(_, entry)| entry.is_stale).take(METADATA_NAMES_MAX);
        let names: Vec<TopicName> = stale
            .map(|(name, entry)| {
                entry.is_stale = false;
                name.clone()
            })
            .collect();
        self.is_asking = !names.is_empty();
        names
    }

    /// The request has no answer: ask again, not before `retry_at`.
    pub(crate) fn on_failed(&mut self, names: &[TopicName], retry_at: MonotonicNanos) {
        self.is_asking = false;
        self.retry_at = retry_at;
        for name in names {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.is_stale = true;
            }
        }
    }

    /// The answer about `names`.
    pub(crate) fn on_answer(&mut self, names: &[TopicName], topics: &[TopicMetadata]) {
        self.is_asking = false;
        for name in names {
            let Some(entry) = self.entries.get_mut(name) else { continue };
            let found = topics.iter().find(|topic| topic.name == name.as_str());
            entry.known = found.and_then(TopicInfo::from_wire).map_or(Known::Missing, Known::Topic);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
