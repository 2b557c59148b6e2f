//! Reads of settled records: from the read cache, or by reads of whole extents that several readers share.
//!
//! A wish goes one of three ways: its run of extents is cached and it is answered at once; its extent is known and the
//! wish waits for the read of its run; or its extent is not known and it waits for the scan of its segment:
//!
//! ```text
//! look ──► cached ──────────────────────────────► answer
//!   │ ▲
//!   │ └───────────────────────────────────────┐
//!   ├────► known ──► run read ──► checked ────┼─► answer
//!   └────► unknown ► scan read ─► heads ──────┘
//! ```

mod holes;
mod run;
mod scan;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use corelane_model::limits::{READ_AHEAD_RUNS_MAX, READS_IN_FLIGHT_MAX, READS_WAITING_MAX};
use corelane_model::{Offset, PartitionId, WallMillis};

use crate::cache::{ReadCache, Run, Walk};
use crate::extent::ExtentHead;
use crate::index::{Found, IndexCache, IndexEntry, Missing, SegmentIndex};
use crate::{FileError, ReadError, ReadTicket, Urgency};
use scan::Scan;

/// As much of a segment as may be read: what lies beyond does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentView {
    /// Offset of its first record.
    pub(crate) base: Offset,
    /// Exclusive end of its settled records.
    pub(crate) end: Offset,
    /// Bytes of its extents, padding included.
    pub(crate) bytes: u64,
    /// How often compaction wrote it anew: more than never, and offsets may be missing.
    pub(crate) rewrite: u32,
}

impl SegmentView {
    /// Whether offsets that are not there are no damage.
    pub(crate) const fn has_holes(&self) -> bool {
        0 < self.rewrite
    }
}

/// What someone wants from a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Batches from the one that holds `from`, which moves over holes; `asked` is where it began.
    Records { asked: Offset, from: Offset, bytes_max: u32 },
    /// The first batch that was appended at this moment or later.
    Time(WallMillis),
}

/// Which read it is; the key under which its bytes come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ReadKey {
    /// Whole extents of a partition, by the first one's base.
    Run(PartitionId, Offset),
    /// Heads of a segment's extents, by the segment's base.
    Scan(PartitionId, Offset),
}

/// A read to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadOrder {
    pub(crate) key: ReadKey,
    pub(crate) partition: PartitionId,
    /// Base offset of the segment.
    pub(crate) segment: Offset,
    pub(crate) rewrite: u32,
    pub(crate) position: u64,
    pub(crate) length: u32,
    pub(crate) urgency: Urgency,
}

/// What a wish came to at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Whole batches, at least one.
    Batches { batches: Vec<Bytes>, next: Offset },
    /// The batch begins here.
    Found(Offset),
    /// These records are lost.
    Corrupt { first: Offset, end: Offset },
    /// Compaction left nothing up to here, the segment's end.
    Hole { end: Offset },
    /// It is answered later.
    Pending(ReadTicket),
    /// Too many wait already.
    Busy,
}

/// A late answer.
#[derive(Debug)]
pub(crate) enum ReadAnswer {
    /// To [`Goal::Records`].
    Records { ticket: ReadTicket, partition: PartitionId, result: Result<Vec<Bytes>, ReadError> },
    /// To [`Goal::Time`].
    Time { ticket: ReadTicket, partition: PartitionId, result: Result<Offset, ReadError> },
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    ticket: ReadTicket,
    goal: Goal,
    view: SegmentView,
}

/// A run on its way.
#[derive(Debug)]
struct RunRead {
    segment: Offset,
    rewrite: u32,
    /// Base and end of each of its extents.
    extents: Vec<(Offset, Offset)>,
    end: Offset,
    position: u64,
    length: u32,
    ahead: u8,
    waiters: Vec<Waiter>,
}

/// Counters of the reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadStats {
    pub(crate) cached_total: u64,
    pub(crate) cold_total: u64,
    pub(crate) reads_total: u64,
    pub(crate) bytes_total: u64,
    pub(crate) failures_total: u64,
}

/// All reads of settled records of one shard.
#[derive(Debug)]
pub(crate) struct Reads {
    cache: ReadCache,
    indexes: IndexCache,
    runs: BTreeMap<(PartitionId, Offset), RunRead>,
    scans: BTreeMap<(PartitionId, Offset), Scan>,
    wanted: VecDeque<ReadKey>,
    ahead: VecDeque<ReadKey>,
    answers: VecDeque<ReadAnswer>,
    in_flight: usize,
    in_flight_bytes: u64,
    waiting: usize,
    tickets: u64,
    cache_bytes_max: u64,
    pub(crate) stats: ReadStats,
}

