//! `cargo xtask sim`: seeds, modes and planted bugs.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use corelane_sim::{Detail, Seeds};

use crate::ci::cargo;
use crate::root;

/// Seeds of a `smoke` run.
const SMOKE_SEEDS: u64 = 200;
/// Seeds within which each planted bug must be found, and with which the clean build must find nothing.
const PLANTED_SEEDS: u64 = 1000;
/// Seeds that `meta` runs twice.
const META_SEEDS: u64 = 20;
/// Tells this program that cargo started it in place of the compiler.
const WRAPPER_VARIABLE: &str = "CORELANE_PLANTED_BUILD";

/// What to simulate.
#[derive(Debug, Args)]
pub(crate) struct SimArguments {
    /// A named mode; without one, seeds are run.
    #[arg(value_enum)]
    mode: Option<Mode>,
    /// How many seeds to run.
    #[arg(long, value_name = "N", default_value_t = SMOKE_SEEDS)]
    seeds: u64,
    /// The first of the seeds.
    #[arg(long, value_name = "S", default_value_t = 0)]
    first: u64,
    /// Runs this one seed and prints the end of its trace.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// With --seed: prints the whole trace.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plants this bug first, in a build of its own; `list` names them.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// How long `soak` runs.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    minutes: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// 200 seeds, for a quick look.
    Smoke,
    /// Some seeds twice: their traces must be identical to the byte.
    Meta,
    /// Fresh seeds for some minutes.
    Soak,
    /// The seeds that failed once, from tests/seeds.
    Seeds,
    /// Each planted bug must be found, and the clean build must find nothing with the same seeds.
    Planted,
}

/// Runs what the arguments ask for.
pub(crate) fn run(arguments: &SimArguments) -> anyhow::Result<()> {
    if let Some(bug) = &arguments.bug {
        return planted_program(&bug_arguments(arguments, bug));
    }
    match arguments.mode {
        Some(Mode::Smoke) => smoke(),
        Some(Mode::Meta) => meta(META_SEEDS),
        Some(Mode::Soak) => soak(Duration::from_secs(arguments.minutes * 60)),
        Some(Mode::Seeds) => regressions(),
        Some(Mode::Planted) => planted(),
        None => match arguments.seed {
            Some(seed) => one(seed, if arguments.trace { Detail::Whole } else { Detail::Tail }),
            None => many(Seeds::new(arguments.first, arguments.seeds)),
        },
    }
}

/// The quick look that every change gets: seeds, and that a seed replays.
pub(crate) fn smoke() -> anyhow::Result<()> {
    meta(META_SEEDS)?;
    many(Seeds::new(0, SMOKE_SEEDS))
}

/// Runs the seeds that failed once: each file in tests/seeds is named after its seed and tells its story.
pub(crate) fn regressions() -> anyhow::Result<()> {
    let folder = root().join("tests/seeds");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if let Some(stem) = name.strip_suffix(".md").filter(|stem| *stem != "README") {
            let number = stem.split('-').next().unwrap_or_default();
            seeds
                .push(number.parse::<u64>().with_context(|| format!("tests/seeds/{name} does not begin with a seed"))?);
        }
    }
    seeds.sort_unstable();
    for seed in &seeds {
        one(*seed, Detail::Silent)?;
    }
    println!("sim: {} seeds that failed once pass", seeds.len());
    Ok(())
}

/// Shows that the simulator would find bugs, and that it finds none where there is none.
pub(crate) fn planted() -> anyhow::Result<()> {
    planted_program(&["hunt".to_owned(), PLANTED_SEEDS.to_string()])?;
    planted_histories()?;
    many(Seeds::new(0, PLANTED_SEEDS))
}

fn one(seed: u64, detail: Detail) -> anyhow::Result<()> {
    let report = corelane_sim::run(seed, detail);
    if detail != Detail::Silent || report.failure.is_some() {
        println!("{}", report.render(&commit()));
    }
    if report.failure.is_some() {
        bail!("seed {seed} failed; again with: cargo xtask sim --seed {seed}");
    }
    Ok(())
}

