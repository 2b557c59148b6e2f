//! Appending, and telling who waits.

use std::collections::VecDeque;

use corelane_model::{Acks, ErrorCode, Offset, PartitionId, TopicId, Transaction};
use corelane_session::Refused;
use corelane_storage::AppendError;

use crate::Shard;
use crate::active::Active;
use crate::ask::{Ask, PartitionRequest, Peer};
use crate::mesh::Message;
use crate::queues::INSIDE;

/// Bytes of batches that wait for the next rounds; more are refused.
const BACKLOG_BYTES_MAX: u64 = 64 << 20;

/// Batches that did not fit into a round, in the order of arrival. Once there is one, every later batch queues behind it,
/// so that no producer's batches change places.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    requests: VecDeque<PartitionRequest>,
    bytes: u64,
}

impl Backlog {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = PartitionRequest> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.requests).into_iter()
    }

    /// Takes out what is for one topic.
    pub(crate) fn take_topic(&mut self, topic: TopicId) -> Vec<PartitionRequest> {
        let (taken, rest) = self.take_all().partition(|request| request.partition.topic == topic);
        for request in Vec::into_iter(rest) {
            self.push_back(request);
        }
        taken
    }

    fn push_back(&mut self, request: PartitionRequest) {
        self.bytes += bytes_of(&request);
        self.requests.push_back(request);
    }

    fn pop_front(&mut self) -> Option<PartitionRequest> {
        let request = self.requests.pop_front()?;
        self.bytes -= bytes_of(&request);
        Some(request)
    }
}

/// What became of a batch.
enum Tried {
    /// It was taken or refused, and its sender is told.
    Answered,
    /// It goes into the next round.
    RoundFull,
    /// Nothing was done: the coordinator of its transaction is to be asked first.
    MustJoin(Transaction),
}

pub(crate) fn bytes_of(request: &PartitionRequest) -> u64 {
    match &request.ask {
        Ask::Append { batch, .. } => batch.bytes().len() as u64,
        Ask::Find { .. } | Ask::Truncate { .. } | Ask::Subscribe { .. } => 0,
    }
}

impl Shard {
    /// Appends a batch to a partition of this shard, or puts it behind those that wait for the next round.
    pub(crate) fn append(&mut self, request: PartitionRequest) {
        if self.backlog.requests.is_empty() {
            match self.try_append(&request) {
                Tried::Answered => {}
                Tried::RoundFull => self.backlog.push_back(request),
                Tried::MustJoin(transaction) => self.hold_batch(request, transaction),
            }
        } else if let Some(transaction) = self.must_join(&request) {
            self.hold_batch(request, transaction);
        } else if self.backlog.bytes + bytes_of(&request) <= BACKLOG_BYTES_MAX {
            self.backlog.push_back(request);
        } else {
            let text = format!("{} bytes of batches wait for the journal already", self.backlog.bytes);
            self.refuse_request(request, Refused::new(ErrorCode::Busy, text));
        }
    }

    /// Appends what did not fit into earlier rounds.
    pub(crate) fn drain_backlog(&mut self) {
        while let Some(request) = self.backlog.pop_front() {
            match self.try_append(&request) {
                Tried::Answered => {}
                Tried::RoundFull => {
                    self.backlog.bytes += bytes_of(&request);
                    return self.backlog.requests.push_front(request);
                }
                // It ended while the batch waited for room.
                Tried::MustJoin(transaction) => self.hold_batch(request, transaction),
            }
        }
    }

    /// Appends a batch and tells its outcome, if that can be now.
    fn try_append(&mut self, request: &PartitionRequest) -> Tried {
        let PartitionRequest { asker, partition, ask: Ask::Append { acks, batch } } = request else {
            panic!("only batches are appended, not {:?}", request.ask);
        };
        let (asker, partition, acks) = (*asker, *partition, *acks);
        if let Some(transaction) = self.must_join(request) {
            return Tried::MustJoin(transaction);
        }
        let batch_bytes = batch.bytes().len() as u64;
        self.is_storage_touched = true;
        // Dead letters, and records on their way back, have the message ids that they had.
        let taken = if asker.peer.connection == INSIDE {
            self.storage.append_again(self.now, partition, batch)
        } else {
            self.storage.append(self.now, partition, batch)
        };
        let appended = match taken {
            Ok(appended) => appended,
            Err(AppendError::RoundFull { .. }) => return Tried::RoundFull,
            Err(error) => {
                let text = match error {
                    AppendError::UnknownPartition { .. } => self.in_names(partition, &error.to_string()),
                    _ => error.to_string(),
                };
                let refused = Refused::new(error.code(), text);
                self.send_outcome(asker, batch_bytes, Err(Box::new(refused)), false);
                return Tried::Answered;
            }
        };
        if appended.is_duplicate {
            self.stats.duplicate_batches += 1;
        } else {
            let records = batch.head().record_count;
            self.stats.produced.add(records, batch_bytes);
            self.traffic.entry(partition.topic).or_default().produced.add(records, batch_bytes);
        }
        let is_end_due = acks == Acks::Stored && !appended.is_durable_already;
        self.send_outcome(asker, batch_bytes, Ok((appended.base_offset, appended.append_timestamp)), is_end_due);
        if acks == Acks::Stored {
            if appended.is_durable_already {
                // Ends are cumulative, and a further one may have been told on this connection already.
                let durable = self.storage.describe(partition).map(|status| status.durable_end);
                let end = durable.unwrap_or_default().max(appended.end_offset);
                self.send_durable(asker.peer, partition, end);
            } else {
                let active = self.active.get_or_insert_with(partition, Active::default);
                active.waiters.wait(asker.peer, appended.end_offset, self.now.monotonic);
            }
        }
        Tried::Answered
    }

    /// The durable end of a partition moved: whoever waits is told, whoever reads reads on.
    pub(crate) fn on_durable(&mut self, partition: PartitionId, end: Offset) {
        let Some(active) = self.active.get_mut(partition) else { return };
        let mut told = std::mem::take(&mut self.told);
        let stored = &mut self.stats.stored;
        active.high_watermark = active.high_watermark.max(end);
        active.waiters.on_durable(end, self.now.monotonic, |peer, took| {
            stored.record(took);
            told.push(peer);
        });
        for &subscription in &active.subscribers {
            self.subscriptions.wake(subscription);
        }
        for peer in told.drain(..) {
            self.send_durable(peer, partition, end);
        }
        self.told = told;
    }

    pub(crate) fn send_durable(&mut self, peer: Peer, partition: PartitionId, end: Offset) {
        let Peer { shard, connection } = peer;
        if shard == self.me() {
            self.tell_durable(connection, partition, end);
        } else {
            self.send_mesh(shard, Message::Durable { connection, partition, end });
        }
    }

    pub(crate) fn on_storage_stopped(&mut self, text: String) {
        self.broadcast(|| Message::StorageStopped { text: text.clone() });
        self.refuse_changes(&text);
        self.tell_stopped(self.me(), &text);
        self.storage_failure = Some(text);
    }
}
