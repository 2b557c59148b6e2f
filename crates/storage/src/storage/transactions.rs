//! Transactions that write to partitions of this shard: what is open, and how one ends.

use corelane_journal::Item;
use corelane_model::limits::PARTITION_TRANSACTION_BYTES;
use corelane_model::{Decision, Now, Offset, PartitionId, Transaction};
use corelane_record::BatchHead;

use super::Storage;
use crate::round::Note;
use crate::{AppendError, ChangeError, ChangeTicket, StorageOutput};

impl Storage {
    /// The transaction is decided: readers of committed records see its end in the partition from now on.
    /// [`StorageOutput::TransactionEnded`] says when that is durable here, so that whoever decided may forget. `None` when
    /// nothing of the transaction is open in the partition, or there is no such partition: then there is nothing to wait for.
    /// Asked again while the end is not durable, it answers the same ticket.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was changed then.
    pub fn end_transaction(
        &mut self,
        now: Now,
        partition: PartitionId,
        transaction: Transaction,
        decision: Decision,
    ) -> Result<Option<ChangeTicket>, ChangeError> {
        self.now = now;
        if let Some(&ticket) = self.ending.get(&(partition, transaction)) {
            return Ok(Some(ticket));
        }
        if !self.is_transaction_open(partition, transaction) {
            return Ok(None);
        }
        self.check_change()?;
        let known = self.table.open_mut(partition).expect("it was just found");
        let end = known.log.end_transaction(transaction, decision).expect("it was just found open");
        self.table.refresh(partition);
        let ticket = self.next_ticket();
        self.ending.insert((partition, transaction), ticket);
        let item = Item::TransactionEnd { partition, transaction, decision, first: end.first, end: end.end };
        self.changes.push_back((item, Note::TransactionEnd(partition, transaction, ticket)));
        Ok(Some(ticket))
    }

    /// Makes sure of memory for one more transaction if the batch begins one in its partition; whether it does. What goes on,
    /// and what was taken before, needs none.
    pub(super) fn reserve_transaction(&mut self, id: PartitionId, head: &BatchHead) -> Result<bool, AppendError> {
        if head.transaction().is_none() {
            return Ok(false);
        }
        let known = self.table.open(id).expect("the caller has just found it");
        if !known.log.begins_transaction(head) {
            return Ok(false);
        }
        let (transaction_bytes, limit_bytes) = (self.table.transaction_bytes(), self.budget.transaction_bytes);
        if limit_bytes < transaction_bytes + PARTITION_TRANSACTION_BYTES {
            self.stats.busy_total += 1;
            return Err(AppendError::TransactionsFull { transaction_bytes, limit_bytes });
        }
        Ok(true)
    }

    pub(super) fn on_transaction_end_durable(
        &mut self,
        id: PartitionId,
        transaction: Transaction,
        ticket: ChangeTicket,
    ) {
        self.ending.remove(&(id, transaction));
        self.outputs.push_back(StorageOutput::TransactionEnded { partition: id, ticket });
    }

    /// Whether the transaction has batches in the partition and is not decided.
    #[must_use]
    pub fn is_transaction_open(&self, partition: PartitionId, transaction: Transaction) -> bool {
        self.table.open(partition).is_some_and(|known| known.log.is_open(transaction))
    }

    /// What is open in the partitions of this shard, in the order of partitions: after a restart, whom to ask about it.
    pub fn open_transactions(&self) -> impl Iterator<Item = (PartitionId, Transaction)> {
        let open = self.table.iter().filter(|(_, known)| known.is_open);
        open.flat_map(|(id, known)| {
            known.log.state().transactions().open().map(move |(transaction, _)| (id, transaction))
        })
    }

    /// Exclusive end of what a reader of committed records may read; `None` when the partition is not open here.
    #[must_use]
    pub fn last_stable_offset(&self, partition: PartitionId) -> Option<Offset> {
        self.table.open(partition).map(|known| known.log.last_stable_offset())
    }

    /// Whether a batch of the partition is of an aborted transaction: readers of committed records do not get it.
    #[must_use]
    pub fn is_aborted(&self, partition: PartitionId, head: &BatchHead) -> bool {
        self.table.open(partition).is_some_and(|known| known.log.is_aborted(head))
    }

    /// Whether the partition holds any batch that [`Storage::is_aborted`] may say yes to.
    #[must_use]
    pub fn has_aborted(&self, partition: PartitionId) -> bool {
        self.table.open(partition).is_some_and(|known| known.log.has_aborted())
    }
}
