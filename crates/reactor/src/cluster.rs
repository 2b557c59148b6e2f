//! All shards of a broker, from the outside: started, asked, drained and joined by plain threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use corelane_model::ShardId;
use corelane_model::limits::SHARD_CONNECTIONS_MAX;
use corelane_quic::{Endpoint, EndpointConfig};
use corelane_shard::{AdminAnswer, AdminId, AdminQuery, Shard, ShardConfig};
use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares};

use crate::bell::LocalBell;
use crate::board::{Board, ShardFailure};
use crate::clock::Clock;
use crate::files::Files;
use crate::heartbeat;
use crate::machine::Machine;
use crate::mesh::{Inbound, Inbox, Outboxes, Postbox, inbox};
use crate::park::Parking;
use crate::process::{allowed_cores, free_ring_workers, online_cores};
use crate::round::{Round, catch_panic};
use crate::socket::ShardSocket;
use crate::spin::{Spin, Spinner};
use crate::stats::ReactorStats;
use crate::udp::Port;

/// Bytes of each executor's memory for direct I/O that the kernel knows beforehand; what does not fit comes from the heap.
const IO_MEMORY_BYTES: usize = 16 << 20;
/// glommio's preemption timer never fires: see [`crate::heartbeat`]. The shard's loop gives way by itself.
const PREEMPT_NEVER: Duration = Duration::from_secs(24 * 3600);
/// Shares of the shard's loop against those of the background.
const SHARES_LOOP: usize = 1000;
const SHARES_BACKGROUND: usize = 200;
/// The longest that a shard may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What the shards need.
#[derive(Debug)]
pub struct ReactorConfig {
    /// The data directory; it exists and is locked.
    pub data_dir: PathBuf,
    /// The core of each shard, by shard id; shards beyond the list run where the kernel puts them.
    pub cpus: Vec<usize>,
    /// The socket of each shard, by shard id.
    pub sockets: Vec<ShardSocket>,
    /// Certificate, key and application protocol.
    pub tls: Arc<rustls::ServerConfig>,
    /// What each shard is told, by shard id.
    pub shard_configs: Vec<ShardConfig>,
    /// Whether and how shards spin.
    pub spin: Spin,
    /// Signs stateless resets; the same at every start, so that clients learn of a restart at once.
    pub reset_key: [u8; 32],
    /// Random bytes: everything random that is not TLS comes from them.
    pub seed: [u8; 32],
}

/// Why the shards cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TLS configuration cannot carry QUIC.
    #[error(transparent)]
    Tls(#[from] corelane_quic::ConfigError),
    /// A thread or an io_uring could not be made: too little memory may be locked, or io_uring is forbidden.
    #[error("shard {shard} could not be started: {text}")]
    Executor {
        /// The shard.
        shard: ShardId,
        /// What glommio said.
        text: String,
    },
}

/// Starts shards.
#[derive(Debug)]
pub struct Cluster;

impl Cluster {
    /// Starts one thread for each shard. They recover first; [`Handle::wait_ready`] tells when they accept connections.
    ///
    /// # Errors
    /// A shard cannot be started; those that were are stopped.
    pub fn start(config: ReactorConfig) -> Result<Handle, StartError> {
        let ReactorConfig { data_dir, cpus, sockets, tls, shard_configs, spin, reset_key, seed } = config;
        assert_eq!(sockets.len(), shard_configs.len(), "one socket for each shard");
        let connection_bytes = shard_configs.iter().map(ShardConfig::connection_bytes).min().unwrap_or(0);
        let world = World { data_dir, cpus, tls, spin, reset_key, seed, connection_bytes };
        let makers = shard_configs.into_iter().map(|config| move || Shard::new(config)).collect();
        start_machines(&world, sockets, makers)
    }
}

/// What all shards share at their start.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) data_dir: PathBuf,
    pub(crate) cpus: Vec<usize>,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) spin: Spin,
    pub(crate) reset_key: [u8; 32],
    pub(crate) seed: [u8; 32],
    /// Memory of each shard for its connections.
    pub(crate) connection_bytes: u64,
}

