//! `nxm`: N members with partitions of their own, each taking at most M messages a second.
//!
//! The producer sends N × M messages a second, in groups on the edges of a millisecond; each member reads the partitions
//! that it was assigned. The slowest member decides how long the work takes.

use std::time::Duration;

use corelane_model::{MonotonicNanos, TopicClass};

use crate::plan::{Due, Plan, ReaderPlan, Reading, StreamPlan, TopicPlan};
use crate::stamp::StreamIndex;

/// Messages leave in groups on edges of this length.
const EDGE: Duration = Duration::from_millis(1);
const LEAD: Duration = Duration::from_millis(200);

/// The scenario's knobs.
#[derive(Clone, Copy, Debug)]
pub struct NxM {
    /// N: how many members.
    pub members: u32,
    /// M: messages a second of one member.
    pub rate: u32,
    /// Partitions of each member.
    pub partitions_per_member: u32,
    /// Bytes of a message.
    pub size: u32,
    /// How long.
    pub duration: Duration,
    /// The topic's class.
    pub class: TopicClass,
}

impl NxM {
    /// The workload.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Self { members, rate, partitions_per_member, size, duration, class } = *self;
        let partitions = members * partitions_per_member;
        let total = u64::from(members) * u64::from(rate);
        let edges_per_s = u64::try_from(Duration::from_secs(1).as_nanos() / EDGE.as_nanos()).expect("a small number");
        let edges = u64::try_from(duration.as_nanos() / EDGE.as_nanos()).expect("a run is shorter than centuries");
        // The n-th message of the run goes to stream n mod partitions, so that all members have the same to do.
        let schedule = (0..edges).flat_map(move |edge| {
            let at = MonotonicNanos(0)
                .after(LEAD + Duration::from_nanos(edge * u64::try_from(EDGE.as_nanos()).expect("a small number")));
            let (from, to) = (edge * total / edges_per_s, (edge + 1) * total / edges_per_s);
            (from..to).map(move |n| {
                let stream = u32::try_from(n % u64::from(partitions)).expect("below the number of partitions");
                Due { at, stream: StreamIndex(stream), size }
            })
        });
        Plan {
            scenario: format!("nxm-{members}x{rate}"),
            topics: vec![TopicPlan { role: "work", partitions, class }],
            streams: (0..partitions).map(|partition| StreamPlan { topic: 0, partition }).collect(),
            readers: (0..members)
                .map(|member| ReaderPlan {
                    name: format!("member {}", member + 1),
                    topic: 0,
                    partitions: (0..partitions_per_member).map(|n| n * members + member).collect(),
                    rate_max: Some(rate),
                })
                .collect(),
            reading: Reading::Live,
            schedule: Box::new(schedule),
            planned: edges * total / edges_per_s,
            tick: Duration::from_millis(16),
            duration: LEAD + duration,
            #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
            ideal_per_s: total as f64,
            budget: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_the_same_to_do() {
        let scenario = NxM {
            members: 4,
            rate: 1_500,
            partitions_per_member: 3,
            size: 100,
            duration: Duration::from_secs(2),
            class: TopicClass::Durable,
        };
        let plan = scenario.plan();
        let mut sent = vec![0; plan.streams.len()];
        let mut count = 0;
        for due in plan.schedule {
            sent[due.stream.0 as usize] += 1;
            count += 1;
        }
        assert_eq!(count, 12_000);
        assert_eq!(plan.planned, 12_000);
        assert!(sent.iter().all(|&sent| sent == 1_000), "{sent:?}");
        let mut partitions = plan.readers.iter().flat_map(|reader| reader.partitions.clone()).collect::<Vec<_>>();
        partitions.sort_unstable();
        assert_eq!(partitions, (0..12).collect::<Vec<_>>());
    }
}
