//! Topics as clients want to know them: metadata, and partitions in full from all their owners.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_model::limits::FRAME_BYTES_MAX;
use corelane_model::{ErrorCode, MonotonicNanos, PartitionId, ShardId, TopicId};
use corelane_session::Refused;
use corelane_wire::{DescribeTopicAnswer, MetadataAnswer, PartitionDescription, TopicDescription, TopicMetadata};

use crate::Shard;
use crate::ask::Asker;
use crate::mesh::Message;
use crate::shard_set::ShardSet;

/// Bytes of topics in one metadata answer.
const METADATA_BYTES_MAX: usize = 1 << 20;
/// Bytes of a topic in it beside its name and owners, rounded up.
const METADATA_TOPIC_BYTES: usize = 96;
/// Partitions in one describe answer.
const DESCRIBE_PARTITIONS_MAX: u32 = 1024;
/// Damaged ranges of one partition in it; the rest is in the admin status.
const DESCRIBE_RANGES_MAX: usize = 16;
/// How long a describe waits for the other shards before it leaves their partitions out.
const DESCRIBE_WAIT: Duration = Duration::from_secs(1);
/// Describes that wait for other shards at once; more are refused.
const DESCRIBES_MAX: usize = 1024;
/// Bytes of answers about topics that one connection gets in a round. A short question can have a long answer, and all
/// answers of a round wait in memory together; the rest is asked again in a moment.
const ANSWERS_BYTES_MAX: u64 = 4 << 20;

const _: () = {
    assert!(METADATA_BYTES_MAX < FRAME_BYTES_MAX as usize);
    assert!(DESCRIBE_PARTITIONS_MAX as usize * (104 + 16 * DESCRIBE_RANGES_MAX) < FRAME_BYTES_MAX as usize);
};

/// A describe that waits for other shards.
#[derive(Debug)]
struct Describe {
    asker: Asker,
    answer: DescribeTopicAnswer,
    missing: u32,
    deadline: MonotonicNanos,
}

/// Describes that wait for other shards, by ticket and thus by deadline.
#[derive(Debug, Default)]
pub(crate) struct Describes {
    waiting: BTreeMap<u64, Describe>,
    last_ticket: u64,
}

impl Describes {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn deadline(&self) -> Option<MonotonicNanos> {
        self.waiting.first_key_value().map(|(_, describe)| describe.deadline)
    }
}

impl Shard {
    pub(crate) fn answer_metadata(&mut self, asker: Asker, names: &[String]) {
        if let Some(refused) = self.refuse_greedy(asker) {
            return self.refuse(asker, None, refused);
        }
        let (Some(catalog), None) = (&self.catalog, self.refuse_until_ready()) else {
            let refused = self.refuse_until_ready().unwrap_or_else(recovering);
            return self.refuse(asker, None, refused);
        };
        let mut answer = MetadataAnswer {
            catalog_version: catalog.version().0,
            shards: self.config.shards,
            topics: Vec::new(),
            is_cut: false,
        };
        let mut bytes = 0;
        let mut add = |topic: &corelane_catalog::Topic| {
            bytes += METADATA_TOPIC_BYTES + topic.name.as_str().len() + topic.shards.len();
            if METADATA_BYTES_MAX < bytes {
                answer.is_cut = true;
                return false;
            }
            answer.topics.push(TopicMetadata {
                name: topic.name.as_str().to_owned(),
                topic: topic.id.0,
                settings: topic.settings.into(),
                shards: topic.shards.iter().map(|shard| shard.0).collect(),
            });
            true
        };
        if names.is_empty() {
            let _ = catalog.topics_by_name().filter(|topic| !topic.name.is_internal()).all(&mut add);
        } else {
            let _ = names.iter().filter_map(|name| catalog.find(name)).all(&mut add);
        }
        self.send_large(asker, &answer);
    }

    pub(crate) fn describe_topic(&mut self, asker: Asker, name: &str, from: u32, most: u32) {
        if let Some(refused) = self.refuse_until_ready() {
            return self.refuse(asker, None, refused);
        }
        if let Some(refused) = self.refuse_greedy(asker) {
            return self.refuse(asker, None, refused);
        }
        if DESCRIBES_MAX <= self.describes.len() {
            let text = format!("{DESCRIBES_MAX} describes wait already");
            return self.refuse(asker, None, Refused::new(ErrorCode::Busy, text));
        }
        let Some(topic) = self.catalog.as_ref().and_then(|catalog| catalog.find(name)) else {
            let text = format!("there is no topic {name:?}");
            return self.refuse(asker, None, Refused::new(ErrorCode::UnknownTopic, text));
        };
        let id = topic.id;
        let partition_count = topic.partition_count();
        let from = from.min(partition_count);
        let end = from.saturating_add(most.min(DESCRIBE_PARTITIONS_MAX)).min(partition_count);
        let mut owners = ShardSet::default();
        topic.shards[from as usize..end as usize].iter().for_each(|&owner| owners.insert(owner));
        let answer = DescribeTopicAnswer {
            topic: TopicDescription { name: name.to_owned(), topic: id.0, settings: topic.settings.into() },
            partition_count,
            partitions: self.describe_own(id, from, end),
        };
        self.describes.last_ticket += 1;
        let ticket = self.describes.last_ticket;
        let mut missing = 0;
        let me = self.me();
        for owner in owners.iter().filter(|&owner| owner != me) {
            missing += 1;
            self.send_mesh(owner, Message::Describe { ticket, topic: id, from, end });
        }
        let deadline = self.now.monotonic.after(DESCRIBE_WAIT);
        self.describes.waiting.insert(ticket, Describe { asker, answer, missing, deadline });
        self.finish_describe(ticket);
    }

