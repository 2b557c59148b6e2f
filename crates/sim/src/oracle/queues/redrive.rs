//! Dead letters on their way back: each that was put back stands in the queue's topic once more, as it was.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::queue::HEADER_DEAD_PREFIX;
use corelane_model::{Offset, PartitionId, PartitionIndex, TopicId};
use corelane_record::Record;
use corelane_wire::QueueRedriven;

use super::{Oracle, QueueName, Queues, Ticket, View, Violation, broken};
use crate::RecordId;
use crate::describe::digest;

/// Dead letters, by where they stand.
pub(crate) type LetterSet = BTreeSet<(PartitionId, Offset)>;

/// What is known of redrives of a queue.
#[derive(Debug, Default)]
pub(super) struct Redrives {
    /// Steps that arrived and were not answered.
    open: BTreeSet<Ticket>,
    /// Steps after which something may be put back again: nothing was heard of them, or they ended before their time.
    unclean: u64,
    /// Records that answers counted.
    records: u64,
    /// Dead letters that were there when a redrive began which came to its end.
    back: LetterSet,
    /// What each record is beside its value, by whoever was handed it first.
    looks: BTreeMap<RecordId, u32>,
}

impl Redrives {
    pub(super) fn on_asked(&mut self, ticket: Ticket) {
        self.open.insert(ticket);
    }

    pub(super) fn on_refused(&mut self, ticket: Ticket) {
        self.open.remove(&ticket);
    }

    fn unclean(&self) -> u64 {
        self.unclean + self.open.len() as u64
    }

    /// A record is seen: it looks as it always did.
    pub(super) fn on_seen(&mut self, id: RecordId, record: &Record<'_>) -> Result<(), String> {
        let looks = looks_of(record);
        let known = *self.looks.entry(id).or_insert(looks);
        if known == looks { Ok(()) } else { Err("its key, headers or timestamp are not what they were".to_owned()) }
    }
}

/// All of a record but its value and what its death has added.
fn looks_of(record: &Record<'_>) -> u32 {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&record.timestamp.0.to_le_bytes());
    bytes.push(u8::from(record.key.is_some()));
    bytes.extend_from_slice(record.key.unwrap_or_default());
    for (name, value) in record.headers().filter(|(name, _)| !name.starts_with(HEADER_DEAD_PREFIX)) {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }
    digest([&bytes[..]])
}

/// Whether it says of a record that it is dead.
pub(super) fn is_marked(record: &Record<'_>) -> bool {
    record.headers().any(|(name, _)| name.starts_with(HEADER_DEAD_PREFIX))
}

impl View {
    /// Which record each dead letter is, as far as its place is known.
    fn dead<'a>(
        &'a self,
        oracle: &'a Oracle,
        topic: TopicId,
    ) -> impl Iterator<Item = ((PartitionId, Offset), PartitionId, RecordId)> + 'a {
        self.letters.iter().filter_map(move |(&at, &((partition, offset), _))| {
            let partition = PartitionId::new(topic, PartitionIndex(partition));
            let (record, _) = oracle.ledgers.get(&partition)?.places.get(&Offset(offset))?;
            Some((at, partition, *record))
        })
    }
}

impl Queues {
    /// The dead letters that were read.
    pub(crate) fn letters(&self, name: &QueueName) -> LetterSet {
        self.views.get(name).map_or_else(LetterSet::new, |view| view.letters.keys().copied().collect())
    }

    /// How many dead letters were put back, as far as answers told.
    pub(crate) fn redriven_count(&self) -> u64 {
        self.views.values().map(|view| view.redrives.records).sum()
    }

    /// A step of a redrive was answered.
    pub(super) fn on_redriven(&mut self, ticket: Ticket, told: &QueueRedriven) -> Result<(), Violation> {
        for view in self.views.values_mut() {
            let redrives = &mut view.redrives;
            if redrives.open.remove(&ticket) {
                redrives.records += told.records;
                redrives.unclean += u64::from(!told.stopped.is_empty());
            }
        }
        Ok(())
    }

    /// A redrive came to its end: what was there when it began is back.
    pub(crate) fn on_redriven_whole(&mut self, name: &QueueName, letters: &LetterSet) {
        let view = self.views.get_mut(name).expect("it was redriven");
        view.redrives.back.extend(letters.iter().copied());
    }
}

impl Oracle {
    /// Dead letters of this topic may be put back: from now on a record may stand in it more often.
    pub(crate) fn allow_copies(&mut self, topic: TopicId) {
        let ledgers = self.ledgers.iter_mut().filter(|(partition, _)| partition.topic == topic);
        ledgers.for_each(|(_, ledger)| _ = ledger.copies.get_or_insert_default());
    }

    /// Everything was read once more: each dead letter that had to be put back is back, and none more often than it may be.
    ///
    /// # Errors
    /// One is not, or too often, or there is less than answers have counted.
    pub(crate) fn check_redriven(&self) -> Result<(), Violation> {
        for (name, view) in &self.queues.views {
            let redrives = &view.redrives;
            let mut dead = BTreeMap::<_, (u64, u64)>::new();
            for (at, partition, record) in view.dead(self, name.topic) {
                let (letters, back) = dead.entry((partition, record)).or_default();
                *letters += 1;
                *back += u64::from(redrives.back.contains(&at));
            }
            let mut all = 0;
            let ledgers = self.ledgers.iter().filter(|(partition, _)| partition.topic == name.topic);
            let copies = ledgers.flat_map(|(&partition, ledger)| {
                let copies = ledger.copies.iter().flatten();
                copies.map(move |(&record, places)| ((partition, record), places.len() as u64))
            });
            let copies = copies.collect::<BTreeMap<_, _>>();
            for (&(partition, record), &count) in &copies {
                all += count;
                let (letters, _) = dead.get(&(partition, record)).copied().unwrap_or_default();
                if letters * (1 + redrives.unclean()) < count {
                    let what = format!(
                        "record {record} of {partition} was {letters} times a dead letter, is back {count} times"
                    );
                    return Err(broken(name, what));
                }
            }
            for ((partition, record), (_, back)) in dead {
                let count = copies.get(&(partition, record)).copied().unwrap_or_default();
                if count < back {
                    let what = format!("record {record} of {partition}, {back} times put back, is back {count} times");
                    return Err(broken(name, what));
                }
            }
            if all < redrives.records {
                let records = redrives.records;
                return Err(broken(name, format!("{records} were said to be put back, {all} are")));
            }
        }
        Ok(())
    }
}
