//! Message ids of topics that deduplicate: judged before a batch is appended, read back from the log when they are not
//! known.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelane_commitlog::{AppendError as LogError, IdRange, IdState};
use corelane_model::limits::{DEDUP_ID_BYTES, DEDUP_READ_BYTES, DEDUP_RETRY, DEDUP_ROUND_BYTES};
use corelane_model::{MonotonicNanos, Now, Offset, PartitionId};
use corelane_record::{BatchHead, MessageId, MessageIdKey, SealedBatch, message_ids};

use super::Storage;
use crate::{AppendError, Fetch, ReadError, ReadTicket};

/// What reading a partition's message ids back waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Its turn.
    Nothing,
    /// The disk.
    Read(ReadTicket),
    /// What was appended becomes durable.
    Durable,
    /// Better times.
    Until(MonotonicNanos),
    /// Ids of others to become old: there was no memory for these.
    Full(MonotonicNanos),
}

/// Partitions whose message ids are being read back.
#[derive(Debug)]
pub(super) struct IdReads {
    key: MessageIdKey,
    waits: BTreeMap<PartitionId, Wait>,
    tickets: BTreeMap<ReadTicket, PartitionId>,
    /// Partitions that hold ids or held some, for when memory gets short.
    holders: BTreeSet<PartitionId>,
    /// Before this moment it is no use to look for old ones.
    swept_until: MonotonicNanos,
}

impl IdReads {
    pub(super) const fn new(data_id: u128) -> Self {
        Self {
            key: MessageIdKey::new(data_id),
            waits: BTreeMap::new(),
            tickets: BTreeMap::new(),
            holders: BTreeSet::new(),
            swept_until: MonotonicNanos(0),
        }
    }

    /// When there is something to do although nothing happens.
    pub(super) fn deadline(&self, now: MonotonicNanos) -> Option<MonotonicNanos> {
        let moments = self.waits.values().filter_map(|wait| match wait {
            Wait::Nothing => Some(now),
            Wait::Until(until) | Wait::Full(until) => Some(*until),
            Wait::Read(_) | Wait::Durable => None,
        });
        moments.min()
    }
}

impl Storage {
    /// The message id of a batch for a topic that deduplicates, once its partition knows all ids that it should know.
    pub(super) fn message_id(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: &SealedBatch,
    ) -> Result<Option<MessageId>, AppendError> {
        let partition = self.table.open_mut(id).expect("the caller has just found it");
        // A transaction takes each of its records once by itself, and one that is aborted must not leave ids behind.
        if partition.log.id_state() == IdState::Off || batch.head().transaction().is_some() {
            return Ok(None);
        }
        let ids = batch.message_ids(self.ids.key);
        let Some(&(_, message)) = ids.first() else { return Ok(None) };
        let records = batch.head().record_count;
        if records != 1 {
            return Err(LogError::SeveralMessageIds { records }.into());
        }
        if partition.log.begin_ids(now) != IdState::Ready {
            let wait = *self.ids.waits.entry(id).or_insert(Wait::Nothing);
            self.ids.holders.insert(id);
            return Err(match wait {
                Wait::Full(_) => self.ids_full(),
                _ => AppendError::ReadingMessageIds,
            });
        }
        self.ids.holders.insert(id);
        Ok(Some(message))
    }

    /// Makes room for one more message id.
    pub(super) fn reserve_id(&mut self, now: Now) -> Result<(), AppendError> {
        let is_full = |storage: &Self| storage.budget.id_bytes < storage.table.id_bytes() + DEDUP_ID_BYTES;
        if is_full(self) && self.ids.swept_until <= now.monotonic {
            self.ids.swept_until = now.monotonic.after(DEDUP_RETRY);
            for id in std::mem::take(&mut self.ids.holders) {
                if let Some(partition) = self.table.get_mut(id) {
                    partition.log.expire_ids(now);
                    if 0 < partition.log.id_bytes() {
                        self.ids.holders.insert(id);
                    }
                    self.table.refresh(id);
                }
            }
        }
        if is_full(self) { Err(self.ids_full()) } else { Ok(()) }
    }

    fn ids_full(&mut self) -> AppendError {
        self.stats.busy_total += 1;
        AppendError::MessageIdsFull { id_bytes: self.table.id_bytes(), limit_bytes: self.budget.id_bytes }
    }

    /// Reads message ids back, a bounded number of bytes.
    pub(super) fn read_message_ids(&mut self, now: Now) {
        let mut room = DEDUP_ROUND_BYTES;
        let waits: Vec<_> = self.ids.waits.iter().map(|(&id, &wait)| (id, wait)).collect();
        for (id, wait) in waits {
            let is_due = match wait {
                Wait::Nothing | Wait::Durable => true,
                Wait::Until(until) | Wait::Full(until) => until <= now.monotonic,
                Wait::Read(_) => false,
            };
            while is_due && 0 < room && self.ids.waits.contains_key(&id) {
                let (taken, is_over) = self.read_ids_of(now, id);
                room = room.saturating_sub(taken);
                if is_over {
                    break;
                }
            }
        }
    }

