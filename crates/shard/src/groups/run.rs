//! Requests at their coordinator.

use std::time::Duration;

use bytes::Bytes;
use corelane_group::{
    Change, Commit, Group, GroupError, Join, Leave, OffsetReset, Phase, Report, RequestTicket, Settings, Subscription,
};
use corelane_model::{
    ErrorCode, GroupName, LeaderEpoch, MemberId, Now, Offset, PartitionId, PartitionIndex, ResetPolicy, TopicId,
};
use corelane_session::{GroupAsk, JoinAsk, Refused};
use corelane_wire::{GroupDone, PartitionRange};

use super::ends::{Known, offsets_of};
use super::home::{Asked, Coordinated, HomePhase};
use super::log::busy;
use super::route::no_group;
use super::tell::GroupAnswer;
use super::{GroupRequest, HomeRequest, round::is_serving};
use crate::Shard;
use crate::ask::{Answer, Asker};

/// Groups that have one home; more are refused.
const HOME_GROUPS_MAX: usize = 16_384;

/// What a request came to.
enum Ran {
    /// It is answered under its ticket.
    Later { joined: Option<(u32, u32)>, staged: Option<u32> },
    /// It is done, and nothing of it has to be durable first.
    Now,
}

impl Shard {
    /// Takes in a request for a group whose home is here.
    pub(crate) fn run_group(&mut self, request: GroupRequest) {
        let index = request.group.home();
        let home = self.groups.homes.get_mut(&index);
        let request = match home.map(|home| &mut home.phase) {
            Some(HomePhase::Restoring(restoring)) => match restoring.hold(HomeRequest::Group(request)) {
                Some(HomeRequest::Group(request)) => request,
                Some(HomeRequest::Queue(_)) | None => return,
            },
            _ => request,
        };
        if let Err(refused) = self.admit_group(index, &request) {
            self.hear_member(index, &request.group, request.ask.member());
            return self.refuse(request.asker, None, refused);
        }
        let Some(request) = self.hold_offsets(request) else { return };
        if self.is_behind(index, &request) {
            return self.park(index, request, None, Vec::new());
        }
        self.run_or_park(index, request, None);
    }

    /// Runs a request that waited for ends; whether it did not have to wait again.
    pub(super) fn run_parked(&mut self, index: PartitionIndex, request: GroupRequest, needs: Option<u64>) -> bool {
        if let Err(refused) = self.admit_group(index, &request) {
            self.refuse(request.asker, None, refused);
            return true;
        }
        // Its transaction may be over by now: what is staged after that nobody would ever decide.
        match self.hold_offsets(request) {
            Some(request) => self.run_or_park(index, request, needs),
            None => true,
        }
    }

    /// Who speaks lives, also when what it says is refused.
    fn hear_member(&mut self, index: PartitionIndex, name: &GroupName, member: Option<MemberId>) {
        let Some(home) = self.groups.homes.get_mut(&index).filter(|home| is_serving(home)) else { return };
        let known = home.groups.get_mut(name);
        if let (Some(known), Some(member)) = (known, member)
            && known.group.touch(self.now, member).is_ok()
        {
            home.touch(name);
        }
    }

