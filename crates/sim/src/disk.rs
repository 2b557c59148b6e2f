//! One shard's disk: files with what a reader sees and what a crash would leave.
//!
//! A write becomes readable when it completes and safe when a sync that was *issued* after that completes. What is not
//! safe at a crash is lost, kept or torn, sector by sector; a write in flight likewise. A failed sync leaves what it
//! should have saved readable but lost for good, and the next sync succeeds without it, as on Linux.

mod file;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelane_journal::EntryHead;
use corelane_model::{MonotonicNanos, limits};
use corelane_storage::{FileDone, FileEffect, FileError, FileName, FileOp, FileOutcome, IoId};

use self::file::File;
use crate::Random;
use crate::scenario::DiskFaults;

/// A deleted file may come back in a crash within this time, because nobody syncs its directory.
const DELETE_SETTLES: Duration = Duration::from_secs(5);

/// The errno of an input/output error.
const EIO: i32 = 5;

/// An effect that was issued and has not completed.
#[derive(Debug)]
struct InFlight {
    effect: FileEffect,
    /// For a sync: the blocks that it will save, as they were when it was issued.
    covers: file::Cover,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    random: Random,
    faults: DiskFaults,
    files: BTreeMap<FileName, File>,
    deleted: BTreeMap<FileName, (MonotonicNanos, File)>,
    in_flight: BTreeMap<IoId, InFlight>,
    is_full: bool,
    is_slow: bool,
}