/// Starts whatever machines there are: shards, or what stands in for them when a floor is measured.
pub(crate) fn start_machines<M: Machine>(
    world: &World,
    sockets: Vec<ShardSocket>,
    makers: Vec<impl FnOnce() -> M + Send + 'static>,
) -> Result<Handle, StartError> {
    let count = sockets.len();
    let clock = Clock::start();
    let board = Arc::new(Board::new(count));
    let (postboxes, inboxes): (Vec<Postbox>, Vec<Inbox>) = (0..count).map(|_| inbox()).unzip();
    let mut handle = Handle { threads: Vec::new(), postboxes, board, questions: AtomicU64::new(1) };
    let mut beginnings = Vec::with_capacity(count);
    for ((socket, maker), inbox) in sockets.into_iter().zip(makers).zip(inboxes) {
        let shard = socket.shard;
        let quic = EndpointConfig {
            shard,
            tls: Arc::clone(&world.tls),
            reset_key: world.reset_key,
            seed: seed_of(&world.seed, shard),
            origin: clock.origin(),
            segments_max: 1,
            may_fragment: true,
            connections_max: SHARD_CONNECTIONS_MAX,
            memory_bytes: world.connection_bytes,
        };
        // Said here, where it can be answered, and not on the shard's thread.
        Endpoint::new(&quic)?;
        let (begun, beginning) = channel();
        beginnings.push(beginning);
        let parts = Parts {
            socket,
            maker,
            inbox,
            quic,
            clock,
            data_dir: world.data_dir.clone(),
            worker_cores: allowed_cores(),
            spinner: (world.spin, online_cores() <= count),
            neighbours: handle.postboxes.clone(),
            board: Arc::clone(&handle.board),
            begun,
        };
        let placement = world.cpus.get(usize::from(shard.0)).map_or(Placement::Unbound, |cpu| Placement::Fixed(*cpu));
        let thread = LocalExecutorBuilder::new(placement)
            .name("shard")
            .io_memory(IO_MEMORY_BYTES)
            .preempt_timer(PREEMPT_NEVER)
            .spawn(move || run_shard(parts));
        match thread {
            Ok(thread) => handle.threads.push((shard, thread)),
            Err(error) => return Err(StartError::Executor { shard, text: error.to_string() }),
        }
    }
    handle.wait_begun(&beginnings)?;
    Ok(handle)
}

/// Each shard draws from a seed of its own.
fn seed_of(seed: &[u8; 32], shard: ShardId) -> [u8; 32] {
    let mut own = *seed;
    own[31] ^= shard.0;
    own
}

/// What one shard's thread is given.
struct Parts<F> {
    socket: ShardSocket,
    maker: F,
    inbox: Inbox,
    quic: EndpointConfig,
    clock: Clock,
    data_dir: PathBuf,
    worker_cores: Vec<usize>,
    spinner: (Spin, bool),
    neighbours: Vec<Postbox>,
    board: Arc<Board>,
    /// Told when the executor runs; gone without a word when it could not be made.
    begun: Sender<()>,
}

/// Says that the thread is gone, also when it unwinds.
struct Farewell {
    shard: ShardId,
    board: Arc<Board>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.board.fail(self.shard, "the thread panicked outside the shard's loop".to_owned());
        } else {
            self.board.ended(self.shard);
        }
    }
}

async fn run_shard<M: Machine, F: FnOnce() -> M + Send + 'static>(parts: Parts<F>) {
    let (shard, board) = (parts.socket.shard, Arc::clone(&parts.board));
    let farewell = Farewell { shard, board: Arc::clone(&board) };
    // Nobody listens any more when another shard could not be started.
    let _nobody_waits = parts.begun.send(());
    let executor = glommio::executor();
    let own = executor.create_task_queue(Shares::Static(SHARES_LOOP), Latency::Matters(PREEMPT_NEVER), "shard");
    let background = executor.create_task_queue(Shares::Static(SHARES_BACKGROUND), Latency::NotImportant, "background");
    let body = async move {
        match assemble(parts, background).await {
            Ok(round) => match catch_panic(round.run()).await {
                Ok(()) => Ok(()),
                Err(text) => Err(text),
            },
            Err(error) => Err(error.to_string()),
        }
    };
    heartbeat::start();
    let task = glommio::spawn_local_into(body, own).expect("the queue was made above");
    if let Err(text) = task.await {
        tracing::error!(%shard, %text, "a shard failed");
        board.fail(shard, text);
    }
    drop(farewell);
}

async fn assemble<M: Machine, F: FnOnce() -> M>(
    parts: Parts<F>,
    background: glommio::TaskQueueHandle,
) -> std::io::Result<Round<M>> {
    let Parts { socket: ShardSocket { shard, socket }, maker, inbox, mut quic, clock, .. } = parts;
    let bell = Rc::new(LocalBell::default());
    let port = Port::new(socket)?;
    quic.segments_max = port.segments_max();
    quic.may_fragment = port.may_fragment();
    let quic = Endpoint::new(&quic).map_err(std::io::Error::other)?;
    let files = Files::open(&parts.data_dir, shard, background, Rc::clone(&bell)).await?;
    if let Err(error) = free_ring_workers(&parts.worker_cores) {
        tracing::info!(%shard, %error, "io_uring's workers stay on the shard's core");
    }
    let parking = Parking::new(port.socket(), bell).await?;
    Ok(Round {
        shard,
        clock,
        machine: maker(),
        quic,
        port,
        files,
        parking,
        inbox,
        outboxes: Outboxes::new(shard, parts.neighbours),
        spinner: Spinner::new(parts.spinner.0, parts.spinner.1),
        board: parts.board,
        questions: BTreeMap::new(),
        is_ready: false,
        is_stopping: false,
        busy_since: None,
        stats: ReactorStats::default(),
    })
}