    /// Everything that stands against a request before its group is asked; a group is made for those that may.
    fn admit_group(&mut self, index: PartitionIndex, request: &GroupRequest) -> Result<(), Refused> {
        if let Some(refused) = self.refuse_phase() {
            return Err(refused);
        }
        let Some(home) = self.groups.homes.get_mut(&index) else {
            return Err(Refused::new(ErrorCode::Recovering, "the group's home is being opened; try again in a moment"));
        };
        match &home.phase {
            HomePhase::Serving => {}
            HomePhase::Broken(refused) => return Err(refused.clone()),
            HomePhase::Restoring(_) => {
                let text = "the group is being read from disk; try again in a moment";
                return Err(Refused::new(ErrorCode::Recovering, text));
            }
        }
        if home.log.is_full() && !is_small(&request.ask) {
            return Err(busy());
        }
        if let Some(queue) = home.queues.of_group(&request.group) {
            let topic = self.catalog.as_ref().and_then(|catalog| catalog.topic(queue.topic));
            let topic = topic.map_or_else(|| queue.topic.to_string(), |topic| topic.name.as_str().to_owned());
            let group = &request.group;
            let text = format!(
                "the name {group} is in use as a shared queue on topic {topic}; a consumer group needs another"
            );
            return Err(Refused::new(ErrorCode::GroupIsQueue, text));
        }
        match home.groups.get(&request.group) {
            Some(known) if *known.group.phase() == Phase::Deleted && request.ask.may_create() => {
                let text = format!("consumer group {} is being deleted; try again in a moment", request.group);
                Err(Refused::new(ErrorCode::Busy, text))
            }
            Some(known) => known.check_speaker(request),
            None if !request.ask.may_create() => Err(no_group(request)),
            None if HOME_GROUPS_MAX <= home.groups.len() => {
                let text = format!("the home of group {} keeps {HOME_GROUPS_MAX} groups already", request.group);
                Err(Refused::new(ErrorCode::LimitReached, text))
            }
            None => {
                let group = Group::new(self.now, request.group.clone(), Settings::default())
                    .expect("the defaults are within their bounds");
                let serial = self.groups.ticket();
                let home = self.groups.homes.get_mut(&index).expect("it was just there");
                home.groups.insert(request.group.clone(), Coordinated::new(group, serial));
                Ok(())
            }
        }
    }

    /// Runs a request if the ends are known that it needs; whether that is so.
    fn run_or_park(&mut self, index: PartitionIndex, request: GroupRequest, needs: Option<u64>) -> bool {
        let offsets = offsets_of(&request.ask);
        // What would be refused anyway asks nobody, and is refused by the group itself.
        let ends = if offsets.is_empty() || !self.is_fence_open(index, &request) {
            Vec::new()
        } else {
            match self.ends_for(&offsets, needs) {
                Known::All(ends) => ends,
                Known::Missing(missing) => {
                    self.park(index, request, needs, missing);
                    return false;
                }
                Known::Never(refused) => {
                    self.hear_member(index, &request.group, request.ask.member());
                    self.refuse(request.asker, None, refused);
                    self.drop_if_new(index, &request.group);
                    return true;
                }
            }
        };
        match &request.ask {
            GroupAsk::Describe { .. } => self.describe_group(index, &request),
            GroupAsk::FetchOffsets { .. } => self.fetch_offsets(index, &request),
            _ => self.run_ticketed(index, request, &ends),
        }
        true
    }

    fn is_fence_open(&self, index: PartitionIndex, request: &GroupRequest) -> bool {
        let (GroupAsk::Commit { member, generation, offsets } | GroupAsk::Stage { member, generation, offsets, .. }) =
            &request.ask
        else {
            return true;
        };
        let known = self.groups.homes.get(&index).and_then(|home| home.groups.get(&request.group));
        known.is_some_and(|known| {
            offsets.iter().all(|commit| {
                let partition = PartitionId::new(TopicId(commit.topic), PartitionIndex(commit.partition));
                known.group.check_fence(*member, *generation, partition).is_ok()
            })
        })
    }

    fn run_ticketed(&mut self, index: PartitionIndex, request: GroupRequest, ends: &[Offset]) {
        let GroupRequest { asker, group: name, client, ask } = request;
        let ticket = RequestTicket(self.groups.ticket());
        // What is staged goes to the group through whichever shard the client talks to about its transactions.
        let member = ask.member().filter(|_| !matches!(ask, GroupAsk::Stage { .. }));
        let is_leaving = matches!(ask, GroupAsk::Leave { .. });
        let is_removing = matches!(ask, GroupAsk::RemoveStatic { .. });
        let topics = match self.resolve_join(&ask) {
            Ok(topics) => topics,
            Err(refused) => {
                self.refuse(asker, None, refused);
                return self.drop_if_new(index, &name);
            }
        };
        let now = self.now;
        let home = self.groups.homes.get_mut(&index).expect("the request was admitted");
        assert!(is_serving(home), "only homes that serve run requests");
        let known = home.groups.get_mut(&name).expect("the request was admitted");
        match run(&mut known.group, now, ticket, ask, (topics, &client), ends) {
            Ok(ran) => {
                note_speaker(known, member.filter(|_| !is_leaving), asker);
                if let Some(gone) = member.filter(|_| is_leaving) {
                    known.speakers.remove(&gone);
                }
                if is_removing {
                    known.forget_strangers();
                }
                let generation = known.group.generation().0;
                match ran {
                    Ran::Later { joined, staged } => {
                        known.asked.insert(ticket, Asked { asker, joined, staged });
                    }
                    Ran::Now => self.answer(asker, None, Answer::Group(GroupAnswer::Done(GroupDone { generation }))),
                }
                let home = self.groups.homes.get_mut(&index).expect("it was just there");
                home.touch(&name);
                home.arm(&name);
            }
            Err(error) => {
                self.hear_member(index, &name, member);
                let text = match error.partition() {
                    Some(partition) => self.in_names(partition, &error.to_string()),
                    None => error.to_string(),
                };
                self.refuse(asker, None, Refused::new(error.code(), text));
                self.drop_if_new(index, &name);
            }
        }
    }

