//! What a bench needs around it: brokers and bare servers on one core, the generator on another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use corelane_broker::certificate;
use corelane_broker::config::Certificate;
use corelane_loadgen::server::{Server, ServerOptions, pin_this_thread};
use corelane_reactor::floor::{FloorServerConfig, serve};
use corelane_reactor::{Handle, Sockets, Spin};
use rustix::thread::sched_getaffinity;

use crate::claim::{Claim, Maker, remove};

/// How long a bare server may take to be there.
const READY: Duration = Duration::from_secs(20);

/// A directory for the data, and which core does what.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Everything is below it.
    pub(crate) directory: PathBuf,
    /// The core of what is measured; `None` where there is only one.
    pub(crate) server_cpu: Option<usize>,
    /// The core of the generator.
    pub(crate) client_cpu: Option<usize>,
}

impl Lab {
    /// Takes a directory and pins this process to its core.
    pub(crate) fn open(directory: Option<PathBuf>) -> anyhow::Result<Self> {
        let directory = match directory {
            Some(directory) => directory,
            None => cache_directory()?.join("bench"),
        };
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let cpus = cpus()?;
        let (server_cpu, client_cpu) = match cpus[..] {
            [server, .., client] => (Some(server), Some(client)),
            _ => (None, None),
        };
        if let Some(cpu) = client_cpu {
            pin_this_thread(cpu)?;
        }
        Ok(Self { directory, server_cpu, client_cpu })
    }

    /// The directory of one bench, without what an earlier one left in it.
    ///
    /// # Errors
    /// It is not one that a bench has made, or one is at work in it.
    pub(crate) fn claim(&self, bench: &str) -> anyhow::Result<Claim> {
        Claim::take(self.directory.join(bench), Maker::Bench)
    }

    /// How a broker with one shard on the server's core is started, with its data in `name`.
    pub(crate) fn broker(&self, name: &str) -> anyhow::Result<ServerOptions> {
        Ok(ServerOptions {
            program: std::env::current_exe().context("this program's own path is unknown")?,
            data: self.directory.join(name),
            shards: Some(1),
            cpu: self.server_cpu,
            // A bench has its own words; the broker only speaks up when something is wrong.
            arguments: vec!["--log".to_owned(), "warn".to_owned()],
        })
    }

    /// Starts a broker with fresh data.
    pub(crate) fn start_fresh(&self, name: &str) -> anyhow::Result<Server> {
        let options = self.broker(name)?;
        remove(&options.data)?;
        Server::start(&options)
    }

    /// A server without a broker behind it, by the broker's own loop on the broker's core.
    pub(crate) fn bare(&self) -> anyhow::Result<Bare> {
        let directory = self.directory.join("bare");
        std::fs::create_dir_all(&directory)?;
        let identity = certificate::identity(&Certificate::Development, &directory)?;
        let sockets = Sockets::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1)?;
        let address = sockets.first().context("one socket was asked for")?.local_address()?;
        let handle = serve(FloorServerConfig {
            directory,
            cpus: self.server_cpu.into_iter().collect(),
            sockets,
            tls: Arc::clone(&identity.tls),
            spin: Spin::Adaptive,
            partitions: 1,
            batch_records: 100,
            value_bytes: 100,
        })?;
        anyhow::ensure!(handle.wait_ready(READY)?, "the bare server was not ready after {READY:?}");
        Ok(Bare { handle, address: format!("corelane://{address}?pin={}", identity.fingerprint) })
    }
}

/// A server without a broker behind it.
#[derive(Debug)]
pub(crate) struct Bare {
    handle: Handle,
    /// Where the SDK finds it, with its certificate's fingerprint.
    pub(crate) address: String,
}

impl Bare {
    /// Ends it.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.handle.drain(READY)?;
        self.handle.join()?;
        Ok(())
    }
}

/// The cores that this process may use, in ascending order.
pub(crate) fn cpus() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("the allowed cores are unknown")?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// A directory on a real disk: direct I/O means nothing on a file system in memory, which /tmp may be.
pub(crate) fn cache_directory() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set; name a directory")?;
    Ok(home.join("corelane"))
}
