//! All queues, gathered from all shards.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_model::{ErrorCode, MonotonicNanos, ShardId};
use corelane_session::Refused;
use corelane_wire::{ListQueuesAnswer, QueueSummary};

use super::describe::summary;
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

const _: () = assert!(LIST_PAGE * (60 + 2 * 249) < corelane_model::limits::FRAME_BYTES_MAX as usize);

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
        let queues = self.groups.all_queues();
        let mut found: Vec<_> = queues.filter(|(name, _)| after < (name.group.as_str(), name.topic.0)).collect();
        found.sort_unstable_by_key(|&(name, _)| name);
        Listed {
            is_cut: most < found.len(),
            is_incomplete: self.groups.is_restoring() || self.phase.recovery().is_none(),
            queues: found.into_iter().take(most).map(|(name, homed)| summary(name, homed)).collect(),
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
