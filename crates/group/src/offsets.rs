//! Committed offsets: who may commit, and how long they are kept.

use corelane_model::limits::{GROUP_COMMIT_METADATA_BYTES_MAX, GROUP_COMMIT_PARTITIONS_MAX, GROUP_OFFSETS_MAX};
use corelane_model::{Generation, LeaderEpoch, MemberId, Now, Offset, PartitionId, Transaction, WallMillis};

use crate::{Group, GroupError, Phase, RequestTicket};

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: PartitionId,
    /// The first record that the group has not done.
    pub offset: Offset,
    /// The leader's term in which the record before was read, for whoever compares histories.
    pub leader_epoch: LeaderEpoch,
    /// What the application wants to find again.
    pub metadata: String,
    /// The log's end, if the caller knows it and has not compared by itself.
    pub log_end: Option<Offset>,
}

/// What is known of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The first record that the group has not done.
    pub offset: Offset,
    /// The leader's term, as it was committed.
    pub leader_epoch: LeaderEpoch,
    /// When it was committed.
    pub at: WallMillis,
    /// What the application wanted to find again.
    pub metadata: String,
}

impl Commit {
    /// An offset and nothing else.
    #[must_use]
    pub const fn new(partition: PartitionId, offset: Offset) -> Self {
        Self { partition, offset, leader_epoch: LeaderEpoch(0), metadata: String::new(), log_end: None }
    }
}

impl Group {
    /// Whether a member speaks for a partition in the generation that it says: it owns it, perhaps being asked for it,
    /// and the generation is not older than its right to it and not newer than the group.
    ///
    /// Whatever a member does to a partition in the name of the group passes here: commits, acknowledgements, offsets
    /// within a transaction. A member does not have to follow every generation; what it kept stays its own.
    ///
    /// # Errors
    /// The member is unknown or fenced, does not own the partition, or the generation is stale or from the future.
    pub fn check_fence(&self, member: MemberId, said: Generation, partition: PartitionId) -> Result<(), GroupError> {
        self.check_generation(said)?;
        #[cfg(planted)]
        if self.takes_stale(said) {
            return Ok(());
        }
        if !self.members.contains_key(&member) {
            return Err(self.stranger(member));
        }
        match self.slots.get(&partition).map(|slot| slot.hold) {
            Some(hold) if hold.owner() == member => {
                let since = hold.since();
                if said < since {
                    return Err(GroupError::StaleGeneration { member, partition, said, since });
                }
                Ok(())
            }
            _ => Err(GroupError::NotOwner { member, partition }),
        }
    }

    /// A member commits offsets: one, those of a batch, or all that it has. All of them or none are taken; the answer
    /// leaves when they are durable. Commits of one round to one partition become one record. An offset may go back:
    /// that is a seek.
    ///
    /// # Errors
    /// The first of them that is refused, by [`Group::check_fence`], its bounds, or the log's end.
    pub fn commit(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        member: MemberId,
        said: Generation,
        commits: &[Commit],
    ) -> Result<(), GroupError> {
        let heard = self.touch(now, member);
        #[cfg(planted)]
        let heard = heard.or_else(|error| if self.takes_stale(said) { Ok(()) } else { Err(error) });
        heard?;
        self.check_commits(member, said, commits, None).inspect_err(|error| self.count_refused(error))?;
        for commit in commits {
            self.take_offset(now, commit);
        }
        self.round.answers.push(ticket);
        Ok(())
    }

    /// Whether a member may commit, or stage within a transaction.
    pub(crate) fn check_commits(
        &self,
        member: MemberId,
        said: Generation,
        commits: &[Commit],
        within: Option<Transaction>,
    ) -> Result<(), GroupError> {
        self.check_room()?;
        for commit in commits {
            self.check_fence(member, said, commit.partition)?;
            self.check_staged(commit.partition, within)?;
        }
        self.check_offsets(commits)
    }

    /// A commit is taken in whatever generation its sender had the partition.
    #[cfg(planted)]
    fn takes_stale(&self, said: Generation) -> bool {
        use corelane_model::planted::{Bug, is_planted};
        said < self.generation && is_planted(Bug::StaleCommit)
    }

    pub(crate) const fn count_refused(&mut self, error: &GroupError) {
        self.stats.refused_commits += 1;
        if matches!(error, GroupError::StaleGeneration { .. } | GroupError::NotOwner { .. }) {
            self.stats.fenced_commits += 1;
        }
    }

    /// Bounds of offsets that are to be taken.
    pub(crate) fn check_offsets(&self, commits: &[Commit]) -> Result<(), GroupError> {
        let new = commits.iter().filter(|commit| !self.offsets.contains_key(&commit.partition)).count();
        let metadata = commits.iter().map(|commit| commit.metadata.len()).max().unwrap_or_default();
        for (what, would, limit) in [
            ("partitions in one commit", commits.len(), GROUP_COMMIT_PARTITIONS_MAX),
            ("bytes of metadata with an offset", metadata, GROUP_COMMIT_METADATA_BYTES_MAX),
            ("committed offsets", self.offsets.len() + self.staged.len() + new, GROUP_OFFSETS_MAX),
        ] {
            if limit < would {
                return Err(GroupError::Limit { what, would: would as u64, limit: limit as u64 });
            }
        }
        for commit in commits {
            if let Some(end) = commit.log_end.filter(|&end| end < commit.offset) {
                return Err(GroupError::BeyondEnd { partition: commit.partition, offset: commit.offset, end });
            }
        }
        Ok(())
    }

    pub(crate) fn take_offset(&mut self, now: Now, commit: &Commit) {
        let committed = CommittedOffset {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            at: now.wall,
            metadata: commit.metadata.clone(),
        };
        self.offsets.insert(commit.partition, committed);
        self.round.offsets.insert(commit.partition);
        self.stats.committed_offsets += 1;
    }

    /// The committed offset of a partition.
    #[must_use]
    pub fn committed(&self, partition: PartitionId) -> Option<&CommittedOffset> {
        self.offsets.get(&partition)
    }

    /// All committed offsets, in the order of partitions. They may not be durable yet.
    pub fn offsets(&self) -> impl Iterator<Item = (PartitionId, &CommittedOffset)> {
        self.offsets.iter().map(|(&partition, committed)| (partition, committed))
    }

    /// The group had no members for its retention: it goes, and its offsets with it.
    pub(crate) fn retention_due(&mut self) {
        if self.members.is_empty() && self.phase != Phase::Deleted {
            self.stats.expired_offsets += self.offsets.len() as u64;
            self.erase();
        }
    }
}
