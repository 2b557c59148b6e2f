//! Fuzz bodies: plain functions over bytes that must not panic, whatever the bytes are.
//!
//! `cargo xtask fuzz` drives them on stable Rust with the generator here; the cargo-fuzz package in tests/fuzz drives
//! the same functions with libFuzzer. A body says whether it accepted its input, so that a run can tell whether the
//! generator reaches beyond the first check.

mod catalog;
mod frame;
mod generator;
mod group_log;
mod home_log;
mod journal_recovery;
mod log_state;
mod queue_log;
mod record_batch;
mod segment;
mod session_ops;
mod transaction_log;

use std::fmt;

use generator::Generator;

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Takes the bytes; says whether they were accepted. Must not panic.
    pub body: fn(&[u8]) -> bool,
    /// Valid inputs, which the generator mutates.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums right again after a mutation, so that the code behind them is reached.
    pub repair: fn(&mut [u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    frame::TARGET,
    record_batch::TARGET,
    journal_recovery::TARGET,
    segment::TARGET,
    catalog::TARGET,
    log_state::TARGET,
    session_ops::TARGET,
    group_log::TARGET,
    queue_log::TARGET,
    transaction_log::TARGET,
];

/// An input that made a body panic.
#[derive(Debug)]
pub struct Failure {
    /// Its place in the sequence of inputs.
    pub number: u64,
    /// The bytes.
    pub input: Vec<u8>,
    /// The panic's message.
    pub text: String,
}

/// What a run reached.
#[derive(Clone, Copy, Debug)]
pub struct Coverage {
    /// Inputs that the body accepted.
    pub accepted: u64,
    /// All inputs.
    pub inputs: u64,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of them accepted", self.accepted)
    }
}

/// Hands `inputs` inputs to a target. The same seed gives the same inputs.
///
/// # Errors
/// The first input that makes the body panic.
pub fn drive(target: &Target, inputs: u64, seed: u64) -> Result<Coverage, Failure> {
    let mut generator = Generator::new(seed, (target.seeds)(), target.repair);
    let mut accepted = 0;
    for number in 0..inputs {
        let input = generator.input();
        match crate::run::quietly(|| (target.body)(&input)) {
            Ok(is_accepted) => accepted += u64::from(is_accepted),
            Err(text) => return Err(Failure { number, input, text }),
        }
    }
    Ok(Coverage { accepted, inputs })
}

/// For targets without checksums.
const fn no_repair(_: &mut [u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_and_its_input_kept() {
        let target = Target {
            name: "fragile",
            about: "panics on inputs that end with 7",
            body: |input| {
                assert!(input.last() != Some(&7), "seven");
                true
            },
            seeds: || vec![vec![1, 2, 3]],
            repair: no_repair,
        };
        let failure = drive(&target, 100_000, 1).unwrap_err();
        assert_eq!(failure.input.last(), Some(&7));
        assert!(failure.text.contains("seven"));
    }

    #[test]
    fn every_target_accepts_its_seeds_and_survives_some_input() {
        for target in TARGETS {
            for (number, seed) in (target.seeds)().iter().enumerate() {
                assert!((target.body)(seed), "{} refuses its seed {number}", target.name);
            }
            let coverage = drive(target, 300, 1).unwrap_or_else(|failure| panic!("{}: {failure:?}", target.name));
            assert!(0 < coverage.accepted, "{} accepts nothing", target.name);
        }
    }
}
