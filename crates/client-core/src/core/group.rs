//! Memberships: their calls, their frames, where their coordinators are.

use bytes::Bytes;
use corelane_model::{
    ConnectionKey, ErrorCode, Generation, MemberId, MonotonicNanos, Now, Offset, PartitionId, PartitionIndex,
    ResetPolicy, ShardId, StartAt, TopicId, TopicName,
};
use corelane_wire::{
    BodyError, CommitOffsets, Frame, GiveUp, GroupAssignment, GroupHeartbeat, HandOver, JoinGroup, JoinGroupAnswer,
    LeaveGroup, MemberFenced, Metadata, MetadataAnswer, OffsetCommit, PartitionRange, decode, encode, encode_with,
};

use super::ClientCore;
use crate::groups::HOMES_TOPIC;
use crate::membership::{Ask, Asked, Assignment, Change, Membership, Revoked};
use crate::request::Asker;
use crate::timers::Timer;
use crate::{
    CommitError, CommitKey, CommitOffset, Effect, FenceReason, GroupKey, GroupNews, GroupSettings, OutOfRange,
    OutStream, SubscribeSettings, SubscriptionKey,
};

impl ClientCore {
    /// Joins a consumer group; [`GroupNews`] follow until [`GroupNews::Ended`]. The membership lasts through lost
    /// connections, restarts of the broker, and being put out of the group.
    pub fn join_group(&mut self, now: Now, settings: GroupSettings) -> GroupKey {
        let deadline = now.monotonic.after(self.settings.request_timeout);
        let member = self.fresh_member();
        let key = self.groups.add(Membership::new(settings, member, deadline));
        if self.is_closed {
            self.groups.get_mut(key).expect("just added").on_closed();
            self.settle_group(key);
        }
        self.update_wanted();
        key
    }

    /// Leaves a group at once; what auto-commit owes is committed on the way. A static member that is `is_restarting` has
    /// its partitions kept until it is back, at most for its session time-out. [`GroupNews::Ended`] follows.
    pub fn leave_group(&mut self, now: Now, group: GroupKey, is_restarting: bool) {
        let patience = self.settings.request_timeout;
        let (leave_by, deadline) = (now.monotonic.after(patience / 2), now.monotonic.after(patience));
        self.call_group(group, |membership| membership.leave((leave_by, deadline), is_restarting));
    }

    /// Forgets a membership as if the process had died: the group puts the member out after its session time-out.
    pub fn abandon_group(&mut self, group: GroupKey) {
        self.call_group(group, Membership::on_closed);
    }

    /// Commits offsets; news say by the key what becomes of it. Only the newest offset of a partition leaves, and one frame
    /// is under way at a time. Returns the key, and `None` when the membership is over.
    pub fn commit(&mut self, group: GroupKey, offsets: Vec<CommitOffset>) -> Option<CommitKey> {
        self.call_group(group, |membership| membership.commit(offsets))
    }

    /// The application is through with everything of a turn before `offset`. With auto-commit that is committed before
    /// long. Returns whether the next round has a deadline to note, hence should not wait for something else to happen.
    pub fn finished(
        &mut self,
        now: Now,
        group: GroupKey,
        partition: PartitionId,
        turn: Generation,
        offset: Offset,
    ) -> bool {
        let Some(membership) = self.groups.get_mut(group) else { return false };
        let is_first = membership.finished(now.monotonic, partition, turn, offset);
        if is_first {
            self.groups.mark(group);
        }
        is_first
    }

    /// Gives up a partition that the member was asked for, perhaps with something for the next owner, at most
    /// [`corelane_model::limits::GROUP_HANDOVER_BYTES_MAX`]. Returns whether there was anything to give up.
    pub fn give_up(&mut self, group: GroupKey, partition: PartitionId, blob: Option<Bytes>) -> bool {
        self.call_group(group, |membership| membership.give_up(partition, blob)).unwrap_or(false)
    }