    /// What a join subscribes to, and its topics today.
    fn resolve_join(&mut self, ask: &GroupAsk) -> Result<Vec<corelane_group::TopicShape>, Refused> {
        let GroupAsk::Join(join) = ask else { return Ok(Vec::new()) };
        if let Some(pattern) = &join.pattern {
            self.groups.patterns.check(pattern)?;
        }
        let catalog = self.catalog.as_ref().expect("homes are opened when the catalog is known");
        Ok(self.groups.patterns.resolve(&subscription_of(join), catalog))
    }

    /// Forgets a group that was made for a request which was then refused: nothing of it was written.
    fn drop_if_new(&mut self, index: PartitionIndex, name: &GroupName) {
        let Some(home) = self.groups.homes.get_mut(&index) else { return };
        let is_new = home.groups.get(name).is_some_and(|known| {
            known.group.appended().0 == 0
                && known.group.members_len() == 0
                && known.asked.is_empty()
                && known.parked.is_empty()
                && known.durable.0 == 0
                && !known.is_touched
        });
        // A group that was restored is touched at once, and again whenever something happens to it.
        if is_new && home.groups.get(name).is_some_and(|known| known.armed.is_none()) {
            home.remove(name);
        }
    }
}

/// Whether a request is taken even if the home's log is full: questions, which write nothing, and heartbeats, of which little
/// is written, and without which members would be put out.
const fn is_small(ask: &GroupAsk) -> bool {
    matches!(ask, GroupAsk::Heartbeat { .. } | GroupAsk::Describe { .. } | GroupAsk::FetchOffsets { .. })
}

impl Coordinated {
    /// A member has gone on to speak on another connection: what comes late on the one before it has said again, and more.
    /// An old commit among that would take back a newer one, and its assignments would go where it does not hear them.
    fn check_speaker(&self, request: &GroupRequest) -> Result<(), Refused> {
        if matches!(request.ask, GroupAsk::Stage { .. }) {
            return Ok(());
        }
        let Some(member) = request.ask.member() else { return Ok(()) };
        let peer = request.asker.peer;
        match self.speakers.get(&member) {
            Some(speaker) if speaker.shard == peer.shard && peer.connection < speaker.connection => {
                let text = format!("member {member} of group {} speaks on a newer connection by now", request.group);
                Err(Refused::new(ErrorCode::StaleGeneration, text))
            }
            _ => Ok(()),
        }
    }
}

/// Where a member is told things from now on.
fn note_speaker(known: &mut Coordinated, member: Option<MemberId>, asker: Asker) {
    if let Some(member) = member {
        known.speakers.insert(member, asker.peer);
    }
}

fn subscription_of(join: &JoinAsk) -> Subscription {
    Subscription { topics: join.topics.clone(), pattern: join.pattern.clone() }
}

