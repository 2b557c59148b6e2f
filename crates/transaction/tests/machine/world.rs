//! One transactional id: its coordinator on a disk, participants on theirs, clients that compete for the id, and messages
//! that take their time. A crash takes everything that is not on a disk, and every message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use corelane_model::{
    Decision, GroupName, MonotonicNanos, Now, PartitionId, PartitionIndex, ProducerId, TopicId, Transaction,
    TransactionalId, WallMillis,
};
use corelane_transaction::{
    AppendPosition, Coordinator, Effect, Fate, Participant, RequestTicket, Restore, TransactionError,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn id() -> TransactionalId {
    TransactionalId::parse("settle-matches").expect("it is sound")
}

/// The last one is a group.
pub(crate) fn participant(place: usize) -> Participant {
    if place == PARTICIPANTS - 1 {
        return Participant::Group(GroupName::parse("match-makers").expect("it is sound"));
    }
    let index = PartitionIndex(u32::try_from(place).expect("few"));
    Participant::Partition(PartitionId::new(TopicId(3), index))
}

pub(crate) const PARTICIPANTS: usize = 3;
pub(crate) const CLIENTS: usize = 2;

/// What a participant has in its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Write(Transaction, u64),
    End(Transaction, Decision),
}

/// A partition or a group, as far as transactions go.
#[derive(Debug, Default)]
struct Part {
    items: Vec<Item>,
    durable: usize,
    /// Transactions that the coordinator let it take in, since their ends.
    joined: BTreeSet<Transaction>,
    /// Ends on their way to the disk, by how many items have to be there.
    ending: Vec<(usize, Transaction)>,
}

impl Part {
    fn is_open(&self, transaction: Transaction) -> bool {
        let of = |item: &&Item| matches!(item, Item::Write(of, _) | Item::End(of, _) if *of == transaction);
        matches!(self.items.iter().rev().find(of), Some(Item::Write(..)))
    }

    fn open(&self) -> Vec<Transaction> {
        let all: BTreeSet<_> = self
            .items
            .iter()
            .map(|item| match item {
                Item::Write(transaction, _) | Item::End(transaction, _) => *transaction,
            })
            .collect();
        all.into_iter().filter(|transaction| self.is_open(*transaction)).collect()
    }

    fn decision(&self, transaction: Transaction) -> Option<Decision> {
        self.items.iter().find_map(|item| match item {
            Item::End(of, decision) if *of == transaction => Some(*decision),
            _ => None,
        })
    }

    /// What readers of committed records see.
    fn visible(&self) -> impl Iterator<Item = (Transaction, u64)> {
        self.items.iter().filter_map(|item| match item {
            Item::Write(transaction, token) if self.decision(*transaction) == Some(Decision::Commit) => {
                Some((*transaction, *token))
            }
            _ => None,
        })
    }
}

#[derive(Debug)]
enum Message {
    Joined { ticket: RequestTicket },
    JoinRefused { ticket: RequestTicket },
    Apply { transaction: Transaction, decision: Decision },
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Nothing,
    Initialised(RequestTicket),
    Ended(RequestTicket, Decision),
}

#[derive(Debug)]
struct Client {
    transaction: Option<Transaction>,
    waits: Waits,
    /// Writes that were not stored: participant, transaction and token, by the ticket of the join that they wait for.
    joining: BTreeMap<RequestTicket, (usize, Transaction, u64)>,
    /// Something was lost or refused: only an abort is left.
    is_broken: bool,
}

/// What was written under one transaction.
#[derive(Debug, Default)]
struct Written {
    tokens: Vec<(usize, u64)>,
    told: Option<Decision>,
    was_visible: bool,
}

pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    pub(crate) now: Now,
    pub(crate) log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) durable: usize,
    base: usize,
    parts: Vec<Part>,
    clients: Vec<Client>,
    to_parts: Vec<VecDeque<Message>>,
    to_coordinator: VecDeque<(usize, Transaction)>,
    joins: VecDeque<(RequestTicket, Transaction, usize)>,
    written: BTreeMap<Transaction, Written>,
    /// Questions of participants after a restart.
    asked: BTreeMap<RequestTicket, (usize, Transaction)>,
    next: u64,
    pub(crate) is_removed: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Now { monotonic: MonotonicNanos(1_000_000_000), wall: WallMillis(1_700_000_000_000) };
        let client = || Client { transaction: None, waits: Waits::Nothing, joining: BTreeMap::new(), is_broken: false };
        Self {
            coordinator: Coordinator::new(now, id()),
            now,
            log: Vec::new(),
            durable: 0,
            base: 0,
            parts: (0..PARTICIPANTS).map(|_| Part::default()).collect(),
            clients: (0..CLIENTS).map(|_| client()).collect(),
            to_parts: (0..PARTICIPANTS).map(|_| VecDeque::new()).collect(),
            to_coordinator: VecDeque::new(),
            joins: VecDeque::new(),
            written: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
            is_removed: false,
        }
    }

    fn count(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn initialise(&mut self, client: usize) {
        if self.clients[client].waits != Waits::Nothing {
            return;
        }
        let (ticket, fresh) = (RequestTicket(self.count()), ProducerId(self.count()));
        self.coordinator.initialise(self.now, ticket, fresh, TIMEOUT).expect("nothing speaks against it");
        let client = &mut self.clients[client];
        client.waits = Waits::Initialised(ticket);
        client.transaction = None;
        client.joining.clear();
        client.is_broken = false;
        self.finish();
    }

    pub(crate) fn write(&mut self, client: usize, place: usize) {
        let Some(transaction) = self.clients[client].transaction else { return };
        if self.clients[client].waits != Waits::Nothing || self.clients[client].is_broken {
            return;
        }
        let (ticket, token) = (RequestTicket(self.count()), self.count());
        self.clients[client].joining.insert(ticket, (place, transaction, token));
        if self.parts[place].is_open(transaction) || self.parts[place].joined.contains(&transaction) {
            self.take(ticket);
        } else {
            self.joins.push_back((ticket, transaction, place));
        }
    }

    /// A participant takes what waited for the coordinator's word.
    fn take(&mut self, ticket: RequestTicket) {
        for client in &mut self.clients {
            let Some((place, transaction, token)) = client.joining.remove(&ticket) else { continue };
            let part = &mut self.parts[place];
            let is_let_in = part.is_open(transaction) || part.joined.contains(&transaction);
            if !is_let_in || part.decision(transaction).is_some() {
                client.is_broken = true;
                continue;
            }
            part.items.push(Item::Write(transaction, token));
            self.written.entry(transaction).or_default().tokens.push((place, token));
        }
    }

    /// Commits only what is stored everywhere.
    pub(crate) fn end(&mut self, client: usize, wish: Decision) {
        let Client { transaction: Some(transaction), waits: Waits::Nothing, .. } = self.clients[client] else { return };
        let is_stored = self.written.get(&transaction).is_none_or(|written| {
            written.tokens.iter().all(|&(place, token)| {
                let part = &self.parts[place];
                part.items[..part.durable].contains(&Item::Write(transaction, token))
            })
        });
        let is_whole = is_stored && !self.clients[client].is_broken && self.clients[client].joining.is_empty();
        let decision = if is_whole { wish } else { Decision::Abort };
        let ticket = RequestTicket(self.count());
        match self.coordinator.end(self.now, ticket, transaction, decision) {
            Ok(()) => self.clients[client].waits = Waits::Ended(ticket, decision),
            Err(TransactionError::Ended { decision: decided, .. }) => {
                assert_ne!(decided, decision);
                self.on_told(transaction, decided);
                self.clients[client].transaction = None;
            }
            Err(TransactionError::Fenced { .. } | TransactionError::Past { .. } | TransactionError::Unknown { .. }) => {
                self.clients[client].transaction = None;
            }
            // The one before was answered, and a crash took the note that it is over. The client tries again.
            Err(TransactionError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        self.finish();
    }

    fn on_told(&mut self, transaction: Transaction, decision: Decision) {
        let written = self.written.entry(transaction).or_default();
        assert!(written.told.is_none_or(|told| told == decision), "told {:?}, then {decision}", written.told);
        written.told = Some(decision);
    }

    /// Ends the coordinator's round.
    pub(crate) fn finish(&mut self) {
        self.coordinator.finish_round();
        while let Some(effect) = self.coordinator.poll_effect() {
            self.on_effect(effect);
        }
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Append { position, key, value } => {
                self.log.push((key, value));
                assert_eq!(self.base + usize::try_from(position.0).expect("few"), self.log.len());
            }
            Effect::Initialised { ticket, transaction } => {
                if let Some(client) = self.clients.iter_mut().find(|client| client.waits == Waits::Initialised(ticket))
                {
                    client.waits = Waits::Nothing;
                    client.transaction = Some(transaction);
                    assert!(!self.written.contains_key(&transaction), "{transaction} was used before");
                }
            }
            Effect::Joined { ticket } => {
                let place = self.place_of(ticket);
                self.to_parts[place].push_back(Message::Joined { ticket });
            }
            Effect::Ended { ticket, next } => {
                let waits = |client: &&mut Client| matches!(client.waits, Waits::Ended(at, _) if at == ticket);
                let Some(client) = self.clients.iter_mut().find(waits) else { return };
                let Waits::Ended(_, decision) = client.waits else { unreachable!("it was just found") };
                let transaction = client.transaction.expect("it has one");
                client.waits = Waits::Nothing;
                client.is_broken = false;
                client.transaction = next;
                assert_ne!(next, Some(transaction), "what was ended may begin again");
                self.on_told(transaction, decision);
                self.check_answered(transaction, decision);
            }
            Effect::Refused { ticket, error } => {
                assert!(matches!(error, TransactionError::Superseded { .. }), "{error}");
                if let Some(client) = self.clients.iter_mut().find(|client| client.waits == Waits::Initialised(ticket))
                {
                    client.waits = Waits::Nothing;
                }
            }
            Effect::Apply { participant: of, transaction, decision } => {
                let place = (0..PARTICIPANTS).find(|&place| participant(place) == of).expect("one of ours");
                let is_durable = self.log[..self.durable].iter().rev().any(|(_, value)| value.is_some());
                assert!(is_durable, "a decision is told before it is durable");
                self.to_parts[place].push_back(Message::Apply { transaction, decision });
            }
            Effect::Fate { ticket, fate } => {
                let (place, transaction) = self.asked.remove(&ticket).expect("it was asked once");
                match fate {
                    Fate::Open => {}
                    Fate::Decided(decision) => self.to_parts[place].push_back(Message::Apply { transaction, decision }),
                    Fate::Unknown => {
                        let decision = Decision::Abort;
                        self.to_parts[place].push_back(Message::Apply { transaction, decision });
                    }
                }
            }
            Effect::Remove => self.is_removed = true,
        }
    }

    /// What an answer promises: readers see all of it now, or none.
    fn check_answered(&self, transaction: Transaction, decision: Decision) {
        let Some(written) = self.written.get(&transaction) else { return };
        for &(place, token) in &written.tokens {
            let is_visible = self.parts[place].visible().any(|seen| seen == (transaction, token));
            assert_eq!(is_visible, decision == Decision::Commit, "{transaction} is answered with {decision}");
        }
    }

    fn place_of(&self, ticket: RequestTicket) -> usize {
        let found = self.clients.iter().find_map(|client| client.joining.get(&ticket));
        // A client that gave up: somebody still has to hear it.
        found.map_or(0, |&(place, ..)| place)
    }

    /// One request of a participant reaches the coordinator.
    pub(crate) fn deliver_join(&mut self) {
        let Some((ticket, transaction, place)) = self.joins.pop_front() else { return };
        if self.coordinator.join(self.now, ticket, transaction, participant(place)).is_err() {
            self.to_parts[place].push_back(Message::JoinRefused { ticket });
        }
        self.finish();
    }

    /// One message reaches a participant, or one of them the coordinator.
    pub(crate) fn deliver(&mut self, place: usize) {
        match self.to_parts[place].pop_front() {
            None => {}
            Some(Message::Joined { ticket }) => {
                let waits = self.clients.iter().find_map(|client| client.joining.get(&ticket));
                if let Some(&(place, transaction, _)) = waits {
                    self.parts[place].joined.insert(transaction);
                    self.take(ticket);
                }
            }
            Some(Message::JoinRefused { ticket }) => {
                for client in &mut self.clients {
                    client.is_broken |= client.joining.remove(&ticket).is_some();
                }
            }
            Some(Message::Apply { transaction, decision }) => self.apply(place, transaction, decision),
        }
    }

    fn apply(&mut self, place: usize, transaction: Transaction, decision: Decision) {
        let part = &mut self.parts[place];
        part.joined.remove(&transaction);
        if part.is_open(transaction) {
            part.items.push(Item::End(transaction, decision));
            part.ending.push((part.items.len(), transaction));
        } else if !part.ending.iter().any(|&(_, ending)| ending == transaction) {
            self.to_coordinator.push_back((place, transaction));
        }
        self.look();
    }

    pub(crate) fn deliver_applied(&mut self) {
        if let Some((place, transaction)) = self.to_coordinator.pop_front() {
            self.coordinator.on_applied(self.now, transaction, &participant(place));
            self.finish();
        }
    }

    pub(crate) fn sync_coordinator(&mut self, behind: usize) {
        self.durable = self.durable.max(self.log.len().saturating_sub(behind));
        let position = AppendPosition((self.durable - self.base.min(self.durable)) as u64);
        self.coordinator.on_durable(position);
        self.finish();
    }

    pub(crate) fn sync_part(&mut self, place: usize) {
        let part = &mut self.parts[place];
        part.durable = part.items.len();
        for (_, transaction) in std::mem::take(&mut part.ending) {
            self.to_coordinator.push_back((place, transaction));
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic.after(time);
        self.now.wall.0 += i64::try_from(time.as_millis()).expect("short");
        if self.coordinator.next_deadline().is_some_and(|deadline| deadline <= self.now.monotonic) {
            self.coordinator.on_deadline(self.now);
            self.finish();
        }
    }

    /// The broker ends; some of what was not yet durable survives all the same.
    pub(crate) fn crash(&mut self, survive: usize) {
        self.log.truncate(self.log.len().min(self.durable + survive));
        self.durable = self.log.len();
        self.base = self.log.len();
        for part in &mut self.parts {
            part.items.truncate((part.durable + survive).min(part.items.len()));
            part.durable = part.items.len();
            part.joined.clear();
            part.ending.clear();
        }
        self.to_parts.iter_mut().for_each(VecDeque::clear);
        self.to_coordinator.clear();
        self.joins.clear();
        for written in self.written.values_mut() {
            let parts = &self.parts;
            let is_there = |(place, token): &(usize, u64)| {
                parts[*place].items.iter().any(|item| matches!(item, Item::Write(_, of) if of == token))
            };
            assert!(!written.was_visible || written.tokens.iter().all(is_there), "what was seen is gone");
            written.tokens.retain(is_there);
        }
        for client in &mut self.clients {
            // Whatever was under way is in doubt. An end is asked for again.
            client.is_broken = true;
            client.joining.clear();
            client.waits = Waits::Nothing;
        }
        let mut restore = Restore::new(id());
        for (key, value) in &self.log {
            restore.apply(key, value.as_deref()).expect("it was written so");
        }
        self.coordinator = restore.finish(self.now);
        self.check_compacted();
        self.inquire();
        self.finish();
        self.look();
    }

    /// Of each key the newest record alone says the same.
    fn check_compacted(&self) {
        let newest: BTreeMap<&[u8], usize> = self.log.iter().enumerate().map(|(at, (key, _))| (&key[..], at)).collect();
        let mut restore = Restore::new(id());
        for (key, value) in
            self.log.iter().enumerate().filter(|(at, (key, _))| newest[&key[..]] == *at).map(|(_, kept)| kept)
        {
            restore.apply(key, value.as_deref()).expect("it was written so");
        }
        let compacted = restore.finish(self.now);
        assert_eq!(compacted.phase(), self.coordinator.phase());
        assert_eq!(compacted.record(), self.coordinator.record());
    }

    /// Every participant asks about what it has.
    pub(crate) fn inquire(&mut self) {
        self.asked.clear();
        for place in 0..PARTICIPANTS {
            for transaction in self.parts[place].open() {
                let ticket = RequestTicket(self.count());
                self.asked.insert(ticket, (place, transaction));
                let asked = self.coordinator.inquire(self.now, ticket, transaction, &participant(place));
                asked.expect("there is room");
            }
        }
    }

    /// Damage takes the end of a transaction out of a participant's journal, as long as the coordinator knows it: the last
    /// that was over, or the one that is being ended.
    pub(crate) fn lose_end(&mut self, place: usize) -> bool {
        let known = [self.coordinator.current(), self.coordinator.last().map(|(last, _)| last)];
        let part = &mut self.parts[place];
        let Some(Item::End(transaction, _)) = part.items.last() else { return false };
        if part.durable != part.items.len() || !known.contains(&Some(*transaction)) {
            return false;
        }
        part.items.pop();
        part.durable = part.items.len();
        true
    }

    /// A client that had asked for a commit asks again for the same, and hears what was decided.
    pub(crate) fn ask_again(&mut self, client: usize) {
        let Client { transaction: Some(transaction), waits: Waits::Nothing, .. } = self.clients[client] else { return };
        let ticket = RequestTicket(self.count());
        let decided = match self.coordinator.end(self.now, ticket, transaction, Decision::Abort) {
            Err(TransactionError::Ended { decision, .. }) => Some(decision),
            _ => None,
        };
        if let Some(decision) = decided {
            self.on_told(transaction, decision);
            self.clients[client].transaction = None;
        }
        self.finish();
    }

    /// A reader of committed records looks everywhere.
    pub(crate) fn look(&mut self) {
        for part in &self.parts {
            for (transaction, _) in part.visible() {
                self.written.get_mut(&transaction).expect("somebody wrote it").was_visible = true;
            }
        }
    }

    /// Everything that is under way arrives.
    pub(crate) fn settle_a_little(&mut self) {
        loop {
            let is_idle = self.joins.is_empty()
                && self.to_parts.iter().all(VecDeque::is_empty)
                && self.to_coordinator.is_empty()
                && self.parts.iter().all(|part| part.durable == part.items.len())
                && self.durable == self.log.len();
            if is_idle {
                return;
            }
            self.deliver_join();
            (0..PARTICIPANTS).for_each(|place| self.deliver(place));
            (0..PARTICIPANTS).for_each(|place| self.sync_part(place));
            self.deliver_applied();
            self.sync_coordinator(0);
        }
    }

    /// Everything that is under way arrives and what is open runs out of time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..3 {
            self.settle_a_little();
            self.pass(TIMEOUT);
        }
        self.settle_a_little();
    }

    /// All or nothing of each transaction, everywhere.
    pub(crate) fn check_settled(&mut self) {
        self.look();
        for part in &self.parts {
            assert_eq!(part.open(), [], "a transaction that nobody decides");
        }
        for (transaction, written) in &self.written {
            let seen = |&&(place, token): &&(usize, u64)| {
                self.parts[place].visible().any(|seen| seen == (*transaction, token))
            };
            let visible = written.tokens.iter().filter(seen).count();
            assert!(visible == 0 || visible == written.tokens.len(), "{transaction}: {visible} of {written:?}");
            if !written.tokens.is_empty() {
                assert!(visible != 0 || !written.was_visible, "{transaction} was seen and is not");
                assert!(written.told.is_none_or(|told| (told == Decision::Commit) == (visible != 0)), "{written:?}");
            }
        }
    }

    pub(crate) fn transaction_of(&self, client: usize) -> Option<Transaction> {
        self.clients[client].transaction
    }

    pub(crate) fn visible(&self) -> usize {
        self.parts.iter().map(|part| part.visible().count()).sum()
    }
}
