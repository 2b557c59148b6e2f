//! The window of one partition: every record from the first that is not done to the last that was read.

use std::collections::{BTreeMap, VecDeque};

use corelane_model::limits::QUEUE_WINDOW_RECORDS;
use corelane_model::{PartitionIndex, WallMillis};

use crate::done::DoneSet;
use crate::key_lines::KeyLines;
use crate::slot::{Slot, State};

/// What is kept, also on disk, of a record that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Deliveries that failed.
    pub(crate) deliveries: u16,
    /// It is to become a dead letter whatever the limit is.
    pub(crate) is_dead: bool,
    /// When the first one failed.
    pub(crate) first: WallMillis,
    /// Before that it is not handed out.
    pub(crate) not_before: WallMillis,
    /// Milliseconds that it rests at most, wherever the wall clock is set meanwhile.
    pub(crate) rest_ms: u64,
}

impl Failure {
    /// Milliseconds that it has yet to rest.
    pub(crate) fn remaining_ms(&self, now: WallMillis) -> u64 {
        self.not_before.millis_since(now).min(self.rest_ms)
    }
}

/// One partition of the queue's topic.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) index: PartitionIndex,
    /// Whether the first offset is known.
    pub(crate) is_started: bool,
    /// The first record that is not done; the ring begins there.
    pub(crate) done_end: u64,
    slots: VecDeque<Slot>,
    /// The hand-out has passed everything before.
    fresh: u64,
    /// Records that the hand-out has passed and that are to be handed out, in the order in which they became so.
    again: VecDeque<u64>,
    /// The last record that was handed out was one of `again`: records that fail without a rest must not keep others
    /// waiting.
    is_fresh_turn: bool,
    pub(crate) done: DoneSet,
    pub(crate) failed: BTreeMap<u64, Failure>,
    /// Only below are there failures or done records that were not read yet.
    pub(crate) restored_end: u64,
    pub(crate) lines: Option<KeyLines>,
    /// Append timestamps: from this offset on it is this one.
    pub(crate) stamps: VecDeque<(u64, WallMillis)>,
    counts: [u64; State::COUNT],
    /// Bytes of records that could be handed out and never were. Those that were count no more, whatever became of them: what
    /// fails again and again must not keep what lies behind it from being read.
    pub(crate) fresh_bytes: u64,
    /// Bytes that were asked for and have not come.
    pub(crate) asked: u64,
    pub(crate) high_watermark: u64,
    /// Dead letters so far.
    pub(crate) dead: u64,
    /// Its record is to be written.
    pub(crate) is_dirty: bool,
    /// It stands in the queue's list of partitions with something to hand out.
    pub(crate) is_listed: bool,
}

impl Partition {
    pub(crate) fn new(index: PartitionIndex, has_order: bool) -> Self {
        Self {
            index,
            is_started: false,
            done_end: 0,
            slots: VecDeque::new(),
            fresh: 0,
            again: VecDeque::new(),
            is_fresh_turn: false,
            done: DoneSet::new(0),
            failed: BTreeMap::new(),
            restored_end: 0,
            lines: has_order.then(KeyLines::new),
            stamps: VecDeque::new(),
            counts: [0; State::COUNT],
            fresh_bytes: 0,
            asked: 0,
            high_watermark: 0,
            dead: 0,
            is_dirty: false,
            is_listed: false,
        }
    }

    /// The first offset is known: nothing before it is of interest.
    pub(crate) fn start(&mut self, done_end: u64) {
        assert!(!self.is_started && self.slots.is_empty(), "partition {} starts twice", self.index);
        self.is_started = true;
        self.done_end = done_end;
        self.fresh = done_end;
        self.done = DoneSet::new(done_end);
        self.high_watermark = self.high_watermark.max(done_end);
    }

    /// Exclusive end of what was read.
    pub(crate) fn read_end(&self) -> u64 {
        self.done_end + self.slots.len() as u64
    }

    /// Records of the ring.
    pub(crate) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(crate) const fn count(&self, state: State) -> u64 {
        self.counts[state as usize]
    }

    /// Records that could be handed out.
    pub(crate) const fn ready(&self) -> u64 {
        self.count(State::Fresh) + self.count(State::Again)
    }

    fn place(&self, offset: u64) -> Option<usize> {
        offset.checked_sub(self.done_end).and_then(|at| usize::try_from(at).ok())
    }

    pub(crate) fn slot(&self, offset: u64) -> Option<&Slot> {
        self.place(offset).and_then(|at| self.slots.get(at))
    }

    pub(crate) fn slot_mut(&mut self, offset: u64) -> Option<&mut Slot> {
        let at = self.place(offset)?;
        self.slots.get_mut(at)
    }

    /// A record that was just read.
    pub(crate) fn push(&mut self, slot: Slot) {
        self.counts[slot.state as usize] += 1;
        self.fresh_bytes += slot.fresh_bytes();
        self.slots.push_back(slot);
    }

    /// Puts a record that is there into another state.
    pub(crate) fn set_state(&mut self, offset: u64, state: State) {
        let slot = self.slot_mut(offset).expect("the caller has just seen it");
        let (before, bytes_before) = (slot.state, slot.fresh_bytes());
        slot.state = state;
        let bytes = slot.fresh_bytes();
        self.counts[before as usize] -= 1;
        self.counts[state as usize] += 1;
        self.fresh_bytes = self.fresh_bytes + bytes - bytes_before;
    }

