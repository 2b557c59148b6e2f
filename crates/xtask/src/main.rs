//! Development tasks of Corelane: everything that checks the project, in the project's own language.
//!
//! Start it with `cargo xtask`. `ci` is what decides whether a change may land; each of its steps can be run alone.

#![expect(clippy::print_stdout, reason = "a development task talks on standard output")]

mod ci;
mod fuzz;
mod simulate;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of Corelane.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Checks everything and changes nothing: formatting, clippy, tidy, docs, simulator, planted bugs, fuzz bodies.
    Ci,
    /// Formats, and lets clippy apply what it can.
    Fix,
    /// Checks what no compiler checks: floors of the crates, file sizes, names, `Cargo.lock`, docs.
    Tidy,
    /// Runs the simulator: one seed, many, or a named mode.
    Sim(simulate::SimArguments),
    /// Runs fuzz bodies on generated and mutated input, on stable Rust.
    Fuzz(fuzz::FuzzArguments),
}

fn main() -> ExitCode {
    if let Some(code) = simulate::run_as_compiler_wrapper() {
        return code;
    }
    let result = match Arguments::parse().task {
        Task::Ci => ci::check(),
        Task::Fix => ci::fix(),
        Task::Tidy => tidy::run(),
        Task::Sim(arguments) => simulate::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the repository.
fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}
