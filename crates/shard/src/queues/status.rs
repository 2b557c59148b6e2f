//! What a shard says of its queues to the admin listener.

use std::time::Duration;

use corelane_queue::{PartitionDescription, QueueStats};

use super::Homed;
use crate::{QueueStatus, QueueTotals, STATUS_QUEUES_MAX, Shard};

impl Shard {
    /// Queues of this shard's homes, the first by home and name; and everything that they counted.
    pub(crate) fn queues_status(&self) -> (Vec<QueueStatus>, QueueTotals) {
        let mut stats = self.queues.retired;
        let mut totals = QueueTotals::default();
        let mut first = Vec::new();
        for (name, homed) in self.groups.all_queues() {
            totals.queues += 1;
            stats.merge(homed.queue.stats());
            if first.len() < STATUS_QUEUES_MAX {
                first.push(self.queue_status(name.group.as_str(), homed));
            }
        }
        totals.left_out = totals.queues - first.len() as u64;
        totals.joins = stats.joins;
        totals.leaves = stats.leaves;
        totals.sessions_expired = stats.sessions_expired;
        totals.redriven_records = stats.redriven_records;
        totals.appended_bytes = stats.appended_bytes;
        (first, totals)
    }

    /// What the partition's owner said of the first record that is not done, if it is that one still.
    fn told_age(&self, homed: &Homed, partition: &PartitionDescription) -> Option<Duration> {
        let (offset, appended) = homed.readers.get(&partition.partition)?.oldest?;
        let is_it = offset == partition.done_end && offset < partition.high_watermark;
        is_it.then(|| Duration::from_millis(self.now.wall.millis_since(appended)))
    }

    fn queue_status(&self, group: &str, homed: &Homed) -> QueueStatus {
        let sum = homed.queue.describe();
        let QueueStats { delivered_records, redelivered_records, acknowledged_records, rejected_records, .. } =
            *homed.queue.stats();
        let partitions = homed.queue.describe_partitions(self.now);
        let oldest = partitions.filter_map(|partition| partition.oldest.or_else(|| self.told_age(homed, &partition)));
        let oldest = oldest.max();
        QueueStatus {
            group: group.to_owned(),
            topic: homed.topic.as_str().to_owned(),
            members: sum.members,
            ready: sum.ready,
            leased: sum.leased,
            delayed: sum.delayed,
            dying: sum.dying,
            dead: sum.dead,
            oldest_ms: oldest.map(|oldest| u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX)),
            deliveries: delivered_records,
            redeliveries: redelivered_records,
            acknowledgements: acknowledged_records,
            rejections: rejected_records,
            lease_timeouts: homed.queue.stats().expired_leases,
            unsent_leases: homed.queue.stats().unsent_leases,
            far_delivery_times: homed.queue.stats().far_delivery_times,
        }
    }
}
