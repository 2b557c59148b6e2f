//! A game server's loop at 60 Hz: each tick it takes the inputs that have come, without waiting, and sends the state of
//! its match, without waiting: `cargo run -p corelane --example tick_loop`. It ends after a minute, or when it is
//! interrupted.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::time::Duration;

use corelane::{
    Acks, Error, ErrorCode, PartitionIndex, Record, RequestError, SendError, StartAt, TopicClass, TopicSettings,
};
use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);
const TICKS: u32 = 3_600;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    // Inputs and states are worth nothing after a crash: they live in memory, for two seconds.
    let settings = TopicSettings { class: TopicClass::Memory, retention_ms: Some(2_000), ..TopicSettings::default() };
    for topic in ["match-inputs", "match-states"] {
        match client.admin().create_topic(topic, 1, settings).await {
            Ok(_) | Err(Error::Request(RequestError::Refused { code: ErrorCode::TopicExists, .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let states = client.producer("match-states").acks(Acks::Received).open().await?;
    let mut inputs = client.consumer("match-inputs").partition(PartitionIndex(0)).from(StartAt::Latest).open().await?;

    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut applied = 0_u64;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    for tick in 0..TICKS {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupted => break,
        }
        while let Some(batch) = inputs.try_next() {
            applied += batch?.iter().count() as u64;
        }
        let state = format!("tick {tick}: {applied} inputs applied");
        match states.send_detached(Record::new(&state).key("match-1")) {
            Ok(()) => {}
            // A state that cannot leave now is old when it can: the next tick sends a newer one.
            Err(SendError::Full(_)) => eprintln!("tick {tick}: skipped, the buffer is full"),
            Err(error) => return Err(error.to_string().into()),
        }
    }
    println!("{applied} inputs applied, {} records not delivered", client.stats().records_failed);
    client.drain().await;
    Ok(())
}
