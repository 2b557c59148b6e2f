//! The polled face of a queue's member.

use super::{Leased, QueueConsumer, QueueError};

/// What is there now, from [`QueueConsumer::drain`]; nothing is allocated for it.
#[derive(Debug)]
#[must_use = "nothing is taken before it is iterated over"]
pub struct QueueDrain<'a> {
    consumer: &'a mut QueueConsumer,
    left: usize,
}

impl<'a> QueueDrain<'a> {
    pub(super) const fn new(consumer: &'a mut QueueConsumer, max: usize) -> Self {
        Self { consumer, left: max }
    }

    /// The consumer, for words about leases on the way.
    pub const fn consumer(&mut self) -> &mut QueueConsumer {
        self.consumer
    }
}

impl Iterator for QueueDrain<'_> {
    type Item = Result<Leased, QueueError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.consumer.try_next()
    }
}
