//! `corelane bench group`: a consumer group under load, undisturbed or not.

use std::time::Duration;

use clap::{Args, ValueEnum};
use corelane_broker::quantity::Span;
use corelane_loadgen::report::group::GroupReport;
use corelane_loadgen::run::RunOptions;
use corelane_loadgen::run::group::{Disturbance, GroupBench, Join, run as carry_out, run_member};
use corelane_model::limits::{GROUP_SESSION_TIMEOUT_MAX, GROUP_SESSION_TIMEOUT_MIN};

use super::{Conditions, Output, Repeat, check_void, failure};
use crate::bounds::within;
use crate::command::examples;
use crate::failure::{Failure, Outcome};
use crate::target::{Target, run};

/// N members of one group, each limited to M messages a second while nothing disturbs them; how long their partitions are silent when members are
/// restarted or die.
///
/// A partition is silent as long as it brings nothing although something is due.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench group --members 4 --rate 20000      four, 20,000/s each",
        "corelane bench group --disturb rolling --rate 128  restart one, then all",
        "corelane bench group --disturb crash --rate 128    one is killed, kill -9",
    )
)]
pub(crate) struct Group {
    #[command(flatten)]
    target: Target,
    /// N: members.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = within(1_u32, 256))]
    members: u32,
    /// M: messages a second of each member.
    #[arg(long, value_name = "M", default_value_t = 10_000, value_parser = within(1_u32, 10_000_000))]
    rate: u32,
    /// Partitions for each member.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = within(1_u32, 1024))]
    partitions: u32,
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = within(16_u32, 524_288))]
    size: u32,
    /// How long.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,
    /// What happens to the members meanwhile.
    #[arg(long, value_enum, default_value = "none")]
    disturb: Disturb,
    /// The members' session time-out.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = within(Span(GROUP_SESSION_TIMEOUT_MIN), Span(GROUP_SESSION_TIMEOUT_MAX))
    )]
    session_timeout: Span,
    /// Members have static ids, so that a restart moves nothing.
    #[arg(long = "static")]
    is_static: bool,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    output: Output,
}

/// What happens to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Disturb {
    /// Nothing.
    None,
    /// One is restarted.
    Restart,
    /// One is restarted, then all are, one after another.
    Rolling,
    /// One, in a process of its own, is killed.
    Crash,
}

/// One member of a bench's group in a process of its own; its parent reads what it says, and kills it.
#[derive(Debug, Args)]
pub(crate) struct Member {
    #[command(flatten)]
    target: Target,
    /// The topic that it reads.
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// The group that it joins.
    #[arg(long, value_name = "GROUP")]
    group: String,
    /// Its static id.
    #[arg(long, value_name = "ID")]
    static_id: Option<String>,
    /// Its session time-out.
    #[arg(long, value_name = "TIME")]
    session_timeout: Span,
}

impl Member {
    pub(super) fn run(self) -> Outcome {
        let options = RunOptions::new(self.target.address());
        let join = Join {
            topic: self.topic,
            group: self.group,
            static_id: self.static_id,
            session_timeout: self.session_timeout.0,
        };
        run(async { run_member(join, &options).await.map_err(failure) })
    }
}

impl Group {
    pub(super) fn run(self) -> Outcome {
        if self.duration.0 < Duration::from_secs(1) {
            return Err(Failure::usage("a run of less than a second measures nothing; try --duration 10s"));
        }
        let bench = GroupBench {
            members: self.members,
            rate: self.rate,
            partitions_per_member: self.partitions,
            size: self.size,
            duration: self.duration.0,
            disturbance: match self.disturb {
                Disturb::None => Disturbance::None,
                Disturb::Restart => Disturbance::Restart,
                Disturb::Rolling => Disturbance::Rolling,
                Disturb::Crash => Disturbance::Crash,
            },
            session_timeout: self.session_timeout.0,
            is_static: self.is_static,
            program: std::env::current_exe().map_err(Failure::failed)?,
        };
        let options = self.conditions.options(self.target.address(), &self.output)?;
        let may_repeat = self.disturb == Disturb::Crash;
        let one = || run(async { carry_out(bench.clone(), &options).await.map_err(failure) });
        let report = self.repeat.carry_out(one, |report| report.why_again(may_repeat))?;
        self.output.write(&report, &report.to_string())?;
        judge(&report, may_repeat)?;
        check_void(report.void_reason.as_deref())
    }
}

/// A report that is not right fails the command.
pub(crate) fn judge(report: &GroupReport, may_repeat: bool) -> Outcome {
    if report.is_right(may_repeat) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{}: the run is not right: lost {}, duplicated {}, reordered {}, corrupt {}, failed {}, errors {}",
        report.scenario, report.lost, report.duplicated, report.reordered, report.corrupt, report.failed, report.errors
    )))
}
