//! Recovery: which files there are, what they hold, where the journal really ends.
//!
//! 1. *Probe*: length and first block of every slot say which file lies there.
//! 2. *Survey*: the newest file, the one to be overwritten next, and every file whose first block says nothing, are
//!    scanned for heads. The largest claims among them say where recovery begins and up to where the journal is known to have been durable.
//! 3. *Replay*: from the oldest file needed, entry by entry, each one bound to the one before by its CRC. At the first
//!    place that holds no good entry one of three things is true. A later file names the last good entry as the one
//!    before it: the journal went on there. Or the place lies before the known durable position: damage, which is
//!    reported and skipped. Or it is the end.
//! 4. *Rewrite*, beside the replay: what lies behind the known durable position may have been written but not synced, or
//!    a sync of it may have failed and readers still see it. It is written again, the same bytes in the same place.
//! 5. *Sync*: nobody may rely on it before that.

mod claims;
mod probe;
mod reader;
mod replay;
mod report;
mod rewrite;

use corelane_model::limits::BLOCK_BYTES;

use self::claims::Claims;
use self::probe::{FoundFile, Probe};
use self::reader::Reader;
use self::replay::{PlannedFile, Replay};
pub use self::report::{Damage, DamagedBatch, RecoveryReport};
use crate::effect::Effects;
use crate::entry::EntryHead;
use crate::ring::FoundSlot;
use crate::writer::Handover;
use crate::{
    FileSequence, Item, JournalConfig, JournalError, JournalIoId, JournalOp, JournalPosition, JournalResult, RingSlot,
};

/// An item that recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The entry that holds it.
    pub position: JournalPosition,
    /// The item.
    pub item: Item,
}

/// Where recovery is.
///
/// ```text
/// Probing ──▶ Surveying ──▶ Replaying ──▶ Rewriting ──▶ Syncing ──▶ Done
/// ```
/// Each waits for all of its effects; replaying issues the writes that rewriting waits for.
#[derive(Debug)]
enum Step {
    Probing(Probe),
    /// Scans some files for heads; `files` are their slots in the order of the reader.
    Surveying {
        reader: Reader,
        files: Vec<usize>,
    },
    Replaying(Box<Replay>),
    /// Everything was read and handed out; some of it is still being written again.
    Rewriting(Box<Replay>),
    Syncing {
        replay: Box<Replay>,
        syncs: Vec<(JournalIoId, RingSlot)>,
    },
    Done,
}

/// The recovery of one journal.
#[derive(Debug)]
pub(crate) struct Recovery {
    config: JournalConfig,
    step: Step,
    files: Vec<FoundFile>,
    surveyed: Vec<usize>,
    claims: Claims,
    result: Option<(RecoveryReport, Handover)>,
}

impl Recovery {
    pub(crate) fn new(config: JournalConfig, effects: &mut Effects) -> Self {
        let step = Step::Probing(Probe::new(config, effects));
        Self { config, step, files: Vec::new(), surveyed: Vec::new(), claims: Claims::default(), result: None }
    }

    /// The outcome, once.
    pub(crate) fn take_result(&mut self) -> Option<(RecoveryReport, Handover)> {
        self.result.take()
    }

    /// An effect completed.
    ///
    /// # Errors
    /// [`JournalError`] when the journal cannot be recovered.
    pub(crate) fn on_done(
        &mut self,
        id: JournalIoId,
        result: JournalResult,
        effects: &mut Effects,
    ) -> Result<(), JournalError> {
        match &mut self.step {
            Step::Probing(probe) => {
                probe.on_done(id, result, &mut self.claims, effects)?;
                if probe.is_done() {
                    self.begin_survey(effects);
                    self.check_readable()?;
                }
            }
            Step::Surveying { reader, .. } => {
                reader.on_done(id, result);
                self.survey(effects);
                self.check_readable()?;
            }
            Step::Replaying(replay) => replay.on_done(id, result)?,
            Step::Rewriting(replay) => {
                replay.on_done(id, result)?;
                self.end_rewriting(effects);
            }
            Step::Syncing { syncs, .. } => {
                if let Some(index) = syncs.iter().position(|(sync, _)| *sync == id) {
                    let (_, slot) = syncs.swap_remove(index);
                    result.map_err(|fault| JournalError::Sync { slot, fault })?;
                }
                self.end_syncing();
            }
            Step::Done => {}
        }
        Ok(())
    }

