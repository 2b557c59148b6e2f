//! Readers of committed records: they read up to the last stable offset, and aborted batches are left out.

use bytes::Bytes;
use corelane_model::{Isolation, Offset, PartitionId, StartAt};
use corelane_record::BatchHead;

use crate::Shard;
use crate::ask::Peer;
use crate::mesh::Message;
use crate::subscriptions::{Subscription, SubscriptionKey};

impl Shard {
    /// Where a reader of committed records ends; `None` for one that wants all.
    pub(crate) fn readable_end(&self, subscription: &Subscription) -> Option<Offset> {
        match subscription.isolation {
            Isolation::Uncommitted => None,
            Isolation::Committed => self.storage.last_stable_offset(subscription.partition),
        }
    }

    /// What a reader of committed records is told in place of the high watermark: it would wait for what is open otherwise.
    pub(crate) fn told_end(&mut self, key: SubscriptionKey) -> Option<Offset> {
        let &mut subscription = self.subscriptions.get_mut(key)?;
        self.readable_end(&subscription)
    }

    /// The latest that a reader of committed records may begin with lies before what is not decided.
    pub(crate) fn start_for(&self, partition: PartitionId, start: StartAt, isolation: Isolation) -> StartAt {
        match (start, isolation) {
            (StartAt::Latest, Isolation::Committed) => {
                self.storage.last_stable_offset(partition).map_or(start, StartAt::Offset)
            }
            _ => start,
        }
    }

    /// Pushes what a subscription may see of batches from memory, up to `next`. Bytes, and how far it has come.
    pub(crate) fn push_readable(&mut self, key: SubscriptionKey, batches: Vec<Bytes>, next: Offset) -> (u64, Offset) {
        let Some(&mut subscription) = self.subscriptions.get_mut(key) else { return (0, next) };
        let Some(end) = self.readable_end(&subscription) else { return (self.push(key, batches, next), next) };
        let (shown, shown_end) = self.readable(subscription.partition, batches, end);
        let next = next.min(end);
        let mut bytes = 0;
        if let Some(shown_end) = shown_end.filter(|&shown_end| subscription.next < shown_end) {
            bytes = self.push(key, shown, shown_end);
        }
        self.pass(key, next, end);
        (bytes, next)
    }

    /// As [`Shard::push_readable`] for what a read from the disk brought.
    pub(crate) fn push_read_committed(&mut self, key: SubscriptionKey, partition: PartitionId, batches: Vec<Bytes>) {
        let Some(&mut subscription) = self.subscriptions.get_mut(key) else { return };
        let Some(end) = self.readable_end(&subscription) else { return self.push_read(key, batches) };
        let log_start = self.storage.describe(partition).map(|status| status.log_start);
        if log_start.is_none_or(|log_start| subscription.next < log_start) {
            // Given up since the read came back, and with the records what is known of their transactions.
            return self.subscriptions.wake(key);
        }
        let last = batches.last().and_then(|batch| BatchHead::parse(batch).ok());
        let (shown, _) = self.readable(partition, batches, end);
        if !shown.is_empty() {
            return self.push_read(key, shown);
        }
        if let Some(last) = last {
            self.pass(key, last.end_offset().min(end), end);
        }
        self.subscriptions.wake(key);
    }

    /// The batches below `end` that are not of aborted transactions, and where the last of them ends. One that is damaged
    /// stays: whoever pushes it finds that out.
    fn readable(&self, partition: PartitionId, batches: Vec<Bytes>, end: Offset) -> (Vec<Bytes>, Option<Offset>) {
        let mut shown_end = None;
        let is_shown = |batch: &Bytes| {
            let Ok(head) = BatchHead::parse(batch) else { return true };
            let is_shown = head.end_offset() <= end && !self.storage.is_aborted(partition, &head);
            if is_shown {
                shown_end = Some(head.end_offset());
            }
            is_shown
        };
        let shown = batches.into_iter().filter(is_shown).collect();
        (shown, shown_end)
    }

    /// A subscription goes on at `next` without having been pushed all before it.
    fn pass(&mut self, key: SubscriptionKey, next: Offset, end: Offset) {
        let Some(subscription) = self.subscriptions.get_mut(key).filter(|known| known.next < next) else { return };
        subscription.next = next;
        let Subscription { peer: Peer { shard, connection }, id, serial, .. } = *subscription;
        if shard == self.me() {
            self.tell_passed(connection, id, serial, (next, end));
        } else {
            let message = Message::Passed { connection, subscription: id, serial, next, high_watermark: end };
            self.send_mesh(shard, message);
        }
    }
}
