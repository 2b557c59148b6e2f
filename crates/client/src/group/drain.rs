//! The polled face of a group consumer.

use super::{Event, GroupConsumer, GroupError};

/// What is there now, from [`GroupConsumer::drain`]; nothing is allocated for it.
#[derive(Debug)]
#[must_use = "nothing is taken before it is iterated over"]
pub struct Drain<'a> {
    consumer: &'a mut GroupConsumer,
    left: usize,
}

impl<'a> Drain<'a> {
    pub(super) const fn new(consumer: &'a mut GroupConsumer, max: usize) -> Self {
        Self { consumer, left: max }
    }

    /// The consumer, for commits on the way.
    pub const fn consumer(&mut self) -> &mut GroupConsumer {
        self.consumer
    }
}

impl Iterator for Drain<'_> {
    type Item = Result<Event, GroupError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.consumer.try_next()
    }
}
