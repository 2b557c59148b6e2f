//! Partitions and groups of this shard that take part: what waits for a coordinator's word, and what was decided.

use corelane_group::RequestTicket;
use corelane_model::limits::TRANSACTION_HOMES;
use corelane_model::{ErrorCode, GroupName, PartitionId, PartitionIndex, TopicId, Transaction};
use corelane_session::{GroupAsk, Refused};
use corelane_storage::ChangeTicket;
use corelane_transaction::Participant;

use super::{Apply, ToCoordinator, ToParticipant};
use crate::Shard;
use crate::ask::{Ask, PartitionRequest};
use crate::boot::Phase;
use crate::groups::GroupRequest;
use crate::produce::bytes_of;

/// Bytes of batches that wait for their coordinators; more are refused.
const HELD_BYTES_MAX: u64 = 16 << 20;
/// Requests with offsets of one group and transaction that wait; more are refused.
const HELD_OFFSETS_MAX: usize = 64;

impl Shard {
    /// Whether a batch has to wait for its coordinator's word: it would be the first of its transaction here.
    pub(crate) fn must_join(&self, request: &PartitionRequest) -> Option<Transaction> {
        let Ask::Append { batch, .. } = &request.ask else { return None };
        let transaction = batch.head().transaction()?;
        let is_in = self.storage.is_transaction_open(request.partition, transaction)
            || self.transactions.joined.contains(&(Participant::Partition(request.partition), transaction));
        (!is_in).then_some(transaction)
    }

    /// Keeps a batch until the coordinator has said that its transaction goes on, and asks.
    pub(crate) fn hold_batch(&mut self, request: PartitionRequest, transaction: Transaction) {
        let Ask::Append { batch, .. } = &request.ask else { panic!("only batches wait to join") };
        let home = PartitionIndex(batch.head().home.into());
        let (partition, bytes) = (request.partition, bytes_of(&request));
        if TRANSACTION_HOMES <= home.0 {
            let text = format!("home {home} of transaction {transaction} is none; there are {TRANSACTION_HOMES}");
            return self.refuse_request(request, Refused::new(ErrorCode::CorruptBatch, text));
        }
        if HELD_BYTES_MAX < self.transactions.batches_bytes + bytes {
            let text = format!("{} bytes of batches wait for their coordinators", self.transactions.batches_bytes);
            return self.refuse_request(request, Refused::new(ErrorCode::Busy, text));
        }
        self.transactions.batches_bytes += bytes;
        let held = self.transactions.batches.entry((partition, transaction)).or_default();
        held.push(request);
        if held.len() == 1 {
            let participant = Participant::Partition(partition);
            self.send_to_coordinator(ToCoordinator::Join { home, transaction, participant });
        }
    }

    /// Whether offsets have to wait for their coordinator's word; then they do.
    pub(crate) fn hold_offsets(&mut self, request: GroupRequest) -> Option<GroupRequest> {
        let GroupAsk::Stage { transaction, home, .. } = &request.ask else { return Some(request) };
        let (transaction, home) = (*transaction, *home);
        let participant = Participant::Group(request.group.clone());
        if self.transactions.joined.contains(&(participant.clone(), transaction)) {
            return Some(request);
        }
        let held = self.transactions.offsets.entry((request.group.clone(), transaction)).or_default();
        if HELD_OFFSETS_MAX <= held.len() {
            let text = format!("{HELD_OFFSETS_MAX} requests of transaction {transaction} wait for its coordinator");
            self.refuse(request.asker, None, Refused::new(ErrorCode::Busy, text));
            return None;
        }
        held.push(request);
        if held.len() == 1 {
            self.send_to_coordinator(ToCoordinator::Join { home, transaction, participant });
        }
        None
    }

    /// A coordinator has spoken.
    pub(crate) fn take_part(&mut self, message: ToParticipant) {
        match message {
            ToParticipant::Joined { participant, transaction, result } => {
                self.on_joined(participant, transaction, &result);
            }
            ToParticipant::Apply(apply) => self.apply_decision(apply),
        }
    }