fn partitions_of(ranges: &[PartitionRange]) -> Vec<PartitionId> {
    let partitions = ranges.iter().flat_map(|range| range.partitions());
    partitions.map(|(topic, index)| PartitionId::new(TopicId(topic), PartitionIndex(index))).collect()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Asks the group itself.
fn run(
    group: &mut Group,
    now: Now,
    ticket: RequestTicket,
    ask: GroupAsk,
    (topics, client): (Vec<corelane_group::TopicShape>, &str),
    ends: &[Offset],
) -> Result<Ran, GroupError> {
    let mut joined = None;
    let mut staged = None;
    match ask {
        GroupAsk::Join(join) => {
            joined = Some((millis(join.session_timeout), millis(join.rebalance_timeout)));
            group.join(now, ticket, join_of(*join, topics, client))?;
        }
        GroupAsk::Heartbeat { member, seen, holds, processing_micros } => {
            let holds = holds.as_deref().map(partitions_of);
            let report = Report { seen, holds: holds.as_deref(), processing_micros };
            group.heartbeat(now, member, report)?;
            return Ok(Ran::Now);
        }
        GroupAsk::GiveUp { member, seen, partition, blob } => {
            // The bytes share memory with all that arrived together; they may stay for long.
            let blob = blob.map(|blob| Bytes::copy_from_slice(&blob));
            group.give_up(now, member, seen, partition, blob)?;
            return Ok(Ran::Now);
        }
        GroupAsk::Leave { member, is_restarting } => {
            let leave = if is_restarting { Leave::Restarting } else { Leave::ForGood };
            group.leave(now, ticket, member, leave)?;
        }
        GroupAsk::Commit { member, generation, offsets } => {
            group.commit(now, ticket, member, generation, &commits_of(offsets, ends))?;
        }
        GroupAsk::Stage { transaction, member, generation, offsets, .. } => {
            staged = Some(u32::try_from(offsets.len()).unwrap_or(u32::MAX));
            group.stage(now, ticket, transaction, (member, generation), &commits_of(offsets, ends))?;
        }
        GroupAsk::ResetOffsets { resets, .. } => group.reset_offsets(now, ticket, &resets_of(resets, ends))?,
        GroupAsk::Alter { strategy, standbys, retention, .. } => {
            group.alter(now, ticket, Change { strategy, standbys, retention })?;
        }
        GroupAsk::Drain => group.drain(ticket)?,
        GroupAsk::Resume => group.resume(ticket)?,
        GroupAsk::Delete => group.delete(now, ticket)?,
        GroupAsk::RemoveStatic { static_id } => group.remove_static(now, ticket, &static_id)?,
        GroupAsk::Describe { .. } | GroupAsk::FetchOffsets { .. } => panic!("questions take no ticket"),
    }
    Ok(Ran::Later { joined, staged })
}

fn commits_of(offsets: Vec<corelane_wire::OffsetCommit>, ends: &[Offset]) -> Vec<Commit> {
    let commit = |(at, offset): (usize, corelane_wire::OffsetCommit)| Commit {
        partition: PartitionId::new(TopicId(offset.topic), PartitionIndex(offset.partition)),
        offset: Offset(offset.offset),
        leader_epoch: LeaderEpoch(offset.leader_epoch),
        metadata: offset.metadata,
        log_end: ends.get(at).copied(),
    };
    offsets.into_iter().enumerate().map(commit).collect()
}

fn join_of(join: JoinAsk, topics: Vec<corelane_group::TopicShape>, client: &str) -> Join {
    let reset: ResetPolicy = join.reset;
    Join {
        subscription: subscription_of(&join),
        member: join.member,
        client: client.to_owned(),
        static_id: join.static_id,
        topics,
        strategy: join.strategy,
        capacity: join.capacity,
        session_timeout: join.session_timeout,
        rebalance_timeout: join.rebalance_timeout,
        reset,
    }
}

fn resets_of(resets: Vec<corelane_wire::OffsetReset>, ends: &[Offset]) -> Vec<OffsetReset> {
    let mut ends = ends.iter().copied();
    let reset = |reset: corelane_wire::OffsetReset| {
        let partition = PartitionId::new(TopicId(reset.topic), PartitionIndex(reset.partition));
        match reset.offset {
            Some(offset) => OffsetReset::To(Commit {
                metadata: reset.metadata,
                log_end: ends.next(),
                ..Commit::new(partition, Offset(offset))
            }),
            None => OffsetReset::Forget(partition),
        }
    };
    resets.into_iter().map(reset).collect()
}
