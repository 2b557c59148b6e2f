//! Commits: what became of them.

use std::future::poll_fn;
use std::sync::Arc;

use corelane_client_core::{CommitError, CommitKey, GroupNews};
use corelane_model::PartitionId;

use crate::settlement::Settlement;

/// What the tickets of one membership share.
pub(crate) type CommitCell = Settlement<PartitionId, CommitError>;

impl CommitCell {
    pub(crate) fn on_news(&self, news: GroupNews) {
        match news {
            GroupNews::CommitsSettled { below } => self.on_settled(below.0),
            GroupNews::CommitFailed { partition, commits, error } => {
                self.on_failed(partition, commits.start().0..=commits.end().0, error);
            }
            _ => {}
        }
    }
}

/// Tells when a commit is durable. It may be dropped at any time; the commit is carried out all the same.
#[derive(Clone, Debug)]
pub struct CommitTicket {
    cell: Arc<CommitCell>,
    key: CommitKey,
    /// The one partition that it is about; `None` is about all of the member's.
    partition: Option<PartitionId>,
}

impl CommitTicket {
    pub(super) const fn new(cell: Arc<CommitCell>, key: CommitKey, partition: Option<PartitionId>) -> Self {
        Self { cell, key, partition }
    }

    fn is_about(&self, failed: PartitionId) -> bool {
        self.partition.is_none_or(|partition| partition == failed)
    }

    /// Waits until this commit and those before it are settled: on disk, or refused.
    ///
    /// # Errors
    /// This commit was not carried out; see [`CommitError`]. The committed offset is what it was.
    pub async fn durable(&self) -> Result<(), CommitError> {
        poll_fn(|context| self.cell.poll(context, self.key.0, |&failed| self.is_about(failed))).await
    }

    /// What [`Self::durable`] would give, if it is known already.
    #[must_use]
    pub fn try_durable(&self) -> Option<Result<(), CommitError>> {
        self.cell.try_read(self.key.0, |&failed| self.is_about(failed))
    }
}
