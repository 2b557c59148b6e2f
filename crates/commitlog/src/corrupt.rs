//! Offsets that were there and cannot be read any more.

use corelane_model::Offset;
use corelane_model::limits::PARTITION_CORRUPT_RANGES_MAX;

/// Records that were lost to damage: never served, always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptRange {
    /// The first of them.
    pub first: Offset,
    /// Their exclusive end.
    pub end: Offset,
}

/// Ranges in order, apart from each other, at most [`PARTITION_CORRUPT_RANGES_MAX`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CorruptRanges(Vec<CorruptRange>);

impl CorruptRanges {
    pub(crate) fn as_slice(&self) -> &[CorruptRange] {
        &self.0
    }

    /// Adds a range and joins it with those that it touches. At the limit the two that are closest become one, with
    /// what lies between them: rather too much reported than a range forgotten.
    pub(crate) fn add(&mut self, range: CorruptRange) {
        assert!(range.first < range.end, "range from {} to {} is empty", range.first, range.end);
        let from = self.0.partition_point(|known| known.end < range.first);
        let to = self.0.partition_point(|known| known.first <= range.end);
        let first = self.0.get(from).filter(|_| from < to).map_or(range.first, |known| known.first.min(range.first));
        let end = self.0[from..to].last().map_or(range.end, |known| known.end.max(range.end));
        self.0.splice(from..to, [CorruptRange { first, end }]);
        self.keep_limit();
    }

    fn keep_limit(&mut self) {
        if PARTITION_CORRUPT_RANGES_MAX < self.0.len() {
            let gap = |at: &usize| self.0[at + 1].first.since(self.0[*at].end);
            let closest = (0..self.0.len() - 1).min_by_key(gap).expect("the limit is above one");
            self.0[closest].end = self.0.remove(closest + 1).end;
        }
    }

    /// Forgets that these offsets were lost: they were found elsewhere.
    pub(crate) fn remove(&mut self, found: CorruptRange) {
        let ranges = std::mem::take(&mut self.0);
        for CorruptRange { first, end } in ranges {
            let before = CorruptRange { first, end: end.min(found.first) };
            let after = CorruptRange { first: first.max(found.end), end };
            self.0.extend([before, after].into_iter().filter(|part| part.first < part.end));
        }
        // A range that was cut in two may be one too many, which no reader of the state would believe.
        self.keep_limit();
    }

    /// Forgets what lies below the log start.
    pub(crate) fn drop_below(&mut self, log_start: Offset) {
        self.0.retain(|range| log_start < range.end);
    }

    pub(crate) fn find(&self, offset: Offset) -> Option<CorruptRange> {
        self.next_after(offset).filter(|range| range.first <= offset)
    }

    /// The range that contains the offset, or else the next one.
    pub(crate) fn next_after(&self, offset: Offset) -> Option<CorruptRange> {
        self.0.get(self.0.partition_point(|range| range.end <= offset)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> CorruptRanges {
        let mut ranges = CorruptRanges::default();
        for &(first, end) in list {
            ranges.add(CorruptRange { first: Offset(first), end: Offset(end) });
        }
        ranges
    }

    fn list(ranges: &CorruptRanges) -> Vec<(u64, u64)> {
        ranges.0.iter().map(|range| (range.first.0, range.end.0)).collect()
    }

    #[test]
    fn ranges_are_kept_in_order_and_joined_where_they_touch() {
        assert_eq!(list(&ranges(&[(5, 6), (1, 2)])), [(1, 2), (5, 6)]);
        assert_eq!(list(&ranges(&[(1, 3), (5, 7), (3, 5)])), [(1, 7)]);
        assert_eq!(list(&ranges(&[(1, 9), (3, 5)])), [(1, 9)]);
        assert_eq!(list(&ranges(&[(3, 5), (8, 9), (1, 20)])), [(1, 20)]);
    }

    #[test]
    fn what_is_found_elsewhere_is_cut_out() {
        let mut ranges = ranges(&[(1, 4), (6, 9)]);
        ranges.remove(CorruptRange { first: Offset(2), end: Offset(3) });
        assert_eq!(list(&ranges), [(1, 2), (3, 4), (6, 9)]);
        ranges.remove(CorruptRange { first: Offset(3), end: Offset(8) });
        assert_eq!(list(&ranges), [(1, 2), (8, 9)]);
        ranges.remove(CorruptRange { first: Offset(0), end: Offset(20) });
        assert_eq!(list(&ranges), []);
    }

    #[test]
    fn ranges_are_found_by_offset() {
        let ranges = ranges(&[(1, 3), (5, 7)]);
        assert_eq!(ranges.find(Offset(3)), None);
        assert_eq!(ranges.find(Offset(6)).map(|range| range.first), Some(Offset(5)));
        assert_eq!(ranges.next_after(Offset(3)).map(|range| range.first), Some(Offset(5)));
        assert_eq!(ranges.next_after(Offset(7)), None);
    }

    #[test]
    fn at_the_limit_the_closest_are_joined() {
        let mut far: Vec<_> = (0..PARTITION_CORRUPT_RANGES_MAX as u64).map(|at| (at * 100, at * 100 + 1)).collect();
        far.push((310, 311));
        let ranges = ranges(&far);
        assert_eq!(ranges.0.len(), PARTITION_CORRUPT_RANGES_MAX);
        assert!(list(&ranges).contains(&(300, 311)));
    }

    #[test]
    fn a_range_that_is_cut_in_two_keeps_the_limit() {
        let far: Vec<_> = (0..PARTITION_CORRUPT_RANGES_MAX as u64).map(|at| (at * 100, at * 100 + 9)).collect();
        let mut ranges = ranges(&far);
        ranges.remove(CorruptRange { first: Offset(302), end: Offset(303) });
        assert_eq!(ranges.0.len(), PARTITION_CORRUPT_RANGES_MAX);
    }
}
