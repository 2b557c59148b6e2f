//! `corelane bench queue`: a shared queue under load.

use std::time::Duration;

use clap::Args;
use corelane::Dispatch;
use corelane_broker::quantity::Span;
use corelane_loadgen::report::queue::QueueReport;
use corelane_loadgen::run::queue::{QueueBench, run as carry_out};

use super::{Conditions, Output, Repeat, check_void, failure};
use crate::bounds::within;
use crate::command::examples;
use crate::failure::{Failure, Outcome};
use crate::target::{Target, run};

/// N members of a shared queue that acknowledge each record by itself: how soon a message is handed out after it was due,
/// how soon its acknowledgement is durable, and that each message is done once.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench queue --members 8 --rate 50000     eight, 50,000/s together",
        "corelane bench queue --rate max                   as fast as they are done",
        "corelane bench queue --rate 5000 --failing 5 --per-key-order",
    )
)]
pub(crate) struct Queue {
    #[command(flatten)]
    target: Target,
    /// N: members, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = within(1_u32, 1024))]
    members: u32,
    /// Messages a second of all together; max sends as fast as they are done, with 32768 under way.
    #[arg(long, value_name = "R", default_value = "10000", value_parser = parse_rate)]
    rate: Rate,
    /// Of a hundred deliveries so many fail; the messages' numbers decide which.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = parse_failing)]
    failing: Failing,
    /// Failures that make a dead letter.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = within(1_u8, 100))]
    delivery_limit: u8,
    /// How long a record rests after its first failure; up to ten times as long after others.
    #[arg(long, value_name = "TIME", default_value = "100ms")]
    backoff: Span,
    /// Partitions of the topic.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = within(1_u32, 1024))]
    partitions: u32,
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = within(16_u32, 524_288))]
    size: u32,
    /// Who gets the next record: round-robin, random, weighted or least-response-time.
    #[arg(long, value_name = "DISPATCH", default_value = "round-robin", value_parser = Dispatch::parse)]
    dispatch: Dispatch,
    /// Hand out records of one key one after the other; there are 1024 keys.
    #[arg(long)]
    per_key_order: bool,
    /// Records that a member has at once.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = within(1_u32, 65_536))]
    credit: u32,
    /// How long.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    output: Output,
}

/// Messages a second; `None` is as fast as they are done.
#[derive(Clone, Copy, Debug)]
struct Rate(Option<u32>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate(None));
    }
    match text.parse() {
        Ok(rate @ 1..=10_000_000) => Ok(Rate(Some(rate))),
        _ => Err(format!("{text:?} is no rate; write max, or a number from 1 to 10000000")),
    }
}

/// Deliveries of ten thousand.
#[derive(Clone, Copy, Debug)]
struct Failing(u32);

fn parse_failing(text: &str) -> Result<Failing, String> {
    match text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Failing((percent * 100.0).round() as u32)),
        _ => Err(format!("{text:?} is no percentage; write 5 or 0.5")),
    }
}

impl Queue {
    pub(super) fn run(self) -> Outcome {
        if self.duration.0 < Duration::from_secs(1) {
            return Err(Failure::usage("a run of less than a second measures nothing; try --duration 10s"));
        }
        let bench = QueueBench {
            members: self.members,
            rate: self.rate.0,
            failing_of_10_000: self.failing.0,
            delivery_limit: self.delivery_limit,
            backoff: self.backoff.0,
            partitions: self.partitions,
            size: self.size,
            dispatch: self.dispatch,
            is_ordered: self.per_key_order,
            credit: self.credit,
            duration: self.duration.0,
        };
        let options = self.conditions.options(self.target.address(), &self.output)?;
        let one = || run(async { carry_out(bench.clone(), &options).await.map_err(failure) });
        let report = self.repeat.carry_out(one, QueueReport::why_again)?;
        self.output.write(&report, &report.to_string())?;
        judge(&report)?;
        check_void(report.void_reason.as_deref())
    }
}

/// A report that is not right fails the command.
fn judge(report: &QueueReport) -> Outcome {
    if report.is_right() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{}: the run is not right: lost {}, duplicated {}, reordered {}, corrupt {}, dead early {}, refused {}, sends failed {}, \
         errors {}",
        report.scenario,
        report.lost,
        report.duplicated,
        report.reordered,
        report.corrupt,
        report.dead_early,
        report.refused,
        report.failed,
        report.errors
    )))
}
