//! `corelane bench`: load with measured latency, and what the machine could do.

mod figures;
mod floor;
pub(crate) mod group;
pub(crate) mod lab;
mod queue;
mod ratios;
mod workload;

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use corelane::{Acks, TopicClass};
use corelane_broker::quantity::Span;
use corelane_loadgen::patience::Patience;
use corelane_loadgen::plan::Plan;
use corelane_loadgen::report::Report;
use corelane_loadgen::run::{Interrupted, RunOptions, run as carry_out};
use corelane_loadgen::scenario::{Duel, Edge, NxM, Replay};
use corelane_loadgen::trace::{Trace, TraceError};
use serde::Serialize;

use super::examples;
use crate::bounds::within;
use crate::failure::{Failure, Outcome};
use crate::target::{Target, run};

/// Put load on a broker and measure latency from the moment at which each message was due.
///
/// The load is open: a message is sent when it is due, whatever became of those before, and what is consumed is verified.
/// The report's JSON is described in docs/report.md.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    before_help = examples!(
        "corelane bench duel-60 --matches 20            matches of two players",
        "corelane bench nxm --members 4 --rate 20000    4 members, 20,000/s each",
        "corelane bench --trace match.csv.gz --copies 9 a recorded match, 9 at once",
        "corelane bench group --disturb rolling         members restart",
        "corelane bench queue --failing 5               a shared queue",
        "corelane bench ratios                          our figures, the machine's",
    )
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    load: Load,
}

/// Benches that start what they need themselves.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    Floor(floor::Floor),
    Ratios(ratios::Ratios),
    Group(group::Group),
    #[command(hide = true)]
    Member(group::Member),
    Queue(queue::Queue),
    Crash(figures::Crash),
    Start(figures::Start),
    Idle(figures::Idle),
    Sustained(figures::Sustained),
    Join(figures::Join),
    Commit(figures::Commit),
}

/// Workloads that need no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Matches of two players: inputs to the simulation, its states to both players.
    #[value(name = "duel-60")]
    Duel60,
    /// N members with partitions of their own, each limited to M messages a second.
    Nxm,
    /// Many partitions that each get one record on the same edge of a tick.
    Edge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClassArgument {
    Durable,
    Memory,
}

