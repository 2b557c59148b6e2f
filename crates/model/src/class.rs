//! What a topic promises and what a producer or a reader asks for.

use crate::{Offset, WallMillis};

/// What a topic's records survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TopicClass {
    /// Journalled and settled into segments: a `stored` record survives a crash of the broker and of the machine.
    #[default]
    Durable,
    /// Kept in a bounded ring in memory with a time to live: gone with the process, offsets never repeat.
    Memory,
    /// The newest record of each key, in memory, bounded: gone with the process, offsets never repeat. A new reader gets
    /// the newest record of every key and then what comes.
    Latest,
}

impl TopicClass {
    /// Whether `stored` means a disk; the other classes are gone with the process.
    #[must_use]
    pub const fn is_durable(self) -> bool {
        matches!(self, Self::Durable)
    }

    /// The number on wire and disk.
    #[must_use]
    pub const fn to_number(self) -> u8 {
        match self {
            Self::Durable => 0,
            Self::Memory => 1,
            Self::Latest => 2,
        }
    }

    /// The class for a number from wire or disk; `None` when it is of another version.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Durable),
            1 => Some(Self::Memory),
            2 => Some(Self::Latest),
            _ => None,
        }
    }
}

/// How old records of a durable topic go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cleanup {
    /// By age and size, oldest first.
    #[default]
    Delete,
    /// A record goes when a newer one of its key is stored; the newest of each key stays for ever.
    Compact,
}

impl Cleanup {
    /// The number on wire and disk.
    #[must_use]
    pub const fn to_number(self) -> u8 {
        match self {
            Self::Delete => 0,
            Self::Compact => 1,
        }
    }

    /// The cleanup for a number from wire or disk; `None` when it is of another version.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Delete),
            1 => Some(Self::Compact),
            _ => None,
        }
    }
}

/// When a producer wants to be told that a record was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Acks {
    /// In the memory of the partition's owner: survives the loss of the connection, not of the broker.
    Received,
    /// On disk after a sync: survives a crash. On a memory topic it means the same as [`Acks::Received`].
    #[default]
    Stored,
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartAt {
    /// The log start offset.
    Earliest,
    /// The end of what is visible: only records that come later.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record whose append timestamp is not before this moment.
    Time(WallMillis),
}

/// The settings of a topic, checked against [`crate::limits`] when it is created or altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// What its records survive.
    pub class: TopicClass,
    /// Records older than this may be dropped; `None` keeps them for ever. For a memory topic it is the time to live.
    pub retention_ms: Option<u64>,
    /// A partition larger than this many bytes drops its oldest sealed segments; for a memory topic the bound of its
    /// ring, for one of class `latest` of the newest records of all keys. `None` does not limit a durable partition.
    pub retention_bytes: Option<u64>,
    /// A segment is sealed when it reaches this many bytes.
    pub segment_bytes: u64,
    /// How old records of a durable topic go.
    pub cleanup: Cleanup,
    /// How long the newest record of a key is kept when its value is null, so that readers see the removal: on compacted
    /// topics and those of class `latest`.
    pub tombstone_ms: u64,
    /// A message id is forgotten when its record is older than this; `None` sets no such bound. A topic remembers message
    /// ids, and takes no second record with one that it remembers, when this or the count is set.
    pub dedup_window_ms: Option<u64>,
    /// A message id is forgotten when its record is not among so many latest of its partition any more; `None` means
    /// [`crate::limits::DEDUP_COUNT_MAX`].
    pub dedup_count: Option<u64>,
}

impl TopicSettings {
    /// Whether a record replaces those of its key before it, so that each must have one.
    #[must_use]
    pub fn needs_keys(&self) -> bool {
        self.class == TopicClass::Latest || self.cleanup == Cleanup::Compact
    }

    /// A durable topic that keeps the newest record of each key for ever.
    #[must_use]
    pub fn compacted() -> Self {
        Self { cleanup: Cleanup::Compact, retention_ms: None, ..Self::default() }
    }

    /// A topic in memory, with a bound and without a time to live.
    #[must_use]
    pub fn memory() -> Self {
        let retention_bytes = Some(crate::limits::MEMORY_RING_BYTES_DEFAULT);
        Self { class: TopicClass::Memory, retention_ms: None, retention_bytes, ..Self::default() }
    }

    /// A topic that keeps the newest record of each key in memory, with a bound and without a time to live.
    #[must_use]
    pub fn latest() -> Self {
        Self { class: TopicClass::Latest, tombstone_ms: 60_000, ..Self::memory() }
    }
}

impl TopicSettings {
    /// Whether the topic takes a record with a message id only once.
    #[must_use]
    pub const fn has_message_ids(&self) -> bool {
        self.dedup_window_ms.is_some() || self.dedup_count.is_some()
    }
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            class: TopicClass::Durable,
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            segment_bytes: crate::limits::SEGMENT_BYTES_DEFAULT,
            cleanup: Cleanup::Delete,
            tombstone_ms: 24 * 3600 * 1000,
            dedup_window_ms: None,
            dedup_count: None,
        }
    }
}
