//! A server that keeps the states of matches warm that others run, and goes on with one when its server is gone, without
//! a replay: `corelane group alter servers --standbys 1`, then two of
//! `cargo run -p corelane --example group_standby`, and kill one. Interrupted, a server leaves in order.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corelane::{Batch, Event, Offset, ResetPolicy, StartAt, TopicPartition};

/// What the inputs of a partition have come to.
#[derive(Debug, Default)]
struct State {
    inputs: u64,
    /// The first record that is not in it.
    next: Offset,
}

impl State {
    /// A record that is in it already comes again when this server takes over: the old one had not committed it.
    fn take(&mut self, batch: &Batch) {
        let next = self.next;
        for record in batch.iter().filter(|record| next <= record.offset) {
            self.inputs += 1;
            self.next = record.offset.advance(1);
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    let group = client.group("servers").topics(["match-inputs"]).reset(ResetPolicy::Earliest);
    let group = group.session_timeout(Duration::from_secs(2)).follow_standbys(StartAt::Earliest);
    let mut consumer = group.join().await?;
    let mut states: BTreeMap<Arc<TopicPartition>, State> = BTreeMap::new();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let event = tokio::select! {
            event = consumer.next() => event,
            _ = &mut interrupted => break,
        };
        let Some(event) = event else { break };
        match event? {
            // What an owner does beside (answering players, writing results) belongs here.
            Event::Batch(batch) => states.entry(Arc::clone(batch.topic_partition())).or_default().take(&batch),
            Event::Followed(batch) => states.entry(Arc::clone(batch.topic_partition())).or_default().take(&batch),
            Event::Standby(partitions) => {
                // What was had before and is followed now is as warm as it was when it was given up.
                for partition in partitions {
                    if let Some(state) = states.get(&partition) {
                        consumer.seek(&partition, StartAt::Offset(state.next))?;
                    }
                }
            }
            Event::Assigned(assigned) => {
                for one in assigned {
                    let warm = states.entry(Arc::clone(&one.partition)).or_default();
                    println!("{} from {:?}, followed up to {:?}: {warm:?}", one.partition, one.start, one.followed);
                }
            }
            Event::Missed { partition, offsets } => println!("{partition}: {offsets:?} were gone before they came"),
            Event::Lost { .. } | Event::Revoking { .. } | Event::Lagging { .. } => {}
        }
    }
    for (partition, state) in &states {
        println!("{partition}: {state:?}");
    }
    consumer.close().await?;
    Ok(())
}
