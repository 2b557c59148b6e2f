//! The floor under durability: overwrite and fdatasync through the shards' file executor, and by plain system calls beside.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corelane_model::limits::BLOCK_BYTES;
use corelane_model::{MonotonicNanos, Now, ShardId};
use corelane_shard::{Effect, Event};
use corelane_storage::{FileEffect, FileError, FileName, FileOp, FileOutcome, IoId, Urgency};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::FloorError;
use crate::cluster::{World, start_machines};
use crate::machine::Machine;
use crate::socket::Sockets;
use crate::spin::Spin;

/// Bytes of the file that is overwritten, again and again from its start, as the journal is.
const FILE_BYTES: u64 = 64 << 20;
/// The file's name through the executor.
const FILE: FileName = FileName::Journal { shard: ShardId(255), slot: 0 };
/// A run that takes longer has a disk that no figure is worth waiting for.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Overwrite a block of the file and make it durable.
    WriteSync,
    /// Read a block of the file.
    Read,
}

/// By which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskPath {
    /// The file executor of the shards.
    Reactor,
    /// Blocking pwrite, pread and fdatasync on a file opened with `O_DIRECT`.
    Plain,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// A directory on the disk; the file is removed afterwards.
    pub directory: PathBuf,
    /// The core that does it, where one is named.
    pub cpu: Option<usize>,
    /// What is measured.
    pub operation: DiskOperation,
    /// By which way.
    pub path: DiskPath,
    /// Bytes of one operation, a multiple of 4 KiB.
    pub bytes: usize,
    /// Operations that are measured, one after another.
    pub count: usize,
    /// Operations under way at once; 1 but for reads.
    pub depth: usize,
    /// TLS for the loop's port, which nobody connects to.
    pub tls: Arc<rustls::ServerConfig>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct DiskSamples {
    /// Nanoseconds of each operation; for [`DiskOperation::WriteSync`] write and sync together.
    pub total: Vec<u64>,
    /// Nanoseconds of each sync.
    pub sync: Vec<u64>,
    /// How long all of them took together.
    pub elapsed: Duration,
}

/// Overwrites or reads a zero-filled file of 64 MiB, hot: one operation follows the other.
///
/// # Errors
/// The directory cannot be written to, or the loop cannot be started.
pub fn measure_disk(config: &DiskConfig) -> Result<DiskSamples, FloorError> {
    assert!((config.bytes as u64).is_multiple_of(BLOCK_BYTES), "{} bytes are not whole blocks", config.bytes);
    assert!(0 < config.bytes && config.bytes as u64 <= FILE_BYTES, "{} bytes are not in the file", config.bytes);
    assert!(config.depth == 1 || config.operation == DiskOperation::Read, "writes are measured one at a time");
    match config.path {
        DiskPath::Reactor => by_reactor(config),
        DiskPath::Plain => Ok(by_system_calls(config)?),
    }
}

fn by_reactor(config: &DiskConfig) -> Result<DiskSamples, FloorError> {
    let world = World {
        data_dir: config.directory.clone(),
        cpus: config.cpu.into_iter().collect(),
        tls: Arc::clone(&config.tls),
        spin: Spin::Adaptive,
        reset_key: [0; 32],
        seed: [0; 32],
        connection_bytes: 64 << 20,
    };
    let sockets = Sockets::bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0)), 1)?;
    let (sender, receiver) = channel();
    let (operation, bytes, count, depth) = (config.operation, config.bytes, config.count, config.depth);
    let maker = move || DiskMachine::new(operation, bytes, count, depth, sender);
    let handle = start_machines(&world, sockets, vec![maker])?;
    let samples = receiver.recv_timeout(TIMEOUT);
    handle.join()?;
    match samples {
        Ok(samples) => Ok(samples?),
        Err(_) => Err(FloorError::Io(io::Error::from(io::ErrorKind::TimedOut))),
    }
}

/// Asks for one file effect after another and notes how long each took from its order to its completion.
struct DiskMachine {
    operation: DiskOperation,
    block: Bytes,
    count: usize,
    depth: usize,
    effects: VecDeque<Effect>,
    result: Sender<Result<DiskSamples, FileError>>,
    samples: DiskSamples,
    serial: u64,
    ordered: usize,
    /// When each operation that is under way was ordered, oldest first.
    begun: VecDeque<(IoId, MonotonicNanos)>,
    start: MonotonicNanos,
    phase: Phase,
    /// The moment of the current round.
    now: MonotonicNanos,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Making,
    Writing,
    Syncing { since: MonotonicNanos },
    Reading,
    Removing,
    Over,
}

impl DiskMachine {
    fn new(
        operation: DiskOperation,
        bytes: usize,
        count: usize,
        depth: usize,
        result: Sender<Result<DiskSamples, FileError>>,
    ) -> Self {
        let mut machine = Self {
            operation,
            block: Bytes::from(vec![0x5a; bytes]),
            count,
            depth: depth.max(1),
            effects: VecDeque::from([Effect::Ready]),
            result,
            samples: DiskSamples::default(),
            serial: 0,
            ordered: 0,
            begun: VecDeque::new(),
            start: MonotonicNanos(0),
            phase: Phase::Making,
            now: MonotonicNanos(0),
        };
        machine.order(FileOp::CreateZeroed { length: FILE_BYTES });
        machine
    }

