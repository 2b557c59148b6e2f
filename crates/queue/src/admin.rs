//! What an operator does to a queue.

use corelane_model::{Now, QueueWish};

use crate::partition::Partition;
use crate::{Answer, Effect, FenceReason, Queue, QueueError, RequestTicket};

impl Queue {
    /// Changes settings while members go on. Leases that are out keep their time, records that rest go on resting.
    ///
    /// # Errors
    /// A setting is out of its bounds or cannot be changed; none is changed then.
    pub fn alter(&mut self, ticket: RequestTicket, wish: &QueueWish) -> Result<(), QueueError> {
        self.check_alive()?;
        self.check_room()?;
        let settings = self.settings.with(wish);
        settings.check()?;
        if settings.order_per_key != self.settings.order_per_key {
            return Err(QueueError::OrderIsFixed);
        }
        if settings.dead_letter != self.settings.dead_letter {
            // What was put back from one topic says nothing of another.
            self.redrive.is_dirty |= !self.redrive.positions.is_empty();
            self.redrive.positions.clear();
        }
        self.settings = settings;
        self.round.settings = true;
        self.round.answers.push((ticket, Answer::Done));
        Ok(())
    }

    /// Removes the queue for ever; its topic stays as it is. Members are put out if `is_forced`.
    ///
    /// # Errors
    /// It has members and is not forced.
    pub fn delete(&mut self, now: Now, ticket: RequestTicket, is_forced: bool) -> Result<(), QueueError> {
        self.check_alive()?;
        self.check_room()?;
        if !is_forced && 0 < self.members.len() {
            return Err(QueueError::NotEmpty { members: self.members.len() });
        }
        self.erase(now);
        self.round.answers.push((ticket, Answer::Done));
        Ok(())
    }

    /// The queue's topic is no more, and so the queue: members are put out.
    pub fn on_topic_deleted(&mut self, now: Now) {
        if !self.is_deleted {
            self.erase(now);
        }
    }

    fn erase(&mut self, now: Now) {
        for seat in self.members.seats() {
            self.put_out(now, seat, FenceReason::QueueDeleted);
        }
        self.is_deleted = true;
        for ticket in std::mem::take(&mut self.round.joined).into_iter().chain(self.redrive.running.take()) {
            self.outbox.now(Effect::Refuse { ticket, error: QueueError::Deleted });
        }
        self.redrive.is_dirty |= !self.redrive.positions.is_empty();
        self.redrive.positions.clear();
        self.round.settings = true;
        self.round.unstarted = 0;
        self.round.dirty = (0..self.partitions_len()).collect();
        let has_order = self.settings.order_per_key;
        for partition in &mut self.partitions {
            *partition = Partition::new(partition.index, has_order);
            partition.is_dirty = true;
        }
        self.listed.clear();
        self.clock.clear();
        self.dying.clear();
    }
}
