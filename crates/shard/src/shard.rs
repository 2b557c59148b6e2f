//! The shard itself: what it owns and the order of a round.

use std::collections::{BTreeMap, VecDeque};

use corelane_catalog::Catalog;
use corelane_model::{ConnectionKey, MonotonicNanos, Now, PartitionId, PartitionIndex, PartitionMap, ShardId, TopicId};
use corelane_session::{ProducerSeal, Refused};
use corelane_storage::{ChangeTicket, Storage, StorageOutput};

use crate::active::Active;
use crate::ask::{Asker, Peer};
use crate::boot::{self, Phase};
use crate::changes::Changes;
use crate::connections::Connection;
use crate::describe::Describes;
use crate::groups::Groups;
use crate::mesh::Message;
use crate::produce::Backlog;
use crate::queues::Queues;
use crate::router::Parked;
use crate::subscriptions::Subscriptions;
use crate::transactions::Transactions;
use crate::{AdminId, AdminQuery, Effect, Event, MeshMessage, ShardConfig, ShardStats, Traffic};

/// Everything that one core owns.
///
/// Nothing in it waits: what must wait is a row in one of its tables, each bounded, and goes on when the event comes that
/// it waits for.
#[derive(Debug)]
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) now: Now,
    pub(crate) phase: Phase,
    pub(crate) storage: Storage,
    pub(crate) storage_failure: Option<String>,
    pub(crate) is_space_low: bool,
    /// The catalog, from the moment on at which it is known.
    pub(crate) catalog: Option<Catalog>,
    pub(crate) changes: Changes,
    pub(crate) connections: BTreeMap<ConnectionKey, Connection>,
    /// Connections in the order in which they must have said hello.
    pub(crate) greetings: VecDeque<(MonotonicNanos, ConnectionKey)>,
    /// Connections that have gathered something in this round.
    pub(crate) gathering: Vec<ConnectionKey>,
    /// Connections whose gathered outcomes wait for durable ends, and until when; a connection stands in it once.
    pub(crate) early: VecDeque<(MonotonicNanos, ConnectionKey)>,
    /// Partitions of this shard that somebody waits for or reads; idle ones have no row.
    pub(crate) active: PartitionMap<Active>,
    pub(crate) traffic: BTreeMap<TopicId, TopicTraffic>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) parked: Parked,
    pub(crate) backlog: Backlog,
    pub(crate) truncations: BTreeMap<ChangeTicket, (Asker, PartitionId)>,
    pub(crate) seal: ProducerSeal,
    pub(crate) producer_askers: VecDeque<Asker>,
    pub(crate) describes: Describes,
    pub(crate) groups: Groups,
    pub(crate) queues: Queues,
    pub(crate) transactions: Transactions,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) stats: ShardStats,
    /// Kept for its memory: those who are told of one durable end.
    pub(crate) told: Vec<Peer>,
    /// Storage was given something that its next round takes up.
    pub(crate) is_storage_touched: bool,
    /// Something is left to do although nothing need happen before.
    wants_round: bool,
}

/// One topic's traffic on this shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicTraffic {
    pub(crate) produced: Traffic,
    pub(crate) consumed: Traffic,
    /// Records of a topic of class `latest` that readers went past, by partition.
    pub(crate) conflated: BTreeMap<PartitionIndex, u64>,
}

