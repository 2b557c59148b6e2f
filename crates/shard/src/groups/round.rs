//! What a round does for the homes of this shard, in order.

use std::time::Duration;

use corelane_group::{AppendPosition, Effect, Group, GroupStats, Phase};
use corelane_model::{GroupName, MonotonicNanos, Offset, PartitionId, PartitionIndex, TopicId};

use super::home::{Coordinated, HeldAnswer, Home, HomePhase};
use super::log::{Owner, Reach};
use super::tell::{Telling, tell_assignment, tell_fence, tell_hand_over};
use crate::Shard;
use crate::boot::Phase as ShardPhase;
use crate::home_log::WRITE_AGAIN;

/// A shard that comes to its groups' deadlines later than this was stalled.
const STALL: Duration = Duration::from_millis(100);
/// After a stall sessions do not expire for this long, so that traffic which waited meanwhile is heard first.
const LENIENCE: Duration = Duration::from_millis(100);
/// Groups whose subscriptions are looked up anew in one round.
const STALE_ROUND_MAX: usize = 64;

impl Shard {
    /// Ends the round of every group that something happened to. Whether more can be done at once.
    pub(crate) fn finish_groups(&mut self) -> bool {
        if !matches!(self.phase, ShardPhase::Serving { .. }) {
            return false;
        }
        self.expire_arriving();
        self.expire_lags();
        self.expire_lists();
        self.expire_queue_lists();
        if self.groups.homes.is_empty() {
            return false;
        }
        self.groups.homes.wake_due(self.now.monotonic);
        let mut is_more = self.restore_homes();
        self.meet_deadlines();
        is_more |= self.renew_subscriptions();
        // Most rounds have nothing to do with groups, and must not pay for every home.
        self.retry_reads();
        let now = self.now;
        let lenient_until = self.groups.lenient_until;
        let has_work = |home: &Home| {
            let is_touched = !home.touched.is_empty() || home.log.has_work();
            is_serving(home) && (is_touched || home.queues.has_work(now, lenient_until))
        };
        let homes = self.groups.homes.awake_that(has_work);
        for &index in &homes {
            self.finish_home(index);
            self.finish_queues(index);
            self.write_home(index);
        }
        is_more |= self.shorten_logs(&homes);
        // What queues asked owners here was answered at once.
        let queues_have_work = |home: &Home| is_serving(home) && home.queues.has_work(now, lenient_until);
        // What a group moves or tells in steps goes on in the next round.
        let is_going_on = |home: &Home| is_serving(home) && !home.touched.is_empty();
        is_more |= self.groups.homes.awake().any(|(_, home)| queues_have_work(home) || is_going_on(home));
        self.groups.homes.rest();
        self.ask_ends();
        is_more
    }

    /// Goes on with the snapshots of homes, beginning behind the one that had the last turn.
    fn shorten_logs(&mut self, homes: &[PartitionIndex]) -> bool {
        let mut left = Self::snapshot_budget();
        let mut is_more = false;
        let (before, behind) = homes.split_at(homes.partition_point(|&index| index <= self.groups.turn));
        for &index in behind.iter().chain(before) {
            if self.snapshot_home(index, &mut left) {
                is_more = true;
                self.groups.turn = index;
                self.write_home(index);
            }
            if left == 0 {
                break;
            }
        }
        is_more
    }

    /// When the groups want a round even if nothing happens.
    pub(crate) fn groups_deadline(&self) -> Option<MonotonicNanos> {
        if !matches!(self.phase, ShardPhase::Serving { .. }) {
            return None;
        }
        let members = self.members_deadline().map(|at| at.max(self.groups.lenient_until));
        let is_waiting = self.groups.homes.awake().any(|(_, home)| home.log.is_waiting());
        let again = is_waiting.then(|| self.now.monotonic.after(WRITE_AGAIN));
        let others = [self.groups.arriving.deadline(), self.groups.lags.deadline(), self.groups.lists.deadline()];
        others.into_iter().chain([members, self.queues.deadline(), again]).flatten().min()
    }

    /// When the first group or queue wants to be looked at.
    fn members_deadline(&self) -> Option<MonotonicNanos> {
        self.groups.homes.first_deadline()
    }

    /// Expires sessions and whatever else is due, after the traffic of the round was handled.
    fn meet_deadlines(&mut self) {
        let now = self.now.monotonic;
        let Some(first) = self.members_deadline().filter(|&first| first <= now) else { return };
        if first.max(self.groups.lenient_until).after(STALL) < now {
            self.groups.lenient_until = now.after(LENIENCE);
        }
        if now < self.groups.lenient_until {
            return;
        }
        let is_due = |home: &Home| home.deadlines.first().is_some_and(|&(at, _)| at <= now);
        for index in self.groups.homes.awake_that(is_due) {
            let Some(home) = self.groups.homes.get_mut(&index) else { continue };
            while let Some((at, name)) = home.deadlines.first().cloned()
                && at <= now
            {
                let known = home.groups.get_mut(&name).expect("deadlines are those of groups");
                known.group.on_deadline(self.now);
                home.touch(&name);
                home.deadlines.pop_first();
                home.groups.get_mut(&name).expect("it was just there").armed = None;
                home.arm(&name);
                if home.deadlines.first().is_some_and(|(again, next)| *again == at && *next == name) {
                    // What is due moves on when the group's round ends.
                    break;
                }
            }
        }
    }

