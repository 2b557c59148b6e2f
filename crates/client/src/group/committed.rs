//! What a group has committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelane_client_core::{Answer, GroupAnswer, GroupRequest, Request, RequestError};
use corelane_model::{Offset, PartitionId, PartitionIndex, StartAt, TopicId, WallMillis};
use corelane_wire::{FetchOffsets, PartitionRange};

use super::{GroupConsumer, GroupError, TopicPartition};
use crate::client::Handle;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The first record that the group has not done.
    pub offset: Offset,
    /// What was left with it to be found again.
    pub metadata: String,
    /// When it was committed, by the broker's clock.
    pub at: WallMillis,
}

impl GroupConsumer {
    /// What the group has committed for the partitions that this member has. One without a committed offset is left out.
    /// Commits of this member that are not settled may be missing; offsets that a transaction has staged and not committed
    /// are.
    ///
    /// # Errors
    /// There is no answer, or the group was deleted.
    pub async fn committed(&self) -> Result<BTreeMap<Arc<TopicPartition>, Committed>, GroupError> {
        let held = self.turns.by_id();
        let found = fetch(&self.handle, self.name.as_str(), held.keys().copied()).await?;
        Ok(found.into_iter().filter_map(|(id, committed)| Some((Arc::clone(held.get(&id)?), committed))).collect())
    }

    /// Reads again what was handed out and is not committed, as after a transaction that was aborted: each partition from
    /// its committed offset, or from the first record that was handed out if there is none. Commits that are not settled
    /// are lost by that, so wait for them before. For members with [`manual_commit`](crate::GroupBuilder::manual_commit).
    ///
    /// # Errors
    /// There is no answer, or the group was deleted. Nothing is changed.
    pub async fn rewind(&mut self) -> Result<(), GroupError> {
        Ok(self.rewind_to_committed().await?)
    }

    pub(crate) async fn rewind_to_committed(&mut self) -> Result<(), RequestError> {
        // A batch of a transaction that is over is not worked on any more.
        if let Some(in_hand) = self.in_hand.take() {
            self.finish(in_hand);
        }
        let read = self.turns.read();
        if read.is_empty() {
            return Ok(());
        }
        let found = fetch(&self.handle, self.name.as_str(), read.keys().copied()).await?;
        for (id, handed_out) in read {
            let to = found.get(&id).map_or(handed_out.start, |committed| committed.offset);
            if to < handed_out.end {
                // One that was lost or asked back meanwhile is its next owner's to read.
                self.seek_turn(id, StartAt::Offset(to));
            }
        }
        Ok(())
    }
}

/// Committed offsets of these partitions.
pub(crate) async fn fetch(
    handle: &Handle,
    group: &str,
    partitions: impl IntoIterator<Item = PartitionId>,
) -> Result<BTreeMap<PartitionId, Committed>, RequestError> {
    let partitions = PartitionRange::of(partitions.into_iter().map(|id| (id.topic.0, id.index.0)));
    let mut found = BTreeMap::new();
    // Asking for none would be asking for all.
    while !partitions.is_empty() {
        let after = found.last_key_value().map(|(id, _): (&PartitionId, &Committed)| (id.topic.0, id.index.0));
        let body = FetchOffsets { group: group.to_owned(), after, partitions: partitions.clone() };
        let request = Request::Group(GroupRequest::FetchOffsets(body));
        let Answer::Group(GroupAnswer::Offsets(answer)) = crate::admin::ask(handle, request).await? else {
            return Err(RequestError::Malformed);
        };
        let is_last = !answer.is_cut || answer.offsets.is_empty();
        found.extend(answer.offsets.into_iter().map(|one| {
            let id = PartitionId::new(TopicId(one.topic), PartitionIndex(one.partition));
            (id, Committed { offset: Offset(one.offset), metadata: one.metadata, at: WallMillis(one.committed_ms) })
        }));
        if is_last {
            break;
        }
    }
    Ok(found)
}
