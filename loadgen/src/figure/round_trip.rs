//! One small record there and its answer back, one at a time.

use std::time::{Duration, Instant};

use corelane::{Acks, PartitionIndex, Record};

use crate::measure::Latency;

/// Bytes of the record's value.
pub const ROUND_TRIP_BYTES: usize = 64;

/// Sends records to partition 0 of `topic` one after another for `duration`, each when the one before was acknowledged.
///
/// Closed loop: it says how long a round trip takes on an idle broker, and nothing about load.
///
/// # Errors
/// The server cannot be reached or refuses a record.
pub async fn measure(address: &str, topic: &str, acks: Acks, duration: Duration) -> anyhow::Result<Latency> {
    let client = super::connect(address).await?;
    let producer = client.producer(topic).acks(acks).open().await?;
    let value = [0x5a; ROUND_TRIP_BYTES];
    let mut latency = Latency::default();
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < duration {
        let sent = Instant::now();
        let record = Record::new(&value).partition(PartitionIndex(0));
        let ticket = producer.send(record).map_err(|error| anyhow::anyhow!("{error}"))?;
        match acks {
            Acks::Received => ticket.received().await?,
            Acks::Stored => ticket.stored().await?,
        };
        // The first ones find caches cold and connections new.
        if WARM_UP <= count {
            latency.record(sent.elapsed());
        }
        count += 1;
    }
    client.close().await;
    Ok(latency)
}

const WARM_UP: u32 = 50;