    fn order(&mut self, op: FileOp) -> IoId {
        self.serial += 1;
        let id = IoId(self.serial);
        self.effects.push_back(Effect::File(FileEffect { id, file: FILE, op, urgency: Urgency::Now }));
        id
    }

    fn position(&self) -> u64 {
        let bytes = self.block.len() as u64;
        (self.ordered as u64 % (FILE_BYTES / bytes)) * bytes
    }

    /// Orders as much as may be under way, or ends.
    fn go_on(&mut self) {
        while self.begun.len() < self.depth && self.ordered < self.count {
            let position = self.position();
            let op = match self.operation {
                DiskOperation::WriteSync => FileOp::Write { position, pieces: vec![self.block.clone()] },
                DiskOperation::Read => {
                    FileOp::Read { position, length: u32::try_from(self.block.len()).expect("below 64 MiB") }
                }
            };
            let id = self.order(op);
            self.begun.push_back((id, self.now));
            self.ordered += 1;
        }
        if self.begun.is_empty() {
            self.samples.elapsed = self.now.since(self.start);
            self.phase = Phase::Removing;
            self.order(FileOp::Delete);
        }
    }

    fn note(&mut self, id: IoId) {
        if let Some(index) = self.begun.iter().position(|(begun, _)| *begun == id)
            && let Some((_, at)) = self.begun.remove(index)
        {
            self.samples.total.push(self.now.0 - at.0);
        }
    }

    fn on_done(&mut self, id: IoId, result: Result<FileOutcome, FileError>) {
        if let Err(error) = result {
            self.phase = Phase::Over;
            // Who measures may have given up waiting.
            drop(self.result.send(Err(error)));
            return;
        }
        match self.phase {
            Phase::Making => {
                self.start = self.now;
                self.phase = match self.operation {
                    DiskOperation::WriteSync => Phase::Writing,
                    DiskOperation::Read => Phase::Reading,
                };
                self.go_on();
            }
            Phase::Writing => {
                self.order(FileOp::Sync);
                self.phase = Phase::Syncing { since: self.now };
            }
            Phase::Syncing { since } => {
                self.samples.sync.push(self.now.0 - since.0);
                if let Some((_, at)) = self.begun.pop_front() {
                    self.samples.total.push(self.now.0 - at.0);
                }
                self.phase = Phase::Writing;
                self.go_on();
            }
            Phase::Reading => {
                self.note(id);
                self.go_on();
            }
            Phase::Removing => {
                self.phase = Phase::Over;
                // Who measures may have given up waiting.
                drop(self.result.send(Ok(std::mem::take(&mut self.samples))));
            }
            Phase::Over => {}
        }
    }
}

impl Machine for DiskMachine {
    fn handle(&mut self, now: Now, event: Event) {
        self.now = now.monotonic;
        match event {
            Event::File(done) => self.on_done(done.id, done.result),
            Event::Drain => self.effects.push_back(Effect::Drained),
            _ => {}
        }
    }

    fn finish_round(&mut self, _now: Now) {}

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<MonotonicNanos> {
        None
    }
}

/// Runs on a thread of its own, so that the caller keeps its core.
fn by_system_calls(config: &DiskConfig) -> io::Result<DiskSamples> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(cpu) = config.cpu {
                let mut set = CpuSet::new();
                set.set(cpu);
                sched_setaffinity(None, &set)?;
            }
            let path = config.directory.join(".floor");
            let result = overwrite(config, &path);
            std::fs::remove_file(&path)?;
            result
        });
        thread.join().map_err(|_| io::Error::other("the measuring thread panicked"))?
    })
}

fn overwrite(config: &DiskConfig, path: &std::path::Path) -> io::Result<DiskSamples> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let block = usize::try_from(BLOCK_BYTES).expect("4,096 fits");
    let mut memory = vec![0_u8; (1 << 20).max(config.bytes) + block];
    let skip = memory.as_ptr().align_offset(block);
    let aligned = &mut memory[skip..skip + (1 << 20).max(config.bytes)];
    for position in (0..FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&aligned[..1 << 20], position)?;
    }
    file.sync_all()?;
    let buffer = &mut aligned[..config.bytes];
    buffer.fill(0x5a);
    let slots = FILE_BYTES / config.bytes as u64;
    let mut samples = DiskSamples::default();
    let nanos = |since: Instant| u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let start = Instant::now();
    for index in 0..config.count as u64 {
        let position = (index % slots) * config.bytes as u64;
        let begun = Instant::now();
        match config.operation {
            DiskOperation::WriteSync => {
                file.write_all_at(buffer, position)?;
                let written = Instant::now();
                file.sync_data()?;
                samples.sync.push(nanos(written));
            }
            DiskOperation::Read => file.read_exact_at(buffer, position)?,
        }
        samples.total.push(nanos(begun));
    }
    samples.elapsed = start.elapsed();
    Ok(samples)
}
