//! Memberships of shared queues: their calls and their frames.

use std::time::Duration;

use corelane_model::{ConnectionKey, ErrorCode, Now};
use corelane_wire::{
    BodyError, Frame, JoinQueue, JoinQueueAnswer, LeaseRange, LeasesAnswer, LeaveQueue, QueueAck, QueueChange,
    QueueCredit, QueueDeliver, QueueDone, QueueExtend, QueueFenced, QueueNack, decode,
};

use super::ClientCore;
use super::group::{halves, member_of};
use crate::leasing::{LeaseAsk, LeaseAsked, Leasing, Said};
use crate::request::Asker;
use crate::timers::Timer;
use crate::{DeliveryKey, Effect, FenceReason, QueueMemberKey, QueueMemberSettings, SaidOfLeases, Verdict};

impl ClientCore {
    /// Joins a shared queue; [`crate::QueueNews`] follow until [`crate::QueueNews::Ended`]. The membership lasts through
    /// lost connections, restarts of the broker, and being put out of the queue.
    pub fn join_queue(&mut self, now: Now, settings: QueueMemberSettings) -> QueueMemberKey {
        let deadline = now.monotonic.after(self.settings.request_timeout);
        let member = self.fresh_member();
        let key = self.leasings.add(Leasing::new(settings, member, deadline));
        if self.is_closed {
            self.call_leasing(key, Leasing::on_closed);
        }
        self.update_wanted();
        key
    }

    /// Leaves a queue: what was said of records before is settled on the way, what the member still has goes to others at
    /// once. [`crate::QueueNews::Ended`] follows.
    pub fn leave_queue(&mut self, now: Now, queue: QueueMemberKey) {
        let deadline = now.monotonic.after(self.settings.request_timeout);
        self.call_leasing(queue, |leasing| leasing.leave(deadline));
    }

    /// Forgets a membership as if the process had died: what it has goes to others when its leases or its session end.
    pub fn abandon_queue(&mut self, queue: QueueMemberKey) {
        self.call_leasing(queue, Leasing::on_closed);
    }

    /// Says something of records that came together; news tell by the key what becomes of it. What is said while a frame
    /// is under way leaves with the next, so that it is cheap. `None` when the membership is over.
    pub fn say_of_leases(
        &mut self,
        now: Now,
        queue: QueueMemberKey,
        delivery: DeliveryKey,
        leases: &[LeaseRange],
        verdict: &Verdict,
    ) -> Option<SaidOfLeases> {
        let leasing = self.leasings.get_mut(queue)?;
        let key = leasing.say(now.monotonic, delivery, leases, verdict);
        let is_ready = leasing.has_verdicts_ready() || leasing.has_news();
        self.leasings.mark(queue);
        Some(SaidOfLeases { key, is_ready })
    }

    /// Microseconds that the application takes for a record, for the dispatch `least-response-time`.
    pub fn measure_leases(&mut self, queue: QueueMemberKey, micros: u32) {
        if let Some(leasing) = self.leasings.get_mut(queue) {
            leasing.measure(micros);
        }
    }

    fn call_leasing<T>(&mut self, key: QueueMemberKey, call: impl FnOnce(&mut Leasing) -> T) -> Option<T> {
        let result = call(self.leasings.get_mut(key)?);
        self.leasings.mark(key);
        self.settle_leasing(key);
        Some(result)
    }

    /// Passes on what a membership has to tell.
    fn settle_leasing(&mut self, key: QueueMemberKey) {
        let Some(leasing) = self.leasings.get_mut(key) else { return };
        let is_over = leasing.is_over;
        let news = leasing.take_news().into_iter().map(|news| Effect::Queue { queue: key, news });
        self.effects.extend(news);
        if is_over {
            self.leasings.remove(key);
            self.update_wanted();
        }
    }

    /// Asks for what memberships need, and says what they have to say.
    pub(super) fn advance_leasings(&mut self, now: Now) {
        // Who has waited for room has it before those to whom something happened.
        let next = |core: &mut Self| {
            let waiting = core.leasings.take_waiting(|connection| 0 < core.requests.verdicts_room(connection));
            waiting.or_else(|| core.leasings.take_marked())
        };
        while let Some(key) = next(self) {
            let Some(leasing) = self.leasings.get_mut(key) else { continue };
            let home = leasing.settings.group.home();
            let connection = match self.groups.homes.shard(home) {
                Some(shard) => self.links.ready(shard),
                None if self.groups.homes.is_missing() => self.links.any_ready(None),
                None => None,
            };
            let room = connection.map_or(0, |connection| self.requests.verdicts_room(connection));
            let asks = leasing.poll(now.monotonic, connection, room);
            let is_crowded = leasing.is_crowded();
            let deadline = leasing.next_deadline(connection.is_some());
            if let Some(connection) = connection {
                if is_crowded {
                    self.leasings.wait(connection, key);
                }
                asks.into_iter().for_each(|ask| self.send_lease_ask(connection, key, ask));
            }
            if let Some(deadline) = deadline.filter(|&deadline| self.leasings.arm(now.monotonic, key, deadline)) {
                self.timers.at(deadline, Timer::QueueMember(key));
            }
            self.settle_leasing(key);
        }
    }

