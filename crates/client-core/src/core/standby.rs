//! Following partitions that others have, so that they can be taken over warm.

use corelane_model::{Offset, PartitionId, StartAt, TopicName};

use super::ClientCore;
use crate::{GroupKey, SubscriptionKey};

impl ClientCore {
    /// The application is through with everything before `next` of a partition that it follows. Nothing is committed by
    /// that; if the member takes the partition over, nothing before `next` is read again for its state.
    pub fn followed(&mut self, group: GroupKey, partition: PartitionId, next: Offset) {
        if let Some(membership) = self.groups.get_mut(group) {
            membership.standbys.on_followed(partition, next);
        }
    }

    /// Follows a partition from elsewhere. Returns what it is read with from now on, and `None` when the member does not
    /// follow it.
    pub fn seek_standby(&mut self, group: GroupKey, partition: PartitionId, start: StartAt) -> Option<SubscriptionKey> {
        let membership = self.groups.get_mut(group)?;
        membership.settings.follow?;
        let (topic, before) = membership.standbys.seek(partition)?;
        if let Some(before) = before {
            self.unsubscribe(before);
        }
        self.open_standby(group, partition, topic, start)
    }

    /// Opens what is new among what a member stands by for, if it follows.
    pub(super) fn follow_standbys(&mut self, group: GroupKey) {
        let Some(membership) = self.groups.get_mut(group) else { return };
        let Some(start) = membership.settings.follow else { return };
        for (partition, topic) in membership.standbys.unopened() {
            self.open_standby(group, partition, topic, start);
        }
    }

    fn open_standby(
        &mut self,
        group: GroupKey,
        partition: PartitionId,
        topic: TopicName,
        start: StartAt,
    ) -> Option<SubscriptionKey> {
        let subscription = self.subscribe_as_member(group, partition, topic, start)?;
        let membership = self.groups.get_mut(group)?;
        membership.standbys.open(partition, subscription);
        Some(subscription)
    }
}
