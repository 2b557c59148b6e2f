//! A consumer group under load: N members that each take at most M messages a second, undisturbed, restarted one after
//! another, or with one that dies.

mod member;
mod process;
mod watch_partitions;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use corelane::{Client, TopicClass};
use tokio::sync::mpsc;

use super::{Counts, LOOK, RunOptions, connect, create_topics, delete_topics, open_producers};
use crate::disk::Disk;
use crate::progress::Progress;
use crate::report::group::GroupReport;
use crate::report::{Latencies, Member};
use crate::run::sender::{Sender, SenderEnd};
use crate::run::tickets;
use crate::scenario::NxM;
use crate::slice::Slices;
use member::{Command, GroupMember, MemberEnd};
use process::MemberProcess;
use watch_partitions::Watch;

pub use member::Join;
pub use process::run_member;

/// What happens to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Nothing.
    None,
    /// One is restarted.
    Restart,
    /// One is restarted, then all are, one after another.
    Rolling,
    /// One, in a process of its own, is killed.
    Crash,
}

/// The knobs.
#[derive(Clone, Debug)]
pub struct GroupBench {
    /// N: how many members.
    pub members: u32,
    /// M: messages a second of one member.
    pub rate: u32,
    /// Partitions for each member.
    pub partitions_per_member: u32,
    /// Bytes of a message.
    pub size: u32,
    /// How long.
    pub duration: Duration,
    /// What happens meanwhile.
    pub disturbance: Disturbance,
    /// The members' session time-out.
    pub session_timeout: Duration,
    /// Whether members have static ids, so that a restart moves nothing.
    pub is_static: bool,
    /// The program whose command `bench member` is the member that is killed.
    pub program: PathBuf,
}

/// Members must share all partitions within this time before the load begins.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How long a restarted member is away.
const AWAY: Duration = Duration::from_millis(100);
/// Members that see nothing new for this long after their session time-out will see nothing more.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Carries out a run.
///
/// # Errors
/// The broker cannot be reached, or refuses what the run needs. A run that loses messages is no error: the report says so.
pub async fn run(bench: GroupBench, options: &RunOptions) -> anyhow::Result<GroupReport> {
    let client = connect(options, "corelane-bench").await?;
    let mut plan = NxM {
        members: bench.members,
        rate: bench.rate,
        partitions_per_member: bench.partitions_per_member,
        size: bench.size,
        duration: bench.duration,
        class: TopicClass::Durable,
    }
    .plan();
    let topics = create_topics(&client, &plan).await?;
    // Named after the topic, which is named after the run.
    let group = topics[0].clone();
    let schedule = std::mem::replace(&mut plan.schedule, Box::new(std::iter::empty()));
    let ended = on_topic(&bench, options, &client, &topics, &group, &plan, schedule).await;
    delete_topics(&client, &topics).await;
    // What is left of the group goes with its retention all the same.
    if let Err(error) = client.groups().delete(&group).await {
        tracing::debug!(%group, %error, "the group of the run was not deleted");
    }
    client.close().await;
    ended
}

