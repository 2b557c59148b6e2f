//! Slices of a run: where the generator itself was late, a slice does not count, and the run goes on.
//!
//! The sender judges each slice when it has handed out the last message that was due in it. Recorders keep the samples of a
//! slice back until then. A slice is judged by the generator's lateness alone, before anybody looks at what the broker did
//! in it, so that leaving it out does not choose among figures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use corelane_model::MonotonicNanos;
use serde::{Deserialize, Serialize};

use crate::measure::{Latency, Percentiles};

/// A message is late when it left later than this share of a tick after it was due: 5 %.
pub const LATE_SHARE: u32 = 20;
/// A slice is void when more than one message in so many was late: its p99.9 would be the generator's, not the broker's.
pub const LATE_ONE_IN: u64 = 1000;
/// Ticks of a slice: what a late burst leaves behind is over in one tick, or else the broker is slower than its load.
pub const SLICE_TICKS: u32 = 4;
/// A message that was late in the last tick of a slice voids the next one too: what it delayed may still be under way.
const SPILL_TICKS: u32 = 1;

const OPEN: u8 = 0;
const COUNTS: u8 = 1;
const VOID: u8 = 2;

/// What the sender has found of each slice, for those who record.
#[derive(Debug)]
pub struct Slices {
    tick: Duration,
    nanos: u64,
    verdicts: Vec<AtomicU8>,
    /// Slices before this one are judged.
    judged: AtomicUsize,
}

impl Slices {
    /// Slices for a schedule whose last message is due within `duration`.
    #[must_use]
    pub fn new(tick: Duration, duration: Duration) -> Self {
        let nanos = u64::try_from((tick * SLICE_TICKS).as_nanos()).expect("a tick is shorter than centuries").max(1);
        let count = duration.as_nanos() / u128::from(nanos) + 1;
        let count = usize::try_from(count).expect("a run has as many slices as fit into memory");
        let verdicts = std::iter::repeat_with(|| AtomicU8::new(OPEN)).take(count).collect();
        Self { tick, nanos, verdicts, judged: AtomicUsize::new(0) }
    }

    /// For a run without a schedule: nothing is late, and everything counts.
    #[must_use]
    pub fn without_schedule() -> Self {
        let all = Self::new(Duration::from_secs(1), Duration::ZERO);
        all.judge(0, COUNTS);
        all
    }

    /// Which slice a moment after the run's origin belongs to; what comes after the schedule belongs to the last one.
    pub(crate) fn index(&self, nanos: u64) -> usize {
        usize::try_from(nanos / self.nanos).unwrap_or(usize::MAX).min(self.verdicts.len() - 1)
    }

    /// Whether a slice counts; `None` until it is judged.
    pub(crate) fn counts(&self, index: usize) -> Option<bool> {
        (index < self.judged.load(Ordering::Acquire)).then(|| self.verdicts[index].load(Ordering::Relaxed) != VOID)
    }

    fn judge(&self, index: usize, verdict: u8) {
        self.verdicts[index].store(verdict, Ordering::Relaxed);
        self.judged.store(index + 1, Ordering::Release);
    }

    fn late_max(&self) -> Duration {
        self.tick / LATE_SHARE
    }
}

/// How many slices there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceCounts {
    /// Milliseconds of a slice.
    pub slice_ms: u64,
    /// Slices in which messages were due.
    pub total: u32,
    /// Those of them that do not count, because the generator was late.
    pub void: u32,
}

impl SliceCounts {
    /// Whether the run is void: most of its slices are.
    #[must_use]
    pub const fn is_void(&self) -> bool {
        self.total < 2 * self.void
    }

    /// How long the slices that count are together.
    #[must_use]
    pub fn counted(&self) -> Duration {
        Duration::from_millis(self.slice_ms * u64::from(self.total - self.void))
    }
}

/// Judges slices; the sender has it.
#[derive(Debug)]
pub(crate) struct SliceJudge {
    slices: Arc<Slices>,
    at: usize,
    sent: u64,
    late: u64,
    /// The slice that is open is void whatever comes, for what was late just before it.
    is_spoilt: bool,
    /// So will the next one be.
    spoils_next: bool,
    counts: SliceCounts,
    /// Messages that were late, in all slices.
    late_total: u64,
}

impl SliceJudge {
    pub(crate) fn new(slices: Arc<Slices>) -> Self {
        let counts = SliceCounts { slice_ms: slices.nanos / 1_000_000, ..SliceCounts::default() };
        Self { slices, at: 0, sent: 0, late: 0, is_spoilt: false, spoils_next: false, counts, late_total: 0 }
    }

    /// A message left so late after it was due. Messages come in the order in which they are due.
    pub(crate) fn on_sent(&mut self, due: MonotonicNanos, lateness: Duration) {
        let index = self.slices.index(due.0);
        while self.at < index {
            self.close();
        }
        self.sent += 1;
        if self.slices.late_max() < lateness {
            self.late += 1;
            let spill = u64::try_from((self.slices.tick * SPILL_TICKS).as_nanos()).unwrap_or(u64::MAX);
            self.spoils_next |= index < self.slices.index(due.0.saturating_add(spill));
        }
    }

    /// The schedule is over.
    pub(crate) fn finish(mut self) -> (SliceCounts, u64) {
        while self.at < self.slices.verdicts.len() {
            self.close();
        }
        (self.counts, self.late_total)
    }

