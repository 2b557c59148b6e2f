//! `trace`: recorded matches, once or many times at once, as fast as they were played or faster.

use std::sync::Arc;
use std::time::Duration;

use corelane_model::{MonotonicNanos, TopicClass};

use crate::plan::{Due, Plan, ReaderPlan, Reading, StreamPlan, TopicPlan};
use crate::stamp::StreamIndex;
use crate::trace::Trace;

const LEAD: Duration = Duration::from_millis(200);
/// A recorded frame of a 60 Hz match.
const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// The scenario's knobs.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The recording.
    pub trace: Arc<Trace>,
    /// How many matches play it side by side.
    pub copies: u32,
    /// 1 is as it was played, 2 twice as fast.
    pub speed: f64,
    /// The topic's class.
    pub class: TopicClass,
    /// Partitions; matches share them by their number.
    pub partitions: u32,
    /// Stop after this much of the replay's own time.
    pub duration: Option<Duration>,
}

impl Replay {
    /// The workload: each key of each copy is a stream; one reader sees all.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Self { ref trace, copies, speed, class, partitions, duration } = *self;
        let keys = trace.keys();
        let streams_per_copy = u32::try_from(keys.len()).expect("keys are 32-bit numbers");
        let at = move |t_us: u64| -> Duration { Duration::from_micros(t_us).div_f64(speed) };
        let count = trace.events.iter().take_while(|event| duration.is_none_or(|end| at(event.t_us) < end)).count();
        let events = Arc::clone(trace);
        let schedule = (0..count).flat_map(move |index| {
            let event = events.events[index];
            let slot = keys.binary_search(&event.key).expect("the key is in the list of all keys");
            let slot = u32::try_from(slot).expect("keys are 32-bit numbers");
            let due = MonotonicNanos(0).after(LEAD + at(event.t_us));
            (0..copies).map(move |copy| Due {
                at: due,
                stream: StreamIndex(copy * streams_per_copy + slot),
                size: event.size,
            })
        });
        let span = count.checked_sub(1).map_or(Duration::ZERO, |last| at(trace.events[last].t_us));
        let planned = count as u64 * u64::from(copies);
        Plan {
            scenario: format!("trace:{}", trace.name),
            topics: vec![TopicPlan { role: "matches", partitions, class }],
            streams: (0..copies * streams_per_copy)
                .map(|stream| StreamPlan { topic: 0, partition: (stream / streams_per_copy) % partitions })
                .collect(),
            readers: vec![ReaderPlan {
                name: "reader".to_owned(),
                topic: 0,
                partitions: (0..partitions).collect(),
                rate_max: None,
            }],
            reading: Reading::Live,
            schedule: Box::new(schedule),
            planned,
            tick: TICK.div_f64(speed),
            duration: LEAD + span,
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            ideal_per_s: planned as f64 / span.max(TICK).as_secs_f64(),
            budget: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceEvent;

    #[test]
    fn copies_and_speed_multiply() {
        let events =
            (0..10_u32).map(|n| TraceEvent { t_us: u64::from(n) * 16_666, key: 1 + 2 * (n % 2), kind: 55, size: 59 });
        let trace = Arc::new(Trace { name: "t".to_owned(), events: events.collect() });
        let replay = Replay { trace, copies: 3, speed: 2.0, class: TopicClass::Memory, partitions: 2, duration: None };
        let plan = replay.plan();
        assert_eq!((plan.planned, plan.streams.len()), (30, 6));
        let all = plan.schedule.collect::<Vec<_>>();
        assert_eq!(all.len(), 30);
        assert_eq!(all[29].at.since(all[0].at), Duration::from_micros(9 * 8_333));
        let short = Replay { duration: Some(Duration::from_millis(20)), ..replay };
        assert_eq!(short.plan().planned, 9);
    }
}
