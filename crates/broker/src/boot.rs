//! The order of a start and of an end.
//!
//! ```text
//! start:  machine → data directory (lock, format) → certificate, tokens → admin socket → another number of shards?
//!         → incarnation counted → UDP sockets → shards recover → fingerprint → ready
//! end:    no new work → everything durable → marked clean → fingerprint and lock given back
//! ```

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use corelane_model::Incarnation;
use corelane_reactor::{Handle, ShardFailure};
use corelane_shard::{AdminAnswer, AdminQuery, Boot, ShardPhase, ShardStatus};

use crate::access::{TokenError, read_tokens};
use crate::admin::{About, Listener, Source, unhealthy};
use crate::certificate::{CertificateError, Identity, PublishedFingerprint, fingerprint_directory, identity};
use crate::config::{Access, Config, Machine};
use crate::data::{DataDir, DataError};
use crate::doctor::{self, Verdict};
use crate::layout::settle_layout;
use crate::moving::MovingError;
use crate::shards::Launch;

/// How long a start waits for a port that a broker before it may still hold.
const PORT_WAIT: Duration = Duration::from_secs(3);
/// How often it looks.
const PORT_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine lacks something.
    #[error("this machine cannot run a broker:\n{0}\n`corelane doctor` looks again")]
    Machine(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There is no usable certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// An address cannot be had.
    #[error("cannot listen on {protocol} {address}: {error}{}", in_use(error, option))]
    Listen {
        /// UDP or TCP.
        protocol: &'static str,
        /// The address.
        address: SocketAddr,
        /// The option that sets it.
        option: &'static str,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// The UDP sockets cannot be had.
    #[error(transparent)]
    Bind(#[from] corelane_reactor::BindError),
    /// The shards do not start.
    #[error(transparent)]
    Shards(#[from] corelane_reactor::StartError),
    /// A shard ended, or could not recover.
    #[error("the broker cannot start: {0}")]
    Failed(String),
    /// The state that was kept while the number of shards changed cannot be used.
    #[error(transparent)]
    Moving(#[from] MovingError),
    /// Somebody wanted the broker to stop before it was ready. Nothing is lost; the next start recovers.
    #[error("{0} before the broker was ready")]
    Unwanted(String),
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes")]
    Random,
}

fn in_use(error: &std::io::Error, option: &str) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                " (another program has it: stop that one, or give another port with {option}; port 0 takes a free one)"
            )
        }
        ErrorKind::AddrNotAvailable => format!(" (this machine does not have that address: see {option})"),
        ErrorKind::PermissionDenied => format!(" (ports below 1024 need a privilege: see {option})"),
        _ => String::new(),
    }
}

/// A broker that accepts clients. Dropping it without [`Running::stop`] is a crash as far as its data is concerned:
/// nothing that was stored is lost, and the next start recovers.
#[derive(Debug)]
pub struct Running {
    // In the order in which they go: first nobody is told any more where we are, last the lock.
    fingerprint: Option<PublishedFingerprint>,
    listener: Listener,
    shards: Arc<Shards>,
    data: DataDir,
    drain: Duration,
}

/// How a broker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything acknowledged is on disk and marked so.
    Clean,
    /// Not everything came to an end in time. What was acknowledged as stored is on disk; the next start recovers.
    Late(String),
}

/// The shards as the admin listener sees them.
#[derive(Debug)]
struct Shards {
    handle: Handle,
    count: usize,
    about: About,
}

impl Source for Shards {
    fn shards(&self) -> Vec<ShardStatus> {
        statuses(&self.handle)
    }

    fn shard_count(&self) -> usize {
        self.count
    }

    fn failure(&self) -> Option<String> {
        self.handle.failed().map(|failure| failure.to_string())
    }

    fn about(&self) -> &About {
        &self.about
    }
}

/// Starts a broker and returns when it accepts clients.
///
/// Call [`corelane_reactor::prepare_process`] before, while the process has one thread.
///
/// # Errors
/// The machine, the data directory or a setting does not let it; nothing runs then.
pub fn start(config: &Config) -> Result<Running, StartError> {
    start_unless(config, &|| None)
}

/// Whether somebody wants the broker to stop while it starts, and why.
pub(crate) type Unwanted<'a> = &'a dyn Fn() -> Option<String>;

