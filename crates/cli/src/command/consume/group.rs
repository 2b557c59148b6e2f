//! `corelane consume -g`: reading as a member of a consumer group.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use corelane::{
    Client, CommitTicket, Event, FollowedBatch, GroupBatch, GroupBuilder, GroupConsumer, GroupError, Offset,
    TopicPartition,
};
use corelane_broker::quantity::Span;
use corelane_model::limits::{GROUP_CAPACITY_MAX, GROUP_SESSION_TIMEOUT_MAX, GROUP_SESSION_TIMEOUT_MIN};
use corelane_model::{ResetPolicy, StartAt, Strategy, WallMillis};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Consume, Stop, wall_clock, warn_of_missed};
use crate::bounds::within;
use crate::failure::{Failure, Outcome, refused_as, refused_request};
use crate::format::Role;
use crate::start::From;

/// How often `--commit auto` commits.
const AUTO_COMMIT: Duration = Duration::from_secs(1);

/// How a member of a group reads.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Consumer group")]
pub(super) struct Membership {
    /// Share the partitions of the topics with the other members of this group, and commit what is done.
    #[arg(short = 'g', long = "group", value_name = "GROUP", conflicts_with_all = ["partitions", "until", "from"])]
    pub(super) group: Option<String>,
    /// All topics whose whole name matches this regular expression, beside those that are named.
    #[arg(long, value_name = "REGEX", requires = "group")]
    pub(super) pattern: Option<String>,
    /// How partitions are assigned: range, round-robin, sticky, cooperative-sticky, weighted or least-response-time. The
    /// first member of a group chooses.
    #[arg(long, value_name = "STRATEGY", requires = "group", value_parser = Strategy::parse)]
    strategy: Option<Strategy>,
    /// A name that outlives the process: its partitions wait for it, at most for its session time-out, and whoever comes
    /// back with it has them again without anybody else noticing.
    #[arg(long, value_name = "ID", requires = "group")]
    static_id: Option<String>,
    /// What is committed when.
    #[arg(long, value_enum, default_value_t = CommitMode::Auto, requires = "group")]
    commit: CommitMode,
    /// What this member can do compared to others, for the strategy weighted.
    #[arg(long, value_name = "N", requires = "group", value_parser = within(1, GROUP_CAPACITY_MAX))]
    capacity: Option<u32>,
    /// Silent for longer, this member is dead and others get its partitions [default: 10s].
    #[arg(
        long,
        value_name = "TIME",
        requires = "group",
        value_parser = within(Span(GROUP_SESSION_TIMEOUT_MIN), Span(GROUP_SESSION_TIMEOUT_MAX))
    )]
    session_timeout: Option<Span>,
    /// Where to begin without a committed offset: earliest, latest, error, a time ago such as -5m, or @ and milliseconds
    /// since 1970 [default: latest].
    #[arg(long, value_name = "START", allow_hyphen_values = true, requires = "group")]
    reset: Option<Reset>,
    /// Follow the partitions that this member stands by for, from there on in each, and print their records too; the format
    /// letter %r and "role" in JSON tell them apart. How many follow each partition says corelane group alter.
    #[arg(long, value_name = "START", allow_hyphen_values = true, requires = "group")]
    follow_standbys: Option<From>,
}

/// What is committed when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CommitMode {
    /// Each second what was printed by then.
    Auto,
    /// Each record when it is printed.
    Each,
    /// Each record batch when it is printed.
    Batch,
}

/// `--reset`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reset {
    Error,
    At(From),
}

impl std::str::FromStr for Reset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no reset policy; write earliest, latest, error, or a time ago such as -5m");
        match text {
            "error" => Ok(Self::Error),
            _ => match text.parse() {
                Ok(From::Offset(_)) | Err(_) => Err(wrong()),
                Ok(from) => Ok(Self::At(from)),
            },
        }
    }
}

impl Reset {
    fn to_model(self, now: WallMillis) -> ResetPolicy {
        match self {
            Self::Error => ResetPolicy::Error,
            Self::At(from) => match from.to_model(now) {
                StartAt::Earliest => ResetPolicy::Earliest,
                StartAt::Time(time) => ResetPolicy::Time(time),
                StartAt::Latest | StartAt::Offset(_) => ResetPolicy::Latest,
            },
        }
    }
}

impl Membership {
    fn builder(&self, client: &Client, group: &str, topics: &[String], is_counted: bool) -> GroupBuilder {
        let mut builder = client.group(group).topics(topics);
        builder = match self.mode(is_counted) {
            CommitMode::Auto => builder.auto_commit(AUTO_COMMIT),
            CommitMode::Each | CommitMode::Batch => builder.manual_commit(),
        };
        if let Some(pattern) = &self.pattern {
            builder = builder.pattern(pattern);
        }
        if let Some(strategy) = self.strategy {
            builder = builder.strategy(strategy);
        }
        if let Some(id) = &self.static_id {
            builder = builder.static_id(id);
        }
        if let Some(capacity) = self.capacity {
            builder = builder.capacity(capacity);
        }
        if let Some(Span(timeout)) = self.session_timeout {
            builder = builder.session_timeout(timeout);
        }
        if let Some(reset) = self.reset {
            builder = builder.reset(reset.to_model(wall_clock()));
        }
        if let Some(from) = self.follow_standbys {
            builder = builder.follow_standbys(from.to_model(wall_clock()));
        }
        builder
    }

