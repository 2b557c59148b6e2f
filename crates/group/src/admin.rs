//! What an operator does to a group.

use std::time::Duration;

use corelane_model::{Now, PartitionId};

use crate::deadlines::Timer;
use crate::{Commit, FenceReason, Group, GroupError, Phase, RequestTicket, Strategy};

/// Where a partition's committed offset is to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// There; the caller looked up what "earliest" or a time means, and hands in the log's end.
    To(Commit),
    /// Nowhere: the owner begins by its reset policy.
    Forget(PartitionId),
}

/// What is to be different; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How partitions are assigned; members keep what the new strategy lets them keep.
    pub strategy: Option<Strategy>,
    /// How many follow each partition.
    pub standbys: Option<u8>,
    /// How long offsets are kept without members.
    pub retention: Option<Duration>,
}

impl Group {
    /// Changes settings while members go on.
    ///
    /// # Errors
    /// One is out of its bounds; none is changed then.
    pub fn alter(&mut self, now: Now, ticket: RequestTicket, change: Change) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_room()?;
        let mut settings = self.settings;
        settings.strategy = change.strategy.unwrap_or(settings.strategy);
        settings.standbys = change.standbys.unwrap_or(settings.standbys);
        settings.retention = change.retention.unwrap_or(settings.retention);
        settings.check()?;
        let settings = settings.whole();
        let is_retention_changed = settings.retention != self.settings.retention;
        self.settings = settings;
        if is_retention_changed && let Some(since) = self.empty_since {
            let passed = Duration::from_millis(now.wall.millis_since(since));
            self.timers.disarm_all(Timer::Retention);
            self.timers.arm(now.monotonic.after(settings.retention.saturating_sub(passed)), Timer::Retention);
        }
        self.round.meta = true;
        self.round.is_stale = true;
        self.round.answers.push(ticket);
        Ok(())
    }

    /// Puts committed offsets somewhere else, all or none.
    ///
    /// # Errors
    /// A partition has an owner, who would go on from where it is; or an offset is out of its bounds.
    pub fn reset_offsets(&mut self, now: Now, ticket: RequestTicket, resets: &[OffsetReset]) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_room()?;
        let mut commits = Vec::new();
        for reset in resets {
            let partition = match reset {
                OffsetReset::To(commit) => {
                    commits.push(commit.clone());
                    commit.partition
                }
                OffsetReset::Forget(partition) => *partition,
            };
            if let Some(slot) = self.slots.get(&partition) {
                return Err(GroupError::PartitionInUse { partition, owner: slot.hold.owner() });
            }
            self.check_staged(partition, None)?;
        }
        self.check_offsets(&commits)?;
        for reset in resets {
            match reset {
                OffsetReset::To(commit) => self.take_offset(now, commit),
                OffsetReset::Forget(partition) => {
                    self.offsets.remove(partition);
                    self.round.offsets.insert(*partition);
                }
            }
        }
        self.round.answers.push(ticket);
        Ok(())
    }

    /// Asks everything back: each member finishes, commits and gives up. Answered when nobody has anything any more.
    /// Nobody may join until [`Group::resume`].
    ///
    /// # Errors
    /// The group was deleted, or too many answers wait.
    pub fn drain(&mut self, ticket: RequestTicket) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_room()?;
        match &mut self.phase {
            Phase::Open => {
                self.phase = Phase::Draining { asked: vec![ticket] };
                self.round.meta = true;
                self.round.is_stale = true;
            }
            Phase::Draining { asked } => asked.push(ticket),
            Phase::Drained => self.round.answers.push(ticket),
            Phase::Deleted => unreachable!("it was checked to be alive"),
        }
        Ok(())
    }

    /// Assigns again after a drain. Who still waits for the drain to end is answered too.
    ///
    /// # Errors
    /// As [`Group::drain`].
    pub fn resume(&mut self, ticket: RequestTicket) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_room()?;
        if let Phase::Draining { asked } = std::mem::replace(&mut self.phase, Phase::Open) {
            self.round.answers.extend(asked);
        }
        self.round.meta = true;
        self.round.is_stale = true;
        self.round.answers.push(ticket);
        Ok(())
    }

    /// Removes the group and its committed offsets for ever.
    ///
    /// # Errors
    /// It has members and was not drained.
    pub fn delete(&mut self, now: Now, ticket: RequestTicket) -> Result<(), GroupError> {
        self.check_alive()?;
        self.check_room()?;
        if self.phase != Phase::Drained && !self.members.is_empty() {
            return Err(GroupError::NotEmpty { members: self.members.len() });
        }
        let members: Vec<_> = self.members.keys().copied().collect();
        for member in members {
            self.remove_member(now, member, Some(FenceReason::GroupDeleted));
        }
        self.erase();
        self.round.answers.push(ticket);
        Ok(())
    }

    /// Leaves tombstones.
    pub(crate) fn erase(&mut self) {
        assert!(self.members.is_empty(), "only a group without members is erased");
        if let Phase::Draining { asked } = std::mem::replace(&mut self.phase, Phase::Deleted) {
            self.round.answers.extend(asked);
        }
        self.round.offsets.extend(std::mem::take(&mut self.offsets).into_keys());
        self.round.staged.extend(std::mem::take(&mut self.staged).into_keys());
        let held: Vec<_> = self.slots.keys().copied().collect();
        for partition in held {
            self.set_hold(partition, None);
        }
        self.round.meta = true;
        self.aims.clear();
        self.round.is_stale = false;
        self.round.is_membership_changed = false;
        self.timers.clear();
    }

    /// Whoever waits for the end of a drain is answered when it has come.
    pub(crate) fn finish_drain(&mut self) {
        if self.slots.is_empty()
            && let Phase::Draining { asked } = &mut self.phase
        {
            let asked = std::mem::take(asked);
            self.round.answers.extend(asked);
            self.phase = Phase::Drained;
        }
    }
}
