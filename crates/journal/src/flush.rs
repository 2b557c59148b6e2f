//! Entries in flight: what is written, what is synced, and how far the journal is durable without a hole.

use std::collections::VecDeque;

use corelane_model::limits::{JOURNAL_FLUSHES_MAX, JOURNAL_SYNCS_MAX};

use crate::effect::Effects;
use crate::{Fault, FileSequence, JournalError, JournalIoId, JournalOp, JournalPosition, RingSlot};

/// How far an entry is on its way.
///
/// ```text
/// Writing ──written──▶ Written ──sync issued──▶ Syncing ──synced──▶ Durable ──first of all──▶ leaves the queue
///    │                                             │
///    └────────── error or short write ─────────────┴──────────────▶ the journal stops for good
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlightState {
    /// The write is in flight.
    Writing(JournalIoId),
    /// The write is complete; no sync that began after that is in flight.
    Written,
    /// This sync began after the write was complete.
    Syncing(JournalIoId),
    /// On disk; something before it may not be.
    Durable,
}

/// An entry that was handed to the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub(crate) slot: RingSlot,
    pub(crate) position: JournalPosition,
    pub(crate) end: JournalPosition,
    /// Bytes of the write.
    pub(crate) bytes: u64,
    /// The oldest file that the entry's head claims to be needed.
    pub(crate) oldest: FileSequence,
}

/// All entries in flight of one journal, in the order of their positions.
#[derive(Debug)]
pub(crate) struct Flushes {
    flights: VecDeque<(Flight, FlightState)>,
    syncs: Vec<(JournalIoId, RingSlot)>,
    durable: JournalPosition,
    oldest: FileSequence,
}

impl Flushes {
    /// Nothing in flight, everything before `durable` on disk, recovery bound to begin with file `oldest`.
    pub(crate) fn new(durable: JournalPosition, oldest: FileSequence) -> Self {
        Self { flights: VecDeque::with_capacity(JOURNAL_FLUSHES_MAX), syncs: Vec::new(), durable, oldest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Everything before is on disk.
    pub(crate) const fn durable(&self) -> JournalPosition {
        self.durable
    }

    /// The oldest file needed as a durable entry claims it: earlier ones may be overwritten.
    pub(crate) const fn oldest_durable(&self) -> FileSequence {
        self.oldest
    }

    /// Takes an entry whose write was issued as `write`.
    pub(crate) fn push(&mut self, flight: Flight, write: JournalIoId) {
        assert!(self.flights.len() < JOURNAL_FLUSHES_MAX, "{} entries are in flight", self.flights.len());
        if let Some((last, _)) = self.flights.back() {
            assert!(last.end <= flight.position, "entry at {} overlaps one to {}", flight.position, last.end);
        }
        self.flights.push_back((flight, FlightState::Writing(write)));
    }

    /// A write completed. Returns whether it was one of ours.
    ///
    /// # Errors
    /// [`JournalError`] when it failed or took fewer bytes than asked.
    pub(crate) fn on_written(&mut self, id: JournalIoId, result: Result<u64, Fault>) -> Result<bool, JournalError> {
        let Some((flight, state)) = self.flights.iter_mut().find(|(_, state)| *state == FlightState::Writing(id))
        else {
            return Ok(false);
        };
        let Flight { slot, position, bytes: asked, .. } = *flight;
        let written = result.map_err(|fault| JournalError::Write { slot, position, fault })?;
        if written != asked && !is_short_write_ignored() {
            return Err(JournalError::ShortWrite { slot, position, asked, written });
        }
        *state = if is_written_durable() { FlightState::Durable } else { FlightState::Written };
        Ok(true)
    }

    /// A sync completed. Returns whether it was one of ours. It counts for the writes that were complete when it began.
    ///
    /// # Errors
    /// [`JournalError::Sync`] when it failed.
    pub(crate) fn on_synced(&mut self, id: JournalIoId, result: Result<(), Fault>) -> Result<bool, JournalError> {
        let Some(index) = self.syncs.iter().position(|(sync, _)| *sync == id) else { return Ok(false) };
        let (_, slot) = self.syncs.swap_remove(index);
        result.map_err(|fault| JournalError::Sync { slot, fault })?;
        for (_, state) in &mut self.flights {
            if *state == FlightState::Syncing(id) {
                *state = FlightState::Durable;
            }
        }
        Ok(true)
    }

    /// Issues syncs for what is written, one for all written entries of a file, as long as not too many are in flight.
    pub(crate) fn issue_syncs(&mut self, effects: &mut Effects) -> u64 {
        let mut issued = 0;
        while self.syncs.len() < JOURNAL_SYNCS_MAX {
            let written = self.flights.iter().find(|(_, state)| *state == FlightState::Written);
            let Some(slot) = written.map(|(flight, _)| flight.slot) else { break };
            let id = effects.push(slot, JournalOp::Sync);
            self.syncs.push((id, slot));
            for (flight, state) in &mut self.flights {
                if *state == FlightState::Written && flight.slot == slot {
                    *state = FlightState::Syncing(id);
                }
            }
            issued += 1;
        }
        issued
    }

    /// Moves the durable position over the entries that are on disk up to the first that is not; returns it if it moved.
    pub(crate) fn advance(&mut self) -> Option<JournalPosition> {
        let before = self.durable;
        while let Some((flight, FlightState::Durable)) = self.flights.front() {
            assert!(self.durable <= flight.position, "durable {} moved back to {}", self.durable, flight.position);
            self.durable = flight.end;
            self.oldest = self.oldest.max(flight.oldest);
            self.flights.pop_front();
        }
        #[cfg(planted)]
        self.jump_over_holes();
        (before < self.durable).then_some(self.durable)
    }

    #[cfg(planted)]
    fn jump_over_holes(&mut self) {
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::DurablePastHole) {
            while let Some(index) = self.flights.iter().rposition(|(_, state)| *state == FlightState::Durable) {
                self.durable = self.durable.max(self.flights[index].0.end);
                self.flights.remove(index);
            }
        }
    }
}

#[cfg(not(planted))]
const fn is_short_write_ignored() -> bool {
    false
}

#[cfg(planted)]
fn is_short_write_ignored() -> bool {
    corelane_model::planted::is_planted(corelane_model::planted::Bug::IgnoreShortWrite)
}

#[cfg(not(planted))]
const fn is_written_durable() -> bool {
    false
}

#[cfg(planted)]
fn is_written_durable() -> bool {
    corelane_model::planted::is_planted(corelane_model::planted::Bug::AcknowledgeBeforeSync)
}
