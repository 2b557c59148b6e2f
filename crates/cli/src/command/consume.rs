//! `corelane consume`.

pub(crate) mod group;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use corelane::{Batch, Client, ConsumeError, Consumer, ErrorCode, Progress, RecordView, SubscriptionError};
use corelane_model::{Isolation, Offset, PartitionIndex, WallMillis};
use tokio::time::Instant;

use super::examples;
use crate::bounds::{at_least, partition_index};
use crate::failure::{Failure, Outcome, refused_as, refused_request};
use crate::format::{Format, Line, Role, print_json};
use crate::patience::{Absence, PATIENCE};
use crate::signals::Signals;
use crate::start::From;
use crate::target::{Target, run};

/// How often a reader to whom nothing comes looks whether the broker is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Read records of topics and print them to standard output, alone or as a member of a consumer group.
///
/// SIGINT or SIGTERM ends it: a member leaves its group, commits what it printed, and ends with 0; without a group the exit
/// code is 130, since an end that was asked for did not come.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane consume chat                           from the first on, for ever",
        "corelane consume chat --from -5m --until end    the last five minutes",
        "corelane consume inputs -p 3 -n 10 -f '%o %k=%s\\n'  ten records of partition 3",
        "corelane consume inputs chat -g scores          share two topics with a group",
    ),
    after_help = "Format letters: %t topic, %p partition, %o offset, %k key, %K its length, %s value, %S its length, %R its \
                  length as four bytes, %T append timestamp in milliseconds, %h headers, %r the reader's role, %% a percent sign; and \\n \\r \\t \
                  \\0 \\\\ \\xHH."
)]
pub(crate) struct Consume {
    #[command(flatten)]
    target: Target,
    /// The topic; as a member of a group, the topics.
    #[arg(value_name = "TOPIC", required_unless_present = "pattern")]
    topics: Vec<String>,
    /// Only this partition; may be given several times. When it is left out, all that there are when reading begins.
    #[arg(short, long = "partition", value_name = "PARTITION", value_parser = partition_index())]
    partitions: Vec<u32>,
    /// Where to start: earliest, latest, an offset, a time ago such as -5m, or @ and milliseconds since 1970.
    #[arg(long, value_name = "START", default_value = "earliest", allow_hyphen_values = true)]
    from: From,
    /// Stop after this many records.
    #[arg(short = 'n', long, value_name = "N", value_parser = at_least(0))]
    count: Option<u64>,
    /// Stop at what was the end when reading began; for committed records that is before the first open transaction.
    #[arg(long, value_enum)]
    until: Option<Until>,
    /// Which records are read: all, or those alone whose transactions are committed.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Wanted::Uncommitted)]
    isolation: Wanted,
    /// How to print a record.
    #[arg(short, long, value_name = "FORMAT", default_value = "%s\\n", conflicts_with = "json")]
    format: Format,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    membership: group::Membership,
}

/// Where reading stops.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Until {
    /// What was the end when reading began.
    End,
}

/// `--isolation`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Wanted {
    /// Only records whose transactions are committed, up to the first open one.
    #[value(alias = "read-committed")]
    Committed,
    /// All records.
    #[value(alias = "read-uncommitted")]
    Uncommitted,
}

impl Wanted {
    pub(crate) const fn to_model(self) -> Isolation {
        match self {
            Self::Committed => Isolation::Committed,
            Self::Uncommitted => Isolation::Uncommitted,
        }
    }
}

impl Consume {
    pub(crate) fn run(self) -> Outcome {
        run(async {
            let client = self.target.connect().await?;
            let read = match &self.membership.group {
                Some(group) => self.read_as_member(&client, group).await,
                None => {
                    let mut signals = Signals::listen().map_err(Failure::failed)?;
                    let mut out = BufWriter::new(io::stdout().lock());
                    tokio::select! {
                        read = self.read_alone(&client, &mut out) => read,
                        signal = signals.next() => Err(Stop::Signal(signal)),
                    }
                }
            };
            client.close().await;
            match read {
                Err(Stop::Output(error)) => Err(error.into()),
                Err(Stop::Failure(failure)) => Err(failure),
                Err(Stop::Signal(signal)) => Err(Failure::interrupted(format!("{signal} ended it"))),
                Ok(()) => Ok(()),
            }
        })
    }

    async fn read_alone(&self, client: &Client, out: &mut impl Write) -> Result<(), Stop> {
        let mut reading = self.open(client).await.map_err(Stop::Failure)?;
        self.read(client, &mut reading, out).await
    }

    async fn open(&self, client: &Client) -> Outcome<Reading> {
        let [topic] = &self.topics[..] else {
            return Err(Failure::usage("one topic at a time without -g GROUP; members of a group read several"));
        };
        let mut builder = client.consumer(topic).from(self.from.to_model(wall_clock()));
        builder = builder.isolation(self.isolation.to_model());
        for &partition in &self.partitions {
            builder = builder.partition(PartitionIndex(partition));
        }
        let consumer = builder.open().await.map_err(failed)?;
        let positions = consumer.positions();
        let ends = positions.iter().filter(|position| position.next < position.high_watermark);
        let ends =
            self.until.map(|Until::End| ends.map(|position| (position.partition, position.high_watermark)).collect());
        Ok(Reading { consumer, ends, left: self.count.unwrap_or(u64::MAX), absence: Absence::default() })
    }