enum Looked {
    Now(Reply),
    Wait(ReadKey),
}

impl Reads {
    /// Nothing cached.
    pub(crate) fn new(cache_bytes_max: u64, index_bytes_max: u64) -> Self {
        Self {
            cache: ReadCache::new(),
            indexes: IndexCache::new(index_bytes_max),
            runs: BTreeMap::new(),
            scans: BTreeMap::new(),
            wanted: VecDeque::new(),
            ahead: VecDeque::new(),
            answers: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            waiting: 0,
            tickets: 0,
            cache_bytes_max,
            stats: ReadStats::default(),
        }
    }

    /// Bytes in the cache.
    pub(crate) const fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Entries of indexes in memory.
    pub(crate) const fn index_entries(&self) -> usize {
        self.indexes.entries()
    }

    /// Nothing waits and nothing is on its way.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.in_flight == 0 && self.answers.is_empty()
    }

    /// Answers the wish, or lets it wait. The goal lies inside the view.
    pub(crate) fn look(&mut self, partition: PartitionId, view: SegmentView, mut goal: Goal) -> Reply {
        match self.look_once(partition, view, &mut goal) {
            Looked::Now(reply) => {
                self.stats.cached_total += 1;
                goal.with_hole(reply)
            }
            Looked::Wait(_) if READS_WAITING_MAX <= self.waiting => Reply::Busy,
            Looked::Wait(key) => {
                self.stats.cold_total += 1;
                self.tickets += 1;
                let ticket = ReadTicket(self.tickets);
                self.waiting += 1;
                self.wait(key, Waiter { ticket, goal, view });
                Reply::Pending(ticket)
            }
        }
    }

    /// The extent was settled and checkpointed: its segment's index knows it from now on.
    pub(crate) fn on_settled(&mut self, segment: Offset, head: &ExtentHead) {
        let make = if head.position == 0 { Missing::Make } else { Missing::Ignore };
        self.indexes.change(head.partition, segment, make, |index| {
            if index.follows(head) {
                index.push(head);
            }
        });
    }

    /// Records below `log_start` are gone: nothing of them is kept. Segments that begin below it and are still needed
    /// lose their index too, which is then built again.
    pub(crate) fn forget_below(&mut self, partition: PartitionId, log_start: Offset) {
        self.cache.forget_below(partition, log_start);
        self.indexes.forget_below(partition, log_start);
    }

    /// The next read to be made, those that someone waits for first.
    pub(crate) fn poll_order(&mut self) -> Option<ReadOrder> {
        let (&key, urgency) = match (self.wanted.front(), self.ahead.front()) {
            (Some(key), _) => (key, Urgency::Now),
            (None, Some(key)) => (key, Urgency::Background),
            (None, None) => return None,
        };
        let order = match key {
            ReadKey::Run(partition, base) => {
                let run = &self.runs[&(partition, base)];
                let RunRead { segment, rewrite, position, length, .. } = *run;
                ReadOrder { key, partition, segment, rewrite, position, length, urgency }
            }
            ReadKey::Scan(partition, segment) => {
                let scan = &self.scans[&(partition, segment)];
                let (rewrite, (position, length)) = (scan.rewrite(), scan.next_read());
                ReadOrder { key, partition, segment, rewrite, position, length, urgency }
            }
        };
        // What is on its way counts like what is cached, but one read may always go.
        let is_room = self.in_flight < READS_IN_FLIGHT_MAX
            && self.in_flight_bytes + u64::from(order.length) <= self.cache_bytes_max;
        if !is_room && 0 < self.in_flight {
            return None;
        }
        match urgency {
            Urgency::Now => self.wanted.pop_front(),
            Urgency::Background => self.ahead.pop_front(),
        };
        self.in_flight += 1;
        self.in_flight_bytes += u64::from(order.length);
        self.stats.reads_total += 1;
        self.stats.bytes_total += u64::from(order.length);
        self.make_room();
        Some(order)
    }

    /// The next late answer.
    pub(crate) fn poll_answer(&mut self) -> Option<ReadAnswer> {
        self.answers.pop_front()
    }

    /// A read of `length` bytes came back. `log_start` is the partition's, or nothing when it is gone.
    pub(crate) fn on_read(&mut self, order: &ReadOrder, result: Result<Bytes, FileError>, log_start: Option<Offset>) {
        self.in_flight -= 1;
        self.in_flight_bytes -= u64::from(order.length);
        if result.is_err() {
            self.stats.failures_total += 1;
        }
        match order.key {
            ReadKey::Run(partition, base) => {
                // One that is not known any more was forgotten when its segment was written anew.
                if self.runs.get(&(partition, base)).is_some_and(|run| run.rewrite == order.rewrite) {
                    let run = self.runs.remove(&(partition, base)).expect("it was just seen");
                    self.on_run(partition, run, result, log_start);
                }
            }
            ReadKey::Scan(partition, segment) => {
                if self.scans.get(&(partition, segment)).is_some_and(|scan| scan.rewrite() == order.rewrite) {
                    let scan = self.scans.remove(&(partition, segment)).expect("it was just seen");
                    self.on_scan(order, scan, result, log_start);
                }
            }
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        self.cache.shrink(self.cache_bytes_max.saturating_sub(self.in_flight_bytes));
    }

    /// Looks for the goal, which moves to the next record if it lies in a hole.
    fn look_once(&mut self, partition: PartitionId, view: SegmentView, goal: &mut Goal) -> Looked {
        match goal {
            Goal::Records { from, bytes_max, .. } => self.look_records(partition, view, from, *bytes_max),
            Goal::Time(time) => self.look_time(partition, view, *time),
        }
    }

    fn look_records(&mut self, partition: PartitionId, view: SegmentView, from: &mut Offset, bytes_max: u32) -> Looked {
        if let Some(run) = self.cache.get(partition, *from) {
            let reply = reply_of(run.walk(*from, bytes_max));
            let (end, ahead) = (run.end(), run.ahead);
            self.read_ahead(partition, view, end, ahead);
            return Looked::Now(reply);
        }
        match self.find(partition, view, |index| index.find_offset(*from, view.bytes)) {
            Sought::Entry(place, entry) => {
                let is_at_front = *from == view.base;
                if *from < entry.base {
                    if !view.has_holes() {
                        return Looked::Now(Reply::Corrupt { first: *from, end: entry.base });
                    }
                    *from = entry.base;
                    if self.cache.bounds(partition, entry.base).is_some() {
                        return self.look_records(partition, view, from, bytes_max);
                    }
                }
                if entry.is_damaged() {
                    return Looked::Now(Reply::Corrupt { first: *from, end: entry.end });
                }
                let key = self.want_run(partition, view, place, entry, is_at_front);
                Looked::Wait(key)
            }
            Sought::Unscanned => Looked::Wait(self.want_scan(partition, view, Some(*from))),
            Sought::Absent if view.has_holes() => Looked::Now(Reply::Hole { end: view.end }),
            Sought::Absent => Looked::Now(Reply::Corrupt { first: *from, end: view.end }),
        }
    }

    fn look_time(&mut self, partition: PartitionId, view: SegmentView, time: WallMillis) -> Looked {
        match self.find(partition, view, |index| index.find_time(time, view.bytes)) {
            Sought::Entry(place, entry) => {
                if let Some(run) = self.cache.get(partition, entry.base) {
                    let found = run.find_time(entry, time).unwrap_or(entry.end);
                    return Looked::Now(Reply::Found(found));
                }
                Looked::Wait(self.want_run(partition, view, place, entry, false))
            }
            Sought::Unscanned => Looked::Wait(self.want_scan(partition, view, None)),
            Sought::Absent => Looked::Now(Reply::Found(view.end)),
        }
    }

    fn find(&mut self, partition: PartitionId, view: SegmentView, find: impl FnOnce(&SegmentIndex) -> Found) -> Sought {
        let Some(index) = self.index(partition, view.base) else {
            return if view.bytes == 0 { Sought::Absent } else { Sought::Unscanned };
        };
        match find(index) {
            Found::Entry(place) => Sought::Entry(place, index.entries()[place]),
            Found::Unscanned => Sought::Unscanned,
            Found::Absent => Sought::Absent,
        }
    }

    /// The index as far as it is known; a running scan holds its own.
    fn index(&mut self, partition: PartitionId, segment: Offset) -> Option<&SegmentIndex> {
        match self.scans.get(&(partition, segment)) {
            Some(scan) => Some(scan.index()),
            None => self.indexes.get(partition, segment),
        }
    }

    /// Makes sure that the run with this entry is on its way, and says under which key.
    fn want_run(
        &mut self,
        partition: PartitionId,
        view: SegmentView,
        place: usize,
        entry: IndexEntry,
        is_at_front: bool,
    ) -> ReadKey {
        if let Some(key) = self.run_on_its_way(partition, entry.base) {
            if let Some(place) = self.ahead.iter().position(|&waiting| waiting == key) {
                self.ahead.remove(place);
                self.wanted.push_back(key);
            }
            return key;
        }
        let ahead = self.next_ahead(partition, entry.base, is_at_front);
        let key = self.start_run(partition, view, place, ahead);
        self.wanted.push_back(key);
        key
    }

    /// How far to read ahead of a run that begins here: farther with each run that follows one, not at all where
    /// nobody has read before.
    fn next_ahead(&self, partition: PartitionId, base: Offset, is_at_front: bool) -> u8 {
        let coming = || self.ahead_on_its_way(partition, base);
        match self.cache.ahead_before(partition, base).or_else(coming) {
            Some(before) => (before * 2).clamp(1, READ_AHEAD_RUNS_MAX),
            None => u8::from(is_at_front),
        }
    }

    /// Base of the first run at or after `offset` that is cached or on its way.
    fn next_known(&self, partition: PartitionId, offset: Offset) -> Option<Offset> {
        let cached = self.cache.next_base(partition, offset);
        let range = (partition, offset)..=(partition, Offset(u64::MAX));
        let coming = self.runs.range(range).next().map(|(&(_, base), _)| base);
        match (cached, coming) {
            (Some(cached), Some(coming)) => Some(cached.min(coming)),
            (cached, coming) => cached.or(coming),
        }
    }

    fn run_on_its_way(&self, partition: PartitionId, offset: Offset) -> Option<ReadKey> {
        let range = (partition, Offset::ZERO)..=(partition, offset);
        let (&(_, base), run) = self.runs.range(range).next_back()?;
        (offset < run.end).then_some(ReadKey::Run(partition, base))
    }

    fn ahead_on_its_way(&self, partition: PartitionId, end: Offset) -> Option<u8> {
        let (_, run) = self.runs.range((partition, Offset::ZERO)..(partition, end)).next_back()?;
        (run.end == end).then_some(run.ahead)
    }

    /// Starts reads of the runs after `end`, or of the heads when they are not known.
    fn read_ahead(&mut self, partition: PartitionId, view: SegmentView, end: Offset, runs: u8) {
        let mut next = end;
        for _ in 0..runs {
            if view.end <= next || READS_IN_FLIGHT_MAX <= self.ahead.len() {
                return;
            }
            if let Some((_, end, _)) = self.cache.bounds(partition, next) {
                next = end;
                continue;
            }
            if let Some(ReadKey::Run(_, base)) = self.run_on_its_way(partition, next) {
                next = self.runs[&(partition, base)].end;
                continue;
            }
            match self.find(partition, view, |index| index.find_offset(next, view.bytes)) {
                Sought::Entry(place, entry) if !entry.is_damaged() && entry.base == next => {
                    let key = self.start_run(partition, view, place, runs);
                    self.ahead.push_back(key);
                    next = self.runs[&(partition, entry.base)].end;
                }
                Sought::Unscanned => {
                    if !self.scans.contains_key(&(partition, view.base)) {
                        let scan = self.begin_scan(partition, view, Some(next));
                        self.scans.insert((partition, view.base), scan.with_ahead(runs));
                        self.ahead.push_back(ReadKey::Scan(partition, view.base));
                    }
                    return;
                }
                Sought::Entry(..) | Sought::Absent => return,
            }
        }
    }

    fn wait(&mut self, key: ReadKey, waiter: Waiter) {
        match key {
            ReadKey::Run(partition, base) => {
                self.runs.get_mut(&(partition, base)).expect("it was just wanted").waiters.push(waiter);
            }
            ReadKey::Scan(partition, segment) => {
                self.scans.get_mut(&(partition, segment)).expect("it was just wanted").waiters.push(waiter);
            }
        }
    }

    /// Answers a waiter from what was just read if that has it, and otherwise looks again.
    fn settle_waiter(
        &mut self,
        partition: PartitionId,
        waiter: Waiter,
        fresh: Option<&mut Run>,
        log_start: Option<Offset>,
    ) {
        if is_gone(&waiter, log_start) {
            return self.answer(partition, &waiter, Err(ReadError::Gone));
        }
        if let Some(run) = fresh {
            match waiter.goal {
                Goal::Records { from, bytes_max, .. } if run.base() <= from && from < run.end() => {
                    let reply = reply_of(run.walk(from, bytes_max));
                    let (end, ahead) = (run.end(), run.ahead);
                    self.answer(partition, &waiter, Ok(reply));
                    return self.read_ahead(partition, waiter.view, end, ahead);
                }
                Goal::Time(time) => {
                    if let Some(found) = self.find_time_in(partition, waiter.view, run, time) {
                        return self.answer(partition, &waiter, Ok(Reply::Found(found)));
                    }
                }
                Goal::Records { .. } => {}
            }
        }
        let mut waiter = waiter;
        match self.look_once(partition, waiter.view, &mut waiter.goal) {
            Looked::Now(reply) => self.answer(partition, &waiter, Ok(reply)),
            Looked::Wait(key) => self.wait(key, waiter),
        }
    }

    /// The offset for a time, if the extent that has it is in this run.
    fn find_time_in(
        &mut self,
        partition: PartitionId,
        view: SegmentView,
        run: &Run,
        time: WallMillis,
    ) -> Option<Offset> {
        match self.find(partition, view, |index| index.find_time(time, view.bytes)) {
            Sought::Entry(_, entry) => run.find_time(entry, time),
            Sought::Unscanned | Sought::Absent => None,
        }
    }

    fn fail_all(&mut self, partition: PartitionId, waiters: Vec<Waiter>, error: &FileError, log_start: Option<Offset>) {
        for waiter in waiters {
            let failed = match (is_gone(&waiter, log_start), waiter.goal, error) {
                (true, _, _) => ReadError::Gone,
                // A file that should be there and is not is damage like any other: readers go on behind it.
                (false, Goal::Records { asked, .. }, FileError::NotFound) => {
                    ReadError::Corrupt { partition, first: asked, end: waiter.view.end }
                }
                (false, _, error) => ReadError::Failed { partition, text: error.to_string() },
            };
            self.answer(partition, &waiter, Err(failed));
        }
    }

    fn answer(&mut self, partition: PartitionId, waiter: &Waiter, result: Result<Reply, ReadError>) {
        self.waiting -= 1;
        let ticket = waiter.ticket;
        let result = match result.map(|reply| waiter.goal.with_hole(reply)) {
            Ok(Reply::Corrupt { first, end }) => Err(ReadError::Corrupt { partition, first, end }),
            // Whoever asks again is told at once to go on behind the hole.
            Ok(Reply::Hole { .. }) => Err(ReadError::Gone),
            result => result,
        };
        self.answers.push_back(match (waiter.goal, result) {
            (Goal::Records { .. }, Ok(Reply::Batches { batches, .. })) => {
                ReadAnswer::Records { ticket, partition, result: Ok(batches) }
            }
            (Goal::Records { .. }, Err(error)) => ReadAnswer::Records { ticket, partition, result: Err(error) },
            (Goal::Time(_), Ok(Reply::Found(found))) => ReadAnswer::Time { ticket, partition, result: Ok(found) },
            (Goal::Time(_), Err(error)) => ReadAnswer::Time { ticket, partition, result: Err(error) },
            (goal, Ok(reply)) => unreachable!("{goal:?} was answered with {reply:?}"),
        });
    }
}

/// What the known part of an index has.
enum Sought {
    Entry(usize, IndexEntry),
    Unscanned,
    Absent,
}

fn is_gone(waiter: &Waiter, log_start: Option<Offset>) -> bool {
    let Some(log_start) = log_start else { return true };
    match waiter.goal {
        Goal::Records { asked, .. } => asked < log_start,
        Goal::Time(_) => waiter.view.end <= log_start,
    }
}

fn reply_of(walk: Walk) -> Reply {
    match walk {
        Walk::Batches { batches, next } => Reply::Batches { batches, next },
        Walk::Corrupt { first, end } => Reply::Corrupt { first, end },
    }
}

#[cfg(test)]
mod tests;
