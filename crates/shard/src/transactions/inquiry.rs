//! What is open in partitions and groups of this shard: since when, and what became of it where damage may have taken the
//! answer.
//!
//! A coordinator tells every participant what was decided, so that nobody need ask. But a journal that lost an end has the
//! transaction open again after a start although its coordinator is through with it. So whatever a start finds open is asked
//! about, and so is later what is open for longer than any transaction may last. Which home has it is not known here, thus
//! all shards are asked, until one names what was decided, or all say that they do not know it: then it is aborted.
//!
//! ```text
//!            a start finds it, or it joins             due: ask all shards that have not spoken
//!   (unknown) ─────────────────────────────▶ Open ────────────────────────────────────────────▶ Open, due later
//!                                             │
//!             a coordinator tells the decision, one names it, or all know nothing of it
//!                                             └──▶ decided ──▶ durable here ──▶ (forgotten)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corelane_model::limits::{
    TRANSACTION_INQUIRIES_MAX, TRANSACTION_INQUIRY_AGAIN_MAX, TRANSACTION_INQUIRY_AGAIN_MIN, TRANSACTION_INQUIRY_PAUSE,
    TRANSACTION_TIMEOUT_MAX,
};
use corelane_model::{Decision, MonotonicNanos, PartitionIndex, ShardId, TopicId, Transaction};
use corelane_transaction::{Fate, Participant, RequestTicket};

use super::home::{Home, HomePhase};
use super::run::{Waiter, touch};
use super::{Apply, TRANSACTIONS_TOPIC};
use crate::Shard;
use crate::boot::Phase;
use crate::mesh::Message;

/// Something of a transaction at a participant.
pub(crate) type Part = (Participant, Transaction);

/// What a home says of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) fate: Fate,
    /// Whose answer it is; none where no home of the shard knows the transaction.
    pub(crate) home: Option<PartitionIndex>,
}

/// What is not decided here, as far as this shard knows.
#[derive(Debug)]
struct Open {
    /// When this process first knew of it.
    since: MonotonicNanos,
    /// When it is asked about; nothing once it is decided.
    due: Option<MonotonicNanos>,
    /// What the next pause is.
    again: Duration,
    /// Shards whose homes do not know it. They never will: whoever takes part is written down first.
    strangers: BTreeSet<ShardId>,
}

/// Everything that is open here, by when it is asked about.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    open: BTreeMap<Part, Open>,
    due: BTreeSet<(MonotonicNanos, Part)>,
    /// No question before this moment.
    paused_until: MonotonicNanos,
    /// Parts that no home knew.
    pub(super) lost: u64,
}

impl Inquiries {
    fn insert(&mut self, now: MonotonicNanos, part: Part, due: MonotonicNanos) {
        if self.open.contains_key(&part) {
            return;
        }
        self.due.insert((due, part.clone()));
        let again = TRANSACTION_INQUIRY_AGAIN_MIN;
        self.open.insert(part, Open { since: now, due: Some(due), again, strangers: BTreeSet::new() });
    }

    /// A participant here joined a transaction: nothing need be asked as long as a coordinator may tell it.
    pub(super) fn on_joined(&mut self, now: MonotonicNanos, part: Part) {
        self.insert(now, part, now.after(TRANSACTION_TIMEOUT_MAX));
    }

    /// A decision is here and has yet to become durable.
    pub(super) fn on_decided(&mut self, part: &Part) {
        if let Some(due) = self.open.get_mut(part).and_then(|open| open.due.take()) {
            self.due.remove(&(due, part.clone()));
        }
    }

    pub(super) fn forget(&mut self, part: &Part) {
        self.on_decided(part);
        self.open.remove(part);
    }

    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        let is_gone = |(of, _): &Part| matches!(of, Participant::Partition(partition) if partition.topic == topic);
        self.open.retain(|part, _| !is_gone(part));
        self.due.retain(|(_, part)| !is_gone(part));
    }

    pub(super) fn deadline(&self) -> Option<MonotonicNanos> {
        self.due.first().map(|&(due, _)| due.max(self.paused_until))
    }

    /// When this process first knew of what is open for longest.
    pub(super) fn oldest(&self) -> Option<MonotonicNanos> {
        self.open.values().map(|open| open.since).min()
    }

    /// What is to be asked about now; it comes again later. Only so many at once, so that a start that finds much open is
    /// not busy with that alone.
    fn take_due(&mut self, now: MonotonicNanos) -> Vec<Part> {
        let mut taken = Vec::new();
        if now < self.paused_until {
            return taken;
        }
        while taken.len() < TRANSACTION_INQUIRIES_MAX
            && let Some((due, _)) = self.due.first()
            && *due <= now
        {
            let (due, part) = self.due.pop_first().expect("it was just seen");
            let open = self.open.get_mut(&part).expect("what is due is open");
            assert_eq!(open.due, Some(due), "{part:?} is due once");
            let next = now.after(open.again);
            open.due = Some(next);
            open.again = open.again.saturating_mul(2).min(TRANSACTION_INQUIRY_AGAIN_MAX);
            self.due.insert((next, part.clone()));
            taken.push(part);
        }
        if !taken.is_empty() {
            self.paused_until = now.after(TRANSACTION_INQUIRY_PAUSE);
        }
        taken
    }

    fn has_spoken(&self, part: &Part, shard: ShardId) -> bool {
        self.open.get(part).is_some_and(|open| open.strangers.contains(&shard))
    }
}

