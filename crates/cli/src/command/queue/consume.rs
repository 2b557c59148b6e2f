//! `corelane queue consume`: a member that prints, or hands records to a command.

use std::io::{self, BufWriter, Write};
use std::process::Stdio;

use clap::Args;
use corelane::{Client, Leased, LeasedRecord, Nack, QueueConsumer, VerdictError, VerdictTicket};
use corelane_broker::quantity::Span;
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{Named, Wishes, outcome};
use crate::command::consume::wall_clock;
use crate::command::examples;
use crate::failure::{Failure, Outcome};
use crate::format::{Format, Line, Role, print_json};
use crate::start::From;

/// Records that a member which works one after the other has at once.
const CREDIT_RECORDS: u32 = 64;
/// Their bytes.
const CREDIT_BYTES: u64 = 1 << 20;

/// Work on a shared queue: print records, or hand each to a command, and acknowledge what went well.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane queue consume jobs -g workers          print, acknowledge each",
        "corelane queue consume jobs -g workers -n 1 --json          the next one",
        "corelane queue consume jobs -g workers --exec 'resize-avatar'",
    ),
    after_help = "A command gets a record's value on standard input, and CORELANE_KEY, CORELANE_PARTITION, CORELANE_OFFSET and \
                  CORELANE_ATTEMPT. If it ends with 0 the record is acknowledged, else it failed: it rests by the queue's \
                  back-off and is handed out again, until it reaches the delivery limit."
)]
pub(super) struct Consume {
    #[command(flatten)]
    named: Named,
    /// Stop after this many records.
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// How to print a record.
    #[arg(short, long, value_name = "FORMAT", default_value = "%s\\n", conflicts_with_all = ["json", "exec"])]
    format: Format,
    /// Print a JSON object a line.
    #[arg(long, conflicts_with = "exec")]
    json: bool,
    /// Hand each record to this shell command instead of printing it.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Where a new queue begins: earliest, latest, a time ago such as -5m, or @ and milliseconds since 1970.
    #[arg(long, value_name = "START", default_value = "earliest", allow_hyphen_values = true)]
    from: From,
    /// What this member can do compared to others, for the dispatch weighted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    weight: Option<u32>,
    /// Silent for longer, this member is dead and others get what it has [default: 10s].
    #[arg(long, value_name = "TIME")]
    session_timeout: Option<Span>,
    #[command(flatten)]
    wishes: Wishes,
}

impl Consume {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut consumer = self.join(client).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut last = None;
        while 0 < left {
            let next = tokio::select! {
                next = consumer.next() => next,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            };
            let Some(leased) = next else { break };
            last = self.work(&consumer, &outcome(leased)?, &mut left).await?;
        }
        let settled = match last {
            Some(ticket) => ticket.durable().await,
            None => Ok(()),
        };
        // It leaves whatever became of the last word, so that nobody waits for its session to end.
        let closed = consumer.close().await;
        settled.map_err(|error| self.unsettled(&error))?;
        outcome(closed)
    }

    fn unsettled(&self, error: &VerdictError) -> Failure {
        let Named { topic, group } = &self.named;
        match (error, &self.exec) {
            (VerdictError::LeaseOver, Some(_)) => Failure::failed(format!(
                "{error}; the command may take longer than the visibility time-out: corelane queue alter {topic} -g \
                 {group} --visibility TIME"
            )),
            _ => Failure::failed(error),
        }
    }

    async fn join(&self, client: &Client) -> Outcome<QueueConsumer> {
        let Named { topic, group } = &self.named;
        let wish = self.wishes.to_model();
        // What will not be printed is not taken from others.
        let records = u32::try_from(self.count.unwrap_or(u64::MAX)).unwrap_or(u32::MAX).min(CREDIT_RECORDS);
        let mut builder = client
            .queue(group, topic)
            .wish(wish)
            .from(self.from.to_model(wall_clock()))
            .credit(if self.exec.is_some() { 1 } else { records.max(1) }, CREDIT_BYTES);
        if let Some(weight) = self.weight {
            builder = builder.weight(weight);
        }
        if let Some(Span(timeout)) = self.session_timeout {
            builder = builder.session_timeout(timeout);
        }
        outcome(builder.join().await)
    }

    /// Prints or hands on the records that came together; returns the last that was said.
    async fn work(&self, consumer: &QueueConsumer, leased: &Leased, left: &mut u64) -> Outcome<Option<VerdictTicket>> {
        let mut last = None;
        let mut printed = Vec::new();
        let mut out = BufWriter::new(io::stdout().lock());
        for record in leased {
            if *left == 0 {
                break;
            }
            *left -= 1;
            if let Some(command) = &self.exec {
                last = Some(self.hand_over(consumer, command, &record).await?);
            } else {
                self.print(&mut out, &record)?;
                printed.push(record.lease);
            }
        }
        // Whoever reads our output has them before they count as done.
        out.flush()?;
        for lease in printed {
            last = Some(consumer.ack(lease));
        }
        Ok(last)
    }

    fn print(&self, out: &mut impl Write, record: &LeasedRecord<'_>) -> io::Result<()> {
        let line = Line {
            topic: &self.named.topic,
            role: Role::Reader,
            partition: record.lease.partition.0,
            offset: record.lease.offset.0,
            timestamp: record.timestamp.0,
            key: record.key,
            value: record.value,
            headers: record.headers().collect(),
        };
        if self.json { print_json(out, &line) } else { self.format.print(out, &line) }
    }

    async fn hand_over(
        &self,
        consumer: &QueueConsumer,
        command: &str,
        record: &LeasedRecord<'_>,
    ) -> Outcome<VerdictTicket> {
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", command])
            .env("CORELANE_KEY", String::from_utf8_lossy(record.key.unwrap_or_default()).replace('\0', ""))
            .env("CORELANE_PARTITION", record.lease.partition.0.to_string())
            .env("CORELANE_OFFSET", record.lease.offset.0.to_string())
            .env("CORELANE_ATTEMPT", record.lease.attempt.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot start {command:?}: {error}")))?;
        if let Some(mut input) = child.stdin.take() {
            // A command may end without reading what it gets.
            drop(input.write_all(record.value.unwrap_or_default()).await);
        }
        let status = child.wait().await.map_err(|error| Failure::failed(format!("{command:?}: {error}")))?;
        Ok(if status.success() {
            consumer.ack(record.lease)
        } else {
            consumer.nack(record.lease, Nack::because(format!("the command ended with {status}")))
        })
    }
}
