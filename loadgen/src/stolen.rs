//! Processor time that the host of a virtual machine took from it, and waiting until it leaves the machine alone.
//!
//! A core that its host gives to somebody else stands still: threads on it start late, and no scheduler of this machine can
//! help. Linux counts that as `steal`. A figure that was taken meanwhile says little about a broker.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// The file with the counters of all cores since the machine started.
const COUNTERS: &str = "/proc/stat";
/// Counters are in hundredths of a second, whatever the kernel's own tick is.
const COUNTER: Duration = Duration::from_millis(10);
/// So long a machine must be quiet to be taken for quiet.
const LOOK: Duration = Duration::from_secs(1);
/// How often a look sleeps in a row.
const SLEEP: Duration = Duration::from_millis(2);
/// A sleep that ends later than this is not that of a quiet machine: 5 % of a tick of 16 ms.
const LATE_MAX: Duration = Duration::from_micros(800);

/// What all cores together lost to the host since the machine started; `None` where nobody counts it.
#[must_use]
pub fn stolen() -> Option<Duration> {
    parse(&fs::read_to_string(COUNTERS).ok()?)
}

/// The eighth counter of the line of all cores.
fn parse(counters: &str) -> Option<Duration> {
    let all = counters.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let count: u32 = all.split_ascii_whitespace().nth(7)?.parse().ok()?;
    Some(COUNTER * count)
}

/// What was stolen between two looks at [`stolen`].
#[must_use]
pub fn since(before: Option<Duration>) -> Option<Duration> {
    Some(stolen()?.saturating_sub(before?))
}

/// Returns when the machine was quiet for a second: the host took nothing and no sleep ended late; or when `limit` is over.
/// Answers which. Blocks its thread.
#[must_use]
pub fn wait_until_quiet(limit: Duration) -> bool {
    let begun = Instant::now();
    loop {
        if is_quiet() {
            return true;
        }
        if limit <= begun.elapsed() {
            return false;
        }
    }
}

fn is_quiet() -> bool {
    let before = stolen();
    let begun = Instant::now();
    while begun.elapsed() < LOOK {
        let slept = Instant::now();
        thread::sleep(SLEEP);
        if SLEEP + LATE_MAX < slept.elapsed() {
            return false;
        }
    }
    since(before).is_none_or(|stolen| stolen <= COUNTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_counter_of_all_cores_is_what_the_host_took() {
        let counters = "cpu  811607 1151505 126026 191855 56375 0 4021 15710 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(parse(counters), Some(Duration::from_millis(157_100)));
        assert_eq!(parse("cpu0 1 2 3 4 5 6 7 8 9 10\n"), None);
        assert_eq!(parse("cpu  1 2 3\n"), None, "an old kernel");
        assert_eq!(parse("cpu  1 2 3 4 5 6 7 x\n"), None);
    }

    #[test]
    fn patience_ends() {
        let begun = Instant::now();
        let _quiet_or_not = wait_until_quiet(Duration::ZERO);
        assert!(begun.elapsed() < Duration::from_secs(60), "one look is all");
    }
}
