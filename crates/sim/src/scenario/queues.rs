//! Who shares the records of a topic: a shared queue and its members.

use std::time::Duration;

use corelane_model::{Backoff, Dispatch, QueueSettings, TopicClass, TopicName};

use super::TopicPlan;
use crate::{Random, RecordId};

/// One in so many seeds has a shared queue.
const QUEUE_RARITY: u64 = 5;

/// A shared queue of the workload. All its members are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    /// The topic that it consumes, by its place; it is durable and keeps everything.
    pub topic: usize,
    /// How many clients have members.
    pub clients: u32,
    /// How many members each of them has.
    pub members: usize,
    /// How the queue is.
    pub settings: QueueSettings,
    /// Partitions of the dead-letter topic, if there is one.
    pub dead_partitions: u32,
    /// Silent for longer, a member has died.
    pub session_timeout: Duration,
    /// Records that a member has at once.
    pub credit_records: u32,
    /// One in so many records is never acknowledged as long as that can go on; 0 for none.
    pub bad_rarity: u64,
    /// Milliseconds for which some records are delayed, at most; 0 for none.
    pub delay_ms_max: u64,
    /// Time between two members that leave or die, for each client, about.
    pub disturb_every: Duration,
    /// How often that happens at each client while there are faults.
    pub disturbances: u64,
    /// What its clients draw from.
    pub seed: u64,
}

impl QueuePlan {
    /// The topic for its dead letters. Nothing else of the workload writes there.
    #[must_use]
    pub fn dead_letter_topic() -> TopicName {
        TopicName::parse("dead-letters").expect("a name")
    }

    /// A queue in some seeds, if there is a topic for it.
    pub(super) fn draw(random: &mut Random, topics: &[TopicPlan], is_jumping: bool) -> Option<Self> {
        // Of a compacted topic records may go that nobody was handed.
        let is_fit = |topic: &TopicPlan| topic.class == TopicClass::Durable && topic.compacted_ms.is_none();
        let durable = (0..topics.len()).filter(|&at| is_fit(&topics[at])).collect::<Vec<_>>();
        if !random.is_one_in(QUEUE_RARITY) || durable.is_empty() {
            return None;
        }
        let delivery_limit = random.is_one_in(2).then(|| u32::try_from(random.within(1..6)).expect("few"));
        let has_dead_letters = delivery_limit.is_some() || random.is_one_in(2);
        let dead_partitions = u32::try_from(random.within(1..4)).expect("few");
        Some(Self {
            topic: *random.pick(&durable),
            clients: u32::try_from(random.within(1..4)).expect("few"),
            members: usize::try_from(random.within(1..4)).expect("few"),
            settings: QueueSettings {
                visibility: Duration::from_millis(random.skewed(100..3_000)),
                dispatch: *random.pick(Dispatch::ALL),
                order_per_key: random.is_one_in(2),
                delivery_limit,
                backoff: draw_backoff(random),
                dead_letter: has_dead_letters.then(Self::dead_letter_topic),
            },
            dead_partitions: if has_dead_letters { dead_partitions } else { 0 },
            session_timeout: Duration::from_millis(random.skewed(300..4_000)),
            credit_records: u32::try_from(random.skewed(1..200)).expect("few"),
            bad_rarity: if random.is_one_in(3) { 0 } else { random.skewed(5..60) },
            // A record may be delayed for as long as the wall clock jumps.
            delay_ms_max: if is_jumping || random.is_one_in(2) { 0 } else { random.skewed(50..2_000) },
            disturb_every: Duration::from_millis(random.skewed(10..1_500)),
            disturbances: random.skewed(2..30),
            seed: random.bits(),
        })
    }

    /// Whether a record is one that members fail again and again.
    pub(crate) fn is_bad(&self, record: RecordId) -> bool {
        let mixed = (record.number + record.client * 3).wrapping_mul(0x9e37_79b1);
        self.bad_rarity != 0 && u64::from(mixed).is_multiple_of(self.bad_rarity)
    }
}

fn draw_backoff(random: &mut Random) -> Backoff {
    let [a, b] = [random.skewed(0..300), random.skewed(0..1_500)].map(Duration::from_millis);
    match random.within(0..3) {
        0 => Backoff::Exponential { first: Duration::ZERO, cap: Duration::ZERO },
        1 => Backoff::Exponential { first: a.min(b), cap: a.max(b) },
        _ => Backoff::Steps(vec![a, b, Duration::ZERO]),
    }
}
