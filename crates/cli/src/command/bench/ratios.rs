//! `corelane bench ratios`: our figures beside what this machine can do, interleaved.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use corelane::{Acks, TopicClass, TopicSettings};
use corelane_broker::quantity::Span;
use corelane_loadgen::disk::Disk;
use corelane_loadgen::figure::{consume, ingest, median, round_trip};
use corelane_loadgen::patience::{Patience, RUNS_MIN};
use corelane_loadgen::plan::Plan;
use corelane_loadgen::report::{Budget, Report};
use corelane_loadgen::run::{RunOptions, run as carry_out};
use corelane_loadgen::scenario::{Duel, Edge};
use corelane_loadgen::server::Server;
use corelane_loadgen::stolen::wait_until_quiet;
use corelane_reactor::floor::DiskPath;
use serde::Serialize;

use super::floor::{bare_egress, bare_ingest, block_on, echo, eprintln_step, percentiles, read, write_sync};
use super::lab::{Bare, Lab};
use super::{Output, failure};
use crate::bounds::within;
use crate::command::examples;
use crate::failure::{Failure, Outcome};

/// Measure the broker's figures and the machine's floors in turn, round after round, and print medians and ratios.
///
/// The broker has one shard on the first core that this process may use; the generator has the last. Ends with 5 when a
/// ratio missed its target, or a row has no figure because all runs for it were void.
#[derive(Debug, Args)]
#[command(
    before_help = examples!(
        "corelane bench ratios                      five rounds",
        "corelane bench ratios --rounds 9           more of them",
        "corelane bench ratios --json ratios.json   for a program",
    )
)]
pub(crate) struct Ratios {
    /// Rounds; a median of fewer than five says little.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = within(1_u32, 100))]
    rounds: u32,
    /// Seconds of each throughput measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = within(1_u64, 600))]
    seconds: u64,
    /// Only measurements whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// A directory on the disk to use; the bench makes `ratios` in there, and removes nothing but what it left in
    /// that. A cache directory when it is left out.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// In each round, go on repeating the void runs of a workload for so long, such as 1m; wait before each, and before
    /// the round, until the machine's host leaves it alone.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    patience: Span,
    #[command(flatten)]
    output: Output,
}

/// Which way a ratio is to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    AtMost,
    AtLeast,
}

/// One row of the result.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    unit: &'static str,
    /// Median over the rounds.
    figure: f64,
    figure_spread: (f64, f64),
    /// Median over the rounds.
    floor: f64,
    floor_spread: (f64, f64),
    /// Median of the ratios of each round.
    ratio: f64,
    ratio_spread: (f64, f64),
    target: f64,
    ok: bool,
    /// Rounds whose figure counts.
    rounds: usize,
    /// Runs for it that were void and do not count.
    void: u32,
}

#[derive(Debug)]
struct Comparison {
    rounds: u32,
    disk: Disk,
    /// Runs whose generator was late, one entry each; none of them counts.
    void: Vec<String>,
    ratios: Vec<Row>,
}

const RECEIVED: &str = "round trip received";
const STORED: &str = "round trip stored";
const INGEST_MEMORY: &str = "ingest memory";
const INGEST_DURABLE: &str = "ingest durable";
const CACHED: &str = "consume cached";
const COLD: &str = "consume cold";
const EDGE_P99: &str = "edge 1000 against 1, stored p99";
const EDGE_SYNCS: &str = "edge 1000, syncs a tick";
const DUEL_DURABLE: [&str; 2] = ["duel-60 durable, p99 of budget", "duel-60 durable, p99.9 of budget"];
const DUEL_MEMORY: [&str; 2] = ["duel-60 memory, p99 of budget", "duel-60 memory, p99.9 of budget"];

/// What is compared, in which unit, and where the ratio should be.
const AIMS: [(&str, &str, Aim, f64); 12] = [
    (RECEIVED, "µs", Aim::AtMost, 1.3),
    (STORED, "µs", Aim::AtMost, 1.3),
    (INGEST_MEMORY, "records/s", Aim::AtLeast, 0.7),
    (INGEST_DURABLE, "records/s", Aim::AtLeast, 0.5),
    (CACHED, "bytes/s", Aim::AtLeast, 0.7),
    (COLD, "bytes/s", Aim::AtLeast, 0.7),
    (EDGE_P99, "µs", Aim::AtMost, 3.0),
    (EDGE_SYNCS, "syncs", Aim::AtMost, 2.0),
    (DUEL_DURABLE[0], "µs", Aim::AtMost, 1.0),
    (DUEL_DURABLE[1], "µs", Aim::AtMost, 1.0),
    (DUEL_MEMORY[0], "µs", Aim::AtMost, 1.0),
    (DUEL_MEMORY[1], "µs", Aim::AtMost, 1.0),
];

