//! The machine: calls of the application, events, rounds.

mod append;
mod conversation;
mod delivery;
mod group;
mod lease;
mod operation;
mod reading;
mod standby;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_model::limits::TOPIC_PARTITIONS_MAX;
use corelane_model::{
    ConnectionKey, CorrelationId, Incarnation, MonotonicNanos, Now, PartitionIndex, ShardId, TopicName,
};
use corelane_wire::{Body, OutFrame, encode};

use crate::chance::Chance;
use crate::groups::Groups;
use crate::leasings::Leasings;
use crate::links::Links;
use crate::producer::{Producer, State};
use crate::request::Requests;
use crate::subscription::{Follow, Subscription};
use crate::tell::{Buffer, Tell};
use crate::timers::{Timer, Timers};
use crate::topics::Topics;
use crate::waiters::Waiters;
use crate::{
    BatchKey, ClientSettings, ClientStats, DeliveryError, Effect, Event, FollowKey, OutStream, ProducerKey,
    RequestError, SubscriptionKey,
};

/// Correlation ids of produce frames: the highest bit, then producer, partition and the low bits of the batch's key.
const PRODUCE_BIT: u64 = 1 << 63;
const PARTITION_BITS: u32 = 14;
/// Low bits of a batch's key in a correlation id. They tell apart the few batches that one partition has under way.
pub(crate) const ORDINAL_BITS: u32 = 25;
const PRODUCERS_MAX: u32 = 1 << (63 - PARTITION_BITS - ORDINAL_BITS);
const _: () = assert!(TOPIC_PARTITIONS_MAX <= 1 << PARTITION_BITS);

/// Partitions that send in one round: with a thousand of them the first batches are on their way while the others are
/// made. What is left goes in the next round, which is due at once.
const ROUND_QUEUES_MAX: usize = 128;

/// How often batches are looked through for those that waited too long, in parts of the delivery time.
const SWEEPS: u32 = 16;

/// A record that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its batch, whose fate it shares.
    pub batch: BatchKey,
    /// Its place in the batch: its offset is that of the batch plus this.
    pub index: u32,
    /// Its partition.
    pub partition: PartitionIndex,
}

/// One client. See the crate's page for rounds and promises.
#[derive(Debug)]
pub struct ClientCore {
    settings: ClientSettings,
    links: Links,
    incarnation: Option<Incarnation>,
    topics: Topics,
    producers: Vec<Option<Producer>>,
    free_producers: Vec<ProducerKey>,
    next_batch: u64,
    durable_waiters: Waiters,
    /// Queues that may have something to send.
    dirty: VecDeque<(ProducerKey, u32)>,
    /// Batches that were received in this round, by producer, partition and low bits of their keys.
    untold: Vec<(ProducerKey, u32, u64)>,
    subscriptions: BTreeMap<SubscriptionKey, Subscription>,
    next_subscription: u64,
    follows: BTreeMap<FollowKey, Follow>,
    next_follow: u64,
    /// Subscriptions that have credit to give back.
    credits: Vec<SubscriptionKey>,
    requests: Requests,
    appends: append::Appends,
    groups: Groups,
    /// Subscriptions of members that waited for a commit.
    starting: Vec<SubscriptionKey>,
    leasings: Leasings,
    timers: Timers,
    /// When what is known about topics in use is asked for again.
    refresh_at: Option<MonotonicNanos>,
    is_sweeping: bool,
    chance: Chance,
    buffer: Buffer,
    stats: ClientStats,
    effects: VecDeque<Effect>,
    /// Something rare has happened: links, metadata, identities, requests and subscriptions are looked through at the
    /// end of the round.
    has_chores: bool,
    /// Which shards are needed is to be found out at the end of the round: a thousand subscriptions in one are one question.
    is_wanted_old: bool,
    is_closed: bool,
}

impl ClientCore {
    /// A client that knows nothing yet. It wants a connection to some shard from the first round on.
    #[must_use]
    pub fn new(settings: ClientSettings) -> Self {
        Self {
            chance: Chance::new(settings.seed),
            links: Links::new(settings.own_streams),
            settings,
            incarnation: None,
            topics: Topics::default(),
            producers: Vec::new(),
            free_producers: Vec::new(),
            next_batch: 0,
            durable_waiters: Waiters::default(),
            dirty: VecDeque::new(),
            untold: Vec::new(),
            subscriptions: BTreeMap::new(),
            next_subscription: 0,
            follows: BTreeMap::new(),
            next_follow: 0,
            credits: Vec::new(),
            requests: Requests::default(),
            appends: append::Appends::default(),
            groups: Groups::default(),
            starting: Vec::new(),
            leasings: Leasings::default(),
            timers: Timers::default(),
            refresh_at: None,
            is_sweeping: false,
            buffer: Buffer::default(),
            stats: ClientStats::default(),
            effects: VecDeque::new(),
            has_chores: true,
            is_wanted_old: true,
            is_closed: false,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Connected { connection } => self.on_connected(now, connection),
            Event::ConnectFailed { connection, failure } => self.on_lost(now, connection, failure),
            Event::Frame { connection, frame } => self.on_frame(now, connection, &frame),
            Event::Garbage { connection, error } => self.on_garbage(now, connection, &error.to_string()),
            Event::Disconnected { connection, code, reason } => self.on_disconnected(now, connection, code, reason),
            Event::Deadline => {}
        }
        self.run_timers(now);
    }

