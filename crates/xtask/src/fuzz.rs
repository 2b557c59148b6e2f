//! `cargo xtask fuzz`: the fuzz bodies on stable Rust, with a deterministic generator.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use corelane_sim::fuzz::{Failure, TARGETS, Target};

use crate::root;

/// Inputs for each body in ci.
const SMOKE_INPUTS: u64 = 2_000;

/// What to fuzz.
#[derive(Debug, Args)]
pub(crate) struct FuzzArguments {
    /// A target, `all`, or `list`.
    target: String,
    /// How many inputs each target gets.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    inputs: u64,
    /// Chooses the inputs; the same seed gives the same inputs.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Runs the target on this one file instead, as after a failure.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Writes the valid inputs that mutations begin with into this folder instead, as a corpus for libFuzzer.
    #[arg(long, value_name = "FOLDER", conflicts_with = "file")]
    corpus: Option<PathBuf>,
}

/// Runs what the arguments ask for.
pub(crate) fn run(arguments: &FuzzArguments) -> anyhow::Result<()> {
    if arguments.target == "list" {
        TARGETS.iter().for_each(|target| println!("{:<18} {}", target.name, target.about));
        return Ok(());
    }
    let targets = TARGETS.iter().filter(|target| arguments.target == "all" || arguments.target == target.name);
    let targets = targets.collect::<Vec<_>>();
    if targets.is_empty() {
        let names = TARGETS.iter().map(|target| target.name).collect::<Vec<_>>();
        bail!("there is no fuzz target {:?}; there are all, {}", arguments.target, names.join(", "));
    }
    if let Some(file) = &arguments.file {
        let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for target in targets {
            let word = if (target.body)(&input) { "accepts" } else { "refuses" };
            println!("fuzz: {} {word} the {} bytes", target.name, input.len());
        }
        return Ok(());
    }
    if let Some(folder) = &arguments.corpus {
        return targets.iter().try_for_each(|target| write_corpus(target, folder));
    }
    targets.iter().try_for_each(|target| drive(target, arguments.inputs, arguments.seed))
}

fn write_corpus(target: &Target, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let seeds = (target.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        let file = folder.join(format!("{}-{number}", target.name));
        std::fs::write(&file, seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("fuzz: {} valid inputs of {} are in {}", seeds.len(), target.name, folder.display());
    Ok(())
}

/// A little input for every body.
pub(crate) fn smoke() -> anyhow::Result<()> {
    TARGETS.iter().try_for_each(|target| drive(target, SMOKE_INPUTS, 0))
}

fn drive(target: &Target, inputs: u64, seed: u64) -> anyhow::Result<()> {
    let from = Instant::now();
    match corelane_sim::fuzz::drive(target, inputs, seed) {
        Ok(coverage) => {
            println!("fuzz: {} {inputs} inputs pass, {coverage}, {:.1} s", target.name, from.elapsed().as_secs_f64());
            Ok(())
        }
        Err(Failure { number, input, text }) => {
            let folder = root().join("tests/fuzz/artifacts");
            let file = folder.join(format!("{}-{seed}-{number}", target.name));
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            std::fs::write(&file, &input).with_context(|| format!("cannot write {}", file.display()))?;
            bail!(
                "{} fails on input {number} ({} bytes, kept in {}): {text}",
                target.name,
                input.len(),
                file.display()
            );
        }
    }
}
