//! Who reads one topic and writes another, both within transactions.

use std::time::Duration;

use corelane_model::{Isolation, Strategy, TopicClass};

use super::{ClientPlan, Scenario, TopicPlan};
use crate::Random;

/// One in so many seeds has a pipeline.
const PIPELINE_RARITY: u64 = 4;
/// A rebalance time-out that no run reaches while faults happen.
const REBALANCE_FOR_EVER: Duration = Duration::from_secs(60);

/// A pipeline of the workload: members of a group make one output record of each record of the source, in transactions
/// that commit the group's offsets too. All its workers are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelinePlan {
    /// The topic that it reads, by its place. Nothing of it is truncated.
    pub source: usize,
    /// The topic that it writes, by its place. Nothing of it is truncated.
    pub output: usize,
    /// How many clients have workers.
    pub clients: u32,
    /// How many workers each of them has at a time.
    pub seats: usize,
    /// Whether workers have names in the group across their lives.
    pub is_static: bool,
    /// Whether the outputs of one source partition go to several partitions.
    pub is_spread: bool,
    /// How source partitions are assigned.
    pub strategy: Strategy,
    /// Which records of the source are read.
    pub isolation: Isolation,
    /// Silent for longer, a member has died.
    pub session_timeout: Duration,
    /// What is asked back has to be given up by then.
    pub rebalance_timeout: Duration,
    /// A transaction that takes longer is aborted.
    pub timeout_ms: u32,
    /// Time between two steps of a worker, at most.
    pub pause: Duration,
    /// Time between two workers that die, leave, stall or are replaced, for each client, about.
    pub disturb_every: Duration,
    /// How often that happens at each client while there are faults.
    pub disturbances: u64,
    /// What its clients draw from.
    pub seed: u64,
}

impl Scenario {
    /// A pipeline in some seeds, with topics of its own that others write to as well, and a reader of what it has committed.
    pub(super) fn decide_pipeline(&mut self, random: &mut Random) {
        if !random.is_one_in(PIPELINE_RARITY) {
            return;
        }
        // One worker with several partitions, of which every visitor gets some and gives them back.
        let is_alone = random.is_one_in(2);
        let mut topic = |partitions: std::ops::Range<u64>| {
            let partitions = u32::try_from(random.within(partitions)).expect("few");
            self.topics.push(TopicPlan { is_kept: true, ..TopicPlan::plain(partitions, TopicClass::Durable) });
            self.topics.len() - 1
        };
        let (source, output) = (topic(if is_alone { 3..7 } else { 1..5 }), topic(1..4));
        self.clients.push(ClientPlan { is_consumer: true, isolation: Isolation::Committed, ..ClientPlan::idle() });
        if self.group.is_none() {
            // Workers come and go within seconds: records have to come for as long.
            let times = u32::try_from(random.within(1..12)).expect("few");
            self.clients.iter_mut().for_each(|client| client.pause *= times);
        }
        self.pipeline = Some(PipelinePlan {
            source,
            output,
            clients: if is_alone { 1 } else { u32::try_from(random.within(1..4)).expect("few") },
            seats: if is_alone { 1 } else { usize::try_from(random.within(1..4)).expect("few") },
            is_static: random.is_one_in(3),
            is_spread: random.is_one_in(2),
            strategy: *random.pick(Strategy::ALL),
            isolation: if random.is_one_in(2) { Isolation::Committed } else { Isolation::Uncommitted },
            session_timeout: Duration::from_millis(random.skewed(300..6_000)),
            rebalance_timeout: if random.is_one_in(2) {
                Duration::from_millis(random.skewed(250..1_500))
            } else {
                REBALANCE_FOR_EVER
            },
            timeout_ms: if random.is_one_in(2) {
                u32::try_from(random.skewed(250..8_000)).expect("seconds")
            } else {
                u32::try_from(random.within(2_000..8_000)).expect("seconds")
            },
            pause: Duration::from_micros(random.skewed(100..30_000)),
            disturb_every: Duration::from_millis(random.skewed(5..2_000)),
            disturbances: random.skewed(5..100),
            seed: random.bits(),
        });
    }
}
