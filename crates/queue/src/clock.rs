//! When leases end and rests are over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use corelane_model::MonotonicNanos;

/// A moment at which a record's slot wants to be looked at. It counts only if the slot still says the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) at: MonotonicNanos,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

/// Moments in order. Leases of equal length come in order by themselves and stand in a line; all others are in a heap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    line: VecDeque<Due>,
    heap: BinaryHeap<Reverse<Due>>,
}

/// Entries that may be left over before it pays to look for them.
const SLACK: usize = 1024;

impl Clock {
    /// A lease of the usual length.
    pub(crate) fn push_lease(&mut self, due: Due) {
        if self.line.back().is_none_or(|last| last.at <= due.at) {
            self.line.push_back(due);
        } else {
            self.push_other(due);
        }
    }

    /// Any other moment.
    pub(crate) fn push_other(&mut self, due: Due) {
        self.heap.push(Reverse(due));
    }

    pub(crate) fn next(&self) -> Option<Due> {
        match (self.line.front(), self.heap.peek()) {
            (Some(&first), Some(&Reverse(other))) => Some(first.min(other)),
            (Some(&first), None) => Some(first),
            (None, other) => other.map(|&Reverse(due)| due),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Due> {
        let is_line = match (self.line.front(), self.heap.peek()) {
            (Some(first), Some(Reverse(other))) => first <= other,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_line { self.line.pop_front() } else { self.heap.pop().map(|Reverse(due)| due) }
    }

    /// Whether it may pay to look for what no longer counts.
    pub(crate) fn is_long(&self) -> bool {
        SLACK < self.line.len() + self.heap.len()
    }

    /// Drops what no longer counts once it is more than what does. `live` is how many count.
    pub(crate) fn prune(&mut self, live: usize, counts: impl Fn(&Due) -> bool) {
        if 2 * live + SLACK < self.line.len() + self.heap.len() {
            self.line.retain(&counts);
            self.heap.retain(|Reverse(due)| counts(due));
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: u64) -> Due {
        Due { at: MonotonicNanos(at), partition: 0, offset: at }
    }

    #[test]
    fn moments_come_in_order_however_they_were_put() {
        let mut clock = Clock::default();
        for at in [5, 7, 6, 9, 9, 1] {
            clock.push_lease(due(at));
        }
        clock.push_other(due(8));
        let order: Vec<_> = std::iter::from_fn(|| clock.pop()).map(|due| due.at.0).collect();
        assert_eq!(order, [1, 5, 6, 7, 8, 9, 9]);
    }

    #[test]
    fn leftovers_are_dropped_when_they_are_many() {
        let mut clock = Clock::default();
        (0..2000).for_each(|at| clock.push_lease(due(at)));
        clock.prune(1000, |_| false);
        assert_eq!(clock.next(), Some(due(0)), "not many enough");
        clock.prune(10, |due| due.offset == 1500);
        assert_eq!(clock.pop(), Some(due(1500)));
        assert_eq!(clock.pop(), None);
    }
}
