//! The judge: every message once, in order per key, unchanged.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::stamp::{StreamIndex, read_message};
use corelane_model::MonotonicNanos;

/// What a reader found; counts add up over readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Messages that were as they should be, or late.
    pub consumed: u64,
    /// Messages that never came.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that came after a later one of their stream.
    pub reordered: u64,
    /// Messages whose bytes are not what was sent, or that nobody sent.
    pub corrupt: u64,
}

impl Verdict {
    /// Adds what another reader found.
    pub const fn add(&mut self, other: &Self) {
        self.consumed += other.consumed;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
    }

    /// Whether the run may call itself right.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.corrupt == 0
    }
}

/// One stream as one reader has seen it: the next sequence, and those that were skipped and may still come.
#[derive(Clone, Debug, Default)]
struct Seen {
    next: u32,
    missing: BTreeSet<u32>,
}

/// Judges the messages of one reader. Keeps a few bytes for each stream, more only while messages are missing.
#[derive(Clone, Debug)]
pub struct Verifier {
    streams: Vec<Option<Seen>>,
    verdict: Verdict,
}

/// Skipped messages that a stream remembers one by one; beyond it a gap counts as lost at once.
const MISSING_MAX: u32 = 65_536;

impl Verifier {
    /// A judge for the streams that its reader is to see, out of `count` of the whole run.
    pub fn new(count: usize, streams: impl IntoIterator<Item = StreamIndex>) -> Self {
        let mut seen = vec![None; count];
        for stream in streams {
            seen[stream.0 as usize] = Some(Seen::default());
        }
        Self { streams: seen, verdict: Verdict::default() }
    }

    /// Judges one record; answers when it was due unless it is corrupt or a duplicate.
    pub fn judge(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<MonotonicNanos> {
        let Some((stream, seen)) = key
            .and_then(StreamIndex::from_key)
            .and_then(|stream| Some((stream, self.streams.get_mut(stream.0 as usize)?.as_mut()?)))
        else {
            self.verdict.corrupt += 1;
            return None;
        };
        let Ok(stamp) = read_message(stream, value.unwrap_or_default()) else {
            self.verdict.corrupt += 1;
            return None;
        };
        if stamp.sequence < seen.next {
            if !seen.missing.remove(&stamp.sequence) {
                self.verdict.duplicated += 1;
                return None;
            }
            self.verdict.reordered += 1;
        } else {
            let gap = stamp.sequence - seen.next;
            if MISSING_MAX < gap {
                self.verdict.lost += u64::from(gap);
            } else {
                seen.missing.extend(seen.next..stamp.sequence);
            }
            seen.next = stamp.sequence + 1;
        }
        self.verdict.consumed += 1;
        Some(stamp.due)
    }

    /// How many good messages have come so far.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.verdict.consumed
    }

    /// The verdict, given how many messages were sent on each stream.
    #[must_use]
    pub fn finish(self, sent: &[u32]) -> Verdict {
        let mut verdict = self.verdict;
        for (seen, &sent) in self.streams.iter().zip(sent) {
            let Some(seen) = seen else { continue };
            verdict.lost += u64::from(sent.saturating_sub(seen.next)) + seen.missing.len() as u64;
            // Nobody sent these: a reader that sees more than there was is as wrong as one that sees less.
            verdict.corrupt += u64::from(seen.next.saturating_sub(sent));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Stamp, write_message};

    fn check(arrivals: &[u32], sent: u32) -> Verdict {
        let mut verifier = Verifier::new(2, [StreamIndex(1)]);
        let mut message = Vec::new();
        for &sequence in arrivals {
            write_message(&mut message, StreamIndex(1), Stamp { sequence, due: MonotonicNanos(9) }, 40);
            let _ = verifier.judge(Some(&StreamIndex(1).to_key()), Some(&message));
        }
        verifier.finish(&[0, sent])
    }

    #[test]
    fn all_in_order_is_clean() {
        let verdict = check(&[0, 1, 2, 3], 4);
        assert!(verdict.is_clean());
        assert_eq!(verdict.consumed, 4);
    }

    #[test]
    fn each_fault_is_counted_once() {
        assert_eq!(check(&[0, 1, 3], 4), Verdict { consumed: 3, lost: 1, ..Verdict::default() });
        assert_eq!(check(&[0, 1], 4), Verdict { consumed: 2, lost: 2, ..Verdict::default() });
        assert_eq!(check(&[0, 1, 1, 2], 3), Verdict { consumed: 3, duplicated: 1, ..Verdict::default() });
        assert_eq!(check(&[0, 2, 1], 3), Verdict { consumed: 3, reordered: 1, ..Verdict::default() });
        assert_eq!(check(&[0, 1, 2], 2), Verdict { consumed: 3, corrupt: 1, ..Verdict::default() });
    }

    #[test]
    fn foreign_and_damaged_records_are_corrupt() {
        let mut verifier = Verifier::new(2, [StreamIndex(1)]);
        assert_eq!(verifier.judge(None, Some(b"x")), None);
        assert_eq!(verifier.judge(Some(&StreamIndex(0).to_key()), Some(b"x")), None);
        assert_eq!(verifier.judge(Some(&StreamIndex(1).to_key()), Some(b"short")), None);
        assert_eq!(verifier.finish(&[0, 0]).corrupt, 3);
    }
}
