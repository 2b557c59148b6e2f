//! A broker of our own, as a child process, for figures that need a fresh one, a pinned one, or one that dies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long a broker may take until it accepts, and until it ended.
const DEADLINE: Duration = Duration::from_secs(60);

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The program `corelane`.
    pub program: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// How many shards; `None` leaves it to the broker.
    pub shards: Option<u32>,
    /// The core that it is pinned to; `None` lets it have what this process has.
    pub cpu: Option<usize>,
    /// More arguments of `serve`.
    pub arguments: Vec<String>,
}

/// A running broker; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it takes QUIC.
    pub quic: SocketAddr,
    /// Where its admin listener is.
    pub admin: SocketAddr,
    /// From the start of the process to the line `ready`.
    pub ready_after: Duration,
}

impl Server {
    /// Starts a broker and waits until it accepts.
    ///
    /// # Errors
    /// It cannot be started, ended by itself, or did not become ready in time; its own words are on standard error.
    pub fn start(options: &ServerOptions) -> anyhow::Result<Self> {
        let mut command = Command::new(&options.program);
        command.arg("serve").arg("--data").arg(&options.data);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        if let Some(shards) = options.shards {
            command.arg("--shards").arg(shards.to_string());
        }
        command.args(&options.arguments).stdout(Stdio::piped()).stdin(Stdio::null());
        let started = Instant::now();
        let mut child = pinned(options.cpu, || command.spawn())
            .with_context(|| format!("cannot start {}", options.program.display()))?;
        let stdout = child.stdout.take().context("the broker's standard output is a pipe")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, quic: unset(), admin: unset(), ready_after: Duration::ZERO };
        let line = loop {
            match lines.recv_timeout(DEADLINE.saturating_sub(started.elapsed())) {
                Ok(line) if line.starts_with("ready ") => break line,
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the broker was not ready after {DEADLINE:?}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = server.child.wait()?;
                    bail!("the broker ended before it was ready: {status}");
                }
            }
        };
        server.ready_after = started.elapsed();
        server.quic = address(&line, "quic=")?;
        server.admin = address(&line, "admin=")?;
        Ok(server)
    }

    /// The broker's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it has drained.
    ///
    /// # Errors
    /// It did not end in time or not with exit code 0.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the broker ended with {status}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the broker had not ended {DEADLINE:?} after SIGTERM")
    }

    /// A metric of the broker, added up over its labels.
    ///
    /// # Errors
    /// The admin listener does not answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        metric(self.admin, name)
    }

    /// Resident bytes of the broker's process.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the status")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Processor time that the broker's process has taken, all threads together.
    ///
    /// # Errors
    /// The process is gone.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // "time on a processor, time waiting for one, slices": Documentation/scheduler/sched-stats of Linux.
            let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().context("schedstat is empty")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may be gone already; there is nobody to tell if not.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs `start` with this thread pinned to `cpu`, which a child process inherits, and gives the thread its cores back.
fn pinned<T>(cpu: Option<usize>, start: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    let Some(cpu) = cpu else { return start() };
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}

/// Pins the calling thread, and the threads that it starts from now on, to one core.
///
/// # Errors
/// The core does not exist or is not allowed.
pub fn pin_this_thread(cpu: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot pin this thread to core {cpu}"))
}

/// The bytes of all files below a directory, as the file system counts them, in blocks.
///
/// # Errors
/// The directory cannot be read.
pub fn disk_bytes(directory: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

/// A metric of the broker with this admin listener, added up over its labels.
///
/// # Errors
/// The admin listener does not answer.
pub fn metric(admin: SocketAddr, name: &str) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    anyhow::ensure!(text.starts_with("HTTP/1") && text.contains(" 200 "), "the admin listener answered {text:.80}");
    Ok(sum_metric(&text, name))
}

/// Adds up the samples of one metric in Prometheus text.
fn sum_metric(text: &str, name: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn unset() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn address(line: &str, name: &str) -> anyhow::Result<SocketAddr> {
    line.split(' ')
        .find_map(|word| word.strip_prefix(name))
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("the broker's line {line:?} has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read() {
        let line = "ready quic=127.0.0.1:7420 admin=127.0.0.1:7421 shards=2";
        assert_eq!(address(line, "quic=").unwrap().port(), 7420);
        assert_eq!(address(line, "admin=").unwrap().port(), 7421);
        assert!(address("ready", "quic=").is_err());
    }

    #[test]
    fn a_metric_is_added_up_over_its_labels() {
        let text = "# HELP a_total x\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\na_total_more 9\nb 1\n";
        assert!((sum_metric(text, "a_total") - 7.0).abs() < 1e-9);
    }

    #[test]
    fn a_program_that_ends_is_an_error() {
        let options = ServerOptions {
            program: PathBuf::from("/bin/false"),
            data: PathBuf::from("/nonexistent"),
            shards: Some(1),
            cpu: None,
            arguments: Vec::new(),
        };
        assert!(Server::start(&options).unwrap_err().to_string().contains("ended before it was ready"));
    }
}