impl ClassArgument {
    pub(crate) const fn to_model(self) -> TopicClass {
        match self {
            Self::Durable => TopicClass::Durable,
            Self::Memory => TopicClass::Memory,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArgument {
    Stored,
    Received,
}

#[derive(Debug, Args)]
struct Load {
    #[command(flatten)]
    target: Target,
    /// The workload; duel-60 when neither it nor --trace is given.
    #[arg(value_parser = workload::Workload, conflicts_with = "trace")]
    scenario: Option<Scenario>,
    /// Replay a recorded match: CSV, plain or gzipped, with the columns t_us,key,kind,size.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// --trace: so many times as fast as it was played; 1 when it is left out.
    #[arg(long, value_name = "X", value_parser = parse_speed)]
    speed: Option<f64>,
    /// --trace: so many matches side by side; 1 when it is left out.
    #[arg(long, value_name = "N", value_parser = within(1_u32, 10_000))]
    copies: Option<u32>,
    /// duel-60: matches; 20 when it is left out.
    #[arg(long, value_name = "N", value_parser = within(1_u32, 10_000))]
    matches: Option<u32>,
    /// nxm: N, members; 4 when it is left out.
    #[arg(long, value_name = "N", value_parser = within(1_u32, 256))]
    members: Option<u32>,
    /// nxm: M, messages a second of each member; 10000 when it is left out.
    #[arg(long, value_name = "M", value_parser = within(1_u32, 10_000_000))]
    rate: Option<u32>,
    /// nxm: bytes of a message; 100 when it is left out.
    #[arg(long, value_name = "BYTES", value_parser = within(16_u32, 524_288))]
    size: Option<u32>,
    /// Partitions: of each topic (duel-60 and --trace: 8, edge: 1000) or of each member (nxm: 2).
    #[arg(long, value_name = "N", value_parser = within(1_u32, 16_384))]
    partitions: Option<u32>,
    /// How long, such as 30s; a trace plays to its end when it is left out.
    #[arg(long, value_name = "TIME")]
    duration: Option<Span>,
    /// The class of the topics.
    #[arg(long, value_enum, default_value = "durable")]
    class: ClassArgument,
    /// What the producer waits for.
    #[arg(long, value_enum, default_value = "stored")]
    acks: AcksArgument,
    #[command(flatten)]
    conditions: Conditions,
    /// Leave the topics of the run on the broker.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    repeat: Repeat,
    #[command(flatten)]
    output: Output,
}

/// What a report says of the machine.
#[derive(Clone, Debug, Args)]
struct Conditions {
    /// The broker's data directory, when it is on this machine: its disk is named in the report.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file that `corelane bench floor --json FILE` wrote on this machine: what it can do is part of the report.
    #[arg(long, value_name = "FILE")]
    floors: Option<PathBuf>,
}

impl Conditions {
    /// What a run against `broker` is told of them. A directory that is not there names no disk, and a report that cannot be
    /// written is worth no run.
    fn options(&self, broker: String, output: &Output) -> Outcome<RunOptions> {
        if let Some(data) = self.data.as_ref().filter(|data| !data.is_dir()) {
            return Err(Failure::failed(format!(
                "--data {} is no directory: name the broker's data directory, or leave it out",
                data.display()
            )));
        }
        output.check()?;
        let floors = self.floors.as_deref().map(floor::read_file).transpose().map_err(failure)?;
        Ok(RunOptions { is_quiet: output.is_quiet(), data: self.data.clone(), floors, ..RunOptions::new(broker) })
    }
}

/// What becomes of a void run.
#[derive(Clone, Copy, Debug, Args)]
struct Repeat {
    /// Go on repeating void runs for so long, such as 5m; wait before each until the machine's host leaves it alone.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    patience: Span,
}

impl Repeat {
    /// Runs until nothing speaks for another run, or patience is over; answers the last run.
    #[expect(clippy::print_stderr, reason = "why it takes so long is for the person at the terminal")]
    fn carry_out<R>(
        self,
        mut carry_out: impl FnMut() -> Outcome<R>,
        why_again: impl Fn(&R) -> Option<&str>,
    ) -> Outcome<R> {
        let mut patience = Patience::new(self.patience.0, 1);
        let mut last: Option<R> = None;
        while patience.goes_on() {
            if let Some(why) = last.as_ref().and_then(&why_again) {
                eprintln!("run {} is void and repeated: {why}", patience.runs() - 1);
            }
            let report = carry_out()?;
            if why_again(&report).is_none() {
                return Ok(report);
            }
            last = Some(report);
        }
        Ok(last.expect("there is one run at least"))
    }
}

/// Where a report goes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Write the report as JSON to this file, or to standard output if it is -.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress on the terminal.
    #[arg(long)]
    quiet: bool,
}

const DURATION: Duration = Duration::from_secs(10);
const PARTITIONS: u32 = 8;

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        match self.command {
            Some(BenchCommand::Floor(floor)) => floor.run(),
            Some(BenchCommand::Ratios(ratios)) => ratios.run(),
            Some(BenchCommand::Group(group)) => group.run(),
            Some(BenchCommand::Member(member)) => member.run(),
            Some(BenchCommand::Queue(queue)) => queue.run(),
            Some(BenchCommand::Crash(crash)) => crash.run(),
            Some(BenchCommand::Start(start)) => start.run(),
            Some(BenchCommand::Idle(idle)) => idle.run(),
            Some(BenchCommand::Sustained(sustained)) => sustained.run(),
            Some(BenchCommand::Join(join)) => join.run(),
            Some(BenchCommand::Commit(commit)) => commit.run(),
            None => self.load.run(),
        }
    }
}