    /// The catalog changed: every group has to look its subscriptions up again.
    pub(crate) fn on_catalog_of_groups(&mut self) {
        for home in self.groups.homes.values_mut() {
            home.stale = home.groups.keys().cloned().collect();
            home.queues.are_stale = true;
        }
    }

    /// Looks subscriptions up in the newest catalog and drops what was deleted, some groups in each round.
    fn renew_subscriptions(&mut self) -> bool {
        let Self { groups, catalog, .. } = self;
        let Some(catalog) = catalog.as_ref() else { return false };
        let mut left = STALE_ROUND_MAX;
        for index in groups.homes.awake_that(|home| !home.stale.is_empty()) {
            let Some(home) = groups.homes.get_mut(&index) else { continue };
            while let Some(name) = home.stale.pop_first() {
                let Some(known) = home.groups.get_mut(&name) else { continue };
                for topic in topics_of(&known.group).filter(|&topic| catalog.topic(topic).is_none()) {
                    known.group.forget_topic(topic);
                }
                known.group.on_catalog(|subscription| groups.patterns.resolve(subscription, catalog));
                home.touch(&name);
                left -= 1;
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }

    fn finish_home(&mut self, index: PartitionIndex) {
        let Some(home) = self.groups.homes.get_mut(&index) else { return };
        let mut out = Vec::new();
        for name in std::mem::take(&mut home.touched) {
            let Some(known) = home.groups.get_mut(&name) else { continue };
            known.is_touched = false;
            known.group.finish_round(self.now);
            let appended = known.group.appended();
            known.held.iter_mut().for_each(|held| held.position = held.position.or(Some(appended)));
            let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
            let is_gone = pump((home, &name), self.now.monotonic, catalog, &mut out);
            home.arm(&name);
            if home.groups.get(&name).is_some_and(|known| known.group.is_unfinished()) {
                home.touch(&name);
            }
            if is_gone {
                retire(home, &name, &mut self.groups.retired, &mut out);
            }
        }
        self.tell(out);
    }

    /// Records of a home became durable: what waited for them leaves.
    pub(crate) fn on_home_durable(&mut self, partition: PartitionId, end: Offset) {
        if self.groups.topic != Some(partition.topic) {
            return;
        }
        let Some(home) = self.groups.homes.get_mut(&partition.index) else { return };
        let mut out = Vec::new();
        let mut queues = Vec::new();
        for Reach { owner, serial, position } in home.log.take_durable(end) {
            let name = match owner {
                Owner::Group(name) => name,
                Owner::Queue(name) => {
                    queues.push((name, serial, position));
                    continue;
                }
            };
            let position = AppendPosition(position);
            let Some(known) = home.groups.get_mut(&name).filter(|known| known.serial == serial) else { continue };
            known.durable = known.durable.max(position);
            known.group.on_durable(position);
            let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
            if pump((home, &name), self.now.monotonic, catalog, &mut out) {
                retire(home, &name, &mut self.groups.retired, &mut out);
            }
        }
        self.tell(out);
        for (name, serial, position) in queues {
            self.on_queue_durable(partition.index, name, serial, position);
        }
        self.truncate_home(partition.index, end);
    }
}

/// The topics that a group has something to do with.
fn topics_of(group: &Group) -> impl Iterator<Item = TopicId> + use<> {
    let mut topics: Vec<TopicId> = group.slots().map(|(partition, _)| partition.topic).collect();
    topics.extend(group.offsets().map(|(partition, _)| partition.topic));
    topics.extend(group.staged_partitions().map(|partition| partition.topic));
    topics.sort_unstable();
    topics.dedup();
    topics.into_iter()
}

/// Takes a group's effects: records into the home's log, everything else as things to tell. Whether the group is gone.
fn pump(
    (home, name): (&mut Home, &GroupName),
    now: MonotonicNanos,
    catalog: &corelane_catalog::Catalog,
    out: &mut Vec<Telling>,
) -> bool {
    let Home { groups, log, held_bytes, .. } = home;
    let known = groups.get_mut(name).expect("the caller has it");
    let mut is_gone = false;
    while let Some(effect) = known.group.poll_effect() {
        match effect {
            Effect::Append { position, key, value } => {
                log.push(key, value, Reach::group(name.clone(), known.serial, position));
            }
            Effect::Done { ticket } => {
                if let Some(asked) = known.asked.remove(&ticket) {
                    out.push(Telling::done(&asked, &known.group));
                }
                out.extend(known.settling.remove(&ticket).map(Telling::Applied));
            }
            Effect::Assign { member, assignment } => {
                if let Some(&peer) = known.speakers.get(&member) {
                    tell_assignment(out, peer, (name, member), now, &assignment, catalog);
                }
            }
            Effect::HandOver { member, partition, blob } => {
                if let Some(&peer) = known.speakers.get(&member) {
                    out.push(tell_hand_over(peer, name, member, partition, blob));
                }
            }
            Effect::Fence { member, reason } => {
                if let Some(peer) = known.speakers.remove(&member) {
                    out.push(tell_fence(peer, name, member, reason));
                }
            }
            Effect::Remove => is_gone = true,
        }
    }
    while let Some(HeldAnswer { asker, answer, bytes, .. }) =
        known.held.pop_front_if(|held| held.position.is_some_and(|position| position <= known.durable))
    {
        *held_bytes -= bytes;
        out.push(Telling::Answer(asker, answer));
    }
    is_gone
}

/// Forgets a group of which nothing is left.
fn retire(home: &mut Home, name: &GroupName, retired: &mut GroupStats, out: &mut Vec<Telling>) {
    let known = home.remove(name).expect("the caller has it");
    assert_eq!(*known.group.phase(), Phase::Deleted, "group {name} is removed but not deleted");
    super::status::add(retired, known.group.stats());
    let Coordinated { asked, settling, parked, held, .. } = known;
    out.extend(settling.into_values().map(Telling::Applied));
    let askers =
        asked.into_values().map(|asked| asked.asker).chain(parked.into_iter().map(|parked| parked.request.asker));
    out.extend(askers.map(|asker| Telling::gone(asker, name)));
    for HeldAnswer { asker, answer, bytes, .. } in held {
        home.held_bytes -= bytes;
        out.push(Telling::Answer(asker, answer));
    }
}

/// Whether a home takes requests.
pub(super) const fn is_serving(home: &Home) -> bool {
    matches!(home.phase, HomePhase::Serving)
}

#[cfg(test)]
mod tests {
    use corelane_group::{Commit, Join, Leave, RequestTicket, Settings, Subscription, TopicShape};
    use corelane_model::{
        ConnectionKey, MemberId, Now, ProducerEpoch, ProducerId, ShardId, StaticId, TopicName, Transaction, WallMillis,
    };

    use super::*;
    use crate::ask::Peer;

    const NOW: Now = Now { monotonic: MonotonicNanos(1), wall: WallMillis(1) };

    /// A group with one static member, which has the only partition of topic 5.
    fn group() -> (Group, Join, PartitionId) {
        let mut group = Group::new(NOW, GroupName::parse("g").unwrap(), Settings::default()).unwrap();
        let topics = [TopicName::parse("t").unwrap()].into();
        let shape = TopicShape { topic: TopicId(5), partitions: 1 };
        let subscription = Subscription { topics, pattern: None };
        let static_id = Some(StaticId::parse("s").unwrap());
        let join = Join { static_id, ..Join::new(MemberId(7), subscription, vec![shape]) };
        group.join(NOW, RequestTicket(1), join.clone()).unwrap();
        group.finish_round(NOW);
        (group, join, PartitionId::new(TopicId(5), PartitionIndex(0)))
    }

    #[test]
    fn a_topic_of_which_only_something_is_staged_is_one_of_the_groups() {
        let (mut group, join, partition) = group();
        let transaction = Transaction::new(ProducerId(3), ProducerEpoch(0));
        let fence = (join.member, group.generation());
        let offsets = [Commit::new(partition, Offset(4))];
        group.stage(NOW, RequestTicket(2), transaction, fence, &offsets).unwrap();
        group.leave(NOW, RequestTicket(3), join.member, Leave::ForGood).unwrap();
        group.finish_round(NOW);
        assert_eq!((group.slots_len(), group.offsets().count()), (0, 0));
        assert_eq!(topics_of(&group).collect::<Vec<_>>(), [TopicId(5)]);
    }

    #[test]
    fn a_static_member_that_was_removed_is_told_nothing_more() {
        let (group, join, _) = group();
        let mut known = Coordinated::new(group, 1);
        known.speakers.insert(join.member, Peer { shard: ShardId(0), connection: ConnectionKey(1) });
        known.forget_strangers();
        assert_eq!(known.speakers.len(), 1);
        known.group.remove_static(NOW, RequestTicket(2), join.static_id.as_ref().unwrap()).unwrap();
        known.forget_strangers();
        assert!(known.speakers.is_empty());
    }
}
