//! The world around the machines: one queue of happenings, one seed.

mod clients;
mod faults;
mod parties;
mod pipeline;
mod queues;
mod shards;

use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, Now, ShardId, WallMillis};
use corelane_shard::MeshMessage;
use corelane_storage::IoId;
use corelane_wire::Frame;

use crate::broker::Broker;
use crate::client::{Client, Todo};
use crate::network::{LinkId, MeshOrder, Network};
use crate::{Detail, Oracle, Queue, Random, Scenario, Trace, Violation};

/// How often the supervisor looks at the shards, and the workload at whether it is through.
const SUPERVISION: Duration = Duration::from_millis(50);
/// Everything must have come to rest this long after the last fault.
const LIVENESS: Duration = Duration::from_secs(180);
/// The load must be over by then, faults or not.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// More happenings than any run needs: something goes round in circles.
const HAPPENINGS_MAX: u64 = 20_000_000;

/// Something that comes out of the queue.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A shard takes what is in its inbox.
    Round { shard: ShardId, generation: u64 },
    /// A shard's deadline.
    ShardDeadline { shard: ShardId, generation: u64, moment: MonotonicNanos },
    /// A file effect is through.
    Disk { shard: ShardId, generation: u64, io: IoId },
    /// A message between shards arrives.
    Mesh { generation: u64, from: ShardId, to: ShardId, message: MeshMessage },
    /// A client's first packet arrives at its shard.
    Accept { link: LinkId },
    /// The client learns that its connection stands.
    Established { link: LinkId },
    /// A frame arrives at the shard.
    ToShard { link: LinkId, frame: Frame },
    /// A frame arrives at the client.
    ToClient { link: LinkId, frame: Frame },
    /// A connection has room again.
    Relieve { link: LinkId },
    /// The shard learns that a connection is gone.
    LostAtShard { link: LinkId },
    /// The client learns that a connection is gone or could not be made.
    LostAtClient { link: LinkId, code: Option<ErrorCode>, reason: String },
    /// A client's deadline.
    ClientDeadline { client: usize, moment: MonotonicNanos },
    /// Something that a client's workload wants to do.
    Work { client: usize, todo: Todo },
    /// The process starts.
    Start { generation: u64 },
    /// The process is told to shut down.
    Drain { generation: u64 },
    /// Power is gone.
    Crash { generation: u64 },
    /// A fault that is no crash.
    Fault(Fault),
    /// The supervisor looks.
    Supervise,
}

/// A fault that begins or ends at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A disk is full, or has room again.
    Full { shard: ShardId, is_full: bool },
    /// A disk is slow, or fast again.
    Slow { shard: ShardId, is_slow: bool },
    /// The wall clock jumps.
    Jump { by_ms: i64 },
    /// A connection is cut.
    Cut,
    /// Frames of one of the connections that stand are late, one way or both, and perhaps the connection is cut meanwhile.
    HoldUp { nth: u64, way: Way, lasts: Duration, is_cut: bool },
    /// This connection is cut.
    CutLink { link: LinkId },
    /// Much waits to be sent on a connection, for a while.
    Congest,
    /// Nothing: the end of a fault that has none.
    None,
}

/// Which frames of a connection are late.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    ToClient,
    ToShard,
    Both,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Clients send, faults happen.
    Load,
    /// Faults are over; everything that is open must end.
    Rest { since: MonotonicNanos },
    /// The broker was started once more; a reader reads everything.
    Audit { since: MonotonicNanos },
    /// All is well.
    Over,
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) trace: Trace,
    pub(crate) scenario: Scenario,
    random: Random,
    /// When offsets are staged late.
    late: Random,
    queue: Queue<Happening>,
    broker: Broker,
    network: Network,
    mesh_order: MeshOrder,
    oracle: Oracle,
    clients: Vec<Client>,
    phase: Phase,
    /// Effects until the next crash, if one is to come.
    until_crash: Option<u64>,
    crashes_left: u64,
    happenings: u64,
    violation: Option<Violation>,
}

