//! All groups, gathered from all shards.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use corelane_model::{ErrorCode, GroupName, MonotonicNanos, ShardId};
use corelane_session::Refused;
use corelane_wire::{GroupSummary, ListGroupsAnswer};

use super::describe::summary;
use super::home::HomePhase;
use super::tell::GroupAnswer;
use crate::Shard;
use crate::ask::{Answer, Asker};
use crate::mesh::Message;

/// How long a list waits for other shards before it leaves their groups out.
const LIST_WAIT: Duration = Duration::from_secs(1);
/// Groups in one answer.
const LIST_PAGE: usize = 1024;
/// Lists that wait for other shards at once; more are refused.
const LISTS_MAX: usize = 1024;

const _: () = assert!(LIST_PAGE * 384 < corelane_model::limits::FRAME_BYTES_MAX as usize);

/// What one shard says.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    groups: Vec<GroupSummary>,
    is_cut: bool,
    /// A home is not restored yet.
    is_incomplete: bool,
}

/// A list that waits for other shards.
#[derive(Debug)]
struct Listing {
    asker: Asker,
    most: usize,
    groups: Vec<GroupSummary>,
    is_cut: bool,
    /// Who has not answered, or not everything.
    missing: Vec<u8>,
    incomplete: Vec<u8>,
    deadline: MonotonicNanos,
}

/// Lists that wait, by ticket and thus by deadline.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    waiting: BTreeMap<u64, Listing>,
}

impl Lists {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn deadline(&self) -> Option<MonotonicNanos> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.deadline)
    }

    pub(super) fn take_askers(&mut self) -> impl Iterator<Item = Asker> + use<> {
        std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.asker)
    }
}

impl Shard {
    /// Answers with the groups of all shards, when they have said theirs.
    pub(crate) fn list_groups(&mut self, asker: Asker, after: &str, most: u32) {
        if let Some(refused) = self.refuse_phase() {
            return self.refuse(asker, None, refused);
        }
        if LISTS_MAX <= self.groups.lists.len() {
            let text = format!("{LISTS_MAX} lists of groups wait already");
            return self.refuse(asker, None, Refused::new(ErrorCode::Busy, text));
        }
        let most = (most as usize).min(LIST_PAGE);
        let ticket = self.groups.ticket();
        let missing = self.neighbours().map(|shard| shard.0).chain([self.me().0]).collect();
        let deadline = self.now.monotonic.after(LIST_WAIT);
        let listing =
            Listing { asker, most, groups: Vec::new(), is_cut: false, missing, incomplete: Vec::new(), deadline };
        self.groups.lists.waiting.insert(ticket, listing);
        self.broadcast(|| Message::ListGroups { ticket, after: after.to_owned(), most });
        let own = self.list_own(after, most);
        self.on_listed(self.me(), ticket, own);
    }

    /// The groups of this shard's homes.
    pub(crate) fn list_own(&self, after: &str, most: usize) -> Listed {
        let after = GroupName::parse(after).ok();
        let lower = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let homes = self.groups.homes.values();
        let is_restoring = homes.clone().any(|home| !matches!(home.phase, HomePhase::Serving));
        let mut first: Vec<_> =
            homes.flat_map(|home| home.groups.range((lower, Bound::Unbounded)).take(most + 1)).collect();
        first.sort_unstable_by_key(|&(name, _)| name);
        Listed {
            is_cut: most < first.len(),
            is_incomplete: is_restoring || self.phase.recovery().is_none(),
            groups: first.into_iter().take(most).map(|(_, known)| summary(known)).collect(),
        }
    }

    pub(crate) fn on_listed(&mut self, from: ShardId, ticket: u64, listed: Listed) {
        // An answer that comes too late belongs to nobody.
        let Some(listing) = self.groups.lists.waiting.get_mut(&ticket) else { return };
        listing.missing.retain(|&shard| shard != from.0);
        listing.is_cut |= listed.is_cut;
        listing.groups.extend(listed.groups);
        if listed.is_incomplete {
            listing.incomplete.push(from.0);
        }
        if listing.missing.is_empty() {
            self.finish_list(ticket);
        }
    }

    pub(super) fn expire_lists(&mut self) {
        while let Some((&ticket, listing)) = self.groups.lists.waiting.first_key_value()
            && listing.deadline <= self.now.monotonic
        {
            self.finish_list(ticket);
        }
    }

    fn finish_list(&mut self, ticket: u64) {
        let Some(mut listing) = self.groups.lists.waiting.remove(&ticket) else { return };
        listing.groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let is_cut = listing.is_cut || listing.most < listing.groups.len();
        listing.groups.truncate(listing.most);
        let mut missing_shards = listing.missing;
        missing_shards.extend(listing.incomplete);
        missing_shards.sort_unstable();
        let answer = ListGroupsAnswer { groups: listing.groups, is_cut, missing_shards };
        self.answer(listing.asker, None, Answer::Group(GroupAnswer::Listed(answer)));
    }
}
