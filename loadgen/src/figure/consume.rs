//! How many bytes of record batches a second one reader takes.

use std::time::{Duration, Instant};

use anyhow::Context;
use corelane::{PartitionIndex, StartAt};

/// What a reader got.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Consumed {
    /// Records.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// From the subscription to the last record.
    pub elapsed: Duration,
}

impl Consumed {
    /// Bytes a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bytes of a run stay below 2^52")]
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Reads partition 0 of `topic` from its beginning until `records` were seen or `duration` is over, whatever comes first.
///
/// # Errors
/// The server cannot be reached, or ends the subscription.
pub async fn measure(address: &str, topic: &str, records: u64, duration: Duration) -> anyhow::Result<Consumed> {
    let client = super::connect(address).await?;
    let start = Instant::now();
    let mut consumer = client
        .consumer(topic)
        .partition(PartitionIndex(0))
        .from(StartAt::Earliest)
        .credit_bytes(corelane_model::limits::SUBSCRIPTION_CREDIT_BYTES_MAX / 4)
        .open()
        .await?;
    let mut consumed = Consumed::default();
    while consumed.records < records && start.elapsed() < duration {
        let left = duration.saturating_sub(start.elapsed());
        let Ok(next) = tokio::time::timeout(left, consumer.next()).await else { break };
        let batch = next.context("the consumer ended")??;
        consumed.records += batch.iter().filter(|record| record.value.is_some()).count() as u64;
        consumed.bytes += batch.records().bytes().len() as u64;
        consumed.elapsed = start.elapsed();
    }
    drop(consumer);
    client.close().await;
    Ok(consumed)
}
