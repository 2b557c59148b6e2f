//! Requests at their coordinator, and what it wants done.

use std::time::Duration;

use corelane_model::{
    ErrorCode, MonotonicNanos, Offset, PartitionId, PartitionIndex, ShardId, Transaction, TransactionalId,
};
use corelane_session::{Refused, TransactionAsk};
use corelane_transaction::{AppendPosition, Coordinator, Effect, Participant, RequestTicket, TransactionError};
use corelane_wire::{EndTransactionAnswer, InitialiseTransactionsAnswer};

use super::home::{Coordinated, Home, HomePhase, Reach};
use super::{Apply, Part, ToCoordinator, ToParticipant, Told, TransactionAnswer};
use crate::Shard;
use crate::ask::{Answer, Asker};
use crate::boot::Phase as ShardPhase;
use crate::home_log::WRITE_AGAIN;

/// A decision that found no room at a participant is tried again after this time.
const APPLY_AGAIN: Duration = Duration::from_millis(10);
/// Transactional ids that have one home; more are refused.
const HOME_IDS_MAX: usize = 16_384;

/// Who waits for a ticket.
#[derive(Debug)]
pub(crate) enum Waiter {
    Client(Asker),
    Participant { participant: Participant, transaction: Transaction },
    Inquirer { shard: ShardId, part: Part },
}

/// Something for somebody.
#[derive(Debug)]
enum Telling {
    Answer(Asker, TransactionAnswer),
    Refuse(Waiter, Refused),
    Joined { participant: Participant, transaction: Transaction },
    Apply(Apply),
    Fate(ShardId, Part, Told),
}

fn refused(error: &TransactionError) -> Refused {
    Refused::new(error.code(), error.to_string())
}

impl Shard {
    /// Takes in what came for a coordinator whose home is here.
    pub(super) fn run_transaction(&mut self, message: ToCoordinator) {
        match message {
            ToCoordinator::Request { asker, id, fresh, ask } => {
                if let Err(error) = self.run_transaction_request(asker, &id, fresh, ask) {
                    self.refuse(asker, None, error);
                }
            }
            ToCoordinator::Join { home, transaction, participant } => {
                if let Err(error) = self.run_join(home, transaction, &participant) {
                    self.send_to_participant(ToParticipant::Joined { participant, transaction, result: Err(error) });
                }
            }
            ToCoordinator::Applied { home, transaction, participant } => {
                let Some(home) = self.transactions.homes.get_mut(&home) else { return };
                let Some(id) = home.producers.get(&transaction.producer).cloned() else { return };
                let known = home.ids.get_mut(&id).expect("producers are those of ids");
                known.coordinator.on_applied(self.now, transaction, &participant);
                touch(home, &id);
            }
        }
        // The coordinator's round ends with the shard's, or with the next one's if the homes had their turn in this one.
        self.is_storage_touched = true;
        self.transactions.is_behind = true;
    }

    fn run_transaction_request(
        &mut self,
        asker: Asker,
        id: &TransactionalId,
        fresh: corelane_model::ProducerId,
        ask: TransactionAsk,
    ) -> Result<(), Refused> {
        let Self { transactions, now, .. } = self;
        let (ticket, serial) = (RequestTicket(transactions.ticket()), transactions.ticket());
        let home = transactions.homes.get_mut(&id.home()).ok_or_else(no_home)?;
        if let Some(refused) = home.refuses() {
            return Err(refused);
        }
        if !home.ids.contains_key(id) {
            if matches!(ask, TransactionAsk::End { .. }) {
                let text = format!("transactional id {id} has no producer; initialise it");
                return Err(Refused::new(ErrorCode::UnknownTransaction, text));
            }
            if HOME_IDS_MAX <= home.ids.len() {
                let text = format!("the home of transactional id {id} keeps {HOME_IDS_MAX} ids already");
                return Err(Refused::new(ErrorCode::LimitReached, text));
            }
            home.insert(Coordinator::new(*now, id.clone()), serial);
        }
        let known = home.ids.get_mut(id).expect("it was just made");
        let done = match ask {
            TransactionAsk::Initialise { timeout } => known.coordinator.initialise(*now, ticket, fresh, timeout),
            TransactionAsk::End { transaction, decision } => known.coordinator.end(*now, ticket, transaction, decision),
        };
        done.map_err(|error| refused(&error))?;
        known.asked.insert(ticket, Waiter::Client(asker));
        touch(home, id);
        Ok(())
    }