    async fn read(&self, client: &Client, reading: &mut Reading, out: &mut impl Write) -> Result<(), Stop> {
        while !reading.is_done() {
            let next = match reading.consumer.poll_progress(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    // Whoever reads our output sees what there is before we wait for more.
                    out.flush()?;
                    reading.next(client).await
                }
            };
            let Some(progress) = next else { break };
            match progress.map_err(|error| Stop::Failure(failed(error)))? {
                Progress::Batch(batch) => self.print(reading, &batch, out)?,
                Progress::Passed(position) => reading.is_at(position.partition, position.next),
                Progress::Missed { partition, offsets } => {
                    warn_of_missed(&format!("topic {} partition {partition}", self.topics[0]), &offsets);
                    reading.is_at(partition, offsets.end);
                }
            }
        }
        Ok(out.flush()?)
    }

    fn print(&self, reading: &mut Reading, batch: &Batch, out: &mut impl Write) -> Result<(), Stop> {
        let partition = batch.partition();
        let end = reading.ends.as_ref().map(|ends| ends.get(&partition).copied().unwrap_or_default());
        for record in batch {
            if reading.left == 0 || end.is_some_and(|end| end <= record.offset) {
                break;
            }
            reading.left -= 1;
            self.print_record(out, (&self.topics[0], Role::Reader), batch, &record)?;
        }
        reading.is_at(partition, batch.end_offset());
        Ok(())
    }

    fn print_record(
        &self,
        out: &mut impl Write,
        (topic, role): (&str, Role),
        batch: &Batch,
        record: &RecordView<'_>,
    ) -> io::Result<()> {
        let line = Line {
            topic,
            role,
            partition: batch.partition().0,
            offset: record.offset.0,
            timestamp: batch.append_timestamp().0,
            key: record.key,
            value: record.value,
            headers: record.headers().collect(),
        };
        if self.json { print_json(out, &line) } else { self.format.print(out, &line) }
    }
}

/// A consumer and when it is through.
struct Reading {
    consumer: Consumer,
    /// Ends of the partitions that are not read up to them yet, if there is to be an end.
    ends: Option<BTreeMap<PartitionIndex, Offset>>,
    /// Records that may still be printed.
    left: u64,
    absence: Absence,
}

impl Reading {
    /// Waits for what comes next, and says so when the broker is away meanwhile.
    async fn next(&mut self, client: &Client) -> Option<Result<Progress, ConsumeError>> {
        loop {
            if let Ok(next) = tokio::time::timeout(LOOK_EVERY, self.consumer.progress()).await {
                return next;
            }
            let stats = client.stats();
            if self.absence.look(Instant::now(), stats.connections_lost < stats.connections_ready) {
                let _untold = writeln!(
                    io::stderr(),
                    "the broker has been away for {PATIENCE:?}; reading goes on when it is back, `corelane status` tells how it is"
                );
            }
        }
    }

    /// Everything of a partition before an offset was read.
    fn is_at(&mut self, partition: PartitionIndex, next: Offset) {
        if let Some(ends) = &mut self.ends
            && ends.get(&partition).is_some_and(|&end| end <= next)
        {
            ends.remove(&partition);
        }
    }

    fn is_done(&self) -> bool {
        self.left == 0 || self.ends.as_ref().is_some_and(BTreeMap::is_empty)
    }
}

/// Why printing stopped.
enum Stop {
    Output(io::Error),
    Failure(Failure),
    Signal(&'static str),
}

impl std::convert::From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Says on standard error that records were gone before they could be read.
fn warn_of_missed(of: &str, offsets: &Range<Offset>) {
    // Nobody is left to be told if standard error is gone.
    let _untold = writeln!(io::stderr(), "{}", missed(of, offsets));
}

fn missed(of: &str, offsets: &Range<Offset>) -> String {
    let Range { start, end } = offsets;
    let last = end.0.saturating_sub(1);
    let places = if start.0 == last { format!("offset {start}") } else { format!("offsets {start} to {last}") };
    format!("{of}: what was at {places} was gone before it could be read; reading goes on at {end}")
}

fn failed(error: ConsumeError) -> Failure {
    match &error {
        ConsumeError::Name(_) => Failure::usage(error),
        ConsumeError::Request(error) => refused_request(error),
        ConsumeError::Subscription { error: SubscriptionError::UnknownTopic { .. }, .. } => {
            refused_as(ErrorCode::UnknownTopic, &error)
        }
        ConsumeError::Subscription { .. } => Failure::failed(error),
    }
}

pub(crate) fn wall_clock() -> WallMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_said_with_its_offsets() {
        let said = |start, end| missed("topic t partition 3", &(Offset(start)..Offset(end)));
        let rest = "was gone before it could be read; reading goes on at";
        assert_eq!(said(3, 10), format!("topic t partition 3: what was at offsets 3 to 9 {rest} 10"));
        assert_eq!(said(9, 10), format!("topic t partition 3: what was at offset 9 {rest} 10"));
    }
}