const LATENCY: Duration = Duration::from_secs(2);
/// Below a quarter of the journal's ring nothing is settled, so that all of it comes from the cache.
const CACHED_BYTES: u64 = 40 << 20;
/// How often the cached data is read in a round.
const CACHED_READS: u32 = 8;
/// The memory of the broker that reads cold data, and how much more data there is.
const COLD_MEMORY: &str = "128MiB";
const COLD_BYTES: u64 = 8 * (128 << 20);
/// Workloads whose tail is looked at are run in pieces so long, until the slices that count are together long enough.
const PIECE: Duration = Duration::from_secs(10);
/// One partition gets one record a tick: a p99 with ten samples beyond it takes a thousand ticks. As many of a thousand partitions,
/// so that both tails hold the same share of the machine's hiccups.
const EDGE_COUNTED: Duration = Duration::from_secs(17);
const DUEL_COUNTED: Duration = Duration::from_secs(8);

/// Figure and floor of each round, by name.
type Samples = BTreeMap<&'static str, Vec<(f64, f64)>>;

impl Ratios {
    pub(crate) fn run(self) -> Outcome {
        self.check_names()?;
        self.output.check()?;
        let result = self.measure().map_err(failure)?;
        self.output.write(&result.ratios, &text(&result).map_err(Failure::failed)?)?;
        judge(&result.ratios)
    }

    /// Refuses a text that fits no name: rounds of nothing would take as long and look like success.
    fn check_names(&self) -> Outcome {
        if AIMS.iter().any(|aim| self.wants(aim.0)) {
            return Ok(());
        }
        let names: Vec<&str> = AIMS.iter().map(|aim| aim.0).collect();
        let only = self.only.as_deref().unwrap_or_default();
        Err(Failure::usage(format!("--only {only:?} fits no measurement; there are:\n  {}", names.join("\n  "))))
    }

