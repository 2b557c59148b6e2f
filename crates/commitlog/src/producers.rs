//! What the log remembers of producers, so that a batch that is sent again is not appended again.

use std::collections::BTreeMap;

use corelane_model::limits::{PARTITION_PRODUCERS_MAX, PRODUCER_BATCHES_MAX, PRODUCER_EXPIRY};
use corelane_model::{MonotonicNanos, Offset, ProducerEpoch, ProducerId, Sequence, WallMillis};
use corelane_record::BatchHead;

use crate::AppendError;

/// A batch that was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenBatch {
    pub(crate) base_sequence: Sequence,
    pub(crate) last_sequence: Sequence,
    pub(crate) base_offset: Offset,
    pub(crate) append_timestamp: WallMillis,
}

impl SeenBatch {
    /// How many records it had. Sequences wrap.
    pub(crate) fn records(&self) -> u64 {
        u64::from(self.last_sequence.0.wrapping_sub(self.base_sequence.0)) + 1
    }

    /// Exclusive end of the offsets that it got.
    pub(crate) fn end_offset(&self) -> Offset {
        self.base_offset.advance(self.records())
    }
}

/// The newest epoch of a producer and its latest batches, at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    /// When it was last heard of by this process. By the monotonic clock: a wall clock that jumps ahead must not make
    /// the log forget producers that are sending.
    heard: MonotonicNanos,
    count: u8,
    batches: [SeenBatch; PRODUCER_BATCHES_MAX],
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
        let mut batches = [SeenBatch::default(); PRODUCER_BATCHES_MAX];
        batches[0] = first;
        Self { epoch, heard, count: 1, batches }
    }

    /// Oldest first.
    pub(crate) fn batches(&self) -> &[SeenBatch] {
        &self.batches[..usize::from(self.count)]
    }

    pub(crate) fn push(&mut self, batch: SeenBatch) {
        let count = usize::from(self.count);
        if count < PRODUCER_BATCHES_MAX {
            self.batches[count] = batch;
            self.count += 1;
        } else {
            self.batches.copy_within(1.., 0);
            self.batches[PRODUCER_BATCHES_MAX - 1] = batch;
        }
    }

    fn latest(&self) -> &SeenBatch {
        self.batches().last().expect("a producer is remembered by its batches")
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

/// Epoch and latest [`PRODUCER_BATCHES_MAX`] batches of up to [`PARTITION_PRODUCERS_MAX`] producers. One more pushes out
/// the one that was silent for longest; one that is silent for [`PRODUCER_EXPIRY`] is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable(BTreeMap<ProducerId, Producer>);

impl ProducerTable {
    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let Some(known) = self.0.get(&producer) else {
            let is_first = found == Sequence(0);
            return is_first.then_some(Verdict::Fresh).ok_or(AppendError::UnknownProducer { producer, found });
        };
        if head.producer_epoch < known.epoch {
            let (current, found) = (known.epoch, head.producer_epoch);
            return Err(AppendError::ProducerFenced { producer, current, found });
        }
        let is_new_epoch = known.epoch < head.producer_epoch;
        let expected = if is_new_epoch { Sequence(0) } else { Producer::expected(known.latest()) };
        if found == expected {
            return Ok(Verdict::Fresh);
        }
        let is_seen = |seen: &&SeenBatch| seen.base_sequence == found && seen.last_sequence == head.last_sequence();
        match known.batches().iter().find(is_seen) {
            Some(&seen) if !is_new_epoch => Ok(Verdict::Duplicate(seen)),
            Some(_) | None => Err(AppendError::OutOfSequence { producer, expected, found }),
        }
    }

    /// Remembers a batch that was appended.
    pub(crate) fn record(&mut self, heard: MonotonicNanos, head: &BatchHead, base_offset: Offset, at: WallMillis) {
        if head.producer_id == ProducerId::NONE {
            return;
        }
        let batch = SeenBatch {
            base_sequence: head.base_sequence,
            last_sequence: head.last_sequence(),
            base_offset,
            append_timestamp: at,
        };
        match self.0.get_mut(&head.producer_id) {
            Some(known) if known.epoch == head.producer_epoch => {
                known.push(batch);
                known.heard = heard;
            }
            Some(known) => *known = Producer::new(head.producer_epoch, heard, batch),
            None => {
                self.make_room();
                self.0.insert(head.producer_id, Producer::new(head.producer_epoch, heard, batch));
            }
        }
        assert!(self.len() <= PARTITION_PRODUCERS_MAX, "{} producers are over the limit", self.len());
    }

    /// Pushes out the producer whose latest batch is the oldest, if the table is full.
    fn make_room(&mut self) {
        if self.0.len() < PARTITION_PRODUCERS_MAX {
            return;
        }
        let silent = self.0.iter().min_by_key(|(_, known)| known.latest().base_offset).map(|(&id, _)| id);
        if let Some(id) = silent {
            self.0.remove(&id);
        }
    }

    /// Forgets producers that were silent for too long.
    pub(crate) fn expire(&mut self, now: MonotonicNanos) {
        self.0.retain(|_, known| now.since(known.heard) < PRODUCER_EXPIRY);
    }

    /// Counts the silence of all producers from now on: how long they were silent before a restart is not known.
    pub(crate) fn restart(&mut self, now: MonotonicNanos) {
        for known in self.0.values_mut() {
            known.heard = now;
        }
    }

    #[cfg(planted)]
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.0.iter().map(|(&id, known)| (id, known))
    }

    /// Puts back what was read from disk. False if the producer is there already.
    pub(crate) fn restore(&mut self, id: ProducerId, known: Producer) -> bool {
        self.0.insert(id, known).is_none()
    }

    /// Bytes of memory, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.len() * (size_of::<Producer>() + size_of::<ProducerId>())
    }
}
