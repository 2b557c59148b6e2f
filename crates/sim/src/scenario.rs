//! What a seed decides before anything happens: topology, workload, which faults there are and how often.
//!
//! Swarm style: each seed switches some features off altogether, because faults hide each other.

mod operator;
mod parties;
mod pipeline;
mod queues;

use std::time::Duration;

use corelane_model::limits::{DEDUP_COUNT_MAX, SEGMENT_BYTES_MIN};
use corelane_model::{Acks, Isolation, TopicClass, TopicSettings};

use crate::Random;
pub use operator::OperatorPlan;
pub use parties::GroupPlan;
pub use pipeline::PipelinePlan;
pub use queues::QueuePlan;

/// The smallest journal file that a journal takes.
const SMALLEST_FILE_BYTES: u64 = 64 << 10;
const DAY_MS: u64 = 24 * 3_600_000;
/// One in so many seeds has clients with transactions.
const TRANSACTIONS_RARITY: u64 = 3;

/// What a disk does beyond the ordinary. A rarity of 0 means never, n means once in n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// A crash loses writes that were not synced.
    pub is_losing: bool,
    /// A crash tears blocks that were not synced.
    pub is_tearing: bool,
    /// How rarely a write takes fewer bytes than asked.
    pub short_write_rarity: u64,
    /// How rarely a write fails.
    pub write_error_rarity: u64,
    /// How rarely a sync fails.
    pub sync_error_rarity: u64,
}

/// What the network does beyond delaying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkFaults {
    /// How rarely a frame's arrival cuts its connection.
    pub cut_rarity: u64,
    /// How rarely an attempt to connect fails.
    pub refuse_rarity: u64,
    /// Single connections whose frames do not get through for a while, in some seeds.
    pub hold_ups: Option<HoldUps>,
}

impl NetworkFaults {
    /// All but hold-ups, which are drawn last.
    fn draw(random: &mut Random) -> Self {
        Self { cut_rarity: rarity(random, 2, 30..600), refuse_rarity: rarity(random, 3, 3..20), hold_ups: None }
    }
}

/// Frames that are late: whoever sent them may be taken for dead when they arrive, and its work be another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldUps {
    /// Time between two of them, at most.
    pub every_max: Duration,
    /// How long one lasts, at most.
    pub lasts_max: Duration,
    /// How rarely one begins as offsets are staged: their member may give up what they are of while they are on their way.
    pub staging_rarity: u64,
    /// What they are drawn from.
    pub seed: u64,
}

/// A topic of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// How many partitions.
    pub partitions: u32,
    /// What its records survive.
    pub class: TopicClass,
    /// Whether only the newest record of each key has to be there, and for how long null values stay.
    pub compacted_ms: Option<u64>,
    /// It remembers message ids; some records carry one and are sent again later.
    pub has_ids: bool,
    /// Clients send each other's records with ids again, and those that nobody knows about.
    pub are_ids_shared: bool,
    /// Some records have no value, and stay for this time at least.
    pub deletions_ms: Option<u64>,
    /// Nobody truncates it.
    pub is_kept: bool,
}

impl TopicPlan {
    /// A topic that only keeps records.
    const fn plain(partitions: u32, class: TopicClass) -> Self {
        Self {
            partitions,
            class,
            compacted_ms: None,
            has_ids: false,
            are_ids_shared: false,
            deletions_ms: None,
            is_kept: false,
        }
    }

    /// Whether batches of transactions are written to it.
    #[must_use]
    pub fn takes_transactions(&self) -> bool {
        self.class.is_durable() && self.compacted_ms.is_none()
    }

    /// Whether each record needs a key.
    #[must_use]
    pub fn needs_keys(&self) -> bool {
        self.compacted_ms.is_some() || self.class == TopicClass::Latest
    }

