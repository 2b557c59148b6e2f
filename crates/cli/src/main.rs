//! The one binary of Corelane. A plain `main`: a broker runs its shards on threads of its own, client commands run a tokio
//! runtime, and never one inside the other.

mod bounds;
mod claim;
mod command;
mod failure;
mod format;
mod input;
mod patience;
mod signals;
mod start;
mod table;
mod target;

use std::io::Write;
use std::process::ExitCode;

/// See docs/decisions/0037-the-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match command::Cli::of_command_line().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                // There is nobody left to tell if standard error is gone.
                let _untold = writeln!(std::io::stderr(), "corelane: {failure}");
            }
            failure.exit_code()
        }
    }
}
