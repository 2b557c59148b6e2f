//! A disk in memory that does to file effects what real ones may do: completes them in any order, tears writes that
//! were not synced, brings deleted files back, runs full, fails.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::limits::BLOCK_BYTES;
use corelane_storage::{FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome};

use crate::chance::Chance;

/// What a torn write keeps or loses together.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    /// What a reader sees.
    current: Vec<u8>,
    /// What a crash leaves for sure.
    durable: Vec<u8>,
    /// Writes that completed, by their number, and are not covered by a sync that completed.
    unsynced: BTreeMap<u64, (usize, Vec<u8>)>,
    /// A file that was made anew has a new identity: a sync of the old one says nothing about it.
    identity: u64,
}

/// What the disk is to do wrong, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Bytes of all files together, beyond which there is no space.
    pub(crate) capacity: Option<u64>,
    /// Writes of segments that fail, in a thousand.
    pub(crate) segment_write_permille: u64,
    /// Syncs of segments that fail, in a thousand: what they covered is lost at once.
    pub(crate) segment_sync_permille: u64,
    /// Short writes of segments, in a thousand.
    pub(crate) segment_short_permille: u64,
    /// The next sync of the journal fails.
    pub(crate) journal_sync: bool,
}

/// An effect on its way.
#[derive(Debug)]
struct Pending {
    effect: FileEffect,
    /// For a sync: the writes that it covers, and the identity of the file.
    covers: Option<(u64, u64)>,
}

/// The disk of one shard.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<FileName, File>,
    deleted: BTreeMap<FileName, File>,
    pending: Vec<Pending>,
    numbers: u64,
    pub(crate) faults: Faults,
    pub(crate) max_syncs_in_flight: usize,
    pub(crate) reads: u64,
}

