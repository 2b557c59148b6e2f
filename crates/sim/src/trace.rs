//! What happened, line by line: a rolling digest of all of it and the text of as much as was asked for.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use corelane_model::MonotonicNanos;

/// Lines that a failing seed prints.
const TAIL_LINES: usize = 120;

/// How much of a run's trace is kept as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing: the digest is enough.
    Silent,
    /// The last lines.
    Tail,
    /// All of it.
    Whole,
}

/// The trace of one run.
///
/// The digest covers every line whether or not it is kept, so that two runs can be compared to the byte without holding
/// them.
#[derive(Debug)]
pub struct Trace {
    digest: u64,
    bytes: u64,
    lines: VecDeque<String>,
    line: String,
    detail: Detail,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub const fn new(detail: Detail) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, bytes: 0, lines: VecDeque::new(), line: String::new(), detail }
    }

    /// Adds a line that begins with the virtual time.
    pub fn add(&mut self, now: MonotonicNanos, text: fmt::Arguments<'_>) {
        self.line.clear();
        let micros = now.0 / 1000;
        // Writing into a string cannot fail.
        let _ = write!(self.line, "{:>4}.{:06} {text}", micros / 1_000_000, micros % 1_000_000);
        for byte in self.line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.bytes += self.line.len() as u64 + 1;
        if self.detail == Detail::Silent {
            return;
        }
        if self.detail == Detail::Tail && self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(self.line.clone());
    }

    /// FNV-1a over every line.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// How long the whole trace would be as text.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The lines that were kept.
    pub fn into_lines(self) -> impl Iterator<Item = String> {
        self.lines.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_what_is_kept() {
        let mut traces = [Detail::Silent, Detail::Tail, Detail::Whole].map(Trace::new);
        for trace in &mut traces {
            (0..500).for_each(|i| trace.add(MonotonicNanos(i * 1_000_000), format_args!("event {i}")));
        }
        assert_eq!(traces[0].digest(), traces[1].digest());
        assert_eq!(traces[1].digest(), traces[2].digest());
        assert_eq!(traces.map(|trace| trace.into_lines().count()), [0, TAIL_LINES, 500]);
    }
}
