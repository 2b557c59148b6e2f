//! One shard's journal and all its partitions' logs, turned into file effects.
//!
//! [`Storage`] composes a journal and commit logs: batches go into the journal and stay in memory until settling has
//! copied them into segments; reads come from memory or from segments. Everything is decided here and nothing waits
//! here: what should happen to files leaves as [`FileEffect`]s, what came of it returns as [`FileDone`]s.
//!
//! This crate knows no connection, no frame, no subscription and no clock.

mod cache;
mod catalog;
mod compaction;
mod config;
mod disk;
mod error;
mod extent;
mod file;
mod index;
mod lease;
mod names;
mod output;
mod pace;
mod partition;
mod payload;
mod reads;
mod report;
mod round;
mod settle;
mod stats;
mod storage;

pub use config::{MEMORY_BYTES_MIN, StorageConfig};
pub use error::{AppendError, ChangeError, ImportError, ReadError};
pub use extent::{
    EXTENT_DISK_BYTES_MAX, EXTENT_HEAD_BYTES, EXTENT_MAGIC, EXTENT_VERSION, ExtentError, ExtentHead, payload_crc,
};
pub use file::{FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome, IoId, Urgency};
pub use output::{Appended, CatalogRecovery, ChangeTicket, Fetch, OffsetFor, ReadTicket, ShardExport, StorageOutput};
pub use report::{CorruptRange, RecoveryError, RecoveryReport};
pub use stats::{PartitionStatus, StorageStats};
pub use storage::Storage;