    /// The next item; see [`crate::Journal::poll_recovered`].
    ///
    /// # Errors
    /// [`JournalError::Item`] when an entry holds what this version does not know.
    pub(crate) fn poll_item(&mut self, effects: &mut Effects) -> Result<Option<Recovered>, JournalError> {
        let Step::Replaying(replay) = &mut self.step else { return Ok(None) };
        let item = replay.poll_item(effects)?;
        if item.is_none() && replay.is_done() {
            self.begin_rewriting(effects);
        }
        Ok(item)
    }

    /// A ring in which nothing was found is a new one only if it could be read: otherwise everything in it would be given up
    /// because of a disk, or a way of reading it, that answers nothing but errors.
    fn check_readable(&self) -> Result<(), JournalError> {
        let is_empty = matches!(&self.step, Step::Replaying(replay) if replay.files().is_empty());
        let unreadable = self.files.iter().zip(0_u32..).find_map(|(file, slot)| Some((RingSlot(slot), file.fault?)));
        match unreadable {
            Some((slot, fault)) if is_empty => Err(JournalError::Examine { slot, fault }),
            _ => Ok(()),
        }
    }

    fn begin_survey(&mut self, effects: &mut Effects) {
        if let Step::Probing(probe) = std::mem::replace(&mut self.step, Step::Done) {
            self.files = probe.into_files();
        }
        let unknown = |file: &FoundFile| file.sequence.is_none() && file.length.is_some_and(|bytes| 0 < bytes);
        let files = (0..self.files.len()).filter(|index| unknown(&self.files[*index])).collect();
        self.survey_files(files, effects);
    }

    fn survey_files(&mut self, files: Vec<usize>, effects: &mut Effects) {
        self.surveyed.extend_from_slice(&files);
        let lengths = files.iter().map(|index| {
            (RingSlot(u32::try_from(*index).expect("few slots")), self.files[*index].length.unwrap_or_default())
        });
        let reader = Reader::new(lengths);
        self.step = Step::Surveying { reader, files };
        self.survey(effects);
    }

    /// Scans what is at hand; when the files are through, goes on to the newest file, then to replay.
    fn survey(&mut self, effects: &mut Effects) {
        let Step::Surveying { reader, files } = &mut self.step else { return };
        while let Some((file, start, bytes)) = reader.pop() {
            let found = &mut self.files[files[file]];
            let slot = RingSlot(u32::try_from(files[file]).expect("few slots"));
            let size = usize::try_from(BLOCK_BYTES).expect("a block is small");
            for (position, at) in (start..).step_by(size).zip((0..bytes.len() / size * size).step_by(size)) {
                let Ok(head) = EntryHead::parse(&bytes[at..at + size]) else { continue };
                if head.journal == self.config.id && u64::from(head.position.byte()) == position {
                    if found.sequence < Some(head.position.sequence()) {
                        // The first block is lost, or still another file's.
                        found.sequence = Some(head.position.sequence());
                        found.previous_crc = (position == 0).then_some(head.previous_crc);
                        found.durable = (position == 0).then_some(head.durable);
                    }
                    self.claims.on_head(&head, slot, &bytes.slice(at..at + size));
                }
            }
        }
        if !reader.is_empty() {
            return reader.issue(effects);
        }
        match self.next_to_survey() {
            Some(index) => self.survey_files(vec![index], effects),
            None => self.begin_replay(effects),
        }
    }

    /// The newest file; after it the file that was to be overwritten next, because a file may have been begun there whose
    /// first block never reached the disk. Its sequence must not be used again, what follows it must not be believed.
    fn next_to_survey(&self) -> Option<usize> {
        let known = |index: &usize| self.files[*index].sequence.is_some();
        let newest = (0..self.files.len()).filter(known).max_by_key(|index| self.files[*index].sequence);
        let stale = |index: &usize| {
            let file = &self.files[*index];
            file.sequence < Some(self.begin()) && file.length == Some(self.config.file_bytes)
        };
        let next = (0..self.files.len()).filter(known).filter(stale).min_by_key(|index| self.files[*index].sequence);
        [newest, next].into_iter().flatten().find(|index| !self.surveyed.contains(index))
    }

