//! From a connection to the coordinator of a group.

use std::collections::VecDeque;
use std::time::Duration;

use corelane_model::{ErrorCode, GroupName, MemberId, MonotonicNanos, PartitionId, ShardId};
use corelane_session::{GroupAsk, GroupRequest as Requested, Refused};

use super::home::{Home, HomePhase};
use super::restore::Restoring;
use super::{GROUPS_TOPIC, GroupRequest, HomeRequest};
use crate::Shard;
use crate::ask::{Asker, CatalogRequest, Peer, Wish};
use crate::mesh::Message;

/// How long a request waits until `__groups` is made: some syncs and messages.
const TOPIC_WAIT: Duration = Duration::from_secs(5);
/// Requests that wait for it at once; more are refused.
const ARRIVING_MAX: usize = 4096;

/// Requests that came before there was a topic for groups.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    /// In the order of arrival and thus of their deadlines.
    requests: VecDeque<(MonotonicNanos, HomeRequest)>,
}

impl Arriving {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn deadline(&self) -> Option<MonotonicNanos> {
        self.requests.front().map(|(deadline, _)| *deadline)
    }
}

impl Shard {
    /// A request of a connection here.
    pub(crate) fn handle_group(&mut self, peer: Peer, requested: Requested) {
        let Requested { correlation, group, ask } = requested;
        if let GroupAsk::Stage { transaction, .. } = &ask
            && !self.is_own_producer(peer.connection, transaction.producer)
        {
            let text = format!("producer id {} was handed to another client", transaction.producer);
            return self.refuse(Asker { peer, correlation }, None, Refused::new(ErrorCode::ProducerFenced, text));
        }
        let client = match &ask {
            GroupAsk::Join(_) => {
                self.connections.get(&peer.connection).and_then(|state| state.session.client()).map(|(_, name)| name)
            }
            _ => None,
        };
        let client = client.unwrap_or_default().into();
        self.route_group(GroupRequest { asker: Asker { peer, correlation }, group, client, ask });
    }

    /// Runs, forwards, holds back or refuses a request for a group.
    pub(crate) fn route_group(&mut self, request: GroupRequest) {
        if let Some(refused) = self.refuse_phase() {
            return self.refuse(request.asker, None, refused);
        }
        match self.home_owner(&request.group) {
            Some(owner) if owner == self.me() => self.run_group(request),
            Some(owner) => {
                assert_eq!(request.asker.peer.shard, self.me(), "the home of group {} has two owners", request.group);
                self.stats.forwards += 1;
                self.send_mesh(owner, Message::Group(Box::new(request)));
            }
            None if request.ask.may_create() || self.may_be_behind(request.ask.member()) => {
                self.hold_back(HomeRequest::Group(request));
            }
            None => self.refuse(request.asker, None, no_group(&request)),
        }
    }

    /// Whether this shard has yet to hear of the topic for groups. A member has joined, so the topic was made, though the
    /// catalog's owner alone knows for sure: a member that speaks through another shard meanwhile must not be put out.
    pub(crate) fn may_be_behind(&self, member: Option<MemberId>) -> bool {
        self.me() != ShardId(0) && member.is_some()
    }

    /// The owner of a group's home; nobody before there is one.
    pub(crate) fn home_owner(&self, group: &GroupName) -> Option<ShardId> {
        let topic = self.catalog.as_ref()?.find(GROUPS_TOPIC)?;
        topic.shards.get(group.home().0 as usize).copied()
    }

    /// Keeps a request until there is a topic for groups, and sees to it that it is made.
    pub(crate) fn hold_back(&mut self, request: HomeRequest) {
        if ARRIVING_MAX <= self.groups.arriving.len() {
            let text = format!("{ARRIVING_MAX} requests wait for the topic {GROUPS_TOPIC} already");
            return self.refuse_at_home(&request, Refused::new(ErrorCode::Busy, text));
        }
        let is_first = self.groups.arriving.requests.is_empty();
        let deadline = self.now.monotonic.after(TOPIC_WAIT);
        self.groups.arriving.requests.push_back((deadline, request));
        if is_first {
            self.wish_for_groups();
        }
    }