    fn measure(&self) -> anyhow::Result<Comparison> {
        let root = Lab::open(self.data.clone())?;
        let claim = root.claim("ratios")?;
        let lab = Lab { directory: claim.data(), ..root };
        std::fs::create_dir_all(&lab.directory)?;
        let bare = lab.bare()?;
        if self.wants("consume cold") {
            prepare_cold(&lab)?;
        }
        let mut samples = Samples::new();
        let void = RefCell::new(Void::default());
        for round in 1..=self.rounds {
            self.step(&format!("round {round} of {}", self.rounds));
            let server = lab.start_fresh("broker")?;
            let duration = Duration::from_secs(self.seconds);
            let patience = self.patience.0;
            let round = Round { lab: &lab, bare: &bare, server: &server, duration, patience, void: &void };
            // The floors are measured in the same round, so that one that is not quiet counts all the same.
            let _quiet = patience.is_zero() || wait_until_quiet(patience);
            self.round_trips(&round, &mut samples)?;
            self.streams(&round, &mut samples)?;
            self.ticks(&round, &mut samples)?;
            server.stop()?;
        }
        bare.stop()?;
        let Void { reasons, runs } = void.into_inner();
        let ratios = rows(&samples, &runs);
        Ok(Comparison { rounds: self.rounds, disk: Disk::of(&lab.directory), void: reasons, ratios })
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn step(&self, name: &str) {
        if !self.output.is_quiet() {
            eprintln_step(name);
        }
    }

    fn round_trips(&self, round: &Round<'_>, samples: &mut Samples) -> anyhow::Result<()> {
        if !self.wants(RECEIVED) && !self.wants(STORED) {
            return Ok(());
        }
        let p50 = |latency: &corelane_loadgen::measure::Latency| {
            latency.percentiles().p50.context("too few round trips for a median")
        };
        let address = round.address();
        let floor = p50(&echo(round.bare, LATENCY)?)?;
        create(&address, "received", TopicClass::Memory, None)?;
        let received = p50(&block_on(round_trip::measure(&address, "received", Acks::Received, LATENCY))?)?;
        push(samples, RECEIVED, received, floor);
        let disk = percentiles(&write_sync(round.lab, 4096, DiskPath::Reactor)?.total);
        create(&address, "stored", TopicClass::Durable, None)?;
        let stored = p50(&block_on(round_trip::measure(&address, "stored", Acks::Stored, LATENCY))?)?;
        push(samples, STORED, stored, floor + disk.p50.context("too few writes for a median")?);
        Ok(())
    }

    fn streams(&self, round: &Round<'_>, samples: &mut Samples) -> anyhow::Result<()> {
        let address = round.address();
        if self.wants(INGEST_MEMORY) || self.wants(INGEST_DURABLE) {
            let floor = bare_ingest(round.bare, round.duration)?;
            create(&address, "ingest-memory", TopicClass::Memory, None)?;
            let memory = block_on(ingest::measure(&address, "ingest-memory", Acks::Received, round.duration))?;
            push(samples, INGEST_MEMORY, memory, floor);
            create(&address, "ingest-durable", TopicClass::Durable, None)?;
            let durable = block_on(ingest::measure(&address, "ingest-durable", Acks::Stored, round.duration))?;
            push(samples, INGEST_DURABLE, durable, floor);
            delete(&address, "ingest-memory")?;
            delete(&address, "ingest-durable")?;
        }
        if self.wants(CACHED) {
            let fresh = round.lab.start_fresh("cached")?;
            let cached = format!("corelane://{}", fresh.quic);
            create(&cached, "cached", TopicClass::Durable, None)?;
            let records = block_on(ingest::fill(&cached, "cached", CACHED_BYTES))?;
            let floor = bare_egress(round.bare, round.duration)?;
            let mut sum = consume::Consumed::default();
            for _ in 0..CACHED_READS {
                let read = block_on(consume::measure(&cached, "cached", records, Duration::from_secs(60)))?;
                anyhow::ensure!(read.records == records, "{} of {records} cached records came", read.records);
                sum.bytes += read.bytes;
                sum.elapsed += read.elapsed;
            }
            fresh.stop()?;
            push(samples, CACHED, sum.bytes_per_s(), floor);
        }
        if self.wants(COLD) {
            let floor = bare_egress(round.bare, round.duration)?.min(read(round.lab)?);
            let server = start_cold(round.lab)?;
            let address = format!("corelane://{}", server.quic);
            let records = COLD_BYTES.div_ceil(ingest::RECORD_BYTES as u64);
            let read = block_on(consume::measure(&address, "cold", records, Duration::from_secs(60)))?;
            anyhow::ensure!(read.records == records, "{} of {records} cold records came", read.records);
            server.stop()?;
            push(samples, COLD, read.bytes_per_s(), floor);
        }
        Ok(())
    }

    fn ticks(&self, round: &Round<'_>, samples: &mut Samples) -> anyhow::Result<()> {
        if self.wants(EDGE_P99) || self.wants(EDGE_SYNCS) {
            let tick = Duration::from_millis(16);
            let edge = |partitions| Edge { partitions, tick, duration: PIECE, class: TopicClass::Durable }.plan();
            let one = round.carry_out(&[EDGE_P99], EDGE_COUNTED, || edge(1))?;
            let many = round.carry_out(&[EDGE_P99, EDGE_SYNCS], EDGE_COUNTED, || edge(1000))?;
            if let Some(many) = many {
                let ticks = (PIECE * many.pieces).as_secs_f64() / tick.as_secs_f64();
                let syncs = many.journal_syncs.context("the broker's admin listener is known")?;
                #[expect(clippy::cast_precision_loss, reason = "a count of seconds")]
                push(samples, EDGE_SYNCS, syncs as f64 / ticks, 1.0);
                if let Some(one) = one {
                    let p99 =
                        |joined: &Joined| joined.samples.stored.percentiles().p99.context("too few samples for p99");
                    push(samples, EDGE_P99, p99(&many)?, p99(&one)?);
                }
            }
        }
        for (class, names) in [(TopicClass::Durable, DUEL_DURABLE), (TopicClass::Memory, DUEL_MEMORY)] {
            if !names.iter().any(|name| self.wants(name)) {
                continue;
            }
            let duel = || Duel { matches: 20, duration: PIECE, class, partitions: 8 }.plan();
            let Some(joined) = round.carry_out(&names, DUEL_COUNTED, duel)? else { continue };
            let budget = joined.budget.context("the scenario has a budget")?;
            let consumed = joined.samples.consumed.percentiles();
            push(samples, names[0], consumed.p99.context("too few samples for p99")?, budget.p99_us);
            push(samples, names[1], consumed.p999.context("too few samples for p99.9")?, budget.p999_us);
        }
        Ok(())
    }
}

/// What one round works with.
struct Round<'a> {
    lab: &'a Lab,
    bare: &'a Bare,
    server: &'a Server,
    duration: Duration,
    patience: Duration,
    void: &'a RefCell<Void>,
}

/// Runs that do not count, because the generator was late.
#[derive(Debug, Default)]
struct Void {
    reasons: Vec<String>,
    /// How many, by the row that they were for.
    runs: BTreeMap<&'static str, u32>,
}

