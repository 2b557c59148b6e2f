//! One client, one broker, and a network between them that a test drives step by step.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use corelane_client_core::{
    BatchKey, ClientCore, ClientSettings, ConnectFailure, Delivery, DeliveryError, Effect, Event, NewRecord, OutStream,
    Placement, ProducerKey, ProducerSettings, Sent, SubscriptionKey,
};
use corelane_model::{
    ConnectionKey, CorrelationId, ErrorCode, MonotonicNanos, Now, PartitionIndex, SessionId, TopicName, WallMillis,
};
use corelane_wire::{
    Frame, FrameDecoder, FrameHead, FrameKind, LeasesAnswer, OutFrame, Push, SubscriptionEnded, encode, encode_with,
};

use crate::broker::Broker;

/// The streams of one connection, each in order, in both directions.
#[derive(Debug, Default)]
struct Pipe {
    shard: u8,
    up: BTreeMap<OutStream, VecDeque<OutFrame>>,
    /// Answers and notices.
    down: VecDeque<OutFrame>,
    pushes: VecDeque<OutFrame>,
}

/// What was under way on a connection that the client has lost.
#[derive(Debug)]
pub(crate) struct Late {
    connection: ConnectionKey,
    pipe: Pipe,
}

/// The last word about a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    Delivered { placement: Placement, is_stored: bool },
    Failed(DeliveryError),
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) core: ClientCore,
    pub(crate) broker: Broker,
    pub(crate) now: Now,
    pipes: BTreeMap<ConnectionKey, Pipe>,
    /// Connections wait for the broker while it is down.
    pub(crate) is_down: bool,
    pub(crate) fates: BTreeMap<BatchKey, Fate>,
    pub(crate) received: BTreeMap<BatchKey, Placement>,
    /// Everything else that was told.
    pub(crate) told: Vec<Effect>,
    next_value: u64,
}