impl Shard {
    /// A shard that begins to recover: its first effects read the journal.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        assert!(u16::from(config.shard.0) < config.shards, "shard {} of {}", config.shard, config.shards);
        let mut storage = Storage::new(boot::storage_config(&config));
        let imported = boot::import(&mut storage, &config);
        let mut shard = Self {
            now: Now::default(),
            phase: Phase::Recovering { since: None, report: None },
            storage,
            storage_failure: None,
            is_space_low: false,
            catalog: None,
            changes: Changes::new(config.shards),
            connections: BTreeMap::new(),
            greetings: VecDeque::new(),
            gathering: Vec::new(),
            early: VecDeque::new(),
            active: PartitionMap::default(),
            traffic: BTreeMap::new(),
            subscriptions: Subscriptions::default(),
            parked: Parked::default(),
            backlog: Backlog::default(),
            truncations: BTreeMap::new(),
            seal: ProducerSeal::new(config.data_id),
            producer_askers: VecDeque::new(),
            describes: Describes::default(),
            groups: Groups::default(),
            queues: Queues::default(),
            transactions: Transactions::default(),
            effects: VecDeque::new(),
            stats: ShardStats::default(),
            told: Vec::new(),
            is_storage_touched: false,
            wants_round: true,
            config,
        };
        if let Err(error) = imported {
            shard.fail(error.to_string());
        }
        shard
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Admin { id, query } => return self.answer_admin(id, query),
            _ if matches!(self.phase, Phase::Failed) => return,
            _ => {}
        }
        match event {
            Event::Connected { connection } => self.handle_connected(connection),
            Event::Frame { connection, frame } => self.handle_frame(connection, frame),
            Event::Garbage { connection, error } => self.handle_garbage(connection, error),
            Event::Congested { connection } => self.handle_congestion(connection, true),
            Event::Relieved { connection } => self.handle_congestion(connection, false),
            Event::Disconnected { connection } => self.forget_connection(connection),
            Event::File(done) => self.storage.handle(now, done),
            Event::Mesh { from, message } => self.handle_mesh(from, message.0),
            // Admin questions were answered above; everything that has a deadline is looked at in each round.
            Event::Admin { .. } | Event::Deadline => {}
            Event::Drain => self.begin_drain(),
        }
    }

    /// More input is known to wait and will come in a round of its own: what this round appended may go to disk together
    /// with it. Holds for the coming [`Self::finish_round`].
    pub fn expect_more(&mut self) {
        self.storage.expect_more();
    }

    /// Nothing is to be done for the moment: what would disturb a later round may be done now. [`Self::poll_effect`] has
    /// what follows. Not calling it costs time only.
    pub fn rest(&mut self, now: Now) {
        self.now = now;
        self.storage.rest(now);
    }

    /// Ends the round: appends become a journal entry, batches are pushed, gathered answers leave.
    pub fn finish_round(&mut self, now: Now) {
        self.now = now;
        self.stats.rounds += 1;
        self.wants_round = false;
        if matches!(self.phase, Phase::Failed) {
            return;
        }
        self.start_clock();
        if self.storage.next_deadline().is_some_and(|deadline| deadline <= now.monotonic) {
            self.storage.on_deadline(now);
        }
        self.handle_outputs();
        self.expire();
        self.drain_backlog();
        let are_groups_busy = self.finish_transactions() | self.finish_groups();
        self.storage.finish_round(now);
        self.is_storage_touched = false;
        let was_any = self.handle_outputs();
        // What was done before is in the round; what these outputs led to needs another one. On the way in and out
        // storage takes its own steps from round to round.
        let is_on_its_way = was_any && !matches!(self.phase, Phase::Serving { .. });
        let is_left = are_groups_busy || self.transactions.is_behind();
        self.wants_round = self.push_round() | self.is_storage_touched | is_on_its_way | is_left;
        self.flush_gathered();
    }

    /// The next thing to do; nothing when the round is over. File effects come first, since a sync takes longest.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if let Some(effect) = self.storage.poll_effect() {
            return Some(Effect::File(effect));
        }
        self.effects.pop_front()
    }

    /// When the shard wants a round even if nothing happens; a moment that is not in the future asks for one at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonotonicNanos> {
        if self.wants_round {
            return Some(self.now.monotonic);
        }
        let own = [
            self.greeting_deadline(),
            self.early_deadline(),
            self.parked.deadline(),
            self.describes.deadline(),
            self.groups_deadline(),
            self.transactions_deadline(),
        ];
        [self.storage.next_deadline()].into_iter().chain(own).flatten().min()
    }

    /// What it was told at its start.
    #[must_use]
    pub const fn config(&self) -> &ShardConfig {
        &self.config
    }

    pub(crate) const fn me(&self) -> ShardId {
        self.config.shard
    }

    /// All shards but this one.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.me();
        (0..self.config.shards)
            .map(|shard| ShardId(u8::try_from(shard).expect("at most 256 shards")))
            .filter(move |&shard| shard != me)
    }

    pub(crate) fn send_mesh(&mut self, to: ShardId, message: Message) {
        assert!(to != self.me() && u16::from(to.0) < self.config.shards, "shard {} sends to {to}", self.me());
        self.stats.mesh_messages += 1;
        self.effects.push_back(Effect::Mesh { to, message: MeshMessage(message) });
    }

    pub(crate) fn broadcast(&mut self, mut message: impl FnMut() -> Message) {
        for neighbour in self.neighbours() {
            self.send_mesh(neighbour, message());
        }
    }

    fn handle_mesh(&mut self, from: ShardId, message: Message) {
        match message {
            Message::Catalog(snapshot) => self.adopt_catalog(&snapshot),
            Message::Change(change) => self.apply_foreign_change(&change),
            Message::Applied(version) => self.on_applied(from, version),
            Message::Wish(request) => self.handle_wish(*request),
            Message::Request(request) => self.route(*request),
            Message::Outcome { connection, correlation, batch_bytes, outcome, is_end_due } => {
                self.tell_outcome(connection, correlation, batch_bytes, &outcome, is_end_due);
            }
            Message::Durable { connection, partition, end } => self.tell_durable(connection, partition, end),
            Message::Answer { connection, correlation, subscription, answer } => {
                self.tell_answer(connection, correlation, subscription, *answer);
            }
            Message::Push(push) => self.tell_push(push),
            Message::Ended { connection, subscription, serial, ending } => {
                self.tell_ended(connection, subscription, serial, *ending);
            }
            Message::Credit { connection, subscription, bytes } => {
                self.add_credit(Peer { shard: from, connection }, subscription, bytes);
            }
            Message::Unsubscribe { connection, subscription } => {
                self.end_subscription(Peer { shard: from, connection }, subscription);
            }
            Message::Congested { connection } => {
                self.pause(Peer { shard: from, connection });
            }
            Message::Relieved { connection } => {
                self.resume(Peer { shard: from, connection });
            }
            Message::Gone { connection } => self.forget_peer(Peer { shard: from, connection }),
            Message::Describe { ticket, topic, from: first, end } => {
                let partitions = self.describe_own(topic, first, end);
                self.send_mesh(from, Message::Described { ticket, partitions });
            }
            Message::Described { ticket, partitions } => self.on_described(ticket, partitions),
            Message::StorageStopped { text } => self.tell_stopped(from, &text),
            Message::Group(request) => self.route_group(*request),
            Message::ListQueues { ticket, after, most } => {
                let listed = self.list_own_queues(&after, most);
                self.send_mesh(from, Message::QueuesListed { ticket, listed });
            }
            Message::QueuesListed { ticket, listed } => self.on_queues_listed(from, ticket, listed),
            Message::Queue(request) => self.route_queue(*request),
            Message::QueueRecords { connection, slot, frame } => self.push_to(from, connection, slot, frame),
            Message::QueueUnsent { connection, frame } => self.on_unsent(Peer { shard: from, connection }, &frame),
            Message::ToCoordinator(message) => self.on_coordinator_message(from, *message),
            Message::ToParticipant(message) => self.take_part(*message),
            Message::Inquire(part) => self.on_inquiry(from, *part),
            Message::Fate(told) => self.on_fate(from, &told.0, told.1),
            Message::Passed { connection, subscription, serial, next, high_watermark } => {
                self.tell_passed(connection, subscription, serial, (next, high_watermark));
            }
            Message::Member { connection, frame } => self.tell_member(connection, frame),
            Message::AskEnds { number, partitions } => self.answer_ends(from, number, &partitions),
            Message::Ends { number, ends } => self.on_ends(number, ends),
            Message::AskLag { ticket, wants } => {
                let lags = self.lag_of(&wants);
                self.send_mesh(from, Message::Lag { ticket, lags });
            }
            Message::Lag { ticket, lags } => self.on_lag(ticket, &lags),
            Message::ListGroups { ticket, after, most } => {
                let listed = self.list_own(&after, most);
                self.send_mesh(from, Message::GroupsListed { ticket, listed });
            }
            Message::GroupsListed { ticket, listed } => self.on_listed(from, ticket, listed),
        }
    }

    /// Handles what storage says; whether there was anything.
    fn handle_outputs(&mut self) -> bool {
        let mut was_any = false;
        while let Some(output) = self.storage.poll_output() {
            was_any = true;
            self.handle_output(output);
        }
        was_any
    }

    fn handle_output(&mut self, output: StorageOutput) {
        match output {
            StorageOutput::Recovered { catalog, report } => self.on_recovered(&catalog, report),
            StorageOutput::RecoveryFailed { error } => self.fail(error.to_string()),
            StorageOutput::Durable { ends } => {
                for (partition, end) in ends {
                    self.on_home_durable(partition, end);
                    self.on_transactions_durable(partition, end);
                    self.on_durable(partition, end);
                }
            }
            StorageOutput::CatalogDurable { ticket } => self.on_change_durable(ticket),
            StorageOutput::TransactionEnded { ticket, .. } => self.on_transaction_ended(ticket),
            StorageOutput::TruncateDurable { ticket, .. } if self.on_home_truncated(ticket) => {}
            StorageOutput::TruncateDurable { log_start, ticket, .. } => self.on_truncated(ticket, log_start),
            StorageOutput::ProducerIdsReady => self.hand_out_producer_ids(),
            StorageOutput::Read { ticket, partition, result } => self.on_read(ticket, partition, result),
            StorageOutput::TimeFound { ticket, partition, result } => self.on_time_found(ticket, partition, result),
            StorageOutput::SegmentsDropped { .. } => {}
            StorageOutput::Stopped { text } => self.on_storage_stopped(text),
            StorageOutput::SpaceLow => self.is_space_low = true,
            StorageOutput::SpaceBack => self.is_space_low = false,
            StorageOutput::AllSettled => self.on_all_settled(),
            StorageOutput::Drained => self.on_drained(),
        }
    }

    /// Ends what has waited too long.
    fn expire(&mut self) {
        self.expire_greetings();
        self.expire_early();
        self.expire_parked();
        self.expire_describes();
    }

    fn answer_admin(&mut self, id: AdminId, query: AdminQuery) {
        let answer = match query {
            AdminQuery::Status => {
                let status = self.status();
                // For the next one: owners elsewhere take a moment.
                self.ask_for_status();
                status
            }
            AdminQuery::Export => self.export(),
        };
        self.effects.push_back(Effect::Admin { id, answer });
    }

    /// The shard cannot go on; nothing was acknowledged since its start.
    pub(crate) fn fail(&mut self, text: String) {
        self.phase = Phase::Failed;
        self.storage_failure = Some(text.clone());
        self.effects.push_back(Effect::Failed { text });
    }

    /// Why nothing is taken at the moment, if so.
    pub(crate) fn refuse_phase(&self) -> Option<Refused> {
        self.phase.refuses()
    }
}
