//! Who reads which partition of this shard, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corelane_model::limits::SUBSCRIPTION_CREDIT_BYTES_MAX;
use corelane_model::{Isolation, Offset, PartitionId, StartAt, SubscriptionId, TopicId};
use corelane_storage::ReadTicket;

use crate::ask::{Asker, Peer};

/// A subscription on this shard: which one it is counts up and is never used again while the shard runs, where it lies is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubscriptionKey {
    count: u64,
    place: usize,
}

/// ```text
///             start found           credit, room and news       fetch: Pending
///  Starting ──────────────▶ Idle ───────────────────────▶ Queued ────────────▶ Reading
///                            ▲  ◀────────────────────────── │                     │
///                            │  fetch: at the end, no credit                      │
///                            └────────────────────────────────────────────────────┘
///                                                read came: batches were pushed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its first offset is looked up; then the asker is answered.
    Starting { asker: Asker },
    /// Nothing to push, or not allowed to.
    Idle,
    /// It stands in the queue of those that may have something to push.
    Queued,
    /// It waits for the disk.
    Reading,
}

/// One subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) peer: Peer,
    pub(crate) id: SubscriptionId,
    /// Which use of the id by its client it is.
    pub(crate) serial: u64,
    pub(crate) partition: PartitionId,
    /// Which records it wants.
    pub(crate) isolation: Isolation,
    /// The next offset to push.
    pub(crate) next: Offset,
    /// What lies before it was not there for it to miss: where it wants to begin, or where the log ended then.
    pub(crate) wanted_from: Option<Offset>,
    /// Bytes that may be pushed; below zero by less than the last batch.
    pub(crate) credit: i64,
    pub(crate) state: State,
}

/// What a ticket of storage is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReadFor {
    /// Batches for a subscription.
    Push(SubscriptionKey),
    /// The first offset of a subscription.
    Start(SubscriptionKey, StartAt),
    /// A question for an offset.
    Find(Asker, StartAt, Isolation),
    /// A home of consumer groups that is being restored.
    Restore,
}

/// Subscriptions where their keys say.
#[derive(Debug, Default)]
struct Places {
    /// Each with the count of its key.
    places: Vec<Option<(u64, Subscription)>>,
    free: Vec<usize>,
    last_count: u64,
}

impl Places {
    fn insert(&mut self, subscription: Subscription) -> SubscriptionKey {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.last_count += 1;
        self.places[place] = Some((self.last_count, subscription));
        SubscriptionKey { count: self.last_count, place }
    }

    fn get_mut(&mut self, SubscriptionKey { count, place }: SubscriptionKey) -> Option<&mut Subscription> {
        self.places[place].as_mut().filter(|(known, _)| *known == count).map(|(_, subscription)| subscription)
    }

    fn remove(&mut self, SubscriptionKey { count, place }: SubscriptionKey) -> Option<Subscription> {
        let (_, subscription) = self.places[place].take_if(|(known, _)| *known == count)?;
        self.free.push(place);
        Some(subscription)
    }
}

