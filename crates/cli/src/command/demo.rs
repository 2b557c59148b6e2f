//! `corelane demo`: a broker of its own, a match's load through it, and what came of it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use corelane::TopicClass;
use corelane_broker::quantity::Span;
use corelane_broker::{Config, Machine, RawConfig, Running};
use corelane_loadgen::disk::Disk;
use corelane_loadgen::plan::Plan;
use corelane_loadgen::report::Report;
use corelane_loadgen::report::group::GroupReport;
use corelane_loadgen::run::group::{Disturbance, GroupBench, run as carry_out_group};
use corelane_loadgen::run::{RunOptions, run as carry_out};
use corelane_loadgen::scenario::{Duel, NxM};

use super::bench::group::judge as judge_group;
use super::bench::lab::{cache_directory, cpus};
use super::bench::{Output, failure, judge};
use super::examples;
use crate::claim::{Claim, Maker};
use crate::failure::{Failure, Outcome};
use crate::target::run;

/// Start a broker in a directory of its own, play matches through it, let a consumer group lose a member, sweep over readers, and
/// print what came of it.
///
/// Takes about half a minute. The broker listens on free ports of loopback and ends with the demo; its data is removed at the
/// next demo. Ends with 0 when every message came, in order and unchanged, and with 1 when one did not. A run whose generator was
/// late is marked VOID: its figures must not be believed, and it does not change how the demo ends.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane demo                     in a cache directory",
        "corelane demo --data /mnt/nvme    on another disk, in /mnt/nvme/demo",
        "corelane demo --json demo.json    with the reports for a program",
    )
)]
pub(crate) struct Demo {
    /// A directory on the disk to use; the demo makes `demo` in there, and removes nothing but what a demo left in that. A
    /// cache directory when it is left out.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long the matches are played; what follows is shorter, but not below a second or two.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,
    #[command(flatten)]
    output: Output,
}

const MATCHES: u32 = 20;
/// Shorter matches show nothing.
const DUEL_MIN: Duration = Duration::from_secs(1);
const SWEEP_MIN: Duration = Duration::from_secs(1);
/// In this time a member dies and its partitions go to others.
/// What a demo has below the directory that it is given.
const NAME: &str = "demo";
const GROUP_MIN: Duration = Duration::from_secs(2);
const SWEEP_MEMBERS: [u32; 3] = [1, 2, 4];
const SWEEP_RATE: u32 = 5_000;
const PARTITIONS: u32 = 8;

impl Demo {
    pub(crate) fn run(self) -> Outcome {
        if self.duration.0 < DUEL_MIN {
            return Err(Failure::usage("matches of less than a second show nothing; try --duration 10s"));
        }
        self.output.check()?;
        let parent = match &self.data {
            Some(data) => data.clone(),
            None => cache_directory().map_err(failure)?,
        };
        let claim = Claim::take(parent.join(NAME), Maker::Demo).map_err(failure)?;
        // Before any thread is made: the log's is the first.
        corelane_broker::prepare_process();
        let raw = RawConfig {
            data: Some(claim.data()),
            listen: Some(([127, 0, 0, 1], 0).into()),
            admin: Some(([127, 0, 0, 1], 0).into()),
            log: Some("warn".to_owned()),
            ..RawConfig::default()
        };
        let config = Config::check(raw, &Machine::this()).map_err(Failure::usage)?;
        let _log = corelane_broker::log::start(&config.log).map_err(Failure::failed)?;
        let broker = corelane_broker::start(&config).map_err(Failure::failed)?;
        let played = self.play(&config, &broker);
        let stopped = broker.stop().map_err(Failure::failed);
        let (runs, group) = played?;
        stopped?;
        let is_void = group.void || runs.iter().any(|run| run.void);
        let reports = Reports { void: is_void, runs: &runs, group: &group };
        self.output.write(&reports, &text(&config, &reports).map_err(Failure::failed)?)?;
        runs.iter().try_for_each(judge)?;
        judge_group(&group, true)
    }

    fn play(&self, config: &Config, broker: &Running) -> Outcome<(Vec<Report>, GroupReport)> {
        let options = RunOptions {
            is_quiet: self.output.is_quiet(),
            data: Some(config.data.clone()),
            ..RunOptions::new(format!("corelane://{}", broker.quic()))
        };
        let play = |plan| run(async { carry_out(plan, &options).await.map_err(failure) });
        let mut plans = self.plans().into_iter();
        let mut reports: Vec<Report> = plans.by_ref().take(1).map(play).collect::<Outcome<_>>()?;
        let bench = self.group()?;
        let group = run(async { carry_out_group(bench, &options).await.map_err(failure) })?;
        for plan in plans {
            reports.push(play(plan)?);
        }
        Ok((reports, group))
    }

