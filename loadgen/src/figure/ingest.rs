//! How many records a second one producer gets acknowledged, in batches of 100 records of 100 bytes.

use std::time::{Duration, Instant};

use corelane::{Acks, PartitionIndex, Record, SendError};

/// Bytes of a record's value.
pub const RECORD_BYTES: usize = 100;
/// Records of a batch.
pub const BATCH_RECORDS: u32 = 100;

/// Sends to partition 0 of `topic` for `duration` as fast as the send buffer takes it, and answers records acknowledged a
/// second, counted until the last of them.
///
/// # Errors
/// The server cannot be reached, or a record was not delivered.
pub async fn measure(address: &str, topic: &str, acks: Acks, duration: Duration) -> anyhow::Result<f64> {
    let client = super::connect(address).await?;
    let producer = client.producer(topic).acks(acks).batch_records(BATCH_RECORDS).open().await?;
    let value = [0x5a; RECORD_BYTES];
    let record = || Record::new(&value).partition(PartitionIndex(0));
    let start = Instant::now();
    let mut sent = 0_u64;
    while start.elapsed() < duration {
        for _ in 0..BATCH_RECORDS {
            match producer.send_detached(record()) {
                Ok(()) => {}
                Err(SendError::Full(record)) => {
                    producer
                        .reserve(&record)
                        .await
                        .send_detached(record)
                        .map_err(|error| anyhow::anyhow!("{error}"))?;
                }
                Err(error @ SendError::Refused(_)) => anyhow::bail!("{error}"),
            }
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    producer.flush().await;
    let elapsed = start.elapsed();
    let failed = client.stats().detached_failed;
    client.close().await;
    anyhow::ensure!(failed == 0, "{failed} of {sent} records were not delivered");
    #[expect(clippy::cast_precision_loss, reason = "counts of a run stay below 2^52")]
    let rate = sent as f64 / elapsed.as_secs_f64();
    Ok(rate)
}

/// Writes at least `bytes` of values to `topic` and returns when all is acknowledged as stored; answers the records.
///
/// # Errors
/// As [`measure`].
pub async fn fill(address: &str, topic: &str, bytes: u64) -> anyhow::Result<u64> {
    let client = super::connect(address).await?;
    let producer = client.producer(topic).acks(Acks::Stored).batch_records(BATCH_RECORDS).open().await?;
    let value = [0x5a; RECORD_BYTES];
    let records = bytes.div_ceil(RECORD_BYTES as u64);
    for n in 0..records {
        let record = Record::new(&value).partition(PartitionIndex(0));
        if let Err(error) = producer.send_detached(record) {
            let SendError::Full(record) = error else { anyhow::bail!("{error}") };
            let permit = producer.reserve(&record).await;
            permit.send_detached(record).map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        if n % u64::from(BATCH_RECORDS) == 0 {
            tokio::task::yield_now().await;
        }
    }
    producer.flush().await;
    let failed = client.stats().detached_failed;
    client.close().await;
    anyhow::ensure!(failed == 0, "{failed} of {records} records were not delivered");
    Ok(records)
}
