//! What can go wrong, by boundary.

use crate::{JournalPosition, RingSlot};

/// Why a file effect failed: the world's answer, as the owner of the files passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file system or its quota is full.
    #[error("no space left on the device")]
    NoSpace,
    /// The file is not there.
    #[error("the file does not exist")]
    NotFound,
    /// Anything else.
    #[error("the operating system answered error {errno}")]
    Os {
        /// The error number.
        errno: i32,
    },
}

/// Why a journal stopped for good. Nothing that was not durable by then can be acknowledged; a new journal over the same
/// files recovers what is really on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A write failed. Nobody knows what is on disk.
    #[error("writing journal slot {} at {position} failed: {fault}", slot.0)]
    Write {
        /// The file.
        slot: RingSlot,
        /// Where the write began.
        position: JournalPosition,
        /// The answer.
        fault: Fault,
    },
    /// A write took fewer bytes than asked; the rest may be a hole.
    #[error("writing journal slot {} at {position} took {written} of {asked} bytes", slot.0)]
    ShortWrite {
        /// The file.
        slot: RingSlot,
        /// Where the write began.
        position: JournalPosition,
        /// What was asked.
        asked: u64,
        /// What was taken.
        written: u64,
    },
    /// A sync failed. The kernel may have dropped the pages, so a second one that succeeds would say nothing.
    #[error("syncing journal slot {} failed: {fault}", slot.0)]
    Sync {
        /// The file.
        slot: RingSlot,
        /// The answer.
        fault: Fault,
    },
    /// Recovery could not write again what it had read and what may not be on disk. The same bytes lie where they lay, as
    /// safe or unsafe as before; nobody relies on them yet, and the next start reads them anew.
    #[error("writing the end of the journal again at {position} in slot {} failed: {fault}", slot.0)]
    Rewrite {
        /// The file.
        slot: RingSlot,
        /// What was written again.
        position: JournalPosition,
        /// The answer.
        fault: Fault,
    },
    /// As [`JournalError::Rewrite`]: fewer bytes were taken than asked.
    #[error("writing the end of the journal again at {position} in slot {} took {written} of {asked} bytes", slot.0)]
    ShortRewrite {
        /// The file.
        slot: RingSlot,
        /// What was written again.
        position: JournalPosition,
        /// What was asked.
        asked: u64,
        /// What was taken.
        written: u64,
    },
    /// The length of a file of the ring cannot be learnt, so recovery cannot start.
    #[error("journal slot {} cannot be examined: {fault}", slot.0)]
    Examine {
        /// The file.
        slot: RingSlot,
        /// The answer.
        fault: Fault,
    },
    /// A file of the ring holds another journal.
    #[error(
        "journal slot {} belongs to shard {found_shard} of data directory {found_id:032x}, not to shard {shard} of {id:032x}",
        slot.0
    )]
    Foreign {
        /// The file.
        slot: RingSlot,
        /// The data directory that the file names.
        found_id: u128,
        /// The shard that the file names.
        found_shard: u8,
        /// The data directory that was opened.
        id: u128,
        /// The shard that was opened.
        shard: u8,
    },
    /// A file of the ring was written by a version that this one does not know.
    #[error("journal slot {} has format version {found}; this program reads version {known}", slot.0)]
    Version {
        /// The file.
        slot: RingSlot,
        /// The version in the file.
        found: u16,
        /// The version that we write.
        known: u16,
    },
    /// An entry that passes its checksums holds what no entry of this version holds.
    #[error("journal entry at {position}: {error}")]
    Item {
        /// The entry.
        position: JournalPosition,
        /// What is wrong.
        error: ItemError,
    },
}

/// Why bytes are not the entry that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// There are fewer bytes than the entry has.
    #[error("{found} bytes where an entry of {needed} bytes was expected")]
    Truncated {
        /// Bytes that are there.
        found: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// No entry begins here: zero fill, or the middle of something.
    #[error("magic number {found:#010x} is not an entry's")]
    Magic {
        /// What was found.
        found: u32,
    },
    /// The head is damaged.
    #[error("head checksum {found:#010x} does not match {computed:#010x}")]
    HeadCrc {
        /// In the head.
        found: u32,
        /// Of the head.
        computed: u32,
    },
    /// A later version wrote it.
    #[error("entry format version {found}; this program reads version {known}")]
    Version {
        /// In the head.
        found: u16,
        /// What we know.
        known: u16,
    },
    /// Another journal wrote it.
    #[error("entry of shard {shard} of data directory {id:032x}")]
    Foreign {
        /// The data directory in the head.
        id: u128,
        /// The shard in the head.
        shard: u8,
    },
    /// It was written elsewhere, or by an earlier use of the file.
    #[error("entry of position {found} was found at {expected}")]
    Misplaced {
        /// In the head.
        found: JournalPosition,
        /// Where it was found.
        expected: JournalPosition,
    },
    /// The body's length is beyond what an entry can hold.
    #[error("entry body of {found} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// In the head.
        found: u32,
        /// The limit.
        limit: u64,
    },
    /// The head's numbers cannot all be true: it claims to be durable or needed what comes after it, or lies nowhere.
    #[error("entry head of {position} contradicts itself")]
    Contradiction {
        /// In the head.
        position: JournalPosition,
    },
    /// Bits are set that this version does not know, or bytes that must be zero are not.
    #[error("entry head has unknown flags {flags:#06x}")]
    Flags {
        /// In the head.
        flags: u16,
    },
    /// The body is damaged or torn.
    #[error("body checksum {found:#018x} does not match {computed:#018x}")]
    BodyCrc {
        /// In the head.
        found: u64,
        /// Of the body.
        computed: u64,
    },
}

/// Why bytes of an entry's body are not an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The body ends within an item.
    #[error("the body ends {missing} bytes too early at byte {at}")]
    Truncated {
        /// Byte of the body where the item begins.
        at: usize,
        /// Bytes that are missing.
        missing: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown item kind {kind} at byte {at}: a newer version wrote it")]
    Kind {
        /// Byte of the body where the item begins.
        at: usize,
        /// The kind.
        kind: u8,
    },
    /// The payload is too short or too long for its kind.
    #[error("item of kind {kind} at byte {at} has a payload of {bytes} bytes")]
    Payload {
        /// Byte of the body where the item begins.
        at: usize,
        /// The kind.
        kind: u8,
        /// Its payload's length.
        bytes: usize,
    },
    /// The body holds more or fewer items than its head says.
    #[error("{found} items where the head says {expected}")]
    Count {
        /// Items in the body.
        found: u32,
        /// In the head.
        expected: u32,
    },
}
