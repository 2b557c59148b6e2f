//! What a client, a producer and a subscription are told when they are made.

use std::time::Duration;

use corelane_model::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FRAME_BODY_BYTES_MAX, PRODUCE_STREAMS_OWN, SUBSCRIPTION_CREDIT_BYTES_DEFAULT,
};
use corelane_model::{Acks, Isolation, PartitionIndex, SessionId, StartAt, TopicId, TopicName};
use corelane_record::Compression;

/// Bytes of records that a client holds until they are delivered, by default.
pub const BUFFER_BYTES_DEFAULT: u64 = 64 << 20;
/// Records that a client holds until they are delivered, by default.
pub const BUFFER_RECORDS_DEFAULT: u64 = 4 << 20;
/// What a record costs in the buffer beyond its bytes: its share of columns and bookkeeping.
pub const RECORD_CHARGE_BYTES: u64 = 32;
/// Bytes at which a batch is full by default: large enough that its head costs nothing, small enough that the first
/// record of a batch does not wait for the last.
pub const BATCH_BYTES_DEFAULT: u32 = 256 << 10;
/// Names that one metadata request asks for, so that it fits into a frame.
pub(crate) const METADATA_NAMES_MAX: usize = 500;

const _: () = assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX);
const _: () =
    assert!(METADATA_NAMES_MAX * (corelane_model::limits::TOPIC_NAME_BYTES_MAX + 16) < FRAME_BODY_BYTES_MAX as usize);

/// What a client is told when it is made. Durations are counted by the monotonic clock that is handed in.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Joins the client's connections; random.
    pub session: SessionId,
    /// Seed of the jitter in back-off; anything.
    pub seed: u64,
    /// What the client calls itself in hello.
    pub name: String,
    /// Bearer token; empty when there is none.
    pub token: String,
    /// Bytes of records that may wait for their delivery, over all producers.
    pub buffer_bytes_max: u64,
    /// Records that may wait for their delivery, over all producers.
    pub buffer_records_max: u64,
    /// A record that is not delivered after this long fails.
    pub delivery_timeout: Duration,
    /// A request that is not answered after this long fails, and so does the opening of a producer.
    pub request_timeout: Duration,
    /// Shortest pause before a lost connection is made again; doubles with each attempt.
    pub backoff_min: Duration,
    /// Longest pause before a lost connection is made again.
    pub backoff_max: Duration,
    /// What is known about topics in use is asked for again after this long.
    pub metadata_refresh: Duration,
    /// Partitions of one connection that have a produce stream of their own, at most
    /// [`corelane_model::limits::PRODUCE_STREAMS_OWN`]; with more of them they share a few streams, in bundles.
    pub own_streams: u32,
}

impl ClientSettings {
    /// Defaults for a session.
    #[must_use]
    pub fn new(session: SessionId, seed: u64) -> Self {
        Self {
            session,
            seed,
            name: format!("corelane-rust/{}", env!("CARGO_PKG_VERSION")),
            token: String::new(),
            buffer_bytes_max: BUFFER_BYTES_DEFAULT,
            buffer_records_max: BUFFER_RECORDS_DEFAULT,
            delivery_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            metadata_refresh: Duration::from_secs(30),
            own_streams: PRODUCE_STREAMS_OWN,
        }
    }
}

/// How a producer delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// What it waits for.
    pub acks: Acks,
    /// How long a batch may wait for more records while its partition is idle. At zero, the default, a record leaves at
    /// once, and records gather only while [`corelane_model::limits::PRODUCER_BATCHES_MAX`] batches are under way.
    pub linger: Duration,
    /// A batch of this many bytes is full; at most [`BATCH_BYTES_MAX`].
    pub batch_bytes: u32,
    /// A batch of this many records is full; at most [`BATCH_RECORDS_MAX`].
    pub batch_records: u32,
    /// How values are compressed.
    pub compression: Compression,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            acks: Acks::default(),
            linger: Duration::ZERO,
            batch_bytes: BATCH_BYTES_DEFAULT,
            batch_records: BATCH_RECORDS_MAX,
            compression: Compression::None,
        }
    }
}

impl ProducerSettings {
    /// The settings with sizes forced into their bounds.
    #[must_use]
    pub(crate) fn bounded(mut self) -> Self {
        self.batch_bytes = self.batch_bytes.clamp(1, BATCH_BYTES_MAX);
        self.batch_records = self.batch_records.clamp(1, BATCH_RECORDS_MAX);
        self
    }
}

/// What a subscription does when its offset is outside the log, because records were dropped before it read them. When it goes
/// on, [`crate::Effect::Missed`] says what it does not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// End with the broker's error. The default for topics of class durable.
    #[default]
    Fail,
    /// Go on at the log start offset.
    Earliest,
    /// Go on with records that come later.
    Latest,
}

/// What to read and from where.
#[derive(Clone, Debug)]
pub struct SubscribeSettings {
    /// The topic.
    pub topic: TopicName,
    /// Which of its partitions.
    pub partition: PartitionIndex,
    /// Where to start.
    pub start: StartAt,
    /// Bytes of record batches that may be under way or in hand and not yet consumed.
    pub credit_bytes: u64,
    /// What to do when the offset is outside the log. `None` fails for a durable topic, and goes on at the log start for
    /// a memory topic, whose old records are gone by design.
    pub out_of_range: Option<OutOfRange>,
    /// Which topic the name must mean; `None` takes whichever has it when the subscription is first taken, and stays with that.
    pub topic_id: Option<TopicId>,
    /// Which records are wanted.
    pub isolation: Isolation,
}

impl SubscribeSettings {
    /// Reads a partition from `start` with the default credit.
    #[must_use]
    pub const fn new(topic: TopicName, partition: PartitionIndex, start: StartAt) -> Self {
        Self {
            topic,
            partition,
            start,
            credit_bytes: SUBSCRIPTION_CREDIT_BYTES_DEFAULT,
            out_of_range: None,
            topic_id: None,
            isolation: Isolation::Uncommitted,
        }
    }
}
