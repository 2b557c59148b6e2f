//! What a journal wants done to its files, and what came of it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::Fault;

/// One file of the ring, by its place in it. Which file sequence lies there changes with every recycling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingSlot(pub u32);

/// Ties a completion to its effect; counts up within one [`crate::Journal`] and is never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalIoId(pub u64);

/// What to do to a file of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalOp {
    /// Make it, or make it anew, filled with `length` zero bytes; it and its directory entry are on disk at completion.
    /// Nobody waits for it as a rule: it goes where there is room.
    Create {
        /// Bytes, a multiple of the block.
        length: u64,
    },
    /// Write these pieces one after another. Position and total length are multiples of the block; a piece alone may be
    /// of any length.
    Write {
        /// Where the first byte goes.
        position: u64,
        /// The bytes, in order.
        pieces: Vec<Bytes>,
    },
    /// Make durable what was written before (fdatasync).
    Sync,
    /// Read; position and length are multiples of the block. Fewer bytes come back only at the file's end.
    Read {
        /// Where the first byte lies.
        position: u64,
        /// How many.
        length: u32,
    },
    /// Its length, or that it is not there.
    Length,
}

impl JournalOp {
    /// Total bytes of a write's pieces; 0 for everything else.
    #[must_use]
    pub fn write_bytes(&self) -> u64 {
        match self {
            Self::Write { pieces, .. } => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Self::Create { .. } | Self::Sync | Self::Read { .. } | Self::Length => 0,
        }
    }
}

/// One thing to do to one file of the ring. Effects may complete in any order; the journal waits where it needs one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEffect {
    /// Comes back with the completion.
    pub id: JournalIoId,
    /// The file.
    pub slot: RingSlot,
    /// What to do.
    pub op: JournalOp,
}

/// What an effect came to when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalDone {
    /// A create or a sync is done.
    Done,
    /// So many bytes were written from the position; fewer than asked is a short write.
    Written(u64),
    /// The bytes that were read.
    Read(Bytes),
    /// The file's length; `None` when it is not there.
    Length(Option<u64>),
}

/// A completion: what [`crate::Journal::on_done`] takes.
pub type JournalResult = Result<JournalDone, Fault>;

/// Effects that wait to be polled, and the counter of their ids.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    next: u64,
    queue: VecDeque<JournalEffect>,
}

impl Effects {
    pub(crate) fn push(&mut self, slot: RingSlot, op: JournalOp) -> JournalIoId {
        let id = JournalIoId(self.next);
        self.next += 1;
        self.queue.push_back(JournalEffect { id, slot, op });
        id
    }

    pub(crate) fn pop(&mut self) -> Option<JournalEffect> {
        self.queue.pop_front()
    }

    /// Forgets what nobody has taken yet: after a failure nothing more may reach the disk.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}
