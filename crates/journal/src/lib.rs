//! One shard's journal: entries, flushes, checkpoints, recycling, replay.
//!
//! The journal is a ring of preallocated files. All that a shard must not forget goes through it: in each round the
//! record batches of all its partitions and all its changes become one entry, which is written to whole blocks and
//! synced; several entries may be on their way together, and what is durable is always a prefix without a hole. Each
//! file begins with a checkpoint, so that older files can be recycled once their batches are settled elsewhere.
//! The formats are in `docs/formats/journal.md` and `docs/formats/checkpoint.md`.
//!
//! [`Journal`] is a machine: it does no I/O, reads no clock, and hands out [`JournalEffect`]s whose completions come
//! back by id. It knows slots of a ring, not file names; partitions by id, not what their state means. It must not know
//! the partitions' logs or their segments. Bytes from disk never make it panic or allocate by an unchecked length.

mod checkpoint;
mod effect;
mod entry;
mod error;
mod flush;
mod image;
mod item;
mod journal;
mod position;
mod recovery;
mod ring;
mod slab;
mod stats;
mod writer;

pub use effect::{JournalDone, JournalEffect, JournalIoId, JournalOp, JournalResult, RingSlot};
pub use entry::{
    ENTRY_HEAD_BYTES, ENTRY_MAGIC, EntryContext, EntryFlags, EntryHead, EntryView, Items, JOURNAL_VERSION, JournalId,
    body_crc,
};
pub use error::{EntryError, Fault, ItemError, JournalError};
pub use image::recover_images;
pub use item::{ITEM_HEAD_BYTES, Item};
pub use journal::{Journal, JournalConfig, JournalOutput};
pub use position::{FileSequence, JournalPosition};
pub use recovery::{Damage, DamagedBatch, Recovered, RecoveryReport};
pub use slab::{BatchSlot, ClosedEntry};
pub use stats::JournalStats;
