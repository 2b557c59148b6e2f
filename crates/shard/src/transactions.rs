//! Transactions: coordinators of the homes of this shard, and partitions and groups here that take part.
//!
//! A transactional id's coordinator is the owner of its home partition of the internal topic `__transactions`. All decisions
//! are made by [`corelane_transaction::Coordinator`]; here its requests, records and timers meet the shard:
//!
//! ```text
//!  a connection's shard            the home's shard                       a participant's owner
//!   initialise, end ──── route ──▶ run ─▶ Coordinator ─▶ record ─▶ log      first batch, offsets: held
//!      ▲                            ▲ │                              join ─────── │
//!      └───────── answers ──────────┼─┴── joined ───────────────────────────────▶ │ taken
//!                                   │     apply ────────────────────────────────▶ │ log, group
//!                                   └──── applied, when that is durable ───────── ┘
//! ```
//!
//! - `route`: from a connection to the coordinator, and between coordinator and participant.
//! - `home`: a home partition, its log, and how it is read again. Old records go by compaction.
//! - `run`: requests at their coordinator, and its effects.
//! - `part`: what waits for a coordinator's word, and what was decided. `inquiry`: what is open, and asking what became of it.
//! - `status`: for people.

mod home;
mod inquiry;
mod part;
mod route;
mod run;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_model::limits::{SEGMENT_BYTES_MIN, TRANSACTION_HOMES};
use corelane_model::{
    Decision, MonotonicNanos, PartitionId, PartitionIndex, ProducerId, TopicId, TopicSettings, Transaction,
    TransactionalId,
};
use corelane_record::{BatchBuilder, Compression};
use corelane_session::{Refused, TransactionAsk};
use corelane_storage::ChangeTicket;
use corelane_transaction::Participant;
use corelane_wire::{EndTransactionAnswer, InitialiseTransactionsAnswer};

use crate::ask::{Asker, PartitionRequest};
use crate::groups::GroupRequest;
use home::Home;
use inquiry::Inquiries;
pub(crate) use inquiry::{Part, Told};

/// The topic whose partitions keep the transactional ids.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transactions";
/// How many partitions it has.
pub(crate) const TRANSACTIONS_PARTITIONS: u32 = TRANSACTION_HOMES;

/// What becomes of its records: the newest of each id is kept.
pub(crate) fn transactions_settings() -> TopicSettings {
    TopicSettings { segment_bytes: SEGMENT_BYTES_MIN * 4, ..TopicSettings::compacted() }
}

/// To the coordinator of a transaction.
#[derive(Debug)]
pub(crate) enum ToCoordinator {
    /// A client asks; an initialisation brings a producer id that nobody had.
    Request { asker: Asker, id: TransactionalId, fresh: ProducerId, ask: TransactionAsk },
    /// Somebody is about to take something of a transaction.
    Join { home: PartitionIndex, transaction: Transaction, participant: Participant },
    /// A decision is durable where it had to be.
    Applied { home: PartitionIndex, transaction: Transaction, participant: Participant },
}

/// To a participant of a transaction.
#[derive(Debug)]
pub(crate) enum ToParticipant {
    /// It may take what waits, or not.
    Joined { participant: Participant, transaction: Transaction, result: Result<(), Refused> },
    /// It was decided.
    Apply(Apply),
}

/// A decision on its way into a participant.
#[derive(Clone, Debug)]
pub(crate) struct Apply {
    pub(crate) participant: Participant,
    pub(crate) transaction: Transaction,
    pub(crate) decision: Decision,
    /// Who waits for it, if anybody does.
    pub(crate) home: Option<PartitionIndex>,
}

/// The answer to a client.
#[derive(Clone, Debug)]
pub(crate) enum TransactionAnswer {
    Initialised(InitialiseTransactionsAnswer),
    Ended(EndTransactionAnswer),
}

/// All that a shard knows of transactions.
#[derive(Debug)]
pub(crate) struct Transactions {
    /// The internal topic, once this shard's catalog has it and its homes are open.
    topic: Option<TopicId>,
    homes: BTreeMap<PartitionIndex, Home>,
    /// Something came for a coordinator since the homes had their turn.
    is_behind: bool,
    /// Requests that came before there was a topic, in the order of their deadlines.
    arriving: VecDeque<(MonotonicNanos, ToCoordinator)>,
    /// What is not decided here.
    inquiries: Inquiries,
    /// What participants here may take.
    joined: BTreeSet<(Participant, Transaction)>,
    /// Batches that wait for a coordinator's word.
    batches: BTreeMap<(PartitionId, Transaction), Vec<PartitionRequest>>,
    batches_bytes: u64,
    /// Offsets that wait for it.
    offsets: BTreeMap<(corelane_model::GroupName, Transaction), Vec<GroupRequest>>,
    /// Ends that are on their way to the disk.
    ends: BTreeMap<ChangeTicket, Apply>,
    /// Decisions that found no room.
    unapplied: Vec<Apply>,
    /// Kept for its memory.
    builder: BatchBuilder,
    last_ticket: u64,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            topic: None,
            homes: BTreeMap::new(),
            is_behind: false,
            arriving: VecDeque::new(),
            inquiries: Inquiries::default(),
            joined: BTreeSet::new(),
            batches: BTreeMap::new(),
            batches_bytes: 0,
            offsets: BTreeMap::new(),
            ends: BTreeMap::new(),
            unapplied: Vec::new(),
            builder: BatchBuilder::new(Compression::None),
            last_ticket: 0,
        }
    }
}

impl Transactions {
    /// Whether a coordinator has something to do although the round is over.
    pub(crate) const fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Why homes take nothing until the next start.
    pub(crate) fn broken_homes(&self) -> impl Iterator<Item = &Refused> {
        self.homes.values().filter_map(Home::broken)
    }

    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }
}
