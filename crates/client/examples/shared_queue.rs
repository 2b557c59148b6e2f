//! A shared queue with dead letters: any number of these share the work, and what fails three times is put aside.
//!
//! ```sh
//! corelane topic create jobs -p 4 && corelane topic create jobs.dead
//! cargo run --package corelane --example shared_queue          # with a number it leaves after so many deliveries
//! printf 'resize 7\nbroken\n' | corelane produce jobs
//! corelane consume jobs.dead -f '%s %h\n'
//! corelane queue redrive jobs -g workers
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use corelane::{Backoff, Nack};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut left = std::env::args().nth(1).map_or(Ok(u64::MAX), |deliveries| deliveries.parse())?;
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    let mut jobs = client
        .queue("workers", "jobs")
        .visibility(Duration::from_secs(10))
        .delivery_limit(Some(3))
        .backoff(Backoff::Steps(vec![Duration::from_millis(200), Duration::from_secs(1)]))
        .dead_letter("jobs.dead")
        .join()
        .await?;
    while 0 < left
        && let Some(leased) = jobs.next().await
    {
        for record in &leased? {
            left = left.saturating_sub(1);
            let job = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            match work(&job) {
                // Nobody waits for the ticket: should the acknowledgement be lost, the job is done again.
                Ok(done) => {
                    println!("{done}");
                    jobs.ack(record.lease);
                }
                Err(reason) => {
                    println!("{job:?} failed at delivery {}: {reason}", record.lease.attempt);
                    jobs.nack(record.lease, Nack::because(reason));
                }
            }
        }
    }
    // Waits until the broker has heard of all of it.
    jobs.close().await?;
    Ok(())
}

fn work(job: &str) -> Result<String, String> {
    match job.split_once(' ') {
        Some(("resize", avatar)) => Ok(format!("avatar {avatar} resized")),
        _ => Err(format!("{job:?} is no job; write resize and the number of an avatar")),
    }
}
