//! From what a person wrote to what a broker runs with.

mod machine;
mod problem;
mod raw;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use corelane_model::limits::{
    JOURNAL_FILE_BYTES, JOURNAL_FILES_DEFAULT, JOURNAL_FILES_MAX, JOURNAL_FILES_MIN, SHARDS_MAX,
};

pub use machine::Machine;
pub use problem::{Problem, Problems};
pub use raw::{FileError, ParseError, RawConfig, SETTINGS, Setting, reference};

use crate::quantity::ByteSize;

/// Port for clients when nothing else is said.
pub const LISTEN_PORT_DEFAULT: u16 = 7420;
/// Port of the admin listener when nothing else is said.
pub const ADMIN_PORT_DEFAULT: u16 = 7421;
/// A shard's part of the memory when nothing else is said is at most this.
const SHARD_MEMORY_DEFAULT_MAX: u64 = 1 << 30;
/// Time for a shutdown when nothing else is said.
const DRAIN_DEFAULT: Duration = Duration::from_secs(20);
/// Of a shard's memory, at most one part in this many is the journal's: what is not settled stays in memory, and the
/// rest is for reads, sessions and the topics themselves.
const JOURNAL_MEMORY_PART: u64 = 2;
/// Memory of a shard at least: its smallest journal must fit.
pub const SHARD_MEMORY_MIN: u64 = JOURNAL_FILES_MIN as u64 * JOURNAL_FILE_BYTES * JOURNAL_MEMORY_PART;

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody who reaches the port.
    Anybody,
    /// Whoever shows a token of this file.
    TokenFile(PathBuf),
}

/// Which certificate the broker shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// One that the broker made for itself; clients on the same machine find its fingerprint by themselves.
    Development,
    /// The operator's.
    Files {
        /// The chain, PEM.
        chain: PathBuf,
        /// The private key, PEM.
        key: PathBuf,
    },
}

/// What a broker runs with: every value is set, in bounds, and fits the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// UDP address for clients; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TCP address of the admin listener; port 0 takes a free one.
    pub admin: SocketAddr,
    /// The core of each shard, so also the number of shards: 1 to [`SHARDS_MAX`].
    pub cores: Vec<usize>,
    /// Memory of one shard, in bytes.
    pub shard_memory_bytes: u64,
    /// Journal files of one shard; half of its memory holds them all.
    pub journal_files: u32,
    /// Who may connect.
    pub access: Access,
    /// Which certificate is shown.
    pub certificate: Certificate,
    /// Time from the first signal until the process ends anyway.
    pub drain: Duration,
    /// Directives for the log.
    pub log: String,
    /// What works but deserves a line in the log.
    pub warnings: Vec<String>,
}

impl Config {
    /// Holds the settings against each other and against the machine, and fills in what was left out.
    ///
    /// # Errors
    /// Everything that does not fit, at once.
    pub fn check(raw: RawConfig, machine: &Machine) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let cores = check_cores(&raw, machine, &mut problems, &mut warnings);
        let shards = cores.len().max(1) as u64;
        let shard_memory_bytes = check_memory(raw.memory, shards, machine, &mut problems);
        let journal_files = check_journal(raw.journal_files, shard_memory_bytes, &mut problems);
        let (listen, admin) = check_addresses(&raw, &mut problems);
        let access = check_access(&raw, listen, &mut problems);
        let certificate = match (raw.tls_certificate, raw.tls_key) {
            (Some(chain), Some(key)) => Certificate::Files { chain, key },
            (None, None) => Certificate::Development,
            (chain, _) => {
                let (found, missing) =
                    if chain.is_some() { ("tls_certificate", "tls_key") } else { ("tls_key", "tls_certificate") };
                problems.push(Problem::HalfCertificate { found, missing });
                Certificate::Development
            }
        };
        let drain = raw.drain.map_or(DRAIN_DEFAULT, |span| span.0);
        if drain.is_zero() {
            problems.push(Problem::NoDrain);
        }
        let data = raw.data.or_else(|| machine.data_home.as_ref().map(|home| home.join("corelane")));
        if data.is_none() {
            problems.push(Problem::NoData);
        }
        let log = raw.log.unwrap_or_else(|| "info".to_owned());
        problems.extend(crate::log::check(&log).err().map(Problem::Log));
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let data = data.expect("a missing data directory is a problem");
        let config = Self {
            data,
            listen,
            admin,
            cores,
            shard_memory_bytes,
            journal_files,
            access,
            certificate,
            drain,
            log,
            warnings,
        };
        Ok(config)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.cores.len()
    }
}