async fn on_topic(
    bench: &GroupBench,
    options: &RunOptions,
    client: &Client,
    topics: &[String],
    group: &str,
    plan: &crate::plan::Plan,
    schedule: crate::plan::Schedule,
) -> anyhow::Result<GroupReport> {
    let counts = Arc::new(Counts::default());
    let watch = Arc::new(Watch::new(plan.streams.len()));
    let mut crew = Crew::assemble(bench, options, &topics[0], group, &counts, &watch).await?;
    crew.settle(&watch).await?;

    let producers = open_producers(client, topics, options).await?;
    let origin = Instant::now();
    let slices = Arc::new(Slices::new(plan.tick, plan.duration));
    watch.begin(origin, &slices);
    let (sent_tickets, ticket_queue) = mpsc::unbounded_channel();
    let collector = tokio::spawn(tickets::collect(ticket_queue, origin, Arc::clone(&slices), options.acks));
    let sender = Sender::new(
        origin,
        &slices,
        client.clone(),
        producers,
        plan.streams.clone(),
        Arc::clone(&counts),
        Some(sent_tickets),
    );
    let runtime = tokio::runtime::Handle::current();
    let sending = tokio::task::spawn_blocking(move || sender.run(schedule, &runtime));
    let progress = Progress::new(&plan.scenario, plan.duration, options.is_quiet);
    let show = || {
        let (sent, consumed) = (counts.sent.load(Ordering::Relaxed), counts.consumed.load(Ordering::Relaxed));
        progress.update(origin.elapsed(), sent, consumed);
    };
    let mut steps = bench.steps().into_iter().peekable();
    while !sending.is_finished() {
        show();
        if let Some((_, member, command)) = steps.next_if(|(at, ..)| *at <= origin.elapsed()) {
            watch.disturb();
            crew.tell(member, command);
        }
        tokio::time::sleep(LOOK.min(Duration::from_millis(5))).await;
    }
    let sent = sending.await.context("the sender ended by a panic")?;
    let tickets = collector.await.context("the collector of tickets ended by a panic")?;
    await_all(sent.total(), &counts, bench.session_timeout + SILENCE_MAX, show).await;
    progress.finish();
    let ends = crew.dismiss().await?;
    Ok(GroupReport {
        disk: options.data.as_deref().map(Disk::of),
        floors: options.floors.clone(),
        ..judge(bench, plan, &sent, &tickets, ends, &watch)
    })
}

impl GroupBench {
    /// What happens when, and to whom.
    fn steps(&self) -> Vec<(Duration, u32, Command)> {
        let at = |tenths: u32| self.duration * tenths / 10;
        match self.disturbance {
            Disturbance::None => Vec::new(),
            Disturbance::Restart => vec![(at(3), 0, Command::Restart)],
            Disturbance::Crash => vec![(at(3), 0, Command::Die)],
            Disturbance::Rolling => {
                // One at two tenths, all from four tenths on; the last is back by eight.
                let later = (0..self.members)
                    .map(|member| (at(4) + self.duration * 4 / 10 * member / self.members, member, Command::Restart));
                std::iter::once((at(2), 0, Command::Restart)).chain(later).collect()
            }
        }
    }

    /// Whether this member is one to be killed.
    fn is_killed(&self, member: u32) -> bool {
        self.steps().iter().any(|&(_, other, command)| other == member && command == Command::Die)
    }

    /// What a member takes at most. Where members fall out the others take their share too, so that there is no limit.
    fn rate_max(&self) -> Option<u32> {
        (self.disturbance == Disturbance::None).then_some(self.rate)
    }

    fn name(&self) -> String {
        let what = match (self.disturbance, self.is_static) {
            (Disturbance::None, _) => "group",
            (Disturbance::Restart, false) => "group-restart",
            (Disturbance::Restart, true) => "group-restart-static",
            (Disturbance::Rolling, false) => "group-rolling",
            (Disturbance::Rolling, true) => "group-rolling-static",
            (Disturbance::Crash, _) => "group-crash",
        };
        format!("{what}-{}x{}", self.members, self.rate)
    }
}

/// All members.
struct Crew {
    commands: Vec<mpsc::UnboundedSender<Command>>,
    tasks: Vec<tokio::task::JoinHandle<MemberEnd>>,
    joined: Arc<AtomicU32>,
}

impl Crew {
    async fn assemble(
        bench: &GroupBench,
        options: &RunOptions,
        topic: &str,
        group: &str,
        counts: &Arc<Counts>,
        watch: &Arc<Watch>,
    ) -> anyhow::Result<Self> {
        let joined = Arc::new(AtomicU32::new(0));
        let mut crew = Self { commands: Vec::new(), tasks: Vec::new(), joined: Arc::clone(&joined) };
        for number in 0..bench.members {
            let join = Join {
                topic: topic.to_owned(),
                group: group.to_owned(),
                static_id: bench.is_static.then(|| format!("member-{number}")),
                session_timeout: bench.session_timeout,
            };
            let member = GroupMember {
                number,
                join,
                rate_max: bench.rate_max(),
                options: options.clone(),
                counts: Arc::clone(counts),
                watch: Arc::clone(watch),
            };
            let (sender, receiver) = mpsc::unbounded_channel();
            let task = if bench.is_killed(number) {
                let process = MemberProcess::start(&bench.program, &member).await?;
                tokio::spawn(process.run(Arc::clone(counts), Arc::clone(watch), receiver))
            } else {
                let consumer = member.join().await?;
                tokio::spawn(member.run(consumer, receiver))
            };
            joined.fetch_add(1, Ordering::Relaxed);
            crew.commands.push(sender);
            crew.tasks.push(task);
        }
        Ok(crew)
    }

