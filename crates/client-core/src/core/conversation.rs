//! Connections, their frames, metadata.

use corelane_model::limits::HELLO_TIMEOUT;
use corelane_model::{
    ConnectionKey, CorrelationId, ErrorCode, Incarnation, MonotonicNanos, Now, ProducerEpoch, ProducerId, ShardId,
    TopicName,
};
use corelane_wire::{
    BodyError, Frame, FrameKind, Hello, Metadata, MetadataAnswer, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Ping,
    Pong, ProducerIdAnswer, Refusal, RequestProducerId, SubscribeAnswer, Welcome, decode,
};

use super::ClientCore;
use crate::links::Phase;
use crate::producer::State;
use crate::request::Asker;
use crate::timers::Timer;
use crate::{ConnectFailure, Effect, ProducerKey};

/// A frame that the protocol does not allow where it came.
struct Malformed(String);

impl From<BodyError> for Malformed {
    fn from(error: BodyError) -> Self {
        Self(error.to_string())
    }
}

impl ClientCore {
    /// Starts connections that are needed and whose back-off is over.
    pub(super) fn connect_due(&mut self, now: Now) {
        for (connection, shard) in self.links.start_due(now.monotonic) {
            self.effects.push_back(Effect::Connect { connection, shard });
        }
    }