fn check_cores(
    raw: &RawConfig,
    machine: &Machine,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Vec<usize> {
    let shards = raw.shards.or_else(|| raw.cores.as_ref().map(Vec::len)).unwrap_or_else(|| machine.shards_default());
    if shards == 0 || SHARDS_MAX < shards {
        problems.push(Problem::Shards { shards, most: SHARDS_MAX });
        return Vec::new();
    }
    if let Some(cores) = &raw.cores {
        if cores.len() != shards {
            problems.push(Problem::CoresAndShards { cores: cores.len(), shards });
        }
        for &core in cores.iter().filter(|core| !machine.cores.contains(core)) {
            problems.push(Problem::Core { core, allowed: machine.cores.clone() });
        }
        for &core in cores.iter().collect::<BTreeSet<_>>() {
            let times = cores.iter().filter(|&&listed| listed == core).count();
            if 1 < times {
                problems.push(Problem::CoreTwice { core, times });
            }
        }
    }
    let pool = raw.cores.as_ref().unwrap_or(&machine.cores);
    if let Some(quota) = machine.quota_cores.filter(|&quota| quota < shards) {
        warnings.push(format!(
            "{shards} shards share a control group's quota of {quota} cores: they will be throttled; ask for fewer shards \
             or raise cpu.max"
        ));
    }
    if pool.len() < shards {
        warnings.push(format!(
            "{shards} shards on {} cores: shards that share a core wait for each other in steps of milliseconds",
            pool.len()
        ));
    }
    pool.iter().copied().cycle().take(if pool.is_empty() { 0 } else { shards }).collect()
}

fn check_memory(asked: Option<ByteSize>, shards: u64, machine: &Machine, problems: &mut Vec<Problem>) -> u64 {
    let Some(memory) = asked else {
        return (machine.memory_bytes / 4 / shards).clamp(SHARD_MEMORY_MIN, SHARD_MEMORY_DEFAULT_MAX);
    };
    if memory.0 / shards < SHARD_MEMORY_MIN {
        let least = ByteSize(SHARD_MEMORY_MIN.saturating_mul(shards));
        problems.push(Problem::MemoryTooSmall { memory, shards, least });
    }
    if machine.memory_bytes < memory.0 {
        problems.push(Problem::MemoryTooLarge { memory, most: ByteSize(machine.memory_bytes) });
    }
    memory.0 / shards
}

fn check_journal(asked: Option<u32>, shard_memory_bytes: u64, problems: &mut Vec<Problem>) -> u32 {
    let fit = shard_memory_bytes / JOURNAL_MEMORY_PART / JOURNAL_FILE_BYTES;
    let fit = u32::try_from(fit).unwrap_or(u32::MAX).max(JOURNAL_FILES_MIN);
    let Some(files) = asked else { return JOURNAL_FILES_DEFAULT.min(fit) };
    if !(JOURNAL_FILES_MIN..=JOURNAL_FILES_MAX).contains(&files) {
        problems.push(Problem::JournalFiles { files, least: JOURNAL_FILES_MIN, most: JOURNAL_FILES_MAX });
    } else if fit < files {
        let journal = ByteSize(u64::from(files) * JOURNAL_FILE_BYTES);
        let needed = ByteSize(journal.0 * JOURNAL_MEMORY_PART);
        problems.push(Problem::JournalAndMemory { files, journal, needed, memory: ByteSize(shard_memory_bytes) });
    }
    files
}

fn check_addresses(raw: &RawConfig, problems: &mut Vec<Problem>) -> (SocketAddr, SocketAddr) {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listen = raw.listen.unwrap_or_else(|| SocketAddr::new(loopback, LISTEN_PORT_DEFAULT));
    let admin = raw.admin.unwrap_or_else(|| SocketAddr::new(loopback, ADMIN_PORT_DEFAULT));
    if !admin.ip().is_loopback() && raw.insecure_admin != Some(true) {
        problems.push(Problem::AdminBeyondLoopback { admin });
    }
    (listen, admin)
}

fn check_access(raw: &RawConfig, listen: SocketAddr, problems: &mut Vec<Problem>) -> Access {
    let is_insecure = raw.insecure_no_auth == Some(true);
    match &raw.token_file {
        Some(file) => {
            if is_insecure {
                problems.push(Problem::TokenAndInsecure { file: file.clone() });
            }
            Access::TokenFile(file.clone())
        }
        None => {
            if !listen.ip().is_loopback() && !is_insecure {
                problems.push(Problem::ListenBeyondLoopback { listen });
            }
            Access::Anybody
        }
    }
}

#[cfg(test)]
mod tests;
