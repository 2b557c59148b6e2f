//! Finds out which files there are and which of the journal's files each one is.

use corelane_model::limits::{BLOCK_BYTES, JOURNAL_FILES_MAX};

use super::claims::Claims;
use crate::effect::Effects;
use crate::entry::{EntryHead, JOURNAL_VERSION};
use crate::{
    EntryError, Fault, FileSequence, JournalConfig, JournalDone, JournalError, JournalIoId, JournalOp, JournalPosition,
    JournalResult, RingSlot,
};

/// Slots that are examined together.
const SLOTS_AT_ONCE: usize = 16;

/// How far a slot is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Length(JournalIoId),
    Head(JournalIoId),
    Known,
}

/// A slot and what its file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundFile {
    /// Bytes, whole blocks only; `None` when there is no file.
    pub(super) length: Option<u64>,
    /// Which file it is; `None` when its first block does not say.
    pub(super) sequence: Option<FileSequence>,
    /// What its first entry names as the entry before it.
    pub(super) previous_crc: Option<u32>,
    /// What its first entry calls durable.
    pub(super) durable: Option<JournalPosition>,
    /// Why its first block cannot be read.
    pub(super) fault: Option<Fault>,
    state: SlotState,
}

/// Asks for the length and the first block of each slot.
#[derive(Debug)]
pub(super) struct Probe {
    config: JournalConfig,
    files: Vec<FoundFile>,
}

impl Probe {
    pub(super) fn new(config: JournalConfig, effects: &mut Effects) -> Self {
        let mut probe = Self { config, files: Vec::new() };
        probe.issue(effects);
        probe
    }

    fn issue(&mut self, effects: &mut Effects) {
        let mut busy = self.files.iter().filter(|file| file.state != SlotState::Known).count();
        while busy < SLOTS_AT_ONCE && self.is_next_wanted() {
            let slot = RingSlot(u32::try_from(self.files.len()).expect("few slots"));
            let state = SlotState::Length(effects.push(slot, JournalOp::Length));
            self.files.push(FoundFile {
                length: None,
                sequence: None,
                previous_crc: None,
                durable: None,
                fault: None,
                state,
            });
            busy += 1;
        }
    }

    /// The ring may have been larger before: slots beyond it are examined as long as there are files.
    fn is_next_wanted(&self) -> bool {
        let known = self.files.len();
        let is_last_there = self.files.last().is_some_and(|file| file.length.is_some());
        known < self.config.files as usize || (is_last_there && known < JOURNAL_FILES_MAX as usize)
    }

    /// Everything is known.
    pub(super) fn is_done(&self) -> bool {
        self.files.iter().all(|file| file.state == SlotState::Known)
    }

    pub(super) fn into_files(self) -> Vec<FoundFile> {
        self.files
    }

    /// # Errors
    /// [`JournalError`] when a file cannot be examined or is not ours to touch.
    pub(super) fn on_done(
        &mut self,
        id: JournalIoId,
        result: JournalResult,
        claims: &mut Claims,
        effects: &mut Effects,
    ) -> Result<(), JournalError> {
        let asked = |file: &FoundFile| file.state == SlotState::Length(id) || file.state == SlotState::Head(id);
        let Some(index) = self.files.iter().position(asked) else { return Ok(()) };
        let slot = RingSlot(u32::try_from(index).expect("few slots"));
        let file = &mut self.files[index];
        match (result, file.state) {
            (Ok(JournalDone::Length(length)), SlotState::Length(_)) => {
                // Positions within a file are 32 bits; what lies beyond was never written by a journal.
                file.length = length.map(|bytes| bytes.min(u64::from(u32::MAX)) / BLOCK_BYTES * BLOCK_BYTES);
                file.state = SlotState::Known;
                if file.length.is_some_and(|bytes| BLOCK_BYTES <= bytes) {
                    let length = u32::try_from(BLOCK_BYTES).expect("a block is small");
                    file.state = SlotState::Head(effects.push(slot, JournalOp::Read { position: 0, length }));
                }
            }
            (Err(Fault::NotFound), SlotState::Length(_)) => file.state = SlotState::Known,
            (Err(fault), SlotState::Length(_)) => return Err(JournalError::Examine { slot, fault }),
            (Ok(JournalDone::Read(bytes)), _) => {
                file.state = SlotState::Known;
                if let Some(head) = identify(&self.config, slot, &bytes)? {
                    file.sequence = Some(head.position.sequence());
                    file.previous_crc = Some(head.previous_crc);
                    file.durable = Some(head.durable);
                    claims.on_head(&head, slot, &bytes);
                }
            }
            // A first block that cannot be read is found out about by reading the rest.
            (Err(fault), _) => {
                file.state = SlotState::Known;
                file.fault = Some(fault);
            }
            (Ok(_), _) => file.state = SlotState::Known,
        }
        self.issue(effects);
        Ok(())
    }
}

/// The head of the first entry, if the block begins with one.
fn identify(config: &JournalConfig, slot: RingSlot, block: &[u8]) -> Result<Option<EntryHead>, JournalError> {
    match EntryHead::parse(block) {
        Ok(head) if head.journal != config.id => Err(JournalError::Foreign {
            slot,
            found_id: head.journal.data,
            found_shard: head.journal.shard.0,
            id: config.id.data,
            shard: config.id.shard.0,
        }),
        Ok(head) => Ok((head.position.byte() == 0).then_some(head)),
        Err(EntryError::Version { found, .. }) => Err(JournalError::Version { slot, found, known: JOURNAL_VERSION }),
        Err(_) => Ok(None),
    }
}
