//! `edge`: many partitions that each get one small record on the same edge of a tick.
//!
//! It is what a server with many matches does: nothing for most of the tick, then everything at once. A broker that makes
//! each partition durable by itself pays a sync for each.
//!
//! The figure is when messages are stored. So that no reader takes the generator's core from the producer, messages of a
//! durable topic are read back when all are stored, and judged then: every one once, in order, unchanged.

use std::time::Duration;

use corelane_model::{MonotonicNanos, TopicClass};

use crate::plan::{Due, Plan, ReaderPlan, Reading, StreamPlan, TopicPlan};
use crate::stamp::StreamIndex;

const LEAD: Duration = Duration::from_millis(200);
const SIZE: u32 = 64;

/// The scenario's knobs.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Partitions; each gets one record a tick.
    pub partitions: u32,
    /// Length of a tick.
    pub tick: Duration,
    /// How long.
    pub duration: Duration,
    /// The topic's class.
    pub class: TopicClass,
}

impl Edge {
    /// The workload.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Self { partitions, tick, duration, class } = *self;
        let ticks =
            u64::try_from(duration.as_nanos() / tick.as_nanos().max(1)).expect("a run is shorter than centuries");
        let nanos = u64::try_from(tick.as_nanos()).expect("a tick is shorter than centuries");
        let schedule = (0..ticks).flat_map(move |n| {
            let at = MonotonicNanos(0).after(LEAD + Duration::from_nanos(n * nanos));
            (0..partitions).map(move |partition| Due { at, stream: StreamIndex(partition), size: SIZE })
        });
        Plan {
            scenario: format!("edge-{partitions}"),
            topics: vec![TopicPlan { role: "edge", partitions, class }],
            streams: (0..partitions).map(|partition| StreamPlan { topic: 0, partition }).collect(),
            readers: vec![ReaderPlan {
                name: "reader".to_owned(),
                topic: 0,
                partitions: (0..partitions).collect(),
                rate_max: None,
            }],
            // Of a memory topic nothing would be left to read when it has lived too long.
            reading: if class == TopicClass::Durable { Reading::Afterwards } else { Reading::Live },
            schedule: Box::new(schedule),
            planned: ticks * u64::from(partitions),
            tick,
            duration: LEAD + duration,
            ideal_per_s: f64::from(partitions) / tick.as_secs_f64(),
            budget: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_partitions_share_each_edge() {
        let edge = Edge {
            partitions: 10,
            tick: Duration::from_millis(16),
            duration: Duration::from_millis(160),
            class: TopicClass::Durable,
        };
        let plan = edge.plan();
        let all = plan.schedule.collect::<Vec<_>>();
        assert_eq!((all.len() as u64, plan.planned), (100, 100));
        assert!(all.chunks(10).all(|tick| tick.iter().all(|due| due.at == tick[0].at)));
    }
}
