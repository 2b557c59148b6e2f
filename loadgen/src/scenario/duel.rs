//! `duel-60`: matches of two players at 60 ticks a second.
//!
//! On each tick both players of each match send an input of 64 bytes, which the simulation reads, and the simulation
//! sends a state of 38 to 85 bytes for each player, which both players read. All ticks are aligned: every match sends on
//! the same edge. The budget follows the rule for tick traffic: p99 within a tenth of a tick, p99.9 within a half.

use std::time::Duration;

use corelane_model::{MonotonicNanos, TopicClass};

use crate::plan::{Due, Plan, ReaderPlan, Reading, StreamPlan, TopicPlan};
use crate::stamp::StreamIndex;

/// Ticks a second.
pub const DUEL_TICKS_PER_S: u32 = 60;
const PLAYERS: u32 = 2;
const INPUT_BYTES: u32 = 64;
const STATE_BYTES: std::ops::Range<u32> = 38..86;
/// Before the first tick: time for readers and connections to settle.
const LEAD: Duration = Duration::from_millis(200);

/// The scenario's knobs.
#[derive(Clone, Copy, Debug)]
pub struct Duel {
    /// How many matches.
    pub matches: u32,
    /// How long.
    pub duration: Duration,
    /// The class of both topics.
    pub class: TopicClass,
    /// Partitions of each topic; matches share them by their number.
    pub partitions: u32,
}

impl Duel {
    /// The workload.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let Self { matches, duration, class, partitions } = *self;
        let topics = ["inputs", "states"].map(|role| TopicPlan { role, partitions, class }).to_vec();
        // Streams: first all inputs by match and player, then all states likewise.
        let streams = (0..topics.len())
            .flat_map(|topic| {
                (0..matches * PLAYERS).map(move |n| StreamPlan { topic, partition: (n / PLAYERS) % partitions })
            })
            .collect::<Vec<_>>();
        let all = (0..partitions).collect::<Vec<_>>();
        let reader =
            |name: &str, topic| ReaderPlan { name: name.to_owned(), topic, partitions: all.clone(), rate_max: None };
        let readers = vec![reader("simulation", 0), reader("player 1", 1), reader("player 2", 1)];
        let per_tick = u32::try_from(streams.len()).expect("streams are numbered in 32 bits");
        let ticks = (duration.as_secs_f64() * f64::from(DUEL_TICKS_PER_S)).ceil().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of ticks")]
        let ticks = ticks as u32;
        let schedule = (0..ticks).flat_map(move |tick| {
            let at = due(tick);
            (0..per_tick).map(move |stream| Due { at, stream: StreamIndex(stream), size: size(stream, tick, per_tick) })
        });
        Plan {
            scenario: "duel-60".to_owned(),
            topics,
            streams,
            readers,
            reading: Reading::Live,
            schedule: Box::new(schedule),
            planned: u64::from(ticks) * u64::from(per_tick),
            tick: Duration::from_secs(1) / DUEL_TICKS_PER_S,
            duration: LEAD + Duration::from_secs(u64::from(ticks)) / DUEL_TICKS_PER_S,
            ideal_per_s: f64::from(matches * PLAYERS * 3 * DUEL_TICKS_PER_S),
            budget: Some((Duration::from_micros(1_700), Duration::from_micros(8_300))),
        }
    }
}

fn due(tick: u32) -> MonotonicNanos {
    MonotonicNanos(0).after(LEAD + Duration::from_secs(u64::from(tick)) / DUEL_TICKS_PER_S)
}

/// Inputs are all of one size; states vary with what happens.
const fn size(stream: u32, tick: u32, per_tick: u32) -> u32 {
    if stream < per_tick / 2 {
        return INPUT_BYTES;
    }
    let spread = STATE_BYTES.end - STATE_BYTES.start;
    STATE_BYTES.start + stream.wrapping_mul(31).wrapping_add(tick.wrapping_mul(7)) % spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_what_it_says() {
        let duel = Duel { matches: 20, duration: Duration::from_secs(2), class: TopicClass::Durable, partitions: 4 };
        let plan = duel.plan();
        assert_eq!(plan.planned, 2 * 4_800);
        let readers = plan.readers.clone();
        let mut sent = vec![0; plan.streams.len()];
        let mut last = MonotonicNanos(0);
        for due in plan.schedule {
            assert!(last <= due.at);
            last = due.at;
            sent[due.stream.0 as usize] += 1;
        }
        let plan = Plan { schedule: Box::new(std::iter::empty()), ..duel.plan() };
        assert_eq!(plan.deliveries(&sent), 2 * 7_200);
        assert_eq!(readers.len(), 3);
        assert!((plan.ideal_per_s - 7_200.0).abs() < 1e-9);
    }
}
