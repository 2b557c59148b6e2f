//! Consume, process, produce, once: what was made of a record and that it is done take effect together, or not at all.
//! Kill it at any moment and start it again: `cargo run -p corelane --example exactly_once -- matches wallets`. With a
//! number as the third argument it ends after so many records.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use corelane::{Event, GroupBatch, GroupConsumer, Isolation, Record, ResetPolicy, TransactionError, Transactional};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let input = args.next().unwrap_or_else(|| "matches".to_owned());
    let output = args.next().unwrap_or_else(|| "wallets".to_owned());
    let mut left = args.next().map_or(Ok(usize::MAX), |records| records.parse())?;
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    // Whoever had this id before is shut out, and what it left open is aborted.
    let mut transactional = client.transactional("settle-matches").open().await?;
    let group = client.group("settle-matches").topics([&input]).reset(ResetPolicy::Earliest).manual_commit();
    let mut consumer = group.isolation(Isolation::Committed).join().await?;
    while 0 < left
        && let Some(event) = consumer.next().await
    {
        let Event::Batch(batch) = event? else { continue };
        match settle(&mut transactional, &mut consumer, &batch, &output).await {
            Ok(()) => {
                println!("{} up to {}", batch.topic_partition(), batch.end_offset());
                left = left.saturating_sub(batch.len());
            }
            // What was not committed is read again.
            Err(error) if error.is_retriable() => {
                println!("once more: {error}");
                transactional.rewind(&mut consumer).await?;
            }
            // An error ends the program: the transaction is aborted, and the next start does the batch again.
            Err(error) => return Err(error.into()),
        }
    }
    consumer.close().await?;
    Ok(())
}

async fn settle(
    transactional: &mut Transactional,
    consumer: &mut GroupConsumer,
    batch: &GroupBatch,
    output: &str,
) -> Result<(), TransactionError> {
    let mut transaction = transactional.begin().await?;
    for record in batch {
        let mut settled = b"settled ".to_vec();
        settled.extend_from_slice(record.value.unwrap_or_default());
        transaction.send(output, Record::new(&settled)).await?;
    }
    transaction.commit_offsets(consumer).await?;
    transaction.commit().await
}
