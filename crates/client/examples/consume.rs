//! Prints every record of a topic, from the beginning, and goes on as more come:
//! `cargo run -p corelane --example consume -- chat`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use corelane::StartAt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "chat".to_owned());
    let client = corelane::connect("corelane://127.0.0.1:7420").await?;
    let mut consumer = client.consumer(&topic).from(StartAt::Earliest).open().await?;
    while let Some(batch) = consumer.next().await {
        let batch = batch?;
        for record in &batch {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            println!("{}/{}: {value}", batch.partition(), record.offset);
        }
    }
    Ok(())
}