    fn wish_for_groups(&mut self) {
        let request = CatalogRequest { asker: None, wish: Wish::CreateGroups };
        if self.me() == ShardId(0) {
            self.handle_wish(request);
        } else {
            self.send_mesh(ShardId(0), Message::Wish(Box::new(request)));
        }
    }

    /// Refuses a request in the way that its kind is answered.
    fn refuse_at_home(&mut self, request: &HomeRequest, refused: Refused) {
        match request {
            HomeRequest::Group(request) => self.refuse(request.asker, None, refused),
            HomeRequest::Queue(request) => self.refuse_queue(request, refused),
        }
    }

    /// There is a topic for groups: this shard's homes are opened and what waited is sent on its way.
    pub(crate) fn open_homes(&mut self) {
        let Some(topic) = self.catalog.as_ref().and_then(|catalog| catalog.find(GROUPS_TOPIC)) else { return };
        let partitions: Vec<PartitionId> = topic.partitions_of(self.config.shard).collect();
        self.groups.topic = Some(topic.id);
        for partition in partitions {
            let Some(status) = self.storage.describe(partition) else { continue };
            let phase = HomePhase::Restoring(Restoring::new(status.log_start, status.durable_end));
            self.groups.homes.open(partition.index, || Home::new(partition, phase));
        }
        for (_, request) in std::mem::take(&mut self.groups.arriving.requests) {
            match request {
                HomeRequest::Group(request) => self.route_group(request),
                HomeRequest::Queue(request) => self.route_queue(request),
            }
        }
        self.is_storage_touched = true;
    }

    /// Refuses what has waited too long for the topic.
    pub(super) fn expire_arriving(&mut self) {
        let mut was_any = false;
        while self.groups.arriving.deadline().is_some_and(|deadline| deadline <= self.now.monotonic) {
            let (_, request) = self.groups.arriving.requests.pop_front().expect("it has a deadline");
            let text = format!("the topic {GROUPS_TOPIC} could not be made in time; is the disk full?");
            self.refuse_at_home(&request, Refused::new(ErrorCode::TimedOut, text));
            was_any = true;
        }
        if was_any && !self.groups.arriving.requests.is_empty() {
            self.wish_for_groups();
        }
    }

    /// Refuses what was not taken, and takes nothing more; what is on its way to the disk is answered when it is there.
    pub(crate) fn drain_groups(&mut self, refused: &Refused) {
        let arriving = std::mem::take(&mut self.groups.arriving.requests);
        let mut askers: Vec<Asker> = arriving.iter().filter_map(|(_, request)| request.waits()).collect();
        for home in self.groups.homes.values_mut() {
            askers.extend(home.close(refused));
        }
        askers.extend(self.groups.lags.take_askers());
        askers.extend(self.groups.lists.take_askers());
        askers.extend(self.queues.take_list_askers());
        for asker in askers {
            self.refuse(asker, None, refused.clone());
        }
    }

    /// Refuses everything that waits: the journal failed, or nothing more becomes durable.
    pub(crate) fn stop_groups(&mut self, refused: &Refused) {
        self.drain_groups(refused);
        let askers: Vec<Asker> = self.groups.homes.values_mut().flat_map(|home| home.stop(refused)).collect();
        for asker in askers {
            self.refuse(asker, None, refused.clone());
        }
    }
}

/// The refusal of a request for a group that is not there.
pub(super) fn no_group(request: &GroupRequest) -> Refused {
    let group = &request.group;
    if request.ask.member().is_some() {
        let text = format!("there is no consumer group {group}, so nobody is a member of it; join it first");
        return Refused::new(ErrorCode::UnknownMember, text);
    }
    Refused::new(ErrorCode::UnknownGroup, format!("there is no consumer group {group}"))
}