    fn plans(&self) -> Vec<Plan> {
        let class = TopicClass::Durable;
        let duration = self.duration.0;
        let mut plans = vec![Duel { matches: MATCHES, duration, class, partitions: PARTITIONS }.plan()];
        let duration = (duration * 2 / 5).max(SWEEP_MIN);
        for members in SWEEP_MEMBERS {
            let sweep = NxM { members, rate: SWEEP_RATE, partitions_per_member: 2, size: 100, duration, class };
            plans.push(sweep.plan());
        }
        plans
    }

    /// A group of 4 at 64 messages a second for each of 8 partitions, one of which dies.
    fn group(&self) -> Outcome<GroupBench> {
        Ok(GroupBench {
            members: 4,
            rate: 128,
            partitions_per_member: 2,
            size: 100,
            duration: (self.duration.0 / 2).max(GROUP_MIN),
            disturbance: Disturbance::Crash,
            session_timeout: Duration::from_millis(500),
            is_static: false,
            program: std::env::current_exe().map_err(Failure::failed)?,
        })
    }
}

/// What the demo came to, for a program.
#[derive(Debug, serde::Serialize)]
struct Reports<'a> {
    /// Whether figures of one run or another must not be believed; each says so itself.
    void: bool,
    /// The matches, then the sweep.
    runs: &'a [Report],
    /// A group of 4 that loses a member.
    group: &'a GroupReport,
}

fn text(config: &Config, reports: &Reports<'_>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for report in reports.runs {
        writeln!(out, "{report}")?;
    }
    group_text(&mut out, reports.group)?;
    writeln!(out, "N x M: measured beside ideal, messages a second")?;
    for (members, report) in SWEEP_MEMBERS.iter().zip(reports.runs.iter().skip(1)) {
        let share = 100.0 * report.rate_per_s / report.ideal_per_s;
        let mark = if report.void { "VOID".to_owned() } else { "#".repeat(bar_length(share)) };
        writeln!(
            out,
            "  N = {members}  {:>9.0} of {:>9.0}  {share:>5.1} %  {mark}",
            report.rate_per_s, report.ideal_per_s
        )?;
    }
    let cores = cpus().map_or_else(|_| "unknown".to_owned(), |cpus| cpus.len().to_string());
    let build = if cfg!(debug_assertions) { "debug build: the figures mean little" } else { "release build" };
    writeln!(
        out,
        "\nconditions: broker and load generator on one machine with {cores} cores, {} shards, loopback, TLS 1.3; every \
         message acknowledged as stored on {}; {build}",
        config.shards(),
        Disk::of(&config.data)
    )?;
    if reports.void {
        writeln!(
            out,
            "the generator was late in what is marked VOID, so that those figures must not be believed; what was verified \
             holds all the same. A machine with less to do gives better ones"
        )?;
    }
    writeln!(
        out,
        "to go on: corelane serve, corelane bench --help; what this machine can do without a broker: corelane bench floor"
    )?;
    Ok(out)
}

fn group_text(out: &mut String, group: &GroupReport) -> std::fmt::Result {
    let longest = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{:.0} ms", us / 1000.0));
    writeln!(out, "a group of 4 loses a member to kill -9")?;
    if let Some(why) = &group.void_reason {
        writeln!(out, "  VOID: {why}")?;
    }
    writeln!(
        out,
        "  its {} partitions were silent for {} at most, with a session time-out of {} ms; the other {} for {}",
        group.moved.partitions,
        longest(group.moved.longest_us),
        group.session_timeout_ms,
        group.unmoved.partitions,
        longest(group.unmoved.longest_us)
    )?;
    writeln!(
        out,
        "  {} messages, lost {}, out of order {}, done again {} because the dead one had not committed them\n",
        group.consumed, group.lost, group.reordered, group.duplicated
    )
}

/// A mark for each three percent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a percentage")]
fn bar_length(share: f64) -> usize {
    (share.clamp(0.0, 120.0) / 3.0).round() as usize
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_reports_describes_the_demo_once() {
        let page = include_str!("../../../../docs/report.md");
        let headings = page.lines().filter(|line| line.starts_with('#') && line.contains("`corelane demo`"));
        assert_eq!(headings.count(), 1);
    }
}
