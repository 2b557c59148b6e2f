//! Files in memory with what is written, what is durable, and crashes in between.

use std::collections::BTreeSet;

use bytes::Bytes;
use corelane_journal::{Fault, JournalDone, JournalEffect, JournalOp, JournalResult};

const BLOCK: usize = 4096;

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// A write that may still be lost.
#[derive(Clone, Debug)]
struct Unsynced {
    position: usize,
    bytes: Vec<u8>,
    /// The write was complete when some sync began: the number of that sync.
    serial: u64,
    /// A sync failed that was to make it durable: readers see it until power is lost, no later sync saves it.
    is_doomed: bool,
}

impl Unsynced {
    fn new(position: usize, bytes: Vec<u8>, serial: u64) -> Self {
        Self { position, bytes, serial, is_doomed: false }
    }

    fn end(&self) -> usize {
        self.position + self.bytes.len()
    }

    /// What is left of it when `later` came over it.
    fn without(self, later: &Self) -> Vec<Self> {
        if later.end() <= self.position || self.end() <= later.position {
            return vec![self];
        }
        let before = self.bytes[..later.position.saturating_sub(self.position)].to_vec();
        let after = self.bytes[later.end().min(self.end()) - self.position..].to_vec();
        let after = Self { position: later.end(), bytes: after, ..self };
        let parts = [Self { bytes: before, ..self }, after];
        parts.into_iter().filter(|part| !part.bytes.is_empty()).collect()
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
}

impl File {
    fn zeroed(length: usize) -> Self {
        Self { durable: vec![0; length], unsynced: Vec::new() }
    }

    /// What a reader sees.
    fn view(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for write in &self.unsynced {
            bytes[write.position..write.end()].copy_from_slice(&write.bytes);
        }
        bytes
    }

    /// A sync that was issued then completes.
    fn sync(&mut self, issued: u64) {
        let saved: Vec<Unsynced> =
            self.unsynced.extract_if(.., |write| write.serial < issued && !write.is_doomed).collect();
        for write in saved {
            self.durable[write.position..write.end()].copy_from_slice(&write.bytes);
            let kept = std::mem::take(&mut self.unsynced);
            self.unsynced = kept
                .into_iter()
                .flat_map(|other| if other.serial < write.serial { other.without(&write) } else { vec![other] })
                .collect();
        }
    }

    /// A sync that was issued then fails: the kernel takes what it was to save for clean from now on.
    fn doom(&mut self, issued: u64) {
        self.unsynced.iter_mut().filter(|write| write.serial < issued).for_each(|write| write.is_doomed = true);
    }
}

/// What a power failure does to a block that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process dies: completed writes stay as they are seen, those in flight may be there in parts.
    Process,
    /// The machine dies: of everything unsynced each half block may or may not be there, of what a sync failed to save none is.
    Machine,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: Vec<Option<File>>,
    /// Slots and blocks that cannot be read.
    pub(crate) refused: BTreeSet<(u32, usize)>,
    serial: u64,
    in_flight: Vec<(JournalEffect, u64)>,
}

