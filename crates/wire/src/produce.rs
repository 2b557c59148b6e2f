//! Producing.

use crate::body::body;

/// The outcome of one produce frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(derive(Debug))]
pub struct ProduceAnswer {
    /// The produce frame's correlation id.
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

    /// Outcomes of produce frames, in the order in which the broker took them.
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