impl Disk {
    /// Takes an effect; it happens at some later [`Disk::complete_one`].
    pub(crate) fn submit(&mut self, effect: FileEffect) {
        let covers = match effect.op {
            FileOp::Sync => {
                let file = self.files.get(&effect.file).unwrap_or_else(|| panic!("sync of missing {:?}", effect.file));
                Some((self.numbers, file.identity))
            }
            _ => None,
        };
        self.pending.push(Pending { effect, covers });
        let syncs = self.pending.iter().filter(|pending| is_segment_sync(&pending.effect)).count();
        self.max_syncs_in_flight = self.max_syncs_in_flight.max(syncs);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Lets one effect happen, any of those on their way.
    pub(crate) fn complete_one(&mut self, chance: &mut Chance) -> Option<FileDone> {
        if self.pending.is_empty() {
            return None;
        }
        let pending = self.pending.swap_remove(chance.place(self.pending.len()));
        let id = pending.effect.id;
        Some(FileDone { id, result: self.happen(pending, chance) })
    }

    fn happen(&mut self, pending: Pending, chance: &mut Chance) -> Result<FileOutcome, FileError> {
        let FileEffect { file: name, op, .. } = pending.effect;
        let is_segment = matches!(name, FileName::Segment { .. });
        match op {
            FileOp::CreateZeroed { length } => {
                let freed = self.files.get(&name).map_or(0, |file| file.current.len() as u64);
                if self.faults.capacity.is_some_and(|capacity| capacity < self.used() - freed + length) {
                    return Err(FileError::NoSpace);
                }
                let zeros = vec![0; usize::try_from(length).expect("fits")];
                self.make(name, zeros);
                Ok(FileOutcome::Done)
            }
            FileOp::CreateEmpty => {
                if !self.files.contains_key(&name) {
                    self.make(name, Vec::new());
                }
                Ok(FileOutcome::Done)
            }
            FileOp::Write { position, pieces } => {
                let bytes = pieces.concat();
                assert!(position.is_multiple_of(BLOCK_BYTES) && (bytes.len() as u64).is_multiple_of(BLOCK_BYTES));
                if is_segment && chance.permille(self.faults.segment_write_permille) {
                    return Err(FileError::Os { errno: 5 });
                }
                self.write(name, position, bytes, chance)
            }
            FileOp::Sync => {
                let (number, identity) = pending.covers.expect("a sync knows what it covers");
                if is_segment && chance.permille(self.faults.segment_sync_permille) {
                    self.lose_unsynced(name);
                    return Err(FileError::Os { errno: 5 });
                }
                if !is_segment && std::mem::take(&mut self.faults.journal_sync) {
                    self.lose_unsynced(name);
                    return Err(FileError::Os { errno: 5 });
                }
                self.sync(name, number, identity);
                Ok(FileOutcome::Done)
            }
            FileOp::Read { position, length } => {
                assert!(position.is_multiple_of(BLOCK_BYTES) && u64::from(length).is_multiple_of(BLOCK_BYTES));
                self.reads += 1;
                let Some(file) = self.files.get(&name) else { return Err(FileError::NotFound) };
                let start = usize::try_from(position).expect("fits").min(file.current.len());
                let end = (start + length as usize).min(file.current.len());
                Ok(FileOutcome::Read(Bytes::copy_from_slice(&file.current[start..end])))
            }
            FileOp::Delete => {
                if let Some(file) = self.files.remove(&name) {
                    self.deleted.insert(name, file);
                }
                Ok(FileOutcome::Done)
            }
            FileOp::Length => Ok(FileOutcome::Length(self.files.get(&name).map(|file| file.current.len() as u64))),
        }
    }

    fn make(&mut self, name: FileName, bytes: Vec<u8>) {
        self.numbers += 1;
        let file = File { current: bytes.clone(), durable: bytes, unsynced: BTreeMap::new(), identity: self.numbers };
        self.deleted.remove(&name);
        self.files.insert(name, file);
    }

    fn write(
        &mut self,
        name: FileName,
        position: u64,
        mut bytes: Vec<u8>,
        chance: &mut Chance,
    ) -> Result<FileOutcome, FileError> {
        let is_segment = matches!(name, FileName::Segment { .. });
        let used = self.used();
        let Some(file) = self.files.get_mut(&name) else { return Err(FileError::NotFound) };
        let start = usize::try_from(position).expect("fits");
        if let Some(capacity) = self.faults.capacity {
            let grows = (start + bytes.len()).saturating_sub(file.current.len()) as u64;
            if capacity < used + grows {
                let fits = usize::try_from(capacity.saturating_sub(used) / BLOCK_BYTES * BLOCK_BYTES).expect("fits");
                if fits == 0 || bytes.len() <= fits {
                    return Err(FileError::NoSpace);
                }
                bytes.truncate(fits);
            }
        }
        if is_segment && 4096 < bytes.len() && chance.permille(self.faults.segment_short_permille) {
            bytes.truncate(4096);
        }
        put(&mut file.current, start, &bytes);
        let written = bytes.len() as u64;
        self.numbers += 1;
        file.unsynced.insert(self.numbers, (start, bytes));
        Ok(FileOutcome::Written(written))
    }

    fn sync(&mut self, name: FileName, until: u64, identity: u64) {
        let Some(file) = self.files.get_mut(&name).filter(|file| file.identity == identity) else { return };
        let rest = file.unsynced.split_off(&(until + 1));
        for (start, bytes) in std::mem::replace(&mut file.unsynced, rest).into_values() {
            put(&mut file.durable, start, &bytes);
        }
    }

    /// A failed sync drops the pages and marks them clean, as kernels do.
    fn lose_unsynced(&mut self, name: FileName) {
        if let Some(file) = self.files.get_mut(&name) {
            file.unsynced.clear();
            file.current = file.durable.clone();
        }
    }

    /// Cuts the power: what was synced stays, of the rest any sectors; effects on their way may have happened in part;
    /// a deleted file may be back.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        for pending in std::mem::take(&mut self.pending) {
            if matches!(pending.effect.op, FileOp::Read { .. } | FileOp::Sync | FileOp::Length) || chance.permille(500)
            {
                continue;
            }
            drop(self.happen(pending, chance));
        }
        for file in self.files.values_mut() {
            for (start, bytes) in std::mem::take(&mut file.unsynced).into_values() {
                for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if chance.permille(500) {
                        put(&mut file.durable, start + index * SECTOR_BYTES, sector);
                    }
                }
            }
            file.current = file.durable.clone();
        }
        for (name, mut file) in std::mem::take(&mut self.deleted) {
            if chance.permille(300) && !self.files.contains_key(&name) {
                file.current = file.durable.clone();
                file.unsynced.clear();
                self.files.insert(name, file);
            }
        }
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> u64 {
        self.files.values().map(|file| file.current.len() as u64).sum()
    }

    /// How many files the journal's ring has.
    pub(crate) fn journal_files(&self) -> usize {
        self.files.keys().filter(|name| matches!(name, FileName::Journal { .. })).count()
    }

    /// Names of the segment files.
    pub(crate) fn segments(&self) -> Vec<FileName> {
        self.files.keys().filter(|name| matches!(name, FileName::Segment { .. })).copied().collect()
    }

    /// Flips a bit of a file, on disk and in sight.
    pub(crate) fn flip(&mut self, name: FileName, byte: usize) {
        let file = self.files.get_mut(&name).expect("the file is there");
        file.current[byte] ^= 1;
        file.durable[byte] ^= 1;
    }

    /// Length of a file.
    pub(crate) fn length(&self, name: FileName) -> usize {
        self.files[&name].current.len()
    }

    /// Removes all files of the journal, as for a new layout.
    pub(crate) fn remove_journals(&mut self) {
        self.files.retain(|name, _| !matches!(name, FileName::Journal { .. }));
    }
}

fn is_segment_sync(effect: &FileEffect) -> bool {
    matches!((&effect.file, &effect.op), (FileName::Segment { .. }, FileOp::Sync))
}

fn put(file: &mut Vec<u8>, start: usize, bytes: &[u8]) {
    if file.len() < start + bytes.len() {
        file.resize(start + bytes.len(), 0);
    }
    file[start..start + bytes.len()].copy_from_slice(bytes);
}
