//! `kill -9` under load, again and again: nothing that was acknowledged as stored is lost, nothing is there twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use corelane::{Acks, Isolation, Options, PartitionIndex, Record, StartAt};
use serde::{Deserialize, Serialize};

use crate::figure::start::{PATIENCE, create, fresh};
use crate::server::{Server, ServerOptions};
use crate::stamp::{Stamp, StreamIndex, read_message, write_message};
use corelane_model::MonotonicNanos;

/// Partitions under load.
const PARTITIONS: u32 = 8;
const TOPIC: &str = "crash";
/// Records in flight at once.
const IN_FLIGHT: usize = 2_000;
/// How long the load lasts before the broker is killed: it varies so that the kill meets every phase.
const LOAD: std::ops::Range<u64> = 80..400;

/// What many kills did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crashes {
    /// Kills.
    pub rounds: u32,
    /// Records that were acknowledged as stored, over all rounds.
    pub stored: u64,
    /// Records that were found, over all rounds.
    pub found: u64,
    /// Records acknowledged as stored that were not found.
    pub lost: u64,
    /// Records found twice.
    pub duplicated: u64,
    /// Records found behind a later one of their stream.
    pub reordered: u64,
    /// Offsets that were skipped.
    pub gaps: u64,
    /// Records whose bytes were wrong.
    pub corrupt: u64,
}

/// The records of one producer on one partition that were acknowledged as stored, by sequence.
type Stored = BTreeMap<u32, u64>;

/// Kills a broker `rounds` times under load and reads everything back each time.
///
/// # Errors
/// The broker cannot be started again, or does not answer. Losses are no error but counted.
pub async fn measure(options: &ServerOptions, rounds: u32, show: impl Fn(&Crashes)) -> anyhow::Result<Crashes> {
    fresh(&options.data)?;
    let mut crashes = Crashes::default();
    let mut all: Vec<Stored> = Vec::new();
    for round in 0..rounds {
        let server = Server::start(options)?;
        let address = format!("corelane://{}", server.quic);
        if round == 0 {
            create(&address, TOPIC, PARTITIONS, None).await?;
        } else {
            verify(&address, &all, &mut crashes).await?;
        }
        let span = LOAD.end - LOAD.start;
        let load = Duration::from_millis(LOAD.start + u64::from(round) * 97 % span);
        all.extend(load_and_kill(server, &address, round, load).await?);
        crashes.rounds += 1;
        crashes.stored = all.iter().map(|stored| stored.len() as u64).sum();
        show(&crashes);
    }
    let server = Server::start(options)?;
    verify(&format!("corelane://{}", server.quic), &all, &mut crashes).await?;
    server.stop()?;
    Ok(crashes)
}

/// Produces until the broker is killed; answers what it had acknowledged as stored by then.
async fn load_and_kill(server: Server, address: &str, round: u32, load: Duration) -> anyhow::Result<Vec<Stored>> {
    // A delivery that the dead broker cannot answer any more is to fail soon.
    let options = Options { delivery_timeout: Duration::from_secs(2), ..Options::default() };
    let client = corelane::connect_with(address, options).await?;
    let producer = client.producer(TOPIC).acks(Acks::Stored).open().await?;
    let is_dead = Arc::new(AtomicBool::new(false));
    let killer = tokio::task::spawn_blocking({
        let is_dead = Arc::clone(&is_dead);
        move || {
            std::thread::sleep(load);
            let killed = server.kill();
            is_dead.store(true, Ordering::Release);
            killed
        }
    });
    let mut stored = vec![Stored::new(); PARTITIONS as usize];
    let mut tickets = std::collections::VecDeque::new();
    let mut message = Vec::new();
    let mut sequence = 0;
    while !is_dead.load(Ordering::Acquire) {
        for partition in 0..PARTITIONS {
            let stream = StreamIndex(round * PARTITIONS + partition);
            write_message(&mut message, stream, Stamp { sequence, due: MonotonicNanos(0) }, 64);
            let key = stream.to_key();
            let record = Record::new(&message).key(&key).partition(PartitionIndex(partition));
            if let Ok(ticket) = producer.send(record) {
                tickets.push_back((partition, sequence, ticket));
            }
        }
        sequence += 1;
        while IN_FLIGHT < tickets.len() && !is_dead.load(Ordering::Acquire) {
            take_known(&mut tickets, &mut stored);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        tokio::task::yield_now().await;
    }
    killer.await??;
    take_known(&mut tickets, &mut stored);
    drop(producer);
    client.close().await;
    Ok(stored)
}

fn take_known(tickets: &mut std::collections::VecDeque<(u32, u32, corelane::Ticket)>, stored: &mut [Stored]) {
    tickets.retain(|(partition, sequence, ticket)| match ticket.try_stored() {
        Some(Ok(delivered)) => {
            stored[*partition as usize].insert(*sequence, delivered.offset.0);
            false
        }
        Some(Err(_)) => false,
        None => true,
    });
}

/// Reads every partition from its beginning to its end and holds it against what was acknowledged.
async fn verify(address: &str, all: &[Stored], crashes: &mut Crashes) -> anyhow::Result<()> {
    let client = super::connect(address).await?;
    crashes.found = 0;
    for partition in 0..PARTITIONS {
        let index = PartitionIndex(partition);
        let end =
            client.admin().find_offset(TOPIC, index, StartAt::Latest, Isolation::Uncommitted).await?.high_watermark;
        let mut consumer = client.consumer(TOPIC).partition(index).from(StartAt::Earliest).open().await?;
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seen: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let mut next = 0;
        let start = Instant::now();
        while next < end.0 {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let batch = tokio::time::timeout(left, consumer.next()).await.with_context(|| {
                format!("partition {partition} was not read to its end at {end} within {PATIENCE:?}; at {next}")
            })?;
            for record in &batch.context("the consumer ended")?? {
                crashes.gaps += u64::from(record.offset.0 != next);
                next = record.offset.0 + 1;
                let stream = record.key.and_then(StreamIndex::from_key);
                let stamp = stream.and_then(|stream| read_message(stream, record.value?).ok());
                let (Some(stream), Some(stamp)) = (stream, stamp) else {
                    crashes.corrupt += 1;
                    continue;
                };
                crashes.found += 1;
                crashes.duplicated += u64::from(seen.insert((stream.0, stamp.sequence), record.offset.0).is_some());
                let before = last.insert(stream.0, stamp.sequence);
                crashes.reordered += u64::from(before.is_some_and(|before| stamp.sequence < before));
            }
        }
        for (stream, stored) in (0_u32..).zip(all).filter(|(stream, _)| stream % PARTITIONS == partition) {
            let missing = stored.iter().filter(|&(&sequence, offset)| seen.get(&(stream, sequence)) != Some(offset));
            crashes.lost += missing.count() as u64;
        }
    }
    client.close().await;
    Ok(())
}
