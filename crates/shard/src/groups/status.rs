//! What a shard says of its groups to the admin listener.

use corelane_group::{GroupState, GroupStats};

use crate::{GroupStatus, GroupTotals, STATUS_GROUPS_MAX, STATUS_LAGS_MAX, Shard};

impl Shard {
    /// Groups of this shard's homes, the first by home and name; and everything that they counted.
    pub(crate) fn groups_status(&self) -> (Vec<GroupStatus>, GroupTotals) {
        let mut stats = self.groups.retired;
        let mut totals = GroupTotals::default();
        let mut first = Vec::new();
        let mut lags_left = STATUS_LAGS_MAX;
        for known in self.groups.homes.values().flat_map(|home| home.groups.values()) {
            let group = &known.group;
            totals.groups += 1;
            totals.members += group.members_len() as u64;
            add(&mut stats, group.stats());
            if first.len() < STATUS_GROUPS_MAX {
                first.push(GroupStatus {
                    name: group.name().as_str().to_owned(),
                    state: state_name(group.state()),
                    strategy: group.settings().strategy.name(),
                    generation: group.generation().0,
                    members: group.members_len() as u64,
                    partitions: group.slots_len() as u64,
                    lag: self.lag_for_status(known, &mut lags_left),
                });
            }
        }
        totals.joins = stats.joins;
        totals.leaves = stats.leaves;
        totals.rebalances = stats.generations;
        totals.granted_partitions = stats.granted_partitions;
        totals.revoked_partitions = stats.revoked_partitions;
        totals.sessions_expired = stats.sessions_expired;
        totals.rebalance_timeouts = stats.rebalance_timeouts;
        totals.commits = stats.committed_offsets;
        totals.refused_commits = stats.refused_commits;
        totals.appended_bytes = stats.appended_bytes;
        (first, totals)
    }

    /// Requests for groups that wait for something.
    pub(crate) fn groups_waiting(&self) -> usize {
        let known = self.groups.homes.values().flat_map(|home| home.groups.values());
        self.groups.arriving.len()
            + self.groups.lags.len()
            + self.groups.lists.len()
            + known.map(|known| known.asked.len() + known.parked.len() + known.held.len()).sum::<usize>()
    }
}

/// Adds what a group that goes has counted.
pub(super) const fn add(sum: &mut GroupStats, more: &GroupStats) {
    sum.joins += more.joins;
    sum.static_returns += more.static_returns;
    sum.leaves += more.leaves;
    sum.sessions_expired += more.sessions_expired;
    sum.rebalance_timeouts += more.rebalance_timeouts;
    sum.static_ids_taken += more.static_ids_taken;
    sum.generations += more.generations;
    sum.granted_partitions += more.granted_partitions;
    sum.revoked_partitions += more.revoked_partitions;
    sum.committed_offsets += more.committed_offsets;
    sum.refused_commits += more.refused_commits;
    sum.fenced_commits += more.fenced_commits;
    sum.appended_records += more.appended_records;
    sum.appended_bytes += more.appended_bytes;
    sum.expired_offsets += more.expired_offsets;
    sum.handovers += more.handovers;
}

const fn state_name(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "empty",
        GroupState::Stable => "stable",
        GroupState::Reconciling => "reconciling",
        GroupState::Draining => "draining",
        GroupState::Drained => "drained",
        GroupState::Deleted => "deleted",
    }
}
