//! What an idle partition costs in memory.

use serde::{Deserialize, Serialize};

use crate::figure::start::{create, fresh};
use crate::server::{Server, ServerOptions};

/// Resident sizes of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Partitions created.
    pub partitions: u32,
    /// Resident bytes with one empty topic of one partition.
    pub before_bytes: u64,
    /// Resident bytes with all of them.
    pub after_bytes: u64,
    /// The difference for each partition.
    pub bytes_per_partition: f64,
    /// Resident bytes after a restart with all of them.
    pub restarted_bytes: u64,
}

/// Creates one topic of `partitions` partitions on a fresh broker and compares resident sizes.
///
/// # Errors
/// The broker cannot be started or refuses the topic.
pub async fn measure(options: &ServerOptions, partitions: u32) -> anyhow::Result<Idle> {
    fresh(&options.data)?;
    let server = Server::start(options)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, "one", 1, None).await?;
    let before_bytes = server.resident_bytes()?;
    create(&address, "many", partitions, None).await?;
    let after_bytes = server.resident_bytes()?;
    server.stop()?;
    let server = Server::start(options)?;
    let restarted_bytes = server.resident_bytes()?;
    server.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^52")]
    let bytes_per_partition = after_bytes.saturating_sub(before_bytes) as f64 / f64::from(partitions.max(1));
    Ok(Idle { partitions, before_bytes, after_bytes, bytes_per_partition, restarted_bytes })
}
