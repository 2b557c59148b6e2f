//! What a client asks before it can produce or read.

use crate::Settings;
use crate::body::body;
use crate::subscribe::Start;

/// A topic as a client needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct TopicMetadata {
    /// Its name.
    pub name: String,
    /// Its id.
    pub topic: u64,
    /// Its settings.
    pub settings: Settings,
    /// The owner of each partition, by partition index.
    pub shards: Vec<u8>,
}

body! {
    /// Asks which topics there are.
    Metadata (Metadata, 1) {
        /// Names to look for; none asks for all topics.
        names: Vec<String>,
    }

    /// Answers [`Metadata`]; names that are no topics are left out. When all topics do not fit into a frame, the list is
    /// cut and `is_cut` says so.
    MetadataAnswer (MetadataAnswer, 2) {
        /// Version of the catalog that this answer was read from.
        catalog_version: u64,
        /// How many shards there are.
        shards: u16,
        /// The topics, by name.
        topics: Vec<TopicMetadata>,
        /// Whether topics are missing because the frame was full.
        is_cut: bool,
    }

    /// Asks for a producer id.
    RequestProducerId (RequestProducerId, 1) {
        /// The producer id whose epoch is to be raised, or 0 for a new one.
        producer: u64,
        /// The epoch that the producer has now.
        epoch: u16,
    }

    /// Answers [`RequestProducerId`].
    ProducerIdAnswer (ProducerIdAnswer, 1) {
        /// The id.
        producer: u64,
        /// The epoch to use from now on.
        epoch: u16,
    }

    /// Asks which offset a start position means at the moment.
    FindOffset (FindOffset, 1) {
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
        /// The position.
        start: Start,
        /// For whom: 0 a reader of all records, 1 of committed ones, whose end is the last stable offset.
        isolation: u8,
    }

    /// Answers [`FindOffset`].
    FindOffsetAnswer (FindOffsetAnswer, 1) {
        /// The offset.
        offset: u64,
        /// Log start offset at that moment.
        log_start: u64,
        /// The exclusive end of what can be read at that moment: the high watermark, or the last stable offset.
        high_watermark: u64,
    }
}