    /// A record that the hand-out may have passed is to be handed out.
    pub(crate) fn put_again(&mut self, offset: u64) {
        self.set_state(offset, State::Again);
        self.again.push_back(offset);
    }

    /// The bug: a record that was just leased stays where the hand-out finds it.
    #[cfg(planted)]
    pub(crate) fn leave_in_line(&mut self, offset: u64) {
        self.set_state(offset, State::Again);
        self.again.push_back(offset);
    }

    /// The next record to hand out, if the window lets it. It stays as it is.
    ///
    /// Those that the hand-out has passed come first, in turn with those that it has not.
    pub(crate) fn next_ready(&mut self) -> Option<u64> {
        if self.is_fresh_turn {
            self.next_fresh().or_else(|| self.next_again())
        } else {
            self.next_again().or_else(|| self.next_fresh())
        }
    }

    fn next_again(&mut self) -> Option<u64> {
        while let Some(&offset) = self.again.front() {
            if self.slot(offset).is_some_and(|slot| slot.state == State::Again) {
                return Some(offset);
            }
            self.again.pop_front();
        }
        None
    }

    fn next_fresh(&mut self) -> Option<u64> {
        let end = self.read_end().min(self.done_end + QUEUE_WINDOW_RECORDS);
        while self.fresh < end {
            if self.slot(self.fresh).is_some_and(|slot| slot.state == State::Fresh) {
                return Some(self.fresh);
            }
            self.fresh += 1;
        }
        None
    }

    /// Whether there are records behind the window while nothing within it can be handed out.
    pub(crate) fn is_full(&self) -> bool {
        let end = self.done_end + QUEUE_WINDOW_RECORDS;
        let has_more = end < self.high_watermark.max(self.read_end()) && end <= self.read_end();
        let is_fresh = |offset| self.slot(offset).is_some_and(|slot| slot.state == State::Fresh);
        has_more && self.count(State::Again) == 0 && !(self.fresh..end).any(is_fresh)
    }

    /// A record that is ready is handed out.
    pub(crate) fn lease(&mut self, offset: u64) {
        self.is_fresh_turn = self.slot(offset).is_some_and(|slot| slot.state == State::Again);
        self.set_state(offset, State::Leased);
    }

    /// A record is done. Who stood behind it in its line, if anybody.
    pub(crate) fn finish(&mut self, offset: u64) -> Option<u64> {
        self.set_state(offset, State::Done);
        self.is_dirty = true;
        if !self.failed.is_empty() {
            self.failed.remove(&offset);
        }
        let next = self.slot(offset).map_or(0, |slot| slot.next);
        if offset == self.done_end {
            self.advance();
        } else {
            self.done.insert(offset);
        }
        (next != 0).then(|| offset + u64::from(next))
    }

    /// Moves the done end over everything that is done.
    pub(crate) fn advance(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state == State::Done) {
            self.slots.pop_front();
            self.counts[State::Done as usize] -= 1;
            self.done_end += 1;
        }
        self.done.advance(self.done_end);
        self.fresh = self.fresh.max(self.done_end);
        while self.stamps.get(1).is_some_and(|&(offset, _)| offset <= self.done_end) {
            self.stamps.pop_front();
        }
    }

    /// Begins at a later offset; the ring is empty.
    pub(crate) fn jump(&mut self, to: u64) {
        assert!(self.slots.is_empty() && self.done_end <= to, "partition {} jumps over records", self.index);
        self.done_end = to;
        self.fresh = self.fresh.max(to);
        self.done.advance(to);
        self.failed = self.failed.split_off(&to);
        self.stamps.clear();
    }

    /// When the oldest record that is not done was appended, if it was read.
    pub(crate) fn oldest(&self) -> Option<WallMillis> {
        if self.slots.is_empty() {
            return None;
        }
        self.stamps.iter().take_while(|&&(offset, _)| offset <= self.done_end).last().map(|&(_, stamp)| stamp)
    }

    /// Offsets that are in this state, in order.
    pub(crate) fn in_state(&self, state: State) -> impl Iterator<Item = (u64, &Slot)> {
        let slots = (self.done_end..).zip(&self.slots);
        slots.filter(move |(_, slot)| slot.state == state)
    }

    /// What must hold. It costs as much as the window is large.
    pub(crate) fn check(&self) {
        let mut counts = [0; State::COUNT];
        let mut fresh_bytes = 0;
        for (offset, slot) in (self.done_end..).zip(&self.slots) {
            counts[slot.state as usize] += 1;
            fresh_bytes += slot.fresh_bytes();
            let is_passed = offset < self.fresh;
            assert!(!(is_passed && slot.state == State::Fresh), "record {offset} of {} was passed over", self.index);
            if slot.state == State::Done {
                assert!(self.done.contains(offset), "record {offset} of {} is done without a mark", self.index);
            }
        }
        assert_eq!(counts, self.counts, "counts of partition {}", self.index);
        assert_eq!(fresh_bytes, self.fresh_bytes, "fresh bytes of partition {}", self.index);
        assert!(self.slots.front().is_none_or(|slot| slot.state != State::Done), "the done end stands still");
        assert!(self.failed.range(..self.done_end).next().is_none(), "a failure of a record that is done");
        let again =
            self.again.iter().filter(|&&offset| self.slot(offset).is_some_and(|slot| slot.state == State::Again));
        assert!(self.count(State::Again) <= again.count() as u64, "a record stands in no list");
    }
}
