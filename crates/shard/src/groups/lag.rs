//! How far groups are behind, for the metrics: owners of partitions are asked with each status, and the next one tells it.

use std::collections::BTreeMap;

use corelane_model::{GroupName, Offset, PartitionId, PartitionIndex, TopicId};

use super::describe::{LagOf, Lagging};
use super::home::Coordinated;
use crate::{GroupLag, STATUS_GROUPS_MAX, STATUS_LAGS_MAX, Shard};

/// Partitions with a committed offset that one status asks about.
const STATUS_OFFSETS_MAX: usize = 16_384;

/// A group of which the owners of its partitions are asked for the lag.
#[derive(Debug)]
pub(crate) struct GroupLagging {
    home: PartitionIndex,
    name: GroupName,
    /// Which life of the name it is.
    serial: u64,
    by_topic: BTreeMap<TopicId, TopicLag>,
}

/// A group's lag in a topic: the sum of records, and the age of the oldest that is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicLag {
    records: u64,
    oldest_ms: u64,
}

impl GroupLagging {
    /// An owner said what it knows. Of a partition that it does not know it says nothing.
    pub(super) fn add(&mut self, lags: &[LagOf]) {
        for lag in lags {
            let sum = self.by_topic.entry(lag.partition.topic).or_default();
            sum.records += lag.lag.unwrap_or(0);
            sum.oldest_ms = sum.oldest_ms.max(lag.lag_ms.unwrap_or(0));
        }
    }
}

impl Shard {
    /// Asks the owners of what a status shows, so that the next one knows. Nothing while they have not answered the last.
    pub(crate) fn ask_for_status(&mut self) {
        if self.groups.is_status_waiting() {
            return;
        }
        self.ask_queue_ends();
        self.ask_group_lags();
    }

    fn ask_group_lags(&mut self) {
        let mut left = STATUS_OFFSETS_MAX;
        let mut questions = Vec::new();
        let known =
            self.groups.homes.iter().flat_map(|(&home, found)| found.groups.values().map(move |one| (home, one)));
        for (home, Coordinated { group, serial, .. }) in known.take(STATUS_GROUPS_MAX) {
            let committed = group.offsets().map(|(partition, committed)| (partition, Some(committed.offset)));
            let wants: Vec<(PartitionId, Option<Offset>)> = committed.take(left).collect();
            left -= wants.len();
            let name = group.name().clone();
            questions.push((GroupLagging { home, name, serial: *serial, by_topic: BTreeMap::new() }, wants));
        }
        for (lagging, wants) in questions {
            self.gather_lag(Lagging::GroupStatus(lagging), wants);
        }
    }

    /// All owners have said the lag of a group. If it is another one by now, nobody wants to know.
    pub(super) fn note_group_lag(&mut self, lagging: GroupLagging) {
        let home = self.groups.homes.get_mut(&lagging.home);
        let known = home.and_then(|home| home.groups.get_mut(&lagging.name));
        if let Some(known) = known.filter(|known| known.serial == lagging.serial) {
            known.lag = lagging.by_topic;
        }
    }

    /// The lag of a group as of the last status, by topic; `left` says how many samples there may be.
    pub(super) fn lag_for_status(&self, known: &Coordinated, left: &mut usize) -> Vec<GroupLag> {
        let topics = known.lag.iter().filter_map(|(&topic, lag)| {
            let name = &self.catalog.as_ref()?.topic(topic)?.name;
            Some(GroupLag { topic: name.as_str().to_owned(), records: lag.records, oldest_ms: lag.oldest_ms })
        });
        let lags: Vec<GroupLag> = topics.take(*left).collect();
        *left -= lags.len();
        lags
    }
}

const _: () = assert!(STATUS_GROUPS_MAX <= STATUS_LAGS_MAX);