    /// What stops after a number of records may stop inside a batch, of which auto-commit knows nothing.
    fn mode(&self, is_counted: bool) -> CommitMode {
        if is_counted && self.commit == CommitMode::Auto { CommitMode::Batch } else { self.commit }
    }
}

/// SIGINT and SIGTERM: the member leaves, so that nobody waits for its session to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn arrives(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Consume {
    pub(super) async fn read_as_member(&self, client: &Client, group: &str) -> Result<(), Stop> {
        let mut signals = Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(Stop::Output)?,
            terminate: signal(SignalKind::terminate()).map_err(Stop::Output)?,
        };
        let builder = self.membership.builder(client, group, &self.topics, self.count.is_some());
        let builder = builder.isolation(self.isolation.to_model());
        let mut consumer = builder.join().await.map_err(|error| stop(&error))?;
        let mut reading = MemberReading { left: self.count.unwrap_or(u64::MAX), last_commit: None };
        let mut out = BufWriter::new(io::stdout().lock());
        let read = loop {
            if reading.left == 0 {
                break Ok(());
            }
            let event = tokio::select! {
                event = consumer.next() => event,
                () = signals.arrives() => break Ok(()),
            };
            let Some(event) = event else { break Ok(()) };
            if let Err(stop) = self.on_event(&mut consumer, event, &mut reading, &mut out) {
                break Err(stop);
            }
        };
        if let Err(Stop::Output(_)) = read {
            // What was not printed is not done: nothing is committed on the way out.
            drop(consumer);
            return read;
        }
        if read.is_err() {
            // It leaves, so that nobody waits for its session to end; why it stopped is what is told.
            let _gone = consumer.close().await;
            return read;
        }
        if let Some(ticket) = reading.last_commit {
            ticket.durable().await.map_err(|error| Stop::Failure(Failure::failed(error)))?;
        }
        // Who has a name comes back: its partitions wait for it, as they do when it is killed.
        let gone = if self.membership.static_id.is_some() { consumer.detach().await } else { consumer.close().await };
        gone.map_err(|error| stop(&error))
    }

    fn on_event(
        &self,
        consumer: &mut GroupConsumer,
        event: Result<Event, GroupError>,
        reading: &mut MemberReading,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        match event {
            Ok(Event::Batch(batch)) => self.print_as_member(consumer, &batch, reading, out),
            Ok(Event::Followed(batch)) => self.print_followed(&batch, out),
            Ok(Event::Missed { partition, offsets }) => {
                let TopicPartition { topic, partition } = &*partition;
                warn_of_missed(&format!("topic {topic} partition {partition}"), &offsets);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(stop(&error)),
        }
    }

    /// What is another's is printed as it comes; it counts for nothing and is not committed.
    fn print_followed(&self, batch: &FollowedBatch, out: &mut impl Write) -> Result<(), Stop> {
        for record in batch {
            self.print_record(out, (batch.topic().as_str(), Role::Standby), batch, &record)?;
        }
        Ok(out.flush()?)
    }

    fn print_as_member(
        &self,
        consumer: &mut GroupConsumer,
        batch: &GroupBatch,
        reading: &mut MemberReading,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        let mode = self.membership.mode(self.count.is_some());
        let mut done: Option<Offset> = None;
        for record in batch {
            if reading.left == 0 {
                break;
            }
            reading.left -= 1;
            self.print_record(out, (batch.topic().as_str(), Role::Owner), batch, &record)?;
            done = Some(record.offset);
            if mode == CommitMode::Each {
                out.flush()?;
                reading.last_commit = Some(consumer.commit_record(batch, record.offset));
            }
        }
        // Whoever reads our output has it before it counts as done.
        out.flush()?;
        if mode == CommitMode::Batch
            && let Some(done) = done
        {
            reading.last_commit = Some(consumer.commit_record(batch, done));
        }
        Ok(())
    }
}

/// Where reading as a member is.
struct MemberReading {
    /// Records that may still be printed.
    left: u64,
    last_commit: Option<CommitTicket>,
}

fn stop(error: &GroupError) -> Stop {
    Stop::Failure(failed(error))
}

/// How a command about groups ends that failed.
pub(crate) fn failed(error: &GroupError) -> Failure {
    use corelane::MembershipError;
    match error {
        GroupError::Topic(_)
        | GroupError::Name(_)
        | GroupError::NothingNamed { .. }
        | GroupError::HandOverTooLarge { .. } => Failure::usage(error),
        GroupError::Membership { error: MembershipError::TimedOut { was_sent: false }, .. } => {
            Failure::unreachable(error)
        }
        GroupError::Membership { error: MembershipError::Refused { code, .. }, .. } => refused_as(*code, error),
        GroupError::Request(error) => refused_request(error),
        GroupError::NoCommittedOffset { .. } => {
            Failure::failed(format!("{error}: corelane group seek, or another --reset than error"))
        }
        _ => Failure::failed(error),
    }
}

/// The outcome of a command about groups.
pub(crate) fn outcome<T>(result: Result<T, GroupError>) -> Outcome<T> {
    result.map_err(|error| failed(&error))
}