    /// Reads a partition from elsewhere within the same turn; nothing is committed by that. Returns what it is read with
    /// from now on, and `None` when it is not this member's turn.
    pub fn seek(
        &mut self,
        group: GroupKey,
        partition: PartitionId,
        turn: Generation,
        start: StartAt,
    ) -> Option<SubscriptionKey> {
        let is_seeking = self.call_group(group, |membership| membership.seek(partition, turn))?;
        if !is_seeking {
            return None;
        }
        let subscription = self.open_turn(group, partition, Some(start));
        let membership = self.groups.get_mut(group).expect("it was just called");
        membership.holding.held.get_mut(&partition).expect("it may seek there").subscription = subscription;
        subscription
    }

    /// Microseconds that the application takes for a record, for the strategy `least-response-time`.
    pub fn measure(&mut self, group: GroupKey, micros: u32) {
        if let Some(membership) = self.groups.get_mut(group) {
            membership.measure(micros);
        }
    }

    pub(super) fn fresh_member(&mut self) -> MemberId {
        // The session is random, the seed may be too; together nobody else has them.
        let id = self.settings.session.0 ^ self.chance.wide();
        MemberId(id)
    }

    fn call_group<T>(&mut self, key: GroupKey, call: impl FnOnce(&mut Membership) -> T) -> Option<T> {
        let result = call(self.groups.get_mut(key)?);
        self.groups.mark(key);
        self.settle_group(key);
        Some(result)
    }

    /// Carries out what a membership has decided about its turns, and passes on its news.
    fn settle_group(&mut self, key: GroupKey) {
        let Some(membership) = self.groups.get_mut(key) else { return };
        let is_over = membership.is_over;
        for change in membership.take_changes() {
            match change {
                Change::End(subscription) => self.unsubscribe(subscription),
                Change::Start(subscription) => self.starting.push(subscription),
                Change::Follow => {
                    self.follow_standbys(key);
                    let told = self.groups.get_mut(key).map(|membership| membership.standbys.told());
                    let news = GroupNews::Standby(told.unwrap_or_default());
                    self.effects.push_back(Effect::Group { group: key, news });
                }
                Change::Begin(partitions) => {
                    let assigned = partitions.into_iter().filter_map(|partition| {
                        let subscription = self.open_turn(key, partition, None);
                        self.groups.get_mut(key)?.assigned(partition, subscription)
                    });
                    let news = GroupNews::Assigned(assigned.collect());
                    self.effects.push_back(Effect::Group { group: key, news });
                }
                Change::Tell(news) => self.effects.push_back(Effect::Group { group: key, news }),
            }
        }
        if is_over {
            self.groups.remove(key);
            self.update_wanted();
        }
    }

    /// Opens what a turn is read with.
    fn open_turn(&mut self, key: GroupKey, partition: PartitionId, from: Option<StartAt>) -> Option<SubscriptionKey> {
        let membership = self.groups.get_mut(key)?;
        let start = from.or_else(|| membership.read_from(partition))?;
        let held = membership.holding.held.get(&partition)?;
        let (topic, is_placed) = (held.topic.clone(), held.is_placed);
        let subscription = self.subscribe_as_member(key, partition, topic, start)?;
        // Where the application has sent it itself says nothing about the group.
        if from.is_none() && !is_placed {
            let reader = self.subscriptions.get_mut(&subscription).expect("just subscribed");
            reader.first_of = Some((key, partition));
        }
        Some(subscription)
    }

    /// Where a turn begins was found out. Whether the group has to know that before anything is handed out.
    pub(super) fn place_turn(
        &mut self,
        (key, partition): (GroupKey, PartitionId),
        subscription: SubscriptionKey,
        first: Offset,
    ) -> bool {
        self.call_group(key, |membership| membership.place(partition, subscription, first)).unwrap_or(false)
    }

