//! Where a connection's subscriptions lead.

use std::collections::BTreeMap;

use corelane_model::limits::{PUSH_STREAM_RUN, SESSION_DATA_STREAMS_MAX};
use corelane_model::{PartitionId, ShardId, SubscriptionId};

/// Where a subscription leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The partition.
    pub partition: PartitionId,
    /// Its owner.
    pub owner: ShardId,
    /// The push stream that its batches take, `0..SESSION_DATA_STREAMS_MAX`.
    pub slot: u8,
    /// Counts the subscriptions of the connection: tells two apart that have one id, one after the other.
    pub serial: u64,
    is_slot_own: bool,
}

/// All subscriptions of one connection.
///
/// The first 64 have a push stream to themselves; later ones share, in runs of [`PUSH_STREAM_RUN`] over all streams, so that
/// partitions that a client subscribes to together are pushed in bundles. A stream that becomes free goes to the next one
/// that comes, so that one slow partition does not hold up another as long as there are streams.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    routes: BTreeMap<SubscriptionId, Route>,
    own_slots: u64,
    last_serial: u64,
    /// How many have been taken that share a stream.
    shared: u64,
}

const _: () = assert!(SESSION_DATA_STREAMS_MAX == u64::BITS, "own_slots is a word of bits");

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    pub(crate) fn get(&self, subscription: SubscriptionId) -> Option<&Route> {
        self.routes.get(&subscription)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SubscriptionId, &Route)> {
        self.routes.iter().map(|(&subscription, route)| (subscription, route))
    }

    pub(crate) fn insert(&mut self, subscription: SubscriptionId, partition: PartitionId, owner: ShardId) -> u64 {
        let free = self.own_slots.trailing_ones();
        let is_slot_own = free < SESSION_DATA_STREAMS_MAX;
        let slot = if is_slot_own {
            self.own_slots |= 1 << free;
            u64::from(free)
        } else {
            self.shared += 1;
            (self.shared - 1) / PUSH_STREAM_RUN % u64::from(SESSION_DATA_STREAMS_MAX)
        };
        let slot = u8::try_from(slot).expect("below 64");
        self.last_serial += 1;
        let serial = self.last_serial;
        let before = self.routes.insert(subscription, Route { partition, owner, slot, serial, is_slot_own });
        assert!(before.is_none(), "subscription {subscription} was there already");
        serial
    }

    pub(crate) fn move_to(&mut self, subscription: SubscriptionId, owner: ShardId) {
        if let Some(route) = self.routes.get_mut(&subscription) {
            route.owner = owner;
        }
    }

    pub(crate) fn remove(&mut self, subscription: SubscriptionId) -> Option<Route> {
        let route = self.routes.remove(&subscription)?;
        if route.is_slot_own {
            self.own_slots &= !(1 << route.slot);
        }
        Some(route)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use corelane_model::{PartitionIndex, TopicId};

    use super::*;

    fn partition(index: u32) -> PartitionId {
        PartitionId::new(TopicId(7), PartitionIndex(index))
    }

    #[test]
    fn the_first_have_streams_of_their_own_and_streams_come_back() {
        let mut subscriptions = Subscriptions::default();
        for i in 0..64 {
            subscriptions.insert(SubscriptionId(i), partition(u32::try_from(i).unwrap()), ShardId(0));
        }
        let slots: BTreeSet<u8> = subscriptions.iter().map(|(_, route)| route.slot).collect();
        assert_eq!(slots.len(), 64);
        for i in 64..64 + 70 * PUSH_STREAM_RUN {
            subscriptions.insert(SubscriptionId(i), partition(u32::try_from(i).unwrap()), ShardId(0));
            let slot = subscriptions.get(SubscriptionId(i)).unwrap().slot;
            assert_eq!(u64::from(slot), (i - 64) / PUSH_STREAM_RUN % 64, "they share in runs");
        }
        let freed = subscriptions.remove(SubscriptionId(10)).unwrap().slot;
        subscriptions.insert(SubscriptionId(9999), partition(9999), ShardId(0));
        assert_eq!(subscriptions.get(SubscriptionId(9999)).unwrap().slot, freed);
        assert_eq!(subscriptions.remove(SubscriptionId(10_000)), None);
    }
}
