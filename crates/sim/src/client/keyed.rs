//! Topics with keys: null values, and readers that begin anew with a snapshot.

use std::time::Duration;

use corelane_model::{PartitionId, TopicClass};

use super::{Client, Reading, Todo, Wish};
use crate::{Oracle, Random};

/// Time between two beginnings of a reader, at most.
const RENEWAL_MICROS: u64 = 1_500_000;

/// Chance of its own, so that a workload without null values is what it was before there were any.
#[derive(Debug)]
pub(super) struct Keyed {
    random: Random,
    /// Readers of newest values begin anew now and then.
    is_renewing: bool,
    is_calm: bool,
}

impl Keyed {
    pub(super) const fn new(seed: u64, is_renewing: bool) -> Self {
        Self { random: Random::new(seed ^ 0x6e), is_renewing, is_calm: false }
    }

    /// Readers begin anew once more and not again.
    pub(super) const fn stop(&mut self) {
        self.is_calm = true;
    }

    /// Whether the next record is to take its key away.
    pub(super) fn is_deletion(&mut self) -> bool {
        self.random.is_one_in(6)
    }

    pub(super) fn wish(&mut self, partition: PartitionId, class: TopicClass) -> Option<Wish> {
        let is_wished = class == TopicClass::Latest && self.is_renewing;
        let delay = is_wished.then(|| self.random.skewed(1_000..RENEWAL_MICROS))?;
        Some((Duration::from_micros(delay), Todo::Renew { partition }))
    }
}

impl Client {
    /// A reader forgets everything and begins anew, with a snapshot of what is there.
    pub(super) fn renew(&mut self, oracle: &mut Oracle, partition: PartitionId) -> Vec<Wish> {
        let open = self.subscriptions.iter().find(|(_, read)| **read == partition).map(|(&key, _)| key);
        // One that ended by itself comes back by itself.
        if let Some(subscription) = open {
            self.core.unsubscribe(subscription);
            self.subscriptions.remove(&subscription);
            self.readings.insert(partition, Reading::default());
            oracle.on_reader(self.number, partition, self.plan.isolation, None);
            self.read(partition);
        }
        if self.keyed.is_calm {
            Vec::new()
        } else {
            self.keyed.wish(partition, TopicClass::Latest).into_iter().collect()
        }
    }
}
