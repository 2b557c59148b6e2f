//! What can be asked for on the command line.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod group;
pub(crate) mod produce;
pub(crate) mod queue;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod topic;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;

/// Examples stand first in every help: most readers look for one to copy.
macro_rules! examples {
    ($($line:literal),+ $(,)?) => {
        concat!("Examples:\n", $("  ", $line, "\n",)+)
    };
}
pub(crate) use examples;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    refused by the broker, or failed on the way, such as a file that cannot be
       read; the text says why
  2    what was asked for makes no sense as it was written, on the command line
       or in a file
  3    the broker cannot be reached, or it does not let us in
  4    bench: everything came, but the generator was late and the figures are void
  130  serve: a second signal ended it before everything was made durable;
       bench: a signal ended it, and its topics were deleted;
       queue redrive: a signal ended it, and what it put back stays";

/// Corelane, a durable message broker for multiplayer games.
#[derive(Debug, Parser)]
#[command(
    name = "corelane",
    version,
    before_help = examples!(
        "corelane serve                          start a broker on every core",
        "echo hello | corelane produce chat      write a record",
        "corelane consume chat --until end       read what is there",
    ),
    after_help = EXIT_CODES,
    max_term_width = 120,
    propagate_version = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Topic(topic::Topic),
    Group(group::Group),
    Queue(queue::Queue),
    Produce(produce::Produce),
    Consume(consume::Consume),
    Status(status::Status),
    Bench(Box<bench::Bench>),
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> Outcome {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Topic(topic) => topic.run(),
            Command::Group(group) => group.run(),
            Command::Queue(queue) => queue.run(),
            Command::Produce(produce) => produce.run(),
            Command::Consume(consume) => consume.run(),
            Command::Status(status) => status.run(),
            Command::Bench(bench) => bench.run(),
            Command::Demo(demo) => demo.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Completions(completions) => completions.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn visit(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.starts_with("Examples:\n"), "{path}: {help}");
        let examples: Vec<&str> = help.lines().skip(1).take_while(|line| line.starts_with("  ")).collect();
        assert!(3 <= examples.len(), "{path}: {examples:?}");
        for line in examples {
            assert!(
                line.contains("corelane ") && line.chars().count() <= 80,
                "{path}: {line:?} is no example of one line"
            );
        }
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            visit(sub, &path);
        }
    }

    #[test]
    fn the_command_line_is_consistent_and_every_help_shown_begins_with_three_examples() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        visit(&mut command, "corelane");
    }
}
