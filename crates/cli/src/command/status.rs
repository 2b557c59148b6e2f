//! `corelane status`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use clap::Args;
use corelane::Address;
use corelane_broker::config::ADMIN_PORT_DEFAULT;
use corelane_broker::quantity::ByteSize;
use serde_json::{Value, json};

use super::examples;
use crate::failure::{Failure, Outcome, refused};
use crate::table;
use crate::target::{Target, run};

/// How long the admin listener may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a status at most.
const STATUS_BYTES_MAX: u64 = 16 << 20;

/// Show how a broker is: over QUIC as a client sees it, and shard by shard if its admin listener can be reached.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane status",
    "corelane status --json",
    "corelane status --broker 127.0.0.1:9000 --admin 127.0.0.1:9001",
))]
pub(crate) struct Status {
    #[command(flatten)]
    target: Target,
    /// The admin listener [default: port 7421 of the broker's host].
    #[arg(long, value_name = "HOST:PORT", env = "CORELANE_ADMIN")]
    admin: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) fn run(self) -> Outcome {
        let broker = run(self.ask_broker())?;
        let status = self.ask_admin()?;
        let mut whole = match status {
            Value::Object(object) => object,
            _ => serde_json::Map::from_iter([("ready".to_owned(), true.into())]),
        };
        whole.insert("broker".to_owned(), broker);
        let whole = Value::Object(whole);
        let mut out = std::io::stdout().lock();
        if self.json { Ok(writeln!(out, "{whole:#}")?) } else { print(&mut out, &whole) }
    }

    /// What a client sees.
    async fn ask_broker(&self) -> Outcome<Value> {
        let client = self.target.connect().await?;
        // The first request makes connections and looks names up; the second is the round trip.
        client.admin().list_topics().await.map_err(refused)?;
        let begin = Instant::now();
        let list = client.admin().list_topics().await.map_err(refused)?;
        let round_trip = begin.elapsed();
        client.close().await;
        Ok(json!({
            "address": self.target.address(),
            "shards": list.shards,
            "catalog_version": list.catalog_version.0,
            "topics": list.topics.len(),
            "topics_cut": list.is_cut,
            "partitions": list.topics.iter().map(|topic| u64::from(topic.partitions())).sum::<u64>(),
            "round_trip_us": u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
        }))
    }

    /// What the admin listener says; null when none was named and there is none at the usual place.
    fn ask_admin(&self) -> Outcome<Value> {
        let place = match &self.admin {
            Some(admin) => admin.clone(),
            None => match Address::parse(&self.target.address()) {
                Ok(address) => Address { port: ADMIN_PORT_DEFAULT, ..address }.to_string(),
                Err(error) => return Err(Failure::usage(error)),
            },
        };
        match get(&place, "/status") {
            Ok(text) => {
                let status: Value = serde_json::from_str(&text)
                    .map_err(|error| Failure::failed(format!("what {place} answers is no status: {error}")))?;
                let is_guess = self.admin.is_none();
                Ok(if is_guess && !self.is_of_broker(&status) { Value::Null } else { status })
            }
            Err(_) if self.admin.is_none() => Ok(Value::Null),
            Err(error) => Err(Failure::unreachable(format!("no admin listener at {place}: {error}"))),
        }
    }
}

impl Status {
    /// Whether a status at the usual place is that of the broker that we talk to: another one may have the place.
    fn is_of_broker(&self, status: &Value) -> bool {
        let port = Address::parse(&self.target.address()).map(|address| address.port);
        let quic = status["quic"].as_str().and_then(|quic| quic.parse::<SocketAddr>().ok());
        quic.is_some_and(|quic| port == Ok(quic.port()))
    }
}

/// The body of an HTTP answer with code 200.
fn get(place: &str, path: &str) -> std::io::Result<String> {
    let address: SocketAddr =
        place.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("the host has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, ADMIN_TIMEOUT)?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    // Version 1.0 has neither chunks nor connections that stay.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {place}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(STATUS_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("it does not speak HTTP"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        code => Err(std::io::Error::other(format!("it answers {}", code.unwrap_or("nothing")))),
    }
}

