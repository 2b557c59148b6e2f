//! Producers: records in, frames out, last words.

use corelane_model::{
    ConnectionKey, CorrelationId, ErrorCode, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, Retry, ShardId, TopicId, TopicName, WallMillis,
};
use corelane_record::PushError;
use corelane_wire::{BodyError, DurableEnds, Frame, OutFrame, ProduceAnswers, StorageStopped, access};

use super::{ClientCore, ORDINAL_BITS, PARTITION_BITS, PRODUCE_BIT, PRODUCERS_MAX, SWEEPS, Sent};
use crate::lanes::Parcel;
use crate::producer::{Producer, State};
use crate::queue::{Delivery, NewRecord, Queue, Remedy};
use crate::timers::Timer;
use crate::topics::Known;
use crate::{
    BatchKey, DeliveryError, Effect, OutStream, Placement, ProducerKey, ProducerSettings, RequestError, Reservation,
    SendError,
};

impl ClientCore {
    /// Opens a producer for a topic. [`Effect::ProducerOpened`] or [`Effect::ProducerFailed`] follows; records are taken
    /// from then on. Sizes outside their bounds are moved to the bound.
    pub fn open_producer(&mut self, now: Now, topic: &TopicName, settings: ProducerSettings) -> ProducerKey {
        let deadline = now.monotonic.after(self.settings.request_timeout);
        let producer = Producer::new(topic.clone(), settings.bounded(), deadline);
        let key = self.free_producers.pop().unwrap_or_else(|| {
            self.producers.push(None);
            let count = u32::try_from(self.producers.len()).unwrap_or(u32::MAX);
            assert!(count <= PRODUCERS_MAX, "{count} producers are over the limit of {PRODUCERS_MAX}");
            ProducerKey(count - 1)
        });
        self.producers[key.0 as usize] = Some(producer);
        if self.is_closed {
            self.fail_producer(key.0 as usize, &DeliveryError::Closed, RequestError::Closed);
            return key;
        }
        self.topics.refresh(topic);
        self.timers.at(deadline, Timer::Sweep);
        self.has_chores = true;
        key
    }

    /// Closes a producer: it takes nothing more, what it has taken is still delivered.
    pub fn close_producer(&mut self, producer: ProducerKey) {
        self.flush(producer);
        let Some(slot) = self.producers.get_mut(producer.0 as usize) else { return };
        let Some(open) = slot else { return };
        open.state = State::Closing;
        self.reap(producer);
    }

    /// Takes a record, and says which batch it went into.
    ///
    /// # Errors
    /// The record was not taken and nothing has changed; see [`SendError`].
    pub fn send(
        &mut self,
        now: Now,
        producer: ProducerKey,
        record: &NewRecord<'_>,
        delivery: Delivery,
    ) -> Result<Sent, SendError> {
        let charge = record.charge();
        self.buffer.check(charge, &self.settings)?;
        self.take(now, producer, record, delivery, charge)
    }

    /// Sets room for a record of `charge` bytes aside, so that it will not be refused as
    /// [`SendError::Full`]; see [`NewRecord::charge`].
    ///
    /// # Errors
    /// There is no room.
    pub fn reserve(&mut self, charge: u64) -> Result<Reservation, SendError> {
        self.buffer.check(charge, &self.settings)?;
        Ok(self.buffer.reserve(charge))
    }

    /// Gives back room that was not used.
    #[expect(clippy::needless_pass_by_value, reason = "room is given back once")]
    pub fn release(&mut self, reservation: Reservation) {
        self.buffer.release(&reservation);
    }

    /// As [`Self::send`], into room that was set aside. A record larger than its room takes the difference, even beyond
    /// the limit.
    ///
    /// # Errors
    /// As [`Self::send`], but never [`SendError::Full`]. The room is given back in any case.
    pub fn send_reserved(
        &mut self,
        now: Now,
        producer: ProducerKey,
        record: &NewRecord<'_>,
        delivery: Delivery,
        reservation: Reservation,
    ) -> Result<Sent, SendError> {
        self.release(reservation);
        self.take(now, producer, record, delivery, record.charge())
    }