pub(crate) fn frame(out: OutFrame) -> Frame {
    let mut decoder = FrameDecoder::default();
    decoder.push(out.into_pieces().flatten().collect::<Vec<u8>>().into());
    decoder.poll_frame().unwrap().expect("a whole frame")
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

impl World {
    pub(crate) fn new(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    pub(crate) fn with(shards: u16, change: impl FnOnce(&mut ClientSettings)) -> Self {
        let mut settings = ClientSettings::new(SessionId(1), 42);
        change(&mut settings);
        Self {
            core: ClientCore::new(settings),
            broker: Broker::new(shards),
            now: Now { monotonic: MonotonicNanos(1), wall: WallMillis(1_000) },
            pipes: BTreeMap::new(),
            is_down: false,
            fates: BTreeMap::new(),
            received: BTreeMap::new(),
            told: Vec::new(),
            next_value: 0,
        }
    }

    /// Ends the client's round and takes what it says.
    pub(crate) fn round(&mut self) {
        self.core.finish_round(self.now);
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Connect { connection, shard } => {
                    self.pipes.insert(connection, Pipe { shard: shard.0, ..Pipe::default() });
                    self.dial(connection);
                }
                Effect::Send { connection, stream, frame } => {
                    if let Some(pipe) = self.pipes.get_mut(&connection) {
                        pipe.up.entry(stream).or_default().push_back(frame);
                    }
                }
                Effect::Close { connection, .. } => {
                    self.pipes.remove(&connection);
                    self.broker.forget_session(connection.0);
                }
                Effect::Received { batch, placement } => {
                    assert!(self.received.insert(batch, placement).is_none(), "received is told once");
                }
                Effect::Delivered { batch, placement, is_stored } => {
                    self.settle(batch, Fate::Delivered { placement, is_stored });
                }
                Effect::Failed { batch, error, .. } => self.settle(batch, Fate::Failed(error)),
                effect => self.told.push(effect),
            }
        }
    }

    fn dial(&mut self, connection: ConnectionKey) {
        let event = if self.is_down {
            self.pipes.remove(&connection);
            Event::ConnectFailed { connection, failure: ConnectFailure::Unreachable("nobody listens".to_owned()) }
        } else {
            Event::Connected { connection }
        };
        self.core.handle(self.now, event);
    }

    fn settle(&mut self, batch: BatchKey, fate: Fate) {
        assert!(self.fates.insert(batch, fate).is_none(), "a batch has one last word");
    }

    /// The broker takes one frame of some stream, chosen by `pick`. False if there is none.
    pub(crate) fn up(&mut self, pick: usize) -> bool {
        let ready = self.pipes.iter().flat_map(|(&key, pipe)| {
            pipe.up.iter().filter(|(_, queue)| !queue.is_empty()).map(move |(&stream, _)| (key, stream))
        });
        let ready: Vec<(ConnectionKey, OutStream)> = ready.collect();
        let Some(&(key, stream)) = ready.get(pick % ready.len().max(1)) else { return false };
        let pipe = self.pipes.get_mut(&key).unwrap();
        self.broker.now = self.now;
        let taken = pipe.up.get_mut(&stream).unwrap().pop_front().unwrap();
        let answers = self.broker.handle(key.0, pipe.shard, stream, &frame(taken));
        pipe.down.extend(answers);
        self.take_from_coordinator();
        true
    }

    /// What the coordinator says goes to the connections that it is for, as far as they last.
    fn take_from_coordinator(&mut self) {
        let Some(coordinator) = &mut self.broker.coordinator else { return };
        for (connection, frame) in coordinator.outbox.drain(..) {
            if let Some(pipe) = self.pipes.get_mut(&ConnectionKey(connection)) {
                pipe.down.push_back(frame);
            }
        }
    }

    /// The client takes one frame of some connection, chosen by `pick`. False if there is none.
    pub(crate) fn down(&mut self, pick: usize) -> bool {
        let ready = self.pipes.iter().flat_map(|(&key, pipe)| {
            [(key, true, pipe.down.is_empty()), (key, false, pipe.pushes.is_empty())].into_iter()
        });
        let ready: Vec<(ConnectionKey, bool)> =
            ready.filter(|(_, _, is_empty)| !is_empty).map(|(key, is_answer, _)| (key, is_answer)).collect();
        let Some(&(connection, is_answer)) = ready.get(pick % ready.len().max(1)) else { return false };
        let pipe = self.pipes.get_mut(&connection).unwrap();
        let queue = if is_answer { &mut pipe.down } else { &mut pipe.pushes };
        let frame = frame(queue.pop_front().unwrap());
        self.core.handle(self.now, Event::Frame { connection, frame });
        self.round();
        true
    }

    /// The client takes all answers and notices that are there in one round.
    pub(crate) fn down_together(&mut self) {
        for (&connection, pipe) in &mut self.pipes {
            for out in pipe.down.drain(..) {
                self.core.handle(self.now, Event::Frame { connection, frame: frame(out) });
            }
        }
        self.round();
    }

    /// The broker tells of durable ends and pushes.
    pub(crate) fn notices(&mut self) {
        for (key, pipe) in &mut self.pipes {
            pipe.down.extend(self.broker.durable_ends(key.0));
            pipe.pushes.extend(self.broker.pushes(key.0));
        }
    }

    /// A connection breaks; whatever was under way in either direction is lost.
    pub(crate) fn cut(&mut self, pick: usize) {
        if let Some(late) = self.cut_late(pick) {
            self.broker.forget_session(late.connection.0);
        }
    }

    /// A connection breaks for the client alone: what it had sent may still arrive.
    pub(crate) fn cut_late(&mut self, pick: usize) -> Option<Late> {
        let keys: Vec<ConnectionKey> = self.pipes.keys().copied().collect();
        let &connection = keys.get(pick % keys.len().max(1))?;
        let pipe = self.pipes.remove(&connection).expect("it is one of them");
        let event = Event::Disconnected { connection, code: None, reason: "cut".to_owned() };
        self.core.handle(self.now, event);
        self.round();
        Some(Late { connection, pipe })
    }

    /// The broker carries out the verdict that has waited longest. False if there is none.
    pub(crate) fn answer_verdict(&mut self) -> bool {
        let Some((connection, correlation)) = self.broker.verdicts.pop_front() else { return false };
        if let Some(pipe) = self.pipes.get_mut(&ConnectionKey(connection)) {
            pipe.down.push_back(encode(correlation, &LeasesAnswer { refused: Vec::new() }));
        }
        true
    }

    /// What was sent on a connection that the client has lost arrives. Nobody hears the answers.
    pub(crate) fn arrive(&mut self, late: Late) {
        for (stream, frames) in late.pipe.up {
            for sent in frames {
                self.broker.handle(late.connection.0, late.pipe.shard, stream, &frame(sent));
            }
        }
    }

    /// The broker dies and comes back; all connections notice.
    pub(crate) fn crash(&mut self) {
        self.broker.crash();
        while !self.pipes.is_empty() {
            self.cut(0);
        }
    }

    /// Time passes in which the broker lives and hears nothing of the client.
    pub(crate) fn advance_silently(&mut self, duration: Duration) {
        self.is_down = true;
        while !self.pipes.is_empty() {
            self.cut(0);
        }
        self.advance(duration);
        self.is_down = false;
    }

    pub(crate) fn advance(&mut self, duration: Duration) {
        self.now.monotonic = self.now.monotonic.after(duration);
        self.now.wall.0 += i64::try_from(duration.as_millis()).unwrap();
        self.broker.now = self.now;
        if let Some(coordinator) = &mut self.broker.coordinator {
            coordinator.advance(self.now);
        }
        self.take_from_coordinator();
        self.core.handle(self.now, Event::Deadline);
        self.round();
    }

    /// Lets everything happen that can, and time pass where that is what is waited for.
    pub(crate) fn settle_all(&mut self) {
        for _ in 0..400 {
            self.round();
            while self.up(0) || self.down(0) {}
            self.broker.sync();
            self.notices();
            while self.up(0) || self.down(0) {}
            self.advance(Duration::from_millis(5));
        }
    }

    /// As [`Self::settle_all`], but nothing becomes durable and no time passes.
    pub(crate) fn exchange(&mut self) {
        self.round();
        while self.up(0) || self.down(0) {}
    }

    pub(crate) fn open(&mut self, name: &str, settings: ProducerSettings) -> ProducerKey {
        let producer = self.core.open_producer(self.now, &topic(name), settings);
        self.exchange();
        let is_open =
            |effect: &Effect| matches!(effect, Effect::ProducerOpened { producer: key, .. } if *key == producer);
        assert!(self.told.iter().any(is_open), "{:?}", self.told);
        producer
    }

    /// Sends a record with a value of its own.
    pub(crate) fn send(&mut self, producer: ProducerKey, partition: u32) -> (u64, Sent) {
        let value = self.next_value;
        self.next_value += 1;
        let bytes = value.to_le_bytes();
        let partition = Some(PartitionIndex(partition));
        let record = NewRecord { value: Some(&bytes), partition, ..NewRecord::default() };
        let sent = self.core.send(self.now, producer, &record, Delivery::Ticket).expect("the buffer has room");
        (value, sent)
    }

    /// Sends so many records to partition 0.
    pub(crate) fn send_many(&mut self, producer: ProducerKey, records: usize) {
        for _ in 0..records {
            self.send(producer, 0);
        }
    }

    pub(crate) fn log_values(&mut self, name: &str, partition: usize) -> Vec<u64> {
        self.broker.log(name, partition).batches.iter().flat_map(|batch| batch.values.clone()).collect()
    }

    /// Pushes bytes of the test's own.
    pub(crate) fn push_raw(&mut self, subscription: SubscriptionKey, bytes: Bytes) {
        let push = Push { subscription: subscription.0, high_watermark: 0 };
        let out = encode_with(CorrelationId(0), &push, vec![bytes]);
        for connection in self.pipes.keys().copied().collect::<Vec<_>>() {
            let frame = frame(out.clone());
            self.core.handle(self.now, Event::Frame { connection, frame });
        }
        self.round();
    }

    /// The broker says that a reader is past aborted records.
    pub(crate) fn passed(&mut self, subscription: SubscriptionKey, next: u64, high_watermark: u64) {
        let body = corelane_wire::Passed { subscription: subscription.0, next, high_watermark };
        for connection in self.pipes.keys().copied().collect::<Vec<_>>() {
            let frame = frame(encode(CorrelationId(0), &body));
            self.core.handle(self.now, Event::Frame { connection, frame });
        }
        self.round();
    }

    /// The broker ends a subscription behind what it has pushed and not yet delivered.
    pub(crate) fn end(&mut self, subscription: SubscriptionKey, code: ErrorCode, range: Option<(u64, u64)>) {
        let body = SubscriptionEnded { subscription: subscription.0, code: code.to_wire(), range, text: "why".into() };
        for pipe in self.pipes.values_mut().filter(|pipe| !pipe.pushes.is_empty()) {
            pipe.pushes.push_back(encode(CorrelationId(0), &body));
        }
    }

    /// Answers with a frame whose body is of the test's own.
    pub(crate) fn answer_raw(&mut self, body: Bytes) {
        let head = FrameHead {
            length: u32::try_from(body.len()).unwrap(),
            body_length: u32::try_from(body.len()).unwrap(),
            kind: FrameKind::ProduceAnswers,
            version: 1,
            correlation: CorrelationId(0),
        };
        let connection = *self.pipes.keys().next().unwrap();
        let frame = Frame { head, body, attachment: Bytes::new() };
        self.core.handle(self.now, Event::Frame { connection, frame });
        self.round();
    }
}
