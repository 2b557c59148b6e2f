//! The homes of a shard, and which of them a round has to look at.

use std::collections::{BTreeMap, BTreeSet};

use corelane_model::{MonotonicNanos, PartitionIndex};

use super::home::Home;

/// The homes of a shard, by partition. Most rounds have nothing to do with groups or queues, and the others with few of them:
/// a home that has nothing to do rests until its first deadline, or until somebody takes hold of it to change it.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    homes: BTreeMap<PartitionIndex, Home>,
    /// Those that may have something to do.
    awake: BTreeSet<PartitionIndex>,
    /// When the others want to be looked at, one entry each for those that do.
    due: BTreeSet<(MonotonicNanos, PartitionIndex)>,
}

impl Homes {
    pub(super) fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// Adds a home, unless it is there.
    pub(super) fn open(&mut self, index: PartitionIndex, home: impl FnOnce() -> Home) {
        self.homes.entry(index).or_insert_with(home);
        self.wake(index);
    }

    pub(super) fn get(&self, index: &PartitionIndex) -> Option<&Home> {
        self.homes.get(index)
    }

    /// A home to be changed: it is looked at in this round.
    pub(super) fn get_mut(&mut self, index: &PartitionIndex) -> Option<&mut Home> {
        self.wake(*index);
        self.homes.get_mut(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PartitionIndex, &Home)> + Clone {
        self.homes.iter()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Home> + Clone {
        self.homes.values()
    }

    /// All homes to be changed: each is looked at in this round.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Home> {
        self.due.clear();
        self.awake.extend(self.homes.keys());
        self.homes.values_mut()
    }

    /// Those that may have something to do, in order.
    pub(super) fn awake(&self) -> impl Iterator<Item = (PartitionIndex, &Home)> {
        self.awake.iter().map(|&index| (index, &self.homes[&index]))
    }

    /// Those of them of which something holds.
    pub(super) fn awake_that(&self, holds: impl Fn(&Home) -> bool) -> Vec<PartitionIndex> {
        self.awake().filter(|(_, home)| holds(home)).map(|(index, _)| index).collect()
    }

    /// When the first home wants to be looked at for what it keeps.
    pub(super) fn first_deadline(&self) -> Option<MonotonicNanos> {
        let awake = self.awake().filter_map(|(_, home)| home.first_deadline());
        awake.chain(self.due.first().map(|&(at, _)| at)).min()
    }

    /// Those whose time has come may have something to do.
    pub(super) fn wake_due(&mut self, now: MonotonicNanos) {
        while let Some(&(at, index)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            self.awake.insert(index);
        }
    }

    /// Those that have nothing to do before their time rest.
    pub(super) fn rest(&mut self) {
        let Self { homes, awake, due } = self;
        awake.retain(|index| {
            let home = &homes[index];
            if home.is_idle() {
                due.extend(home.first_deadline().map(|at| (at, *index)));
            }
            !home.is_idle()
        });
    }

    fn wake(&mut self, index: PartitionIndex) {
        let Some(home) = self.homes.get(&index) else { return };
        // Nobody has changed it since it came to rest, so this is its entry.
        if self.awake.insert(index)
            && let Some(at) = home.first_deadline()
        {
            self.due.remove(&(at, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use corelane_model::{GroupName, PartitionId, TopicId};

    use super::*;
    use crate::groups::home::HomePhase;

    fn homes() -> Homes {
        let mut homes = Homes::default();
        for index in (0..64).map(PartitionIndex) {
            homes.open(index, || Home::new(PartitionId::new(TopicId(1), index), HomePhase::Serving));
        }
        homes
    }

    fn awake(homes: &Homes) -> Vec<u32> {
        homes.awake().map(|(index, _)| index.0).collect()
    }

    #[test]
    fn a_round_looks_at_those_homes_alone_that_have_something_to_do() {
        let mut homes = homes();
        assert_eq!(awake(&homes).len(), 64, "nobody has looked at them");
        homes.rest();
        assert_eq!(awake(&homes), [] as [u32; 0]);
        let name = GroupName::parse("g").unwrap();
        homes.get_mut(&PartitionIndex(7)).unwrap().stale.insert(name.clone());
        homes.get_mut(&PartitionIndex(3)).unwrap();
        assert_eq!(awake(&homes), [3, 7]);
        homes.rest();
        assert_eq!(awake(&homes), [7], "the other has nothing to do");
        homes.get_mut(&PartitionIndex(7)).unwrap().stale.clear();
        homes.rest();
        assert_eq!(awake(&homes), [] as [u32; 0]);
        assert_eq!(homes.values_mut().count(), 64);
        assert_eq!(awake(&homes).len(), 64);
    }

    #[test]
    fn a_home_wakes_when_its_time_has_come_and_not_before() {
        let mut homes = homes();
        let name = GroupName::parse("g").unwrap();
        for (index, at) in [(9, 50), (2, 70)] {
            let home = homes.get_mut(&PartitionIndex(index)).unwrap();
            home.deadlines.insert((MonotonicNanos(at), name.clone()));
        }
        assert_eq!(homes.first_deadline(), Some(MonotonicNanos(50)));
        homes.rest();
        assert_eq!((awake(&homes), homes.first_deadline()), (vec![], Some(MonotonicNanos(50))));
        homes.wake_due(MonotonicNanos(49));
        assert_eq!(awake(&homes), [] as [u32; 0]);
        homes.wake_due(MonotonicNanos(50));
        assert_eq!((awake(&homes), homes.first_deadline()), (vec![9], Some(MonotonicNanos(50))));
        // Its deadline moves while it is awake.
        let home = homes.get_mut(&PartitionIndex(9)).unwrap();
        home.deadlines = [(MonotonicNanos(90), name.clone())].into();
        homes.rest();
        assert_eq!(homes.first_deadline(), Some(MonotonicNanos(70)));
        // One that is changed before its time says anew when that is.
        homes.get_mut(&PartitionIndex(2)).unwrap().deadlines.clear();
        homes.rest();
        assert_eq!((awake(&homes), homes.first_deadline()), (vec![], Some(MonotonicNanos(90))));
    }
}
