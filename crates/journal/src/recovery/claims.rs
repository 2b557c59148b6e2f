//! What heads say about the journal as a whole, and where it was read.

use bytes::Bytes;

use crate::entry::EntryHead;
use crate::{FileSequence, JournalPosition, RingSlot};

/// A block that begins with a head which recovery believed.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) slot: RingSlot,
    pub(super) position: JournalPosition,
    pub(super) block: Bytes,
}

/// What heads say about the rest of the journal. Each was true when its head was written, and stays true.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Everything before was durable.
    pub(super) durable: JournalPosition,
    /// Nothing before this file is needed.
    pub(super) oldest: FileSequence,
    /// The exclusive end of the last entry that was begun.
    pub(super) end: JournalPosition,
    durable_witness: Option<Witness>,
    oldest_witness: Option<Witness>,
}

impl Claims {
    /// A head was found at the front of `block`.
    pub(super) fn on_head(&mut self, head: &EntryHead, slot: RingSlot, block: &Bytes) {
        let witness = || Some(Witness { slot, position: head.position, block: block.clone() });
        if self.durable < head.durable {
            (self.durable, self.durable_witness) = (head.durable, witness());
        }
        if self.oldest < head.oldest {
            (self.oldest, self.oldest_witness) = (head.oldest, witness());
        }
        self.end = self.end.max(head.end());
    }

    /// The entry at this position is written again as a whole.
    pub(super) fn on_rewritten(&mut self, position: JournalPosition) {
        for witness in [&mut self.durable_witness, &mut self.oldest_witness] {
            witness.take_if(|witness| witness.position == position);
        }
    }

    /// Heads that were believed, that may not be on disk, and whose entries were not written again.
    pub(super) fn take_unproven(&mut self) -> Vec<Witness> {
        let mut witnesses: Vec<Witness> =
            [self.durable_witness.take(), self.oldest_witness.take()].into_iter().flatten().collect();
        witnesses.retain(|witness| self.durable <= witness.position);
        witnesses.dedup_by_key(|witness| witness.position);
        witnesses
    }
}