    /// Waits until every member has its share.
    async fn settle(&mut self, watch: &Watch) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !watch.is_shared_by(self.joined.load(Ordering::Relaxed)) {
            anyhow::ensure!(begin.elapsed() < SETTLE_MAX, "the members do not come to share the partitions");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn tell(&self, member: u32, command: Command) {
        // A member that is gone needs no word.
        let _gone = self.commands[member as usize].send(command);
    }

    async fn dismiss(self) -> anyhow::Result<Vec<MemberEnd>> {
        for commands in &self.commands {
            let _gone = commands.send(Command::Leave);
        }
        let mut ends = Vec::new();
        for task in self.tasks {
            ends.push(task.await.context("a member ended by a panic")?);
        }
        Ok(ends)
    }
}

/// Waits until members have seen everything, or nothing new for too long.
async fn await_all(expected: u64, counts: &Counts, silence_max: Duration, show: impl Fn()) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        show();
        let consumed = counts.consumed.load(Ordering::Relaxed);
        if expected <= consumed {
            // For duplicates.
            return tokio::time::sleep(super::LISTEN).await;
        }
        if last != consumed {
            (last, since) = (consumed, Instant::now());
        } else if silence_max < since.elapsed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn judge(
    bench: &GroupBench,
    plan: &crate::plan::Plan,
    sent: &SenderEnd,
    tickets: &tickets::TicketsEnd,
    ends: Vec<MemberEnd>,
    watch: &Watch,
) -> GroupReport {
    let total = sent.total();
    let void_reason = sent.void_reason(plan.tick);
    let seen = watch.finish(&sent.sent);
    let seconds = super::seconds(seen.last.saturating_sub(sent.first_due));
    let mut errors = 0;
    let mut first_error = None;
    let mut members = Vec::new();
    for end in ends {
        errors += end.errors;
        first_error = first_error.or(end.first_error);
        members.push(Member {
            name: format!("member {}", end.number + 1),
            consumed: end.consumed,
            rate_per_s: super::per_second(end.consumed, seconds),
            rate_max: bench.rate_max(),
        });
    }
    GroupReport {
        scenario: bench.name(),
        void: void_reason.is_some(),
        void_reason,
        planned: plan.planned,
        sent: total,
        received: tickets.received_count,
        stored: tickets.stored_count,
        consumed: seen.verdict.consumed,
        lost: seen.verdict.lost,
        duplicated: seen.verdict.duplicated,
        reordered: seen.verdict.reordered,
        corrupt: seen.verdict.corrupt,
        failed: tickets.failed + sent.refused,
        disturbed: u32::try_from(bench.steps().len()).unwrap_or(u32::MAX),
        errors,
        first_error,
        moved: seen.moved,
        unmoved: seen.unmoved,
        partitions: seen.partitions,
        session_timeout_ms: u64::try_from(bench.session_timeout.as_millis()).unwrap_or(u64::MAX),
        seconds,
        rate_per_s: super::per_second(seen.verdict.consumed, seconds),
        ideal_per_s: plan.ideal_per_s,
        slices: sent.slices,
        lateness_us: sent.lateness.percentiles(),
        stolen_ms: sent.stolen_ms(),
        latency_us: Latencies {
            received: tickets.received.percentiles(),
            stored: tickets.stored.percentiles(),
            consumed: seen.latency,
        },
        members,
        disk: None,
        floors: None,
    }
}
