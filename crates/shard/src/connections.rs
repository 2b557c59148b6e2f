//! Connections of this shard: frames in, answers out.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use corelane_model::limits::{OUTCOME_HOLD, SESSION_PRODUCERS_MAX, SHARD_CONNECTIONS_MAX};
use corelane_model::{
    CatalogVersion, ConnectionKey, CorrelationId, ErrorCode, MonotonicNanos, Offset, PartitionId, ProducerId,
    SessionId, ShardId, SubscriptionId,
};
use corelane_record::SealedBatch;
use corelane_session::{Facts, ProduceRequest, Refused, Request, Session, Step};
use corelane_wire::{
    AlterTopicAnswer, CreateTopicAnswer, FindOffsetAnswer, Frame, FrameError, OutFrame, Passed, StorageStopped,
    SubscribeAnswer, SubscriptionEnded, TopicDone, encode,
};

use crate::ask::{Answer, Ask, Asker, CatalogRequest, Ending, Outcome, PartitionRequest, Peer, PushBatches, Wish};
use crate::mesh::Message;
use crate::queues::INSIDE;
use crate::shard_set::ShardSet;
use crate::transactions::TransactionAnswer;
use crate::{Effect, OutStream, Shard};

/// A connection of this shard.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Session,
    /// It is in [`Shard::gathering`].
    is_gathering: bool,
    /// It is in [`Shard::early`].
    is_early: bool,
    /// Too much waits to be sent on it.
    pub(crate) is_congested: bool,
    /// Shards that hold a subscription of it.
    pub(crate) known_to: ShardSet,
    /// Producer ids of batches that came on it and are its client's.
    producers: BTreeSet<ProducerId>,
    /// Bytes of large answers in the round of this number.
    pub(crate) answered: (u64, u64),
}

impl Shard {
    pub(crate) fn handle_connected(&mut self, connection: ConnectionKey) {
        if let Some(refused) = self.refuse_phase().filter(|refused| refused.code == ErrorCode::ShuttingDown) {
            return self.close(connection, refused);
        }
        if SHARD_CONNECTIONS_MAX <= self.connections.len() {
            let text = format!("this shard has {SHARD_CONNECTIONS_MAX} connections already");
            self.close(connection, Refused::new(ErrorCode::LimitReached, text));
            return;
        }
        let Entry::Vacant(vacant) = self.connections.entry(connection) else {
            panic!("connection {connection} came twice");
        };
        let session = Session::new(self.now);
        if let Some(deadline) = session.deadline() {
            self.greetings.push_back((deadline, connection));
        }
        vacant.insert(Connection {
            session,
            is_gathering: false,
            is_early: false,
            is_congested: false,
            known_to: ShardSet::default(),
            producers: BTreeSet::new(),
            answered: (0, 0),
        });
    }

    pub(crate) fn handle_frame(&mut self, connection: ConnectionKey, frame: Frame) {
        self.stats.frames += 1;
        let facts = Facts {
            incarnation: self.config.incarnation,
            shards: self.config.shards,
            shard: self.config.shard,
            catalog_version: self.catalog.as_ref().map_or(CatalogVersion(0), |catalog| catalog.version()),
            wall: self.now.wall,
            tokens: &self.config.tokens,
        };
        // A connection that was closed may still have frames under way.
        let Some(state) = self.connections.get_mut(&connection) else { return };
        match state.session.handle(facts, frame) {
            Step::Reply(frame) => self.send_control(connection, frame),
            Step::Gathered => {
                self.gather_on(connection);
            }
            Step::Request(request) => self.handle_request(connection, request),
            Step::Close(refused) => self.close(connection, refused),
            Step::Ignored => {}
        }
    }

    pub(crate) fn handle_garbage(&mut self, connection: ConnectionKey, error: FrameError) {
        if self.connections.contains_key(&connection) {
            let code = match error {
                FrameError::TooLarge { .. } => ErrorCode::FrameTooLarge,
                FrameError::UnknownKind { .. } => ErrorCode::UnexpectedFrame,
                FrameError::BodyTooLarge { .. } | FrameError::Reserved { .. } => ErrorCode::Malformed,
            };
            self.close(connection, Refused::new(code, error.to_string()));
        }
    }

