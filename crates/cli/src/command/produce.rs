//! `corelane produce`.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use corelane::{Producer, Record, SendError, Ticket};
use corelane_broker::quantity::Span;
use corelane_model::limits::QUEUE_DELAY_MAX;
use corelane_model::queue::HEADER_DELIVER_AT;
use corelane_model::{Acks, PartitionIndex, TopicClass};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;

use super::examples;
use crate::bounds::{partition_index, within};
use crate::failure::{Failure, Outcome, refused};
use crate::format::unescape;
use crate::input::{InputError, Lines, Parts, Shape, header};
use crate::patience::PATIENCE;
use crate::signals::Signals;
use crate::target::{Target, run};

/// Lines that wait to be sent; each may have a megabyte.
const LINES_MAX: usize = 64;
/// After a signal the outcome of what was sent is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Records whose outcome is not known yet, beyond which reading waits.
const TICKETS_MAX: usize = 64 * 1024;

/// Write records to a topic, one a line from standard input.
///
/// Ends with 0 when every record was acknowledged. After a failure it says which line failed first; lines before it were
/// acknowledged, lines after it may or may not be there.
///
/// SIGINT or SIGTERM ends reading: what was sent is waited for, for ten seconds at most, and the exit code is 130. A second
/// one ends at once.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "echo hello | corelane produce chat",
    "corelane produce inputs -K : < lines.txt       key:value lines",
    "corelane produce states -k ada -H match=7 --acks received",
    "echo remind ada | corelane produce jobs --delay 30s",
))]
pub(crate) struct Produce {
    #[command(flatten)]
    target: Target,
    /// The topic.
    topic: String,
    /// The key of every record.
    #[arg(short, long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// Split each line at the first SEP into key and value; \t and the other escapes of consume's formats work.
    #[arg(short = 'K', long, value_name = "SEP", value_parser = separator)]
    key_separator: Option<Separator>,
    /// A header of every record; may be given several times. Without `=` its value is null.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, Option<Vec<u8>>)>,
    /// The partition of every record; without it the key decides, or chance.
    #[arg(short, long, value_name = "PARTITION", value_parser = partition_index())]
    partition: Option<u32>,
    /// What to wait for.
    #[arg(long, value_enum, default_value_t = AcksArg::Stored)]
    acks: AcksArg,
    /// Make this the record's message id: a topic with --dedup-window or --dedup-count takes each id once.
    #[arg(long, value_enum, value_name = "PART")]
    message_id_from: Option<IdSource>,
    /// Let shared queues hand the records out after this long at the earliest, 7d at most; others read them at once.
    #[arg(long, value_name = "TIME", value_parser = within(Span(Duration::ZERO), Span(QUEUE_DELAY_MAX)))]
    delay: Option<Span>,
    /// Send an empty value as null.
    #[arg(short = 'Z', long)]
    null: bool,
}

/// When a record counts as written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AcksArg {
    /// On disk: it survives a crash.
    Stored,
    /// In the broker's memory.
    Received,
}

/// Where message ids come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IdSource {
    /// The record's key.
    Key,
    /// The whole value.
    Value,
}

/// What stands between key and value.
#[derive(Clone, Debug)]
struct Separator(Vec<u8>);

fn separator(text: &str) -> Result<Separator, String> {
    if text.is_empty() {
        Err("a separator has at least one character, such as -K :".to_owned())
    } else {
        unescape(text).map(Separator).map_err(|error| error.to_string())
    }
}

/// What the reading thread found.
type Line = Result<(u64, Parts), InputError>;

impl Produce {
    pub(crate) fn run(self) -> Outcome {
        if self.delay.is_some() && self.headers.iter().any(|(name, _)| name == HEADER_DELIVER_AT) {
            return Err(Failure::usage(format!("--delay sets the header {HEADER_DELIVER_AT}: give one of the two")));
        }
        run(async {
            let acks = match self.acks {
                AcksArg::Stored => Acks::Stored,
                AcksArg::Received => Acks::Received,
            };
            let mut signals = Signals::listen().map_err(Failure::failed)?;
            let client = tokio::select! {
                client = self.target.connect() => client?,
                signal = signals.next() => return Err(Failure::interrupted(format!("{signal} ended it before it began"))),
            };
            let producer = client.producer(&self.topic).acks(acks).open().await.map_err(refused)?;
            let shape = Shape {
                key: self.key.map(String::into_bytes),
                separator: self.key_separator.map(|separator| separator.0),
                is_empty_null: self.null,
            };
            let mut sending = Sending {
                producer,
                acks,
                partition: self.partition.map(PartitionIndex),
                headers: self.headers,
                message_id_from: self.message_id_from,
                delay: self.delay.map(|span| span.0),
                tickets: VecDeque::new(),
                done: 0,
                is_told: false,
            };
            let outcome = tokio::select! {
                outcome = sending.send_all(read_lines(shape)) => outcome,
                signal = signals.next() => sending.end(signal).await,
            };
            let done = sending.done;
            let word = word(acks, sending.producer.class());
            let records = if done == 1 { "record" } else { "records" };
            let _untold = writeln!(std::io::stderr(), "{done} {records} {word}");
            client.close().await;
            outcome
        })
    }
}

/// What happened to records that were acknowledged: those of a topic in memory are nowhere else.
fn word(acks: Acks, class: TopicClass) -> &'static str {
    match acks {
        Acks::Stored if class.is_durable() => "stored",
        Acks::Stored | Acks::Received => "received",
    }
}

