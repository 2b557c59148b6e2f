//! Files as data: what storage asks of the world and what the world answers.

use bytes::Bytes;
use corelane_commitlog::SegmentName;
use corelane_model::{Offset, PartitionId, ShardId};

/// A file in the data directory, by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// One file of a shard's journal ring: `journal/<shard>/<slot>`.
    Journal {
        /// The shard whose journal it is.
        shard: ShardId,
        /// Its place in the ring.
        slot: u32,
    },
    /// One segment of a partition: `topics/<topic>/<partition>/<base offset>.segment`, or `<base offset>-<rewrite>.segment`
    /// when compaction wrote it anew.
    Segment {
        /// The partition.
        partition: PartitionId,
        /// Offset of its first record.
        base: Offset,
        /// How often compaction wrote it anew.
        rewrite: u32,
    },
}

impl FileName {
    /// The file of a segment.
    #[must_use]
    pub const fn segment(partition: PartitionId, SegmentName { base, rewrite }: SegmentName) -> Self {
        Self::Segment { partition, base, rewrite }
    }
}

/// Ties a completion to its effect; counts up within a shard and is never reused while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// How soon a file effect matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A producer or a reader waits: the journal, reads for subscriptions.
    Now,
    /// Settling, recycling, deletion: goes where there is room.
    Background,
}

/// What to do to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Make it, or make it anew, filled with `length` zero bytes; it and its directory entry are on disk at completion.
    CreateZeroed {
        /// Bytes, a multiple of the block.
        length: u64,
    },
    /// Make it empty if it does not exist, with its directories; the directory entry is on disk at completion.
    CreateEmpty,
    /// Write these pieces one after another from `position`. Position and total length are multiples of the block. Not
    /// durable before a later [`FileOp::Sync`] completes.
    Write {
        /// Where the first byte goes.
        position: u64,
        /// The bytes, in order.
        pieces: Vec<Bytes>,
    },
    /// Make all writes that completed before durable (fdatasync).
    Sync,
    /// Read `length` bytes from `position`; both are multiples of the block. Fewer come back only at the file's end.
    Read {
        /// Where the first byte lies.
        position: u64,
        /// How many.
        length: u32,
    },
    /// Remove it; no error if it is not there.
    Delete,
    /// Its length, or that it is not there.
    Length,
}

/// One thing to do to one file. Effects of one file may complete in any order; whoever needs an order waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEffect {
    /// Comes back with the completion.
    pub id: IoId,
    /// The file.
    pub file: FileName,
    /// What to do.
    pub op: FileOp,
    /// How soon it matters.
    pub urgency: Urgency,
}

/// What a file effect came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOutcome {
    /// [`FileOp::CreateZeroed`], [`FileOp::CreateEmpty`], [`FileOp::Sync`] or [`FileOp::Delete`] is done.
    Done,
    /// So many bytes were written from the position; it may be fewer than asked (a short write).
    Written(u64),
    /// The bytes that were read.
    Read(Bytes),
    /// The file's length; `None` when it is not there.
    Length(Option<u64>),
}

/// Why a file effect failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file system or its quota is full.
    #[error("no space left on the device")]
    NoSpace,
    /// It is not there.
    #[error("the file does not exist")]
    NotFound,
    /// Anything else.
    #[error("the operating system answered error {errno}")]
    Os {
        /// The error number.
        errno: i32,
    },
}

/// The completion of a file effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDone {
    /// The effect's id.
    pub id: IoId,
    /// What it came to.
    pub result: Result<FileOutcome, FileError>,
}
