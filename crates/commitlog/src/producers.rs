//! What the log remembers of producers, so that a batch that is sent again is not appended again.

use std::collections::{BTreeMap, VecDeque};

use corelane_model::limits::{PARTITION_PRODUCERS_MAX, PRODUCER_BATCHES_MAX, PRODUCER_EXPIRY, PRODUCER_SPARED};
use corelane_model::{MonotonicNanos, Offset, ProducerEpoch, ProducerId, Sequence, Transaction, WallMillis};
use corelane_record::BatchHead;

use crate::{AppendError, Transactions};

/// A batch that was appended, or several that followed each other in sequence and offset within one millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenBatch {
    pub(crate) base_sequence: Sequence,
    pub(crate) last_sequence: Sequence,
    pub(crate) base_offset: Offset,
    pub(crate) append_timestamp: WallMillis,
}

impl SeenBatch {
    fn of(head: &BatchHead, base_offset: Offset, append_timestamp: WallMillis) -> Self {
        Self { base_sequence: head.base_sequence, last_sequence: head.last_sequence(), base_offset, append_timestamp }
    }

    /// How many records it had. Sequences wrap.
    pub(crate) fn records(&self) -> u64 {
        u64::from(self.last_sequence.0.wrapping_sub(self.base_sequence.0)) + 1
    }

    /// Exclusive end of the offsets that it got.
    pub(crate) fn end_offset(&self) -> Offset {
        self.base_offset.advance(self.records())
    }

    /// Takes in the batch that came next, if nothing is lost by it: a fast producer makes many batches in a millisecond.
    fn absorb(&mut self, next: &Self) -> bool {
        let follows = self.last_sequence.advance(1) == next.base_sequence
            && self.end_offset() == next.base_offset
            && self.append_timestamp == next.append_timestamp
            && self.records() + next.records() <= SEEN_RECORDS_MAX;
        if follows {
            self.last_sequence = next.last_sequence;
        }
        follows
    }

    /// The part of it that has these sequences, if it has them.
    fn part(&self, base_sequence: Sequence, last_sequence: Sequence) -> Option<Self> {
        let skipped = u64::from(base_sequence.0.wrapping_sub(self.base_sequence.0));
        let records = u64::from(last_sequence.0.wrapping_sub(base_sequence.0)) + 1;
        (skipped + records <= self.records()).then(|| Self {
            base_sequence,
            last_sequence,
            base_offset: self.base_offset.advance(skipped),
            append_timestamp: self.append_timestamp,
        })
    }
}

/// Records of one [`SeenBatch`]: far below the point at which sequences could be taken for those of another round.
const SEEN_RECORDS_MAX: u64 = 1 << 24;

/// The newest epoch of a producer and its latest batches, at least one.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    /// When it was last heard of by this process. By the monotonic clock: a wall clock that jumps ahead must not make
    /// the log forget producers that are sending.
    heard: MonotonicNanos,
    /// Oldest first.
    batches: VecDeque<SeenBatch>,
}

impl PartialEq for Producer {
    /// Equal in what lasts: `heard` belongs to one process.
    fn eq(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.batches() == other.batches()
    }
}

impl Eq for Producer {}

impl Producer {
    pub(crate) fn new(epoch: ProducerEpoch, heard: MonotonicNanos, first: SeenBatch) -> Self {
        Self { epoch, heard, batches: VecDeque::from([first]) }
    }

    /// Oldest first.
    pub(crate) const fn batches(&self) -> &VecDeque<SeenBatch> {
        &self.batches
    }

    pub(crate) fn push(&mut self, batch: SeenBatch) {
        if self.batches.back_mut().is_some_and(|latest| latest.absorb(&batch)) {
            return;
        }
        if PRODUCER_BATCHES_MAX <= self.batches.len() {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }

    /// Whether its first batch is among those that are remembered.
    fn is_first_known(&self) -> bool {
        self.batches.front().is_some_and(|first| first.base_sequence == Sequence(0))
    }

    /// Whether its newest epoch is a transaction that is open.
    fn is_within(&self, id: ProducerId, transactions: &Transactions) -> bool {
        transactions.is_open(Transaction::new(id, self.epoch))
    }

    fn latest(&self) -> &SeenBatch {
        self.batches.back().expect("a producer is remembered by its batches")
    }

    const fn expected(latest: &SeenBatch) -> Sequence {
        latest.last_sequence.advance(1)
    }
}

/// What the table says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fresh,
    Duplicate(SeenBatch),
}

