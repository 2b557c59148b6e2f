//! Files that stay open.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use corelane_storage::FileName;
use glommio::io::DmaFile;
use glommio::sync::{Permit, Semaphore};

/// Segments of one shard that stay open; the journal's files always do.
const HANDLES_MAX: usize = 1024;
/// Handles given up at a time when there are too many, so that the search for the oldest is rare.
const SURPLUS: usize = 128;

/// One file's place in the cache.
pub(super) struct Slot {
    file: RefCell<Option<Rc<DmaFile>>>,
    turn: Semaphore,
    used: Cell<u64>,
}

impl Slot {
    /// The file, when it is open.
    pub(super) fn file(&self) -> Option<Rc<DmaFile>> {
        self.file.borrow().clone()
    }

    pub(super) fn fill(&self, file: DmaFile) -> Rc<DmaFile> {
        let file = Rc::new(file);
        *self.file.borrow_mut() = Some(Rc::clone(&file));
        file
    }

    pub(super) fn empty(&self) -> Option<Rc<DmaFile>> {
        self.file.borrow_mut().take()
    }

    /// Waits for the right to open, create or delete: one at a time.
    pub(super) async fn turn(&self) -> Permit<'_> {
        self.turn.acquire_permit(1).await.expect("the semaphore is never closed")
    }
}

/// All files that are open or being opened.
#[derive(Default)]
pub(super) struct Handles {
    slots: BTreeMap<FileName, Rc<Slot>>,
    clock: u64,
}

impl Handles {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The file's slot, made when it has none.
    pub(super) fn slot(&mut self, name: FileName) -> Rc<Slot> {
        self.clock += 1;
        let slot = self
            .slots
            .entry(name)
            .or_insert_with(|| Rc::new(Slot { file: RefCell::new(None), turn: Semaphore::new(1), used: Cell::new(0) }));
        slot.used.set(self.clock);
        Rc::clone(slot)
    }

    pub(super) fn forget(&mut self, name: FileName) {
        self.slots.remove(&name);
    }

    /// Takes out all files.
    pub(super) fn take_all(&mut self) -> Vec<Rc<DmaFile>> {
        std::mem::take(&mut self.slots).into_values().filter_map(|slot| slot.empty()).collect()
    }

    /// Takes out the segments that were not used for longest, when there are too many.
    pub(super) fn take_surplus(&mut self) -> Vec<Rc<DmaFile>> {
        if self.slots.len() <= HANDLES_MAX {
            return Vec::new();
        }
        let mut idle: Vec<(u64, FileName)> = self
            .slots
            .iter()
            .filter(|(name, slot)| matches!(name, FileName::Segment { .. }) && Rc::strong_count(slot) == 1)
            .map(|(name, slot)| (slot.used.get(), *name))
            .collect();
        idle.sort_unstable();
        idle.into_iter().take(SURPLUS).filter_map(|(_, name)| self.slots.remove(&name)?.empty()).collect()
    }
}