    pub(crate) fn handle_congestion(&mut self, connection: ConnectionKey, is_congested: bool) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        if std::mem::replace(&mut state.is_congested, is_congested) == is_congested {
            return;
        }
        let known_to = state.known_to;
        let me = Peer { shard: self.me(), connection };
        if is_congested {
            self.pause(me);
        } else {
            self.resume(me);
        }
        for shard in known_to.iter() {
            let message =
                if is_congested { Message::Congested { connection } } else { Message::Relieved { connection } };
            self.send_mesh(shard, message);
        }
    }

    /// Forgets a connection here and wherever it is known.
    pub(crate) fn forget_connection(&mut self, connection: ConnectionKey) {
        let Some(state) = self.connections.remove(&connection) else { return };
        self.stats.refusals += state.session.stats().refusals;
        for shard in state.known_to.iter() {
            self.send_mesh(shard, Message::Gone { connection });
        }
        self.forget_peer(Peer { shard: self.me(), connection });
    }

    /// Forgets what a connection, of this shard or another, had going on here. Batches that it sent stay.
    pub(crate) fn forget_peer(&mut self, peer: Peer) {
        self.parked.forget(peer);
        self.end_subscriptions_of(peer);
        self.subscriptions.resume(peer);
    }

    fn close(&mut self, connection: ConnectionKey, refused: Refused) {
        self.stats.closes += 1;
        self.flush_connection(connection);
        self.effects.push_back(Effect::Close { connection, code: refused.code, reason: refused.text });
        self.forget_connection(connection);
    }

    fn handle_request(&mut self, connection: ConnectionKey, request: Request) {
        let peer = Peer { shard: self.me(), connection };
        let asker = |correlation| Asker { peer, correlation };
        let mut own = ProducerId::NONE;
        match request {
            Request::Produce(produce) => self.handle_produce(peer, produce, &mut own),
            Request::ProduceMany(batches) => {
                // The session may have refused some of them by itself.
                self.gather_on(connection);
                batches.into_iter().for_each(|produce| self.handle_produce(peer, produce, &mut own));
            }
            Request::Metadata { correlation, names } => self.answer_metadata(asker(correlation), &names),
            Request::CreateTopic { correlation, name, partitions, settings } => {
                self.wish(asker(correlation), Wish::Create { name, partitions, settings });
            }
            Request::AlterTopic { correlation, name, partitions, settings } => {
                self.wish(asker(correlation), Wish::Alter { name, partitions, settings });
            }
            Request::DeleteTopic { correlation, name } => self.wish(asker(correlation), Wish::Delete { name }),
            Request::Truncate { correlation, partition, before } => {
                self.route(PartitionRequest { asker: asker(correlation), partition, ask: Ask::Truncate { before } });
            }
            Request::DescribeTopic { correlation, name, from, most } => {
                self.describe_topic(asker(correlation), &name, from, most);
            }
            Request::ProducerId { correlation, raise } => self.ask_producer_id(asker(correlation), raise),
            Request::FindOffset { correlation, partition, start, isolation } => {
                let ask = Ask::Find { start, isolation };
                self.route(PartitionRequest { asker: asker(correlation), partition, ask });
            }
            Request::Subscribe { correlation, subscription, partition, start, credit, isolation } => {
                let state = self.connections.get_mut(&connection).expect("its request was just handled");
                // The id is taken; the owner becomes known when the request is routed.
                let serial = state.session.open_subscription(subscription, partition, peer.shard);
                let ask = Ask::Subscribe { subscription, serial, start, credit, isolation };
                self.route(PartitionRequest { asker: asker(correlation), partition, ask });
            }
            Request::Credit { subscription, bytes } => self.handle_credit(peer, subscription, bytes),
            Request::Unsubscribe { subscription } => self.handle_unsubscribe(peer, subscription),
            Request::Transaction(request) => self.handle_transaction(peer, request),
            Request::Group(request) => self.handle_group(peer, request),
            Request::Queue(request) => self.handle_queue(peer, request),
            Request::ListQueues { correlation, after, most } => {
                self.list_queues(asker(correlation), &after, most);
            }
            Request::ListGroups { correlation, after, most } => self.list_groups(asker(correlation), &after, most),
        }
    }

    /// `own` is a producer of which the caller found before that it is the client's; the batches of a bundle mostly have one.
    fn handle_produce(&mut self, peer: Peer, produce: ProduceRequest, own: &mut ProducerId) {
        let ProduceRequest { correlation, partition, acks, batch } = produce;
        let batch_bytes = batch.len() as u64;
        if let Some(refused) = self.refuse_phase() {
            return self.tell_outcome(peer.connection, correlation, batch_bytes, &Err(Box::new(refused)), false);
        }
        match SealedBatch::parse(batch) {
            Ok(batch) if !self.is_own_again(peer.connection, batch.head().producer_id, own) => {
                let text = format!("producer id {} was handed to another client", batch.head().producer_id);
                let refused = Refused::new(ErrorCode::ProducerFenced, text);
                self.tell_outcome(peer.connection, correlation, batch_bytes, &Err(Box::new(refused)), false);
            }
            Ok(batch) => {
                let asker = Asker { peer, correlation };
                self.route(PartitionRequest { asker, partition, ask: Ask::Append { acks, batch } });
            }
            Err(error) => {
                let code = match error {
                    corelane_record::BatchError::TooLarge { .. } => ErrorCode::BatchTooLarge,
                    _ => ErrorCode::CorruptBatch,
                };
                let refused = Refused::new(code, error.to_string());
                self.tell_outcome(peer.connection, correlation, batch_bytes, &Err(Box::new(refused)), false);
            }
        }
    }

    /// As [`Self::is_own_producer`]; `own` is one of which that is known, and afterwards this one if it is.
    fn is_own_again(&mut self, connection: ConnectionKey, producer: ProducerId, own: &mut ProducerId) -> bool {
        let is_own = producer == *own || self.is_own_producer(connection, producer);
        if is_own {
            *own = producer;
        }
        is_own
    }

    /// Whether the client of a connection may send batches of this producer. What was found is kept, since the seal costs
    /// more than the look-up.
    pub(crate) fn is_own_producer(&mut self, connection: ConnectionKey, producer: ProducerId) -> bool {
        let Some(state) = self.connections.get_mut(&connection) else { return false };
        if producer == ProducerId::NONE || state.producers.contains(&producer) {
            return true;
        }
        let is_own = state.session.client().is_some_and(|(session, _)| self.seal.is_of(session, producer));
        if is_own {
            if SESSION_PRODUCERS_MAX <= state.producers.len() {
                state.producers.clear();
            }
            state.producers.insert(producer);
        }
        is_own
    }

    /// The session id of a connection here that was welcomed.
    pub(crate) fn session_of(&self, connection: ConnectionKey) -> Option<SessionId> {
        self.connections.get(&connection)?.session.client().map(|(session, _)| session)
    }

    fn handle_credit(&mut self, peer: Peer, subscription: SubscriptionId, bytes: u64) {
        let Some(state) = self.connections.get(&peer.connection) else { return };
        // Credit for a subscription that has just ended by itself crosses the news of it.
        let Some(&route) = state.session.subscription(subscription) else { return };
        if route.owner == self.me() {
            self.add_credit(peer, subscription, bytes);
        } else {
            self.send_mesh(route.owner, Message::Credit { connection: peer.connection, subscription, bytes });
        }
    }

    fn handle_unsubscribe(&mut self, peer: Peer, subscription: SubscriptionId) {
        let Some(state) = self.connections.get_mut(&peer.connection) else { return };
        let Some(route) = state.session.close_subscription(subscription) else { return };
        if let Some(request) = self.parked.take_subscribe(peer, subscription) {
            let text = "the subscription was ended before it began";
            self.refuse_request(request, Refused::new(ErrorCode::UnknownSubscription, text));
        } else if route.owner == self.me() {
            self.end_subscription(peer, subscription);
        } else {
            self.send_mesh(route.owner, Message::Unsubscribe { connection: peer.connection, subscription });
        }
    }

    fn wish(&mut self, asker: Asker, wish: Wish) {
        let request = CatalogRequest { asker: Some(asker), wish };
        if self.me() == ShardId(0) {
            self.handle_wish(request);
        } else {
            self.stats.forwards += 1;
            self.send_mesh(ShardId(0), Message::Wish(Box::new(request)));
        }
    }

    /// Answers a request, here or through the shard that the asker is on.
    pub(crate) fn answer(&mut self, asker: Asker, subscription: Option<(SubscriptionId, u64)>, answer: Answer) {
        self.answer_or_refuse(asker, subscription, Ok(answer));
    }

    /// Refuses a request, here or through the shard that the asker is on.
    pub(crate) fn refuse(&mut self, asker: Asker, subscription: Option<(SubscriptionId, u64)>, refused: Refused) {
        self.answer_or_refuse(asker, subscription, Err(refused));
    }

    fn answer_or_refuse(
        &mut self,
        asker: Asker,
        subscription: Option<(SubscriptionId, u64)>,
        answer: Result<Answer, Refused>,
    ) {
        let Asker { peer: Peer { shard, connection }, correlation } = asker;
        if shard == self.me() {
            self.tell_answer(connection, correlation, subscription, answer);
        } else {
            let answer = Box::new(answer);
            self.send_mesh(shard, Message::Answer { connection, correlation, subscription, answer });
        }
    }

    /// The answer to a request of a connection here.
    pub(crate) fn tell_answer(
        &mut self,
        connection: ConnectionKey,
        correlation: CorrelationId,
        subscription: Option<(SubscriptionId, u64)>,
        answer: Result<Answer, Refused>,
    ) {
        if connection == INSIDE {
            return self.on_inside_answer(correlation, answer);
        }
        let Some(state) = self.connections.get_mut(&connection) else { return };
        let session = &mut state.session;
        let frame = match answer {
            Ok(answer) => encode_answer(session, correlation, &answer),
            Err(refused) => {
                if let Some((subscription, serial)) = subscription
                    && session.subscription(subscription).is_some_and(|route| route.serial == serial)
                {
                    session.close_subscription(subscription);
                }
                session.refuse(correlation, &refused)
            }
        };
        self.send_control(connection, frame);
    }

    /// The outcome of an append for a connection here; `is_end_due` says that its durable end is to follow.
    pub(crate) fn tell_outcome(
        &mut self,
        connection: ConnectionKey,
        correlation: CorrelationId,
        batch_bytes: u64,
        outcome: &Outcome,
        is_end_due: bool,
    ) {
        if connection == INSIDE {
            return self.on_inside_outcome(correlation, outcome);
        }
        let Some(session) = self.gather_on(connection) else { return };
        match outcome {
            Ok(appended) if is_end_due => session.answer_produce_early(correlation, batch_bytes, *appended),
            outcome => {
                let outcome = outcome.as_ref().copied().map_err(AsRef::as_ref);
                session.answer_produce(correlation, batch_bytes, outcome);
            }
        }
    }

    /// A durable end for a connection here.
    pub(crate) fn tell_durable(&mut self, connection: ConnectionKey, partition: PartitionId, end: Offset) {
        if connection == INSIDE {
            return self.on_inside_durable(partition, end);
        }
        if let Some(session) = self.gather_on(connection) {
            session.tell_durable(partition, end);
        }
    }

    /// Batches for a subscription of a connection here; those for one that has ended are dropped.
    pub(crate) fn tell_push(&mut self, push: PushBatches) {
        if push.connection == INSIDE {
            return self.on_inside_push(push);
        }
        let PushBatches { connection, subscription, serial, high_watermark, batches } = push;
        if let Some(session) = self.gather_on(connection) {
            session.push((subscription, serial), high_watermark, batches);
        }
    }

    /// Sends the pushes that a connection gathered in this round.
    fn send_pushes(&mut self, connection: ConnectionKey) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        state.session.take_pushes(|slot, frame| {
            self.effects.push_back(Effect::Send { connection, stream: OutStream::Push(slot), frame });
        });
    }

    /// A subscription of a connection here has passed what was aborted.
    pub(crate) fn tell_passed(
        &mut self,
        connection: ConnectionKey,
        subscription: SubscriptionId,
        serial: u64,
        (next, high_watermark): (Offset, Offset),
    ) {
        if connection == INSIDE {
            return self.on_inside_passed(subscription, next, high_watermark);
        }
        self.send_pushes(connection);
        let Some(state) = self.connections.get(&connection) else { return };
        let Some(route) = state.session.subscription(subscription).filter(|route| route.serial == serial) else {
            return;
        };
        let stream = OutStream::Push(route.slot);
        let body = Passed { subscription: subscription.0, next: next.0, high_watermark: high_watermark.0 };
        let frame = encode(CorrelationId(0), &body);
        self.effects.push_back(Effect::Send { connection, stream, frame });
    }

    /// A subscription of a connection here ended by itself. The news goes behind its pushes on their stream: what was
    /// pushed before the end is read before it.
    pub(crate) fn tell_ended(
        &mut self,
        connection: ConnectionKey,
        subscription: SubscriptionId,
        serial: u64,
        ending: Ending,
    ) {
        if connection == INSIDE {
            return self.on_inside_ended(subscription, ending);
        }
        self.send_pushes(connection);
        let Some(state) = self.connections.get_mut(&connection) else { return };
        let Some(route) = state.session.subscription(subscription).filter(|route| route.serial == serial) else {
            return;
        };
        let stream = OutStream::Push(route.slot);
        state.session.close_subscription(subscription);
        let Ending { refused, range } = ending;
        let body = SubscriptionEnded {
            subscription: subscription.0,
            code: refused.code.to_wire(),
            range: range.map(|range| (range.start.0, range.end.0)),
            text: refused.text,
        };
        let frame = encode(CorrelationId(0), &body);
        self.effects.push_back(Effect::Send { connection, stream, frame });
    }

    /// The journal of a shard failed: everybody hears of it.
    pub(crate) fn tell_stopped(&mut self, shard: ShardId, text: &str) {
        // Outcomes so far go first, since the notice is about what came before it.
        self.flush_gathered();
        self.release_all_early();
        let frame = encode(CorrelationId(0), &StorageStopped { shard: shard.0, text: text.to_owned() });
        for (&connection, _) in self.connections.iter().filter(|(_, state)| state.session.is_open()) {
            self.effects.push_back(Effect::Send { connection, stream: OutStream::Control, frame: frame.clone() });
        }
    }

    pub(crate) fn send_control(&mut self, connection: ConnectionKey, frame: OutFrame) {
        self.effects.push_back(Effect::Send { connection, stream: OutStream::Control, frame });
    }

    /// The session of a connection here, whose gathered frames leave at the end of the round.
    fn gather_on(&mut self, connection: ConnectionKey) -> Option<&mut Session> {
        let state = self.connections.get_mut(&connection)?;
        if !std::mem::replace(&mut state.is_gathering, true) {
            self.gathering.push(connection);
        }
        Some(&mut state.session)
    }

    /// Sends what the connections gathered in this round.
    pub(crate) fn flush_gathered(&mut self) {
        let mut gathering = std::mem::take(&mut self.gathering);
        for connection in gathering.drain(..) {
            self.flush_connection(connection);
        }
        self.gathering = gathering;
    }

    fn flush_connection(&mut self, connection: ConnectionKey) {
        self.send_pushes(connection);
        let Some(state) = self.connections.get_mut(&connection) else { return };
        state.is_gathering = false;
        if state.session.is_all_early() {
            if state.session.is_gathering() && !std::mem::replace(&mut state.is_early, true) {
                self.early.push_back((self.now.monotonic.after(OUTCOME_HOLD), connection));
            }
            return;
        }
        self.send_gathered(connection);
    }

    fn send_gathered(&mut self, connection: ConnectionKey) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        while let Some(frame) = state.session.poll_frame() {
            self.effects.push_back(Effect::Send { connection, stream: OutStream::Control, frame });
        }
    }

    /// When outcomes have waited long enough for their durable ends.
    pub(crate) fn early_deadline(&self) -> Option<MonotonicNanos> {
        self.early.front().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn expire_early(&mut self) {
        while let Some((_, connection)) = self.early.pop_front_if(|(deadline, _)| *deadline <= self.now.monotonic) {
            self.release_early(connection);
        }
    }

    /// Sends what waits for durable ends that will not come.
    pub(crate) fn release_all_early(&mut self) {
        while let Some((_, connection)) = self.early.pop_front() {
            self.release_early(connection);
        }
    }

    fn release_early(&mut self, connection: ConnectionKey) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.is_early = false;
            self.send_gathered(connection);
        }
    }

    /// When the oldest connection that has not said hello must have done so.
    pub(crate) fn greeting_deadline(&self) -> Option<MonotonicNanos> {
        self.greetings.front().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn expire_greetings(&mut self) {
        while let Some(&(_, connection)) = self.greetings.front() {
            let now = self.now;
            let state = self.connections.get_mut(&connection);
            if let Some(session) = state.map(|state| &mut state.session).filter(|session| session.deadline().is_some())
            {
                let Some(refused) = session.on_deadline(now) else { return };
                self.close(connection, refused);
            }
            self.greetings.pop_front();
        }
    }
}

