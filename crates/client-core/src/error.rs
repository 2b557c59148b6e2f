//! Why something did not happen, and whether it is safe to try again.

use std::ops::Range;

use corelane_model::{ErrorCode, Offset, PartitionIndex, Retry, TopicName};

use crate::queue::DeliveryTimeError;

/// Why a record was not taken by [`crate::ClientCore::send`]. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The buffer has no room until earlier records are delivered.
    #[error("the send buffer is full: {bytes} of {bytes_max} bytes, {records} of {records_max} records")]
    Full {
        /// Bytes in the buffer.
        bytes: u64,
        /// Its limit.
        bytes_max: u64,
        /// Records in the buffer.
        records: u64,
        /// Its limit.
        records_max: u64,
    },
    /// The record is too large for any batch.
    #[error("record of {len} bytes is over the limit of {limit} bytes")]
    RecordTooLarge {
        /// What a batch with this record alone would take.
        len: u64,
        /// The limit.
        limit: u32,
    },
    /// The record has too many headers.
    #[error("record with {count} headers is over the limit of {limit} headers")]
    TooManyHeaders {
        /// Its headers.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Shared queues do not wait so long.
    #[error(transparent)]
    DeliveryTime(#[from] DeliveryTimeError),
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}; its number of partitions is {partitions}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// What was asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// The topic was deleted.
    #[error("topic {topic} was deleted")]
    TopicDeleted {
        /// The topic.
        topic: TopicName,
    },
    /// The producer is not open: it is still being opened, or it or its client was closed.
    #[error("the producer is closed")]
    Closed,
}

impl SendError {
    /// Whether the same record may be taken later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Why records that were sent are not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The broker refused the batch; it is not in the log.
    #[error("the broker refused the record batch: {text} ({code:?})")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
    },
    /// The batch left, and it cannot be known whether the log keeps it.
    #[error("it cannot be known whether the record batch was stored: {reason}")]
    Unknown {
        /// Why it cannot be known.
        reason: &'static str,
    },
    /// The delivery time was over before the batch left; it is not in the log.
    #[error("the record batch could not be sent within the delivery time{}", last_word(refusal.as_deref()))]
    TimedOut {
        /// Why the broker last refused a batch of the partition for a while, if it did and has taken none since.
        refusal: Option<String>,
    },
    /// The topic was deleted.
    #[error("topic {topic} was deleted")]
    TopicDeleted {
        /// The topic.
        topic: TopicName,
    },
    /// The client was closed before the batch left; it is not in the log.
    #[error("the client was closed before the record batch was sent")]
    Closed,
    /// Nothing failed: the producer asked for `received`, so that nobody will ever say whether the record is stored. The
    /// machine does not use it; it is for shells that let an application ask.
    #[error("the producer asked for received only")]
    NotAsked,
}

impl DeliveryError {
    /// Whether sending the same record again can succeed, and cannot write it twice.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later | Retry::Refresh),
            Self::TimedOut { .. } => true,
            Self::Unknown { .. } | Self::TopicDeleted { .. } | Self::Closed | Self::NotAsked => false,
        }
    }

    /// Whether the records may be in the log all the same.
    #[must_use]
    pub const fn may_be_stored(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::NotAsked)
    }
}

fn last_word(refusal: Option<&str>) -> String {
    refusal.map(|text| format!("; what the broker last said: {text}")).unwrap_or_default()
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The broker refused it; nothing was changed.
    #[error("{text} ({code:?})")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
    },
    /// There is no such topic; nothing was changed.
    #[error("there is no topic {topic}")]
    UnknownTopic {
        /// The topic.
        topic: TopicName,
    },
    /// The topic has no such partition; nothing was changed.
    #[error("topic {topic} has no partition {partition}; its number of partitions is {partitions}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// What was asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// The connection broke before the answer. Requests that only read are repeated instead of failing so.
    #[error("the connection was lost before the answer; the request may have been carried out")]
    ConnectionLost,
    /// No answer in time.
    #[error("no answer in time{}", if *.was_sent { "; the request may have been carried out" } else { ": no connection to the broker" })]
    TimedOut {
        /// Whether the request had left.
        was_sent: bool,
    },
    /// The answer is not what the protocol says.
    #[error("the broker's answer is malformed")]
    Malformed,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl RequestError {
    /// Whether the same request can succeed later, and cannot be carried out twice.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later),
            Self::TimedOut { was_sent } => !*was_sent,
            Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::ConnectionLost
            | Self::Malformed
            | Self::Closed => false,
        }
    }
}

/// Why a subscription ended by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The broker ended or refused it.
    #[error("the subscription ended: {text} ({code:?})")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
        /// When it ended by `CorruptLog`, the damaged records, see [`Self::damaged`]. When it ended by `OffsetOutOfRange`,
        /// the log, from log start offset to high watermark; a subscription that is refused for that from the outset has
        /// it in the text alone.
        range: Option<Range<Offset>>,
    },
    /// There is no such topic, or it was deleted.
    #[error("there is no topic {topic}")]
    UnknownTopic {
        /// The topic.
        topic: TopicName,
    },
    /// The topic that was read was deleted, and another one has its name now. Nothing of that one was delivered: its offsets
    /// are others. A new subscription reads it.
    #[error(
        "topic {topic} was deleted and made anew, and what was not read of it is gone; begin anew to read the new one"
    )]
    TopicReplaced {
        /// The name of both.
        topic: TopicName,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has no partition {partition}; its number of partitions is {partitions}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: TopicName,
        /// What was asked for.
        partition: PartitionIndex,
        /// How many there are.
        partitions: u32,
    },
    /// A batch arrived that begins before the end of the one before it.
    #[error("batches went back from offset {expected} to {found}")]
    WentBack {
        /// Where the next batch had to begin at the earliest.
        expected: u64,
        /// Where it began.
        found: u64,
    },
    /// What was pushed is no record batch.
    #[error("a pushed record batch is malformed: {0}")]
    Batch(#[from] corelane_record::BatchError),
}

impl SubscriptionError {
    /// The records whose damage ended the subscription, never none of them. Every record before them was delivered; a new
    /// subscription can read on from their end.
    #[must_use]
    pub fn damaged(&self) -> Option<Range<Offset>> {
        match self {
            Self::Refused { code: ErrorCode::CorruptLog, range: Some(range), .. } if range.start < range.end => {
                Some(range.clone())
            }
            Self::Refused { .. }
            | Self::UnknownTopic { .. }
            | Self::TopicReplaced { .. }
            | Self::UnknownPartition { .. }
            | Self::WentBack { .. }
            | Self::Batch(_) => None,
        }
    }

    /// Whether the same subscription may work later.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later),
            Self::UnknownTopic { .. }
            | Self::TopicReplaced { .. }
            | Self::UnknownPartition { .. }
            | Self::WentBack { .. }
            | Self::Batch(_) => false,
        }
    }
}

/// Why a connection could not be made or was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// No connection, or it broke; trying again may help.
    #[error("{0}")]
    Unreachable(String),
    /// The peer is not who it should be; trying again does not help.
    #[error("{0}")]
    Untrusted(String),
    /// The broker does not let this client in.
    #[error("the broker refused the connection: {text} ({code:?})")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The broker's words.
        text: String,
    },
}

impl ConnectFailure {
    /// Whether trying again may help.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Untrusted(_) => false,
            Self::Refused { code, .. } => matches!(code.retry(), Retry::Later),
        }
    }
}