    fn close(&mut self) {
        let is_void = self.is_spoilt || self.sent < self.late * LATE_ONE_IN;
        self.slices.judge(self.at, if is_void { VOID } else { COUNTS });
        if 0 < self.sent {
            self.counts.total += 1;
            self.counts.void += u32::from(is_void);
        }
        self.late_total += self.late;
        self.at += 1;
        (self.sent, self.late) = (0, 0);
        self.is_spoilt = std::mem::take(&mut self.spoils_next);
    }
}

/// A histogram that takes only samples of slices that count.
#[derive(Debug)]
pub(crate) struct SlicedLatency {
    slices: Arc<Slices>,
    /// Samples of slices that are not judged yet.
    held: VecDeque<(usize, Vec<(u64, u64)>)>,
    latency: Latency,
}

impl SlicedLatency {
    pub(crate) fn new(slices: Arc<Slices>) -> Self {
        Self { slices, held: VecDeque::new(), latency: Latency::default() }
    }

    /// Counts `nanos` for so many messages that were due at `due`, in nanoseconds since the origin.
    pub(crate) fn record(&mut self, due: u64, nanos: u64, count: u64) {
        self.settle();
        let index = self.slices.index(due);
        match self.slices.counts(index) {
            Some(true) => self.latency.record_nanos_of(nanos, count),
            Some(false) => {}
            None => match self.held.iter_mut().find(|(held, _)| *held == index) {
                Some((_, samples)) => samples.push((nanos, count)),
                None => self.held.push_back((index, vec![(nanos, count)])),
            },
        }
    }

    /// All samples that count; those of slices that nobody judged, because the sender broke off, do not.
    pub(crate) fn finish(mut self) -> Latency {
        self.settle();
        self.latency
    }

    /// The percentiles of all samples that count so far.
    pub(crate) fn percentiles(&mut self) -> Percentiles {
        self.settle();
        self.latency.percentiles()
    }

    /// Takes in, or throws away, what belongs to slices that were judged meanwhile.
    fn settle(&mut self) {
        while let Some((index, _)) = self.held.front() {
            let Some(counts) = self.slices.counts(*index) else { return };
            let (_, samples) = self.held.pop_front().expect("it was there");
            if counts {
                samples.into_iter().for_each(|(nanos, count)| self.latency.record_nanos_of(nanos, count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(16);

    /// Sends one message on each tick; those whose numbers are given are late. Answers which slices count.
    fn judged(ticks: u64, late: &[u64]) -> (Vec<bool>, SliceCounts, u64) {
        let slices = Arc::new(Slices::new(TICK, TICK * u32::try_from(ticks).unwrap() - Duration::from_nanos(1)));
        let mut judge = SliceJudge::new(Arc::clone(&slices));
        for tick in 0..ticks {
            let lateness = if late.contains(&tick) { TICK / 10 } else { TICK / 30 };
            judge.on_sent(MonotonicNanos(tick * 16_000_000), lateness);
        }
        let (counts, late) = judge.finish();
        let all = (0..slices.verdicts.len()).map(|index| slices.counts(index).expect("it is judged")).collect();
        (all, counts, late)
    }

    #[test]
    fn a_late_message_voids_its_slice_and_no_other() {
        let (counts, total, late) = judged(16, &[5, 6]);
        assert_eq!(counts, [true, false, true, true]);
        assert_eq!((total, late), (SliceCounts { slice_ms: 64, total: 4, void: 1 }, 2));
        assert!(!total.is_void());
        assert_eq!(total.counted(), TICK * 12);
    }

    #[test]
    fn what_is_late_at_the_end_of_a_slice_voids_the_next_one_too() {
        assert_eq!(judged(16, &[7]).0, [true, false, false, true]);
        assert_eq!(judged(16, &[6]).0, [true, false, true, true]);
        assert_eq!(judged(16, &[15]).0, [true, true, true, false], "there is no next one");
    }

    #[test]
    fn a_run_is_void_when_most_of_its_slices_are() {
        assert!(!judged(16, &[1, 5]).1.is_void());
        assert!(judged(16, &[1, 5, 9]).1.is_void());
    }

    #[test]
    fn one_message_in_a_thousand_may_be_late() {
        let slices = Arc::new(Slices::new(TICK, TICK));
        let mut judge = SliceJudge::new(Arc::clone(&slices));
        for n in 0..2_000 {
            judge.on_sent(MonotonicNanos(0), if n < 2 { TICK } else { Duration::ZERO });
        }
        assert_eq!(judge.finish().0.void, 0);
    }

    #[test]
    fn samples_wait_until_their_slice_is_judged() {
        let slices = Arc::new(Slices::new(TICK, TICK * 10));
        let mut judge = SliceJudge::new(Arc::clone(&slices));
        let mut latency = SlicedLatency::new(Arc::clone(&slices));
        judge.on_sent(MonotonicNanos(0), TICK);
        latency.record(0, 7_000, 1);
        judge.on_sent(MonotonicNanos(80_000_000), Duration::ZERO);
        latency.record(80_000_000, 5_000, 2);
        latency.record(1, 7_000, 1);
        assert_eq!(latency.latency.samples(), 0, "the first slice is void, the second is open");
        judge.finish();
        let latency = latency.finish();
        assert_eq!(latency.samples(), 2);
        assert!(latency.percentiles().max.unwrap() < 6.0);
    }

    #[test]
    fn without_a_schedule_all_samples_count() {
        let mut latency = SlicedLatency::new(Arc::new(Slices::without_schedule()));
        latency.record(1_000_000_000_000, 5, 3);
        assert_eq!(latency.finish().samples(), 3);
    }
}
