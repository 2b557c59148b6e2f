//! One file: its bytes as a reader sees them and, for blocks that are not safe yet, as the platter has them.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelane_model::limits::BLOCK_BYTES;

use crate::Random;
use crate::scenario::DiskFaults;

/// What a disk writes without tearing.
pub(super) const SECTOR_BYTES: u64 = 512;

/// The blocks that a sync will save, and the length, as they were when it was issued.
#[derive(Debug, Default)]
pub(super) struct Cover {
    blocks: BTreeMap<u64, Box<[u8]>>,
    length: u64,
}

/// A block that is not safe.
#[derive(Debug)]
struct Unsafe {
    /// What the platter has.
    durable: Box<[u8]>,
    /// A sync failed while it was dirty: no later sync will save it.
    is_doomed: bool,
}

/// Sparse: blocks that are not there are zeros.
#[derive(Debug)]
pub(super) struct File {
    length: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
    durable_length: u64,
    dirty: BTreeMap<u64, Unsafe>,
}

impl File {
    /// A safe file of zeros.
    pub(super) const fn zeroed(length: u64) -> Self {
        Self { length, blocks: BTreeMap::new(), durable_length: length, dirty: BTreeMap::new() }
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn read(&self, position: u64, length: u32) -> Bytes {
        let start = position.min(self.length);
        let end = (start + u64::from(length)).min(self.length);
        let mut bytes = vec![0; size(end - start)];
        for (number, block) in self.blocks.range(start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)) {
            let at = number * BLOCK_BYTES;
            let [from, until] = [at.max(start), (at + BLOCK_BYTES).min(end)];
            bytes[size(from - start)..size(until - start)].copy_from_slice(&block[size(from - at)..size(until - at)]);
        }
        Bytes::from(bytes)
    }

    /// Writes whole sectors.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        let end = position + bytes.len() as u64;
        for number in position / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            let before = self.block(number);
            let mut block = before.clone();
            let at = number * BLOCK_BYTES;
            let [from, until] = [at.max(position), (at + BLOCK_BYTES).min(end)];
            let piece = &bytes[size(from - position)..size(until - position)];
            block[size(from - at)..size(until - at)].copy_from_slice(piece);
            // Writing again makes a block whose sync failed dirty again: the next sync saves it.
            self.dirty.entry(number).or_insert(Unsafe { durable: before, is_doomed: false }).is_doomed = false;
            self.blocks.insert(number, block);
        }
        self.length = self.length.max(end);
    }

    /// What a sync that is issued now will save.
    pub(super) fn cover(&self) -> Cover {
        let blocks = self.dirty.iter().filter(|(_, block)| !block.is_doomed);
        Cover { blocks: blocks.map(|(&block, _)| (block, self.block(block))).collect(), length: self.length }
    }

    /// A sync completed.
    pub(super) fn save(&mut self, covers: Cover) {
        self.durable_length = self.durable_length.max(covers.length);
        for (number, saved) in covers.blocks {
            let is_current = self.block(number) == saved;
            let Some(dirty) = self.dirty.get_mut(&number).filter(|dirty| !dirty.is_doomed) else { continue };
            if is_current {
                self.dirty.remove(&number);
            } else {
                dirty.durable = saved;
            }
        }
    }

    /// A sync failed.
    pub(super) fn doom(&mut self, covers: &Cover) {
        for number in covers.blocks.keys() {
            if let Some(dirty) = self.dirty.get_mut(number) {
                dirty.is_doomed = true;
            }
        }
    }

    /// Loses, keeps or tears what is not safe. What is left is safe.
    pub(super) fn crash(&mut self, random: &mut Random, faults: DiskFaults) {
        for (number, dirty) in std::mem::take(&mut self.dirty) {
            if dirty.is_doomed || (faults.is_losing && random.is_one_in(2)) {
                self.blocks.insert(number, dirty.durable);
            } else if faults.is_tearing && random.is_one_in(2) {
                let mut block = self.block(number);
                let sectors = block.chunks_mut(size(SECTOR_BYTES)).zip(dirty.durable.chunks(size(SECTOR_BYTES)));
                for (now, before) in sectors.filter(|_| random.is_one_in(2)) {
                    now.copy_from_slice(before);
                }
                self.blocks.insert(number, block);
            }
        }
        if self.durable_length < self.length && faults.is_losing && random.is_one_in(2) {
            let blocks = (self.length - self.durable_length).div_ceil(BLOCK_BYTES);
            self.length = self.durable_length + random.within(0..blocks) * BLOCK_BYTES;
            drop(self.blocks.split_off(&self.length.div_ceil(BLOCK_BYTES)));
        }
        self.durable_length = self.length;
    }

    /// Every block that holds anything, with its place.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.blocks.iter().map(|(number, block)| (number * BLOCK_BYTES, &block[..]))
    }

    /// Flips one bit of what is on the platter; nothing if there is nothing but zeros.
    pub(super) fn rot(&mut self, random: &mut Random) -> Option<u64> {
        let numbers = self.blocks.keys().copied().collect::<Vec<_>>();
        let number = *numbers.get(random.index(numbers.len().max(1)))?;
        let block = self.blocks.get_mut(&number)?;
        let at = random.index(block.len());
        block[at] ^= 1 << random.within(0..8);
        Some(number * BLOCK_BYTES + at as u64)
    }

    fn block(&self, number: u64) -> Box<[u8]> {
        self.blocks.get(&number).cloned().unwrap_or_else(|| vec![0; size(BLOCK_BYTES)].into())
    }
}