    pub(super) fn on_connected(&mut self, now: Now, connection: ConnectionKey) {
        let Some(shard) = self.links.shard_of(connection) else { return };
        let deadline = now.monotonic.after(HELLO_TIMEOUT);
        self.links.get_mut(shard).expect("a connection has a link").phase =
            Phase::Greeting { key: connection, deadline };
        self.timers.at(deadline, Timer::Link(shard));
        let session = self.settings.session.0;
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits");
        let hello = Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            session: (half(session >> 64), half(session)),
            client: self.settings.name.clone(),
            token: self.settings.token.clone(),
        };
        self.send_control(connection, CorrelationId(0), &hello);
    }

    pub(super) fn on_link_timer(&mut self, now: Now, shard: ShardId) {
        if let Some(link) = self.links.get(shard)
            && let Phase::Greeting { key, deadline } = link.phase
            && deadline <= now.monotonic
        {
            let reason = "the broker did not answer hello in time";
            self.drop_connection(now, key, ErrorCode::TimedOut, ConnectFailure::Unreachable(reason.to_owned()));
        }
    }

    /// The peer does not keep to the protocol.
    pub(super) fn on_garbage(&mut self, now: Now, connection: ConnectionKey, text: &str) {
        let failure = ConnectFailure::Unreachable(format!("the broker sent what the protocol does not allow: {text}"));
        self.drop_connection(now, connection, ErrorCode::Malformed, failure);
    }

    pub(super) fn on_disconnected(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        code: Option<ErrorCode>,
        reason: String,
    ) {
        let failure = match code {
            Some(code) => ConnectFailure::Refused { code, text: reason },
            None => ConnectFailure::Unreachable(reason),
        };
        self.on_lost(now, connection, failure);
    }

    fn drop_connection(&mut self, now: Now, connection: ConnectionKey, code: ErrorCode, failure: ConnectFailure) {
        if self.links.shard_of(connection).is_some() {
            self.effects.push_back(Effect::Close { connection, code: Some(code), reason: failure.to_string() });
            self.on_lost(now, connection, failure);
        }
    }

    /// A connection is gone or was never made: everything that hung on it waits for the next one.
    pub(super) fn on_lost(&mut self, now: Now, connection: ConnectionKey, failure: ConnectFailure) {
        let Some(shard) = self.links.shard_of(connection) else { return };
        let link = self.links.get_mut(shard).expect("a connection has a link");
        if matches!(link.phase, Phase::Ready { .. } | Phase::Leaving { .. }) {
            self.stats.connections_lost += 1;
        }
        let attempts = link.attempts;
        link.attempts = attempts.saturating_add(1);
        let retry_at = self.pause(now, attempts);
        self.links.forget(connection, retry_at);
        self.timers.at(retry_at, Timer::Link(shard));
        self.release_connection(now, connection, retry_at);
        self.effects.push_back(Effect::Unreachable { shard, failure });
    }

    fn release_connection(&mut self, now: Now, connection: ConnectionKey, retry_at: MonotonicNanos) {
        for queue in self.producers.iter_mut().flatten().flat_map(|producer| &mut producer.queues) {
            queue.on_disconnected(connection);
        }
        for asker in self.requests.take_lost(connection) {
            match asker {
                Asker::Metadata(names) => self.topics.on_failed(&names, retry_at),
                Asker::ProducerId(producer) => self.retry_identity(producer, retry_at),
                // Subscriptions know their connection.
                Asker::Subscription(_) => {}
                Asker::Operation(operation) => self.on_operation_lost(operation),
                Asker::Homes => self.retry_homes(retry_at),
                // Memberships know their connection.
                Asker::Group(..) | Asker::Queue(..) => {}
            }
        }
        self.release_appends(connection);
        self.release_subscriptions(connection);
        self.release_groups(connection);
        self.release_leasings(connection);
        self.has_chores = true;
        // Requests may go on by another connection at once, and have to be looked at when their back-off is over.
        self.timers.at(retry_at.max(now.monotonic), Timer::Metadata);
    }

    pub(super) fn on_frame(&mut self, now: Now, connection: ConnectionKey, frame: &Frame) {
        let Some(shard) = self.links.shard_of(connection) else { return };
        let phase = self.links.get(shard).expect("a connection has a link").phase;
        let result = match phase {
            Phase::Greeting { .. } => self.on_first_frame(now, connection, shard, frame),
            Phase::Ready { .. } | Phase::Leaving { .. } => self.on_later_frame(now, connection, shard, frame),
            Phase::Absent { .. } | Phase::Connecting { .. } => Err(Malformed("a frame before hello".to_owned())),
        };
        if let Err(Malformed(text)) = result {
            self.on_garbage(now, connection, &text);
        }
    }

    fn on_first_frame(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        shard: ShardId,
        frame: &Frame,
    ) -> Result<(), Malformed> {
        match frame.head.kind {
            FrameKind::Welcome => self.on_welcome(now, connection, shard, &decode::<Welcome>(frame)?),
            FrameKind::Refusal => {
                let Refusal { code, text } = decode::<Refusal>(frame)?;
                let code = ErrorCode::from_wire(code);
                self.drop_connection(now, connection, code, ConnectFailure::Refused { code, text });
                Ok(())
            }
            kind => Err(Malformed(format!("a {kind:?} frame before welcome"))),
        }
    }

    fn on_welcome(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        shard: ShardId,
        welcome: &Welcome,
    ) -> Result<(), Malformed> {
        if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION_MAX).contains(&welcome.version) {
            return Err(Malformed(format!("protocol version {} was not offered", welcome.version)));
        }
        let link = self.links.get_mut(shard).expect("a connection has a link");
        link.phase = Phase::Ready { key: connection };
        link.attempts = 0;
        self.stats.connections_ready += 1;
        let incarnation = Incarnation(welcome.incarnation);
        match self.incarnation.replace(incarnation) {
            Some(before) if before != incarnation => self.on_new_incarnation(now, connection),
            Some(_) | None => {}
        }
        self.effects.push_back(Effect::Ready { shard });
        self.mark_shard(shard);
        self.groups.mark_all();
        self.leasings.mark_all();
        self.has_chores = true;
        Ok(())
    }

    /// The broker was started anew: other connections lead to a process that is gone, and shards may own other partitions.
    fn on_new_incarnation(&mut self, now: Now, newest: ConnectionKey) {
        self.stats.incarnations += 1;
        let old: Vec<ConnectionKey> = self.links.keys().filter(|&key| key != newest).collect();
        for connection in old {
            let shard = self.links.shard_of(connection).expect("a connection has a link");
            if matches!(self.links.get(shard).map(|link| link.phase), Some(Phase::Ready { .. } | Phase::Leaving { .. }))
            {
                self.links.forget(connection, now.monotonic);
                self.release_connection(now, connection, now.monotonic);
                let reason = "the broker restarted".to_owned();
                self.effects.push_back(Effect::Close { connection, code: None, reason });
            }
        }
        self.topics.refresh_all();
        self.groups.homes.refresh();
        self.on_producers_incarnation();
    }

    fn on_later_frame(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        shard: ShardId,
        frame: &Frame,
    ) -> Result<(), Malformed> {
        match frame.head.kind {
            FrameKind::ProduceAnswers => self.on_produce_answers(now, connection, frame)?,
            FrameKind::DurableEnds => self.on_durable_ends(frame)?,
            FrameKind::StorageStopped => self.on_storage_stopped(connection, frame)?,
            FrameKind::Push => self.on_push(connection, frame)?,
            FrameKind::PushMany => self.on_push_many(connection, frame)?,
            FrameKind::Passed => self.on_passed(connection, frame)?,
            FrameKind::SubscriptionEnded => self.on_subscription_ended(now, connection, frame)?,
            FrameKind::GroupAssignment => self.on_group_assignment(now, connection, frame)?,
            FrameKind::HandOver => self.on_hand_over(connection, frame)?,
            FrameKind::MemberFenced => self.on_member_fenced(frame)?,
            FrameKind::QueueDeliver => self.on_queue_deliver(now, connection, frame)?,
            FrameKind::QueueFenced => self.on_queue_fenced(frame)?,
            FrameKind::Goaway => {
                self.links.get_mut(shard).expect("a connection has a link").phase = Phase::Leaving { key: connection };
            }
            FrameKind::Ping => {
                let Ping { payload } = decode::<Ping>(frame)?;
                self.send_control(connection, frame.head.correlation, &Pong { payload });
            }
            FrameKind::Pong => {}
            _ => return self.on_answer(now, connection, frame),
        }
        Ok(())
    }

    fn on_answer(&mut self, now: Now, connection: ConnectionKey, frame: &Frame) -> Result<(), Malformed> {
        // An answer that nobody waits for any more is no fault: its request may have timed out.
        let Some(asker) = self.requests.take(connection, frame.head.correlation) else { return Ok(()) };
        // Commits and acknowledgements come often, and change nothing for anybody else.
        self.has_chores |= !matches!(asker, Asker::Group(..) | Asker::Queue(..));
        if frame.head.kind == FrameKind::Refusal {
            let Refusal { code, text } = decode::<Refusal>(frame)?;
            self.on_refusal(now, connection, asker, ErrorCode::from_wire(code), text);
            return Ok(());
        }
        match asker {
            Asker::Metadata(names) => {
                let answer = decode::<MetadataAnswer>(frame)?;
                self.on_metadata(now, &names, &answer);
            }
            Asker::ProducerId(producer) => {
                let answer = decode::<ProducerIdAnswer>(frame)?;
                self.on_identity(producer, ProducerId(answer.producer), ProducerEpoch(answer.epoch));
            }
            Asker::Subscription(key) => self.on_subscribed(now, key, connection, &decode::<SubscribeAnswer>(frame)?),
            Asker::Operation(operation) => self.on_operation_answer(operation, frame),
            Asker::Homes => self.on_homes(&decode::<MetadataAnswer>(frame)?),
            Asker::Group(group, asked) => self.on_group_answer(now, connection, (group, asked), frame)?,
            Asker::Queue(queue, asked) => self.on_queue_answer(now, connection, (queue, asked), frame)?,
        }
        Ok(())
    }

    fn on_refusal(&mut self, now: Now, connection: ConnectionKey, asker: Asker, code: ErrorCode, text: String) {
        match asker {
            Asker::Metadata(names) => {
                let retry_at = self.pause(now, 2);
                self.topics.on_failed(&names, retry_at);
                self.timers.at(retry_at, Timer::Metadata);
            }
            Asker::ProducerId(producer) => self.on_identity_refused(now, producer, code, text),
            Asker::Subscription(key) => self.on_subscription_refused(now, key, connection, code, text),
            Asker::Operation(operation) => self.on_operation_refused(now, operation, code, text),
            Asker::Homes => {
                let retry_at = self.pause(now, 2);
                self.retry_homes(retry_at);
            }
            Asker::Group(group, asked) => self.on_group_refused(now, connection, (group, asked), (code, text)),
            Asker::Queue(queue, asked) => self.on_queue_refused(now, (queue, asked), code, text),
        }
    }

    /// Asks about topics whose state is not known or may have changed.
    pub(super) fn ask_metadata(&mut self, now: Now) {
        let Some(connection) = self.links.any_ready(None) else { return };
        let names = self.topics.take_stale(now.monotonic);
        if names.is_empty() {
            return;
        }
        let wire_names = names.iter().map(|name| name.as_str().to_owned()).collect();
        let correlation = self.requests.add(connection, Asker::Metadata(names));
        self.send_control(connection, correlation, &Metadata { names: wire_names });
    }

    /// Asks again for what may have become old.
    pub(super) fn on_metadata_timer(&mut self, now: Now) {
        if self.refresh_at.is_some_and(|refresh_at| refresh_at <= now.monotonic) {
            self.topics.refresh_all();
            self.refresh_at = None;
        }
    }

    fn on_metadata(&mut self, now: Now, names: &[TopicName], answer: &MetadataAnswer) {
        self.topics.on_answer(names, &answer.topics);
        for name in names {
            self.on_topic_changed(now, name);
        }
        self.update_wanted();
        // What nobody uses is forgotten here rather than with each of its users.
        let unused: Vec<TopicName> = names.iter().filter(|name| !self.is_topic_used(name)).cloned().collect();
        self.topics.retain(|name| !unused.contains(name));
        if self.refresh_at.is_none() && !self.topics.is_empty() {
            let refresh_at = now.monotonic.after(self.settings.metadata_refresh);
            self.refresh_at = Some(refresh_at);
            self.timers.at(refresh_at, Timer::Metadata);
        }
    }

    /// Asks for the identities that producers need.
    pub(super) fn ask_identities(&mut self, now: Now) {
        let Some(connection) = self.links.any_ready(None) else { return };
        for at in 0..self.producers.len() {
            let Some(producer) = &mut self.producers[at] else { continue };
            let identity = &mut producer.identity;
            if producer.state == State::Gone || identity.wanted.is_none_or(|retry_at| now.monotonic < retry_at) {
                continue;
            }
            identity.wanted = None;
            identity.is_asked = true;
            let (id, epoch) = identity.question();
            let key = ProducerKey(u32::try_from(at).expect("producers are counted in 32 bits"));
            let correlation = self.requests.add(connection, Asker::ProducerId(key));
            self.send_control(connection, correlation, &RequestProducerId { producer: id, epoch });
        }
    }
}
