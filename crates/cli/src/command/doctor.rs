//! `corelane doctor`.

use std::io::Write;

use clap::Args;
use corelane_broker::Machine;
use corelane_broker::doctor::{Finding, Verdict, examine};
use serde_json::json;

use super::examples;
use super::serve::Settings;
use crate::failure::{Failure, Outcome};

/// Look for what this machine lacks, and say what to do about it. Exits with 1 when a broker would not start.
#[derive(Debug, Args)]
#[command(before_help = examples!(
    "corelane doctor                                look at this machine",
    "corelane doctor --data /var/lib/corelane       look at another place",
    "corelane doctor --config corelane.toml --json  for a script",
))]
pub(crate) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// Print a JSON list of {name, verdict, found, advice}; a verdict is ok, warn or fail.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Outcome {
        let machine = Machine::this();
        let config = self.settings.config(&machine)?;
        let findings = examine(&config, &machine);
        let printed = print(&findings, self.json);
        let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
        if bad == 0 { printed } else { Err(Failure::failed(format!("a broker would not start here: {bad} × fail"))) }
    }
}

fn print(findings: &[Finding], is_json: bool) -> Outcome {
    let mut out = std::io::stdout().lock();
    if is_json {
        let list = findings.iter().map(|finding| {
            json!({
                "name": finding.name,
                "verdict": finding.verdict.name(),
                "found": finding.found,
                "advice": finding.advice,
            })
        });
        writeln!(out, "{:#}", list.collect::<serde_json::Value>())?;
    } else {
        for finding in findings {
            writeln!(out, "{finding}")?;
        }
    }
    Ok(())
}