    /// One step for one partition: bytes read, and whether it now waits.
    fn read_ids_of(&mut self, now: Now, id: PartitionId) -> (u64, bool) {
        let state = self.table.open_mut(id).map(|partition| partition.log.begin_ids(now));
        let Some(IdState::Reading(range)) = state else {
            self.ids.waits.remove(&id);
            return (0, true);
        };
        let wait = match self.fetch(id, range.next, DEDUP_READ_BYTES) {
            Fetch::Batches { batches, .. } => {
                let bytes = batches.iter().map(|batch| batch.len() as u64).sum();
                self.take_ids(now, id, range, &batches);
                return (bytes, self.ids.waits.get(&id) != Some(&Wait::Nothing));
            }
            Fetch::Pending(ticket) => {
                self.ids.tickets.insert(ticket, id);
                Wait::Read(ticket)
            }
            Fetch::AtEnd => Wait::Durable,
            Fetch::Busy => Wait::Until(now.monotonic.after(DEDUP_RETRY)),
            Fetch::OutOfRange { log_start, .. } if range.next < log_start => {
                self.skip_ids(now, id, range, log_start);
                return (0, false);
            }
            Fetch::OutOfRange { .. } => Wait::Durable,
            Fetch::Corrupt { end, .. } => {
                self.skip_ids(now, id, range, end);
                return (0, false);
            }
            Fetch::Unknown => {
                self.ids.waits.remove(&id);
                return (0, true);
            }
        };
        self.ids.waits.insert(id, wait);
        (0, true)
    }

    /// There is nothing to read before `next`.
    fn skip_ids(&mut self, now: Now, id: PartitionId, range: IdRange, next: Offset) {
        let Some(partition) = self.table.open_mut(id) else { return };
        if partition.log.read_ids(now, IdRange { next, ..range }, &[]) == IdState::Ready {
            self.ids.waits.remove(&id);
        }
    }

    /// Takes the ids out of batches that were read.
    fn take_ids(&mut self, now: Now, id: PartitionId, range: IdRange, batches: &[Bytes]) {
        let mut next = range.next;
        let mut found = Vec::new();
        for batch in batches {
            let Ok(head) = BatchHead::parse(batch) else { continue };
            let at = head.append_timestamp;
            // Damage is found by whoever reads the records; here it hides ids, as it hides the records.
            if head.transaction().is_none()
                && let Ok(ids) = message_ids(&head, batch, self.ids.key)
            {
                found.extend(ids.into_iter().map(|(place, id)| (id, head.base_offset.advance(u64::from(place)), at)));
            }
            next = next.max(head.end_offset());
        }
        let Some(partition) = self.table.open_mut(id) else { return };
        // Batches below what is wanted come along with those that are.
        found.retain(|&(_, offset, _)| range.next <= offset);
        let state = partition.log.read_ids(now, IdRange { next, ..range }, &found);
        self.table.refresh(id);
        if self.budget.id_bytes < self.table.id_bytes() {
            if let Some(partition) = self.table.open_mut(id) {
                partition.log.give_up_ids();
            }
            self.table.refresh(id);
            self.ids.waits.insert(id, Wait::Full(now.monotonic.after(DEDUP_RETRY)));
        } else if state == IdState::Ready {
            self.ids.waits.remove(&id);
        } else {
            self.ids.waits.insert(id, Wait::Nothing);
        }
    }

    /// A read came back; whether it was one for message ids.
    pub(super) fn take_id_read(&mut self, ticket: ReadTicket, result: &Result<Vec<Bytes>, ReadError>) -> bool {
        let Some(id) = self.ids.tickets.remove(&ticket) else { return false };
        let now = self.now;
        let state = self.table.open(id).map(|partition| partition.log.id_state());
        match (state, result) {
            (Some(IdState::Reading(range)), Ok(batches)) => self.take_ids(now, id, range, batches),
            (Some(IdState::Reading(range)), Err(ReadError::Corrupt { end, .. })) => {
                self.ids.waits.insert(id, Wait::Nothing);
                self.skip_ids(now, id, range, *end);
            }
            (Some(IdState::Reading(_)), Err(ReadError::Gone)) => drop(self.ids.waits.insert(id, Wait::Nothing)),
            (Some(IdState::Reading(_)), Err(ReadError::Failed { .. })) => {
                self.ids.waits.insert(id, Wait::Until(now.monotonic.after(DEDUP_RETRY)));
            }
            // The window changed or the partition went meanwhile: the next append begins anew.
            (_, _) => drop(self.ids.waits.remove(&id)),
        }
        true
    }
}
