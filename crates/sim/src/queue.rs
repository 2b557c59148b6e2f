//! The event queue: virtual time moves from one event to the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use corelane_model::{MonotonicNanos, Now, WallMillis};

/// Events by their time; those of one moment come out in the order in which they were put in.
#[derive(Debug)]
pub struct Queue<E> {
    order: BinaryHeap<Reverse<(MonotonicNanos, u64)>>,
    events: BTreeMap<u64, E>,
    next: u64,
    now: MonotonicNanos,
    /// What the wall clock shows beyond the monotonic one.
    wall_base_ms: i64,
}

impl<E> Queue<E> {
    /// An empty queue whose wall clock stands at `wall`.
    #[must_use]
    pub const fn new(wall: WallMillis) -> Self {
        Self {
            order: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            now: MonotonicNanos(1),
            wall_base_ms: wall.0,
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Now {
        let elapsed = i64::try_from(self.now.0 / 1_000_000).expect("a run is short");
        Now { monotonic: self.now, wall: WallMillis(self.wall_base_ms + elapsed) }
    }

    /// Lets the wall clock jump.
    pub const fn jump_wall(&mut self, by_ms: i64) {
        self.wall_base_ms += by_ms;
    }

    /// Puts an event `delay` into the future.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now.after(delay), event);
    }

    /// Puts an event at a moment, or now if the moment has passed.
    pub fn at(&mut self, moment: MonotonicNanos, event: E) {
        self.order.push(Reverse((moment.max(self.now), self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    /// The next event; time moves to it.
    pub fn pop(&mut self) -> Option<E> {
        loop {
            let Reverse((moment, number)) = self.order.pop()?;
            // Events that were removed leave their place in the order behind.
            if let Some(event) = self.events.remove(&number) {
                assert!(self.now <= moment, "time went back");
                self.now = moment;
                return Some(event);
            }
        }
    }

    /// When the next event comes.
    pub fn next_moment(&mut self) -> Option<MonotonicNanos> {
        while let Some(Reverse((moment, number))) = self.order.peek() {
            if self.events.contains_key(number) {
                return Some(*moment);
            }
            self.order.pop();
        }
        None
    }

    /// Removes every event that `is_kept` does not keep.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&E) -> bool) {
        self.events.retain(|_, event| is_kept(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_then_of_entry() {
        let mut queue = Queue::new(WallMillis(5_000));
        queue.after(Duration::from_millis(2), "c");
        queue.after(Duration::from_millis(1), "a");
        queue.after(Duration::from_millis(1), "b");
        queue.after(Duration::from_millis(3), "gone");
        queue.retain(|event| *event != "gone");
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some("a"), Some("b"), Some("c"), None]);
        assert_eq!(queue.now().wall, WallMillis(5_002));
    }
}
