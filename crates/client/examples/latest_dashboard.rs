//! A dashboard of newest values: players report where they are, a dashboard that opens at any moment shows all of them at
//! once and then follows, however slow it is: `cargo run -p corelane --example latest_dashboard`. It ends when the players
//! have made their reports, 60 a second; how many is its argument.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::time::Duration;

use corelane::{Acks, Error, ErrorCode, Record, RequestError, StartAt, TopicSettings};
use tokio::time::{MissedTickBehavior, interval};

const PLAYERS: u32 = 20;
const REPORTS_DEFAULT: u32 = 600;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reports = std::env::args().nth(1).map_or(Ok(REPORTS_DEFAULT), |reports| reports.parse())?;
    let broker = std::env::var("CORELANE_BROKER").unwrap_or_else(|_| "127.0.0.1:7420".to_owned());
    let client = corelane::connect(&broker).await?;
    // Positions are worth nothing after a crash, and only the newest of each player counts. One that is not heard of for
    // ten seconds is forgotten.
    let settings = TopicSettings { retention_ms: Some(10_000), ..TopicSettings::latest() };
    match client.admin().create_topic("positions", 1, settings).await {
        Ok(_) | Err(Error::Request(RequestError::Refused { code: ErrorCode::TopicExists, .. })) => {}
        Err(error) => return Err(error.into()),
    }
    let players = report(client.clone(), reports);
    let dashboard = show(client.clone());
    let (reported, shown) = tokio::join!(players, dashboard);
    reported?;
    shown?;
    client.drain().await;
    Ok(())
}

/// All players report at 60 Hz; at the end each is taken away by a null value.
async fn report(client: corelane::Client, reports: u32) -> Result<(), Box<dyn std::error::Error>> {
    let positions = client.producer("positions").acks(Acks::Received).open().await?;
    let mut ticks = interval(Duration::from_nanos(1_000_000_000 / 60));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for tick in 0..reports {
        ticks.tick().await;
        let (key, value) = (format!("player-{}", tick % PLAYERS), format!("x={tick} y={}", tick * 2));
        let record = Record::new(&value).key(&key);
        positions.reserve(&record).await.send(record).map_err(|error| error.to_string())?;
    }
    for player in 0..PLAYERS {
        let key = format!("player-{player}");
        let record = Record::without_value().key(&key);
        positions.reserve(&record).await.send(record).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Looks twice a second. Little credit keeps what is on its way small: what waits in the broker is replaced by what is newer.
async fn show(client: corelane::Client) -> Result<(), Box<dyn std::error::Error>> {
    let mut values: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut feed = client.consumer("positions").from(StartAt::Earliest).credit_bytes(16 << 10).open().await?;
    let mut looks = interval(Duration::from_millis(500));
    let mut was_filled = false;
    while !was_filled || !values.is_empty() {
        looks.tick().await;
        let mut changes = 0;
        while let Some(batch) = feed.try_next() {
            for record in &batch? {
                let Some(key) = record.key else { continue };
                match record.value {
                    Some(value) => drop(values.insert(key.to_vec(), value.to_vec())),
                    None => drop(values.remove(key)),
                }
                changes += 1;
            }
        }
        was_filled |= !values.is_empty();
        println!("{} players, {changes} changes", values.len());
        for (key, value) in &values {
            println!("  {}  {}", String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        }
    }
    Ok(())
}
