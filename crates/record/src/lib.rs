//! The record batch: the same bytes on the wire, on disk and in the consumer's hand.
//!
//! A batch is a little-endian head of [`BATCH_HEAD_BYTES`] and a payload that is one rkyv archive of flat columns
//! (docs/formats/record-batch.md). A producer makes it with [`BatchBuilder`]; the broker lets it in through
//! [`SealedBatch::parse`], patches the head with [`stamp`] and never touches the payload again; a consumer lends its
//! records in place from [`RecordBatch`].
//!
//! This crate knows no topic, no partition's log, no frame and no file. Bytes from outside never make it panic.

mod builder;
mod columns;
mod compression;
mod error;
mod head;
mod header;
mod keys;
mod message_id;
mod partition;
mod reader;
mod rewrite;
mod sealed;
mod single;

pub use builder::{BatchBuilder, ProducerStamp};
pub use compression::Compression;
pub use error::{BatchError, PushError};
pub use head::{BATCH_HEAD_BYTES, BATCH_MAGIC, BATCH_VERSION, BatchFlags, BatchHead, CODEC_COLUMNS, CODEC_FOREIGN};
pub use header::Headers;
pub use keys::{BatchKeys, KeyedRecord};
pub use message_id::{MESSAGE_ID_HEADER, MessageId, MessageIdKey, find_message_id, message_ids};
pub use partition::{murmur2, partition_for_key};
pub use reader::{Record, RecordBatch, Records};
pub use rewrite::Rewriter;
pub use sealed::{SealedBatch, Stamp, split_batch, stamp};
pub use single::SingleBatch;
