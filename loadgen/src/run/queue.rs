//! A shared queue under load: N members that say of each record by itself what became of it.

mod flood;
mod judge;
mod member;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use corelane::{Backoff, Client, Consumer, Dispatch, QueueBuilder, StartAt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Counts, LOOK, RunOptions, StopSignals, connect, create_topics, delete_topics, open_producers};
use crate::disk::Disk;
use crate::plan::{Plan, Schedule};
use crate::progress::Progress;
use crate::report::queue::QueueReport;
use crate::report::{Latencies, Member};
use crate::run::Interrupted;
use crate::run::sender::{Sender, SenderEnd};
use crate::scenario::QueueLoad;
use crate::slice::Slices;
use flood::Flood;
use judge::{Judge, Rules};
use member::{MemberEnd, QueueMember, SESSION_TIMEOUT};

/// The knobs.
#[derive(Clone, Debug)]
pub struct QueueBench {
    /// N: how many members.
    pub members: u32,
    /// Messages a second of all members together; `None` sends as fast as they are done, with a fixed number under way.
    pub rate: Option<u32>,
    /// Of ten thousand deliveries so many are negatively acknowledged.
    pub failing_of_10_000: u32,
    /// Failures that make a dead letter.
    pub delivery_limit: u8,
    /// How long a record rests after its first failure; up to ten times as long after further ones.
    pub backoff: Duration,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Bytes of a message.
    pub size: u32,
    /// Who gets the next record.
    pub dispatch: Dispatch,
    /// Whether records of one key are handed out one after the other.
    pub is_ordered: bool,
    /// Records that a member has at once.
    pub credit: u32,
    /// How long.
    pub duration: Duration,
}

/// Members that see nothing new for this long, beyond the longest rest, will see nothing more.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The longest rest is so many times the first.
const BACKOFF_GROWTH: u32 = 10;

/// Carries out a run.
///
/// # Errors
/// The broker cannot be reached, or refuses what the run needs; or a signal came ([`Interrupted`]). A run that loses
/// messages is no error: the report says so.
pub async fn run(bench: QueueBench, options: &RunOptions) -> anyhow::Result<QueueReport> {
    let client = connect(options, "corelane-bench").await?;
    // From here on a signal no longer ends the process: topics are deleted first.
    let mut signals = StopSignals::listen()?;
    let mut plan = QueueLoad {
        rate: bench.rate,
        partitions: bench.partitions,
        size: bench.size,
        duration: bench.duration,
        has_dead_letters: bench.has_dead_letters(),
    }
    .plan();
    let topics = create_topics(&client, &plan).await?;
    let schedule = std::mem::replace(&mut plan.schedule, Box::new(std::iter::empty()));
    let counts = Arc::new(Counts::default());
    let ended = tokio::select! {
        ended = on_topics(&bench, options, &client, &topics, &plan, schedule, &counts) => ended,
        signal = signals.next() => {
            counts.is_stopped.store(true, Ordering::Relaxed);
            Err(Interrupted { signal }.into())
        }
    };
    // What is left of the queue goes with its topic all the same.
    if let Err(error) = client.queues().delete(&topics[0], &topics[0], true).await {
        tracing::debug!(queue = %topics[0], %error, "the queue of the run was not deleted");
    }
    delete_topics(&client, &topics).await;
    client.close().await;
    ended
}

async fn on_topics(
    bench: &QueueBench,
    options: &RunOptions,
    client: &Client,
    topics: &[String],
    plan: &Plan,
    schedule: Schedule,
    counts: &Arc<Counts>,
) -> anyhow::Result<QueueReport> {
    let judge = Arc::new(Judge::new(bench.rules(), plan.streams.len()));
    let (stop, stopped) = watch::channel(false);
    let mut members = Vec::new();
    for _ in 0..bench.members {
        let client = connect(options, "corelane-bench-member").await?;
        // Named after the topic, which is named after the run.
        let consumer = bench.member(client.queue(&topics[0], &topics[0]), topics).join().await?;
        members.push(QueueMember { client, consumer, judge: Arc::clone(&judge), counts: Arc::clone(counts) });
    }
    let letters = match topics.get(1) {
        Some(topic) => Some(client.consumer(topic).from(StartAt::Earliest).open().await?),
        None => None,
    };
    let producers = open_producers(client, &topics[..1], options).await?;
    let origin = Instant::now();
    let slices = Arc::new(match bench.rate {
        Some(_) => Slices::new(plan.tick, plan.duration),
        None => Slices::without_schedule(),
    });
    judge.begin(origin, &slices);
    let members: Vec<_> = members.into_iter().map(|member| tokio::spawn(member.run(stopped.clone()))).collect();
    let letters = letters
        .map(|letters| tokio::spawn(read_letters(letters, Arc::clone(&judge), Arc::clone(counts), stopped.clone())));
    let runtime = tokio::runtime::Handle::current();
    let (streams, counting, sender) = (plan.streams.clone(), Arc::clone(counts), client.clone());
    let sending = if bench.rate.is_some() {
        let sender = Sender::new(origin, &slices, sender, producers, streams, counting, None);
        tokio::task::spawn_blocking(move || sender.run(schedule, &runtime))
    } else {
        let producer = producers.into_iter().next().expect("a queue has one topic");
        let (duration, size) = (bench.duration, bench.size);
        let flood = Flood { origin, duration, client: sender, producer, streams, size, counts: counting };
        tokio::task::spawn_blocking(move || flood.run(&runtime))
    };
    let progress = Progress::new(&plan.scenario, plan.duration, options.is_quiet);
    let sent =
        await_all(bench, counts, client, sending, |sent, done| progress.update(origin.elapsed(), sent, done)).await;
    progress.finish();
    // Members look at this only between deliveries; those that are gone need no word.
    let _gone = stop.send(true);
    let sent = sent?;
    let mut ends = Vec::new();
    for member in members {
        ends.push(member.await.context("a member ended by a panic")?);
    }
    if let Some(letters) = letters {
        letters.await.context("the reader of dead letters ended by a panic")??;
    }
    let failed = client.stats().detached_failed + sent.refused;
    Ok(QueueReport {
        disk: options.data.as_deref().map(Disk::of),
        floors: options.floors.clone(),
        ..report(bench, plan, &sent, failed, ends, &judge)
    })
}

