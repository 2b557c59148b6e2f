//! The ring of files: which slot holds which file, which may be written next, and how much room is left.

use corelane_model::MonotonicNanos;
use corelane_model::limits::{BLOCK_BYTES, JOURNAL_CREATE_RETRY};

use crate::effect::Effects;
use crate::{FileSequence, JournalIoId, JournalOp, JournalPosition, RingSlot};

/// Files that can be begun after a recovery. Every recovery begins a new file, so a broker that crashes again and again
/// before it settles anything would otherwise run out of them for good; the ring then grows beyond its size for a while.
const FREE_MIN: usize = 2;

/// What a slot of the ring is good for.
///
/// ```text
/// Missing ──create──▶ Creating ──done──▶ Ready ──begun──▶ Live ──no longer needed──▶ Ready
///    ▲                    │                                 ╰── of another length ──▶ Missing
///    ╰──── retry time ── Failed ◀── error                   ╰── beyond the ring ────▶ Retired
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    /// There is no file, or none of the right length.
    Missing,
    /// It is being filled with zeros.
    Creating(JournalIoId),
    /// It could not be created.
    Failed { retry_at: MonotonicNanos },
    /// A file of the right length that holds nothing needed; `last` is the file that lay there before.
    Ready { last: Option<FileSequence> },
    /// It holds this file.
    Live { sequence: FileSequence, is_right_length: bool },
    /// Beyond the configured ring: never used again.
    Retired,
}

/// What recovery found in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundSlot {
    /// No file, or one of another length that holds nothing needed.
    Missing,
    /// Right length, nothing needed; `last` is the file that lay there before.
    Ready { last: Option<FileSequence> },
    /// Holds a file that is needed until it is released.
    Live { sequence: FileSequence, is_right_length: bool },
}

/// The file that is written.
#[derive(Clone, Copy, Debug)]
struct Current {
    slot: RingSlot,
    sequence: FileSequence,
    at: u64,
}

/// Where an entry goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) slot: RingSlot,
    pub(crate) position: JournalPosition,
    /// The entry is its file's first.
    pub(crate) is_first: bool,
}

/// All slots of one journal.
#[derive(Debug)]
pub(crate) struct Ring {
    slots: Vec<SlotState>,
    files: usize,
    file_bytes: u64,
    current: Option<Current>,
    next: FileSequence,
    /// What the slots come to, counted when one of them changed: each append asks.
    count: Count,
}

/// How many slots are good for what.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Their files can be used, now or later.
    usable: u64,
    /// Nothing that is needed lies in them.
    free: u64,
}

impl Ring {
    /// The ring as recovery found it; `files` of the slots may be used, the next file is `next`.
    pub(crate) fn new(files: u32, file_bytes: u64, found: &[FoundSlot], next: FileSequence) -> Self {
        assert!(
            file_bytes.is_multiple_of(BLOCK_BYTES) && file_bytes <= u64::from(u32::MAX),
            "file of {file_bytes} bytes"
        );
        let files = files as usize;
        let mut slots: Vec<SlotState> = (0..found.len().max(files))
            .map(|index| match found.get(index) {
                Some(FoundSlot::Live { sequence, is_right_length }) => {
                    SlotState::Live { sequence: *sequence, is_right_length: *is_right_length }
                }
                _ if files <= index => SlotState::Retired,
                Some(FoundSlot::Ready { last }) => SlotState::Ready { last: *last },
                Some(FoundSlot::Missing) | None => SlotState::Missing,
            })
            .collect();
        while slots.iter().filter(|state| matches!(state, SlotState::Ready { .. } | SlotState::Missing)).count()
            < FREE_MIN
        {
            match slots.iter_mut().find(|state| **state == SlotState::Retired) {
                Some(retired) => *retired = SlotState::Missing,
                None => slots.push(SlotState::Missing),
            }
        }
        let mut ring = Self { slots, files, file_bytes, current: None, next, count: Count::default() };
        ring.count_slots();
        ring
    }

    /// To be called when slots have changed.
    fn count_slots(&mut self) {
        let is_usable = |state: &&SlotState| !matches!(state, SlotState::Failed { .. } | SlotState::Retired);
        let is_free =
            |state: &&SlotState| matches!(state, SlotState::Missing | SlotState::Creating(_) | SlotState::Ready { .. });
        self.count = Count {
            usable: self.slots.iter().take(self.files).filter(is_usable).count() as u64,
            free: self.slots.iter().filter(is_free).count() as u64,
        };
    }

    /// The file that is written, or the one that will be next when none was begun yet.
    pub(crate) fn current(&self) -> FileSequence {
        self.current.map_or(self.next, |current| current.sequence)
    }

