//! The first word after `corelane bench`, when it is no command.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, Error, ValueEnum};

use super::Scenario;

/// Reads a workload; what is none is told the commands too, because it may have been meant as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload;

impl TypedValueParser for Workload {
    type Value = Scenario;

    fn parse_ref(&self, command: &Command, _arg: Option<&Arg>, value: &OsStr) -> Result<Scenario, Error> {
        let text = value.to_string_lossy();
        Scenario::from_str(&text, false).map_err(|_| {
            let workloads: Vec<String> = values().map(|value| value.get_name().to_owned()).collect();
            let commands = command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(Command::get_name);
            let commands: Vec<&str> = commands.filter(|&name| name != "help").collect();
            if commands.contains(&&*text) {
                let told = format!("options of {text} go behind it: write `corelane bench {text} …`\n");
                return Error::raw(ErrorKind::InvalidValue, told).with_cmd(command);
            }
            let told = format!(
                "there is no bench {text:?}; there are the workloads {} and the commands {}\n",
                workloads.join(", "),
                commands.join(", ")
            );
            Error::raw(ErrorKind::InvalidValue, told).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(values()))
    }
}

fn values() -> impl Iterator<Item = PossibleValue> {
    Scenario::value_variants().iter().filter_map(ValueEnum::to_possible_value)
}
