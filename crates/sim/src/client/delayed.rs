//! Records that a shared queue is to hand out later.

use std::time::Duration;

use corelane_client_core::DeliveryTime;

use crate::{Random, Scenario};

/// One in so many records of the queue's topic is delayed.
const DELAYED_RARITY: u64 = 12;

/// Decides which records are delayed.
#[derive(Debug)]
pub(super) struct Delayed {
    random: Random,
    /// The topic, and the longest delay in milliseconds.
    topic: Option<(usize, u64)>,
}

impl Delayed {
    pub(super) fn new(seed: u64, scenario: &Scenario) -> Self {
        let queue = scenario.queue.as_ref().filter(|queue| 0 < queue.delay_ms_max);
        Self { random: Random::new(seed), topic: queue.map(|queue| (queue.topic, queue.delay_ms_max)) }
    }

    /// When the next record of a topic may be handed out, if it is delayed.
    pub(super) fn draw(&mut self, topic: usize) -> Option<DeliveryTime> {
        let (_, most) = self.topic.filter(|(of, _)| *of == topic)?;
        let delay = Duration::from_millis(self.random.skewed(1..most));
        self.random.is_one_in(DELAYED_RARITY).then_some(DeliveryTime::After(delay))
    }
}
