//! Records that are given up, and the way back.

use std::collections::{BTreeMap, VecDeque};

use corelane_model::limits::{QUEUE_DEAD_LETTER_RETRY, QUEUE_DEAD_LETTERS_MAX, QUEUE_REDRIVE_RECORDS};
use corelane_model::{MonotonicNanos, Now, Offset, PartitionIndex, TopicId, WallMillis};

use crate::partition::Failure;
use crate::slot::State;
use crate::{Answer, DeadReason, Effect, Queue, QueueError, RedriveAt, Redriven, RequestTicket};

/// A record that is to be appended to the dead-letter topic.
#[derive(Clone, Debug)]
struct DeadLetter {
    partition: u32,
    offset: u64,
    reason: DeadReason,
}

/// Dead letters on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dying {
    waiting: VecDeque<DeadLetter>,
    /// Being appended, with why, in case that has to be tried again.
    under_way: BTreeMap<(u32, u64), DeadReason>,
    /// To be tried again at a moment; the moments are in order.
    later: VecDeque<(MonotonicNanos, DeadLetter)>,
}

impl Dying {
    pub(crate) fn deadline(&self) -> Option<MonotonicNanos> {
        self.later.front().map(|&(at, _)| at)
    }

    /// The record is gone: its dead letter will not come.
    pub(crate) fn forget(&mut self, partition: u32, offset: u64) {
        self.under_way.remove(&(partition, offset));
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// How far dead letters were put back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redrive {
    /// Where the next one begins, by partition of the dead-letter topic.
    pub(crate) positions: BTreeMap<u32, u64>,
    /// The topic that they are of: one that is made again under its name has other offsets.
    pub(crate) of: TopicId,
    pub(crate) running: Option<RequestTicket>,
    /// The record of the positions is to be written.
    pub(crate) is_dirty: bool,
}

impl Queue {
    /// A record that the caller has just taken from its member becomes a dead letter at once.
    pub(crate) fn fail_for_good(&mut self, now: Now, index: u32, offset: u64, reason: DeadReason) {
        let partition = &mut self.partitions[index as usize];
        let deliveries = partition.slot(offset).expect("the caller has just seen it").attempts;
        let fresh = Failure { deliveries, is_dead: true, first: now.wall, not_before: WallMillis(0), rest_ms: 0 };
        let failure = partition.failed.entry(offset).or_insert(fresh);
        failure.deliveries = deliveries;
        self.die(index, offset, reason);
    }

    /// A record that has failed becomes a dead letter.
    pub(crate) fn die(&mut self, index: u32, offset: u64, reason: DeadReason) {
        let partition = &mut self.partitions[index as usize];
        partition.set_state(offset, State::Dying);
        partition.failed.get_mut(&offset).expect("what dies has failed").is_dead = true;
        self.soil(index);
        self.dying.waiting.push_back(DeadLetter { partition: index, offset, reason });
    }

    /// Sends dead letters on their way, as many as may be, behind the record that says that they are some.
    pub(crate) fn send_dead_letters(&mut self) {
        while self.dying.under_way.len() < QUEUE_DEAD_LETTERS_MAX {
            let Some(DeadLetter { partition: index, offset, reason }) = self.dying.waiting.pop_front() else { break };
            let topic = self.settings.dead_letter.clone().expect("nothing dies without a topic for it");
            let partition = &self.partitions[index as usize];
            let failure = partition.slot(offset).filter(|slot| slot.state == State::Dying);
            let Some(failure) = failure.and_then(|_| partition.failed.get(&offset)) else { continue };
            self.dying.under_way.insert((index, offset), reason.clone());
            self.outbox.tell(Effect::DeadLetter {
                partition: partition.index,
                offset: Offset(offset),
                topic,
                deliveries: failure.deliveries.into(),
                first_failed: failure.first,
                reason,
            });
            #[cfg(planted)]
            if corelane_model::planted::is_planted(corelane_model::planted::Bug::DeadLetterLost) {
                let now = Now::default();
                self.finish(now, index, offset);
            }
        }
    }