/// [`start`], given up as soon as it is unwanted.
pub(crate) fn start_unless(config: &Config, unwanted: Unwanted<'_>) -> Result<Running, StartError> {
    examine(config)?;
    let random = u128::from_le_bytes(random()?);
    let mut data = DataDir::open(&config.data, config.shards(), random)?;
    data.check_journals()?;
    let Identity { tls, fingerprint, is_development } = identity(&config.certificate, data.path())?;
    let tokens = match &config.access {
        Access::Anybody => Vec::new(),
        Access::TokenFile(file) => read_tokens(file)?,
    };
    let admin = TcpListener::bind(config.admin).map_err(listen_error("TCP", config.admin, "--admin"))?;
    probe_udp(config.listen)?;
    settle_layout(config, &mut data, &tls, unwanted)?;
    let boots = vec![Boot::Serve; config.shards()];
    let launch = Launch { config, tls: &tls, listen: config.listen, tokens: &tokens, boots };
    let (handle, quic) = launch.run(&mut data)?;
    let about =
        About { quic, data: data.path().display().to_string(), cores: config.cores.clone(), started_ms: unix_millis() };
    let shards = Arc::new(Shards { handle, count: config.shards(), about });
    // The listener answers while the shards recover, so that a probe sees the difference between slow and dead.
    let listener = Listener::start(admin, &shards).map_err(listen_error("TCP", config.admin, "--admin"))?;
    wait_ready(&shards.handle, Duration::MAX, unwanted)?;
    if !data.manifest().has_served {
        data.update(|manifest| manifest.has_served = true)?;
    }
    let fingerprint = if is_development { publish(quic, &fingerprint) } else { None };
    Ok(Running { fingerprint, listener, shards, data, drain: config.drain })
}

impl Running {
    /// UDP address for clients.
    #[must_use]
    pub fn quic(&self) -> SocketAddr {
        self.shards.about.quic
    }

    /// TCP address of the admin listener.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.listener.address()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.count
    }

    /// Which start of the data directory this is.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.data.incarnation()
    }

    /// Waits this long for a shard to fail; a broker that lost a shard should stop.
    #[must_use]
    pub fn wait_failure(&self, timeout: Duration) -> Option<ShardFailure> {
        self.shards.handle.wait_failure(timeout)
    }

    /// What is wrong at the moment, a sentence each; the same as `/healthz` says.
    #[must_use]
    pub fn ailments(&self) -> Vec<String> {
        unhealthy(self.shards.as_ref())
    }

    /// Takes nothing new, makes everything durable, and ends.
    ///
    /// # Errors
    /// The clean end could not be noted; nothing is lost, but the next start recovers.
    pub fn stop(self) -> Result<Stopped, DataError> {
        let Self { fingerprint, listener, shards, mut data, drain } = self;
        drop(fingerprint);
        let drained = shards.handle.drain(drain);
        drop(listener);
        let shards = Arc::into_inner(shards).expect("the listener's threads have ended, nobody else knows the shards");
        let joined = shards.handle.join();
        match (drained, joined) {
            (Ok(true), Ok(())) => {
                data.update(|manifest| manifest.clean = true)?;
                Ok(Stopped::Clean)
            }
            (Ok(false), Ok(())) => Ok(Stopped::Late(format!("the shards did not end within {drain:?}"))),
            (Err(failure), _) | (_, Err(failure)) => Ok(Stopped::Late(failure.to_string())),
        }
    }
}

fn statuses(handle: &Handle) -> Vec<ShardStatus> {
    let answers = handle.admin(AdminQuery::Status).into_iter();
    answers
        .filter_map(|(_, answer)| match answer {
            AdminAnswer::Status(status) => Some(*status),
            AdminAnswer::Export(_) => None,
        })
        .collect()
}

/// Waits until every shard is ready, or drained by itself. How long recovery takes is bounded by the journals, so that
/// only a failure ends the wait, or whoever does not want the broker any more.
pub(crate) fn wait_ready(handle: &Handle, timeout: Duration, unwanted: Unwanted<'_>) -> Result<(), StartError> {
    /// How often a shard that reads its journal is asked whether it can.
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    let mut waited = Duration::ZERO;
    while waited < timeout {
        if let Some(reason) = unwanted() {
            return Err(StartError::Unwanted(reason));
        }
        match handle.wait_ready(LOOK_EVERY) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(failure) => return Err(StartError::Failed(failure.to_string())),
        }
        waited += LOOK_EVERY;
        for status in statuses(handle) {
            if let (ShardPhase::Recovering, Some(text)) = (status.phase, status.storage_failure) {
                return Err(StartError::Failed(format!("shard {} cannot recover: {text}", status.shard)));
            }
        }
    }
    Err(StartError::Failed(format!("the shards were not through after {timeout:?}")))
}