    fn take(
        &mut self,
        now: Now,
        key: ProducerKey,
        record: &NewRecord<'_>,
        delivery: Delivery,
        charge: u64,
    ) -> Result<Sent, SendError> {
        let slot = self.producers.get_mut(key.0 as usize).and_then(Option::as_mut);
        let producer = slot.ok_or(SendError::Closed)?;
        match producer.state {
            State::Open => {}
            State::Opening { .. } | State::Closing => return Err(SendError::Closed),
            State::Gone => return Err(SendError::TopicDeleted { topic: producer.topic.clone() }),
        }
        record.check_delivery_time(now.wall)?;
        let partition = producer.choose(record);
        let partitions = producer.partitions();
        let Some(queue) = producer.queues.get_mut(partition.0 as usize) else {
            return Err(SendError::UnknownPartition { topic: producer.topic.clone(), partition, partitions });
        };
        let before = self.next_batch;
        let pushed = queue.push(now, record, delivery, &mut producer.workshop, &mut self.next_batch);
        let (batch, index) = pushed.map_err(|error| match error {
            PushError::RecordTooLarge { len, limit } => SendError::RecordTooLarge { len, limit },
            PushError::TooManyHeaders { count, limit } => SendError::TooManyHeaders { count, limit },
            PushError::Full => unreachable!("an empty batch takes a record or says that none does"),
        })?;
        if before != self.next_batch
            && let Some(end) = queue.linger_end(&producer.workshop.settings)
        {
            self.timers.at(end, Timer::Queue(key, partition.0));
        }
        if !std::mem::replace(&mut queue.is_dirty, true) {
            self.dirty.push_back((key, partition.0));
        }
        self.buffer.take(charge);
        self.stats.records_sent += 1;
        if !self.is_sweeping {
            self.is_sweeping = true;
            self.timers.at(now.monotonic.after(self.settings.delivery_timeout / SWEEPS), Timer::Sweep);
        }
        Ok(Sent { batch, index, partition })
    }

    /// Lets everything that a producer has taken so far leave without lingering.
    pub fn flush(&mut self, producer: ProducerKey) {
        let Some(Some(open)) = self.producers.get_mut(producer.0 as usize) else { return };
        let mut gathering = Vec::new();
        for (index, queue) in open.queues.iter_mut().enumerate() {
            if !queue.is_empty() {
                queue.flush();
                gathering.push(u32::try_from(index).expect("partitions are counted in 32 bits"));
            }
        }
        gathering.into_iter().for_each(|index| self.mark(producer, index));
    }

    /// [`Self::flush`] for all producers.
    pub fn flush_all(&mut self) {
        for at in 0..self.producers.len() {
            self.flush(ProducerKey(u32::try_from(at).expect("producers are counted in 32 bits")));
        }
    }

    /// Sends what a queue may send.
    pub(super) fn advance(&mut self, now: Now, key: ProducerKey, index: u32) {
        let Some(producer) = self.producers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        let Some(queue) = producer.queues.get_mut(index as usize) else { return };
        queue.is_dirty = false;
        let shard = producer.shards[index as usize];
        let Some((connection, lanes)) = self.links.ready_lanes(shard) else { return };
        if producer.identity.version == 0 || !queue.is_open(now.monotonic, connection) {
            return;
        }
        if queue.adopt(&producer.identity) {
            producer.identity.want();
            self.has_chores = true;
        }
        let partition = PartitionId::new(producer.topic_id, PartitionIndex(index));
        let mut has_left = false;
        while let Some(outgoing) = queue.next_outgoing(now.monotonic, &mut producer.workshop, lanes) {
            self.stats.batches_sent += 1;
            self.stats.batches_repeated += u64::from(outgoing.is_repeated);
            has_left = true;
            let is_last = outgoing.is_last;
            let correlation = correlation(key, index, outgoing.key);
            let parcel = Parcel { partition, acks: outgoing.acks, correlation, bytes: outgoing.bytes };
            let effects = &mut self.effects;
            lanes.push(outgoing.lane, parcel, |stream, frame| {
                effects.push_back(produce_effect(connection, stream, frame));
            });
            if is_last {
                break;
            }
        }
        if queue.register() {
            self.durable_waiters.add(partition, key);
        }
        if has_left {
            producer.on_batch_left(index);
        }
    }

    /// What has gathered on the produce streams leaves.
    pub(super) fn flush_lanes(&mut self) {
        let effects = &mut self.effects;
        for (connection, lanes) in self.links.all_lanes() {
            lanes.flush(|stream, frame| effects.push_back(produce_effect(connection, stream, frame)));
        }
    }