impl Load {
    fn run(self) -> Outcome {
        let options = RunOptions {
            acks: match self.acks {
                AcksArgument::Stored => Acks::Stored,
                AcksArgument::Received => Acks::Received,
            },
            keep_topics: self.keep,
            ..self.conditions.options(self.target.address(), &self.output)?
        };
        let one = || {
            let plan = self.plan()?;
            run(async { carry_out(plan, &options).await.map_err(failure) })
        };
        let report = self.repeat.carry_out(one, Report::why_again)?;
        self.output.write(&report, &report.to_string())?;
        judge(&report)?;
        check_void(report.void_reason.as_deref())
    }

    /// Refuses options that belong to another workload: whoever gave one measures something else than he thinks.
    fn check_options(&self) -> Outcome {
        let scenario = if self.trace.is_some() { None } else { Some(self.scenario.unwrap_or(Scenario::Duel60)) };
        let given = [
            ("--matches", self.matches.is_some(), Some(Scenario::Duel60)),
            ("--members", self.members.is_some(), Some(Scenario::Nxm)),
            ("--rate", self.rate.is_some(), Some(Scenario::Nxm)),
            ("--size", self.size.is_some(), Some(Scenario::Nxm)),
            ("--speed", self.speed.is_some(), None),
            ("--copies", self.copies.is_some(), None),
        ];
        let name = |scenario: Option<Scenario>| {
            let value = scenario.and_then(|scenario| scenario.to_possible_value());
            value.map_or_else(|| "--trace".to_owned(), |value| value.get_name().to_owned())
        };
        let foreign = given.into_iter().find(|&(_, is_given, owner)| is_given && scenario != owner);
        if let Some((option, _, owner)) = foreign {
            let (owner, this) = (name(owner), name(scenario));
            return Err(Failure::usage(format!("{option} is an option of {owner} and means nothing to {this}")));
        }
        Ok(())
    }

    fn plan(&self) -> Outcome<Plan> {
        self.check_options()?;
        let class = self.class.to_model();
        let given = self.duration.map(|span| span.0);
        let duration = given.unwrap_or(DURATION);
        if duration.is_zero() {
            return Err(Failure::usage("a run of no duration measures nothing; try --duration 10s"));
        }
        let partitions = self.partitions;
        if let Some(path) = &self.trace {
            let trace = Arc::new(Trace::open(path).map_err(bad_trace)?);
            let (copies, speed) = (self.copies.unwrap_or(1), self.speed.unwrap_or(1.0));
            let partitions = partitions.unwrap_or(PARTITIONS);
            return Ok(Replay { trace, copies, speed, class, partitions, duration: given }.plan());
        }
        Ok(match self.scenario.unwrap_or(Scenario::Duel60) {
            Scenario::Duel60 => Duel {
                matches: self.matches.unwrap_or(20),
                duration,
                class,
                partitions: partitions.unwrap_or(PARTITIONS),
            }
            .plan(),
            Scenario::Nxm => NxM {
                members: self.members.unwrap_or(4),
                rate: self.rate.unwrap_or(10_000),
                partitions_per_member: partitions.unwrap_or(2),
                size: self.size.unwrap_or(100),
                duration,
                class,
            }
            .plan(),
            Scenario::Edge => {
                let tick = Duration::from_millis(16);
                Edge { partitions: partitions.unwrap_or(1000), tick, duration, class }.plan()
            }
        })
    }
}

/// A file that is not there is no matter of how the command was written.
fn bad_trace(error: TraceError) -> Failure {
    match error {
        TraceError::Open { .. } | TraceError::Read { .. } => Failure::failed(error),
        _ => Failure::usage(error),
    }
}

/// A run whose generator was late ends the command with a code of its own.
fn check_void(reason: Option<&str>) -> Outcome {
    reason.map_or(Ok(()), |why| Err(Failure::void(format!("the run is void: {why}"))))
}

