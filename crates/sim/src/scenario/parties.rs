//! Who shares topics: consumer groups and their members.

use std::time::Duration;

use corelane_model::{Strategy, TopicClass};

use super::TopicPlan;
use crate::Random;

/// A rebalance time-out that no run reaches while faults happen.
const REBALANCE_FOR_EVER: Duration = Duration::from_secs(60);

/// A consumer group of the workload. All its members are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// The topics that it reads, by their place; all are durable and keep everything.
    pub topics: Vec<usize>,
    /// How many clients have members.
    pub clients: u32,
    /// How many members each of them has.
    pub members: usize,
    /// Whether members have names across their restarts.
    pub is_static: bool,
    /// How partitions are assigned.
    pub strategy: Strategy,
    /// Silent for longer, a member has died.
    pub session_timeout: Duration,
    /// What is asked back has to be given up by then.
    pub rebalance_timeout: Duration,
    /// How often what is finished is committed; `None` leaves it to the application.
    pub auto_commit: Option<Duration>,
    /// Time between two members that leave, die or come twice, for each client, about.
    pub disturb_every: Duration,
    /// How often that happens at each client while there are faults.
    pub disturbances: u64,
    /// What its clients draw from.
    pub seed: u64,
}

impl GroupPlan {
    /// A group in some seeds, if there is a topic for it.
    pub(super) fn draw(random: &mut Random, topics: &[TopicPlan]) -> Option<Self> {
        // Of a compacted topic the last records may go, so that nobody is shown the end.
        let is_fit = |topic: &TopicPlan| topic.class == TopicClass::Durable && topic.compacted_ms.is_none();
        let durable = (0..topics.len()).filter(|&at| is_fit(&topics[at])).collect::<Vec<_>>();
        if !random.is_one_in(4) || durable.is_empty() {
            return None;
        }
        let most = random.within(1..durable.len() as u64 + 1);
        Some(Self {
            topics: durable.into_iter().take(usize::try_from(most).expect("few topics")).collect(),
            clients: u32::try_from(random.within(1..4)).expect("few"),
            members: usize::try_from(random.within(1..4)).expect("few"),
            is_static: random.is_one_in(2),
            strategy: *random.pick(Strategy::ALL),
            session_timeout: Duration::from_millis(random.skewed(300..6_000)),
            rebalance_timeout: if random.is_one_in(4) {
                Duration::from_millis(random.skewed(300..3_000))
            } else {
                REBALANCE_FOR_EVER
            },
            auto_commit: random.is_one_in(2).then_some(Duration::from_millis(random.skewed(5..1_000))),
            disturb_every: Duration::from_millis(random.skewed(10..2_000)),
            disturbances: random.skewed(2..40),
            seed: random.bits(),
        })
    }
}
