//! How long a broker takes from its start to `ready` after it was killed with a full journal.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use corelane::{TopicClass, TopicSettings};
use corelane_model::limits::{JOURNAL_FILE_BYTES, JOURNAL_FILES_DEFAULT};
use serde::{Deserialize, Serialize};

use crate::figure::ingest;
use crate::server::{Server, ServerOptions, disk_bytes};

/// Journal files of the broker under measurement. Settling begins when a quarter of the ring is full, so that the journal of
/// a broker under load is never full to its bound; a quarter of this ring is more than all of the default one holds.
const JOURNAL_FILES: u32 = 5 * JOURNAL_FILES_DEFAULT;
/// Memory for each byte of the journal: enough that it is the journal's fill, not the memory's, at which settling begins.
const MEMORY_PART: u64 = 4;
/// What the journal must hold at each start: as much as a default journal can.
const JOURNAL_BYTES_MIN: u64 = JOURNAL_FILES_DEFAULT as u64 * JOURNAL_FILE_BYTES;

/// Cold starts of one amount of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Bytes of values that were written before.
    pub written_bytes: u64,
    /// Bytes on disk, journals included.
    pub disk_bytes: u64,
    /// Bytes that are in use in the journal's ring, and so were read at a start: the least of all starts.
    pub journal_bytes: u64,
    /// As many as a journal of default size has room for.
    pub journal_default_bytes: u64,
    /// Seconds to `ready` of each start, each after a `kill -9`.
    pub ready_s: Vec<f64>,
}

/// Writes `bytes` to a fresh broker, kills it at once, so that its journal holds at least what a default one has room for,
/// and starts it again `rounds` times, each time with another `kill -9`.
///
/// # Errors
/// The broker cannot be started, or refuses what is written; the journal held less than it should.
pub async fn measure(options: &ServerOptions, bytes: u64, rounds: u32) -> anyhow::Result<ColdStart> {
    fresh(&options.data)?;
    let options = &with_large_journal(options);
    let server = Server::start(options)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, "start", 1, None).await?;
    let written_bytes = ingest::fill(&address, "start", bytes).await? * ingest::RECORD_BYTES as u64;
    server.kill()?;
    let disk_bytes = disk_bytes(&options.data)?;
    let mut ready_s = Vec::new();
    let mut journal_bytes = u64::MAX;
    for _ in 0..rounds {
        let server = Server::start(options)?;
        ready_s.push(server.ready_after.as_secs_f64());
        journal_bytes = journal_bytes.min(journal_used(&server)?);
        server.kill()?;
    }
    ensure!(
        JOURNAL_BYTES_MIN <= journal_bytes,
        "the journal held {} MiB at a start and should hold {} MiB: {} MiB written are too little",
        journal_bytes >> 20,
        JOURNAL_BYTES_MIN >> 20,
        written_bytes >> 20
    );
    Ok(ColdStart { written_bytes, disk_bytes, journal_bytes, journal_default_bytes: JOURNAL_BYTES_MIN, ready_s })
}

/// The same broker with a journal of [`JOURNAL_FILES`] and the memory that goes with it.
fn with_large_journal(options: &ServerOptions) -> ServerOptions {
    let mut options = options.clone();
    let memory_mib = (u64::from(JOURNAL_FILES) * JOURNAL_FILE_BYTES * MEMORY_PART) >> 20;
    options.arguments.extend(["--journal-files".to_owned(), JOURNAL_FILES.to_string()]);
    options.arguments.extend(["--memory".to_owned(), format!("{memory_mib}MiB")]);
    options
}

/// Bytes in use in the journal of a broker with one shard.
fn journal_used(server: &Server) -> anyhow::Result<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a gauge from 0 to 1,000")]
    let permille = server.metric("corelane_storage_journal_fill_permille")? as u64;
    Ok(u64::from(JOURNAL_FILES) * JOURNAL_FILE_BYTES * permille / 1000)
}

/// Removes what an earlier run left.
pub(crate) fn fresh(data: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Creates a durable topic.
pub(crate) async fn create(
    address: &str,
    topic: &str,
    partitions: u32,
    retention_bytes: Option<u64>,
) -> anyhow::Result<()> {
    let client = super::connect(address).await?;
    let settings = TopicSettings { class: TopicClass::Durable, retention_bytes, ..TopicSettings::default() };
    client.admin().create_topic(topic, partitions, settings).await?;
    client.close().await;
    Ok(())
}

/// How long a figure waits for something that should be there soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
