//! Who follows a partition, so that it can take over warm.

use std::collections::BTreeSet;

use corelane_model::{MemberId, PartitionId};

use crate::Group;
use crate::subscriptions::Topics;

impl Group {
    /// Each partition is followed by as many as the settings say: those who do already go on, others come from who
    /// follows least.
    pub(crate) fn choose_standbys(&mut self, union: &Topics, order: &[MemberId]) {
        let wanted = usize::from(self.settings.standbys);
        let partitions: Vec<_> = self.slots.keys().copied().collect();
        let mut by_load: BTreeSet<(usize, usize)> =
            order.iter().enumerate().map(|(place, id)| (self.members[id].follows.len(), place)).collect();
        for partition in partitions {
            let is_wanted = union.get(&partition.topic).is_some_and(|&end| partition.index.0 < end);
            let wanted = if is_wanted { wanted } else { 0 };
            self.drop_standbys(partition, wanted, order, &mut by_load);
            while self.slots[&partition].standbys.len() < wanted {
                let found = by_load.iter().copied().find(|&(_, place)| self.may_follow(partition, order[place]));
                let Some((load, place)) = found else { break };
                by_load.remove(&(load, place));
                by_load.insert((load + 1, place));
                self.follow(partition, order[place]);
            }
        }
    }

    fn drop_standbys(
        &mut self,
        partition: PartitionId,
        wanted: usize,
        order: &[MemberId],
        by_load: &mut BTreeSet<(usize, usize)>,
    ) {
        let standbys = self.slots[&partition].standbys.clone();
        let mut kept = 0;
        for standby in standbys {
            if kept < wanted && self.is_fit(partition, standby) {
                kept += 1;
                continue;
            }
            let load = self.members[&standby].follows.len();
            let place = order.iter().position(|&id| id == standby).expect("standbys are members");
            by_load.remove(&(load, place));
            by_load.insert((load - 1, place));
            self.replace_standby(partition, standby, None);
        }
    }

    /// Whether it subscribes to the partition and neither has it nor is meant to have it.
    fn is_fit(&self, partition: PartitionId, id: MemberId) -> bool {
        let hold = &self.slots[&partition].hold;
        let topics = self.subscriptions.topics(self.members[&id].subscription);
        hold.owner() != id
            && hold.target() != Some(id)
            && topics.get(&partition.topic).is_some_and(|&end| partition.index.0 < end)
    }

    fn may_follow(&self, partition: PartitionId, id: MemberId) -> bool {
        !self.slots[&partition].standbys.contains(&id) && self.is_fit(partition, id)
    }

    fn follow(&mut self, partition: PartitionId, id: MemberId) {
        self.slots.get_mut(&partition).expect("only slots are followed").standbys.push(id);
        self.members.get_mut(&id).expect("only members follow").follows.insert(partition);
        self.round.slots.insert(partition);
        self.round.tell.insert(id);
    }

    /// Takes a member off the list of who follows a partition, and puts another in its place if there is one.
    pub(crate) fn replace_standby(&mut self, partition: PartitionId, before: MemberId, after: Option<MemberId>) {
        let slot = self.slots.get_mut(&partition).expect("only slots are followed");
        let place = slot.standbys.iter().position(|&id| id == before).expect("it followed the partition");
        match after {
            Some(after) => slot.standbys[place] = after,
            None => {
                slot.standbys.remove(place);
            }
        }
        self.round.slots.insert(partition);
        self.unfollow(partition, before);
        if let Some(member) = after.and_then(|after| self.members.get_mut(&after)) {
            member.follows.insert(partition);
        }
    }

    /// Keeps the index and tells the member.
    pub(crate) fn unfollow(&mut self, partition: PartitionId, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.follows.remove(&partition);
        }
        self.round.tell.insert(id);
    }
}