/// A size within memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a file fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSING: DiskFaults = DiskFaults {
        is_losing: true,
        is_tearing: true,
        short_write_rarity: 0,
        write_error_rarity: 0,
        sync_error_rarity: 0,
    };

    fn block_of(byte: u8) -> Vec<u8> {
        vec![byte; 4096]
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..50 {
            let mut file = File::zeroed(BLOCK_BYTES * 4);
            file.write(0, &block_of(1));
            file.save(file.cover());
            file.write(BLOCK_BYTES, &block_of(2));
            file.crash(&mut Random::new(seed), LOSING);
            assert_eq!(file.read(0, 4096), block_of(1));
        }
    }

    #[test]
    fn a_sync_saves_only_what_was_there_when_it_was_issued() {
        let lost = (0..50).filter(|&seed| {
            let mut file = File::zeroed(BLOCK_BYTES);
            let covers = file.cover();
            file.write(0, &block_of(7));
            file.save(covers);
            file.crash(&mut Random::new(seed), LOSING);
            file.read(0, 4096) != block_of(7)
        });
        assert!(10 < lost.count());
    }

    #[test]
    fn a_failed_sync_loses_for_good() {
        let mut file = File::zeroed(BLOCK_BYTES);
        file.write(0, &block_of(7));
        file.doom(&file.cover());
        file.save(file.cover());
        assert_eq!(file.read(0, 4096), block_of(7));
        file.crash(&mut Random::new(1), LOSING);
        assert_eq!(file.read(0, 4096), block_of(0));
    }

    #[test]
    fn what_is_written_again_after_a_failed_sync_is_saved_by_the_next() {
        let mut file = File::zeroed(BLOCK_BYTES);
        file.write(0, &block_of(7));
        file.doom(&file.cover());
        file.write(0, &block_of(8));
        file.save(file.cover());
        file.crash(&mut Random::new(1), LOSING);
        assert_eq!(file.read(0, 4096), block_of(8));
    }

    #[test]
    fn torn_blocks_happen() {
        let torn = (0..50).filter(|&seed| {
            let mut file = File::zeroed(BLOCK_BYTES);
            file.write(0, &block_of(7));
            file.crash(&mut Random::new(seed), LOSING);
            let bytes = file.read(0, 4096);
            bytes.contains(&0) && bytes.contains(&7)
        });
        assert!(5 < torn.count());
    }
}
