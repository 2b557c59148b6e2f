//! The checkpoint: everything a shard must know beside its unsettled batches, fed in over as many rounds as it takes.

use crate::entry::EntryFlags;
use crate::{FileSequence, JournalPosition};

/// Where the checkpoint is.
///
/// ```text
///            a file begins                  owner finishes                  durable
/// Idle ───────────────────────▶ Open ───────────────────────▶ Closing ──────────────────▶ Idle
///  ▲                                                                                       │
///  └───── the current file is a later one than the checkpoint's, and enough is new: Open ◀──┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// None is wanted.
    Idle,
    /// The owner feeds it. `begin` is the file where its first part lies, once that is known.
    Open { begin: Option<FileSequence>, parts: u16, is_last_added: bool },
    /// All parts are in entries; it is good when everything before `end` is durable.
    Closing { begin: FileSequence, end: JournalPosition },
}

/// The running checkpoint and the complete ones.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    phase: Phase,
    /// Files that recovery may begin with, ascending; the first is the one it begins with now.
    complete: Vec<FileSequence>,
    /// Bytes of the items of the running checkpoint, and of the last whole one.
    bytes: u64,
    bytes_last: u64,
    /// Bytes of other items since the last checkpoint began.
    others: u64,
}

/// From this fill on, in per mille, a checkpoint does not wait until there is much news: files are to become free.
const EARLY_PRESSURE: u32 = 500;

impl Checkpoint {
    /// Recovery may begin with `oldest`; a checkpoint is wanted now.
    pub(crate) fn new(oldest: FileSequence) -> Self {
        let phase = Phase::Open { begin: None, parts: 0, is_last_added: false };
        Self { phase, complete: vec![oldest], bytes: 0, bytes_last: 0, others: 0 }
    }

    /// Whether the owner may add items.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { is_last_added: false, .. })
    }

    /// What a checkpoint takes, by the last one and the running one.
    pub(crate) fn expected_bytes(&self) -> u64 {
        self.bytes.max(self.bytes_last)
    }

    pub(crate) fn on_item(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// The owner has added the last item.
    pub(crate) fn finish(&mut self) {
        let Phase::Open { is_last_added, .. } = &mut self.phase else { panic!("no checkpoint is open") };
        assert!(!*is_last_added, "the checkpoint is finished already");
        *is_last_added = true;
    }

    /// An item that is no part of a checkpoint was added.
    pub(crate) fn on_other(&mut self, bytes: u64) {
        self.others += bytes;
    }

    /// The file `current` is written and the ring is so full. Returns whether a checkpoint is wanted from now on.
    ///
    /// One that is longer than a file ends in a later file than it began in. That alone is no reason for the next, or an
    /// idle journal would go on for ever: there must be as much news as a checkpoint costs.
    pub(crate) fn is_wanted(&mut self, current: FileSequence, file_bytes: u64, pressure: impl Fn() -> u32) -> bool {
        if self.phase != Phase::Idle || current <= *self.complete.last().expect("never empty") {
            return false;
        }
        let is_worth = self.bytes_last.min(file_bytes) <= self.others;
        let wanted = is_worth || (0 < self.others && EARLY_PRESSURE <= pressure());
        if wanted {
            self.open();
        }
        wanted
    }

    fn open(&mut self) {
        self.phase = Phase::Open { begin: None, parts: 0, is_last_added: false };
        self.bytes = 0;
        self.others = 0;
    }

    /// An entry with a part of the checkpoint is about to be closed in file `sequence`, with the exclusive end `end`.
    /// Returns its flags and the number of the part.
    pub(crate) fn on_part(&mut self, sequence: FileSequence, end: JournalPosition) -> (EntryFlags, u16) {
        let Phase::Open { begin, parts, is_last_added } = &mut self.phase else { panic!("no checkpoint is open") };
        let mut flags = EntryFlags::CHECKPOINT;
        if begin.is_none() {
            flags = flags.with(EntryFlags::CHECKPOINT_FIRST);
        }
        let begin = *begin.get_or_insert(sequence);
        let part = *parts;
        *parts = parts.wrapping_add(1);
        if *is_last_added {
            flags = flags.with(EntryFlags::CHECKPOINT_LAST);
            self.phase = Phase::Closing { begin, end };
        }
        (flags, part)
    }

    /// Everything before `durable` is on disk. Returns whether a checkpoint is complete now.
    pub(crate) fn on_durable(&mut self, durable: JournalPosition) -> bool {
        let Phase::Closing { begin, end } = self.phase else { return false };
        if durable < end {
            return false;
        }
        if *self.complete.last().expect("never empty") < begin {
            self.complete.push(begin);
        }
        self.bytes_last = self.bytes;
        self.phase = Phase::Idle;
        true
    }

    /// The file that recovery has to begin with when nothing before `released` is needed.
    pub(crate) fn oldest(&self, released: FileSequence) -> FileSequence {
        let passed = self.complete.iter().rev().find(|begin| **begin <= released);
        *passed.unwrap_or(&self.complete[0])
    }

    /// Recovery will not begin before `oldest` any more.
    pub(crate) fn forget_before(&mut self, oldest: FileSequence) {
        let passed = self.complete.iter().filter(|begin| **begin < oldest).count();
        self.complete.drain(..passed);
        assert!(!self.complete.is_empty(), "no checkpoint is left from file {oldest} on");
    }
}
