//! `corelane queue consume`: a member that prints, or hands records to a command.

use std::io::{self, BufWriter, Write};

use clap::Args;
use corelane::{Client, Leased, LeasedRecord, QueueConsumer, VerdictTicket};
use corelane_broker::quantity::Span;
use corelane_model::limits::{GROUP_CAPACITY_MAX, GROUP_SESSION_TIMEOUT_MAX, GROUP_SESSION_TIMEOUT_MIN};
use tokio::signal::unix::{SignalKind, signal};

use super::exec::Hand;
use super::{Named, Wishes, outcome};
use crate::bounds::{at_least, within};
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
                  back-off and is handed out again, until it reaches the delivery limit. However long the command runs, \
                  the record stays its own: the lease is extended after each third of the visibility time-out. If it is \
                  lost all the same, because the broker or this machine was away for longer, that is said, the \
                  record is not acknowledged, and the exit code is 1 in the end."
)]
pub(super) struct Consume {
    #[command(flatten)]
    named: Named,
    /// Stop after this many records.
    #[arg(short = 'n', long, value_name = "N", value_parser = at_least(0))]
    count: Option<u64>,
    /// How to print a record.
    #[arg(short, long, value_name = "FORMAT", default_value = "%s\\n", conflicts_with_all = ["json", "exec"])]
    format: Format,
    /// Print a JSON object a line.
    #[arg(long, conflicts_with = "exec")]
    json: bool,
    /// Hand each record to this shell command instead of printing it.
    #[arg(long, value_name = "COMMAND", value_parser = shell_command)]
    exec: Option<String>,
    /// Where a new queue begins: earliest, latest, a time ago such as -5m, or @ and milliseconds since 1970.
    #[arg(long, value_name = "START", default_value = "earliest", allow_hyphen_values = true)]
    from: From,
    /// What this member can do compared to others, for the dispatch weighted.
    #[arg(long, value_name = "N", value_parser = within(1, GROUP_CAPACITY_MAX))]
    weight: Option<u32>,
    /// Silent for longer, this member is dead and others get what it has [default: 10s].
    #[arg(
        long,
        value_name = "TIME",
        value_parser = within(Span(GROUP_SESSION_TIMEOUT_MIN), Span(GROUP_SESSION_TIMEOUT_MAX))
    )]
    session_timeout: Option<Span>,
    #[command(flatten)]
    wishes: Wishes,
}

/// An empty command succeeds: each record would be acknowledged, and nothing done with it.
fn shell_command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("an empty command would do nothing and acknowledge every record; write one such as --exec ./work"
            .to_owned());
    }
    Ok(text.to_owned())
}

impl Consume {
    pub(super) async fn run(&self, client: &Client) -> Outcome {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut consumer = self.join(client).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut last = None;
        let mut hand = self.exec.as_ref().map(|command| Hand::new(&self.named, command));
        while 0 < left {
            let next = async {
                if let Some(hand) = &mut hand {
                    hand.settle().await;
                }
                consumer.next().await
            };
            let next = tokio::select! {
                next = next => next,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            };
            let Some(leased) = next else { break };
            let leased = outcome(leased)?;
            match &mut hand {
                Some(hand) => hand_over(hand, &consumer, &leased, &mut left).await?,
                None => last = self.print_all(&consumer, &leased, &mut left)?,
            }
        }
        // It leaves whatever becomes of the last word, so that nobody waits for its session to end; and whatever was
        // said has an answer then, or will have none.
        let closed = consumer.close().await;
        if let Some(ticket) = last {
            ticket.durable().await.map_err(Failure::failed)?;
        }
        if let Some(mut hand) = hand {
            hand.settle().await;
            hand.finish()?;
        }
        outcome(closed)
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

    /// Prints the records that came together and acknowledges them; returns the last that was said.
    fn print_all(&self, consumer: &QueueConsumer, leased: &Leased, left: &mut u64) -> Outcome<Option<VerdictTicket>> {
        let mut printed = Vec::new();
        let mut out = BufWriter::new(io::stdout().lock());
        for record in leased {
            if *left == 0 {
                break;
            }
            *left -= 1;
            self.print(&mut out, &record)?;
            printed.push(record.lease);
        }
        // Whoever reads our output has them before they count as done.
        out.flush()?;
        let mut last = None;
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
}

/// Hands the records that came together to the command, one after the other.
async fn hand_over(hand: &mut Hand<'_>, consumer: &QueueConsumer, leased: &Leased, left: &mut u64) -> Outcome {
    for record in leased {
        if *left == 0 {
            break;
        }
        *left -= 1;
        hand.hand_over(consumer, leased, &record).await?;
    }
    Ok(())
}