fn encode_answer(session: &mut Session, correlation: CorrelationId, answer: &Answer) -> OutFrame {
    match *answer {
        Answer::Found { offset, log_start, high_watermark } => session.answer(
            correlation,
            &FindOffsetAnswer { offset: offset.0, log_start: log_start.0, high_watermark: high_watermark.0 },
        ),
        Answer::Subscribed { offset, log_start, high_watermark } => session.answer(
            correlation,
            &SubscribeAnswer { offset: offset.0, log_start: log_start.0, high_watermark: high_watermark.0 },
        ),
        Answer::Truncated { log_start } => session.answer(correlation, &TopicDone { log_start: log_start.0 }),
        Answer::Deleted => session.answer(correlation, &TopicDone { log_start: 0 }),
        Answer::Created { topic, version } => {
            session.answer(correlation, &CreateTopicAnswer { topic: topic.0, catalog_version: version.0 })
        }
        Answer::Group(ref answer) => answer.encode(session, correlation),
        Answer::Queue(ref answer) => answer.encode(session, correlation),
        Answer::Transaction(TransactionAnswer::Initialised(ref body)) => session.answer(correlation, body),
        Answer::Transaction(TransactionAnswer::Ended(ref body)) => session.answer(correlation, body),
        Answer::Altered { version, keys_moved } => {
            session.answer(correlation, &AlterTopicAnswer { catalog_version: version.0, keys_moved })
        }
    }
}
