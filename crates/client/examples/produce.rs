//! Sends lines from the command line's arguments to a topic and waits until they are stored:
//! `cargo run -p corelane --example produce -- chat hello world`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use corelane::{Error, ErrorCode, Record, RequestError, TopicSettings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "chat".to_owned());
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;

    match client.admin().create_topic(&topic, 1, TopicSettings::default()).await {
        Ok(_) | Err(Error::Request(RequestError::Refused { code: ErrorCode::TopicExists, .. })) => {}
        Err(error) => return Err(error.into()),
    }

    let producer = client.producer(&topic).open().await?;
    let mut tickets = Vec::new();
    for line in arguments {
        // `reserve` waits where `send` would say that the buffer is full.
        let record = Record::new(&line);
        tickets.push(producer.reserve(&record).await.send(record).map_err(|error| error.to_string())?);
    }
    for ticket in tickets {
        let delivered = ticket.stored().await?;
        println!("partition {} offset {}", delivered.partition, delivered.offset);
    }
    client.drain().await;
    Ok(())
}
