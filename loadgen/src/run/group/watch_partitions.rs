//! What all members of a group see together: a partition is watched across its owners.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::measure::Percentiles;
use crate::report::group::{PartitionSilence, Silence};
use crate::slice::{SlicedLatency, Slices};
use crate::stamp::StreamIndex;
use crate::verify::{Verdict, Verifier};

/// One partition, whoever has it.
#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    owner: Option<u32>,
    /// Whether its owner has changed since the disturbance began.
    is_moved: bool,
    /// When something came last, in nanoseconds since the origin.
    arrived: u64,
    /// The longest time that nothing came although something was due; in all slices, since a generator that is late can only
    /// make it longer.
    silence: u64,
}

#[derive(Debug)]
struct State {
    origin: Instant,
    verifier: Verifier,
    partitions: Vec<Partition>,
    latency: SlicedLatency,
    last: u64,
    is_disturbed: bool,
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
        let streams = (0..u32::try_from(partitions).expect("a topic has fewer partitions")).map(StreamIndex);
        Self(Mutex::new(State {
            origin: Instant::now(),
            verifier: Verifier::new(partitions, streams),
            partitions: vec![Partition::default(); partitions],
            latency: SlicedLatency::new(Arc::new(Slices::without_schedule())),
            last: 0,
            is_disturbed: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it is held")
    }

    /// The load begins.
    pub(super) fn begin(&self, origin: Instant, slices: &Arc<Slices>) {
        let mut state = self.lock();
        state.origin = origin;
        state.latency = SlicedLatency::new(Arc::clone(slices));
    }

    /// From here on owners that change are news.
    pub(super) fn disturb(&self) {
        self.lock().is_disturbed = true;
    }

    /// A member has a partition from now on.
    pub(super) fn on_assigned(&self, member: u32, partition: u32) {
        let mut state = self.lock();
        let is_disturbed = state.is_disturbed;
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
            partition.silence = partition.silence.max(now.saturating_sub(due.max(partition.arrived)));
            partition.arrived = now;
        }
        state.verifier.consumed() - before
    }

    pub(super) fn finish(&self, sent: &[u32]) -> Seen {
        let mut state = self.lock();
        let latency = state.latency.percentiles();
        let silence = |is_moved: bool| {
            let partitions = state.partitions.iter().filter(|partition| partition.is_moved == is_moved);
            let longest = partitions.clone().map(|partition| partition.silence).max();
            Silence {
                partitions: u32::try_from(partitions.count()).expect("a topic has fewer partitions"),
                longest_us: longest.map(|nanos| Duration::from_nanos(nanos).as_secs_f64() * 1e6),
            }
        };
        let each = (0..).zip(&state.partitions).map(|(partition, seen)| PartitionSilence {
            partition,
            is_moved: seen.is_moved,
            longest_us: Duration::from_nanos(seen.silence).as_secs_f64() * 1e6,
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