    pub(super) fn on_produce_answers(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        frame: &Frame,
    ) -> Result<(), BodyError> {
        let body = access::<ProduceAnswers>(frame)?;
        for (at, answer) in body.answers.iter().enumerate() {
            let Some((key, index, low)) = split_correlation(answer.correlation.to_native()) else {
                let text = body.texts.iter().find(|text| text.0.to_native() as usize == at);
                let outcome = match answer.code.to_native() {
                    0 => Ok(Offset(answer.base_offset.to_native())),
                    code => Err((ErrorCode::from_wire(code), text.map_or_else(String::new, |text| text.1.to_string()))),
                };
                let correlation = CorrelationId(answer.correlation.to_native());
                self.on_append_answer(now, connection, correlation, outcome);
                continue;
            };
            let (producers, mut tell) = self.split();
            let Some(producer) = producers.get_mut(key.0 as usize).and_then(Option::as_mut) else { continue };
            let class = producer.class;
            let Some(queue) = producer.queues.get_mut(index as usize) else { continue };
            if !queue.is_on(connection) {
                continue;
            }
            let code = answer.code.to_native();
            let (remedy, is_untold) = if code == 0 {
                let placement = Placement {
                    base_offset: Offset(answer.base_offset.to_native()),
                    append_timestamp: WallMillis(answer.timestamp_ms.to_native()),
                };
                (Remedy::None, queue.on_accepted(low, placement, class, &mut tell))
            } else {
                let text = body.texts.iter().find(|text| text.0.to_native() as usize == at);
                let text = text.map_or("", |text| &text.1);
                (queue.on_refused(low, ErrorCode::from_wire(code), text, &mut tell), false)
            };
            // What it holds to send may leave now. Only such queues are listed: a round looks at so many of them, and after a
            // tick of a thousand partitions none has anything.
            if queue.list_unsent() {
                self.dirty.push_back((key, index));
            }
            if is_untold {
                self.untold.push((key, index, low));
            }
            self.apply(now, key, index, remedy);
        }
        Ok(())
    }

    /// Tells of batches that were received in this round and not delivered as well. Mostly the broker says both together, and
    /// at the tick of many partitions the first word would be as dear as the last.
    pub(super) fn tell_received(&mut self) {
        let mut untold = std::mem::take(&mut self.untold);
        for (key, index, low) in untold.drain(..) {
            let (producers, mut tell) = self.split();
            let producer = producers.get_mut(key.0 as usize).and_then(Option::as_mut);
            if let Some(queue) = producer.and_then(|producer| producer.queues.get_mut(index as usize)) {
                queue.tell_received(low, &mut tell);
            }
        }
        self.untold = untold;
    }

    fn apply(&mut self, now: Now, key: ProducerKey, index: u32, remedy: Remedy) {
        let producer = self.producers[key.0 as usize].as_mut().expect("the caller has just used it");
        match remedy {
            Remedy::None => return,
            Remedy::Fenced => {
                producer.identity.is_void = true;
                producer.identity.want();
                self.has_chores = true;
                return;
            }
            Remedy::Refresh => {
                self.topics.refresh(&producer.topic);
                self.has_chores = true;
            }
            Remedy::Pause => {}
        }
        let refusals = producer.queues[index as usize].next_refusal();
        let until = self.pause(now, refusals);
        let producer = self.producers[key.0 as usize].as_mut().expect("the caller has just used it");
        producer.queues[index as usize].hold_until(until);
        self.timers.at(until, Timer::Queue(key, index));
    }

    pub(super) fn on_durable_ends(&mut self, frame: &Frame) -> Result<(), BodyError> {
        let body = access::<DurableEnds>(frame)?;
        let waiters = std::mem::take(&mut self.durable_waiters);
        for end in body.ends.iter() {
            let index = end.partition.to_native();
            let partition = PartitionId::new(TopicId(end.topic.to_native()), PartitionIndex(index));
            let end = Offset(end.end.to_native());
            self.on_append_durable(partition, end);
            for &key in waiters.of(partition) {
                let (producers, mut tell) = self.split();
                let queue = producers[key.0 as usize].as_mut().and_then(|p| p.queues.get_mut(index as usize));
                if let Some(queue) = queue {
                    queue.on_durable(end, &mut tell);
                    if queue.list_unsent() {
                        self.dirty.push_back((key, index));
                    }
                }
            }
        }
        self.durable_waiters = waiters;
        Ok(())
    }

    pub(super) fn on_storage_stopped(&mut self, connection: ConnectionKey, frame: &Frame) -> Result<(), BodyError> {
        access::<StorageStopped>(frame)?;
        self.for_each_queue(|queue, _, tell| queue.on_storage_stopped(connection, tell));
        Ok(())
    }

    /// The broker started anew: every producer needs a newer epoch, because what was received and not stored is missing
    /// from the sequences.
    pub(super) fn on_producers_incarnation(&mut self) {
        for producer in self.producers.iter_mut().flatten() {
            if 0 < producer.identity.version {
                producer.identity.want();
            }
        }
        self.for_each_queue(|queue, class, tell| queue.on_incarnation(class, tell));
    }