    /// Reads a partition as a member's settings say.
    pub(super) fn subscribe_as_member(
        &mut self,
        key: GroupKey,
        partition: PartitionId,
        topic: TopicName,
        start: StartAt,
    ) -> Option<SubscriptionKey> {
        let membership = self.groups.get_mut(key)?;
        let out_of_range = match membership.settings.reset {
            ResetPolicy::Earliest | ResetPolicy::Time(_) => OutOfRange::Earliest,
            ResetPolicy::Latest => OutOfRange::Latest,
            ResetPolicy::Error => OutOfRange::Fail,
        };
        let settings = SubscribeSettings {
            credit_bytes: membership.settings.credit_bytes,
            out_of_range: Some(out_of_range),
            topic_id: Some(partition.topic),
            isolation: membership.settings.isolation,
            ..SubscribeSettings::new(topic, partition.index, start)
        };
        Some(self.subscribe(settings))
    }

    /// When a member is put out that has not given up a partition by then; `None` when it was not asked for it, or has given
    /// it up.
    pub fn revoke_deadline(&mut self, group: GroupKey, partition: PartitionId) -> Option<MonotonicNanos> {
        self.groups.get_mut(group)?.revoke_deadline(partition)
    }

    /// Who a member is to its group: its id as it is on the wire, and the newest generation that it knows.
    #[must_use]
    pub fn member_of_group(&mut self, group: GroupKey) -> Option<((u64, u64), Generation)> {
        let membership = self.groups.get_mut(group)?;
        Some((halves(membership.member), membership.seen))
    }

    /// Who stages these offsets within a transaction: the member's id as it is on the wire, and the newest generation that it
    /// knows. They may be staged only as that, and at once: the group's fence cannot tell a turn of this member from an
    /// earlier one of its own when the generation is newer than both.
    ///
    /// # Errors
    /// [`CommitError::Lost`] with the first partition whose turn is over, also when the member has it anew: others have done
    /// and committed something meanwhile. [`CommitError::Ended`] when the membership is over. Nothing is changed.
    pub fn fence_of_offsets(
        &self,
        group: GroupKey,
        offsets: &[CommitOffset],
    ) -> Result<((u64, u64), Generation), CommitError> {
        let membership = self.groups.get(group).ok_or(CommitError::Ended)?;
        match offsets.iter().find(|offset| !membership.has_turn(offset.partition, offset.turn)) {
            Some(&CommitOffset { partition, .. }) => Err(CommitError::Lost { partition }),
            None => Ok((halves(membership.member), membership.seen)),
        }
    }

    /// Asks for what memberships need, and says what they have to say.
    pub(super) fn advance_groups(&mut self, now: Now) {
        while let Some(key) = self.groups.take_marked() {
            let Some(membership) = self.groups.get_mut(key) else { continue };
            let home = membership.settings.group.home();
            let connection = match self.groups.homes.shard(home) {
                Some(shard) => self.links.ready(shard),
                None if self.groups.homes.is_missing() => self.links.any_ready(None),
                None => None,
            };
            let membership = self.groups.get_mut(key).expect("just looked at");
            let asks = membership.poll(now.monotonic, connection);
            let deadline = membership.next_deadline(connection.is_some());
            if let Some(connection) = connection {
                asks.into_iter().for_each(|ask| self.send_ask(connection, key, ask));
            }
            if let Some(deadline) = deadline.filter(|&deadline| self.groups.arm(now.monotonic, key, deadline)) {
                self.timers.at(deadline, Timer::Group(key));
            }
            self.settle_group(key);
        }
    }

    /// Asks where coordinators are, when somebody needs to know.
    pub(super) fn ask_homes(&mut self, now: Now) {
        let is_needed = !self.groups.is_empty() || !self.leasings.is_empty();
        if !is_needed || !self.groups.homes.is_wanted(now.monotonic) {
            return;
        }
        let Some(connection) = self.links.any_ready(None) else { return };
        self.groups.homes.is_asked = true;
        let correlation = self.requests.add(connection, Asker::Homes);
        self.send_control(connection, correlation, &Metadata { names: vec![HOMES_TOPIC.to_owned()] });
    }

    pub(super) fn on_homes(&mut self, answer: &MetadataAnswer) {
        let found = answer.topics.iter().find(|topic| topic.name == HOMES_TOPIC);
        self.groups.homes.on_answer(found.map(|topic| topic.shards.iter().copied().map(ShardId).collect()));
        self.groups.mark_all();
        self.leasings.mark_all();
        self.update_wanted();
    }

