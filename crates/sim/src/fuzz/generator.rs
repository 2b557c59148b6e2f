//! Inputs: valid ones, mutated.

use crate::Random;

/// Longest input.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Numbers at which code goes wrong.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xfff,
    0x1000,
    0x7fff,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_ffff,
];

/// A deterministic sequence of inputs.
#[derive(Debug)]
pub(super) struct Generator {
    random: Random,
    seeds: Vec<Vec<u8>>,
    repair: fn(&mut [u8]),
}

impl Generator {
    pub(super) fn new(seed: u64, seeds: Vec<Vec<u8>>, repair: fn(&mut [u8])) -> Self {
        Self { random: Random::new(seed), seeds, repair }
    }

    /// The next input.
    pub(super) fn input(&mut self) -> Vec<u8> {
        let mut input = match self.random.within(0..32) {
            0 => self.noise(),
            1 => self.spliced(),
            _ if self.seeds.is_empty() => self.noise(),
            _ => self.random.pick(&self.seeds).clone(),
        };
        for _ in 0..self.random.skewed(1..17) {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        if self.random.is_one_in(2) {
            (self.repair)(&mut input);
        }
        input
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = self.random.skewed(0..4096);
        (0..length).map(|_| self.random.bits().to_le_bytes()[0]).collect()
    }

    /// The front of one seed and the back of another.
    fn spliced(&mut self) -> Vec<u8> {
        if self.seeds.is_empty() {
            return self.noise();
        }
        let (front, back) = (self.random.pick(&self.seeds).clone(), self.random.pick(&self.seeds).clone());
        let mut input = front[..self.random.index(front.len() + 1)].to_vec();
        input.extend_from_slice(&back[self.random.index(back.len() + 1)..]);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            *input = self.noise();
            return;
        }
        // Heads decide how the rest is read: half of all mutations go there.
        let reach = if self.random.is_one_in(2) { input.len().min(128) } else { input.len() };
        let at = self.random.index(reach);
        match self.random.within(0..8) {
            0 | 1 => input[at] ^= 1 << self.random.within(0..8),
            2 => input[at] = self.random.bits().to_le_bytes()[0],
            3 | 4 => {
                let edge = self.random.pick(EDGES).wrapping_add(self.random.within(0..3)).wrapping_sub(1);
                let width = 1 << self.random.within(0..4);
                let end = input.len().min(at + width);
                input[at..end].copy_from_slice(&edge.to_le_bytes()[..end - at]);
            }
            5 => input.truncate(at),
            6 => {
                let end = input.len().min(at + 1 + self.random.index(64));
                let piece = input[at..end].to_vec();
                let to = self.random.index(input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let end = input.len().min(at + 1 + self.random.index(64));
                input.drain(at..end);
            }
        }
    }
}