    pub(super) fn on_identity(&mut self, key: ProducerKey, id: ProducerId, epoch: ProducerEpoch) {
        let Some(producer) = self.producers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        producer.identity.on_answer(id, epoch);
        self.finish_opening(key);
        self.mark_producer(key);
    }

    pub(super) fn on_identity_refused(&mut self, now: Now, key: ProducerKey, code: ErrorCode, text: String) {
        let Some(producer) = self.producers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        let attempts = producer.identity.attempts;
        producer.identity.attempts = attempts.saturating_add(1);
        if matches!(producer.state, State::Opening { .. }) && code.retry() != Retry::Later {
            let error = RequestError::Refused { code, text };
            self.fail_producer(key.0 as usize, &DeliveryError::Closed, error);
            return;
        }
        let retry_at = self.pause(now, attempts);
        self.retry_identity(key, retry_at);
        self.timers.at(retry_at, Timer::Metadata);
    }

    /// The question for an identity has no answer.
    pub(super) fn retry_identity(&mut self, key: ProducerKey, retry_at: MonotonicNanos) {
        if let Some(producer) = self.producers.get_mut(key.0 as usize).and_then(Option::as_mut) {
            producer.identity.is_asked = false;
            producer.identity.wanted = Some(retry_at);
        }
    }

    /// Something about a topic was learned.
    pub(super) fn on_topic_changed(&mut self, now: Now, name: &TopicName) {
        let known = self.topics.known(name).clone();
        for at in 0..self.producers.len() {
            let Some(producer) = self.producers[at].as_mut().filter(|producer| producer.topic == *name) else {
                continue;
            };
            let is_opening = matches!(producer.state, State::Opening { .. });
            let deleted = DeliveryError::TopicDeleted { topic: name.clone() };
            match &known {
                Known::Nothing => {}
                Known::Topic(info) if producer.queues.is_empty() || producer.topic_id == info.topic => {
                    producer.adopt_topic(info);
                    let key = ProducerKey(u32::try_from(at).expect("producers are counted in 32 bits"));
                    self.finish_opening(key);
                    self.mark_producer(key);
                }
                // Another topic of the same name: its partitions never saw what was sent to the first one's.
                Known::Topic(_) | Known::Missing if !is_opening => {
                    producer.state = State::Gone;
                    self.for_each_queue_of(at, |queue, tell| queue.fail_all(&deleted, tell));
                }
                Known::Topic(_) | Known::Missing => {
                    self.fail_producer(at, &deleted, RequestError::UnknownTopic { topic: name.clone() });
                }
            }
        }
        self.on_topic_changed_for_readers(now, name);
    }

    fn finish_opening(&mut self, key: ProducerKey) {
        let Some(producer) = self.producers.get_mut(key.0 as usize).and_then(Option::as_mut) else { return };
        let is_opening = matches!(producer.state, State::Opening { .. });
        if is_opening && 0 < producer.identity.version && !producer.queues.is_empty() {
            producer.state = State::Open;
            let (partitions, class) = (producer.partitions(), producer.class);
            self.effects.push_back(Effect::ProducerOpened { producer: key, partitions, class });
        }
    }

    /// Queues of a shard may have something to send.
    pub(super) fn mark_shard(&mut self, shard: ShardId) {
        self.mark_where(|producer, index| producer.shards[index] == shard);
    }

    fn mark_producer(&mut self, key: ProducerKey) {
        let Some(Some(producer)) = self.producers.get_mut(key.0 as usize) else { return };
        for (index, queue) in (0..).zip(&mut producer.queues) {
            if !queue.is_empty() && !std::mem::replace(&mut queue.is_dirty, true) {
                self.dirty.push_back((key, index));
            }
        }
    }

    fn mark_where(&mut self, is_meant: impl Fn(&Producer, usize) -> bool) {
        for at in 0..self.producers.len() {
            let Some(producer) = &self.producers[at] else { continue };
            let has_work = |&index: &usize| !producer.queues[index].is_empty() && is_meant(producer, index);
            let indexes: Vec<usize> = (0..producer.queues.len()).filter(has_work).collect();
            for index in indexes {
                let key = ProducerKey(u32::try_from(at).expect("producers are counted in 32 bits"));
                self.mark(key, u32::try_from(index).expect("partitions are counted in 32 bits"));
            }
        }
    }

