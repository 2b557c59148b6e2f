//! Carries out a plan against a broker and judges what came of it.
//!
//! The pacer has a thread of its own and hands each message to the SDK when it is due. Tickets go to a task that waits for
//! them in order; the moment of each answer is taken where the SDK learns of it, so that waiting in order costs no figure
//! anything. Each reader is a task with a connection of its own.

pub mod group;
pub mod queue;
mod reader;
mod sender;
mod signals;
mod tickets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use corelane::{Acks, Client, Options, Producer, TopicClass, TopicSettings};
use tokio::sync::watch;

use crate::disk::Disk;
use crate::plan::{Plan, Reading};
use crate::progress::Progress;
use crate::report::{AFTERWARDS, Budget, Floors, LIVE, Latencies, Member, Report, Samples};
use crate::server::metric;
use crate::slice::Slices;
use crate::verify::Verdict;
use reader::{Reader, ReaderEnd};
use sender::{Sender, SenderEnd};
use signals::StopSignals;
use tickets::TicketsEnd;

pub use signals::Interrupted;

/// Readers that see nothing new for this long after the last message was sent will see nothing more.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// After the last message readers listen this much longer, for duplicates.
const LISTEN: Duration = Duration::from_millis(100);
/// The plan's first message is due later than this, and a journal that has nothing to write is at rest sooner.
const REST: Duration = Duration::from_millis(150);
const LOOK: Duration = Duration::from_millis(50);

/// How to run a plan.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The broker's address, as [`corelane::connect`] takes it.
    pub broker: String,
    /// What producers wait for; `received` leaves the figures of `stored` empty.
    pub acks: Acks,
    /// No progress on the terminal.
    pub is_quiet: bool,
    /// Leave the topics where they are.
    pub keep_topics: bool,
    /// The broker's data directory, when it is on this machine: for the report.
    pub data: Option<PathBuf>,
    /// The broker's admin listener: with it the syncs of its journals are counted.
    pub admin: Option<SocketAddr>,
    /// What the machine could do just before: for the report.
    pub floors: Option<Floors>,
}

impl RunOptions {
    /// A run against `broker` that waits for the disk, shows no progress, deletes its topics and asks for nothing beside.
    #[must_use]
    pub const fn new(broker: String) -> Self {
        Self { broker, acks: Acks::Stored, is_quiet: true, keep_topics: false, data: None, admin: None, floors: None }
    }
}

/// Counts that the parts of a run share while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    consumed: AtomicU64,
    /// The rest of the schedule is not wanted.
    is_stopped: AtomicBool,
}

/// Carries out `plan`.
///
/// # Errors
/// The broker cannot be reached, or refuses what the run needs; or a signal came ([`Interrupted`]), and the topics were
/// deleted all the same. A run that loses messages is no error: the report says so.
pub async fn run(plan: Plan, options: &RunOptions) -> anyhow::Result<Report> {
    let client = connect(options, "corelane-bench").await?;
    // From here on a signal no longer ends the process: topics are deleted first.
    let mut signals = StopSignals::listen()?;
    let names = create_topics(&client, &plan).await?;
    let counts = Arc::new(Counts::default());
    let ended = tokio::select! {
        ended = run_on_topics(plan, options, &client, &names, &counts) => ended,
        signal = signals.next() => {
            counts.is_stopped.store(true, Ordering::Relaxed);
            Err(Interrupted { signal }.into())
        }
    };
    if !options.keep_topics {
        tokio::select! {
            () = delete_topics(&client, &names) => {}
            signal = signals.next() => tracing::warn!("{signal} arrived: topics of the run stay on the broker"),
        }
    }
    client.close().await;
    ended
}

async fn delete_topics(client: &Client, names: &[String]) {
    for name in names {
        // A broker that is gone keeps its topics; the run's own error matters more.
        if let Err(error) = client.admin().delete_topic(name).await {
            tracing::warn!(topic = %name, %error, "the topic of the run was not deleted");
        }
    }
}

