//! From a connection to a coordinator, and between coordinators and participants.

use std::time::Duration;

use corelane_model::{ErrorCode, PartitionId, PartitionIndex, ProducerId, ShardId};
use corelane_session::{Refused, TransactionAsk, TransactionRequest};
use corelane_transaction::Participant;

use super::run::{Waiter, owner_of};
use super::{TRANSACTIONS_TOPIC, ToCoordinator, ToParticipant};
use crate::Shard;
use crate::ask::{Asker, CatalogRequest, Peer, Wish};
use crate::mesh::Message;

/// How long a request waits until `__transactions` is made: some syncs and messages.
const TOPIC_WAIT: Duration = Duration::from_secs(5);
/// Requests that wait for it at once; more are refused.
const ARRIVING_MAX: usize = 4096;

impl Shard {
    /// A request of a connection here.
    pub(crate) fn handle_transaction(&mut self, peer: Peer, request: TransactionRequest) {
        let TransactionRequest { correlation, id, ask } = request;
        let asker = Asker { peer, correlation };
        if let Some(refused) = self.refuse_phase() {
            return self.refuse(asker, None, refused);
        }
        let fresh = match ask {
            TransactionAsk::Initialise { .. } => {
                self.is_storage_touched = true;
                let count = self.storage.next_producer_id(self.now);
                let Some((count, session)) = count.zip(self.session_of(peer.connection)) else {
                    let text = "producer ids are being leased; try again in a moment";
                    return self.refuse(asker, None, Refused::new(ErrorCode::Busy, text));
                };
                self.seal.seal(session, self.me(), count.0)
            }
            TransactionAsk::End { transaction, .. } => {
                if !self.is_own_producer(peer.connection, transaction.producer) {
                    let text = format!("producer id {} was handed to another client", transaction.producer);
                    return self.refuse(asker, None, Refused::new(ErrorCode::ProducerFenced, text));
                }
                ProducerId::NONE
            }
        };
        self.send_to_coordinator(ToCoordinator::Request { asker, id, fresh, ask });
    }

    /// Runs, forwards or holds back what is for a coordinator.
    pub(crate) fn send_to_coordinator(&mut self, message: ToCoordinator) {
        let home = match &message {
            ToCoordinator::Request { id, .. } => id.home(),
            ToCoordinator::Join { home, .. } | ToCoordinator::Applied { home, .. } => *home,
        };
        match self.transactions_owner(home) {
            Some(owner) if owner == self.me() => self.run_transaction(message),
            Some(owner) => self.send_mesh(owner, Message::ToCoordinator(Box::new(message))),
            None => self.hold_back_transaction(message),
        }
    }

    /// A neighbour has something for a coordinator here.
    pub(crate) fn on_coordinator_message(&mut self, from: ShardId, message: ToCoordinator) {
        let refused = match self.refuse_phase() {
            // The sender may know of the topic before this shard does.
            None if matches!(message, ToCoordinator::Request { .. }) => return self.send_to_coordinator(message),
            None => return self.run_transaction(message),
            Some(refused) => refused,
        };
        match message {
            ToCoordinator::Request { asker, .. } => self.refuse(asker, None, refused),
            ToCoordinator::Join { transaction, participant, .. } => {
                let joined = ToParticipant::Joined { participant, transaction, result: Err(refused) };
                self.send_mesh(from, Message::ToParticipant(Box::new(joined)));
            }
            // Who is told again after a restart says so again.
            ToCoordinator::Applied { .. } => {}
        }
    }

    /// The owner of a home; nobody before there is one.
    fn transactions_owner(&self, home: PartitionIndex) -> Option<ShardId> {
        let topic = self.catalog.as_ref()?.find(TRANSACTIONS_TOPIC)?;
        owner_of(Some(&topic.shards), home)
    }

