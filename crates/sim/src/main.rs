//! The simulator as a program of its own, so that it can be built with `--cfg planted`.
//!
//! `cargo xtask sim --bug NAME` builds and starts it: `hunt SEEDS [NAME]` looks for one planted bug or for each,
//! `count SEEDS NAME` says how many seeds find it, `seed SEED [NAME]` runs one seed, `list` names the bugs.

#![expect(clippy::print_stdout, reason = "a program for developers talks on standard output")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    match planted::main(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            println!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(planted))]
mod planted {
    pub(super) fn main(_: &[String]) -> Result<(), String> {
        Err("this build holds no planted bug; start it through `cargo xtask sim --bug NAME`".to_owned())
    }
}

#[cfg(planted)]
mod planted {
    use corelane_model::planted::{Bug, select};
    use corelane_sim::{Detail, Seeds, find, run, run_all};

    pub(super) fn main(arguments: &[String]) -> Result<(), String> {
        let words = arguments.iter().map(String::as_str).collect::<Vec<_>>();
        match words[..] {
            ["list"] => {
                Bug::ALL.iter().for_each(|bug| println!("{}", bug.name()));
                Ok(())
            }
            ["hunt", seeds] => {
                let seeds = number(seeds)?;
                // All of them, so that one run says which are not found.
                let bugs = Bug::ALL.iter().filter(|bug| bug.is_simulated());
                let results = bugs.map(|bug| hunt(*bug, seeds)).collect::<Vec<_>>();
                results.into_iter().collect()
            }
            ["hunt", seeds, name] => hunt(parse(name)?, number(seeds)?),
            ["count", seeds, name] => count(parse(name)?, number(seeds)?),
            ["seed", seed] => one(number(seed)?, None),
            ["seed", seed, name] => one(number(seed)?, Some(parse(name)?)),
            _ => Err("expected: list | hunt SEEDS [NAME] | count SEEDS NAME | seed SEED [NAME]".to_owned()),
        }
    }

    /// A bug that no seed finds means that the simulator is blind there.
    fn hunt(bug: Bug, seeds: u64) -> Result<(), String> {
        select(Some(bug));
        let report = find(Seeds::new(0, seeds));
        select(None);
        let Some(report) = report else { return Err(format!("{} is not found within {seeds} seeds", bug.name())) };
        let text = report.failure.map(|violation| violation.to_string()).unwrap_or_default();
        println!(
            "planted: {} found by seed {}: {}",
            bug.name(),
            report.seed,
            text.chars().take(160).collect::<String>()
        );
        Ok(())
    }

    /// How many of these seeds find a bug: whether it is found early by luck or by weight.
    fn count(bug: Bug, seeds: u64) -> Result<(), String> {
        select(Some(bug));
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let summary = run_all(Seeds::new(0, seeds), jobs);
        select(None);
        println!("planted: {} is found by {} of {seeds} seeds", bug.name(), summary.failed.len());
        Ok(())
    }

    fn one(seed: u64, bug: Option<Bug>) -> Result<(), String> {
        select(bug);
        println!("{}", run(seed, Detail::Tail).render("planted"));
        Ok(())
    }

    fn parse(name: &str) -> Result<Bug, String> {
        Bug::parse(name).ok_or_else(|| format!("there is no planted bug {name:?}; `list` names them"))
    }

    fn number(text: &str) -> Result<u64, String> {
        text.parse().map_err(|_| format!("{text:?} is not a number"))
    }
}