/// The running shards. Its methods are for plain threads, never for a shard's.
#[derive(Debug)]
pub struct Handle {
    threads: Vec<(ShardId, ExecutorJoinHandle<()>)>,
    postboxes: Vec<Postbox>,
    board: Arc<Board>,
    questions: AtomicU64,
}

impl Handle {
    /// Waits until every shard has recovered and accepts connections; `false` when the time is over first.
    ///
    /// # Errors
    /// A shard failed.
    pub fn wait_ready(&self, timeout: Duration) -> Result<bool, ShardFailure> {
        self.board.wait_ready(timeout)
    }

    /// Asks every shard and gathers the answers, by shard id. A shard that does not answer within two seconds is left out.
    #[must_use]
    pub fn admin(&self, query: AdminQuery) -> Vec<(ShardId, AdminAnswer)> {
        self.ask(|reply| {
            let id = AdminId(self.questions.fetch_add(1, Ordering::Relaxed));
            Inbound::Admin { id, query, reply }
        })
    }

    /// The counters of every shard's loop, by shard id. A shard that does not answer within two seconds is left out.
    #[must_use]
    pub fn stats(&self) -> Vec<(ShardId, ReactorStats)> {
        self.ask(|reply| Inbound::Stats { reply })
    }

    /// Tells every shard to drain and waits until everything acknowledged is on disk; `false` when the time is over first.
    ///
    /// # Errors
    /// A shard failed.
    pub fn drain(&self, timeout: Duration) -> Result<bool, ShardFailure> {
        let end = Instant::now() + timeout;
        for postbox in &self.postboxes {
            post(postbox, || Inbound::Drain, end);
        }
        self.board.wait_drained(end.saturating_duration_since(Instant::now()))
    }

    /// The shard that failed first, if one did. A broker that lost a shard should end: its partitions are gone.
    #[must_use]
    pub fn failed(&self) -> Option<ShardFailure> {
        self.board.failure()
    }

    /// Waits for a shard to fail; `None` when none did within the time.
    #[must_use]
    pub fn wait_failure(&self, timeout: Duration) -> Option<ShardFailure> {
        self.board.wait_failure(timeout)
    }

    /// Closes all connections, ends the shards and waits for their threads. What is not durable by then is lost: call
    /// [`Self::drain`] first.
    ///
    /// # Errors
    /// A shard failed, now or before.
    pub fn join(mut self) -> Result<(), ShardFailure> {
        self.stop();
        for (shard, thread) in self.threads.drain(..) {
            if let Err(error) = thread.join() {
                self.board.fail(shard, error.to_string());
            }
        }
        self.board.failure().map_or(Ok(()), Err)
    }

    /// Waits until every executor runs. glommio makes it in its thread, where an error has nobody to tell: it comes out when
    /// the thread is joined.
    fn wait_begun(&mut self, beginnings: &[Receiver<()>]) -> Result<(), StartError> {
        let Some(at) = beginnings.iter().position(|beginning| beginning.recv().is_err()) else { return Ok(()) };
        let (shard, thread) = self.threads.remove(at);
        let text = thread.join().err().map_or_else(|| "its thread ended".to_owned(), |error| error.to_string());
        Err(StartError::Executor { shard, text })
    }

    fn stop(&self) {
        let end = Instant::now() + ANSWER_TIMEOUT;
        for postbox in &self.postboxes {
            post(postbox, || Inbound::Stop, end);
        }
    }

    fn ask<T>(&self, mut question: impl FnMut(Sender<(ShardId, T)>) -> Inbound) -> Vec<(ShardId, T)> {
        let (sender, receiver) = channel();
        let end = Instant::now() + ANSWER_TIMEOUT;
        for postbox in &self.postboxes {
            post(postbox, || question(sender.clone()), end);
        }
        drop(sender);
        gather(&receiver, end)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

fn gather<T>(receiver: &Receiver<(ShardId, T)>, end: Instant) -> Vec<(ShardId, T)> {
    let mut answers = BTreeMap::new();
    while let Ok((shard, answer)) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        answers.insert(shard, answer);
    }
    answers.into_iter().collect()
}

/// Posts, waiting for room while there is time. A shard that is gone takes nothing; that shows elsewhere.
fn post(postbox: &Postbox, message: impl FnOnce() -> Inbound, end: Instant) {
    let mut message = message();
    while let Err(refused) = postbox.post(message) {
        if end <= Instant::now() || refused.is_gone {
            return;
        }
        message = refused.message;
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests;
