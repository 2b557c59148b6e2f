//! How long a broker takes from its start to `ready` after it was killed with a full journal.

use std::path::Path;
use std::time::Duration;

use corelane::{TopicClass, TopicSettings};
use serde::{Deserialize, Serialize};

use crate::figure::ingest;
use crate::server::{Server, ServerOptions, disk_bytes};

/// Cold starts of one amount of data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Bytes of values that were written before.
    pub written_bytes: u64,
    /// Bytes on disk, journals included.
    pub disk_bytes: u64,
    /// Seconds to `ready` of each start, each after a `kill -9`.
    pub ready_s: Vec<f64>,
}

/// Writes `bytes` to a fresh broker, kills it at once, so that its journal is as full as it gets, and starts it again
/// `rounds` times, each time with another `kill -9`.
///
/// # Errors
/// The broker cannot be started, or refuses what is written.
pub async fn measure(options: &ServerOptions, bytes: u64, rounds: u32) -> anyhow::Result<ColdStart> {
    fresh(&options.data)?;
    let server = Server::start(options)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, "start", 1, None).await?;
    let written_bytes = ingest::fill(&address, "start", bytes).await? * ingest::RECORD_BYTES as u64;
    server.kill()?;
    let disk_bytes = disk_bytes(&options.data)?;
    let mut ready_s = Vec::new();
    for _ in 0..rounds {
        let server = Server::start(options)?;
        ready_s.push(server.ready_after.as_secs_f64());
        server.kill()?;
    }
    Ok(ColdStart { written_bytes, disk_bytes, ready_s })
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
