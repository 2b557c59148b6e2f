//! `queue`: messages for a shared queue, on many keys.

use std::time::Duration;

use corelane_model::{MonotonicNanos, TopicClass};

use crate::plan::{Due, Plan, Reading, Schedule, StreamPlan, TopicPlan};
use crate::stamp::StreamIndex;

/// Messages leave in groups on edges of this length.
const EDGE: Duration = Duration::from_millis(1);
const LEAD: Duration = Duration::from_millis(200);
/// Keys of the messages, spread over the partitions.
const KEYS: u32 = 1024;

/// The scenario's knobs.
#[derive(Clone, Copy, Debug)]
pub struct QueueLoad {
    /// Messages a second of all members together; `None` leaves the schedule empty, for a run that sends as fast as
    /// messages are done.
    pub rate: Option<u32>,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Bytes of a message.
    pub size: u32,
    /// How long.
    pub duration: Duration,
    /// Whether there is a topic for dead letters, beside that of the messages.
    pub has_dead_letters: bool,
}

impl QueueLoad {
    /// The workload; whoever carries it out knows its readers.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Self { rate, partitions, size, duration, has_dead_letters } = *self;
        let durable = |role, partitions| TopicPlan { role, partitions, class: TopicClass::Durable };
        let mut topics = vec![durable("queue", partitions)];
        topics.extend(has_dead_letters.then(|| durable("dead", 1)));
        let keys = KEYS.max(partitions);
        let edge_nanos = u64::try_from(EDGE.as_nanos()).expect("a small number");
        let edges_per_s = 1_000_000_000 / edge_nanos;
        let edges = u64::try_from(duration.as_nanos()).expect("a run is shorter than centuries") / edge_nanos;
        let total = u64::from(rate.unwrap_or(0));
        let messages = (0..edges).flat_map(move |edge| {
            let at = MonotonicNanos(0).after(LEAD + Duration::from_nanos(edge * edge_nanos));
            let (from, to) = (edge * total / edges_per_s, (edge + 1) * total / edges_per_s);
            (from..to).map(move |n| Due { at, stream: stream_of(n, keys), size })
        });
        let schedule: Schedule = if rate.is_some() { Box::new(messages) } else { Box::new(std::iter::empty()) };
        Plan {
            scenario: rate.map_or_else(|| "queue-max".to_owned(), |rate| format!("queue-{rate}")),
            topics,
            streams: (0..keys).map(|key| StreamPlan { topic: 0, partition: key % partitions }).collect(),
            readers: Vec::new(),
            reading: Reading::Live,
            schedule,
            planned: edges * total / edges_per_s,
            tick: Duration::from_millis(16),
            duration: LEAD + duration,
            #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
            ideal_per_s: total as f64,
            budget: None,
        }
    }
}

/// The stream of the n-th message of the run: each in turn.
pub(crate) fn stream_of(n: u64, streams: u32) -> StreamIndex {
    StreamIndex(u32::try_from(n % u64::from(streams)).expect("below the number of streams"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_spread_over_keys_and_partitions() {
        let load = QueueLoad {
            rate: Some(10_240),
            partitions: 3,
            size: 100,
            duration: Duration::from_secs(2),
            has_dead_letters: true,
        };
        let plan = load.plan();
        let mut sent = vec![0; plan.streams.len()];
        plan.schedule.for_each(|due| sent[due.stream.0 as usize] += 1);
        assert!(sent.iter().all(|&sent| sent == 20), "{sent:?}");
        assert_eq!((plan.planned, plan.topics.len()), (20_480, 2));
        assert!((0..3).all(|partition| plan.streams.iter().any(|stream| stream.partition == partition)));
        let closed = QueueLoad { rate: None, ..load }.plan();
        assert_eq!((closed.schedule.count(), closed.planned), (0, 0));
    }
}