    /// The question has no answer.
    pub(super) fn retry_homes(&mut self, retry_at: MonotonicNanos) {
        self.groups.homes.retry(retry_at);
        self.timers.at(retry_at, Timer::Metadata);
    }

    fn send_ask(&mut self, connection: ConnectionKey, key: GroupKey, ask: Ask) {
        let membership = self.groups.get_mut(key).expect("it has just asked");
        let (member, group) = (halves(membership.member), membership.settings.group.as_str().to_owned());
        match ask {
            Ask::Join => {
                let body = join_body(membership, member, group);
                let correlation = self.requests.add(connection, Asker::Group(key, Asked::Join));
                self.send_control(connection, correlation, &body);
            }
            Ask::Report { seen, holds, processing_micros } => {
                let holds = holds.map(|holds| PartitionRange::of(holds.iter().map(|p| (p.topic.0, p.index.0))));
                let body = GroupHeartbeat { group, member, seen: seen.0, holds, processing_micros };
                let correlation = self.requests.add(connection, Asker::Group(key, Asked::Report));
                self.send_control(connection, correlation, &body);
            }
            Ask::GiveUp { seen, partition, blob } => {
                let (topic, index) = (partition.topic.0, partition.index.0);
                let body = GiveUp { group, member, seen: seen.0, topic, partition: index };
                let correlation = self.requests.add(connection, Asker::Group(key, Asked::GiveUp(partition)));
                let frame = encode_with(correlation, &body, vec![blob]);
                self.send_frame(connection, OutStream::Control, frame);
            }
            Ask::Commit { id, generation, offsets } => {
                let offsets = offsets.into_iter().map(|(partition, offset, metadata)| OffsetCommit {
                    topic: partition.topic.0,
                    partition: partition.index.0,
                    offset: offset.0,
                    leader_epoch: 0,
                    metadata,
                });
                let body = CommitOffsets { group, member, generation: generation.0, offsets: offsets.collect() };
                let correlation = self.requests.add(connection, Asker::Group(key, Asked::Commit(id)));
                self.send_frame(connection, OutStream::Control, encode(correlation, &body));
                self.stats.commits_sent += 1;
            }
            Ask::Leave { is_restarting } => {
                let correlation = self.requests.add(connection, Asker::Group(key, Asked::Leave));
                self.send_control(connection, correlation, &LeaveGroup { group, member, is_restarting });
            }
        }
    }

    /// A request of a membership was answered.
    pub(super) fn on_group_answer(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        (key, asked): (GroupKey, Asked),
        frame: &Frame,
    ) -> Result<(), BodyError> {
        match asked {
            Asked::Join => {
                decode::<JoinGroupAnswer>(frame)?;
                self.call_group(key, |membership| membership.on_joined(now.monotonic, connection));
            }
            Asked::Report | Asked::GiveUp(_) | Asked::Commit(_) | Asked::Leave => {
                corelane_wire::access::<corelane_wire::GroupDone>(frame)?;
                self.call_group(key, |membership| membership.on_done(connection, asked));
            }
        }
        Ok(())
    }

    pub(super) fn on_group_refused(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        (key, asked): (GroupKey, Asked),
        (code, text): (ErrorCode, String),
    ) {
        let Some(membership) = self.groups.get_mut(key) else { return };
        let attempts = membership.attempts;
        let retry_at = self.pause(now, attempts);
        let fresh = self.fresh_member();
        self.call_group(key, |membership| membership.on_refused((connection, asked), (code, text), retry_at, fresh));
        self.groups.renamed(key);
    }

