//! What a round does for the queues of the homes of this shard.

use corelane_model::PartitionIndex;
use corelane_queue::{AppendPosition, Effect, FenceReason, QueueName};
use corelane_record::BatchBuilder;
use corelane_session::Refused;

use super::QueueKey;
use super::home::Homed;
use super::letters::{Cause, Want};
use super::tell::{QueueAnswer, fenced};
use crate::Shard;
use crate::ask::Answer;
use crate::groups::Reach;

impl Shard {
    /// A queue of a home here, if it is still in this life.
    pub(super) fn homed(&mut self, key: &QueueKey) -> Option<&mut Homed> {
        let queues = self.groups.queues_of(key.home)?;
        queues.by_name.get_mut(&key.name).filter(|homed| homed.serial == key.serial)
    }

    /// Something happened to a queue: its round has to be ended, in this round of the shard or in the next.
    pub(super) fn touch_queue(&mut self, key: &QueueKey) {
        if let Some(queues) = self.groups.queues_of(key.home) {
            queues.touch(&key.name);
            self.is_storage_touched = true;
        }
    }

    pub(super) fn take_builder(&mut self) -> BatchBuilder {
        std::mem::replace(&mut self.groups.builder, BatchBuilder::new(corelane_record::Compression::None))
    }

    pub(super) fn return_builder(&mut self, builder: BatchBuilder) {
        self.groups.builder = builder;
    }

    /// Ends leases, rests and sessions whose time has come. All wait while the shard may be late, as groups do.
    pub(crate) fn meet_queue_deadlines(&mut self, home: PartitionIndex) {
        let now = self.now;
        if now.monotonic < self.groups.lenient_until {
            return;
        }
        let Some(queues) = self.groups.queues_of(home) else { return };
        while let Some((at, name)) = queues.deadlines.first().cloned()
            && at <= now.monotonic
        {
            let homed = queues.by_name.get_mut(&name).expect("deadlines are those of queues");
            homed.queue.on_deadline(now);
            queues.touch(&name);
            let before = queues.deadlines.len();
            queues.arm(&name);
            if queues.deadlines.first() == Some(&(at, name)) && before == queues.deadlines.len() {
                // What is due moves on when the queue's round ends.
                break;
            }
        }
    }

    /// Ends the rounds of a home's queues.
    pub(crate) fn finish_queues(&mut self, home: PartitionIndex) {
        self.renew_topics(home);
        self.meet_queue_deadlines(home);
        let now = self.now;
        let Some(queues) = self.groups.queues_of(home) else { return };
        for name in queues.take_touched() {
            let Some(homed) = self.groups.queues_of(home).and_then(|queues| queues.by_name.get_mut(&name)) else {
                continue;
            };
            let key = QueueKey { home, serial: homed.serial, name };
            self.step_redrive(&key);
            let Some(homed) = self.homed(&key) else { continue };
            homed.queue.finish_round(now);
            self.pump_queue(&key);
            if let Some(queues) = self.groups.queues_of(home) {
                queues.arm(&key.name);
            }
        }
    }

    /// Records of a home up to here are durable: what waited for them leaves.
    pub(crate) fn on_queue_durable(&mut self, home: PartitionIndex, name: QueueName, serial: u64, position: u64) {
        let key = QueueKey { home, name, serial };
        if let Some(homed) = self.homed(&key) {
            homed.queue.on_durable(AppendPosition(position));
            self.pump_queue(&key);
        }
    }

    /// Takes a queue's effects.
    pub(super) fn pump_queue(&mut self, key: &QueueKey) {
        let Some(homed) = self.homed(key) else { return };
        let effects: Vec<_> = std::iter::from_fn(|| homed.queue.poll_effect()).collect();
        for effect in effects {
            match effect {
                Effect::Append { position, key: record, value } => {
                    let reach = Reach::queue(key.name.clone(), key.serial, position.0);
                    self.groups.append(key.home, record, value, reach);
                    self.is_storage_touched = true;
                }
                Effect::Answer { ticket, answer } => {
                    let Some(homed) = self.homed(key) else { continue };
                    let Some(asked) = homed.asked.remove(&ticket) else { continue };
                    let answer = QueueAnswer::of(answer, &asked, &homed.queue);
                    self.answer(asked.asker, None, Answer::Queue(answer));
                }
                Effect::Refuse { ticket, error } => {
                    let asked = self.homed(key).and_then(|homed| homed.asked.remove(&ticket));
                    if let Some(asked) = asked {
                        self.refuse(asked.asker, None, Refused::new(error.code(), error.to_string()));
                    }
                }
                Effect::Deliver { member, leases, lease, .. } => {
                    let until = self.now.monotonic.after(lease);
                    self.give_records(key, &Want::Deliver { member, lease, until }, leases);
                }
                Effect::FindStart { partition, start } => self.ask_offset(key, partition, start, true),
                Effect::Read { partition, from, bytes } => self.read_queue(key, partition, from, bytes),
                Effect::DeadLetter { partition, offset, topic, deliveries, first_failed, reason } => {
                    let cause = Cause { topic, deliveries, first_failed, reason: reason.to_string() };
                    let run = corelane_queue::LeaseRun { partition, first: offset, count: 1, attempt: deliveries };
                    self.give_records(key, &Want::Letter(Box::new(cause)), vec![run]);
                }
                Effect::Redrive { topic, from, of, most, at, .. } => {
                    self.start_redrive(key, topic, (of, from), most, at);
                }
                Effect::Fence { member, reason } => {
                    let peer = self.homed(key).and_then(|homed| homed.speakers.remove(&member));
                    if let Some(peer) = peer {
                        let number = match reason {
                            FenceReason::SessionExpired => 1,
                            FenceReason::QueueDeleted => 2,
                        };
                        self.notify_member(peer, fenced(&key.name, member, number, reason.to_string()));
                    }
                }
                Effect::Remove => self.remove_queue(key),
            }
        }
    }

    fn remove_queue(&mut self, key: &QueueKey) {
        self.stop_reading(key);
        if let Some(homed) = self.homed(key) {
            let stats = *homed.queue.stats();
            self.queues.retired.merge(&stats);
        }
        if let Some(queues) = self.groups.queues_of(key.home) {
            queues.remove(&key.name);
        }
    }

    /// Looks queues' topics up in the newest catalog: they may have more partitions, or be gone.
    fn renew_topics(&mut self, home: PartitionIndex) {
        let now = self.now;
        let Self { groups, catalog, .. } = self;
        let (Some(queues), Some(catalog)) = (groups.queues_of(home), catalog.as_ref()) else { return };
        if !std::mem::take(&mut queues.are_stale) {
            return;
        }
        let broken: Vec<QueueName> =
            queues.broken.keys().filter(|name| catalog.topic(name.topic).is_none()).cloned().collect();
        for name in &broken {
            self.raise_remains(home, name);
        }
        let Self { groups, catalog, .. } = self;
        let (Some(queues), Some(catalog)) = (groups.queues_of(home), catalog.as_ref()) else { return };
        let names: Vec<QueueName> = queues.by_name.keys().cloned().collect();
        for name in names {
            let homed = queues.by_name.get_mut(&name).expect("it is listed");
            match catalog.topic(name.topic) {
                Some(topic) => homed.queue.on_partitions(topic.partition_count()),
                None => homed.queue.on_topic_deleted(now),
            }
            queues.touch(&name);
        }
    }
}