/// Epoch and at least the latest [`PRODUCER_BATCHES_MAX`] batches of up to [`PARTITION_PRODUCERS_MAX`] producers. One more pushes out
/// the one that was silent for longest, of those without an open transaction first; one that is silent for [`PRODUCER_EXPIRY`]
/// is forgotten.
#[derive(Clone, Debug, Default)]
pub struct ProducerTable {
    known: BTreeMap<ProducerId, Producer>,
    /// The next sequence of producers whose latest batch was not appended, because its message id was known. Not kept over
    /// a restart: a producer that the partition does not understand then begins a new epoch.
    passed: BTreeMap<ProducerId, (ProducerEpoch, Sequence)>,
    /// The latest [`PARTITION_PRODUCERS_MAX`] of those that were pushed out although their first batch was remembered. Not
    /// kept over a restart: checkpoints have no room for them.
    forgotten: Option<Box<Forgotten>>,
}

/// Producers in the order in which they were forgotten.
#[derive(Clone, Debug, Default)]
struct Forgotten {
    latest: VecDeque<(ProducerId, ProducerEpoch)>,
}

impl PartialEq for ProducerTable {
    /// Equal in what lasts: who was forgotten belongs to one process.
    fn eq(&self, other: &Self) -> bool {
        self.known == other.known && self.passed == other.passed
    }
}

impl Eq for ProducerTable {}

