//! Which records beyond the done end are done: one bit each.

use std::collections::VecDeque;

/// Bits of offsets from a base on; all below the base are done and not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoneSet {
    /// Number of the first word: offset / 64.
    first: u64,
    words: VecDeque<u64>,
}

impl DoneSet {
    /// Nothing beyond `base` is done.
    pub(crate) fn new(base: u64) -> Self {
        Self { first: base / 64, words: VecDeque::new() }
    }

    /// Marks one offset, which is not below the base.
    pub(crate) fn insert(&mut self, offset: u64) {
        let at = self.place(offset);
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (offset % 64);
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        let Some(at) = (offset / 64).checked_sub(self.first) else { return true };
        let word = usize::try_from(at).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (offset % 64) & 1 == 1)
    }

    /// Everything below `base` is done from now on.
    pub(crate) fn advance(&mut self, base: u64) {
        while self.first < base / 64 {
            if self.words.pop_front().is_none() {
                self.first = base / 64;
                return;
            }
            self.first += 1;
        }
    }

    /// Half-open ranges of done offsets at or beyond `base`, in order.
    pub(crate) fn ranges(&self, base: u64) -> impl Iterator<Item = (u64, u64)> {
        let end = (self.first + self.words.len() as u64) * 64;
        let mut at = base;
        std::iter::from_fn(move || {
            let start = self.next(at, end, true)?;
            at = self.next(start, end, false).unwrap_or(end);
            Some((start, at))
        })
    }

    /// The next offset from `at` on whose bit is so.
    fn next(&self, mut at: u64, end: u64, is_done: bool) -> Option<u64> {
        while at < end {
            let word = self.words[self.place(at)];
            let word = if is_done { word } else { !word };
            let rest = word >> (at % 64);
            if rest != 0 {
                return Some(at + u64::from(rest.trailing_zeros()));
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    fn place(&self, offset: u64) -> usize {
        let at = (offset / 64).checked_sub(self.first).expect("what is below the base is not touched");
        usize::try_from(at).expect("a window fits into memory")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_those_of_a_plain_list(base in 0u64..300, offsets in prop::collection::btree_set(0u64..600, 0..80), to in any::<prop::sample::Index>()) {
            let mut set = DoneSet::new(base);
            for &offset in offsets.iter().filter(|&&offset| base <= offset) {
                set.insert(offset);
            }
            let to = base + to.index(300) as u64;
            set.advance(to);
            let flat: Vec<u64> = set.ranges(to).flat_map(|(start, end)| start..end).collect();
            let expected: Vec<u64> = offsets.iter().copied().filter(|&offset| to <= offset).collect();
            assert_eq!(flat, expected);
            for offset in to..700 {
                assert_eq!(set.contains(offset), offsets.contains(&offset), "offset {offset}");
            }
            let ranges: Vec<_> = set.ranges(to).collect();
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "ranges do not touch: {ranges:?}");
        }
    }
}
