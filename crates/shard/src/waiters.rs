//! Connections that wait for a partition's durable end.

use std::time::Duration;

use corelane_model::{MonotonicNanos, Offset};

use crate::ask::Peer;

#[derive(Clone, Copy, Debug)]
struct Waiter {
    peer: Peer,
    /// End of its last batch: until then it wants to hear.
    wanted: Offset,
    /// When its oldest batch came that is not durable.
    oldest: MonotonicNanos,
    /// When its newest batch came.
    newest: MonotonicNanos,
}

/// The connections that produced to one partition with `stored` and have not heard of all of it.
///
/// One entry a connection, however many batches it has under way, ordered by connection.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiters: Vec<Waiter>,
}

impl Waiters {
    /// A batch of this connection ends at `wanted`.
    pub(crate) fn wait(&mut self, peer: Peer, wanted: Offset, now: MonotonicNanos) {
        match self.waiters.binary_search_by(|waiter| waiter.peer.cmp(&peer)) {
            Ok(at) => {
                let waiter = &mut self.waiters[at];
                waiter.wanted = waiter.wanted.max(wanted);
                waiter.newest = now;
            }
            Err(at) => self.waiters.insert(at, Waiter { peer, wanted, oldest: now, newest: now }),
        }
    }

    /// The durable end moved: everybody who waits is told, with how long its oldest batch took.
    pub(crate) fn on_durable(&mut self, end: Offset, now: MonotonicNanos, mut tell: impl FnMut(Peer, Duration)) {
        let mut is_left = |waiter: &mut Waiter| {
            tell(waiter.peer, now.since(waiter.oldest));
            waiter.oldest = waiter.newest;
            end < waiter.wanted
        };
        // Mostly a partition has one producer, and on an edge there are a thousand partitions.
        if let [waiter] = &mut self.waiters[..] {
            if !is_left(waiter) {
                self.waiters.clear();
            }
        } else {
            self.waiters.retain_mut(is_left);
        }
    }

    /// Everybody who waits, with the end that it waits for; none waits afterwards.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (Peer, Offset)> {
        std::mem::take(&mut self.waiters).into_iter().map(|waiter| (waiter.peer, waiter.wanted))
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{ConnectionKey, ShardId};

    use super::*;

    fn peer(connection: u64) -> Peer {
        Peer { shard: ShardId(0), connection: ConnectionKey(connection) }
    }

    fn told(waiters: &mut Waiters, end: u64, now: u64) -> Vec<(u64, u64)> {
        let mut told = Vec::new();
        waiters.on_durable(Offset(end), MonotonicNanos(now), |peer, took| {
            told.push((peer.connection.0, u64::try_from(took.as_nanos()).unwrap()));
        });
        told
    }

    #[test]
    fn everybody_hears_until_it_has_heard_of_all() {
        let mut waiters = Waiters::default();
        waiters.wait(peer(2), Offset(10), MonotonicNanos(100));
        waiters.wait(peer(1), Offset(20), MonotonicNanos(110));
        waiters.wait(peer(2), Offset(30), MonotonicNanos(120));
        assert_eq!(told(&mut waiters, 20, 200), [(1, 90), (2, 100)]);
        assert_eq!(told(&mut waiters, 30, 220), [(2, 100)]);
        assert_eq!(told(&mut waiters, 40, 300), []);
    }
}
