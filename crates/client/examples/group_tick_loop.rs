//! A game server's loop at 60 Hz as a member of a group: several servers share the matches, and each tick takes what has
//! come without waiting. A server that takes a match over gets what the one before left for it:
//! `cargo run -p corelane --example group_tick_loop`. It leaves after a minute, or when it is interrupted.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corelane::{Event, ResetPolicy, TopicPartition};
use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);
const TICKS: u32 = 3_600;
/// What one tick takes at most: the rest waits for the next.
const EVENTS_OF_TICK: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    let mut consumer = client
        .group("servers")
        .topics(["match-inputs"])
        .reset(ResetPolicy::Latest)
        .session_timeout(Duration::from_secs(2))
        .join()
        .await?;
    // What each partition has come to: the state that is handed over.
    let mut states: BTreeMap<Arc<TopicPartition>, u64> = BTreeMap::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    for _ in 0..TICKS {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupted => break,
        }
        let mut going = Vec::new();
        for event in consumer.drain(EVENTS_OF_TICK) {
            match event? {
                Event::Batch(batch) => {
                    *states.entry(Arc::clone(batch.topic_partition())).or_default() += batch.len() as u64;
                }
                Event::Assigned(assigned) => {
                    for one in assigned {
                        let state = one.blob.and_then(|blob| Some(u64::from_le_bytes(blob[..].try_into().ok()?)));
                        let state = state.unwrap_or_default();
                        println!("{} is ours, with {state} inputs", one.partition);
                        states.insert(one.partition, state);
                    }
                }
                Event::Revoking { partitions, .. } => {
                    going = partitions;
                    // Asking for another event would give them up with nothing.
                    break;
                }
                Event::Lost { partitions, .. } => {
                    for partition in partitions {
                        states.remove(&partition);
                    }
                }
                Event::Standby(_) | Event::Followed(_) | Event::Lagging { .. } | Event::Missed { .. } => {}
            }
        }
        for partition in going {
            let state = states.remove(&partition).unwrap_or_default();
            consumer.give_up(&partition, Some(state.to_le_bytes().to_vec().into()))?;
        }
    }
    println!("{} partitions, {} inputs", states.len(), states.values().sum::<u64>());
    consumer.close().await?;
    Ok(())
}
