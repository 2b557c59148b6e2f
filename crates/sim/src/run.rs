//! Running seeds.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::World;
use crate::{Detail, Violation};

/// Failures of many seeds that are named one by one.
const FAILURES_SHOWN: usize = 20;

/// Seeds of one run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    first: u64,
    count: u64,
}

impl Seeds {
    /// `count` seeds from `first` on.
    #[must_use]
    pub const fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }
}

/// What became of one seed.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The promise that was broken, if one was.
    pub failure: Option<Violation>,
    /// Digest of the whole trace.
    pub digest: u64,
    /// Bytes of the whole trace.
    pub trace_bytes: u64,
    /// The lines that were kept.
    pub lines: Vec<String>,
    /// Figures of the run.
    pub facts: String,
}

impl Report {
    /// The report as text: seed and commit first, then what was kept of the trace, then what was found.
    #[must_use]
    pub fn render(&self, commit: &str) -> String {
        let mut text = format!("sim: seed {} commit {commit}\n", self.seed);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&format!("sim: {}, trace {} bytes {:016x}\n", self.facts, self.trace_bytes, self.digest));
        match &self.failure {
            Some(violation) => text.push_str(&format!("sim: seed {} FAILED: {violation}", self.seed)),
            None => text.push_str(&format!("sim: seed {} passes", self.seed)),
        }
        text
    }
}

/// What became of many seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many were run.
    pub seeds: u64,
    /// Those that failed, smallest first, with what was broken.
    pub failed: Vec<(u64, String)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds, {} failed", self.seeds, self.failed.len())?;
        let mut shown = self.failed.iter().take(FAILURES_SHOWN);
        shown.try_for_each(|(seed, what)| write!(f, "\n  seed {seed}: {what}"))
    }
}

thread_local! {
    /// Where the last panic of this thread happened, when a run catches panics.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_CATCHING: RefCell<bool> = const { RefCell::new(false) };
}

/// Runs one seed. A panic of a machine is a failure of the seed.
#[must_use]
pub fn run(seed: u64, detail: Detail) -> Report {
    let mut world = World::new(seed, detail);
    let failure = quietly(|| world.run()).unwrap_or_else(|text| Some(Violation::Panic { text }));
    let facts = world.facts();
    let trace = world.trace;
    Report {
        seed,
        failure,
        digest: trace.digest(),
        trace_bytes: trace.bytes(),
        lines: trace.into_lines().collect(),
        facts,
    }
}

/// Runs many seeds on `jobs` threads.
#[must_use]
pub fn run_all(seeds: Seeds, jobs: usize) -> Summary {
    let next = AtomicU64::new(seeds.first);
    let end = seeds.first + seeds.count;
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let workers = (0..jobs.max(1)).map(|_| {
            scope.spawn(|| {
                let mut failed = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if end <= seed {
                        return failed;
                    }
                    if let Some(violation) = run(seed, Detail::Silent).failure {
                        failed.push((seed, violation.to_string()));
                    }
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            failed.extend(worker.join().expect("panics of a seed are caught"));
        }
    });
    failed.sort_unstable();
    Summary { seeds: seeds.count, failed }
}

/// The first seed of these that fails, if one does.
#[must_use]
pub fn find(seeds: Seeds) -> Option<Report> {
    (seeds.first..seeds.first + seeds.count).map(|seed| run(seed, Detail::Tail)).find(|report| report.failure.is_some())
}

/// Runs something whose panic, with its place, comes back instead of being printed.
pub(crate) fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_CATCHING.with_borrow(|is_catching| *is_catching) {
                LAST_PANIC.with_borrow_mut(|last| *last = Some(info.to_string().replace('\n', " ")));
            } else {
                loud(info);
            }
        }));
    });
    let was_catching = IS_CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_CATCHING.set(was_catching);
    result.map_err(|_| LAST_PANIC.take().unwrap_or_else(|| "a panic without a message".to_owned()))
}