    /// This shard's partitions of a topic within the range; none while it recovers.
    pub(crate) fn describe_own(&self, topic: TopicId, from: u32, end: u32) -> Vec<PartitionDescription> {
        let Some(topic) = self.catalog.as_ref().and_then(|catalog| catalog.topic(topic)) else { return Vec::new() };
        topic
            .partitions_of(self.config.shard)
            .filter(|partition| from <= partition.index.0 && partition.index.0 < end)
            .filter_map(|partition| self.describe_partition(partition, self.config.shard))
            .collect()
    }

    pub(crate) fn on_described(&mut self, ticket: u64, partitions: Vec<PartitionDescription>) {
        // An answer that comes too late belongs to nobody.
        let Some(describe) = self.describes.waiting.get_mut(&ticket) else { return };
        describe.missing -= 1;
        describe.answer.partitions.extend(partitions);
        self.finish_describe(ticket);
    }

    pub(crate) fn expire_describes(&mut self) {
        while let Some(mut first) = self.describes.waiting.first_entry()
            && first.get().deadline <= self.now.monotonic
        {
            first.get_mut().missing = 0;
            let ticket = *first.key();
            self.finish_describe(ticket);
        }
    }

    fn finish_describe(&mut self, ticket: u64) {
        if self.describes.waiting.get(&ticket).is_none_or(|describe| describe.missing != 0) {
            return;
        }
        let Describe { asker, mut answer, .. } = self.describes.waiting.remove(&ticket).expect("it was just there");
        answer.partitions.sort_unstable_by_key(|partition| partition.partition);
        self.send_large(asker, &answer);
    }

    fn send_large<B: corelane_wire::Body>(&mut self, asker: Asker, answer: &B) {
        let round = self.stats.rounds;
        let Some(state) = self.connections.get_mut(&asker.peer.connection) else { return };
        let frame = state.session.answer(asker.correlation, answer);
        let before = if state.answered.0 == round { state.answered.1 } else { 0 };
        state.answered = (round, before + frame.len() as u64);
        self.send_control(asker.peer.connection, frame);
    }

    fn refuse_greedy(&self, asker: Asker) -> Option<Refused> {
        let state = self.connections.get(&asker.peer.connection)?;
        let is_greedy = state.answered.0 == self.stats.rounds && ANSWERS_BYTES_MAX <= state.answered.1;
        let text = || format!("this connection got {} bytes of answers in this moment; ask again", state.answered.1);
        is_greedy.then(|| Refused::new(ErrorCode::Busy, text()))
    }

    fn describe_partition(&self, partition: PartitionId, shard: ShardId) -> Option<PartitionDescription> {
        let status = self.storage.describe(partition)?;
        let conflated = self.traffic.get(&partition.topic).and_then(|traffic| traffic.conflated.get(&partition.index));
        let damaged = self.phase.recovery().map_or(&[][..], |recovery| &recovery.corrupt);
        Some(PartitionDescription {
            partition: partition.index.0,
            shard: shard.0,
            log_start: status.log_start.0,
            durable_end: status.durable_end.0,
            log_end: status.log_end.0,
            settled_end: status.settled_end.0,
            unsettled_bytes: status.unsettled_bytes,
            disk_bytes: status.disk_bytes,
            segments: status.segments,
            corrupt: damaged
                .iter()
                .filter(|(of, _, _)| *of == partition)
                .take(DESCRIBE_RANGES_MAX)
                .map(|(_, first, end)| (first.0, end.0))
                .collect(),
            conflated: conflated.copied().unwrap_or_default(),
        })
    }

    fn refuse_until_ready(&self) -> Option<Refused> {
        self.refuse_phase().filter(|refused| refused.code == ErrorCode::Recovering)
    }
}

fn recovering() -> Refused {
    Refused::new(ErrorCode::Recovering, "the shard waits for the catalog; try again in a moment")
}
