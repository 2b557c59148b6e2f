//! The admin listener: health, metrics and status over HTTP, on plain threads beside the shards.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200 while every shard runs and its journal takes writes, else 503 and what is wrong |
//! | `/readyz` | 200 while every shard serves, else 503 and which does not |
//! | `/metrics` | Prometheus' text format |
//! | `/status` | JSON |

mod http;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use corelane_shard::{ShardPhase, ShardStatus};
use corelane_telemetry::Exposition;

use self::http::{Answer, Request, Server};

/// What the listener tells about.
pub trait Source: Send + Sync + 'static {
    /// The state of every shard that answered in time.
    fn shards(&self) -> Vec<ShardStatus>;
    /// How many shards there are.
    fn shard_count(&self) -> usize;
    /// Why the broker is about to end, if it is.
    fn failure(&self) -> Option<String>;
    /// What does not change while the broker runs.
    fn about(&self) -> &About;
}

/// What does not change while a broker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// UDP address for clients.
    pub quic: SocketAddr,
    /// The data directory.
    pub data: String,
    /// Core of each shard.
    pub cores: Vec<usize>,
    /// Milliseconds since the Unix epoch when it became ready.
    pub started_ms: u64,
}

/// The running listener; dropping it ends its threads.
pub struct Listener {
    _server: Server,
    address: SocketAddr,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listener {
    /// Answers on this socket.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn start(socket: std::net::TcpListener, source: &Arc<impl Source>) -> io::Result<Self> {
        let source = Arc::clone(source);
        let server = Server::start(socket, move |request| answer(request, source.as_ref()))?;
        Ok(Self { address: server.address()?, _server: server })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

const JSON: &str = "application/json";
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn answer(request: &Request, source: &impl Source) -> Answer {
    match request.method.as_str() {
        "GET" | "HEAD" => route(&request.path, source),
        _ => Answer::text(405, "only GET and HEAD are answered here\n"),
    }
}

fn route(path: &str, source: &impl Source) -> Answer {
    match path {
        "/healthz" => probe(&unhealthy(source), "healthy"),
        "/readyz" => probe(&unready(source), "ready"),
        "/metrics" => Answer { code: 200, content_type: METRICS, body: metrics(&source.shards()) },
        "/status" => Answer { code: 200, content_type: JSON, body: status::status(source) },
        _ => Answer::text(404, format!("there is no {path}; there are /healthz /readyz /metrics /status\n")),
    }
}

fn probe(problems: &[String], good: &str) -> Answer {
    if problems.is_empty() {
        Answer::text(200, format!("{good}\n"))
    } else {
        Answer::text(503, problems.join("\n") + "\n")
    }
}

fn metrics(shards: &[ShardStatus]) -> String {
    let mut exposition = Exposition::default();
    corelane_shard::expose(shards, &mut exposition);
    exposition.finish()
}

/// What is wrong at the moment, a sentence each.
pub(crate) fn unhealthy(source: &impl Source) -> Vec<String> {
    let shards = source.shards();
    let mut problems: Vec<String> = source.failure().into_iter().collect();
    problems.extend(silent(source, &shards));
    for shard in &shards {
        if let Some(text) = &shard.storage_failure {
            problems.push(format!(
                "shard {} takes no writes until the broker restarts, because its journal failed: {text}",
                shard.shard
            ));
        }
        problems.extend(shard.stopped_homes.iter().map(|home| format!("shard {}: {home}", shard.shard)));
        if shard.is_space_low {
            problems.push(format!("shard {} refuses writes because the disk is full", shard.shard));
        }
    }
    problems
}

fn unready(source: &impl Source) -> Vec<String> {
    let shards = source.shards();
    let mut problems: Vec<String> = source.failure().into_iter().collect();
    problems.extend(silent(source, &shards));
    for shard in shards.iter().filter(|shard| shard.phase != ShardPhase::Serving) {
        problems.push(format!("shard {} is {}", shard.shard, phase(shard.phase)));
    }
    problems
}

fn silent(source: &impl Source, shards: &[ShardStatus]) -> Option<String> {
    let (answered, all) = (shards.len(), source.shard_count());
    (answered < all).then(|| format!("only {answered} of {all} shards answer"))
}

const fn phase(phase: ShardPhase) -> &'static str {
    match phase {
        ShardPhase::Recovering => "recovering",
        ShardPhase::Serving => "serving",
        ShardPhase::Draining => "draining",
        ShardPhase::Drained => "drained",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use corelane_model::ShardId;
    use corelane_shard::{QueueStatus, RecoveryStatus};

    use super::*;

    struct Fixed {
        shards: Vec<ShardStatus>,
        about: About,
    }

    impl Source for Fixed {
        fn shards(&self) -> Vec<ShardStatus> {
            self.shards.clone()
        }
        fn shard_count(&self) -> usize {
            2
        }
        fn failure(&self) -> Option<String> {
            None
        }
        fn about(&self) -> &About {
            &self.about
        }
    }

    fn source(change: impl FnOnce(&mut Vec<ShardStatus>)) -> Fixed {
        let serving =
            |shard| ShardStatus { shard: ShardId(shard), phase: ShardPhase::Serving, ..ShardStatus::default() };
        let mut shards = vec![serving(0), serving(1)];
        change(&mut shards);
        let about = About {
            quic: SocketAddr::from(([127, 0, 0, 1], 7420)),
            data: "/data".to_owned(),
            cores: vec![0, 1],
            started_ms: 1,
        };
        Fixed { shards, about }
    }

    fn code(path: &str, source: &Fixed) -> (u16, String) {
        let Answer { code, body, .. } = route(path, source);
        (code, body)
    }

    #[test]
    fn a_good_broker_is_healthy_and_ready() {
        let source = source(|_| {});
        assert_eq!(code("/healthz", &source), (200, "healthy\n".to_owned()));
        assert_eq!(code("/readyz", &source).0, 200);
        assert_eq!(code("/nothing", &source).0, 404);
    }

    #[test]
    fn probes_say_which_shard_and_why() {
        let recovering = source(|shards| shards[1].phase = ShardPhase::Recovering);
        assert_eq!(code("/readyz", &recovering), (503, "shard 1 is recovering\n".to_owned()));
        assert_eq!(code("/healthz", &recovering).0, 200);
        let failed = source(|shards| shards[0].storage_failure = Some("error 5".to_owned()));
        assert!(code("/healthz", &failed).1.contains("error 5"));
        let silent = source(|shards| drop(shards.pop()));
        assert_eq!(code("/readyz", &silent), (503, "only 1 of 2 shards answer\n".to_owned()));
    }

    #[test]
    fn metrics_have_a_sample_of_each_shard_and_no_metric_is_forgotten() {
        let text = code("/metrics", &source(|shards| shards[1].connections = 7)).1;
        assert!(text.contains("corelane_shard_connections{shard=\"1\"} 7\n"), "{text}");
        for metric in corelane_telemetry::METRICS {
            assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{} is not exposed", metric.name);
        }
    }

    #[test]
    fn status_is_json_with_each_shard() {
        let text = code("/status", &source(|_| {})).1;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["shards"].as_array().unwrap().len(), 2);
        assert_eq!(value["shards"][1]["phase"], "serving");
        assert_eq!(value["ready"], true);
    }

    #[test]
    fn what_a_start_went_past_and_what_could_not_be_sent_is_shown() {
        let source = source(|shards| {
            shards[1].counters.home_damages = 3;
            shards[1].recovery = Some(RecoveryStatus { damages: 4, misfits: 5, ..RecoveryStatus::default() });
            let queue = QueueStatus { group: "w".into(), topic: "jobs".into(), unsent_leases: 6, ..Default::default() };
            shards[1].queues.push(queue);
        });
        let status: serde_json::Value = serde_json::from_str(&code("/status", &source).1).unwrap();
        let shard = &status["shards"][1];
        assert_eq!(shard["home_damages"], 3, "{shard}");
        assert_eq!((&shard["recovery"]["damages"], &shard["recovery"]["misfits"]), (&4.into(), &5.into()), "{shard}");
        assert_eq!(status["queues"][0]["unsent_leases"], 6, "{status}");
        let metrics = code("/metrics", &source).1;
        for line in [
            "corelane_shard_home_damages_total{shard=\"1\"} 3",
            "corelane_storage_recovery_damages{shard=\"0\"} 0",
            "corelane_storage_recovery_damages{shard=\"1\"} 4",
            "corelane_storage_recovery_misfits{shard=\"1\"} 5",
            "corelane_queue_unsent_leases_total{group=\"w\",topic=\"jobs\"} 6",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} is missing in {metrics}");
        }
    }

    #[test]
    fn it_answers_over_http_and_ends_when_dropped() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = Listener::start(socket, &Arc::new(source(|_| {}))).unwrap();
        let ask = |request: &str| {
            let mut stream = std::net::TcpStream::connect(listener.address()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let good = ask("GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200") && good.ends_with("healthy\n"), "{good}");
        assert!(ask("POST /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 405"));
        drop(listener);
    }
}