impl Disk {
    pub(crate) fn issue(&mut self, effect: JournalEffect) {
        if let JournalOp::Write { position, .. } = &effect.op {
            assert!(position.is_multiple_of(4096));
            assert!(effect.op.write_bytes().is_multiple_of(4096));
        }
        self.serial += 1;
        self.in_flight.push((effect, self.serial));
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn file(&mut self, slot: u32) -> &mut Option<File> {
        let slot = slot as usize;
        if self.files.len() <= slot {
            self.files.resize(slot + 1, None);
        }
        &mut self.files[slot]
    }

    /// Completes one effect in flight.
    pub(crate) fn complete(&mut self, index: usize) -> (JournalEffect, JournalResult) {
        let (effect, issued) = self.in_flight.remove(index);
        self.serial += 1;
        let serial = self.serial;
        if let JournalOp::Read { position, length } = &effect.op {
            let start = usize::try_from(*position).unwrap() / BLOCK;
            let blocks = start..start + *length as usize / BLOCK;
            if blocks.into_iter().any(|block| self.refused.contains(&(effect.slot.0, block))) {
                return (effect, Err(Fault::Os { errno: 5 }));
            }
        }
        let file = self.file(effect.slot.0);
        let result = match (&effect.op, file.as_mut()) {
            (JournalOp::Create { length }, _) => {
                *file = Some(File::zeroed(usize::try_from(*length).unwrap()));
                JournalDone::Done
            }
            (JournalOp::Length, file) => JournalDone::Length(file.map(|file| file.durable.len() as u64)),
            (_, None) => return (effect, Err(Fault::NotFound)),
            (JournalOp::Write { position, pieces }, Some(file)) => {
                let position = usize::try_from(*position).unwrap();
                file.unsynced.push(Unsynced::new(position, pieces.concat(), serial));
                JournalDone::Written(effect.op.write_bytes())
            }
            (JournalOp::Sync, Some(file)) => {
                file.sync(issued);
                JournalDone::Done
            }
            (JournalOp::Read { position, length }, Some(file)) => {
                let bytes = file.view();
                let start = usize::try_from(*position).unwrap().min(bytes.len());
                let end = (start + *length as usize).min(bytes.len());
                JournalDone::Read(Bytes::from(bytes).slice(start..end))
            }
        };
        (effect, Ok(result))
    }

    /// Completes a write of which only the first half reached the file, and says so.
    pub(crate) fn complete_short(&mut self, index: usize) -> (JournalEffect, JournalResult) {
        let (effect, _) = &mut self.in_flight[index];
        let JournalOp::Write { pieces, .. } = &mut effect.op else { return self.complete(index) };
        let whole = Bytes::from(pieces.concat());
        let half = whole.len() / 2 / 512 * 512;
        *pieces = vec![whole.slice(..half)];
        self.complete(index)
    }

    /// Fails an effect. A sync that fails has lost what it was to make durable, and reads go on showing it.
    pub(crate) fn fail(&mut self, index: usize) -> (JournalEffect, JournalResult) {
        let (effect, issued) = self.in_flight.remove(index);
        if effect.op == JournalOp::Sync
            && let Some(file) = self.file(effect.slot.0)
        {
            file.doom(issued);
        }
        (effect, Err(Fault::Os { errno: 5 }))
    }

    /// Index of an effect in flight for which `is_wanted` holds.
    pub(crate) fn find(&self, is_wanted: impl Fn(&JournalOp) -> bool) -> Option<usize> {
        self.in_flight.iter().position(|(effect, _)| is_wanted(&effect.op))
    }

    /// How many effects are in flight for which `is_wanted` holds.
    pub(crate) fn count(&self, is_wanted: impl Fn(&JournalOp) -> bool) -> usize {
        self.in_flight.iter().filter(|(effect, _)| is_wanted(&effect.op)).count()
    }

    pub(crate) fn crash(&mut self, crash: Crash, chance: &mut Chance) {
        let in_flight: Vec<(JournalEffect, u64)> = self.in_flight.drain(..).collect();
        for (effect, _) in in_flight {
            self.serial += 1;
            let serial = self.serial;
            match (&effect.op, self.file(effect.slot.0)) {
                (JournalOp::Write { position, pieces }, Some(file)) => {
                    let position = usize::try_from(*position).unwrap();
                    let bytes = pieces.concat();
                    for (index, part) in bytes.chunks(BLOCK / 2).enumerate() {
                        if chance.below(2) == 0 {
                            let position = position + index * BLOCK / 2;
                            file.unsynced.push(Unsynced::new(position, part.to_vec(), serial));
                        }
                    }
                }
                (JournalOp::Create { length }, file) if chance.below(2) == 0 => {
                    // The file is there, but not all of it.
                    let length = usize::try_from(*length).unwrap() / 2;
                    *file = Some(File::zeroed(length));
                }
                _ => {}
            }
        }
        if crash == Crash::Machine {
            for file in self.files.iter_mut().flatten() {
                for write in file.unsynced.drain(..).filter(|write| !write.is_doomed) {
                    for (index, part) in write.bytes.chunks(BLOCK / 2).enumerate() {
                        if chance.below(3) != 0 {
                            let start = write.position + index * BLOCK / 2;
                            file.durable[start..start + part.len()].copy_from_slice(part);
                        }
                    }
                }
            }
        }
    }

    /// Everything that was written, as if it were durable.
    pub(crate) fn images(&self) -> Vec<Option<Bytes>> {
        self.files.iter().map(|file| file.as_ref().map(|file| Bytes::from(file.view()))).collect()
    }

    /// Flips one bit of what is durable, if there is such a file and it is so long.
    pub(crate) fn flip(&mut self, slot: u32, byte: usize) {
        if let Some(hit) = self.file(slot).as_mut().and_then(|file| file.durable.get_mut(byte)) {
            *hit ^= 1 << (byte % 8);
        }
    }

    /// Puts these bytes over what is durable.
    pub(crate) fn overwrite(&mut self, slot: u32, at: usize, bytes: &[u8]) {
        self.file(slot).as_mut().unwrap().durable[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
