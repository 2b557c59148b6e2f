//! What all members of a group see together: a partition is watched across its owners.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::measure::Percentiles;
use crate::report::group::{PartitionSilence, Silence};
use crate::slice::{SlicedLatency, Slices};
use crate::stamp::StreamIndex;
use crate::verify::{Verdict, Verifier};

/// One partition, whoever has it.
#[derive(Clone, Debug, Default)]
struct Partition {
    owner: Option<u32>,
    /// Whether its owner has changed since the disturbance began.
    is_moved: bool,
    /// When something came last, in nanoseconds since the origin.
    arrived: u64,
    /// By slice: the longest time that nothing came although something was due, from a due time in that slice on.
    silences: BTreeMap<usize, u64>,
}

#[derive(Debug)]
struct State {
    origin: Instant,
    verifier: Verifier,
    partitions: Vec<Partition>,
    slices: Arc<Slices>,
    latency: SlicedLatency,
    last: u64,
    /// When members were disturbed.
    disturbed: Vec<Duration>,
}

impl Partition {
    /// The longest silence in a slice that counts.
    fn silence(&self, slices: &Slices) -> u64 {
        let counted = self.silences.iter().filter(|&(&index, _)| slices.counts(index) == Some(true));
        counted.map(|(_, &silence)| silence).max().unwrap_or(0)
    }
}

/// Watches partitions across their owners.
#[derive(Debug)]
pub(super) struct Watch(Mutex<State>);

/// What was seen.
pub(super) struct Seen {
    pub(super) verdict: Verdict,
    pub(super) latency: Percentiles,
    pub(super) moved: Silence,
    pub(super) unmoved: Silence,
    pub(super) partitions: Vec<PartitionSilence>,
    /// When the last good message came, in nanoseconds since the origin.
    pub(super) last: u64,
}