impl World {
    /// Everything as the seed decides it, before the first happening.
    pub(crate) fn new(seed: u64, detail: Detail) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random.fork());
        let broker = Broker::new(&mut random.fork(), &scenario);
        let network = Network::new(random.fork(), scenario.frame_delay_max);
        let clients = Client::from_scenario(&scenario, &mut random);
        let mut world = Self {
            trace: Trace::new(detail),
            late: Random::new(scenario.network.hold_ups.map_or(0, |hold_ups| !hold_ups.seed)),
            random,
            queue: Queue::new(WallMillis(1_700_000_000_000)),
            broker,
            network,
            mesh_order: MeshOrder::default(),
            oracle: Oracle::default(),
            clients,
            phase: Phase::Load,
            until_crash: None,
            crashes_left: scenario.crashes_max,
            happenings: 0,
            violation: None,
            scenario,
        };
        world.begin();
        world
    }

    /// Runs to the end; says which promise was broken, if one was.
    pub(crate) fn run(&mut self) -> Option<Violation> {
        while self.phase != Phase::Over && self.violation.is_none() {
            let Some(happening) = self.queue.pop() else {
                self.violation = Some(self.not_live("nothing is left to happen".to_owned()));
                break;
            };
            self.happenings += 1;
            if HAPPENINGS_MAX < self.happenings {
                self.violation = Some(self.not_live("something goes round in circles".to_owned()));
                break;
            }
            self.step(happening);
        }
        self.violation.clone()
    }

    /// Figures of the run so far.
    pub(crate) fn facts(&self) -> String {
        let (committed, transactions) = self.oracle.transaction_counts();
        format!(
            "{} happenings, {:.3} s of virtual time, {} starts, {} records stored, {} put back, {committed} of {transactions} \
             transactions committed",
            self.happenings,
            Duration::from_nanos(self.now().monotonic.0).as_secs_f64(),
            self.broker.incarnation(),
            self.oracle.stored_count(),
            self.oracle.queues.redriven_count()
        )
    }

    fn now(&self) -> Now {
        self.queue.now()
    }

    fn log(&mut self, text: std::fmt::Arguments<'_>) {
        let now = self.queue.now().monotonic;
        self.trace.add(now, text);
    }

    /// Keeps the first violation: later ones follow from it.
    fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.log(format_args!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
        }
    }

    fn not_live(&self, what: String) -> Violation {
        let since = match self.phase {
            Phase::Rest { since } | Phase::Audit { since } => since,
            Phase::Load | Phase::Over => MonotonicNanos(0),
        };
        Violation::NotLive { seconds: self.now().monotonic.since(since).as_secs(), what }
    }

    fn begin(&mut self) {
        let scenario = format!("{:?}", self.scenario);
        self.log(format_args!("{scenario}"));
        self.queue.after(Duration::ZERO, Happening::Start { generation: 0 });
        self.queue.after(SUPERVISION, Happening::Supervise);
        self.schedule_faults();
        self.schedule_hold_ups();
        if self.scenario.is_jumping {
            self.oracle.queues.loosen_clock();
        }
        for client in 0..self.clients.len() {
            self.queue.after(Duration::from_micros(10), Happening::Work { client, todo: Todo::Begin });
        }
    }

    fn step(&mut self, happening: Happening) {
        match happening {
            Happening::Round { shard, generation } => self.round(shard, generation),
            Happening::ShardDeadline { shard, generation, moment } => self.shard_deadline(shard, generation, moment),
            Happening::Disk { shard, generation, io } => self.disk_done(shard, generation, io),
            Happening::Mesh { generation, from, to, message } => self.mesh_arrives(generation, from, to, message),
            Happening::Accept { link } => self.accept(link),
            Happening::Established { link } => self.established(link),
            Happening::ToShard { link, frame } => self.frame_to_shard(link, frame),
            Happening::ToClient { link, frame } => self.frame_to_client(link, frame),
            Happening::Relieve { link } => self.congest(link, false),
            Happening::LostAtShard { link } => self.lost_at_shard(link),
            Happening::LostAtClient { link, code, reason } => self.lost_at_client(link, code, reason),
            Happening::ClientDeadline { client, moment } => self.client_deadline(client, moment),
            Happening::Work { client, todo } => self.work(client, todo),
            Happening::Start { generation } => self.start(generation),
            Happening::Drain { generation } => self.drain(generation),
            Happening::Crash { generation } => {
                if generation == self.broker.generation {
                    self.end_process();
                }
            }
            Happening::Fault(fault) => self.fault(fault),
            Happening::Supervise => self.supervise(),
        }
    }
}
