//! A member of a consumer group whose progress is committed by itself, each half second, and which leaves in order when it
//! is interrupted: `cargo run -p corelane --example group_auto -- gateway-3`.
//!
//! With a name of its own as the argument it takes its partitions back when it is started anew within ten seconds.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use corelane::{Event, ResetPolicy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    let mut group = client
        .group("statistics")
        .topics(["chat"])
        .pattern("match-.*")
        .reset(ResetPolicy::Earliest)
        .auto_commit(Duration::from_millis(500))
        .lagging_above(10_000);
    let static_id = std::env::args().nth(1);
    if let Some(id) = &static_id {
        group = group.static_id(id);
    }
    let mut consumer = group.join().await?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut records = 0;
    loop {
        let event = tokio::select! {
            event = consumer.next() => event,
            _ = &mut interrupted => break,
        };
        let Some(event) = event else { break };
        match event? {
            Event::Batch(batch) => records += batch.len(),
            Event::Lagging { partition, lag } => println!("{partition} is {lag} records behind"),
            _ => {}
        }
    }
    println!("{records} records");
    if static_id.is_some() {
        // Comes back: nobody else gets its partitions meanwhile.
        consumer.detach().await?;
    } else {
        consumer.close().await?;
    }
    Ok(())
}
