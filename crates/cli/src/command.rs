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

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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
  5    bench ratios: a ratio missed its target, or a row has no figure
  130  serve: a second signal ended it before everything was made durable;
       bench: a signal ended it, and its topics were deleted;
       queue redrive: a signal ended it, and what it put back stays;
       produce: a signal ended it, and what was sent before was waited for;
       consume without a group: a signal ended it, and what came was printed";

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

/// Lets what is parsed answer to a minus: clap takes it for an option, and its tip leads nowhere.
fn with_negatives(command: clap::Command) -> clap::Command {
    let takes = |arg: clap::Arg| match arg.get_value_names().and_then(<[_]>::first).map(clap::builder::Str::as_str) {
        Some("TIME" | "TIMES" | "SIZE" | "X" | "START") => arg.allow_hyphen_values(true),
        Some("N" | "M" | "R" | "PARTITION" | "OFFSET" | "PERCENT" | "BYTES" | "SECONDS" | "LIST") => {
            arg.allow_negative_numbers(true)
        }
        _ => arg,
    };
    command.mut_args(takes).mut_subcommands(with_negatives)
}

impl Cli {
    /// What the command line asks for; ends the process where it makes no sense, or asks for help.
    pub(crate) fn of_command_line() -> Self {
        let matches = with_negatives(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

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
    use super::*;

    fn visit(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        assert!(help.starts_with("Examples:\n"), "{path}: {help}");
        let examples: Vec<&str> = help.lines().skip(1).take_while(|line| line.starts_with("  ")).collect();
        // `watch` is a program that not everybody has.
        let own = examples.iter().filter(|line| !line.starts_with("  watch ")).count();
        assert!(3 <= own, "{path}: {examples:?}");
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

    fn refused(line: &str) -> String {
        let words = std::iter::once("corelane").chain(line.split_whitespace());
        with_negatives(Cli::command()).try_get_matches_from(words).unwrap_err().to_string()
    }

    #[test]
    fn options_before_a_bench_are_sent_behind_it() {
        let said = refused("bench --class memory ratios");
        assert!(said.contains("go behind it") && !said.contains("there is no bench"), "{said}");
        assert!(refused("bench --class memory nope").contains("there is no bench \"nope\""));
    }

    #[test]
    fn every_environment_variable_is_documented() {
        fn visit(command: &clap::Command, names: &mut Vec<String>) {
            let own = command.get_arguments().filter_map(clap::Arg::get_env);
            names.extend(own.map(|name| name.to_string_lossy().into_owned()));
            command.get_subcommands().for_each(|sub| visit(sub, names));
        }
        let reference = corelane_broker::config::reference();
        let mut names = Vec::new();
        visit(&Cli::command(), &mut names);
        assert!(names.iter().any(|name| name == "CORELANE_BROKER"), "{names:?}");
        for name in names {
            assert!(reference.contains(&format!("| `{name}` |")), "docs/configuration.md does not have {name}");
        }
    }

    #[test]
    fn a_negative_number_is_answered_by_what_the_option_wants() {
        let lines = [
            ("topic create a -p -1", "-1"),
            ("topic create a --retention -7d", "7d"),
            ("topic create a --retention-bytes -1", "-1"),
            ("consume a -n -5", "\"-5\" is not a whole number of 0 or more"),
            ("queue consume a -g b -n -5", "\"-5\" is not a whole number of 0 or more"),
            ("topic truncate a -p -1 --before 3", "-1 is not between 0 and 16383"),
            ("group seek a b -p x --to 3", "\"x\" is not a whole number between 0 and 16383"),
            ("consume a -p -1", "-1 is not between 0 and 16383"),
            ("produce a -p -1", "-1 is not between 0 and 16383"),
            ("produce a --delay -1s", "1s"),
            ("queue redrive a -g b -n -5", "-5"),
            ("bench --trace x --speed -1", "-1 is not between"),
            ("bench nxm --rate -1", "-1 is not between"),
            ("bench ratios --rounds -1", "-1 is not between"),
            ("serve --shards -1", "-1 is not between 1 and 256"),
            ("serve --cores 0,-1", "-1 is not between 0 and "),
            ("serve --journal-files -1", "-1 is not between 4 and 1024"),
            ("serve --memory -1GiB", "-1GiB"),
        ];
        for (line, answer) in lines {
            let said = refused(line);
            assert!(
                said.contains("invalid value") && said.contains(answer) && !said.contains("tip:"),
                "{line}: {said}"
            );
        }
    }

    #[test]
    fn the_command_line_is_consistent_and_every_help_shown_begins_with_three_examples() {
        let mut command = with_negatives(Cli::command());
        command.clone().debug_assert();
        command.build();
        visit(&mut command, "corelane");
    }
}