    /// Looks for what has waited too long, and for producers that are through.
    pub(super) fn sweep(&mut self, now: Now) {
        let nanos = u64::try_from(self.settings.delivery_timeout.as_nanos()).unwrap_or(u64::MAX);
        if let Some(oldest) = now.monotonic.0.checked_sub(nanos) {
            self.for_each_queue(|queue, _, tell| queue.expire(MonotonicNanos(oldest), tell));
        }
        for at in 0..self.producers.len() {
            let Some(producer) = &self.producers[at] else { continue };
            match producer.state {
                State::Opening { deadline } if deadline <= now.monotonic => {
                    let error = RequestError::TimedOut { was_sent: false };
                    self.fail_producer(at, &DeliveryError::Closed, error);
                }
                State::Closing => self.reap(ProducerKey(u32::try_from(at).expect("producers are counted in 32 bits"))),
                State::Opening { .. } | State::Open | State::Gone => {}
            }
        }
        let has_closing = self.producers.iter().flatten().any(|producer| producer.state == State::Closing);
        self.is_sweeping = 0 < self.buffer.records() || has_closing;
        if self.is_sweeping {
            self.timers.at(now.monotonic.after(self.settings.delivery_timeout / SWEEPS), Timer::Sweep);
        }
    }

    /// Forgets a closing producer that has delivered everything.
    fn reap(&mut self, key: ProducerKey) {
        let slot = &mut self.producers[key.0 as usize];
        if slot.as_ref().is_some_and(|producer| producer.queues.iter().all(Queue::is_empty)) {
            *slot = None;
            self.dirty.retain(|(producer, _)| *producer != key);
            self.durable_waiters.forget(key);
            self.free_producers.push(key);
            self.update_wanted();
        }
    }

    /// Ends a producer. One that was opening is told so and forgotten; else it stays as one that takes nothing.
    pub(super) fn fail_producer(&mut self, at: usize, delivery: &DeliveryError, request: RequestError) {
        let Some(producer) = &mut self.producers[at] else { return };
        let key = ProducerKey(u32::try_from(at).expect("producers are counted in 32 bits"));
        let was_opening = matches!(producer.state, State::Opening { .. });
        producer.state = State::Closing;
        self.for_each_queue_of(at, |queue, tell| queue.fail_all(delivery, tell));
        if was_opening {
            self.effects.push_back(Effect::ProducerFailed { producer: key, error: request });
            self.reap(key);
        }
    }

    fn for_each_queue_of(&mut self, at: usize, mut visit: impl FnMut(&mut Queue, &mut crate::tell::Tell<'_>)) {
        let (producers, mut tell) = self.split();
        let queues = producers[at].iter_mut().flat_map(|producer| &mut producer.queues);
        queues.for_each(|queue| visit(queue, &mut tell));
    }

    fn for_each_queue(
        &mut self,
        mut visit: impl FnMut(&mut Queue, corelane_model::TopicClass, &mut crate::tell::Tell<'_>),
    ) {
        let (producers, mut tell) = self.split();
        for producer in producers.iter_mut().flatten() {
            for queue in &mut producer.queues {
                visit(queue, producer.class, &mut tell);
            }
        }
        // What is in doubt no more, or failed, may let something else go.
        self.mark_where(|_, _| true);
    }
}

const fn produce_effect(connection: ConnectionKey, stream: u8, frame: OutFrame) -> Effect {
    Effect::Send { connection, stream: OutStream::Produce(stream), frame }
}

/// The correlation id of a batch.
fn correlation(producer: ProducerKey, index: u32, batch: BatchKey) -> CorrelationId {
    let producer = u64::from(producer.0) << (PARTITION_BITS + ORDINAL_BITS);
    CorrelationId(PRODUCE_BIT | producer | u64::from(index) << ORDINAL_BITS | batch.low())
}

/// Producer, partition and low bits of the batch's key; `None` for a correlation id that no produce frame has.
fn split_correlation(correlation: u64) -> Option<(ProducerKey, u32, u64)> {
    if correlation & PRODUCE_BIT == 0 {
        return None;
    }
    let producer = (correlation & !PRODUCE_BIT) >> (PARTITION_BITS + ORDINAL_BITS);
    let index = (correlation >> ORDINAL_BITS) & ((1 << PARTITION_BITS) - 1);
    let producer = u32::try_from(producer).expect("24 bits");
    Some((ProducerKey(producer), u32::try_from(index).expect("14 bits"), correlation & ((1 << ORDINAL_BITS) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_ids_keep_their_three_parts() {
        for (producer, index, batch) in
            [(0, 0, 0), (PRODUCERS_MAX - 1, (1 << PARTITION_BITS) - 1, u64::MAX), (7, 1000, 3)]
        {
            let key = BatchKey(batch);
            let parts = split_correlation(correlation(ProducerKey(producer), index, key).0);
            assert_eq!(parts, Some((ProducerKey(producer), index, key.low())));
        }
        assert_eq!(split_correlation(12), None);
    }
}