/// What the disk did beyond the ordinary, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Fewer bytes were written than asked.
    ShortWrite,
    /// A write failed.
    WriteFailed,
    /// A sync failed.
    SyncFailed,
    /// There was no space.
    NoSpace,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub const fn new(random: Random, faults: DiskFaults) -> Self {
        Self {
            random,
            faults,
            files: BTreeMap::new(),
            deleted: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            is_full: false,
            is_slow: false,
        }
    }

    /// Whether there is room for new blocks from now on.
    pub const fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Whether everything takes long from now on.
    pub const fn set_slow(&mut self, is_slow: bool) {
        self.is_slow = is_slow;
    }

    /// From now on nothing fails.
    pub fn heal(&mut self) {
        self.faults = DiskFaults::default();
        self.is_full = false;
        self.is_slow = false;
    }

    /// What a crash may lose or tear from now on; nothing else fails.
    pub const fn set_crash_faults(&mut self, faults: DiskFaults) {
        self.faults.is_losing = faults.is_losing;
        self.faults.is_tearing = faults.is_tearing;
    }

    /// Takes an effect; says after which time [`Self::complete`] is to be called with its id.
    pub fn issue(&mut self, effect: FileEffect) -> (IoId, Duration) {
        let id = effect.id;
        let covers = match &effect.op {
            FileOp::Sync => self.files.get(&effect.file).map(File::cover).unwrap_or_default(),
            _ => file::Cover::default(),
        };
        let delay = self.delay(&effect.op);
        let previous = self.in_flight.insert(id, InFlight { effect, covers });
        assert!(previous.is_none(), "io id {} is in flight twice", id.0);
        (id, delay)
    }

    /// Carries an effect out and says what it came to, or nothing if it is unknown (it was cut off by a crash).
    pub fn complete(&mut self, now: MonotonicNanos, id: IoId) -> Option<(FileDone, Option<DiskFault>)> {
        let InFlight { effect, covers } = self.in_flight.remove(&id)?;
        let (result, fault) = self.carry_out(now, effect, covers);
        Some((FileDone { id, result }, fault))
    }

    /// The process is gone: what completed is seen as before, safe or not, and of what was in flight some is.
    pub fn kill(&mut self, now: MonotonicNanos) {
        for (_, InFlight { effect, .. }) in std::mem::take(&mut self.in_flight) {
            self.carry_out_half(now, effect);
        }
    }

    /// Power is gone: what is not safe is lost, kept or torn.
    pub fn crash(&mut self, now: MonotonicNanos) {
        self.kill(now);
        let (random, faults) = (&mut self.random, self.faults);
        for file in self.files.values_mut() {
            file.crash(random, faults);
        }
        for (name, (since, mut file)) in std::mem::take(&mut self.deleted) {
            let is_settled = DELETE_SETTLES <= now.since(since);
            if !is_settled && faults.is_losing && random.is_one_in(2) {
                file.crash(random, faults);
                self.files.entry(name).or_insert(file);
            }
        }
    }

    /// Flips a bit in one segment, if there is one: says in which file and where.
    pub fn rot(&mut self) -> Option<(FileName, u64)> {
        let segments = self.files.keys().filter(|name| matches!(name, FileName::Segment { .. }));
        let segments = segments.copied().collect::<Vec<_>>();
        let name = *segments.get(self.random.index(segments.len().max(1)))?;
        let at = self.files.get_mut(&name)?.rot(&mut self.random)?;
        Some((name, at))
    }

    /// How many journal entries of the present use of their file there are at most. What an earlier use left behind has
    /// a smaller file sequence and does not count.
    #[must_use]
    pub fn journal_entries(&self) -> u64 {
        let journals = self.files.iter().filter(|(name, _)| matches!(name, FileName::Journal { .. }));
        let counts = journals.map(|(_, file)| {
            let heads = file.blocks().filter_map(|(at, block)| EntryHead::parse(block).ok().map(|head| (at, head)));
            let in_place = heads.filter(|(at, head)| u64::from(head.position.byte()) == *at);
            let sequences = in_place.map(|(_, head)| head.position.sequence()).collect::<Vec<_>>();
            let newest = sequences.iter().max();
            sequences.iter().filter(|sequence| Some(*sequence) == newest).count() as u64
        });
        counts.sum()
    }

    /// The program ended by itself: what completed is there, in cache or on the platter. Reads may be cut off.
    pub fn stop(&mut self) {
        for (_, InFlight { effect, .. }) in std::mem::take(&mut self.in_flight) {
            let is_read = matches!(effect.op, FileOp::Read { .. });
            assert!(is_read, "a clean stop leaves {:?} of {:?} in flight", effect.op, effect.file);
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(File::length).sum()
    }

    /// Every file with its length.
    pub fn files(&self) -> impl Iterator<Item = (FileName, u64)> {
        self.files.iter().map(|(name, file)| (*name, file.length()))
    }

    fn delay(&mut self, op: &FileOp) -> Duration {
        let micros = match op {
            FileOp::Write { .. } | FileOp::Read { .. } => self.random.skewed(20..600),
            FileOp::Sync => self.random.skewed(30..1500),
            FileOp::CreateZeroed { .. } => self.random.skewed(200..8000),
            FileOp::CreateEmpty | FileOp::Delete => self.random.skewed(50..2000),
            FileOp::Length => self.random.skewed(5..100),
        };
        let factor = if self.is_slow { self.random.within(20..200) } else { 1 };
        Duration::from_micros(micros * factor)
    }

    fn carry_out(
        &mut self,
        now: MonotonicNanos,
        effect: FileEffect,
        covers: file::Cover,
    ) -> (Result<FileOutcome, FileError>, Option<DiskFault>) {
        let name = effect.file;
        match effect.op {
            FileOp::CreateZeroed { length } => {
                assert!(length.is_multiple_of(limits::BLOCK_BYTES), "length {length} is no multiple of the block");
                if self.is_full && self.files.get(&name).is_none_or(|file| file.length() < length) {
                    return (Err(FileError::NoSpace), Some(DiskFault::NoSpace));
                }
                self.deleted.remove(&name);
                self.files.insert(name, File::zeroed(length));
                (Ok(FileOutcome::Done), None)
            }
            FileOp::CreateEmpty => {
                if self.is_full && !self.files.contains_key(&name) {
                    return (Err(FileError::NoSpace), Some(DiskFault::NoSpace));
                }
                self.deleted.remove(&name);
                self.files.entry(name).or_insert_with(|| File::zeroed(0));
                (Ok(FileOutcome::Done), None)
            }
            FileOp::Write { position, pieces } => self.write(name, position, &pieces),
            FileOp::Sync => self.sync(name, covers),
            FileOp::Read { position, length } => {
                assert!(position.is_multiple_of(limits::BLOCK_BYTES), "read at {position} is not aligned");
                assert!(u64::from(length).is_multiple_of(limits::BLOCK_BYTES), "read of {length} is not aligned");
                let file = self.files.get(&name).ok_or(FileError::NotFound);
                (file.map(|file| FileOutcome::Read(file.read(position, length))), None)
            }
            FileOp::Delete => {
                if let Some(file) = self.files.remove(&name) {
                    self.deleted.insert(name, (now, file));
                }
                (Ok(FileOutcome::Done), None)
            }
            FileOp::Length => (Ok(FileOutcome::Length(self.files.get(&name).map(File::length))), None),
        }
    }

    fn write(
        &mut self,
        name: FileName,
        position: u64,
        pieces: &[Bytes],
    ) -> (Result<FileOutcome, FileError>, Option<DiskFault>) {
        let mut bytes = pieces.concat();
        assert!(position.is_multiple_of(limits::BLOCK_BYTES), "write at {position} is not aligned");
        assert!((bytes.len() as u64).is_multiple_of(limits::BLOCK_BYTES), "write of {} is not aligned", bytes.len());
        let Some(file) = self.files.get_mut(&name) else { return (Err(FileError::NotFound), None) };
        if self.is_full && file.length() < position + bytes.len() as u64 {
            return (Err(FileError::NoSpace), Some(DiskFault::NoSpace));
        }
        let fault = if self.random.is_one_in(self.faults.short_write_rarity) {
            let sectors = bytes.len() as u64 / file::SECTOR_BYTES;
            let kept = self.random.within(0..sectors) * file::SECTOR_BYTES;
            bytes.truncate(usize::try_from(kept).expect("a write fits in memory"));
            Some(DiskFault::ShortWrite)
        } else if self.random.is_one_in(self.faults.write_error_rarity) {
            Some(DiskFault::WriteFailed)
        } else {
            None
        };
        file.write(position, &bytes);
        if fault == Some(DiskFault::WriteFailed) {
            return (Err(FileError::Os { errno: EIO }), fault);
        }
        (Ok(FileOutcome::Written(bytes.len() as u64)), fault)
    }

    fn sync(&mut self, name: FileName, covers: file::Cover) -> (Result<FileOutcome, FileError>, Option<DiskFault>) {
        let Some(file) = self.files.get_mut(&name) else { return (Err(FileError::NotFound), None) };
        if self.random.is_one_in(self.faults.sync_error_rarity) {
            file.doom(&covers);
            return (Err(FileError::Os { errno: EIO }), Some(DiskFault::SyncFailed));
        }
        file.save(covers);
        (Ok(FileOutcome::Done), None)
    }

    /// What a crash leaves of an effect in flight.
    fn carry_out_half(&mut self, now: MonotonicNanos, effect: FileEffect) {
        let name = effect.file;
        match effect.op {
            FileOp::Write { position, pieces } => {
                // Unsafe like any write without a sync: a loss of power decides sector by sector.
                if let Some(file) = self.files.get_mut(&name)
                    && self.random.is_one_in(2)
                {
                    file.write(position, &pieces.concat());
                }
            }
            FileOp::CreateZeroed { length } => match self.random.within(0..3) {
                0 => {}
                1 => {
                    let blocks = self.random.within(0..length / limits::BLOCK_BYTES + 1);
                    self.files.insert(name, File::zeroed(blocks * limits::BLOCK_BYTES));
                }
                _ => {
                    self.files.insert(name, File::zeroed(length));
                }
            },
            FileOp::CreateEmpty => {
                if self.random.is_one_in(2) {
                    self.files.entry(name).or_insert_with(|| File::zeroed(0));
                }
            }
            FileOp::Delete => {
                if self.random.is_one_in(2)
                    && let Some(file) = self.files.remove(&name)
                {
                    self.deleted.insert(name, (now, file));
                }
            }
            FileOp::Sync | FileOp::Read { .. } | FileOp::Length => {}
        }
    }
}