    pub(super) fn on_joined(
        &mut self,
        participant: Participant,
        transaction: Transaction,
        result: &Result<(), Refused>,
    ) {
        if let Participant::Partition(partition) = participant
            && self.storage.describe(partition).is_none()
        {
            // It was deleted meanwhile, and whoever waited was refused.
            return;
        }
        if result.is_ok() {
            let part = (participant.clone(), transaction);
            self.transactions.inquiries.on_joined(self.now.monotonic, part.clone());
            self.transactions.joined.insert(part);
        }
        match participant {
            Participant::Partition(partition) => {
                let held = self.transactions.batches.remove(&(partition, transaction)).unwrap_or_default();
                for request in held {
                    self.transactions.batches_bytes -= bytes_of(&request);
                    match result {
                        Ok(()) => self.append(request),
                        Err(refused) => self.refuse_request(request, refused.clone()),
                    }
                }
            }
            Participant::Group(group) => {
                for request in self.transactions.offsets.remove(&(group, transaction)).unwrap_or_default() {
                    match result {
                        Ok(()) => self.run_group(request),
                        Err(refused) => self.refuse(request.asker, None, refused.clone()),
                    }
                }
            }
        }
        self.is_storage_touched = true;
    }

    /// A decision for a participant here.
    pub(super) fn apply_decision(&mut self, apply: Apply) {
        let part = (apply.participant.clone(), apply.transaction);
        self.transactions.joined.remove(&part);
        self.transactions.inquiries.on_decided(&part);
        self.is_storage_touched = true;
        if !matches!(self.phase, Phase::Serving { .. }) {
            // What is open here is not known yet, or cannot be written any more.
            return self.transactions.unapplied.push(apply);
        }
        match apply.participant.clone() {
            Participant::Partition(partition) => self.apply_to_partition(partition, apply),
            Participant::Group(group) => self.apply_to_group(&group, apply),
        }
    }

    fn apply_to_partition(&mut self, partition: PartitionId, apply: Apply) {
        match self.storage.end_transaction(self.now, partition, apply.transaction, apply.decision) {
            Ok(Some(ticket)) => {
                self.transactions.ends.insert(ticket, apply);
                // Readers of committed records may go on.
                if let Some(active) = self.active.get(partition) {
                    for &subscription in &active.subscribers {
                        self.subscriptions.wake(subscription);
                    }
                }
            }
            Ok(None) => self.on_apply_done(apply),
            // The coordinator goes on waiting, and tells it again after a restart.
            Err(_) => self.transactions.unapplied.push(apply),
        }
    }

    fn apply_to_group(&mut self, group: &GroupName, apply: Apply) {
        let ticket = RequestTicket(self.group_ticket());
        match self.settle_in_group(group, ticket, apply) {
            Ok(()) => {}
            // Its home is not there yet, or cannot serve.
            Err(apply) => self.transactions.unapplied.push(apply),
        }
    }

    /// Tries again what found no room.
    pub(super) fn apply_again(&mut self) {
        for apply in std::mem::take(&mut self.transactions.unapplied) {
            let before = self.is_storage_touched;
            self.apply_decision(apply);
            // Whoever has no room now has none in the next moment either; the next event will do.
            self.is_storage_touched = before;
        }
    }

    /// The end of a transaction in a partition is durable.
    pub(crate) fn on_transaction_ended(&mut self, ticket: ChangeTicket) {
        if let Some(apply) = self.transactions.ends.remove(&ticket) {
            self.on_apply_done(apply);
        }
    }

    /// A decision is durable at a participant: its coordinator hears so.
    pub(crate) fn on_apply_done(&mut self, apply: Apply) {
        let Apply { participant, transaction, home, .. } = apply;
        let part = (participant, transaction);
        self.transactions.inquiries.forget(&part);
        let (participant, transaction) = part;
        if let Some(home) = home {
            self.send_to_coordinator(ToCoordinator::Applied { home, transaction, participant });
        }
    }

    /// A topic is deleted: what waits for a coordinator's word about its partitions is refused, since none comes any more.
    pub(crate) fn forget_topic_in_transactions(&mut self, topic: TopicId, refused: &Refused) {
        let is_of_topic = |participant: &Participant| match participant {
            Participant::Partition(partition) => partition.topic == topic,
            Participant::Group(_) => false,
        };
        self.transactions.joined.retain(|(participant, _)| !is_of_topic(participant));
        self.transactions.inquiries.forget_topic(topic);
        let gone = self.transactions.batches.extract_if(.., |(partition, _), _| partition.topic == topic);
        let gone: Vec<PartitionRequest> = gone.flat_map(|(_, requests)| requests).collect();
        for request in gone {
            self.transactions.batches_bytes -= bytes_of(&request);
            self.refuse_request(request, refused.clone());
        }
    }

    /// Refuses what waits for a coordinator's word.
    pub(super) fn refuse_held(&mut self, refused: &Refused) {
        self.transactions.batches_bytes = 0;
        for request in std::mem::take(&mut self.transactions.batches).into_values().flatten() {
            self.refuse_request(request, refused.clone());
        }
        for request in std::mem::take(&mut self.transactions.offsets).into_values().flatten() {
            self.refuse(request.asker, None, refused.clone());
        }
    }
}
