//! Chance from one seed.

use std::ops::Range;

/// A small fast generator (splitmix64): one seed, one sequence, on every machine and in every build.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator of its own for one part of the world, so that a change in one part does not shift all others.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self { state: self.bits() }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "range {range:?} is empty");
        range.start + self.bits() % (range.end - range.start)
    }

    /// A place in a slice of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.within(0..length as u64)).expect("an index fits")
    }

    /// True once in `rarity` times; never when `rarity` is 0.
    pub fn is_one_in(&mut self, rarity: u64) -> bool {
        rarity != 0 && self.bits().is_multiple_of(rarity)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Mostly near the start of the range, sometimes far up: delays and sizes are like that.
    pub fn skewed(&mut self, range: Range<u64>) -> u64 {
        let span = range.end - range.start;
        let shift = self.within(0..8);
        range.start + self.bits() % (span >> shift).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let [mut a, mut b] = [Random::new(7), Random::new(7)];
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert_ne!(Random::new(7).bits(), Random::new(8).bits());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| (5..9).contains(&random.within(5..9))));
        assert!((0..1000).all(|_| (5..9).contains(&random.skewed(5..9))));
    }
}
