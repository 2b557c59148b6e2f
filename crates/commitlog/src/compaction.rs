//! Compaction: which segments are written anew, and what stands in their place afterwards.
//!
//! A *pass* learns the newest offset of each key in the part of the log that no pass has seen, and then writes segments
//! from the log start to the end of that part anew without what is superseded, a *group* of neighbours at a time. Each
//! group is a swap of its own: a record is left out only when a newer one of its key lies in a sealed segment, so that
//! the log is right between any two swaps.
//!
//! ```text
//!   log start          compacted end              active segment      settled end
//!       │  clean: one of    │  dirty: sealed, not     │  never touched     │
//!       │  each key         │  yet seen by a pass     │                    │
//!       └───────────────────┴─────────────────────────┴────────────────────┘
//! ```

use corelane_model::limits::COMPACT_DIRTY_PERMILLE;
use corelane_model::{Cleanup, Offset, WallMillis};

use crate::{CommitLog, Segment};

/// How far compaction came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Below it no record is superseded by another one below it.
    pub(crate) end: Offset,
    /// Null values below it have nothing of their keys before them since the moment that follows; at most `end`.
    pub(crate) tombstones_end: Offset,
    /// When the pass was over that brought `tombstones_end` there.
    pub(crate) tombstones_since: WallMillis,
    pub(crate) left: NullValues,
}

/// The null values below [`Compacted::tombstones_end`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NullValues {
    /// There are none.
    #[default]
    None,
    /// There may be some.
    Some,
    /// Behind it lies a batch that could not be written anew, with records that are superseded. No pass looks for them
    /// again, so that whatever takes their keys away has to stay: the end does not move any more.
    Barred,
}

/// What a pass works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Sealed segments, oldest first, at least one.
    pub segments: Vec<Segment>,
    /// Keys from here on are not known to be superseded or not.
    pub dirty_from: Offset,
    /// Null values below this offset were seen by whoever reads as long as the grace time, and may go.
    pub tombstones_end: Offset,
}

/// What a pass came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionResult {
    /// Where the pass stopped learning keys: below it nothing is superseded by anything below it.
    pub end: Offset,
    /// Null values below this offset are gone, by the plan.
    pub tombstones_end: Offset,
    /// Whether null values are left below `end`.
    pub has_tombstones: bool,
    /// Base offset of the first batch that could not be written anew: it still holds records that are superseded.
    pub stuck: Option<Offset>,
}

impl CommitLog {
    /// What compaction would do now; `None` while the topic does not ask for it or too little is superseded to be worth
    /// it. Segments that are settled into are left out.
    #[must_use]
    pub fn compaction_plan(&self, now: WallMillis) -> Option<CompactionPlan> {
        if self.settings.cleanup != Cleanup::Compact || !self.settings.class.is_durable() {
            return None;
        }
        let settling = self.settling.map(|settling| settling.segment);
        let sealed =
            self.state.segments.iter().take_while(|segment| segment.is_sealed && Some(segment.base) != settling);
        let segments: Vec<Segment> = sealed.copied().collect();
        let compacted = self.state.compacted;
        let bytes = |segment: &Segment| segment.bytes;
        let total: u64 = segments.iter().map(bytes).sum();
        let dirty: u64 = segments.iter().filter(|segment| compacted.end < segment.end).map(bytes).sum();
        let is_dirty = 0 < dirty && total.saturating_mul(COMPACT_DIRTY_PERMILLE) <= dirty.saturating_mul(1000);
        let is_over = self.settings.tombstone_ms <= now.millis_since(compacted.tombstones_since);
        let has_old_tombstones = compacted.left == NullValues::Some && is_over;
        if segments.is_empty() || !(is_dirty || has_old_tombstones) {
            return None;
        }
        let tombstones_end = if is_over { compacted.tombstones_end } else { Offset::ZERO };
        Some(CompactionPlan { segments, dirty_from: compacted.end, tombstones_end })
    }

    /// Puts one segment in the place of a group of neighbours that were written anew into it, with so many bytes. It keeps
    /// their offsets from the first one's base to the last one's end, and their timestamps.
    ///
    /// `None`, and nothing is changed, if the log does not have the group as it was any more.
    pub fn replace_segments(&mut self, group: &[Segment], bytes: u64) -> Option<Segment> {
        let replacement = replacement(group, bytes)?;
        let at = self.state.segments.iter().position(|segment| segment.base == replacement.base)?;
        if self.state.segments.get(at..at + group.len()) != Some(group) {
            return None;
        }
        self.state.segments.splice(at..at + group.len(), [replacement]);
        self.check();
        Some(replacement)
    }

    /// A pass is over: all of its groups were replaced.
    pub fn on_compacted(&mut self, now: WallMillis, result: CompactionResult) {
        let compacted = &mut self.state.compacted;
        compacted.end = compacted.end.max(result.end);
        // The grace time of null values begins anew when those of the last time are gone.
        let is_begun_anew = match compacted.left {
            NullValues::None => true,
            NullValues::Some => result.tombstones_end == compacted.tombstones_end,
            NullValues::Barred => false,
        };
        if is_begun_anew {
            compacted.tombstones_end = compacted.end;
            compacted.tombstones_since = now;
            compacted.left = if result.has_tombstones { NullValues::Some } else { NullValues::None };
        }
        if let Some(stuck) = result.stuck {
            compacted.tombstones_end = compacted.tombstones_end.min(stuck);
            compacted.left = NullValues::Barred;
        }
        self.check();
    }

    /// Below this offset no record is superseded by another one below it.
    #[must_use]
    pub const fn compacted_end(&self) -> Offset {
        self.state.compacted.end
    }
}

/// The segment that a group becomes. `None` for a group that is none, or with a gap in it, which damage has left.
#[must_use]
pub(crate) fn replacement(group: &[Segment], bytes: u64) -> Option<Segment> {
    let (first, last) = (group.first()?, group.last()?);
    if group.windows(2).any(|pair| pair[0].end != pair[1].base) || group.iter().any(|segment| !segment.is_sealed) {
        return None;
    }
    let rewrite = group.iter().map(|segment| segment.rewrite).max()?.checked_add(1)?;
    Some(Segment {
        base: first.base,
        end: last.end,
        bytes,
        first_timestamp: first.first_timestamp,
        max_timestamp: last.max_timestamp,
        is_sealed: true,
        rewrite,
    })
}

impl CompactionPlan {
    /// The segments with keys that no pass has seen.
    pub fn dirty(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| self.dirty_from < segment.end)
    }

    /// The groups of neighbours that begin below `end`, each as large as one segment may be, or one segment.
    #[must_use]
    pub fn groups(&self, end: Offset, segment_bytes: u64) -> Vec<Vec<Segment>> {
        let mut groups: Vec<Vec<Segment>> = Vec::new();
        let mut bytes = 0_u64;
        for &segment in self.segments.iter().take_while(|segment| segment.base < end) {
            bytes = bytes.saturating_add(segment.bytes);
            match groups.last_mut() {
                Some(group) if bytes <= segment_bytes && group.last().is_some_and(|last| last.end == segment.base) => {
                    group.push(segment);
                }
                _ => {
                    groups.push(vec![segment]);
                    bytes = segment.bytes;
                }
            }
        }
        groups
    }
}

/// The name of the segment that a group becomes.
impl crate::SegmentName {
    /// Of the segment that takes the place of this group; `None` as for [`CommitLog::replace_segments`].
    #[must_use]
    pub fn of_replacement(group: &[Segment]) -> Option<Self> {
        replacement(group, 0).map(|segment| segment.name())
    }
}