    /// Whether this record is to become a dead letter.
    #[must_use]
    pub fn is_dying(&self, partition: PartitionIndex, offset: Offset) -> bool {
        let partition = self.partitions.get(partition.0 as usize);
        partition.and_then(|partition| partition.slot(offset.0)).is_some_and(|slot| slot.state == State::Dying)
    }

    /// The dead letter of this record is durable in its topic: the record is done.
    pub fn on_dead_letter_stored(&mut self, now: Now, partition: PartitionIndex, offset: Offset) {
        if self.dying.under_way.remove(&(partition.0, offset.0)).is_none() {
            return;
        }
        self.stats.dead_letters += 1;
        let Some(found) = self.partition(partition) else { return };
        if found.slot(offset.0).is_some_and(|slot| slot.state == State::Dying) {
            found.dead += 1;
            self.finish(now, partition.0, offset.0);
        }
    }

    /// The dead letter of this record could not be appended; it is tried again later.
    pub fn on_dead_letter_failed(&mut self, now: Now, partition: PartitionIndex, offset: Offset) {
        let (partition, offset) = (partition.0, offset.0);
        if let Some(reason) = self.dying.under_way.remove(&(partition, offset)) {
            self.stats.dead_letter_retries += 1;
            let at = now.monotonic.after(QUEUE_DEAD_LETTER_RETRY);
            self.dying.later.push_back((at, DeadLetter { partition, offset, reason }));
        }
    }

    /// Dead letters whose time has come are tried again.
    pub(crate) fn retry_dead_letters(&mut self, now: Now) {
        while self.dying.deadline().is_some_and(|at| at <= now.monotonic) {
            let (_, letter) = self.dying.later.pop_front().expect("it has a deadline");
            self.dying.waiting.push_back(letter);
        }
    }

    /// Puts dead letters back into the queue's topic: one step, of at most so many records and at most
    /// [`QUEUE_REDRIVE_RECORDS`], 0 for these. Answered with how many when they are durable.
    ///
    /// # Errors
    /// There is no dead-letter topic, or it is being done already.
    pub fn redrive(&mut self, ticket: RequestTicket, most: u64, at: RedriveAt) -> Result<(), QueueError> {
        self.check_alive()?;
        let topic = self.settings.dead_letter.clone().ok_or(QueueError::NoDeadLetterTopic)?;
        if self.redrive.running.is_some() {
            return Err(QueueError::RedriveRunning);
        }
        self.redrive.running = Some(ticket);
        let from = self.redrive.positions.iter();
        let from = from.map(|(&partition, &offset)| (PartitionIndex(partition), Offset(offset))).collect();
        let of = self.redrive.of;
        let most = if most == 0 { QUEUE_REDRIVE_RECORDS } else { most.min(QUEUE_REDRIVE_RECORDS) };
        self.outbox.now(Effect::Redrive { ticket, topic, from, of, most, at });
        Ok(())
    }

    /// Dead letters before this offset of a partition of the dead-letter topic, which is the one of this id, are back,
    /// durable. Of another topic nothing is remembered then.
    pub fn on_redriven(&mut self, topic: TopicId, partition: PartitionIndex, before: Offset) {
        if self.is_deleted || self.redrive.running.is_none() {
            return;
        }
        if self.redrive.of != topic {
            self.redrive.is_dirty |= !self.redrive.positions.is_empty();
            self.redrive.positions.clear();
            self.redrive.of = topic;
        }
        let position = self.redrive.positions.entry(partition.0).or_default();
        if *position < before.0 {
            *position = before.0;
            self.redrive.is_dirty = true;
        }
    }

    /// A step of a redrive has come to its end. Another may begin.
    pub fn on_redrive_done(&mut self, redriven: Redriven) {
        if let Some(ticket) = self.redrive.running.take() {
            self.stats.redriven_records += redriven.records;
            self.round.answers.push((ticket, Answer::Redriven(redriven)));
        }
    }
}