    fn run_join(
        &mut self,
        home: PartitionIndex,
        transaction: Transaction,
        participant: &Participant,
    ) -> Result<(), Refused> {
        let Self { transactions, now, .. } = self;
        let ticket = RequestTicket(transactions.ticket());
        let home = transactions.homes.get_mut(&home).ok_or_else(no_home)?;
        if let Some(refused) = home.refuses() {
            return Err(refused);
        }
        let Some(id) = home.producers.get(&transaction.producer).cloned() else {
            let text = format!("no transactional id has the producer of transaction {transaction} (any more)");
            return Err(Refused::new(ErrorCode::ProducerFenced, text));
        };
        let known = home.ids.get_mut(&id).expect("producers are those of ids");
        let done = known.coordinator.join(*now, ticket, transaction, participant.clone());
        done.map_err(|error| refused(&error))?;
        known.asked.insert(ticket, Waiter::Participant { participant: participant.clone(), transaction });
        touch(home, &id);
        Ok(())
    }

    /// Ends the round of every coordinator to which something happened. Whether more can be done at once.
    pub(crate) fn finish_transactions(&mut self) -> bool {
        if !matches!(self.phase, ShardPhase::Serving { .. }) {
            // Coordinators have no more turns: what comes now is told by the next start.
            self.transactions.is_behind = false;
            return false;
        }
        self.expire_arriving_transactions();
        self.apply_again();
        self.inquire();
        let is_more = self.restore_transactions();
        let now = self.now.monotonic;
        self.transactions.is_behind = false;
        let busy = self.transactions.homes.iter().filter(|(_, home)| home.is_busy(now));
        let homes: Vec<PartitionIndex> = busy.map(|(&index, _)| index).collect();
        for index in homes {
            let Some(home) = self.transactions.homes.get_mut(&index) else { continue };
            if !matches!(home.phase, HomePhase::Serving) {
                continue;
            }
            home.meet_deadlines(self.now);
            let mut out = Vec::new();
            for id in std::mem::take(&mut home.touched) {
                if let Some(known) = home.ids.get_mut(&id) {
                    known.coordinator.finish_round();
                    pump(home, &id, &mut out);
                }
            }
            self.write_transactions(index);
            self.tell_transactions(out);
        }
        is_more
    }

    /// When the coordinators want a round even if nothing happens.
    pub(crate) fn transactions_deadline(&self) -> Option<MonotonicNanos> {
        if !matches!(self.phase, ShardPhase::Serving { .. }) {
            return None;
        }
        let arriving = self.transactions.arriving.front().map(|&(at, _)| at);
        let again = (!self.transactions.unapplied.is_empty()).then(|| self.now.monotonic.after(APPLY_AGAIN));
        let is_waiting = self.transactions.homes.values().any(Home::is_waiting);
        let write = is_waiting.then(|| self.now.monotonic.after(WRITE_AGAIN));
        let homes = self.transactions.homes.values().filter_map(Home::first_deadline);
        homes.chain(arriving).chain(again).chain(write).chain(self.transactions.inquiries.deadline()).min()
    }

    /// Records of a home became durable: what waited for them leaves.
    pub(crate) fn on_transactions_durable(&mut self, partition: PartitionId, end: Offset) {
        if self.transactions.topic != Some(partition.topic) {
            return;
        }
        let Some(home) = self.transactions.homes.get_mut(&partition.index) else { return };
        let mut out = Vec::new();
        for Reach { owner: id, serial, position } in home.appends.take_durable(end) {
            if let Some(known) = home.ids.get_mut(&id).filter(|known| known.serial == serial) {
                known.coordinator.on_durable(AppendPosition(position));
                pump(home, &id, &mut out);
            }
        }
        self.tell_transactions(out);
    }