    pub(super) fn on_group_assignment(
        &mut self,
        now: Now,
        connection: ConnectionKey,
        frame: &Frame,
    ) -> Result<(), BodyError> {
        let body = decode::<GroupAssignment>(frame)?;
        let member = member_of(body.member);
        let Some(key) = self.groups.find(member, &body.group) else { return Ok(()) };
        let expand = |ranges: &[PartitionRange]| -> Vec<PartitionId> {
            let all = ranges.iter().flat_map(|range| range.partitions());
            let all = all.take(corelane_model::limits::GROUP_OFFSETS_MAX);
            all.map(|(topic, index)| PartitionId::new(TopicId(topic), PartitionIndex(index))).collect()
        };
        let label =
            |label: &corelane_wire::TopicLabel| Some((TopicId(label.topic), TopicName::parse(&label.name).ok()?));
        let owned = body.owned.iter().map(|owned| {
            let partition = PartitionId::new(TopicId(owned.topic), PartitionIndex(owned.partition));
            (partition, Generation(owned.since), owned.committed.map(Offset))
        });
        let revoking = body.revoking.iter().map(|revoked| {
            let partition = PartitionId::new(TopicId(revoked.topic), PartitionIndex(revoked.partition));
            let deadline = now.monotonic.after(std::time::Duration::from_millis(revoked.within_ms.into()));
            Revoked { partition, since: Generation(revoked.since), deadline }
        });
        let told = Assignment {
            generation: Generation(body.generation),
            topics: body.topics.iter().filter_map(label).collect(),
            owned: owned.collect(),
            revoking: revoking.collect(),
            standby: expand(&body.standby),
        };
        self.call_group(key, |membership| membership.on_assignment(connection, member, told, body.is_last));
        Ok(())
    }

    pub(super) fn on_hand_over(&mut self, connection: ConnectionKey, frame: &Frame) -> Result<(), BodyError> {
        let body = decode::<HandOver>(frame)?;
        let member = member_of(body.member);
        let partition = PartitionId::new(TopicId(body.topic), PartitionIndex(body.partition));
        if let Some(key) = self.groups.find(member, &body.group) {
            let blob = frame.attachment.clone();
            self.call_group(key, |membership| membership.on_hand_over(connection, member, partition, blob));
        }
        Ok(())
    }

    pub(super) fn on_member_fenced(&mut self, frame: &Frame) -> Result<(), BodyError> {
        let body = decode::<MemberFenced>(frame)?;
        if let Some(key) = self.groups.find(member_of(body.member), &body.group) {
            let fresh = self.fresh_member();
            self.call_group(key, |membership| membership.on_fenced(FenceReason::from_wire(body.reason), fresh));
            self.groups.renamed(key);
        }
        Ok(())
    }

    pub(super) fn release_groups(&mut self, connection: ConnectionKey) {
        for key in self.groups.keys() {
            self.call_group(key, |membership| membership.on_lost(connection));
        }
    }

    /// The client is closed.
    pub(super) fn close_groups(&mut self) {
        for key in self.groups.keys() {
            self.call_group(key, Membership::on_closed);
        }
    }
}

pub(super) fn halves(member: MemberId) -> (u64, u64) {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits");
    (half(member.0 >> 64), half(member.0))
}

pub(super) fn member_of((high, low): (u64, u64)) -> MemberId {
    MemberId(u128::from(high) << 64 | u128::from(low))
}

fn join_body(membership: &Membership, member: (u64, u64), group: String) -> JoinGroup {
    let settings = &membership.settings;
    let millis = |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    let (kind, value) = match settings.reset {
        ResetPolicy::Earliest => (0, 0),
        ResetPolicy::Latest => (1, 0),
        ResetPolicy::Time(time) => (2, time.0.cast_unsigned()),
        ResetPolicy::Error => (3, 0),
    };
    JoinGroup {
        group,
        member,
        static_id: settings.static_id.as_ref().map(|id| id.as_str().to_owned()),
        topics: settings.topics.iter().map(|name| name.as_str().to_owned()).collect(),
        pattern: settings.pattern.clone(),
        strategy: settings.strategy.map(|strategy| strategy.name().to_owned()),
        capacity: settings.capacity,
        session_timeout_ms: millis(settings.session_timeout),
        rebalance_timeout_ms: millis(settings.rebalance_timeout),
        reset: corelane_wire::ResetPolicy { kind, value },
    }
}
