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
    /// ring. `None` does not limit a durable partition.
    pub retention_bytes: Option<u64>,
    /// A segment is sealed when it reaches this many bytes.
    pub segment_bytes: u64,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            class: TopicClass::Durable,
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            segment_bytes: crate::limits::SEGMENT_BYTES_DEFAULT,
        }
    }
}