fn print(out: &mut impl Write, status: &Value) -> Outcome {
    let broker = &status["broker"];
    let is_ready = if status["ready"] == true { "ready" } else { "not ready" };
    let address = broker["address"].as_str().unwrap_or_default();
    writeln!(
        out,
        "{address} is {is_ready}; shards {}, topics {}, partitions {}; a request takes {} µs",
        broker["shards"], broker["topics"], broker["partitions"], broker["round_trip_us"]
    )?;
    let Some(shards) = status["shards"].as_array() else {
        writeln!(out, "for more, name the admin listener: --admin HOST:PORT")?;
        return Ok(());
    };
    writeln!(out, "start {} of {}", status["incarnation"], status["data"].as_str().unwrap_or_default())?;
    let bytes = |value: &Value| ByteSize(value.as_u64().unwrap_or(0)).to_string();
    let rows: Vec<Vec<String>> = shards
        .iter()
        .map(|shard| {
            vec![
                shard["shard"].to_string(),
                shard["phase"].as_str().unwrap_or_default().to_owned(),
                shard["partitions"].to_string(),
                shard["connections"].to_string(),
                shard["produced"]["records"].to_string(),
                shard["consumed"]["records"].to_string(),
                format!("{}%", shard["journal"]["fill_per_mille"].as_u64().unwrap_or(0) / 10),
                shard["journal"]["syncs"].to_string(),
                bytes(&shard["unsettled_bytes"]),
                shard["stored_us"]["p99"].as_u64().map_or_else(|| "-".to_owned(), |p99| format!("{p99} µs")),
            ]
        })
        .collect();
    let head = [
        "SHARD",
        "PHASE",
        "PARTITIONS",
        "CONNECTIONS",
        "PRODUCED",
        "CONSUMED",
        "JOURNAL",
        "SYNCS",
        "UNSETTLED",
        "STORED P99",
    ];
    table::print(out, &head, &rows)?;
    for shard in shards {
        if let Some(failure) = shard["storage_failure"].as_str() {
            writeln!(out, "shard {} takes no writes: {failure}", shard["shard"])?;
        }
        for home in shard["stopped_homes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            writeln!(out, "shard {}: {home}", shard["shard"])?;
        }
        if shard["space_low"] == true {
            writeln!(out, "shard {} refuses writes: the disk is full", shard["shard"])?;
        }
        for loss in losses(shard) {
            writeln!(out, "shard {}: {loss}", shard["shard"])?;
        }
    }
    Ok(())
}

/// What the start of a shard found damaged, a sentence each; nothing most often.
fn losses(shard: &Value) -> Vec<String> {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let recovery = &shard["recovery"];
    let corrupt = recovery["corrupt"].as_array().map_or(0, |ranges| ranges.len() as u64);
    [
        (count(&recovery["damages"]), "damaged stretches of the journal at the start"),
        (corrupt, "ranges of records lost to damage: see topic describe"),
        (
            count(&recovery["misfits"]),
            "items of the journal left out at the start, since they contradict what came before",
        ),
        (count(&shard["home_damages"]), "damaged places in the logs of groups, queues and transactional ids"),
    ]
    .into_iter()
    .filter(|&(count, _)| 0 < count)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_found_damaged_is_told_and_nothing_of_a_good_one() {
        let shard = |recovery: Value, home_damages: u64| {
            let shard = json!({ "shard": 1, "recovery": recovery, "home_damages": home_damages });
            let mut out = Vec::new();
            print(&mut out, &json!({ "ready": true, "broker": {}, "shards": [shard] })).unwrap();
            String::from_utf8(out).unwrap().lines().skip(4).map(str::to_owned).collect::<Vec<_>>()
        };
        let good = json!({ "damages": 0, "misfits": 0, "corrupt": [] });
        assert_eq!(shard(good, 0), [""; 0]);
        assert_eq!(shard(Value::Null, 0), [""; 0], "it is still recovering");
        let bad = json!({ "damages": 2, "misfits": 3, "corrupt": [{ "topic": 1 }] });
        let told = shard(bad, 4);
        let expected = [
            "shard 1: 2 damaged stretches of the journal at the start",
            "shard 1: 1 ranges of records lost to damage: see topic describe",
            "shard 1: 3 items of the journal left out at the start, since they contradict what came before",
            "shard 1: 4 damaged places in the logs of groups, queues and transactional ids",
        ];
        assert_eq!(told, expected);
    }
}