impl ProducerTable {
    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether a batch is new, was seen, or does not fit what was seen.
    pub(crate) fn judge(&self, head: &BatchHead) -> Result<Verdict, AppendError> {
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::NoDuplicateCheck) {
            return Ok(Verdict::Fresh);
        }
        let (producer, found) = (head.producer_id, head.base_sequence);
        if producer == ProducerId::NONE {
            return Ok(Verdict::Fresh);
        }
        let Some(known) = self.known.get(&producer) else {
            let is_first = found == self.passed(head).unwrap_or(Sequence(0)) && !self.is_forgotten(head);
            return is_first.then_some(Verdict::Fresh).ok_or(AppendError::UnknownProducer { producer, found });
        };
        if head.producer_epoch < known.epoch {
            let (current, found) = (known.epoch, head.producer_epoch);
            return Err(AppendError::ProducerFenced { producer, current, found });
        }
        let is_new_epoch = known.epoch < head.producer_epoch;
        let expected = if is_new_epoch { Sequence(0) } else { Producer::expected(known.latest()) };
        let expected = self.passed(head).unwrap_or(expected);
        if found == expected {
            return Ok(Verdict::Fresh);
        }
        match known.batches().iter().find_map(|seen| seen.part(found, head.last_sequence())) {
            Some(seen) if !is_new_epoch => Ok(Verdict::Duplicate(seen)),
            Some(_) | None => Err(AppendError::OutOfSequence { producer, expected, found }),
        }
    }

    /// The sequence after what was passed over of this batch's producer and epoch.
    fn passed(&self, head: &BatchHead) -> Option<Sequence> {
        let &(epoch, next) = self.passed.get(&head.producer_id)?;
        (epoch == head.producer_epoch).then_some(next)
    }

    /// Goes on behind a batch that is not appended because its message id is known, if it comes next in its sequence.
    pub(crate) fn pass(&mut self, head: &BatchHead) {
        if head.producer_id == ProducerId::NONE || self.judge(head) != Ok(Verdict::Fresh) {
            return;
        }
        if PARTITION_PRODUCERS_MAX <= self.passed.len() {
            self.passed.pop_first();
        }
        self.passed.insert(head.producer_id, (head.producer_epoch, head.last_sequence().advance(1)));
    }

    /// Remembers a batch if it comes next of a producer that is known, in the same epoch: [`Self::judge`] would find it fresh.
    /// Of any other it says false and changes nothing.
    pub(crate) fn record_next(
        &mut self,
        heard: MonotonicNanos,
        head: &BatchHead,
        (base_offset, at): (Offset, WallMillis),
    ) -> bool {
        if head.producer_id == ProducerId::NONE || !self.passed.is_empty() {
            return false;
        }
        let Some(known) = self.known.get_mut(&head.producer_id) else { return false };
        let is_next = known.epoch == head.producer_epoch && head.base_sequence == Producer::expected(known.latest());
        if is_next {
            known.push(SeenBatch::of(head, base_offset, at));
            known.heard = heard;
        }
        is_next
    }

    /// Remembers a batch that was appended. Producers of open transactions are not pushed out by it.
    pub(crate) fn record(
        &mut self,
        heard: MonotonicNanos,
        head: &BatchHead,
        (base_offset, at): (Offset, WallMillis),
        transactions: &Transactions,
    ) {
        if head.producer_id == ProducerId::NONE {
            return;
        }
        self.passed.remove(&head.producer_id);
        let batch = SeenBatch::of(head, base_offset, at);
        match self.known.get_mut(&head.producer_id) {
            Some(known) if known.epoch == head.producer_epoch => {
                known.push(batch);
                known.heard = heard;
            }
            Some(known) => *known = Producer::new(head.producer_epoch, heard, batch),
            None => {
                self.make_room(transactions);
                self.known.insert(head.producer_id, Producer::new(head.producer_epoch, heard, batch));
            }
        }
        assert!(self.len() <= PARTITION_PRODUCERS_MAX, "{} producers are over the limit", self.len());
    }

    /// Pushes out the producer whose latest batch is the oldest, if the table is full. One with an open transaction is not
    /// pushed out as long as there is another: its next batch would be refused, and the transaction lost.
    fn make_room(&mut self, transactions: &Transactions) {
        if self.known.len() < PARTITION_PRODUCERS_MAX {
            return;
        }
        let key =
            |&(&id, known): &(&ProducerId, &Producer)| (known.is_within(id, transactions), known.latest().base_offset);
        let silent = self.known.iter().min_by_key(key).map(|(&id, _)| id);
        if let Some(id) = silent {
            let known = self.known.remove(&id).expect("it was just seen");
            self.note_forgotten(id, &known);
        }
    }

    /// What is forgotten early may send its first batch again, which must not be taken for that of a new producer.
    fn note_forgotten(&mut self, id: ProducerId, known: &Producer) {
        if !known.is_first_known() {
            return;
        }
        let forgotten = &mut self.forgotten.get_or_insert_default().latest;
        while PARTITION_PRODUCERS_MAX <= forgotten.len() {
            forgotten.pop_front();
        }
        forgotten.push_back((id, known.epoch));
    }

    /// Whether the batch is of a producer that was forgotten in this epoch or a later one.
    fn is_forgotten(&self, head: &BatchHead) -> bool {
        self.forgotten
            .iter()
            .flat_map(|gone| &gone.latest)
            .any(|&(id, epoch)| id == head.producer_id && head.producer_epoch <= epoch)
    }

    /// Whether anything is remembered of the producer in the epoch of this batch.
    pub(crate) fn knows(&self, head: &BatchHead) -> bool {
        self.known.get(&head.producer_id).is_some_and(|known| known.epoch == head.producer_epoch)
    }

    /// Forgets all but so many producers, those first whose latest batch is the oldest; beyond that it keeps those that have a
    /// transaction open or were heard of not long ago, who may send a batch again.
    pub(crate) fn trim(&mut self, now: MonotonicNanos, count: usize, transactions: &Transactions) {
        let is_spared =
            |id, known: &Producer| known.is_within(id, transactions) || now.since(known.heard) < PRODUCER_SPARED;
        self.keep_those(count, is_spared);
    }

    /// Forgets all but so many producers, those first whose latest batch is the oldest.
    pub(crate) fn keep(&mut self, count: usize) {
        self.keep_those(count, |_, _| false);
    }

    fn keep_those(&mut self, count: usize, is_spared: impl Fn(ProducerId, &Producer) -> bool) {
        if self.known.len() <= count {
            return;
        }
        let mut latest: Vec<Offset> = self.known.values().map(|known| known.latest().base_offset).collect();
        latest.sort_unstable_by(|a, b| b.cmp(a));
        // No two producers have a batch at one offset.
        let oldest = latest.get(count.wrapping_sub(1)).copied().unwrap_or(Offset(u64::MAX));
        let gone = self.known.extract_if(.., |&id, known| known.latest().base_offset < oldest && !is_spared(id, known));
        let gone: Vec<_> = gone.collect();
        gone.iter().for_each(|(id, known)| self.note_forgotten(*id, known));
    }

    /// Forgets producers that were silent for too long.
    pub(crate) fn expire(&mut self, now: MonotonicNanos) {
        self.known.retain(|_, known| now.since(known.heard) < PRODUCER_EXPIRY);
    }

    /// Counts the silence of all producers from now on: how long they were silent before a restart is not known.
    pub(crate) fn restart(&mut self, now: MonotonicNanos) {
        for known in self.known.values_mut() {
            known.heard = now;
        }
    }

    #[cfg(planted)]
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.known.iter().map(|(&id, known)| (id, known))
    }

    /// Puts back what was read from disk. False if the producer is there already.
    pub(crate) fn restore(&mut self, id: ProducerId, known: Producer) -> bool {
        self.known.insert(id, known).is_none()
    }

    /// Bytes of memory, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        let batches: usize = self.known.values().map(|known| known.batches.capacity()).sum();
        self.known.len() * (size_of::<Producer>() + size_of::<ProducerId>())
            + batches * size_of::<SeenBatch>()
            + self.forgotten.as_ref().map_or(0, |gone| gone.latest.capacity())
                * size_of::<(ProducerId, ProducerEpoch)>()
    }
}