    /// Settings with which everything stays that must be there.
    #[must_use]
    pub fn settings(&self) -> TopicSettings {
        let tombstone_ms = self.deletions_ms.or(self.compacted_ms).unwrap_or(DAY_MS);
        match self.compacted_ms {
            Some(_) => TopicSettings { tombstone_ms, segment_bytes: SEGMENT_BYTES_MIN, ..TopicSettings::compacted() },
            None => TopicSettings {
                class: self.class,
                tombstone_ms,
                retention_ms: None,
                dedup_count: self.has_ids.then_some(DEDUP_COUNT_MAX),
                ..TopicSettings::default()
            },
        }
    }
}

/// A client of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Records that it sends while faults happen.
    pub records: u64,
    /// Time between two of them, on average.
    pub pause: Duration,
    /// When it counts a record as done.
    pub acks: Acks,
    /// Whether it subscribes to every partition.
    pub is_consumer: bool,
    /// Which records it reads.
    pub isolation: Isolation,
    /// The transactions that it has, if it has any.
    pub transactions: Option<TransactionPlan>,
}

impl ClientPlan {
    /// A client that neither sends nor reads.
    pub(crate) const fn idle() -> Self {
        Self {
            records: 0,
            pause: Duration::ZERO,
            acks: Acks::Stored,
            is_consumer: false,
            isolation: Isolation::Uncommitted,
            transactions: None,
        }
    }
}

/// What a client with a transactional id does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionPlan {
    /// Which id; clients with the same one take it from each other.
    pub id: u64,
    /// Transactions that it begins while faults happen.
    pub transactions: u64,
    /// Time between two steps, at most.
    pub pause: Duration,
    /// A transaction that takes longer is aborted.
    pub timeout_ms: u32,
}

/// Everything that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The topics.
    pub topics: Vec<TopicPlan>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// The disks' faults.
    pub disk: DiskFaults,
    /// The network's faults.
    pub network: NetworkFaults,
    /// After how many effects, on average, everything loses power; 0 for never.
    pub crash_every: u64,
    /// How rarely power is lost soon after a journal file was begun; 0 for never.
    pub crash_at_file_rarity: u64,
    /// How many crashes there may be.
    pub crashes_max: u64,
    /// After how much time, on average, the broker is drained and started again; zero for never.
    pub restart_every: Duration,
    /// Time between two faults that are no crashes, at most.
    pub fault_every_max: Duration,
    /// Time between two requests of an operator, about; zero for none.
    pub churn_every: Duration,
    /// Whether a disk is full for a while now and then.
    pub is_filling: bool,
    /// Whether a disk is slow for a while now and then.
    pub is_slowing: bool,
    /// Whether the wall clock jumps.
    pub is_jumping: bool,
    /// Whether readers of newest values begin anew now and then.
    pub is_renewing: bool,
    /// Whether bits of settled records flip before the last start.
    pub is_rotting: bool,
    /// Bytes of a journal file.
    pub journal_file_bytes: u64,
    /// Files of a journal.
    pub journal_files: u32,
    /// Bytes that a shard may use.
    pub memory_bytes: u64,
    /// The longest delay of a frame.
    pub frame_delay_max: Duration,
    /// The longest delay between shards.
    pub mesh_delay_max: Duration,
    /// Bytes at which a client's batch is full.
    pub batch_bytes_max: u32,
    /// The largest value of a record.
    pub value_bytes_max: u64,
    /// A consumer group, in some seeds.
    pub group: Option<GroupPlan>,
    /// A shared queue, in some seeds.
    pub queue: Option<QueuePlan>,
    /// A pipeline, in some seeds.
    pub pipeline: Option<PipelinePlan>,
    /// An operator of the group and the shared queue, in some seeds.
    pub operator: Option<OperatorPlan>,
}

