//! Topics and partitions by the names that people know.

use corelane_model::{PartitionId, TopicId};

use crate::Shard;

impl Shard {
    /// A topic for people.
    pub(crate) fn name_of_topic(&self, topic: TopicId) -> String {
        let found = self.catalog.as_ref().and_then(|catalog| catalog.topic(topic));
        found.map_or_else(|| format!("{topic} (deleted)"), |found| found.name.as_str().to_owned())
    }

    /// A partition for people.
    pub(crate) fn name_of_partition(&self, partition: PartitionId) -> String {
        format!("partition {} of topic {}", partition.index, self.name_of_topic(partition.topic))
    }

    /// What a machine says of a partition, which it knows by its ids.
    pub(crate) fn in_names(&self, partition: PartitionId, text: &str) -> String {
        text.replace(&format!("partition {partition}"), &self.name_of_partition(partition))
    }
}
