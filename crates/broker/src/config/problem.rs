//! What does not fit together in a configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::log::LogError;
use crate::quantity::ByteSize;

/// One thing that does not fit; the text names every value that takes part and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The number of shards is out of bounds.
    #[error("shards = {shards} is not between 1 and {most}")]
    Shards {
        /// What was asked for.
        shards: usize,
        /// The limit.
        most: usize,
    },
    /// The two settings disagree.
    #[error(
        "cores lists {cores} cores, but shards = {shards}: list one core for each shard, or leave one of the two out"
    )]
    CoresAndShards {
        /// How many cores are listed.
        cores: usize,
        /// The number of shards.
        shards: usize,
    },
    /// A core that the process may not use.
    #[error("core {core} in cores is not among those that this process may use: {allowed:?}")]
    Core {
        /// The core.
        core: usize,
        /// Those that the affinity allows.
        allowed: Vec<usize>,
    },
    /// A core that is listed more than once.
    #[error(
        "core {core} is listed {times} times in cores: shards that share a core wait for each other; list each once"
    )]
    CoreTwice {
        /// The core.
        core: usize,
        /// How often it is listed.
        times: usize,
    },
    /// Too little for the shards.
    #[error("memory = {memory} is too small for {shards} shards: they need {least} at least")]
    MemoryTooSmall {
        /// What was asked for.
        memory: ByteSize,
        /// The number of shards.
        shards: u64,
        /// What they need.
        least: ByteSize,
    },
    /// More than there is.
    #[error("memory = {memory} is more than the {most} that this process may use")]
    MemoryTooLarge {
        /// What was asked for.
        memory: ByteSize,
        /// What there is.
        most: ByteSize,
    },
    /// The number of journal files is out of bounds.
    #[error("journal_files = {files} is not between {least} and {most}")]
    JournalFiles {
        /// What was asked for.
        files: u32,
        /// The lower limit.
        least: u32,
        /// The upper limit.
        most: u32,
    },
    /// The journal's records would not fit into memory.
    #[error(
        "journal_files = {files} makes {journal} of journal for each shard, which needs {needed} of memory; a shard has \
         {memory}: raise memory or lower journal_files"
    )]
    JournalAndMemory {
        /// What was asked for.
        files: u32,
        /// Their bytes.
        journal: ByteSize,
        /// Memory that a shard would need.
        needed: ByteSize,
        /// Memory that a shard has.
        memory: ByteSize,
    },
    /// Open to the world without a word about who may come.
    #[error(
        "listen = {listen} is beyond loopback: set token_file (--token-file) so that clients must show a token, or \
         insecure_no_auth (--insecure-no-auth) to let anybody in"
    )]
    ListenBeyondLoopback {
        /// The address.
        listen: SocketAddr,
    },
    /// The admin listener would be open to the world.
    #[error(
        "admin = {admin} is beyond loopback and asks nobody who they are: set insecure_admin (--insecure-admin) if that is meant"
    )]
    AdminBeyondLoopback {
        /// The address.
        admin: SocketAddr,
    },
    /// The two settings contradict each other.
    #[error("token_file = {} and insecure_no_auth contradict each other: leave one out", file.display())]
    TokenAndInsecure {
        /// The file.
        file: PathBuf,
    },
    /// One of a pair.
    #[error("{found} is set and {missing} is not: set both, or neither for a development certificate")]
    HalfCertificate {
        /// The one that is there.
        found: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A shutdown without time.
    #[error("drain = 0 leaves a shutdown no time to make records durable; 20s is the default")]
    NoDrain,
    /// The log would not know what to write.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Nowhere to put data.
    #[error("no data directory: set data, since neither XDG_DATA_HOME nor HOME is set")]
    NoData,
}

/// Everything that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration does not fit together:")?;
        for problem in &self.0 {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
