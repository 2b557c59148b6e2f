//! What all members of a queue see together: every message is done once, and nothing comes again that is done.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::measure::Percentiles;
use crate::slice::{SlicedLatency, Slices};
use crate::stamp::{StreamIndex, read_message};

/// A message: its stream, and its number in it.
pub(super) type Message = (StreamIndex, u32);

/// What a member is to say of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// It is done.
    Ack,
    /// It failed.
    Nack,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It failed so often.
    Open(u8),
    /// A member has acknowledged it.
    Acknowledged,
    /// It is in the topic of dead letters.
    Dead,
}

/// One stream.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// By number; those beyond were never seen.
    fates: Vec<Fate>,
    /// The last number that was handed out.
    newest: Option<u32>,
}

impl Stream {
    fn fate(&mut self, sequence: u32) -> &mut Fate {
        let at = sequence as usize;
        if self.fates.len() <= at {
            self.fates.resize(at + 1, Fate::Open(0));
        }
        &mut self.fates[at]
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) handed_out: u64,
    pub(super) nacked: u64,
    pub(super) redelivered: u64,
    /// Acknowledgements that were answered.
    pub(super) acknowledged: u64,
    /// Acknowledgements that were refused.
    pub(super) refused: u64,
    pub(super) dead: u64,
    pub(super) dead_early: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) corrupt: u64,
    pub(super) lost: u64,
}

/// How members are to fail, and what the queue promises.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// Of ten thousand deliveries so many fail.
    pub(super) failing_of_10_000: u32,
    /// Failures that make a dead letter; 0 is never.
    pub(super) delivery_limit: u8,
    pub(super) is_ordered: bool,
}

impl Rules {
    /// Whether that delivery of a message fails. The message's number decides, so that two runs fail alike.
    const fn fails(self, (stream, sequence): Message, failures: u8) -> bool {
        let mut word = (stream.0 as u64) << 40 | (sequence as u64) << 8 | failures as u64;
        word = (word ^ word >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (word ^ word >> 32) % 10_000 < self.failing_of_10_000 as u64
    }

    /// Whether a message that failed so often is to be a dead letter.
    const fn is_dead(self, failures: u8) -> bool {
        0 < self.delivery_limit && self.delivery_limit <= failures
    }
}

#[derive(Debug)]
struct State {
    origin: Instant,
    streams: Vec<Stream>,
    tally: Tally,
    handed_out: SlicedLatency,
    acknowledged: SlicedLatency,
    consumed: u64,
    last: u64,
}

/// Judges deliveries, acknowledgements and dead letters of all members.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Rules,
    state: Mutex<State>,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) tally: Tally,
    /// Messages that were handed out at least once.
    pub(super) consumed: u64,
    pub(super) handed_out: Percentiles,
    pub(super) acknowledged: Percentiles,
    /// When the last message was done, in nanoseconds since the origin.
    pub(super) last: u64,
}

/// The judge while a member goes through what came together.
#[derive(Debug)]
pub(super) struct Sitting<'a> {
    rules: Rules,
    state: MutexGuard<'a, State>,
    now: u64,
}

impl Judge {
    pub(super) fn new(rules: Rules, streams: usize) -> Self {
        let slices = Arc::new(Slices::without_schedule());
        let state = State {
            origin: Instant::now(),
            streams: vec![Stream::default(); streams],
            tally: Tally::default(),
            handed_out: SlicedLatency::new(Arc::clone(&slices)),
            acknowledged: SlicedLatency::new(slices),
            consumed: 0,
            last: 0,
        };
        Self { rules, state: Mutex::new(state) }
    }

    /// The load begins.
    pub(super) fn begin(&self, origin: Instant, slices: &Arc<Slices>) {
        let state = &mut *self.sit().state;
        state.origin = origin;
        state.handed_out = SlicedLatency::new(Arc::clone(slices));
        state.acknowledged = SlicedLatency::new(Arc::clone(slices));
    }

    /// Looks at several things at one moment.
    pub(super) fn sit(&self) -> Sitting<'_> {
        let state = self.state.lock().expect("no panic while it is held");
        let now = u64::try_from(state.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Sitting { rules: self.rules, state, now }
    }