impl Shard {
    /// The shard begins to serve: what is open in its partitions is asked about.
    pub(crate) fn inquire_about_partitions(&mut self) {
        let now = self.now.monotonic;
        for (partition, transaction) in self.storage.open_transactions() {
            self.transactions.inquiries.insert(now, (Participant::Partition(partition), transaction), now);
        }
    }

    /// A group was read from the disk: what is staged in it is asked about.
    pub(crate) fn inquire_about_group(&mut self, name: &corelane_model::GroupName, staged: BTreeSet<Transaction>) {
        let now = self.now.monotonic;
        for transaction in staged {
            self.transactions.inquiries.insert(now, (Participant::Group(name.clone()), transaction), now);
        }
    }

    /// Asks what is due to be asked.
    pub(super) fn inquire(&mut self) {
        for part in self.transactions.inquiries.take_due(self.now.monotonic) {
            if !self.is_part_open(&part) {
                self.transactions.inquiries.forget(&part);
                continue;
            }
            let neighbours: Vec<ShardId> = self.neighbours().collect();
            for shard in neighbours {
                if !self.transactions.inquiries.has_spoken(&part, shard) {
                    self.send_mesh(shard, Message::Inquire(Box::new(part.clone())));
                }
            }
            self.on_inquiry(self.me(), part);
        }
    }

    fn is_part_open(&self, part: &Part) -> bool {
        let (participant, transaction) = part;
        let is_there = match participant {
            Participant::Partition(partition) => self.storage.is_transaction_open(*partition, *transaction),
            Participant::Group(group) => self.is_staged_in(group, *transaction),
        };
        is_there || self.transactions.joined.contains(part)
    }

    /// A shard asks what became of a transaction. It hears nothing while this one cannot say, and asks again.
    pub(crate) fn on_inquiry(&mut self, from: ShardId, part: Part) {
        if !matches!(self.phase, Phase::Serving { .. }) {
            return;
        }
        let topic = self.catalog.as_ref().and_then(|catalog| catalog.find(TRANSACTIONS_TOPIC));
        let expected = topic.map_or(0, |topic| topic.partitions_of(self.config.shard).count());
        let Self { transactions, now, .. } = self;
        let mut serving = 0;
        let ticket = RequestTicket(transactions.ticket());
        for home in transactions.homes.values_mut().filter(|home| matches!(home.phase, HomePhase::Serving)) {
            serving += 1;
            let Some(id) = home.id_of(part.1.producer).cloned() else { continue };
            let known = home.ids.get_mut(&id).expect("producers are those of ids");
            if known.coordinator.inquire(*now, ticket, part.1, &part.0).is_ok() {
                known.asked.insert(ticket, Waiter::Inquirer { shard: from, part });
                touch(home, &id);
                transactions.is_behind = true;
            }
            return;
        }
        // One whose log is not read yet, or cannot be, may know it.
        if serving == expected {
            self.tell_fate(from, part, Told { fate: Fate::Unknown, home: None });
        }
    }

    pub(super) fn tell_fate(&mut self, to: ShardId, part: Part, told: Told) {
        if to == self.me() {
            self.on_fate(to, &part, told);
        } else {
            self.send_mesh(to, Message::Fate(Box::new((part, told))));
        }
    }

    /// A shard says what became of a transaction.
    pub(crate) fn on_fate(&mut self, from: ShardId, part: &Part, told: Told) {
        let shards = usize::from(self.config.shards);
        let inquiries = &mut self.transactions.inquiries;
        // What was decided meanwhile is not decided twice.
        let Some(open) = inquiries.open.get_mut(part).filter(|open| open.due.is_some()) else { return };
        let decision = match told.fate {
            Fate::Open => return,
            Fate::Decided(decision) => decision,
            Fate::Unknown => {
                open.strangers.insert(from);
                if open.strangers.len() < shards {
                    return;
                }
                inquiries.lost += 1;
                Decision::Abort
            }
        };
        let (participant, transaction) = part.clone();
        self.apply_decision(Apply { participant, transaction, decision, home: told.home });
    }
}

impl Home {
    /// Whose a producer is, or was until it was taken over.
    fn id_of(&self, producer: corelane_model::ProducerId) -> Option<&corelane_model::TransactionalId> {
        self.producers.get(&producer).or_else(|| self.former.get(&producer))
    }
}
