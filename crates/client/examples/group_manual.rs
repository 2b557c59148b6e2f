//! A member of a consumer group that says itself what is done: start it twice, and the two share the topic:
//! `cargo run -p corelane --example group_manual -- chat`. With a number as the second argument it leaves after so many
//! records.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use corelane::{Event, ResetPolicy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "chat".to_owned());
    let mut left = arguments.next().map_or(Ok(usize::MAX), |records| records.parse())?;
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    let group = client.group("archive").topics([&topic]).reset(ResetPolicy::Earliest).manual_commit();
    let mut consumer = group.join().await?;
    while 0 < left
        && let Some(event) = consumer.next().await
    {
        match event? {
            Event::Batch(batch) => {
                for record in &batch {
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                    println!("{}/{}: {value}", batch.topic_partition(), record.offset);
                }
                // Cheap: it is gathered with those that follow. Whoever must know that it is on disk awaits the ticket.
                consumer.commit_batch(&batch).durable().await?;
                left = left.saturating_sub(batch.len());
            }
            Event::Assigned(assigned) => {
                for one in assigned {
                    println!("{} is ours, from {:?}", one.partition, one.start);
                }
            }
            // Everything of these is committed above; asking for the next event gives them up.
            Event::Revoking { partitions, .. } => println!("{} partitions go to others", partitions.len()),
            Event::Lost { partitions, reason } => println!("{} partitions are gone: {reason}", partitions.len()),
            Event::Missed { partition, offsets } => println!("{partition}: {offsets:?} were gone before they came"),
            Event::Standby(_) | Event::Followed(_) | Event::Lagging { .. } => {}
        }
    }
    consumer.close().await?;
    Ok(())
}