    /// The verdict, given how many messages were sent on each stream.
    pub(super) fn finish(&self, sent: &[u32]) -> Seen {
        let mut sitting = self.sit();
        let state = &mut *sitting.state;
        let mut tally = state.tally;
        for (stream, &sent) in state.streams.iter().zip(sent) {
            let ended = |fate: &&Fate| !matches!(fate, Fate::Open(_));
            let done = stream.fates.iter().take(sent as usize).filter(ended).count() as u64;
            tally.lost += u64::from(sent) - done;
            // Nobody sent these.
            tally.corrupt += (stream.fates.len() as u64).saturating_sub(sent.into());
        }
        let (handed_out, acknowledged) = (state.handed_out.percentiles(), state.acknowledged.percentiles());
        Seen { tally, consumed: state.consumed, handed_out, acknowledged, last: state.last }
    }
}

impl Sitting<'_> {
    /// A member has a record; says what it is to say of it, and which message it is.
    pub(super) fn on_handed_out(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> (Say, Option<Message>) {
        let Self { rules, state, now } = self;
        let state = &mut **state;
        state.tally.handed_out += 1;
        let Some((message, due)) = read(&state.streams, key, value) else {
            state.tally.corrupt += 1;
            return (Say::Ack, None);
        };
        let (stream, sequence) = (&mut state.streams[message.0.0 as usize], message.1);
        if rules.is_ordered {
            let is_next = match stream.newest {
                None => sequence == 0,
                Some(newest) if newest == sequence => true,
                Some(newest) => newest + 1 == sequence && !is_open(*stream.fate(newest), *rules),
            };
            state.tally.reordered += u64::from(!is_next);
            stream.newest = stream.newest.max(Some(sequence));
        }
        let fate = stream.fate(sequence);
        match *fate {
            Fate::Open(failures) if !rules.is_dead(failures) => {
                if failures == 0 {
                    state.consumed += 1;
                    state.handed_out.record(due, now.saturating_sub(due), 1);
                } else {
                    state.tally.redelivered += 1;
                }
                if rules.fails(message, failures) {
                    state.tally.nacked += 1;
                    *fate = Fate::Open(failures.saturating_add(1));
                    return (Say::Nack, Some(message));
                }
                *fate = Fate::Acknowledged;
                (Say::Ack, Some(message))
            }
            _ => {
                state.tally.duplicated += 1;
                (Say::Ack, None)
            }
        }
    }

    /// So many acknowledgements were answered, `waited` nanoseconds after they were said.
    pub(super) fn on_acknowledged(&mut self, count: u64, waited: u64) {
        self.state.tally.acknowledged += count;
        let said = self.now.saturating_sub(waited);
        self.state.acknowledged.record(said, waited, count);
        self.state.last = self.state.last.max(self.now);
    }

    /// What was said of a message came to nothing: it will come again.
    pub(super) fn on_refused(&mut self, (stream, sequence): Message) {
        self.state.tally.refused += 1;
        *self.state.streams[stream.0 as usize].fate(sequence) = Fate::Open(0);
    }

    /// A record is in the topic of dead letters.
    pub(super) fn on_dead_letter(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Self { rules, state, now } = self;
        let state = &mut **state;
        let Some(((stream, sequence), _)) = read(&state.streams, key, value) else {
            state.tally.corrupt += 1;
            return;
        };
        let fate = state.streams[stream.0 as usize].fate(sequence);
        match std::mem::replace(fate, Fate::Dead) {
            Fate::Open(failures) => {
                state.tally.dead += 1;
                state.tally.dead_early += u64::from(!rules.is_dead(failures));
                state.last = *now;
            }
            Fate::Acknowledged | Fate::Dead => state.tally.duplicated += 1,
        }
    }
}

/// Whether a message is still to be handed out again.
const fn is_open(fate: Fate, rules: Rules) -> bool {
    matches!(fate, Fate::Open(failures) if !rules.is_dead(failures))
}

