//! Partitions come and go; the shard drains.

use std::collections::BTreeSet;

use corelane_commitlog::{CommitLog, LogState, Segment, SegmentName};
use corelane_model::{Cleanup, Offset, PartitionId, TopicId, TopicSettings};

use super::{Phase, SettleAll, Storage};
use crate::StorageOutput;
use crate::lease::Lease;
use crate::partition::{Partition, SettleState};

impl Storage {
    /// Makes the partition known, or does nothing if it is. State that the journal had of it is taken over. Allowed
    /// during recovery, too.
    pub fn open_partition(&mut self, partition: PartitionId, settings: &TopicSettings) {
        if self.table.open(partition).is_some() {
            return;
        }
        let known = self.table.entry(partition);
        if known.is_removed {
            return;
        }
        known.is_open = true;
        if known.class() == settings.class {
            known.log.set_settings(*settings);
        } else {
            // Nothing was replayed of it, or the journal and the catalog disagree; offsets go on in any case.
            adopt_class(partition, known, settings);
        }
        if !settings.class.is_durable() && known.lease.is_none() {
            known.lease = Some(Lease::used_up(known.log.log_end().0));
        }
        self.compaction.watch(partition, settings.cleanup == Cleanup::Compact);
        self.table.refresh(partition);
        self.table.schedule(partition, self.now.wall);
        if self.is_running() {
            self.renew_offsets(partition);
        }
    }

    /// Gives all open partitions of the topic new settings. Its class stays what it was.
    pub fn alter(&mut self, topic: TopicId, settings: &TopicSettings) {
        for id in self.table.ids_of(topic) {
            if let Some(partition) = self.table.open_mut(id) {
                let class = partition.class();
                partition.log.set_settings(TopicSettings { class, ..*settings });
                self.compaction.watch(id, settings.cleanup == Cleanup::Compact);
                if self.is_running() {
                    self.retain(self.now, id);
                }
                self.table.refresh(id);
                self.table.schedule(id, self.now.wall);
            }
        }
    }

    /// Forgets all partitions of the topic and deletes their files, a few at a time. Called when the change of the
    /// catalog is durable.
    pub fn remove_topic(&mut self, topic: TopicId) {
        for id in self.table.ids_of(topic) {
            self.remove_partition(id);
        }
    }

    /// After recovery, once the catalog is known: everything of other topics belongs to deleted ones and goes. During
    /// recovery it is remembered until then.
    pub fn retain_topics(&mut self, topics: &BTreeSet<TopicId>) {
        if self.phase == Phase::Recovering {
            self.retained = Some(topics.clone());
            return;
        }
        for id in self.table.ids() {
            if !topics.contains(&id.topic) {
                self.remove_partition(id);
            }
        }
    }

    fn remove_partition(&mut self, id: PartitionId) {
        let Some(partition) = self.table.get_mut(id).filter(|partition| !partition.is_removed) else { return };
        partition.is_removed = true;
        partition.is_open = false;
        partition.held.clear();
        let names: Vec<SegmentName> = partition.log.segments().iter().map(Segment::name).collect();
        partition.doomed.extend(names.iter().copied());
        let settings = *partition.log.settings();
        partition.log = CommitLog::new(id, settings, LogState::default());
        self.deletes.extend(names.into_iter().map(|name| (id, name)));
        self.compaction.watch(id, false);
        self.reads.forget_below(id, Offset(u64::MAX));
        self.table.refresh(id);
        self.forget_if_gone(id);
        self.release();
    }

    /// A removed partition leaves the table when its last file is gone.
    pub(super) fn forget_if_gone(&mut self, id: PartitionId) {
        let is_gone = self.table.get(id).is_some_and(|partition| {
            let is_idle = !matches!(partition.settle, SettleState::Busy | SettleState::Noted);
            partition.is_removed && partition.doomed.is_empty() && is_idle
        });
        if is_gone {
            self.table.remove(id);
        }
    }

    /// The file of a job whose partition was removed meanwhile.
    pub(super) fn abandon_file(&mut self, id: PartitionId, segment: SegmentName) {
        let Some(partition) = self.table.get_mut(id) else { return };
        partition.settle = SettleState::Idle;
        if !partition.doomed.contains(&segment) {
            partition.doomed.push(segment);
            self.deletes.push_back((id, segment));
        }
        self.forget_if_gone(id);
    }

    /// Takes no more appends, makes durable what was taken, writes the closing mark; then [`StorageOutput::Drained`].
    /// Reads go on.
    pub fn drain(&mut self) {
        if matches!(self.phase, Phase::Running | Phase::Recovering) {
            self.phase = Phase::Draining { is_closing: false, is_closed: self.phase == Phase::Recovering };
        }
    }

    /// Settles everything, whatever the pace would be; then [`StorageOutput::AllSettled`]. For a start with another
    /// number of shards; works without [`Storage::open_partition`].
    pub fn settle_all(&mut self) {
        if self.settle_all == SettleAll::No {
            self.settle_all = SettleAll::Wanted;
        }
    }

    /// Closes the journal when nothing is left that has to go into it.
    pub(super) fn begin_close(&mut self) {
        let Phase::Draining { is_closing: false, is_closed: false } = self.phase else { return };
        // What found no room in an empty entry finds none later: nobody was told that it is durable.
        let is_written = self.changes.is_empty() && self.unnoted.is_empty();
        if !self.settling.is_busy() && (is_written || self.round.is_empty()) {
            self.phase = Phase::Draining { is_closing: true, is_closed: false };
            self.journal.close();
        }
    }

    pub(super) fn say_drained(&mut self) {
        let Phase::Draining { is_closed, .. } = self.phase else { return };
        let is_over = is_closed || self.failure.is_some();
        if is_over {
            self.gather_effects();
        }
        if is_over && self.disk.is_idle() && !self.settling.is_busy() && self.outputs.is_empty() {
            self.phase = Phase::Drained;
            self.outputs.push_back(StorageOutput::Drained);
        }
    }

    /// Says once that everything is settled.
    pub(super) fn say_settled(&mut self) {
        let is_settled = self.settle_all == SettleAll::Wanted
            && self.is_running()
            && self.table.oldest_unsettled().is_none()
            && self.round.is_empty()
            && self.submitted.is_empty()
            && self.changes.is_empty()
            && self.held_report.is_none();
        if is_settled {
            self.settle_all = SettleAll::Said;
            self.outputs.push_back(StorageOutput::AllSettled);
        }
    }

    /// Durable ends that moved in this round.
    pub(super) fn say_durable(&mut self) {
        let mut ends = Vec::with_capacity(self.durable.len());
        for id in self.durable.drain(..) {
            if let Some(partition) = self.table.get_mut(id).filter(|partition| !partition.is_removed) {
                partition.is_durable_end_new = false;
                ends.push((id, partition.log.durable_end()));
            }
        }
        if !ends.is_empty() {
            self.outputs.push_back(StorageOutput::Durable { ends });
        }
    }
}

/// Gives a partition the class that the catalog says.
fn adopt_class(id: PartitionId, partition: &mut Partition, settings: &TopicSettings) {
    let mut state = LogState::starting_at(partition.log.log_end());
    state.leader_epoch = partition.log.leader_epoch();
    state.append_timestamp = partition.log.append_timestamp();
    partition.log = CommitLog::new(id, *settings, state);
}