impl QueueBench {
    const fn has_dead_letters(&self) -> bool {
        0 < self.failing_of_10_000
    }

    fn rules(&self) -> Rules {
        Rules {
            failing_of_10_000: self.failing_of_10_000,
            delivery_limit: if self.has_dead_letters() { self.delivery_limit } else { 0 },
            is_ordered: self.is_ordered,
        }
    }

    fn member(&self, builder: QueueBuilder, topics: &[String]) -> QueueBuilder {
        let bytes = u64::from(self.credit) * u64::from(self.size) * 2;
        let builder = builder
            .dispatch(self.dispatch)
            .order_per_key(self.is_ordered)
            .session_timeout(SESSION_TIMEOUT)
            .backoff(Backoff::Exponential { first: self.backoff, cap: self.backoff * BACKOFF_GROWTH })
            .credit(self.credit, bytes.max(1 << 20));
        match topics.get(1) {
            Some(dead) => builder.delivery_limit(Some(self.delivery_limit.into())).dead_letter(dead),
            None => builder,
        }
    }
}

/// Waits until everything was sent and is done, or nothing new is done for too long.
async fn await_all(
    bench: &QueueBench,
    counts: &Counts,
    client: &Client,
    sending: JoinHandle<SenderEnd>,
    show: impl Fn(u64, u64),
) -> anyhow::Result<SenderEnd> {
    let done = || counts.consumed.load(Ordering::Relaxed);
    while !sending.is_finished() {
        show(counts.sent.load(Ordering::Relaxed), done());
        tokio::time::sleep(LOOK).await;
    }
    let sent = sending.await.context("the sender ended by a panic")?;
    let silence_max = SILENCE_MAX + bench.backoff * BACKOFF_GROWTH;
    let (mut last, mut since) = (0, Instant::now());
    loop {
        show(sent.total(), done());
        // What could not be sent is not waited for.
        if sent.total() <= done() + client.stats().detached_failed {
            // For duplicates.
            tokio::time::sleep(super::LISTEN).await;
            return Ok(sent);
        }
        if last != done() {
            (last, since) = (done(), Instant::now());
        } else if silence_max < since.elapsed() {
            return Ok(sent);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads the topic of dead letters until the run is over.
async fn read_letters(
    mut letters: Consumer,
    judge: Arc<Judge>,
    counts: Arc<Counts>,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            next = letters.next() => next,
            _ = stop.changed() => return Ok(()),
        };
        let Some(batch) = next else { return Ok(()) };
        let batch = batch.context("the topic of dead letters cannot be read")?;
        let mut sitting = judge.sit();
        for record in &batch {
            sitting.on_dead_letter(record.key, record.value);
        }
        drop(sitting);
        counts.consumed.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

fn report(
    bench: &QueueBench,
    plan: &Plan,
    sent: &SenderEnd,
    failed: u64,
    ends: Vec<MemberEnd>,
    judge: &Judge,
) -> QueueReport {
    let total = sent.total();
    let void_reason = sent.void_reason(plan.tick);
    let seen = judge.finish(&sent.sent);
    let seconds = super::seconds(seen.last.saturating_sub(sent.first_due));
    let mut errors = 0;
    let mut first_error = sent.first_refusal.clone();
    let mut members = Vec::new();
    for (number, end) in ends.into_iter().enumerate() {
        errors += end.errors;
        first_error = first_error.or(end.first_error);
        members.push(Member {
            name: format!("member {}", number + 1),
            consumed: end.handed_out,
            rate_per_s: super::per_second(end.handed_out, seconds),
            rate_max: None,
        });
    }
    let tally = seen.tally;
    QueueReport {
        scenario: plan.scenario.clone(),
        is_closed: bench.rate.is_none(),
        void: void_reason.is_some(),
        void_reason,
        dispatch: bench.dispatch.name().to_owned(),
        order_per_key: bench.is_ordered,
        failing_percent: f64::from(bench.failing_of_10_000) / 100.0,
        planned: if bench.rate.is_some() { plan.planned } else { total },
        sent: total,
        received: total.saturating_sub(failed),
        stored: total.saturating_sub(failed),
        consumed: seen.consumed,
        handed_out: tally.handed_out,
        acknowledged: tally.acknowledged,
        dead_letters: tally.dead,
        dead_early: tally.dead_early,
        nacked: tally.nacked,
        redelivered: tally.redelivered,
        lost: tally.lost,
        duplicated: tally.duplicated,
        reordered: tally.reordered,
        corrupt: tally.corrupt,
        refused: tally.refused,
        failed,
        errors,
        first_error,
        seconds,
        rate_per_s: super::per_second(tally.acknowledged + tally.dead, seconds),
        ideal_per_s: bench.rate.map(f64::from),
        slices: sent.slices,
        lateness_us: sent.lateness.percentiles(),
        stolen_ms: sent.stolen_ms(),
        latency_us: Latencies { consumed: seen.handed_out, ..Latencies::default() },
        acknowledged_us: seen.acknowledged,
        members,
        disk: None,
        floors: None,
    }
}
