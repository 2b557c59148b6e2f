//! Why the catalog says no.

use corelane_model::{CatalogVersion, ErrorCode, NameError, TopicId};

/// Why a wish cannot be fulfilled. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is taken.
    #[error("topic {name:?} exists already")]
    Exists {
        /// The name.
        name: String,
    },
    /// The name is no topic's.
    #[error("there is no topic {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A number is out of its bounds.
    #[error("{setting} of {value} is out of bounds: {min} to {max}")]
    OutOfBounds {
        /// Which setting.
        setting: &'static str,
        /// What was asked for.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// Compaction is for disks.
    #[error(
        "cleanup by compaction is for topics of class durable; a topic of class latest keeps the newest record of each key \
         in memory"
    )]
    CompactedMemory,
    /// The newest record of a key stays, however old it is.
    #[error("a compacted topic keeps the newest record of each key for ever: leave out retention by time and by bytes")]
    CompactedRetention,
    /// A window of message ids is read back from the log after a restart; what is compacted is not there.
    #[error(
        "deduplication by message id is for topics of class durable with cleanup delete, and of class memory: a topic that \
         keeps the newest record of each key forgets the others with their ids"
    )]
    DedupOfNewest,
    /// A setting that this version keeps room for.
    #[error("{setting} is not offered by this version; leave it out")]
    NotOffered {
        /// Which setting.
        setting: &'static str,
    },
    /// A topic keeps its class.
    #[error("the class of a topic cannot change; create a new topic instead")]
    ClassChange,
    /// Partitions are only added.
    #[error("topic {name:?} has {today} partitions and cannot go down to {wanted}")]
    FewerPartitions {
        /// The topic.
        name: String,
        /// What it has.
        today: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// A limit of the broker is reached.
    #[error("the broker would have {would} {what}, over its limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there would be.
        would: u64,
        /// How many there may be.
        limit: u64,
    },
}

impl CatalogError {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) => ErrorCode::InvalidTopicName,
            Self::Exists { .. } => ErrorCode::TopicExists,
            Self::Unknown { .. } => ErrorCode::UnknownTopic,
            Self::OutOfBounds { .. }
            | Self::ClassChange
            | Self::CompactedMemory
            | Self::CompactedRetention
            | Self::DedupOfNewest
            | Self::NotOffered { .. }
            | Self::FewerPartitions { .. } => ErrorCode::InvalidSetting,
            Self::Limit { .. } => ErrorCode::LimitReached,
        }
    }
}

/// Why a change does not fit onto a catalog. The catalog is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Changes apply one after another.
    #[error("change to catalog version {found} does not follow version {known}")]
    Version {
        /// What the change leads to.
        found: CatalogVersion,
        /// What the catalog is at.
        known: CatalogVersion,
    },
    /// Ids count up.
    #[error("new topic has id {found}, the next one is {expected}")]
    TopicId {
        /// What the change says.
        found: TopicId,
        /// What comes next.
        expected: TopicId,
    },
    /// It speaks of a topic that is not there.
    #[error("change of topic {topic}, which does not exist")]
    NoTopic {
        /// The topic.
        topic: TopicId,
    },
    /// A partition would belong to a shard that is not there.
    #[error("a partition would belong to shard {shard} of {shards}")]
    NoShard {
        /// The owner.
        shard: u8,
        /// How many shards there are.
        shards: u16,
    },
    /// It breaks a rule that planning keeps.
    #[error(transparent)]
    Rule(#[from] CatalogError),
}

/// Why bytes are no catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Too short for a head.
    #[error("{length} bytes are too few for a piece of the catalog")]
    Short {
        /// How many there are.
        length: usize,
    },
    /// Written by another version.
    #[error("catalog format {found} is not known to this version, which reads formats 1 to {known}")]
    Format {
        /// What the bytes say.
        found: u16,
        /// What this build reads.
        known: u16,
    },
    /// A change where a snapshot was expected, or the other way round.
    #[error("catalog piece of kind {found} came where kind {expected} was expected")]
    Kind {
        /// What the bytes say.
        found: u16,
        /// What was asked for.
        expected: u16,
    },
    /// The archive does not hold together.
    #[error("catalog bytes are malformed")]
    Malformed,
    /// The number of shards is none.
    #[error("catalog for {shards} shards; 1 to {max} are possible")]
    Shards {
        /// What the bytes say.
        shards: u16,
        /// The limit.
        max: u16,
    },
    /// A counter is so large that it could not go on counting.
    #[error("{what} of {value} is not possible")]
    Counter {
        /// Which one.
        what: &'static str,
        /// What the bytes say.
        value: u64,
    },
    /// A class of another version.
    #[error("topic class {class} is not known to this version")]
    Class {
        /// The number.
        class: u8,
    },
    /// A cleanup of another version.
    #[error("cleanup {cleanup} is not known to this version")]
    Cleanup {
        /// The number.
        cleanup: u8,
    },
    /// Its parts contradict each other.
    #[error("catalog contradicts itself: {0}")]
    Contradiction(#[from] ApplyError),
}