    fn tell_transactions(&mut self, tellings: Vec<Telling>) {
        for telling in tellings {
            match telling {
                Telling::Answer(asker, answer) => self.answer(asker, None, Answer::Transaction(answer)),
                Telling::Refuse(waiter, refused) => self.refuse_waiter(waiter, refused),
                Telling::Joined { participant, transaction } => {
                    self.send_to_participant(ToParticipant::Joined { participant, transaction, result: Ok(()) });
                }
                Telling::Apply(apply) => self.send_to_participant(ToParticipant::Apply(apply)),
                Telling::Fate(shard, part, told) => self.tell_fate(shard, part, told),
            }
        }
    }

    pub(super) fn refuse_waiter(&mut self, waiter: Waiter, refused: Refused) {
        match waiter {
            Waiter::Client(asker) => self.refuse(asker, None, refused),
            Waiter::Participant { participant, transaction } => {
                self.send_to_participant(ToParticipant::Joined { participant, transaction, result: Err(refused) });
            }
            // It asks again.
            Waiter::Inquirer { .. } => {}
        }
    }
}

fn no_home() -> Refused {
    Refused::new(ErrorCode::Recovering, "the home of the transactional id is being opened; try again in a moment")
}

pub(super) fn touch(home: &mut Home, id: &TransactionalId) {
    home.index(id);
    home.touched.insert(id.clone());
}

/// Takes a coordinator's effects: records into the home's log, everything else as things to tell.
fn pump(home: &mut Home, id: &TransactionalId, out: &mut Vec<Telling>) {
    let index = home.partition.index;
    let mut is_gone = false;
    loop {
        let known = home.ids.get_mut(id).expect("the caller has it");
        let Some(effect) = known.coordinator.poll_effect() else { break };
        let serial = known.serial;
        match effect {
            Effect::Append { position, key, value } => {
                home.appends.push(key, value, Some(Reach { owner: id.clone(), serial, position: position.0 }));
            }
            Effect::Initialised { ticket, transaction } => {
                let home = u16::try_from(index.0).expect("there are few homes");
                let answer =
                    InitialiseTransactionsAnswer { producer: transaction.producer.0, epoch: transaction.epoch.0, home };
                tell_client(known, ticket, TransactionAnswer::Initialised(answer), out);
            }
            Effect::Ended { ticket, next } => {
                let next = next.unwrap_or_default();
                let answer = EndTransactionAnswer { producer: next.producer.0, epoch: next.epoch.0 };
                tell_client(known, ticket, TransactionAnswer::Ended(answer), out);
            }
            Effect::Joined { ticket } => {
                if let Some(Waiter::Participant { participant, transaction }) = known.asked.remove(&ticket) {
                    out.push(Telling::Joined { participant, transaction });
                }
            }
            Effect::Refused { ticket, error } => {
                if let Some(waiter) = known.asked.remove(&ticket) {
                    out.push(Telling::Refuse(waiter, refused(&error)));
                }
            }
            Effect::Apply { participant, transaction, decision } => {
                out.push(Telling::Apply(Apply { participant, transaction, decision, home: Some(index) }));
            }
            Effect::Fate { ticket, fate } => {
                if let Some(Waiter::Inquirer { shard, part }) = known.asked.remove(&ticket) {
                    out.push(Telling::Fate(shard, part, Told { fate, home: Some(index) }));
                }
            }
            Effect::Remove => is_gone = true,
        }
    }
    home.index(id);
    if is_gone {
        let known = home.remove(id).expect("it was just there");
        let text = format!("transactional id {id} was forgotten; initialise it again");
        let gone = Refused::new(ErrorCode::UnknownTransaction, text);
        out.extend(known.asked.into_values().map(|waiter| Telling::Refuse(waiter, gone.clone())));
    }
}

fn tell_client(known: &mut Coordinated, ticket: RequestTicket, answer: TransactionAnswer, out: &mut Vec<Telling>) {
    if let Some(Waiter::Client(asker)) = known.asked.remove(&ticket) {
        out.push(Telling::Answer(asker, answer));
    }
}

/// The shard that a home or participant is on; nobody before there is one.
pub(super) fn owner_of(shards: Option<&[ShardId]>, index: PartitionIndex) -> Option<ShardId> {
    shards?.get(index.0 as usize).copied()
}