fn many(seeds: Seeds) -> anyhow::Result<()> {
    let from = Instant::now();
    let summary = corelane_sim::run_all(seeds, jobs());
    println!("sim: commit {}, {:.1} s, {summary}", commit(), from.elapsed().as_secs_f64());
    let Some((seed, _)) = summary.failed.first() else { return Ok(()) };
    one(*seed, Detail::Tail)
}

fn meta(count: u64) -> anyhow::Result<()> {
    for seed in 0..count {
        let [first, second] = [(); 2].map(|()| corelane_sim::run(seed, Detail::Silent));
        if first.digest != second.digest || first.trace_bytes != second.trace_bytes {
            bail!("seed {seed} does not replay: {:016x} then {:016x}", first.digest, second.digest);
        }
    }
    println!("sim: {count} seeds replay to identical traces");
    Ok(())
}

fn soak(time: Duration) -> anyhow::Result<()> {
    let from = Instant::now();
    // A soak is to see seeds that no other soak saw; its seeds are printed, so that each can be replayed.
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let mut first = clock << 20;
    while from.elapsed() < time {
        many(Seeds::new(first, SMOKE_SEEDS))?;
        first += SMOKE_SEEDS;
    }
    Ok(())
}

fn bug_arguments(arguments: &SimArguments, bug: &str) -> Vec<String> {
    match arguments.seed {
        Some(seed) => vec!["seed".to_owned(), seed.to_string(), bug.to_owned()],
        None if bug == "list" => vec!["list".to_owned()],
        None => vec!["hunt".to_owned(), arguments.seeds.to_string(), bug.to_owned()],
    }
}

/// Builds the simulator with `--cfg planted` and runs it.
///
/// The compiler wrapper adds the flag to the packages of this workspace only, so that their dependencies are compiled
/// once for both builds, and cargo keeps the two kinds of our own packages apart by the wrapper's name.
fn planted_program(arguments: &[String]) -> anyhow::Result<()> {
    let wrapper = std::env::current_exe().context("cannot tell where this program is")?;
    let wrapper = wrapper.to_str().context("the path of this program is not UTF-8")?;
    let mut all = vec!["run", "--quiet", "--locked", "--package", "corelane-sim", "--bin", "corelane-sim", "--"];
    all.extend(arguments.iter().map(String::as_str));
    cargo(&all, &[("RUSTC_WORKSPACE_WRAPPER", wrapper), (WRAPPER_VARIABLE, "1")])
}

/// Bugs are found by the random histories of their crates too: those that the simulator finds, and those that it cannot.
fn planted_histories() -> anyhow::Result<()> {
    let wrapper = std::env::current_exe().context("cannot tell where this program is")?;
    let wrapper = wrapper.to_str().context("the path of this program is not UTF-8")?;
    // The tests of these packages that search for bugs; other tests of theirs do not begin with `bugs::`.
    let mut all = vec!["test", "--quiet", "--locked", "--test", "planted", "--test", "journal", "--test", "it"];
    for package in ["corelane-queue", "corelane-group", "corelane-commitlog", "corelane-journal", "corelane-storage"] {
        all.extend(["--package", package]);
    }
    all.extend(["--", "bugs::"]);
    cargo(&all, &[("RUSTC_WORKSPACE_WRAPPER", wrapper), (WRAPPER_VARIABLE, "1")])
}

/// When cargo started this program in place of the compiler: compiles with `--cfg planted`.
pub(crate) fn run_as_compiler_wrapper() -> Option<ExitCode> {
    std::env::var_os(WRAPPER_VARIABLE)?;
    let mut arguments = std::env::args_os().skip(1);
    let compiler: OsString = arguments.next()?;
    let status = Command::new(compiler).args(arguments).args(["--cfg", "planted"]).status();
    let code = status.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn commit() -> String {
    let output = Command::new("git").current_dir(root()).args(["describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