impl Round<'_> {
    fn address(&self) -> String {
        format!("corelane://{}", self.server.quic)
    }

    /// Runs a workload for some rows, piece after piece, until the slices that count are `counted` long together, as long as
    /// patience lasts; if they do not come together its round has no figure. A run that is not right is none.
    fn carry_out(
        &self,
        rows: &[&'static str],
        counted: Duration,
        plan: impl Fn() -> Plan,
    ) -> anyhow::Result<Option<Joined>> {
        let pieces = u32::try_from(counted.as_nanos().div_ceil(PIECE.as_nanos())).expect("some pieces");
        let mut patience = Patience::new(self.patience, pieces * RUNS_MIN);
        let mut joined = Joined::default();
        while joined.counted < counted {
            if !patience.goes_on() {
                return Ok(None);
            }
            let options = RunOptions { admin: Some(self.server.admin), ..RunOptions::new(self.address()) };
            let report = block_on(carry_out(plan(), &options))?;
            anyhow::ensure!(report.is_right(), "the run is not right:\n{report}");
            match &report.void_reason {
                None => joined.add(&report),
                Some(reason) => {
                    let mut void = self.void.borrow_mut();
                    void.reasons.push(format!("{}: {reason}", report.scenario));
                    rows.iter().for_each(|&row| *void.runs.entry(row).or_default() += 1);
                }
            }
        }
        Ok(Some(joined))
    }
}

/// The pieces of a workload that count.
#[derive(Debug, Default)]
struct Joined {
    pieces: u32,
    /// How long their slices that count are.
    counted: Duration,
    samples: corelane_loadgen::report::Samples,
    journal_syncs: Option<u64>,
    budget: Option<Budget>,
}

impl Joined {
    fn add(&mut self, report: &Report) {
        self.pieces += 1;
        self.counted += report.slices.counted();
        self.samples.stored.merge(&report.samples.stored);
        self.samples.consumed.merge(&report.samples.consumed);
        self.journal_syncs =
            report.journal_syncs.map(|syncs| syncs + self.journal_syncs.unwrap_or_default()).or(self.journal_syncs);
        self.budget = report.budget;
    }
}

fn push(samples: &mut Samples, name: &'static str, figure: f64, floor: f64) {
    samples.entry(name).or_default().push((figure, floor));
}

fn create(address: &str, topic: &str, class: TopicClass, retention_bytes: Option<u64>) -> anyhow::Result<()> {
    block_on(async {
        let client = corelane::connect(address).await?;
        let settings = TopicSettings { class, retention_bytes, ..TopicSettings::default() };
        client.admin().create_topic(topic, 1, settings).await?;
        client.close().await;
        Ok(())
    })
}

fn delete(address: &str, topic: &str) -> anyhow::Result<()> {
    block_on(async {
        let client = corelane::connect(address).await?;
        client.admin().delete_topic(topic).await?;
        client.close().await;
        Ok(())
    })
}

/// A broker with little memory, whose data a former one wrote.
fn start_cold(lab: &Lab) -> anyhow::Result<Server> {
    let mut options = lab.broker("cold")?;
    options.arguments.extend(["--memory".to_owned(), COLD_MEMORY.to_owned()]);
    Server::start(&options)
}

fn prepare_cold(lab: &Lab) -> anyhow::Result<()> {
    let server = start_cold(lab)?;
    let address = format!("corelane://{}", server.quic);
    create(&address, "cold", TopicClass::Durable, None)?;
    block_on(ingest::fill(&address, "cold", COLD_BYTES))?;
    server.stop()
}

/// A row for everything that was tried. One of which all runs were void has no figure, which JSON shows as null, and is not ok.
fn rows(samples: &Samples, void: &BTreeMap<&'static str, u32>) -> Vec<Row> {
    let tried = AIMS.iter().filter(|aim| samples.contains_key(aim.0) || void.contains_key(aim.0));
    let runs = |name| (samples.get(name).map_or(&[][..], Vec::as_slice), void.get(name).copied().unwrap_or(0));
    tried.map(|aim| row(*aim, runs(aim.0))).collect()
}