async fn run_on_topics(
    mut plan: Plan,
    options: &RunOptions,
    client: &Client,
    names: &[String],
    counts: &Arc<Counts>,
) -> anyhow::Result<Report> {
    let producers = open_producers(client, names, options).await?;
    let mut readers = Vec::new();
    if plan.reading == Reading::Live {
        readers = open_readers(&plan, options, names, counts).await?;
    }
    let origin = Instant::now();
    let slices = Arc::new(Slices::new(plan.tick, plan.duration));
    let (stop, stopped) = watch::channel(false);
    let start = |readers: Vec<Reader>| -> Vec<_> {
        let start_one = |reader: Reader| tokio::spawn(reader.run(origin, Arc::clone(&slices), stopped.clone()));
        readers.into_iter().map(start_one).collect()
    };
    let mut readers = start(readers);
    let schedule = std::mem::replace(&mut plan.schedule, Box::new(std::iter::empty()));
    let (tickets, ticket_queue) = tokio::sync::mpsc::unbounded_channel();
    let collector = tokio::spawn(tickets::collect(ticket_queue, origin, Arc::clone(&slices), options.acks));
    let sender = Sender::new(
        origin,
        &slices,
        client.clone(),
        producers,
        plan.streams.clone(),
        Arc::clone(counts),
        Some(tickets),
    );
    let runtime = tokio::runtime::Handle::current();
    let sending = tokio::task::spawn_blocking(move || sender.run(schedule, &runtime));

    // Not earlier: a journal that comes to rest after the topics were made syncs once more by itself.
    tokio::time::sleep_until((origin + REST).into()).await;
    let syncs = journal_syncs(options).await?;
    let progress = Progress::new(&plan.scenario, plan.duration, options.is_quiet);
    while !sending.is_finished() {
        progress.update(origin.elapsed(), counts.sent.load(Ordering::Relaxed), counts.consumed.load(Ordering::Relaxed));
        tokio::time::sleep(LOOK).await;
    }
    let sent = sending.await.context("the sender ended by a panic")?;
    let tickets = collector.await.context("the collector of tickets ended by a panic")?;
    let syncs = journal_syncs(options).await?.zip(syncs).map(|(after, before)| after.saturating_sub(before));
    if plan.reading == Reading::Afterwards {
        readers = start(open_readers(&plan, options, names, counts).await?);
    }
    await_readers(plan.deliveries(&sent.sent), counts, &progress, origin, sent.total()).await;
    // Readers look at this only between batches; one that is gone needs no word.
    let _gone = stop.send(true);
    let mut ends = Vec::new();
    for reader in readers {
        ends.push(reader.await.context("a reader ended by a panic")?);
    }
    progress.finish();
    Ok(Report { journal_syncs: syncs, ..judge(&plan, options, &sent, tickets, ends) })
}

/// Readers with connections of their own, subscribed.
async fn open_readers(
    plan: &Plan,
    options: &RunOptions,
    names: &[String],
    counts: &Arc<Counts>,
) -> anyhow::Result<Vec<Reader>> {
    let mut readers = Vec::new();
    for reader in &plan.readers {
        let client = connect(options, "corelane-bench-reader").await?;
        readers.push(Reader::open(&client, &names[reader.topic], reader, plan, Arc::clone(counts)).await?);
    }
    Ok(readers)
}

/// Syncs of the broker's journals so far, where its admin listener is known.
async fn journal_syncs(options: &RunOptions) -> anyhow::Result<Option<u64>> {
    let Some(admin) = options.admin else { return Ok(None) };
    let asked = tokio::task::spawn_blocking(move || metric(admin, "corelane_storage_journal_syncs_total"));
    let syncs = asked.await.context("the question for a metric ended by a panic")??;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    Ok(Some(syncs as u64))
}

/// Waits until readers have seen everything, or nothing new for [`SILENCE_MAX`].
async fn await_readers(expected: u64, counts: &Counts, progress: &Progress, origin: Instant, sent: u64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let consumed = counts.consumed.load(Ordering::Relaxed);
        progress.update(origin.elapsed(), sent, consumed);
        if expected <= consumed {
            tokio::time::sleep(LISTEN).await;
            return;
        }
        if last != consumed {
            (last, since) = (consumed, Instant::now());
        } else if SILENCE_MAX < since.elapsed() {
            return;
        }
        tokio::time::sleep(LOOK.min(Duration::from_millis(5))).await;
    }
}