    /// The first file that is needed. One whose first entry names none before it was begun when nothing before it could
    /// be recovered.
    fn begin(&self) -> FileSequence {
        let unlinked = self.files.iter().filter(|file| file.previous_crc == Some(0)).filter_map(|file| file.sequence);
        unlinked.max().unwrap_or_default().max(self.claims.oldest)
    }

    /// The end of a file that may have been begun behind the newest that is known: in the slot that is used next, whose first
    /// block the disk refuses and where nothing else is of that file.
    fn hidden(&self) -> Option<JournalPosition> {
        let newest = self.files.iter().filter_map(|file| file.sequence).max()?;
        let free = self
            .files
            .iter()
            .filter(|file| file.length == Some(self.config.file_bytes) && file.sequence < Some(self.begin()));
        let oldest = free.clone().map(|file| file.sequence).min()?;
        let mut candidates = free.filter(|file| file.sequence.is_none() || file.sequence == oldest);
        let bytes = u32::try_from(self.config.file_bytes).expect("a file is shorter than 4 GiB");
        candidates.any(|file| file.fault.is_some()).then(|| JournalPosition::new(newest.next(), bytes))
    }

    fn begin_replay(&mut self, effects: &mut Effects) {
        let mut plan: Vec<PlannedFile> = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            if let (Some(sequence), Some(length)) = (file.sequence, file.length)
                && self.begin() <= sequence
            {
                let slot = RingSlot(u32::try_from(index).expect("few slots"));
                let (previous_crc, durable) = (file.previous_crc, file.durable);
                let is_refused = file.fault.is_some();
                plan.push(PlannedFile { slot, length, sequence, previous_crc, durable, is_refused });
            }
        }
        plan.sort_by_key(|file| (file.sequence, file.slot));
        plan.dedup_by_key(|file| file.sequence);
        let mut replay = Replay::new(self.config, plan, self.claims.clone(), self.hidden());
        replay.issue(effects);
        self.step = Step::Replaying(Box::new(replay));
    }

    fn begin_rewriting(&mut self, effects: &mut Effects) {
        let Step::Replaying(mut replay) = std::mem::replace(&mut self.step, Step::Done) else { return };
        replay.rewrite_claims(effects);
        self.step = Step::Rewriting(replay);
        self.end_rewriting(effects);
    }

    /// Syncs the files that were written to, once all of that is written: a sync covers what was complete before it.
    fn end_rewriting(&mut self, effects: &mut Effects) {
        if !matches!(&self.step, Step::Rewriting(replay) if replay.is_rewritten()) {
            return;
        }
        let Step::Rewriting(replay) = std::mem::replace(&mut self.step, Step::Done) else { return };
        let syncs = replay.rewritten_slots().map(|slot| (effects.push(slot, JournalOp::Sync), slot)).collect();
        self.step = Step::Syncing { replay, syncs };
        self.end_syncing();
    }

    fn end_syncing(&mut self) {
        let hidden = self.hidden();
        let Step::Syncing { replay, syncs } = &mut self.step else { return };
        if !syncs.is_empty() {
            return;
        }
        let newest = self.files.iter().filter_map(|file| file.sequence).max();
        let newest = hidden.map(JournalPosition::sequence).max(newest);
        let next = newest.map_or(FileSequence::FIRST, FileSequence::next);
        let plan = replay.files();
        let oldest = plan.first().map_or(next, |file| file.sequence);
        let found = self.files.iter().enumerate().map(|(index, file)| {
            let is_right_length = file.length == Some(self.config.file_bytes);
            match plan.iter().find(|planned| planned.slot.0 as usize == index) {
                Some(planned) => FoundSlot::Live { sequence: planned.sequence, is_right_length },
                None if is_right_length => FoundSlot::Ready { last: file.sequence },
                None => FoundSlot::Missing,
            }
        });
        let (found, previous_crc) = (found.collect(), replay.last_link());
        let report = RecoveryReport { next, oldest, ..replay.take_report() };
        let handover = Handover { found, next, oldest, previous_crc, end: report.end };
        self.result = Some((report, handover));
        self.step = Step::Done;
    }
}