/// All subscriptions of partitions of this shard, and everything that waits for a read.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_key: Places,
    by_name: BTreeMap<(Peer, SubscriptionId), SubscriptionKey>,
    ready: VecDeque<SubscriptionKey>,
    /// Those that storage sent away because as many reads wait as may.
    starved: Vec<SubscriptionKey>,
    paused: BTreeSet<Peer>,
    reads: BTreeMap<ReadTicket, (PartitionId, ReadFor)>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn reads_len(&self) -> usize {
        self.reads.len()
    }

    pub(crate) fn contains(&self, peer: Peer, id: SubscriptionId) -> bool {
        self.by_name.contains_key(&(peer, id))
    }

    pub(crate) fn insert(&mut self, subscription: Subscription) -> SubscriptionKey {
        let key = self.by_key.insert(subscription);
        let before = self.by_name.insert((subscription.peer, subscription.id), key);
        assert!(before.is_none(), "subscription {} was there already", subscription.id);
        key
    }

    pub(crate) fn find(&self, peer: Peer, id: SubscriptionId) -> Option<SubscriptionKey> {
        self.by_name.get(&(peer, id)).copied()
    }

    pub(crate) fn get_mut(&mut self, key: SubscriptionKey) -> Option<&mut Subscription> {
        self.by_key.get_mut(key)
    }

    /// Takes a subscription out; its places in queues are passed over when their turn comes.
    pub(crate) fn remove(&mut self, key: SubscriptionKey) -> Option<Subscription> {
        let subscription = self.by_key.remove(key)?;
        self.by_name.remove(&(subscription.peer, subscription.id));
        Some(subscription)
    }

    pub(crate) fn keys_of(&self, peer: Peer) -> Vec<SubscriptionKey> {
        let whole = (peer, SubscriptionId(0))..=(peer, SubscriptionId(u64::MAX));
        self.by_name.range(whole).map(|(_, &key)| key).collect()
    }

    /// Gives more bytes, up to what a subscription may hold.
    pub(crate) fn add_credit(&mut self, key: SubscriptionKey, bytes: u64) {
        let Some(subscription) = self.by_key.get_mut(key) else { return };
        let most = SUBSCRIPTION_CREDIT_BYTES_MAX.cast_signed();
        let bytes = i64::try_from(bytes).unwrap_or(most);
        subscription.credit = subscription.credit.saturating_add(bytes).min(most);
        self.wake(key);
    }

    /// Queues a subscription that may push, if it does not stand there already.
    pub(crate) fn wake(&mut self, key: SubscriptionKey) {
        let Some(subscription) = self.by_key.get_mut(key) else { return };
        if subscription.state == State::Idle && 0 < subscription.credit && !self.paused.contains(&subscription.peer) {
            subscription.state = State::Queued;
            self.ready.push_back(key);
        }
    }

    pub(crate) fn pause(&mut self, peer: Peer) {
        self.paused.insert(peer);
    }

    pub(crate) fn is_paused(&self, peer: Peer) -> bool {
        self.paused.contains(&peer)
    }

    pub(crate) fn resume(&mut self, peer: Peer) {
        if self.paused.remove(&peer) {
            for key in self.keys_of(peer) {
                self.wake(key);
            }
        }
    }

    /// The next subscription whose turn it is.
    pub(crate) fn next_ready(&mut self) -> Option<SubscriptionKey> {
        self.ready.pop_front()
    }

    pub(crate) fn is_any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A subscription that stays queued goes behind the others.
    pub(crate) fn requeue(&mut self, key: SubscriptionKey) {
        self.ready.push_back(key);
    }

    /// A subscription that stays queued until a read has come back.
    pub(crate) fn starve(&mut self, key: SubscriptionKey) {
        self.starved.push(key);
    }

    pub(crate) fn expect_read(&mut self, ticket: ReadTicket, partition: PartitionId, purpose: ReadFor) {
        self.reads.insert(ticket, (partition, purpose));
    }

    /// What the read was for, unless that is gone. Those that were sent away may try again.
    pub(crate) fn take_read(&mut self, ticket: ReadTicket) -> Option<ReadFor> {
        self.ready.extend(self.starved.drain(..));
        self.reads.remove(&ticket).map(|(_, purpose)| purpose)
    }

    /// Forgets the reads of a topic that goes; questions among them are handed back.
    pub(crate) fn take_reads_of(&mut self, topic: TopicId) -> Vec<Asker> {
        let mut askers = Vec::new();
        self.reads.retain(|_, (partition, purpose)| {
            let stays = partition.topic != topic;
            if let (false, ReadFor::Find(asker, ..)) = (stays, &*purpose) {
                askers.push(*asker);
            }
            stays
        });
        self.ready.extend(self.starved.drain(..));
        askers
    }
}