fn judge(
    plan: &Plan,
    options: &RunOptions,
    sent: &SenderEnd,
    tickets: TicketsEnd,
    readers: Vec<(Reader, ReaderEnd)>,
) -> Report {
    let mut verdict = Verdict::default();
    let mut consumed = crate::measure::Latency::default();
    let mut members = Vec::new();
    let read_afterwards = plan.reading == Reading::Afterwards;
    let mut last = if read_afterwards { tickets.last_stored } else { 0 };
    let first = sent.first_due;
    for (reader, end) in readers {
        consumed.merge(&end.latency);
        last = last.max(end.last);
        let took = end.verifier.consumed();
        let until = if read_afterwards { last } else { end.last };
        members.push(Member {
            name: reader.name().to_owned(),
            consumed: took,
            rate_per_s: per_second(took, seconds(until.saturating_sub(first))),
            rate_max: reader.rate_max(),
        });
        verdict.add(&end.verifier.finish(&sent.sent));
    }
    let seconds = seconds(last.saturating_sub(first));
    let latency_us = Latencies {
        received: tickets.received.percentiles(),
        stored: tickets.stored.percentiles(),
        consumed: consumed.percentiles(),
    };
    let void_reason = sent.void_reason(plan.tick);
    let micros = |budget: Duration| budget.as_secs_f64() * 1e6;
    let mut report = Report {
        scenario: plan.scenario.clone(),
        class: class_name(plan.topics.first().map_or(TopicClass::Durable, |topic| topic.class)).to_owned(),
        void: void_reason.is_some(),
        void_reason,
        planned: plan.planned,
        sent: sent.total(),
        stored: tickets.stored_count,
        received: tickets.received_count,
        consumed: 0,
        consumed_planned: plan.deliveries(&sent.sent),
        lost: 0,
        duplicated: 0,
        reordered: 0,
        corrupt: 0,
        failed: tickets.failed + sent.refused,
        first_failure: tickets.first_failure.or_else(|| sent.first_refusal.clone()),
        seconds,
        rate_per_s: per_second(verdict.consumed, seconds),
        ideal_per_s: plan.ideal_per_s,
        slices: sent.slices,
        lateness_us: sent.lateness.percentiles(),
        stolen_ms: sent.stolen_ms(),
        latency_us,
        members,
        disk: options.data.as_deref().map(Disk::of),
        floors: options.floors.clone(),
        reading: if read_afterwards { AFTERWARDS } else { LIVE }.to_owned(),
        journal_syncs: None,
        samples: Samples { stored: tickets.stored, consumed },
        budget: plan.budget.map(|(p99, p999)| Budget::judge(micros(p99), micros(p999), &latency_us.consumed)),
    };
    report.set_verdict(&verdict);
    report
}

/// The word for a class in reports and on the command line.
#[must_use]
pub const fn class_name(class: TopicClass) -> &'static str {
    match class {
        TopicClass::Durable => "durable",
        TopicClass::Memory => "memory",
        TopicClass::Latest => "latest",
    }
}

async fn connect(options: &RunOptions, name: &str) -> anyhow::Result<Client> {
    let options_of_client = Options { name: Some(name.to_owned()), ..Options::default() };
    Ok(corelane::connect_with(&options.broker, options_of_client).await?)
}

async fn create_topics(client: &Client, plan: &Plan) -> anyhow::Result<Vec<String>> {
    // The name must be new; nanoseconds of the wall clock and the process id make it so.
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    let run = format!("{:x}-{:x}", now.as_nanos(), std::process::id());
    let mut names = Vec::new();
    for topic in &plan.topics {
        let name = format!("bench-{}-{run}", topic.role);
        let settings = match topic.class {
            TopicClass::Durable => TopicSettings::default(),
            // A reader may lag for a while without losing anything, so that a loss is the broker's.
            class @ (TopicClass::Memory | TopicClass::Latest) => TopicSettings {
                class,
                retention_ms: Some(60_000),
                retention_bytes: Some(32 << 20),
                ..TopicSettings::default()
            },
        };
        client.admin().create_topic(&name, topic.partitions, settings).await?;
        names.push(name);
    }
    Ok(names)
}

async fn open_producers(client: &Client, names: &[String], options: &RunOptions) -> anyhow::Result<Vec<Producer>> {
    let mut producers = Vec::new();
    for name in names {
        producers.push(client.producer(name).acks(options.acks).open().await?);
    }
    Ok(producers)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run stay below 2^52")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run stay below 2^52")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}
