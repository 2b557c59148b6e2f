//! One shared queue: a group that consumes one topic record by record, with as many members as it likes.
//!
//! [`Queue`] is a machine without I/O that holds a whole queue with all partitions of its topic. The shard that owns the
//! group's home partition ([`corelane_model::GroupName::home`]) hands in what members say, time, durable positions and,
//! for each record that it read, where it is, how large, its key's hash and its delivery time; record bytes it keeps to
//! itself. At the end of a round [`Queue::finish_round`] hands records out to members with credit and asks for more where
//! there is demand, so a slow member's backlog stays on disk; [`Queue::poll_effect`] yields what is to be done.
//!
//! A record has one state in one ring, hence at most one lease. What is done and what has failed is an
//! [`Effect::Append`] of one keyed record for each partition that changed in a round (docs/formats/queue.md); whatever
//! tells somebody of it waits until [`Queue::on_durable`] has reached it. Leases live in memory: after a crash
//! everything that is not done is handed out again, and failures stay counted. [`Restore`] builds the queue from the
//! newest record of each key. docs/queues.md explains the semantics and what each guarantee costs.
//!
//! The crate knows no log, no bytes of records, no name of a topic but the dead letters', no connection, no clock and no
//! randomness: a seed is handed in.

mod acknowledge;
mod admin;
mod clock;
mod dead_letters;
mod delivery;
mod description;
mod dispatch;
mod done;
mod effect;
mod encoding;
mod error;
mod key_lines;
mod member;
mod membership;
mod partition;
mod queue;
mod reading;
mod restore;
mod round;
mod slot;
mod stats;

pub use acknowledge::Verdict;
pub use description::{MemberDescription, PartitionDescription, QueueDescription};
pub use effect::{
    Answer, AppendPosition, DeadReason, Effect, FenceReason, LeaseRun, RedriveAt, Redriven, RequestTicket,
};
pub use encoding::{QUEUE_FORMAT, is_queue_key, queue_of};
pub use error::{DecodeError, QueueError};
pub use member::Join;
pub use queue::{Queue, QueueName};
pub use reading::{ReadBatch, RecordMeta};
pub use restore::Restore;
pub use stats::QueueStats;
