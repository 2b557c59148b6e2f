//! Producing.

use crate::body::body;

/// The outcome of one batch: of a produce frame, or of a place in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct ProduceAnswer {
    /// The correlation id of the produce frame, or of the batch in its bundle.
    pub correlation: u64,
    /// Offset of the batch's first record. When the batch was a duplicate, the offset that it got the first time.
    pub base_offset: u64,
    /// Append timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// 0, or the [`corelane_model::ErrorCode`]; then the other numbers mean nothing.
    pub code: u16,
}

/// How far a partition is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct DurableEnd {
    /// The topic.
    pub topic: u64,
    /// The partition.
    pub partition: u32,
    /// Exclusive end of what survives a crash.
    pub end: u64,
}

body! {
    /// One record batch for one partition; the batch is the attachment. The frame's correlation id ties the answer.
    Produce (Produce, 1) {
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
        /// Whether the producer wants to hear of the durable end: 0 no (`received`), 1 yes (`stored`).
        acks: u8,
    }

    /// Several record batches, each for a partition of its own or for the same: a bundle. They are the attachment, one after
    /// another. The columns are as long as there are batches, between 1 and
    /// [`corelane_model::limits::PRODUCE_BUNDLE_BATCHES_MAX`], and the lengths add up to the attachment; anything else is
    /// malformed. Each batch is taken or refused by itself, in this order. The frame's own correlation id is 0.
    ProduceMany (ProduceMany, 1) {
        /// As [`Produce::acks`], for all of them.
        acks: u8,
        /// The topic of each.
        topics: Vec<u64>,
        /// The partition of each.
        partitions: Vec<u32>,
        /// The bytes of each.
        lengths: Vec<u32>,
        /// What ties the answer of each, as the correlation id of a [`Produce`] frame.
        correlations: Vec<u64>,
    }

    /// Outcomes of batches, in the order in which the broker took them.
    ProduceAnswers (ProduceAnswers, 1) {
        /// The outcomes.
        answers: Vec<ProduceAnswer>,
        /// Text for those that were refused: index into `answers` and what was wrong.
        texts: Vec<(u32, String)>,
    }

    /// Durable ends, cumulative: everything below is stored. Sent for partitions to which this connection produced with
    /// `stored` and that moved.
    DurableEnds (DurableEnds, 1) {
        /// The partitions that moved.
        ends: Vec<DurableEnd>,
    }

    /// The journal of a shard failed. What this connection produced to its partitions and was not reported durable may
    /// or may not be there after the broker's restart.
    StorageStopped (StorageStopped, 1) {
        /// The shard.
        shard: u8,
        /// What happened.
        text: String,
    }
}