impl Scenario {
    /// What the seed decides.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let topics = (0..random.within(1..4)).map(|_| {
            let partitions = u32::try_from(random.within(1..5)).expect("few");
            TopicPlan::plain(partitions, if random.is_one_in(5) { TopicClass::Memory } else { TopicClass::Durable })
        });
        let topics: Vec<TopicPlan> = topics.collect();
        let clients = (0..random.within(1..4)).map(|number| ClientPlan {
            records: random.skewed(20..5_000),
            pause: Duration::from_micros(random.skewed(100..30_000)),
            acks: if random.is_one_in(4) { Acks::Received } else { Acks::Stored },
            is_consumer: number == 0 || random.is_one_in(2),
            isolation: Isolation::Uncommitted,
            transactions: None,
        });
        let clients = clients.collect();
        let journal_file_bytes = *random.pick(&[128 << 10, 192 << 10, 256 << 10, 1 << 20]);
        // An entry has a quarter of a file; several batches must fit into it.
        let batch_bytes_max = u32::try_from(journal_file_bytes / 16).expect("files are small");
        let mut scenario = Self {
            topics,
            clients,
            disk: DiskFaults {
                is_losing: !random.is_one_in(4),
                is_tearing: !random.is_one_in(3),
                short_write_rarity: rarity(random, 3, 20..400),
                write_error_rarity: rarity(random, 6, 100..800),
                sync_error_rarity: rarity(random, 6, 100..800),
            },
            network: NetworkFaults::draw(random),
            crash_every: if random.is_one_in(5) { 0 } else { random.skewed(20..6_000) },
            crash_at_file_rarity: 0,
            crashes_max: random.within(1..16),
            restart_every: if random.is_one_in(3) {
                Duration::from_millis(random.within(200..3_000))
            } else {
                Duration::ZERO
            },
            fault_every_max: Duration::from_micros(random.skewed(20_000..4_000_000)),
            churn_every: if random.is_one_in(3) {
                Duration::ZERO
            } else {
                Duration::from_micros(random.skewed(2_000..400_000))
            },
            is_filling: random.is_one_in(4),
            is_slowing: random.is_one_in(3),
            is_jumping: random.is_one_in(3),
            is_renewing: false,
            is_rotting: random.is_one_in(6),
            journal_file_bytes,
            journal_files: corelane_model::limits::JOURNAL_FILES_MIN,
            memory_bytes: 64 << 20,
            frame_delay_max: Duration::from_micros(random.skewed(100..50_000)),
            mesh_delay_max: Duration::from_micros(random.skewed(20..5_000)),
            batch_bytes_max,
            value_bytes_max: random.skewed(32..u64::from(batch_bytes_max) - 512),
            group: None,
            queue: None,
            pipeline: None,
            operator: None,
        };
        // Drawn last, so that kept seeds stay what they were.
        if random.is_one_in(3) {
            scenario.shrink_ring(random);
        }
        if !random.is_one_in(3) {
            scenario.crash_at_file_rarity = random.within(1..12);
        }
        scenario.decide_topics(random);
        scenario.decide_transactions(random);
        scenario.decide_keys(random);
        scenario.decide_members(random);
        scenario
    }

    /// Whether some client has transactions.
    #[must_use]
    pub fn has_transactions(&self) -> bool {
        self.pipeline.is_some() || self.clients.iter().any(|client| client.transactions.is_some())
    }

    /// A small ring comes round often: many crashes meet files that were used before.
    fn shrink_ring(&mut self, random: &mut Random) {
        self.crashes_max = random.within(5..60);
        self.crash_every = random.within(50..800);
        self.journal_file_bytes = SMALLEST_FILE_BYTES;
        self.batch_bytes_max = 4096;
        self.value_bytes_max = self.value_bytes_max.min(3584);
    }

    /// Null values, readers that begin anew, and ids that everybody uses.
    fn decide_keys(&mut self, random: &mut Random) {
        self.is_renewing = random.is_one_in(2);
        for topic in &mut self.topics {
            let graces = [random.skewed(50..5_000), random.within(5_000..60_000), DAY_MS];
            let grace = *random.pick(&graces);
            topic.deletions_ms = (topic.needs_keys() && random.is_one_in(2)).then_some(grace);
            topic.are_ids_shared = topic.has_ids && random.is_one_in(2);
        }
    }

    /// Clients with transactions in some of the seeds, and readers of committed records beside them.
    fn decide_transactions(&mut self, random: &mut Random) {
        if !random.is_one_in(TRANSACTIONS_RARITY) {
            return;
        }
        if !self.topics.iter().any(TopicPlan::takes_transactions) {
            let partitions = u32::try_from(random.within(1..5)).expect("few");
            self.topics.push(TopicPlan::plain(partitions, TopicClass::Durable));
        }
        for client in 0..random.within(1..4) {
            let plan = TransactionPlan {
                id: random.within(0..2),
                transactions: random.skewed(5..120),
                pause: Duration::from_micros(random.skewed(100..30_000)),
                timeout_ms: u32::try_from(random.skewed(250..8_000)).expect("seconds"),
            };
            self.clients.push(ClientPlan {
                records: 0,
                pause: Duration::ZERO,
                acks: Acks::Stored,
                is_consumer: client == 0 || random.is_one_in(3),
                isolation: Isolation::Committed,
                transactions: Some(plan),
            });
        }
    }

    /// Who is a member of something, and whose words are late.
    fn decide_members(&mut self, random: &mut Random) {
        self.decide_parties(&mut random.fork());
        self.decide_queue(&mut random.fork());
        self.decide_pipeline(&mut random.fork());
        self.decide_hold_ups(&mut random.fork());
        self.decide_operator(&mut random.fork());
    }

    /// Who shares topics.
    fn decide_parties(&mut self, random: &mut Random) {
        self.group = GroupPlan::draw(random, &self.topics);
        if self.group.is_some() {
            // Members come and go within seconds: records have to come for as long.
            let times = u32::try_from(random.within(1..12)).expect("few");
            self.clients.iter_mut().for_each(|client| client.pause *= times);
        }
    }

    /// Who shares records.
    fn decide_queue(&mut self, random: &mut Random) {
        self.queue = QueuePlan::draw(random, &self.topics, self.is_jumping);
        if self.queue.is_some() {
            let times = u32::try_from(random.within(1..6)).expect("few");
            self.clients.iter_mut().for_each(|client| client.pause *= times);
        }
    }

    /// Late frames, mostly where somebody may be put out for silence.
    fn decide_hold_ups(&mut self, random: &mut Random) {
        let has_members = self.group.is_some() || self.queue.is_some() || self.pipeline.is_some();
        if random.is_one_in(if has_members { 2 } else { 6 }) {
            self.network.hold_ups = Some(HoldUps {
                every_max: Duration::from_micros(random.skewed(20_000..2_000_000)),
                lasts_max: Duration::from_millis(random.within(200..8_000)),
                staging_rarity: random.within(1..5),
                seed: random.bits(),
            });
        }
    }

    /// What topics are for beside keeping records.
    fn decide_topics(&mut self, random: &mut Random) {
        for topic in &mut self.topics {
            let compacted_ms = random.skewed(50..5_000);
            if topic.class.is_durable() && random.is_one_in(3) {
                topic.compacted_ms = Some(compacted_ms);
            } else {
                // Ids that rotted with their records are forgotten, and so are those that a jump of the clock lets retention
                // drop.
                topic.has_ids = topic.class.is_durable() && random.is_one_in(2) && !self.is_rotting && !self.is_jumping;
            }
            if topic.class == TopicClass::Memory && random.is_one_in(2) {
                topic.class = TopicClass::Latest;
            }
        }
    }
}

/// Once in `switch` seeds a rarity from the range, else never.
fn rarity(random: &mut Random, switch: u64, range: std::ops::Range<u64>) -> u64 {
    let drawn = random.within(range);
    if random.is_one_in(switch) { drawn } else { 0 }
}