    /// Keeps an initialisation until there is a topic for it, and sees to it that it is made. Before, there can be no
    /// transaction that anybody asks about.
    fn hold_back_transaction(&mut self, message: ToCoordinator) {
        let is_first = self.transactions.arriving.is_empty();
        match message {
            ToCoordinator::Request { asker, ask: TransactionAsk::Initialise { .. }, .. } => {
                if ARRIVING_MAX <= self.transactions.arriving.len() {
                    let text = format!("{ARRIVING_MAX} requests wait for the topic {TRANSACTIONS_TOPIC} already");
                    return self.refuse(asker, None, Refused::new(ErrorCode::Busy, text));
                }
                let deadline = self.now.monotonic.after(TOPIC_WAIT);
                self.transactions.arriving.push_back((deadline, message));
            }
            ToCoordinator::Request { asker, id, .. } => {
                let text = format!("transactional id {id} has no producer; initialise it");
                return self.refuse(asker, None, Refused::new(ErrorCode::UnknownTransaction, text));
            }
            ToCoordinator::Join { transaction, participant, .. } => {
                let text = format!("no transactional id has the producer of transaction {transaction}");
                let result = Err(Refused::new(ErrorCode::UnknownTransaction, text));
                return self.on_joined(participant, transaction, &result);
            }
            ToCoordinator::Applied { .. } => return,
        }
        if is_first {
            self.wish_for_transactions();
        }
    }

    fn wish_for_transactions(&mut self) {
        let request = CatalogRequest { asker: None, wish: Wish::CreateTransactions };
        if self.me() == ShardId(0) {
            self.handle_wish(request);
        } else {
            self.send_mesh(ShardId(0), Message::Wish(Box::new(request)));
        }
    }

    /// There is a topic for transactions: this shard's homes are opened and what waited is sent on its way.
    pub(crate) fn open_transactions(&mut self) {
        let Some(topic) = self.catalog.as_ref().and_then(|catalog| catalog.find(TRANSACTIONS_TOPIC)) else { return };
        let partitions: Vec<PartitionId> = topic.partitions_of(self.config.shard).collect();
        self.transactions.topic = Some(topic.id);
        self.open_transaction_partitions(partitions);
        for (_, message) in std::mem::take(&mut self.transactions.arriving) {
            self.send_to_coordinator(message);
        }
        self.is_storage_touched = true;
    }

    /// Refuses what has waited too long for the topic.
    pub(super) fn expire_arriving_transactions(&mut self) {
        let mut was_any = false;
        while self.transactions.arriving.front().is_some_and(|&(deadline, _)| deadline <= self.now.monotonic) {
            let (_, message) = self.transactions.arriving.pop_front().expect("it has a deadline");
            let text = format!("the topic {TRANSACTIONS_TOPIC} could not be made in time; is the disk full?");
            if let ToCoordinator::Request { asker, .. } = message {
                self.refuse(asker, None, Refused::new(ErrorCode::TimedOut, text));
            }
            was_any = true;
        }
        if was_any && !self.transactions.arriving.is_empty() {
            self.wish_for_transactions();
        }
    }

    /// Tells a participant, here or next door. One whose topic is gone has nothing to decide.
    pub(super) fn send_to_participant(&mut self, message: ToParticipant) {
        let participant = match &message {
            ToParticipant::Joined { participant, .. } => participant,
            ToParticipant::Apply(apply) => &apply.participant,
        };
        let owner = match participant {
            Participant::Partition(partition) => {
                let topic = self.catalog.as_ref().and_then(|catalog| catalog.topic(partition.topic));
                owner_of(topic.map(|topic| &topic.shards[..]), partition.index)
            }
            Participant::Group(group) => self.home_owner(group),
        };
        match (owner, message) {
            (Some(owner), message) if owner != self.me() => {
                self.send_mesh(owner, Message::ToParticipant(Box::new(message)));
            }
            (Some(_), message) => self.take_part(message),
            (None, ToParticipant::Joined { .. }) => {}
            (None, ToParticipant::Apply(apply)) => self.on_apply_done(apply),
        }
    }

    /// Refuses everything that waits, and takes nothing more: the shard drains, or its journal failed.
    pub(crate) fn stop_transactions(&mut self, refused: &Refused) {
        let mut waiters: Vec<Waiter> = Vec::new();
        for (_, message) in std::mem::take(&mut self.transactions.arriving) {
            if let ToCoordinator::Request { asker, .. } = message {
                waiters.push(Waiter::Client(asker));
            }
        }
        for home in self.transactions.homes.values_mut() {
            waiters.extend(home.stop(refused));
        }
        for waiter in waiters {
            self.refuse_waiter(waiter, refused.clone());
        }
        self.refuse_held(refused);
    }
}
