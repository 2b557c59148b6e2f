//! Promises that were broken, in words.

use std::fmt;

use corelane_model::{Offset, PartitionId, ShardId};

use super::{KeyViolation, TransactionViolation};
use crate::RecordId;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two records at one place.
    #[error("{partition} offset {offset}: was record {before} ({source_before}), is record {now} ({source_now})")]
    Differs {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// The first that was there.
        before: RecordId,
        /// Who said so.
        source_before: Source,
        /// The second.
        now: RecordId,
        /// Who says so.
        source_now: Source,
    },
    /// One record at two places.
    #[error("{partition}: record {record} stands at offset {before} and again at {now}")]
    Duplicate {
        /// Where.
        partition: PartitionId,
        /// The record.
        record: RecordId,
        /// Its first place.
        before: Offset,
        /// Its second place.
        now: Offset,
    },
    /// A stored record is gone.
    #[error("{partition}: record {record} was stored at offset {offset} and is gone")]
    Lost {
        /// Where.
        partition: PartitionId,
        /// The record.
        record: RecordId,
        /// Where it was.
        offset: Offset,
    },
    /// A consumer was not shown an offset, or was shown it again.
    #[error("{partition}: consumer of client {client} was shown offset {shown} where {expected} comes next")]
    NotDense {
        /// Where.
        partition: PartitionId,
        /// Whose consumer.
        client: u32,
        /// What came.
        shown: Offset,
        /// What had to come.
        expected: Offset,
    },
    /// A record that was never sent to this partition, or whose bytes changed.
    #[error("{partition} offset {offset}: {what}")]
    Foreign {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two records of one producer stand in the wrong order.
    #[error("{partition}: record {later} stands at offset {later_offset}, before record {earlier} at {earlier_offset}")]
    Disorder {
        /// Where.
        partition: PartitionId,
        /// Sent first.
        earlier: RecordId,
        /// Its place.
        earlier_offset: Offset,
        /// Sent later.
        later: RecordId,
        /// Its place.
        later_offset: Offset,
    },
    /// A partition's end moved back.
    #[error("{partition}: the durable end was {before} and is {now}")]
    EndMovedBack {
        /// Where.
        partition: PartitionId,
        /// The furthest that was told.
        before: Offset,
        /// What is told now.
        now: Offset,
    },
    /// A partition's beginning moved back.
    #[error("{partition}: the log start was {before} and is {now}")]
    StartMovedBack {
        /// Where.
        partition: PartitionId,
        /// What was reported as durable.
        before: Offset,
        /// What is told now.
        now: Offset,
    },
    /// An answer without a question, or a second one.
    #[error("connection {connection}: an answer to correlation {correlation}, which is not open")]
    AnsweredTwice {
        /// The connection.
        connection: u64,
        /// The correlation id.
        correlation: u64,
    },
    /// A ticket of the client came to an end twice.
    #[error("client {client}: batch {batch} was resolved twice")]
    ResolvedTwice {
        /// The client.
        client: u32,
        /// The batch.
        batch: u64,
    },
    /// Faults are over and something does not end.
    #[error("faults ended {seconds} s ago and {what}")]
    NotLive {
        /// How long ago.
        seconds: u64,
        /// What does not end.
        what: String,
    },
    /// A shard asks for one round after the other and does nothing in them.
    #[error("shard {shard} asked for {rounds} rounds in a row in which nothing happened")]
    Spinning {
        /// The shard.
        shard: ShardId,
        /// How many.
        rounds: u64,
    },
    /// Recovery calls bytes damaged that this disk never damages.
    #[error("shard {shard}: {what}")]
    Damage {
        /// The shard.
        shard: ShardId,
        /// What it says.
        what: String,
    },
    /// A reader is told that what is there cannot be read.
    #[error("a reader of client {client} hears: {what}")]
    Unreadable {
        /// The client.
        client: u32,
        /// What it is told.
        what: String,
    },
    /// A record was refused for good and is in the log all the same.
    #[error("{partition} offset {offset}: record {record} was reported as not in the log")]
    Revenant {
        /// Where.
        partition: PartitionId,
        /// At which offset.
        offset: Offset,
        /// The record.
        record: RecordId,
    },
    /// A promise about transactions.
    #[error(transparent)]
    Transaction(#[from] TransactionViolation),
    /// A promise about keys.
    #[error(transparent)]
    Key(#[from] KeyViolation),
    /// A consumer group does what it promised not to.
    #[error("group {group}: {what}")]
    Group {
        /// The group.
        group: String,
        /// What it does.
        what: String,
    },
    /// A shared queue does what it promised not to.
    #[error("queue {queue}: {what}")]
    Queue {
        /// The queue's group.
        queue: String,
        /// What it does.
        what: String,
    },
    /// What is made of records within transactions is not made once.
    #[error("pipeline: {what}")]
    Pipeline {
        /// What is wrong.
        what: String,
    },
    /// A machine panicked: one of its assertions failed.
    #[error("panic: {text}")]
    Panic {
        /// Its message.
        text: String,
    },
}

/// Who told the oracle of a record's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An answer to a producer: `stored`.
    Stored,
    /// A consumer was shown it.
    Shown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::Shown => "shown",
        })
    }
}
