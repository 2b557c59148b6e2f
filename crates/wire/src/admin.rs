//! Management of topics.

use corelane_model::{Cleanup, TopicClass, TopicSettings};

use crate::body::body;

/// Settings of a topic on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct Settings {
    /// 0 durable, 1 memory, 2 latest.
    pub class: u8,
    /// Milliseconds; `None` keeps records for ever.
    pub retention_ms: Option<u64>,
    /// Bytes of one partition; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// Bytes at which a segment is sealed.
    pub segment_bytes: u64,
    /// 0 delete, 1 compact.
    pub cleanup: u8,
    /// Milliseconds for which compaction keeps a null value.
    pub tombstone_ms: u64,
    /// Milliseconds; `None` does not look at message ids by time.
    pub dedup_window_ms: Option<u64>,
    /// Message ids; `None` does not count.
    pub dedup_count: Option<u64>,
}

impl From<TopicSettings> for Settings {
    fn from(settings: TopicSettings) -> Self {
        Self {
            class: settings.class.to_number(),
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            segment_bytes: settings.segment_bytes,
            cleanup: settings.cleanup.to_number(),
            tombstone_ms: settings.tombstone_ms,
            dedup_window_ms: settings.dedup_window_ms,
            dedup_count: settings.dedup_count,
        }
    }
}

impl Settings {
    /// The settings in the words of the model; `None` when the class or the cleanup is of another version.
    #[must_use]
    pub const fn to_model(self) -> Option<TopicSettings> {
        let (Some(class), Some(cleanup)) = (TopicClass::from_number(self.class), Cleanup::from_number(self.cleanup))
        else {
            return None;
        };
        Some(TopicSettings {
            class,
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            segment_bytes: self.segment_bytes,
            cleanup,
            tombstone_ms: self.tombstone_ms,
            dedup_window_ms: self.dedup_window_ms,
            dedup_count: self.dedup_count,
        })
    }
}

/// A partition in full.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct PartitionDescription {
    /// Its index.
    pub partition: u32,
    /// Its owner.
    pub shard: u8,
    /// First offset that can be read.
    pub log_start: u64,
    /// Exclusive end of what is on disk after a sync.
    pub durable_end: u64,
    /// Exclusive end of what was taken.
    pub log_end: u64,
    /// Exclusive end of what is in segments.
    pub settled_end: u64,
    /// Bytes in memory and journal that are not in segments yet.
    pub unsettled_bytes: u64,
    /// Bytes of its segments.
    pub disk_bytes: u64,
    /// Segments.
    pub segments: u32,
    /// Ranges that recovery found damaged: first offset and exclusive end.
    pub corrupt: Vec<(u64, u64)>,
    /// Records of a topic of class `latest` that readers were not pushed, because newer ones of their keys had come.
    pub conflated: u64,
}

/// A topic in full.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id.
    pub topic: u64,
    /// Its settings.
    pub settings: Settings,
}

body! {
    /// Creates a topic.
    CreateTopic (CreateTopic, 2) {
        /// Its name.
        name: String,
        /// How many partitions.
        partitions: u32,
        /// Its settings.
        settings: Settings,
    }

    /// Answers [`CreateTopic`], when all shards know the topic.
    CreateTopicAnswer (CreateTopicAnswer, 1) {
        /// Its id.
        topic: u64,
        /// The catalog that knows it.
        catalog_version: u64,
    }

    /// Changes a topic; what is `None` stays.
    AlterTopic (AlterTopic, 2) {
        /// Its name.
        name: String,
        /// The new number of partitions, not below today's.
        partitions: Option<u32>,
        /// The new settings; the class cannot change.
        settings: Option<Settings>,
    }

    /// Answers [`AlterTopic`], when all shards know it.
    AlterTopicAnswer (AlterTopicAnswer, 1) {
        /// The catalog that knows it.
        catalog_version: u64,
        /// Whether keys now go to other partitions than before.
        keys_moved: bool,
    }

    /// Deletes a topic and its records.
    DeleteTopic (DeleteTopic, 1) {
        /// Its name.
        name: String,
    }

    /// Raises the log start offset of a partition: what lies before can no longer be read.
    TruncatePartition (TruncatePartition, 1) {
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
        /// The new log start; `u64::MAX` means the durable end.
        before: u64,
    }

    /// Answers delete and truncate, when it is durable.
    TopicDone (TopicDone, 1) {
        /// For truncate the log start offset that now holds; else 0.
        log_start: u64,
    }

    /// Asks for a topic in full. Shards that cannot answer in time leave their partitions out.
    DescribeTopic (DescribeTopic, 1) {
        /// Its name.
        name: String,
        /// The first partition to describe.
        from: u32,
        /// How many at most; the broker may answer fewer so that the frame fits.
        most: u32,
    }

    /// Answers [`DescribeTopic`].
    DescribeTopicAnswer (DescribeTopicAnswer, 2) {
        /// The topic.
        topic: TopicDescription,
        /// How many partitions it has.
        partition_count: u32,
        /// The partitions asked for, by index.
        partitions: Vec<PartitionDescription>,
    }
}