/// Which message it is, and when it was due.
fn read(streams: &[Stream], key: Option<&[u8]>, value: Option<&[u8]>) -> Option<(Message, u64)> {
    let stream = StreamIndex::from_key(key?).filter(|stream| (stream.0 as usize) < streams.len())?;
    let stamp = read_message(stream, value?).ok()?;
    Some(((stream, stamp.sequence), stamp.due.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Stamp, write_message};
    use corelane_model::MonotonicNanos;

    const STREAM: StreamIndex = StreamIndex(1);
    const CALM: Rules = Rules { failing_of_10_000: 0, delivery_limit: 0, is_ordered: false };
    const HOPELESS: Rules = Rules { failing_of_10_000: 10_000, delivery_limit: 2, is_ordered: true };

    fn message(sequence: u32) -> Vec<u8> {
        let mut message = Vec::new();
        write_message(&mut message, STREAM, Stamp { sequence, due: MonotonicNanos(0) }, 40);
        message
    }

    /// Hands out messages in this order, of which `sent` were sent.
    fn check(rules: Rules, handed_out: &[u32], dead: &[u32], sent: u32) -> Tally {
        let judge = Judge::new(rules, 2);
        for &sequence in handed_out {
            judge.sit().on_handed_out(Some(&STREAM.to_key()), Some(&message(sequence)));
        }
        for &sequence in dead {
            judge.sit().on_dead_letter(Some(&STREAM.to_key()), Some(&message(sequence)));
        }
        judge.finish(&[0, sent]).tally
    }

    #[test]
    fn every_message_is_done_once() {
        let good = Tally { handed_out: 3, ..Tally::default() };
        assert_eq!(check(CALM, &[0, 2, 1], &[], 3), good);
        assert_eq!(check(CALM, &[0, 2, 1], &[], 4), Tally { lost: 1, ..good });
        assert_eq!(check(CALM, &[0, 1, 1], &[], 2), Tally { duplicated: 1, ..good });
        assert_eq!(check(CALM, &[0, 1, 2], &[], 2), Tally { corrupt: 1, ..good });
    }

    #[test]
    fn a_dead_letter_is_an_end_once_and_after_as_many_failures_as_the_limit_says() {
        let good = Tally { handed_out: 2, nacked: 2, redelivered: 1, dead: 1, ..Tally::default() };
        assert_eq!(check(HOPELESS, &[0, 0], &[0], 1), good);
        assert_eq!(check(HOPELESS, &[0, 0], &[], 1), Tally { dead: 0, lost: 1, ..good });
        assert_eq!(check(HOPELESS, &[0, 0], &[0, 0], 1), Tally { duplicated: 1, ..good });
        assert_eq!(check(HOPELESS, &[0, 0, 0], &[0], 1), Tally { handed_out: 3, duplicated: 1, ..good });
        let early = Tally { handed_out: 1, nacked: 1, redelivered: 0, dead_early: 1, ..good };
        assert_eq!(check(HOPELESS, &[0], &[0], 1), early);
    }

    #[test]
    fn the_next_of_a_key_comes_when_the_one_before_is_done() {
        let ordered = Rules { is_ordered: true, ..CALM };
        assert_eq!(check(ordered, &[0, 1, 2], &[], 3).reordered, 0);
        assert_eq!(check(ordered, &[0, 2, 1], &[], 3).reordered, 2);
        assert_eq!(check(HOPELESS, &[0, 0, 1, 1], &[0, 1], 2).reordered, 0);
        assert_eq!(check(HOPELESS, &[0, 1, 1], &[1], 2).reordered, 1, "the first was not done");
    }

    #[test]
    fn a_refused_acknowledgement_opens_its_message_again() {
        let judge = Judge::new(CALM, 2);
        let (say, which) = judge.sit().on_handed_out(Some(&STREAM.to_key()), Some(&message(0)));
        assert_eq!((say, which), (Say::Ack, Some((STREAM, 0))));
        judge.sit().on_refused((STREAM, 0));
        assert_eq!(judge.finish(&[0, 1]).tally, Tally { handed_out: 1, refused: 1, lost: 1, ..Tally::default() });
    }

    #[test]
    fn so_many_deliveries_fail_as_the_rules_say() {
        let rules = Rules { failing_of_10_000: 500, ..CALM };
        let failed = (0..100_000).filter(|&sequence| rules.fails((STREAM, sequence), 0)).count();
        assert!((4_500..5_500).contains(&failed), "{failed}");
        let both = (0..100_000).filter(|&n| rules.fails((STREAM, n), 0) && rules.fails((STREAM, n), 1)).count();
        assert!((150..350).contains(&both), "one delivery's end says nothing of the next one's: {both}");
    }
}