    /// Takes room for an entry of `bytes` with its padding; begins the next file when it does not fit. `None`: no file
    /// is ready.
    pub(crate) fn place(&mut self, bytes: u64) -> Option<Place> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES) && bytes <= self.file_bytes, "entry of {bytes} bytes");
        if self.current.is_none_or(|current| self.file_bytes < current.at + bytes) {
            let index = self.next_ready()?;
            let sequence = self.next;
            self.next = sequence.next();
            self.slots[index] = SlotState::Live { sequence, is_right_length: true };
            self.count_slots();
            let slot = RingSlot(u32::try_from(index).expect("a ring has few slots"));
            self.current = Some(Current { slot, sequence, at: 0 });
        }
        let current = self.current.as_mut().expect("begun");
        let byte = u32::try_from(current.at).expect("a file is shorter than 4 GiB");
        current.at += bytes;
        let position = JournalPosition::new(current.sequence, byte);
        Some(Place { slot: current.slot, position, is_first: byte == 0 })
    }

    /// The slot that is written next: one never used, else the one whose file is the oldest. Recovery counts on this
    /// order: if the first block of a file that was begun never reached the disk, it knows where to look for the rest.
    fn next_ready(&self) -> Option<usize> {
        let ready = self.slots.iter().enumerate().filter_map(|(index, state)| match state {
            SlotState::Ready { last } => Some((*last, index)),
            _ => None,
        });
        ready.min().map(|(_, index)| index)
    }

    /// Keeps one file ready: creates the next when there is none, tries again what failed long enough ago.
    pub(crate) fn prepare(&mut self, now: MonotonicNanos, effects: &mut Effects) {
        for state in &mut self.slots {
            if matches!(state, SlotState::Failed { retry_at } if *retry_at <= now) {
                *state = SlotState::Missing;
            }
        }
        let is_ahead = self.slots.iter().any(|state| matches!(state, SlotState::Ready { .. } | SlotState::Creating(_)));
        let missing = self.slots.iter().position(|state| *state == SlotState::Missing);
        if let (false, Some(index)) = (is_ahead, missing) {
            let slot = RingSlot(u32::try_from(index).expect("a ring has few slots"));
            self.slots[index] = SlotState::Creating(effects.push(slot, JournalOp::Create { length: self.file_bytes }));
        }
        self.count_slots();
    }

    /// When [`Ring::prepare`] has something to try again.
    pub(crate) fn next_deadline(&self) -> Option<MonotonicNanos> {
        let retries = self.slots.iter().filter_map(|state| match state {
            SlotState::Failed { retry_at } => Some(*retry_at),
            _ => None,
        });
        retries.min()
    }

    /// A create completed. Returns whether it was one of ours.
    pub(crate) fn on_created(&mut self, now: MonotonicNanos, id: JournalIoId, is_ok: bool) -> bool {
        let Some(state) = self.slots.iter_mut().find(|state| **state == SlotState::Creating(id)) else { return false };
        let failed = SlotState::Failed { retry_at: now.after(JOURNAL_CREATE_RETRY) };
        *state = if is_ok { SlotState::Ready { last: None } } else { failed };
        // Where one file finds no space the others do not either: none of them counts as room until one succeeds.
        for state in &mut self.slots {
            match state {
                SlotState::Missing if !is_ok => *state = failed,
                SlotState::Failed { .. } if is_ok => *state = SlotState::Missing,
                _ => {}
            }
        }
        self.count_slots();
        true
    }

    /// Files before `oldest` may be overwritten. Returns how many became free by that.
    pub(crate) fn recycle(&mut self, oldest: FileSequence) -> u64 {
        assert!(oldest <= self.current(), "file {oldest} is called the oldest, {} is written", self.current());
        let mut recycled = 0;
        for (index, state) in self.slots.iter_mut().enumerate() {
            let SlotState::Live { sequence, is_right_length } = *state else { continue };
            if sequence < oldest {
                recycled += 1;
                *state = match (index < self.files, is_right_length) {
                    (false, _) => SlotState::Retired,
                    (true, false) => SlotState::Missing,
                    (true, true) => SlotState::Ready { last: Some(sequence) },
                };
            }
        }
        self.count_slots();
        recycled
    }

    /// Bytes that all usable files hold.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.file_bytes * self.count.usable
    }

    /// Bytes that can still be written before something must be recycled.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.file_bytes * self.count.free + self.rest_bytes()
    }

    /// Bytes left in the current file.
    fn rest_bytes(&self) -> u64 {
        self.current.map_or(0, |current| self.file_bytes - current.at)
    }

    /// [`Ring::left_bytes`] after an entry of `bytes`: what does not fit in the current file wastes its rest.
    pub(crate) fn left_after(&self, bytes: u64) -> Option<u64> {
        let rest = self.rest_bytes();
        let waste = if bytes <= rest { 0 } else { rest };
        self.left_bytes().checked_sub(bytes + waste)
    }
}
