//! What the machine lacks, and what to do about it: `corelane doctor` prints it, a start refuses or warns by it.

mod disk;
mod kernel;

use std::fmt;
use std::path::Path;

use crate::config::{Config, Machine};

pub use disk::{FileSystem, file_system};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, slower or with a risk.
    Warning,
    /// A broker does not start like this.
    Bad,
}

impl Verdict {
    /// The word for it, in the text and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warn",
            Self::Bad => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in two or three words.
    pub name: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty when nothing is to be done.
    pub advice: String,
}

impl Finding {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), advice: String::new() }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), advice: advice.into() }
    }

    fn bad(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Bad, found: found.into(), advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4}  {:<15} {}", self.verdict.name(), self.name, self.found)?;
        if !self.advice.is_empty() {
            write!(f, "\n      {:<15} → {}", "", self.advice)?;
        }
        Ok(())
    }
}

/// Everything that a broker with this configuration needs from the machine.
#[must_use]
pub fn examine(config: &Config, machine: &Machine) -> Vec<Finding> {
    let mut findings = before_start(config, machine);
    findings.push(disk::running(&config.data));
    findings
}

/// The same, but for what a start finds out by itself, with a better error: the lock and the ports.
pub(crate) fn before_start(config: &Config, machine: &Machine) -> Vec<Finding> {
    let mut findings = vec![
        kernel::version(),
        kernel::io_uring(),
        kernel::locked_memory(config.shards()),
        kernel::open_files(),
        kernel::socket_buffers(),
        cores(config, machine),
    ];
    findings.extend(disk::examine(&config.data, config.shards(), config.journal_files));
    findings
}

fn cores(config: &Config, machine: &Machine) -> Finding {
    let quota = machine.quota_cores.map_or_else(String::new, |quota| format!(", a quota of {quota}"));
    let found =
        format!("{} shards on cores {:?}; {} allowed{quota}", config.shards(), config.cores, machine.cores.len());
    match config.warnings.first() {
        None => Finding::good("cores", found),
        Some(warning) => Finding::warning("cores", found, warning.clone()),
    }
}

fn read_number(path: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn this_machine_is_examined_whole_and_advice_comes_with_every_complaint() {
        let data = tempfile::tempdir().unwrap();
        let raw = RawConfig { data: Some(data.path().join("new")), ..RawConfig::default() };
        let machine = Machine::this();
        let config = Config::check(raw, &machine).unwrap();
        let findings = examine(&config, &machine);
        for name in [
            "kernel",
            "io_uring",
            "locked memory",
            "open files",
            "socket buffers",
            "cores",
            "data",
            "direct I/O",
            "space",
        ] {
            assert!(findings.iter().any(|finding| finding.name == name), "{name} is not examined");
        }
        for finding in findings {
            assert_eq!(finding.verdict == Verdict::Good, finding.advice.is_empty(), "{finding}");
        }
        assert!(!data.path().join("new").exists(), "an examination makes no data directory");
    }

    #[test]
    fn a_finding_reads_as_a_line_and_its_advice() {
        let finding = Finding::warning("memlock", "64KiB", "ulimit -l unlimited");
        assert_eq!(finding.to_string(), "warn  memlock         64KiB\n                      → ulimit -l unlimited");
    }
}
