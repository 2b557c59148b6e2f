//! Prints every record of a topic, from the beginning, and goes on as more come; with a number it ends after so many:
//! `cargo run -p corelane --example consume -- chat 100`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use corelane::StartAt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "chat".to_owned());
    let mut left = arguments.next().map_or(Ok(u64::MAX), |records| records.parse())?;
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    let mut consumer = client.consumer(&topic).from(StartAt::Earliest).open().await?;
    while 0 < left
        && let Some(batch) = consumer.next().await
    {
        let batch = batch?;
        for record in &batch {
            if left == 0 {
                break;
            }
            left -= 1;
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            println!("{}/{}: {value}", batch.partition(), record.offset);
        }
    }
    Ok(())
}