    fn send_lease_ask(&mut self, connection: ConnectionKey, key: QueueMemberKey, ask: LeaseAsk) {
        let leasing = self.leasings.get_mut(key).expect("it has just asked");
        let (member, group) = (halves(leasing.member), leasing.settings.group.as_str().to_owned());
        let topic = leasing.topic;
        match ask {
            LeaseAsk::Join { records, bytes } => {
                let settings = &leasing.settings;
                let body = JoinQueue {
                    group,
                    topic: settings.topic.as_str().to_owned(),
                    member,
                    weight: settings.weight,
                    session_timeout_ms: u32::try_from(settings.session_timeout.as_millis()).unwrap_or(u32::MAX),
                    settings: QueueChange::from(&settings.wish),
                    start: settings.start.into(),
                    credit_records: records,
                    credit_bytes: bytes,
                };
                let correlation = self.requests.add(connection, Asker::Queue(key, LeaseAsked::Join));
                self.send_control(connection, correlation, &body);
            }
            LeaseAsk::Credit { records, bytes } => {
                let correlation = corelane_model::CorrelationId(0);
                self.send_control(connection, correlation, &QueueCredit { group, topic, member, records, bytes });
            }
            LeaseAsk::Leave => {
                let correlation = self.requests.add(connection, Asker::Queue(key, LeaseAsked::Leave));
                self.send_control(connection, correlation, &LeaveQueue { group, topic, member });
            }
            LeaseAsk::Verdict { id, said, records, bytes, processing_micros } => {
                let correlation = self.requests.add(connection, Asker::Queue(key, LeaseAsked::Verdict(id)));
                let Said { verdict, leases, .. } = said;
                let (credit_records, credit_bytes) = (records, bytes);
                self.stats.verdicts_sent += 1;
                match verdict {
                    Verdict::Ack => {
                        let body =
                            QueueAck { group, topic, member, leases, processing_micros, credit_records, credit_bytes };
                        self.send_control(connection, correlation, &body);
                    }
                    Verdict::Nack { delay, is_dead, reason } => {
                        let delay_ms = delay.map(millis);
                        let body = QueueNack {
                            group,
                            topic,
                            member,
                            leases,
                            delay_ms,
                            is_dead,
                            reason,
                            credit_records,
                            credit_bytes,
                        };
                        self.send_control(connection, correlation, &body);
                    }
                    Verdict::Extend { lease } => {
                        let body = QueueExtend { group, topic, member, leases, lease_ms: millis(lease) };
                        self.send_control(connection, correlation, &body);
                    }
                }
            }
        }
    }

    /// A request of a membership was answered.
    pub(super) fn on_queue_answer(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        (key, asked): (QueueMemberKey, LeaseAsked),
        frame: &Frame,
    ) -> Result<(), BodyError> {
        match asked {
            LeaseAsked::Join => {
                let body = decode::<JoinQueueAnswer>(frame)?;
                let topic = (body.topic, body.partitions);
                let timeout = Duration::from_millis(u64::from(body.session_timeout_ms));
                self.call_leasing(key, |leasing| leasing.on_joined(now.monotonic, connection, topic, timeout));
            }
            LeaseAsked::Verdict(id) => {
                let refused = decode::<LeasesAnswer>(frame)?.refused;
                self.call_leasing(key, |leasing| leasing.on_verdict(id, refused));
            }
            LeaseAsked::Leave => {
                corelane_wire::access::<QueueDone>(frame)?;
                self.call_leasing(key, Leasing::on_left);
            }
        }
        Ok(())
    }

    pub(super) fn on_queue_refused(
        &mut self,
        now: Now,
        (key, asked): (QueueMemberKey, LeaseAsked),
        code: ErrorCode,
        text: String,
    ) {
        let Some(leasing) = self.leasings.get_mut(key) else { return };
        let attempts = leasing.attempts;
        let retry_at = self.pause(now, attempts);
        let fresh = self.fresh_member();
        self.call_leasing(key, |leasing| leasing.on_refused(asked, (code, text), retry_at, fresh));
    }

    pub(super) fn on_queue_deliver(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        frame: &Frame,
    ) -> Result<(), BodyError> {
        let body = decode::<QueueDeliver>(frame)?;
        if let Some(key) = self.leasings.find(member_of(body.member), &body.group) {
            let records = (body.leases, frame.attachment.clone());
            let lease = (Duration::from_millis(body.lease_ms), Duration::from_millis(body.left_ms));
            self.call_leasing(key, |leasing| {
                leasing.on_delivered(now.monotonic, connection, records, body.credit_bytes, lease);
            });
        }
        Ok(())
    }

    pub(super) fn on_queue_fenced(&mut self, frame: &Frame) -> Result<(), BodyError> {
        let body = decode::<QueueFenced>(frame)?;
        if let Some(key) = self.leasings.find(member_of(body.member), &body.group) {
            let fresh = self.fresh_member();
            let reason = match body.reason {
                1 => FenceReason::SessionExpired,
                2 => FenceReason::GroupDeleted,
                _ => FenceReason::Unknown,
            };
            self.call_leasing(key, |leasing| leasing.on_fenced(reason, fresh));
        }
        Ok(())
    }

    pub(super) fn release_leasings(&mut self, connection: ConnectionKey) {
        for key in self.leasings.keys() {
            self.call_leasing(key, |leasing| leasing.on_lost(connection));
        }
    }

    /// The client is closed.
    pub(super) fn close_leasings(&mut self) {
        for key in self.leasings.keys() {
            self.call_leasing(key, Leasing::on_closed);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
