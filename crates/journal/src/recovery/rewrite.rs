//! Writes again what was read and what no head proves to be on disk.
//!
//! That it can be read says little. After a sync that failed the kernel takes the blocks for clean and goes on showing
//! them, and the next sync succeeds without them. Only what is written again is saved by the sync behind it. The bytes
//! are those that were read and checked, in their place: whatever a crash leaves of such a write, old blocks and new ones
//! are the same.

use std::collections::BTreeSet;

use bytes::Bytes;
use corelane_model::limits::JOURNAL_FLUSHES_MAX;

use crate::effect::Effects;
use crate::{JournalDone, JournalError, JournalIoId, JournalOp, JournalPosition, JournalResult, RingSlot};

/// A write on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    id: JournalIoId,
    slot: RingSlot,
    position: JournalPosition,
    bytes: u64,
}

/// What is being written again and where syncs are due.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    in_flight: Vec<Flight>,
    slots: BTreeSet<RingSlot>,
    bytes: u64,
}

impl Rewrite {
    /// As many writes are on their way as a running journal has: what is left of the tail has to wait.
    pub(super) const fn is_full(&self) -> bool {
        JOURNAL_FLUSHES_MAX <= self.in_flight.len()
    }

    /// Nothing is on its way.
    pub(super) const fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Bytes that were handed to the disk so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files that were written to.
    pub(super) const fn slots(&self) -> &BTreeSet<RingSlot> {
        &self.slots
    }

    /// Writes whole blocks where they were read.
    pub(super) fn push(&mut self, slot: RingSlot, position: JournalPosition, bytes: Bytes, effects: &mut Effects) {
        let length = bytes.len() as u64;
        let id = effects.push(slot, JournalOp::Write { position: u64::from(position.byte()), pieces: vec![bytes] });
        self.in_flight.push(Flight { id, slot, position, bytes: length });
        self.slots.insert(slot);
        self.bytes += length;
    }

    /// Syncs the file and leaves it at that.
    #[cfg(planted)]
    pub(super) fn trust(&mut self, slot: RingSlot) {
        self.slots.insert(slot);
    }

    /// An effect completed. Returns whether it was one of these writes.
    ///
    /// # Errors
    /// [`JournalError::Rewrite`] and [`JournalError::ShortRewrite`].
    pub(super) fn on_done(&mut self, id: JournalIoId, result: &JournalResult) -> Result<bool, JournalError> {
        let Some(index) = self.in_flight.iter().position(|flight| flight.id == id) else { return Ok(false) };
        let Flight { slot, position, bytes: asked, .. } = self.in_flight.swap_remove(index);
        match result {
            Ok(JournalDone::Written(written)) if *written == asked => Ok(true),
            Ok(JournalDone::Written(written)) => {
                Err(JournalError::ShortRewrite { slot, position, asked, written: *written })
            }
            Ok(_) => Err(JournalError::ShortRewrite { slot, position, asked, written: 0 }),
            Err(fault) => Err(JournalError::Rewrite { slot, position, fault: *fault }),
        }
    }
}
