//! All queues, gathered from all shards.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, ShardId};
use corelane_queue::QueueName;
use corelane_session::Refused;
use corelane_wire::{ListQueuesAnswer, QueueSummary};

use super::describe::summary;
use super::home::Broken;
use super::tell::QueueAnswer;
use crate::Shard;
use crate::ask::{Answer, Asker};
use crate::mesh::Message;

/// How long a list waits for other shards before it leaves their queues out.
const LIST_WAIT: Duration = Duration::from_secs(1);
/// Queues in one answer.
const LIST_PAGE: usize = 1024;
/// Lists that wait for other shards at once; more are refused.
const LISTS_MAX: usize = 1024;

/// Bytes of what is told of a record that cannot be read.
const WHY_BYTES_MAX: usize = 512;

const _: () = assert!(LIST_PAGE * (68 + 2 * 249 + WHY_BYTES_MAX) < corelane_model::limits::FRAME_BYTES_MAX as usize);

/// What one shard says.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    queues: Vec<QueueSummary>,
    is_cut: bool,
    /// A home is not restored yet.
    is_incomplete: bool,
}

/// A list that waits for other shards.
#[derive(Debug)]
struct Listing {
    asker: Asker,
    most: usize,
    queues: Vec<QueueSummary>,
    is_cut: bool,
    /// Who has not answered, or not everything.
    missing: Vec<u8>,
    incomplete: Vec<u8>,
    deadline: MonotonicNanos,
}

/// Lists that wait, by ticket and thus by deadline.
#[derive(Debug, Default)]
pub(super) struct Lists {
    waiting: BTreeMap<u64, Listing>,
}

impl Lists {
    pub(super) fn deadline(&self) -> Option<MonotonicNanos> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.deadline)
    }

    pub(super) fn take_askers(&mut self) -> impl Iterator<Item = Asker> + use<> {
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.asker)
    }
}

impl Shard {
    /// Answers with the queues of all shards, when they have said theirs.
    pub(crate) fn list_queues(&mut self, asker: Asker, after: &(String, u64), most: u32) {
        if let Some(refused) = self.refuse_phase() {
            return self.refuse(asker, None, refused);
        }
        if LISTS_MAX <= self.queues.lists.waiting.len() {
            let text = format!("{LISTS_MAX} lists of queues wait already");
            return self.refuse(asker, None, Refused::new(ErrorCode::Busy, text));
        }
        let most = (most as usize).min(LIST_PAGE);
        let ticket = self.queues.next_id();
        let missing = self.neighbours().map(|shard| shard.0).chain([self.me().0]).collect();
        let deadline = self.now.monotonic.after(LIST_WAIT);
        let listing =
            Listing { asker, most, queues: Vec::new(), is_cut: false, missing, incomplete: Vec::new(), deadline };
        self.queues.lists.waiting.insert(ticket, listing);
        self.broadcast(|| Message::ListQueues { ticket, after: after.clone(), most });
        let own = self.list_own_queues(after, most);
        self.on_queues_listed(self.me(), ticket, own);
    }

    /// The queues of this shard's homes.
    pub(crate) fn list_own_queues(&self, (group, topic): &(String, u64), most: usize) -> Listed {
        let after = (group.as_str(), *topic);
        let is_asked = |name: &QueueName| after < (name.group.as_str(), name.topic.0);
        let sound = self.groups.all_queues().map(|(name, homed)| (name, Ok(homed)));
        let broken = self.groups.broken_queues().map(|(name, broken)| (name, Err(broken)));
        let mut found: Vec<_> = sound.chain(broken).filter(|(name, _)| is_asked(name)).collect();
        found.sort_unstable_by_key(|&(name, _)| name);
        let is_cut = most < found.len();
        let listed = found.into_iter().take(most).map(|(name, queue)| match queue {
            Ok(homed) => summary(name, homed),
            Err(broken) => self.broken_summary(name, broken),
        });
        Listed {
            is_cut,
            is_incomplete: self.groups.is_restoring() || self.phase.recovery().is_none(),
            queues: listed.collect(),
        }
    }

    fn broken_summary(&self, name: &QueueName, broken: &Broken) -> QueueSummary {
        let topic = self.catalog.as_ref().and_then(|catalog| catalog.topic(name.topic));
        let mut why = broken.why.clone();
        why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
        QueueSummary {
            group: name.group.as_str().to_owned(),
            topic: topic.map(|topic| topic.name.as_str().to_owned()).unwrap_or_default(),
            topic_id: name.topic.0,
            members: 0,
            ready: 0,
            leased: 0,
            delayed: 0,
            dead: 0,
            broken: why,
        }
    }

    pub(crate) fn on_queues_listed(&mut self, from: ShardId, ticket: u64, listed: Listed) {
        // An answer that comes too late belongs to nobody.
        let Some(listing) = self.queues.lists.waiting.get_mut(&ticket) else { return };
        listing.missing.retain(|&shard| shard != from.0);
        listing.is_cut |= listed.is_cut;
        listing.queues.extend(listed.queues);
        if listed.is_incomplete {
            listing.incomplete.push(from.0);
        }
        if listing.missing.is_empty() {
            self.finish_queue_list(ticket);
        }
    }

    pub(crate) fn expire_queue_lists(&mut self) {
        while let Some((&ticket, listing)) = self.queues.lists.waiting.first_key_value()
            && listing.deadline <= self.now.monotonic
        {
            self.finish_queue_list(ticket);
        }
    }

    fn finish_queue_list(&mut self, ticket: u64) {
        let Some(mut listing) = self.queues.lists.waiting.remove(&ticket) else { return };
        listing.queues.sort_unstable_by(|a, b| (&a.group, a.topic_id).cmp(&(&b.group, b.topic_id)));
        let is_cut = listing.is_cut || listing.most < listing.queues.len();
        listing.queues.truncate(listing.most);
        let mut missing_shards = listing.missing;
        missing_shards.extend(listing.incomplete);
        missing_shards.sort_unstable();
        let answer = ListQueuesAnswer { queues: listing.queues, is_cut, missing_shards };
        self.answer(listing.asker, None, Answer::Queue(QueueAnswer::Listed(answer)));
    }
}
