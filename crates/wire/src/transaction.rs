//! Transactions: what a client asks of a coordinator, and reading only what is committed.
//!
//! A transactional id's coordinator is the owner of its home partition of the internal topic `__transactions`; any shard
//! passes these requests on to it. Batches of a transaction are produced like any other; their heads name the transaction.

use crate::OffsetCommit;
use crate::body::body;
use crate::subscribe::Start;

body! {
    /// Takes a transactional id over: what went on under it is aborted, and whoever had it is shut out.
    InitialiseTransactions (InitialiseTransactions, 1) {
        /// The transactional id.
        id: String,
        /// A transaction that is not ended within this many milliseconds is aborted; 0 chooses the default.
        timeout_ms: u32,
    }

    /// Answers [`InitialiseTransactions`].
    InitialiseTransactionsAnswer (InitialiseTransactionsAnswer, 1) {
        /// The producer of the transactions. Its batches are taken from this connection's client alone.
        producer: u64,
        /// The producer epoch of the first transaction.
        epoch: u16,
        /// Where the coordinator is: goes into the head of each batch of a transaction.
        home: u16,
    }

    /// Stages offsets of a consumer group, to be committed with the transaction.
    StageOffsets (StageOffsets, 1) {
        /// The transactional id.
        id: String,
        /// The producer.
        producer: u64,
        /// The producer epoch, which is the transaction.
        epoch: u16,
        /// The group.
        group: String,
        /// Who commits.
        member: (u64, u64),
        /// A generation in which it owned all of them.
        generation: u64,
        /// The offsets; as many as fit into the body.
        offsets: Vec<OffsetCommit>,
    }

    /// Answers [`StageOffsets`]: they are durable, and nobody else gets the partitions before the transaction has ended.
    StageOffsetsAnswer (StageOffsetsAnswer, 1) {
        /// How many are staged.
        offsets: u32,
    }

    /// Ends a transaction.
    EndTransaction (EndTransaction, 1) {
        /// The transactional id.
        id: String,
        /// The producer.
        producer: u64,
        /// The producer epoch, which is the transaction.
        epoch: u16,
        /// 1 commits, 2 aborts.
        decision: u8,
    }

    /// Answers [`EndTransaction`]: it has taken effect everywhere.
    EndTransactionAnswer (EndTransactionAnswer, 1) {
        /// The producer of the next transaction; 0 when the id has to be initialised again.
        producer: u64,
        /// The producer epoch of the next transaction.
        epoch: u16,
    }

    /// Subscribes to the committed records of one partition. Answered by [`crate::SubscribeAnswer`], whose high watermark, as
    /// that of each push, is the last stable offset.
    SubscribeCommitted (SubscribeCommitted, 1) {
        /// Chosen by the client, unique on its connection among all subscriptions.
        subscription: u64,
        /// The topic.
        topic: u64,
        /// The partition.
        partition: u32,
        /// Where to start.
        start: Start,
        /// Bytes of record batches that may be pushed before more credit comes.
        credit: u64,
    }

    /// Everything of a subscription before an offset that was not pushed was aborted. On its push stream, where
    /// batches end that were left out and none follows yet.
    Passed (Passed, 1) {
        /// The subscription.
        subscription: u64,
        /// The offset from which on something may still come.
        next: u64,
        /// Last stable offset when the frame was made.
        high_watermark: u64,
    }
}
