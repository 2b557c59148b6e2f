//! When which connection wants to be looked at: a heap, so that idle connections cost nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// The earliest deadline of each connection.
///
/// A connection has at most one entry that counts, which it remembers itself; an entry that was overtaken by an earlier
/// one stays in the heap and is dropped when it comes up. A deadline that moves back is not entered: the earlier entry
/// fires, finds nothing to do and enters the later one, so that the timers that each packet pushes back cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Deadlines {
    /// Sees to it that connection `link` comes up no later than `wanted`; `entered` is its entry that counts.
    pub(crate) fn enter(&mut self, link: usize, wanted: Option<Instant>, entered: &mut Option<Instant>) {
        let Some(wanted) = wanted else { return };
        if entered.is_none_or(|at| wanted < at) {
            *entered = Some(wanted);
            self.heap.push(Reverse((wanted, link)));
        }
    }

    /// The earliest entry.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the earliest entry if it is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, usize)> {
        let Reverse((at, link)) = *self.heap.peek()?;
        if now < at {
            return None;
        }
        self.heap.pop();
        Some((at, link))
    }
}