/// A report that is not right fails the command.
pub(crate) fn judge(report: &Report) -> Outcome {
    if report.is_right() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{}: the run is not right: lost {}, duplicated {}, reordered {}, corrupt {}, failed {}",
        report.scenario, report.lost, report.duplicated, report.reordered, report.corrupt, report.failed
    )))
}

impl Output {
    /// Whether progress is unwanted.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Refuses a file that cannot be written, before anything is measured for it. What is in it stays until there is a report.
    pub(crate) fn check(&self) -> Outcome {
        match &self.json {
            Some(path) if path != Path::new("-") => {
                OpenOptions::new().create(true).append(true).open(path).map(drop).map_err(unwritable(path))
            }
            _ => Ok(()),
        }
    }

    /// Prints the text, and the JSON where it was asked for.
    pub(crate) fn write(&self, report: &impl Serialize, text: &str) -> Outcome {
        let stdout = |text: &str| {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::failed)
        };
        match &self.json {
            None => stdout(text),
            Some(path) if path == Path::new("-") => {
                stdout(&(serde_json::to_string_pretty(report).map_err(Failure::failed)? + "\n"))
            }
            Some(path) => {
                // What took minutes to measure is printed even if the file is no good.
                let printed = stdout(text);
                write_json(path, report)?;
                printed
            }
        }
    }
}

fn write_json(path: &Path, report: &impl Serialize) -> Outcome {
    let mut file = BufWriter::new(File::create(path).map_err(unwritable(path))?);
    serde_json::to_writer_pretty(&mut file, report).map_err(Failure::failed)?;
    file.write_all(b"\n").and_then(|()| file.flush()).map_err(unwritable(path))
}

fn unwritable(path: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::failed(format!("cannot write {}: {error}", path.display()))
}

/// What a bench that starts things itself fails with; the causes belong to the text.
pub(crate) fn failure(error: anyhow::Error) -> Failure {
    if error.is::<Interrupted>() {
        return Failure::interrupted(error);
    }
    match error.downcast_ref::<corelane::ConnectError>() {
        Some(_) => Failure::unreachable(format!("{error:#}")),
        None => Failure::failed(format!("{error:#}")),
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| format!("{text:?} is no number; write 4 or 0.5"))?;
    if (0.01..=1000.0).contains(&speed) { Ok(speed) } else { Err(format!("{speed} is not between 0.01 and 1000")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        load: Load,
    }

    fn load(line: &str) -> Load {
        Alone::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).unwrap().load
    }

    #[test]
    fn an_option_of_another_workload_is_refused_by_each() {
        let said = |line: &str| load(line).plan().err().unwrap().to_string();
        assert!(said("duel-60 --copies 4").contains("--copies is an option of --trace and means nothing to duel-60"));
        assert!(said("nxm --speed 3").contains("means nothing to nxm"));
        assert!(said("edge --copies 3").contains("means nothing to edge"));
        assert!(said("--copies 3").contains("means nothing to duel-60"));
        assert!(said("edge --rate 3").contains("--rate is an option of nxm"));
        assert!(said("--trace none.csv --members 3").contains("means nothing to --trace"));
        assert!(load("nxm --rate 3").plan().is_ok());
    }

    #[test]
    fn a_data_directory_that_is_not_there_is_refused() {
        let load = load("duel-60 --data /dev/null/nope");
        let error = load.conditions.options("x".to_owned(), &load.output).unwrap_err();
        assert!(error.to_string().contains("/dev/null/nope is no directory"), "{error}");
    }

    #[test]
    fn a_report_that_cannot_be_written_is_refused_before_the_run_and_an_old_one_stays() {
        let error = load("--json /dev/null/x").run().unwrap_err();
        assert!(error.to_string().starts_with("cannot write /dev/null/x"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        std::fs::write(&path, "old").unwrap();
        load(&format!("--json {}", path.display())).output.check().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    }
}