/// Refuses on what a broker cannot live with, warns about the rest.
fn examine(config: &Config) -> Result<(), StartError> {
    let findings = doctor::before_start(config, &Machine::this());
    let bad: Vec<String> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Bad)
        .map(|finding| format!("  {}: {}\n    → {}", finding.name, finding.found, finding.advice))
        .collect();
    if !bad.is_empty() {
        return Err(StartError::Machine(bad.join("\n")));
    }
    for finding in findings.iter().filter(|finding| finding.verdict == Verdict::Warning) {
        tracing::warn!("{}: {} → {}", finding.name, finding.found, finding.advice);
    }
    Ok(())
}

fn listen_error(
    protocol: &'static str,
    address: SocketAddr,
    option: &'static str,
) -> impl FnOnce(std::io::Error) -> StartError {
    move |error| StartError::Listen { protocol, address, option, error }
}

/// The shards' sockets share their port, which would let two brokers share it too: so somebody who asks for it alone must
/// get it first.
///
/// A broker that was killed a moment ago may still hold it: the kernel takes its rings apart after the process is gone, and
/// with them go the last references to its sockets (measured: some tens of milliseconds).
fn probe_udp(address: SocketAddr) -> Result<(), StartError> {
    if address.port() == 0 {
        return Ok(());
    }
    let begin = Instant::now();
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begin.elapsed() < PORT_WAIT => {
                std::thread::sleep(PORT_LOOK_EVERY);
            }
            outcome => return outcome.map(drop).map_err(listen_error("UDP", address, "--listen")),
        }
    }
}

/// Tells clients of this user on this machine the fingerprint; without it they need `?pin=`.
fn publish(quic: SocketAddr, fingerprint: &str) -> Option<PublishedFingerprint> {
    let pin = pinned_address(quic, fingerprint);
    let Some(directory) = fingerprint_directory() else {
        tracing::warn!("neither XDG_RUNTIME_DIR nor HOME is set: clients find this broker as {pin}");
        return None;
    };
    match PublishedFingerprint::write(&directory, quic.port(), fingerprint) {
        Ok(published) => {
            let others = if quic.ip().is_loopback() { "users" } else { "machines" };
            tracing::info!("development certificate; for other {others}: {pin}");
            Some(published)
        }
        Err(error) => {
            tracing::warn!(%error, directory = %directory.display(), "no fingerprint file: clients find this broker as {pin}");
            None
        }
    }
}

/// The address for clients that do not find the fingerprint by themselves.
fn pinned_address(quic: SocketAddr, fingerprint: &str) -> String {
    if quic.ip().is_unspecified() {
        // Which of this machine's addresses they reach is not for us to know.
        format!("corelane://HOST:{}?pin={fingerprint}", quic.port())
    } else {
        format!("corelane://{quic}?pin={fingerprint}")
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_nobody_wants_any_more_ends_with_the_reason() {
        corelane_reactor::prepare_process();
        let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/broker-tests");
        std::fs::create_dir_all(&target).unwrap();
        let directory = tempfile::tempdir_in(target).unwrap();
        let raw = crate::config::RawConfig {
            data: Some(directory.path().to_owned()),
            listen: Some(([127, 0, 0, 1], 0).into()),
            admin: Some(([127, 0, 0, 1], 0).into()),
            shards: Some(1),
            ..crate::config::RawConfig::default()
        };
        let config = Config::check(raw, &Machine::this()).unwrap();
        let outcome = start_unless(&config, &|| Some("SIGTERM arrived".to_owned()));
        let Err(StartError::Unwanted(reason)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason, "SIGTERM arrived");
    }

    #[test]
    fn an_address_that_is_every_address_is_not_told_to_clients() {
        let pinned = |address: &str| pinned_address(address.parse().unwrap(), "sha256:00");
        assert_eq!(pinned("0.0.0.0:7420"), "corelane://HOST:7420?pin=sha256:00");
        assert_eq!(pinned("[::1]:7420"), "corelane://[::1]:7420?pin=sha256:00");
    }
}