impl Watch {
    pub(super) fn new(partitions: usize) -> Self {
        let slices = Arc::new(Slices::without_schedule());
        let streams = (0..u32::try_from(partitions).expect("a topic has fewer partitions")).map(StreamIndex);
        Self(Mutex::new(State {
            origin: Instant::now(),
            verifier: Verifier::new(partitions, streams),
            partitions: vec![Partition::default(); partitions],
            latency: SlicedLatency::new(Arc::clone(&slices)),
            slices,
            last: 0,
            disturbed: Vec::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it is held")
    }

    /// The load begins.
    pub(super) fn begin(&self, origin: Instant, slices: &Arc<Slices>) {
        let mut state = self.lock();
        state.origin = origin;
        state.slices = Arc::clone(slices);
        state.latency = SlicedLatency::new(Arc::clone(slices));
    }

    /// From here on owners that change are news.
    pub(super) fn disturb(&self) {
        let mut state = self.lock();
        let at = state.origin.elapsed();
        state.disturbed.push(at);
    }

    /// A member has a partition from now on.
    pub(super) fn on_assigned(&self, member: u32, partition: u32) {
        let mut state = self.lock();
        let is_disturbed = !state.disturbed.is_empty();
        let partition = &mut state.partitions[partition as usize];
        partition.is_moved |= is_disturbed && partition.owner.is_some_and(|owner| owner != member);
        partition.owner = Some(member);
    }

    /// Whether so many members have all partitions among them, none of them more than one more than another.
    pub(super) fn is_shared_by(&self, members: u32) -> bool {
        let state = self.lock();
        let share = |member| state.partitions.iter().filter(|partition| partition.owner == Some(member)).count();
        let shares: Vec<usize> = (0..members).map(share).collect();
        let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
        shares.iter().sum::<usize>() == state.partitions.len() && most <= least.map(|least| least + 1)
    }

    /// A member has records of a partition, each with key and value. Returns how many of its messages came for the first time.
    pub(super) fn on_records<'a>(
        &self,
        partition: u32,
        records: impl Iterator<Item = (Option<&'a [u8]>, Option<&'a [u8]>)>,
    ) -> u64 {
        let mut state = self.lock();
        let state = &mut *state;
        let now = u64::try_from(state.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = state.verifier.consumed();
        let partition = &mut state.partitions[partition as usize];
        let mut first_due = None;
        for (key, value) in records {
            if let Some(due) = state.verifier.judge(key, value) {
                first_due.get_or_insert(due.0);
                state.latency.record(due.0, now.saturating_sub(due.0), 1);
                state.last = now;
            }
        }
        if let Some(due) = first_due {
            let longest = partition.silences.entry(state.slices.index(due)).or_default();
            *longest = now.saturating_sub(due.max(partition.arrived)).max(*longest);
            partition.arrived = now;
        }
        state.verifier.consumed() - before
    }

    /// Whether the generator was in time whenever a member was disturbed, and for `after` from then on. Only then are
    /// silences what the disturbance made of them.
    pub(super) fn saw_disturbances(&self, after: Duration) -> bool {
        let state = self.lock();
        state.disturbed.iter().all(|&at| state.slices.count_all(at, at + after))
    }

    pub(super) fn finish(&self, sent: &[u32]) -> Seen {
        let mut state = self.lock();
        let latency = state.latency.percentiles();
        let silence = |is_moved: bool| {
            let partitions = state.partitions.iter().filter(|partition| partition.is_moved == is_moved);
            let longest = partitions.clone().map(|partition| partition.silence(&state.slices)).max();
            Silence {
                partitions: u32::try_from(partitions.count()).expect("a topic has fewer partitions"),
                longest_us: longest.map(|nanos| Duration::from_nanos(nanos).as_secs_f64() * 1e6),
            }
        };
        let each = (0..).zip(&state.partitions).map(|(partition, seen)| PartitionSilence {
            partition,
            is_moved: seen.is_moved,
            longest_us: Duration::from_nanos(seen.silence(&state.slices)).as_secs_f64() * 1e6,
        });
        Seen {
            partitions: each.collect(),
            verdict: state.verifier.clone().finish(sent),
            latency,
            moved: silence(true),
            unmoved: silence(false),
            last: state.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slice::SliceJudge;
    use crate::stamp::{Stamp, write_message};
    use corelane_model::MonotonicNanos;

    const TICK: Duration = Duration::from_millis(16);

    /// Messages of one partition on each tick of four slices; the generator is late with the third one. Each is seen at once.
    fn watched() -> (Watch, Arc<Slices>) {
        let (watch, slices) = (Watch::new(1), Arc::new(Slices::new(TICK, TICK * 63)));
        let mut judge = SliceJudge::new(Arc::clone(&slices));
        // The origin is so far back that everything is overdue by what is seen of it.
        watch.begin(Instant::now().checked_sub(TICK * 64).unwrap(), &slices);
        for tick in 0..64_u32 {
            let due = MonotonicNanos(u64::from(tick) * 16_000_000);
            judge.on_sent(due, if tick == 2 { TICK } else { Duration::ZERO });
            let mut message = Vec::new();
            write_message(&mut message, StreamIndex(0), Stamp { sequence: tick, due }, 64);
            let key = StreamIndex(0).to_key();
            watch.on_records(0, std::iter::once((Some(&key[..]), Some(&message[..]))));
        }
        judge.finish();
        (watch, slices)
    }

    #[test]
    fn a_silence_of_a_void_slice_is_the_generators() {
        let (watch, slices) = watched();
        let seen = watch.finish(&[64]);
        let first_silence = Duration::from_nanos(watch.lock().partitions[0].silences[&0]);
        assert!(TICK * 64 <= first_silence, "the first message was overdue since the origin: {first_silence:?}");
        assert!(Duration::from_nanos(watch.lock().partitions[0].silence(&slices)) < first_silence);
        assert!(seen.unmoved.longest_us.unwrap() < first_silence.as_secs_f64() * 1e6);
        assert_eq!(seen.verdict.consumed, 64, "every message is judged all the same");
    }

    #[test]
    fn a_disturbance_in_a_void_slice_was_not_seen() {
        let (watch, slices) = watched();
        assert!(watch.saw_disturbances(TICK), "there was none");
        let disturb = |at: Duration| {
            watch.begin(Instant::now().checked_sub(at).unwrap(), &slices);
            watch.disturb();
        };
        disturb(TICK * 40);
        assert!(watch.saw_disturbances(TICK));
        disturb(TICK * 8);
        assert!(!watch.saw_disturbances(TICK));
    }
}
