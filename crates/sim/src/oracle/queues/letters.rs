//! Dead letters, as whoever reads their topic finds them.

use corelane_model::queue::{
    HEADER_DEAD_DELIVERIES, HEADER_DEAD_GROUP, HEADER_DEAD_OFFSET, HEADER_DEAD_PARTITION, HEADER_DEAD_REASON,
};
use corelane_model::{Offset, PartitionId, PartitionIndex, WallMillis};
use corelane_record::Record;

use super::super::{Oracle, Violation};
use super::settings::KnownSettings;
use super::{Handed, QueueName, Queues, View, broken};
use crate::payload;

/// A dead letter of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    at: (PartitionId, Offset),
    appended: WallMillis,
}

fn header<'a>(record: &Record<'a>, wanted: &str) -> Option<&'a str> {
    let (_, value) = record.headers().find(|(name, _)| *name == wanted)?;
    std::str::from_utf8(value?).ok()
}

fn number(record: &Record<'_>, wanted: &str) -> Option<u64> {
    header(record, wanted)?.parse().ok()
}

impl Oracle {
    /// Somebody reads a dead letter.
    ///
    /// # Errors
    /// It is not a record of the queue, was acknowledged, has not failed as often, or is there twice without a reason.
    pub(crate) fn on_letter(
        &mut self,
        name: &QueueName,
        partition: PartitionId,
        appended: WallMillis,
        record: &Record<'_>,
    ) -> Result<(), Violation> {
        let at = (partition, record.offset);
        let foreign = |what| Violation::Foreign { partition, offset: record.offset, what };
        let from = number(record, HEADER_DEAD_PARTITION).and_then(|partition| u32::try_from(partition).ok());
        let (Some(from), Some(offset), Some(deliveries)) =
            (from, number(record, HEADER_DEAD_OFFSET), number(record, HEADER_DEAD_DELIVERIES))
        else {
            return Err(foreign("a dead letter does not say where it comes from"));
        };
        if header(record, HEADER_DEAD_GROUP) != Some(&name.group) || header(record, HEADER_DEAD_REASON).is_none() {
            return Err(foreign("a dead letter does not say why it is one"));
        }
        let id = payload::identify(record).ok_or_else(|| foreign("the dead letter's bytes changed"))?;
        let origin = PartitionId::new(name.topic, PartitionIndex(from));
        self.on_found(origin, Offset(offset), id)?;
        let may_be_back = self.ledgers[&origin].copies.is_some();
        let queues = &mut self.queues;
        let view = queues.views.get_mut(name).expect("it is read for a queue");
        let place = (from, offset);
        let (known, is_read) = view.letters.entry(at).or_insert((place, false));
        if *known != place {
            return Err(foreign("another dead letter stood here"));
        }
        *is_read = true;
        let View { settings, records, redrives, .. } = view;
        let handed = records.entry(place).or_default();
        let letter = Letter { at, appended };
        let judged = handed.on_letter(letter, deliveries, settings, (!queues.is_clock_loose).then_some(&queues.ends));
        let judged = judged.and_then(|()| if may_be_back { redrives.on_seen(id, record) } else { Ok(()) });
        judged.map_err(|what| {
            broken(name, format!("{from} offset {offset}, dead letter at {partition} {}: {what}", at.1))
        })
    }
}

impl Handed {
    fn on_letter(
        &mut self,
        letter: Letter,
        deliveries: u64,
        settings: &KnownSettings,
        ends: Option<&Vec<WallMillis>>,
    ) -> Result<(), String> {
        if self.letters.contains(&letter) {
            return Ok(());
        }
        if self.is_done {
            return Err("its acknowledgement was answered".to_owned());
        }
        let is_early = self.may_die_early && settings.may_be_early(deliveries);
        if deliveries == 0 || !(settings.is_due(deliveries) || is_early) {
            return Err(format!("it was delivered {deliveries} times, and may fail otherwise by {settings:?}"));
        }
        if let (Some(ends), Some(before)) = (ends, self.letters.last()) {
            let between = before.appended.min(letter.appended)..=before.appended.max(letter.appended);
            if !ends.iter().any(|end| between.contains(end)) {
                return Err(format!(
                    "it is there already, at {} {}, and no crash came between",
                    before.at.0, before.at.1
                ));
            }
        }
        self.letters.push(letter);
        Ok(())
    }
}

impl Queues {
    /// Dead letters are read from the beginning again: all have to come that came before.
    pub(crate) fn forget_letters(&mut self) {
        let letters = self.views.values_mut().flat_map(|view| view.letters.values_mut());
        letters.for_each(|(_, is_read)| *is_read = false);
    }

    /// A dead letter that was there and is not, in words.
    pub(crate) fn missing_letter(&self, name: &QueueName) -> Option<String> {
        let view = &self.views[name];
        let ((partition, offset), _) = view.letters.iter().find(|(_, (_, is_read))| !is_read)?;
        Some(format!("the dead letter at {partition} offset {offset} does not come again"))
    }
}