fn row((name, unit, aim, target): (&str, &'static str, Aim, f64), (samples, void): (&[(f64, f64)], u32)) -> Row {
    let median = |figures: &[f64]| if figures.is_empty() { f64::NAN } else { median(figures) };
    let figures: Vec<f64> = samples.iter().map(|sample| sample.0).collect();
    let floors: Vec<f64> = samples.iter().map(|sample| sample.1).collect();
    let ratios: Vec<f64> = samples.iter().map(|sample| sample.0 / sample.1.max(1e-12)).collect();
    let ratio = median(&ratios);
    let ok = match aim {
        Aim::AtMost => ratio <= target,
        Aim::AtLeast => target <= ratio,
    };
    Row {
        name: name.to_owned(),
        unit,
        figure: median(&figures),
        figure_spread: spread(&figures),
        floor: median(&floors),
        floor_spread: spread(&floors),
        ratio,
        ratio_spread: spread(&ratios),
        target,
        ok,
        rounds: samples.len(),
        void,
    }
}

/// Rows that missed their target, or have no figure, end the command with a code of their own.
fn judge(rows: &[Row]) -> Outcome {
    let missed: Vec<&str> = rows.iter().filter(|row| !row.ok).map(|row| row.name.as_str()).collect();
    if missed.is_empty() {
        return Ok(());
    }
    Err(Failure::missed(format!("missed, or without a figure: {}", missed.join("; "))))
}

/// Smallest and largest; without figures they are no numbers, which JSON shows as null.
fn spread(figures: &[f64]) -> (f64, f64) {
    if figures.is_empty() {
        return (f64::NAN, f64::NAN);
    }
    (figures.iter().copied().fold(f64::INFINITY, f64::min), figures.iter().copied().fold(0.0, f64::max))
}

fn text(result: &Comparison) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "medians of {} rounds; in brackets the ratio's spread", result.rounds)?;
    for row in &result.ratios {
        if row.rounds == 0 {
            writeln!(out, "{:<34} no figure: all of {} runs were void", row.name, row.void)?;
            continue;
        }
        let verdict = if row.ok { "ok" } else { "MISSED" };
        write!(
            out,
            "{:<34} {:>12.1} {:<9} floor {:>12.1}  ratio {:>6.2} [{:.2} to {:.2}]  target {:.1}  {verdict}",
            row.name, row.figure, row.unit, row.floor, row.ratio, row.ratio_spread.0, row.ratio_spread.1, row.target
        )?;
        if 0 < row.void {
            write!(out, " ({} rounds; {} runs were void and do not count)", row.rounds, row.void)?;
        }
        writeln!(out)?;
    }
    for reason in &result.void {
        writeln!(out, "void, so that it does not count: {reason}")?;
    }
    writeln!(out, "disk: {}", result.disk)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_a_figure_has_null_for_all_its_numbers() {
        let void = BTreeMap::from([(EDGE_P99, 3)]);
        let rows = serde_json::to_value(rows(&Samples::new(), &void)).unwrap();
        for field in ["figure", "floor", "ratio"] {
            assert!(rows[0][field].is_null(), "{rows}");
            let spread = format!("{field}_spread");
            assert_eq!(rows[0][&spread], serde_json::json!([null, null]), "{rows}");
        }
        assert_eq!((&rows[0]["ok"], &rows[0]["void"]), (&false.into(), &3.into()), "{rows}");
        assert_eq!(spread(&[2.0, 1.0]), (1.0, 2.0));
    }

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        ratios: Ratios,
    }

    #[test]
    fn a_text_that_fits_no_name_is_refused_with_the_names() {
        let ratios = |only| <Alone as clap::Parser>::try_parse_from(["x", "--only", only]).unwrap().ratios;
        let error = ratios("zzz").run().unwrap_err();
        assert!(AIMS.iter().all(|aim| error.to_string().contains(aim.0)), "{error}");
        assert!(ratios("edge").check_names().is_ok());
    }

    #[test]
    fn a_row_that_missed_or_has_no_figure_ends_the_command_with_its_own_code() {
        let void = BTreeMap::from([(EDGE_P99, 3)]);
        let judged = |samples: &[(&'static str, (f64, f64))], void: &BTreeMap<&'static str, u32>| {
            let samples: Samples = samples.iter().map(|&(name, sample)| (name, vec![sample])).collect();
            judge(&rows(&samples, void))
        };
        assert!(judged(&[(RECEIVED, (1.0, 1.0))], &BTreeMap::new()).is_ok());
        let missed = judged(&[(RECEIVED, (2.0, 1.0)), (STORED, (1.0, 1.0))], &BTreeMap::new()).unwrap_err();
        assert!(missed.to_string().ends_with(RECEIVED), "{missed}");
        let without = judged(&[(STORED, (1.0, 1.0))], &void).unwrap_err();
        assert!(without.to_string().ends_with(EDGE_P99), "{without}");
        assert_eq!(format!("{:?}", without.exit_code()), format!("{:?}", std::process::ExitCode::from(5)));
    }
}