    /// Decides what leaves. Call it after the round's events and calls, and whenever [`Self::next_deadline`] is due.
    pub fn finish_round(&mut self, now: Now) {
        self.run_timers(now);
        if self.is_closed {
            return;
        }
        self.tell_received();
        if std::mem::take(&mut self.has_chores) {
            self.follow_wanted();
            self.connect_due(now);
            self.ask_metadata(now);
            self.ask_identities(now);
            self.send_operations(now);
            self.send_subscriptions(now);
            self.ask_homes(now);
        }
        self.advance_groups(now);
        self.start_readers(now);
        self.advance_leasings(now);
        for _ in 0..ROUND_QUEUES_MAX {
            let Some((producer, index)) = self.dirty.pop_front() else { break };
            self.advance(now, producer, index);
        }
        self.flush_lanes();
        // Advancing a queue may find that its producer needs a newer epoch.
        if self.has_chores {
            self.ask_identities(now);
        }
        self.return_credits();
    }

    /// The next thing to do or to tell.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::finish_round`] must be called at the latest, if nothing happens before: at once when a moment is given that
    /// is over. It may turn out that nothing was due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        if self.is_closed {
            None
        } else if self.dirty.is_empty() {
            self.timers.next()
        } else {
            Some(MonotonicNanos::default())
        }
    }

    /// Whether a connection is ready for requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.links.any_ready(None).is_some()
    }

    /// Whether a connection asked for by [`Effect::Connect`] is still of use.
    #[must_use]
    pub fn has_connection(&self, connection: ConnectionKey) -> bool {
        self.links.shard_of(connection).is_some()
    }

    /// What it was told when it was made.
    #[must_use]
    pub const fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        ClientStats { buffer_bytes: self.buffer.bytes(), buffer_records: self.buffer.records(), ..self.stats }
    }

    /// Ends the client: fails what has no last word yet and closes all connections. Nothing is taken afterwards. For an
    /// orderly end flush first and wait for the last words.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        for at in 0..self.producers.len() {
            self.fail_producer(at, &DeliveryError::Closed, RequestError::Closed);
        }
        let operations: Vec<_> = std::mem::take(&mut self.requests.operations).into_keys().collect();
        for operation in operations {
            self.effects.push_back(Effect::Done { operation, result: Box::new(Err(RequestError::Closed)) });
        }
        self.close_groups();
        self.close_leasings();
        self.subscriptions.clear();
        self.follows.clear();
        let connections: Vec<ConnectionKey> = self.links.keys().collect();
        for connection in connections {
            self.links.forget(connection, MonotonicNanos(u64::MAX));
            self.effects.push_back(Effect::Close { connection, code: None, reason: "client closed".to_owned() });
        }
    }

    fn run_timers(&mut self, now: Now) {
        while let Some(timer) = self.timers.take_due(now.monotonic) {
            match timer {
                Timer::Link(shard) => self.on_link_timer(now, shard),
                Timer::Requests => self.expire_operations(now),
                Timer::Queue(producer, index) => self.mark(producer, index),
                Timer::Sweep => self.sweep(now),
                Timer::Subscription(_) => {}
                Timer::Metadata => self.on_metadata_timer(now),
                Timer::Group(group) => {
                    self.groups.mark(group);
                    continue;
                }
                Timer::QueueMember(queue) => {
                    self.leasings.mark(queue);
                    continue;
                }
            }
            self.has_chores = true;
        }
    }

    /// Which shards are needed may have changed.
    const fn update_wanted(&mut self) {
        self.is_wanted_old = true;
        self.has_chores = true;
    }

    /// Which shards are needed: the owners of all partitions in use, or any one to begin with.
    fn follow_wanted(&mut self) {
        if !std::mem::take(&mut self.is_wanted_old) {
            return;
        }
        let mut wanted: BTreeSet<ShardId> = BTreeSet::new();
        for producer in self.producers.iter().flatten().filter(|producer| producer.state != State::Gone) {
            wanted.extend(&producer.shards);
        }
        for subscription in self.subscriptions.values() {
            let info = self.topics.info(&subscription.settings.topic);
            wanted.extend(info.and_then(|info| info.shard(subscription.settings.partition)));
        }
        wanted.extend(self.groups.shards());
        wanted.extend(self.leasings.shards(&self.groups.homes));
        if wanted.is_empty() {
            wanted.insert(ShardId(0));
        }
        self.links.set_wanted(wanted);
    }

    fn is_topic_used(&self, name: &TopicName) -> bool {
        self.producers.iter().flatten().any(|producer| producer.topic == *name)
            || self.subscriptions.values().any(|subscription| subscription.settings.topic == *name)
            || self.requests.operations.values().any(|op| op.request.target().is_some_and(|(topic, _)| topic == name))
    }

    fn mark(&mut self, producer: ProducerKey, index: u32) {
        let queue = self
            .producers
            .get_mut(producer.0 as usize)
            .and_then(Option::as_mut)
            .and_then(|producer| producer.queues.get_mut(index as usize));
        if let Some(queue) = queue
            && !std::mem::replace(&mut queue.is_dirty, true)
        {
            self.dirty.push_back((producer, index));
        }
    }

    /// The queues and where they tell what became of their batches.
    fn split(&mut self) -> (&mut Vec<Option<Producer>>, Tell<'_>) {
        (&mut self.producers, Tell { effects: &mut self.effects, buffer: &mut self.buffer, stats: &mut self.stats })
    }

    fn send_control<B: Body>(&mut self, connection: ConnectionKey, correlation: CorrelationId, body: &B) {
        self.send_frame(connection, OutStream::Control, encode(correlation, body));
    }

    fn send_frame(&mut self, connection: ConnectionKey, stream: OutStream, frame: OutFrame) {
        self.effects.push_back(Effect::Send { connection, stream, frame });
    }

    fn pause(&mut self, now: Now, attempts: u32) -> MonotonicNanos {
        let pause = self.chance.backoff(attempts, self.settings.backoff_min, self.settings.backoff_max);
        now.monotonic.after(pause)
    }
}