/// Reads on a thread of its own: standard input may block for ever, the connection must not.
fn read_lines(shape: Shape) -> Receiver<Line> {
    let (sender, receiver) = channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut lines = Lines::new(std::io::stdin().lock(), shape);
        loop {
            let line = match lines.read() {
                Ok(Some(parts)) => Ok((lines.number(), parts)),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let is_last = line.is_err();
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// A line that was sent.
struct Sent {
    line: u64,
    ticket: Ticket,
    since: Instant,
}

impl Sent {
    /// What became of it.
    async fn last_word(&self, acks: Acks) -> Outcome {
        let outcome = match acks {
            Acks::Stored => self.ticket.stored().await,
            Acks::Received => self.ticket.received().await,
        };
        outcome.map(drop).map_err(|error| Failure::failed(format!("line {}: {error}", self.line)))
    }
}

struct Sending {
    producer: Producer,
    acks: Acks,
    partition: Option<PartitionIndex>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    message_id_from: Option<IdSource>,
    delay: Option<Duration>,
    /// Lines whose outcome is not known yet, in order.
    tickets: VecDeque<Sent>,
    done: u64,
    /// Whether the user knows that it takes long.
    is_told: bool,
}

/// Waits, and says so once if that takes long: a broker whose disk is full lets producers wait.
async fn patiently<T>(line: u64, since: Instant, is_told: &mut bool, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if !*is_told {
        match tokio::time::timeout_at(since + PATIENCE, &mut work).await {
            Ok(done) => return done,
            Err(_) => tell_of_waiting(line, is_told),
        }
    }
    work.await
}

fn tell_of_waiting(line: u64, is_told: &mut bool) {
    *is_told = true;
    let _untold = writeln!(
        std::io::stderr(),
        "line {line} still waits for the broker after {PATIENCE:?}; `corelane status` tells how it is"
    );
}

impl Sending {
    /// Sends every line and waits for its outcome. What was sent before a bad line is waited for too.
    async fn send_all(&mut self, mut lines: Receiver<Line>) -> Outcome {
        let mut outcome = Ok(());
        while let Some(line) = self.next_line(&mut lines).await? {
            let sent = match line {
                Ok((number, parts)) => self.send(number, &parts).await,
                Err(error) => Err(Failure::failed(error)),
            };
            if sent.is_err() {
                outcome = sent;
                break;
            }
        }
        self.settle(0).await?;
        outcome
    }

    /// The next line; what is known of those before it does not wait for it, since it may never come.
    async fn next_line(&mut self, lines: &mut Receiver<Line>) -> Outcome<Option<Line>> {
        loop {
            let Some(oldest) = self.tickets.front() else { return Ok(lines.recv().await) };
            tokio::select! {
                biased;
                line = lines.recv() => return Ok(line),
                outcome = patiently(oldest.line, oldest.since, &mut self.is_told, oldest.last_word(self.acks)) => outcome?,
            }
            self.tickets.pop_front();
            self.done += 1;
        }
    }

    /// Reads no further and waits for what was sent, as long as that makes sense.
    async fn end(&mut self, signal: &str) -> Outcome {
        match tokio::time::timeout(LAST_WORDS, self.settle(0)).await {
            Ok(Ok(())) => Err(Failure::interrupted(format!("{signal} ended it; all that was sent was waited for"))),
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let open = self.tickets.len();
                let told = format!("{signal} ended it; of {open} records that were sent the outcome is not known");
                Err(Failure::interrupted(told))
            }
        }
    }

    async fn send(&mut self, number: u64, parts: &Parts) -> Outcome {
        self.settle(TICKETS_MAX).await?;
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut record = parts.value.as_ref().map_or_else(Record::without_value, Record::new).header(&headers);
        if let Some(key) = &parts.key {
            record = record.key(key);
        }
        let id = match self.message_id_from {
            None => None,
            Some(IdSource::Key) => parts.key.as_ref(),
            Some(IdSource::Value) => parts.value.as_ref(),
        };
        if let Some(id) = id {
            record = record.message_id(id);
        }
        if let Some(delay) = self.delay {
            record = record.delay(delay);
        }
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        let sent = match self.producer.send(record) {
            Err(SendError::Full(record)) => {
                let room = self.producer.reserve(&record);
                let permit = patiently(number, Instant::now(), &mut self.is_told, room).await;
                permit.send(record)
            }
            sent => sent,
        };
        match sent {
            Ok(ticket) => {
                self.tickets.push_back(Sent { line: number, ticket, since: Instant::now() });
                Ok(())
            }
            Err(error) => Err(Failure::failed(format!("line {number}: {error}"))),
        }
    }

    /// Waits until at most `most` outcomes are open, and takes those that are known anyway.
    async fn settle(&mut self, most: usize) -> Outcome {
        while let Some(oldest) = self.tickets.front() {
            let is_known = match self.acks {
                Acks::Stored => oldest.ticket.try_stored().is_some(),
                Acks::Received => oldest.ticket.try_received().is_some(),
            };
            if !is_known && self.tickets.len() <= most {
                return Ok(());
            }
            let last_word = oldest.last_word(self.acks);
            if is_known {
                last_word.await?;
            } else {
                patiently(oldest.line, oldest.since, &mut self.is_told, last_word).await?;
            }
            self.tickets.pop_front();
            self.done += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_alone_is_not_called_stored() {
        assert_eq!(word(Acks::Stored, TopicClass::Durable), "stored");
        assert_eq!(word(Acks::Received, TopicClass::Durable), "received");
        assert_eq!(word(Acks::Stored, TopicClass::Memory), "received");
        assert_eq!(word(Acks::Stored, TopicClass::Latest), "received");
    }
}
