//! `corelane completions`.

use std::io::Write;

use clap::{Args, CommandFactory};

use super::{Cli, examples};
use crate::failure::Outcome;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane completions bash > /etc/bash_completion.d/corelane",
    "corelane completions zsh > ~/.zfunc/_corelane",
    "corelane completions fish > ~/.config/fish/completions/corelane.fish",
))]
pub(crate) struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Outcome {
        // The generator takes a failed write for a bug, so it writes to memory.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "corelane", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}
