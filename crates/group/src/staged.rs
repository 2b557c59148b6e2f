//! Offsets that wait for the decision about a transaction.
//!
//! ```text
//!               stage, by the owner                    commit
//!   (committed) ───────────────────▶ staged ──────────────────▶ committed: what was staged
//!                                      │
//!                                      └── abort ──▶ committed: what was before
//! ```
//! Meanwhile nobody else begins with the partition: a new owner is told of it only after the decision, so that it begins
//! where the transaction left off, or where it began. The fence is asked when offsets are staged and not again: the decision
//! cannot be taken back.

use std::collections::BTreeSet;

use corelane_model::{Decision, Generation, MemberId, Now, PartitionId, Transaction};

use crate::{Commit, CommittedOffset, Group, GroupError, Hold, RequestTicket};

/// What a transaction has for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedOffset {
    /// The transaction.
    pub transaction: Transaction,
    /// Who staged it.
    pub member: MemberId,
    /// Since which generation that one had the partition: what it gets again later it begins anew.
    pub since: Generation,
    /// What is committed if the transaction is.
    pub committed: CommittedOffset,
}

impl Group {
    /// A member stages offsets within a transaction that the group has joined: all of them or none. Answered when they are
    /// durable. Staged again by the same transaction, the larger count: the same turn
    /// only goes forward.
    ///
    /// # Errors
    /// As of [`Group::commit`]; or another transaction has staged offsets of one of the partitions.
    pub fn stage(
        &mut self,
        now: Now,
        ticket: RequestTicket,
        transaction: Transaction,
        (member, said): (MemberId, Generation),
        commits: &[Commit],
    ) -> Result<(), GroupError> {
        self.touch(now, member)?;
        self.check_commits(member, said, commits, Some(transaction)).inspect_err(|error| self.count_refused(error))?;
        for commit in commits {
            let committed = CommittedOffset {
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                at: now.wall,
                metadata: commit.metadata.clone(),
            };
            let since = self.slots[&commit.partition].hold.since();
            // A copy that was late on a connection which is lost must not take back what was staged on the next one.
            let is_late = self.staged.get(&commit.partition).is_some_and(|staged| {
                (staged.transaction, staged.member, staged.since) == (transaction, member, since)
                    && commit.offset < staged.committed.offset
            });
            if is_late {
                continue;
            }
            self.staged.insert(commit.partition, StagedOffset { transaction, member, since, committed });
            self.round.staged.insert(commit.partition);
        }
        self.stats.staged_offsets += commits.len() as u64;
        self.round.answers.push(ticket);
        Ok(())
    }

    /// A transaction is decided: what it staged is committed or dropped. Answered when that is durable; told again, there is
    /// nothing left to do but to answer.
    pub fn settle_transaction(&mut self, ticket: RequestTicket, transaction: Transaction, decision: Decision) {
        for partition in self.staged_by(transaction) {
            let Some(staged) = self.drop_staged(partition) else { continue };
            if decision == Decision::Commit {
                self.offsets.insert(partition, staged.committed);
                self.round.offsets.insert(partition);
                self.stats.committed_offsets += 1;
            }
        }
        self.round.answers.push(ticket);
    }

    fn staged_by(&self, transaction: Transaction) -> Vec<PartitionId> {
        let of = self.staged.iter().filter(|(_, staged)| staged.transaction == transaction);
        of.map(|(&partition, _)| partition).collect()
    }

    /// Takes out what is staged for a partition; whoever waits to begin with it is told.
    pub(crate) fn drop_staged(&mut self, partition: PartitionId) -> Option<StagedOffset> {
        let staged = self.staged.remove(&partition)?;
        self.round.staged.insert(partition);
        if let Some(slot) = self.slots.get(&partition).filter(|slot| is_after(&staged, slot.hold)) {
            self.round.tell.insert(slot.hold.owner());
        }
        Some(staged)
    }

    /// Whether a partition is kept from its owner until a transaction is decided.
    pub(crate) fn is_kept(&self, partition: PartitionId, hold: Hold) -> bool {
        self.staged.get(&partition).is_some_and(|staged| is_after(staged, hold))
    }

    /// Whether another transaction than this one, or any, has something for the partition.
    pub(crate) fn check_staged(&self, partition: PartitionId, but: Option<Transaction>) -> Result<(), GroupError> {
        match self.staged.get(&partition).map(|staged| staged.transaction) {
            Some(transaction) if but != Some(transaction) => Err(GroupError::Staged { partition, transaction }),
            _ => Ok(()),
        }
    }

    /// What is staged for a partition.
    #[must_use]
    pub fn staged(&self, partition: PartitionId) -> Option<&StagedOffset> {
        self.staged.get(&partition)
    }

    /// The partitions that have something staged, in order.
    pub fn staged_partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.staged.keys().copied()
    }

    /// The transactions that have something staged: after a restart, whom to ask about it.
    #[must_use]
    pub fn transactions(&self) -> BTreeSet<Transaction> {
        self.staged.values().map(|staged| staged.transaction).collect()
    }

    /// Whether the transaction has something staged.
    #[must_use]
    pub fn is_open(&self, transaction: Transaction) -> bool {
        self.staged.values().any(|staged| staged.transaction == transaction)
    }
}

/// Whether a partition came to its owner after something was staged for it.
fn is_after(staged: &StagedOffset, hold: Hold) -> bool {
    (staged.member, staged.since) != (hold.owner(), hold.since())
}
