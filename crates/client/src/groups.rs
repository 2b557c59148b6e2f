//! Management of consumer groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corelane_client_core::{Answer, GroupAnswer, GroupRequest, Request, RequestError};
use corelane_model::{
    GroupName, Isolation, Offset, PartitionId, PartitionIndex, StartAt, StaticId, Strategy, TopicId, TopicName,
};
use corelane_wire::{
    AlterGroup, DeleteGroup, DescribeGroup, DrainGroup, GroupMember, GroupPartition, GroupSummary, ListGroups,
    OffsetReset, RemoveStaticMember, ResetOffsets, ResumeGroup,
};

use crate::admin::{ask, find_topic};
use crate::client::Handle;
use crate::group::{Committed, fetch_committed};
use crate::{Error, GroupError};

/// Lines that one question asks for.
const PAGE: u32 = 500;

/// Manages consumer groups; from [`crate::Client::groups`].
///
/// A request that only reads is repeated after a lost connection. One that changes something then fails with
/// [`RequestError::ConnectionLost`]; saying it again is safe for all of them.
#[derive(Clone, Debug)]
pub struct Groups {
    handle: Arc<Handle>,
}

/// All groups at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupList {
    /// The groups, by name.
    pub groups: Vec<GroupSummary>,
    /// Shards that did not answer in time, so that their groups are missing.
    pub missing_shards: Vec<u8>,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group in one line.
    pub summary: GroupSummary,
    /// How many follow each partition.
    pub standbys: u8,
    /// How long committed offsets are kept without members.
    pub retention: Duration,
    /// The members, by id.
    pub members: Vec<GroupMember>,
    /// The partitions that somebody has or has committed for, in order.
    pub partitions: Vec<GroupPartition>,
    /// Names of topics by id; one that was deleted is missing.
    pub topics: BTreeMap<u64, String>,
}

/// What is to be different about a group; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// How partitions are assigned.
    pub strategy: Option<Strategy>,
    /// How many follow each partition, 0 to 3.
    pub standbys: Option<u8>,
    /// How long committed offsets are kept without members.
    pub retention: Option<Duration>,
}

impl GroupDescription {
    /// The name of a partition's topic, or its id if the topic was deleted.
    #[must_use]
    pub fn topic(&self, partition: &GroupPartition) -> String {
        self.topics.get(&partition.topic).cloned().unwrap_or_else(|| format!("(deleted {})", partition.topic))
    }

    /// Records that are not done. `None` as long as that is not known of a partition: its owner did not say so in time, or
    /// the group has committed nothing for it and there is something to read.
    #[must_use]
    pub fn lag(&self) -> Option<u64> {
        self.partitions.iter().map(|partition| partition.lag).sum()
    }

    /// For how long the oldest of them has waited, in milliseconds, as far as the owners of partitions said in time.
    #[must_use]
    pub fn lag_ms(&self) -> Option<u64> {
        self.partitions.iter().filter_map(|partition| partition.lag_ms).max()
    }

    /// Lag of the partitions that a member has: in records as [`Self::lag`], in milliseconds as [`Self::lag_ms`].
    #[must_use]
    pub fn lag_of(&self, member: &GroupMember) -> (Option<u64>, Option<u64>) {
        let owned = || self.partitions.iter().filter(|partition| partition.owner == Some(member.member));
        (owned().map(|partition| partition.lag).sum(), owned().filter_map(|partition| partition.lag_ms).max())
    }
}

impl Groups {
    pub(crate) const fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// All groups.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn list(&self) -> Result<GroupList, Error> {
        let mut list = GroupList { groups: Vec::new(), missing_shards: Vec::new() };
        loop {
            let after = list.groups.last().map_or_else(String::new, |group| group.name.clone());
            let GroupAnswer::Groups(answer) = self.ask(GroupRequest::List(ListGroups { after, most: PAGE })).await?
            else {
                return Err(RequestError::Malformed.into());
            };
            let is_last = !answer.is_cut || answer.groups.is_empty();
            list.groups.extend(answer.groups);
            list.missing_shards.extend(answer.missing_shards);
            if is_last {
                list.missing_shards.sort_unstable();
                list.missing_shards.dedup();
                return Ok(list);
            }
        }
    }

    /// A group in full.
    ///
    /// # Errors
    /// The name breaks a rule, there is no such group, or no answer.
    pub async fn describe(&self, group: &str) -> Result<GroupDescription, GroupError> {
        let group = GroupName::parse(group)?;
        let mut whole: Option<GroupDescription> = None;
        let (mut after_member, mut after_partition) = (None, None);
        let (mut most_members, mut most_partitions) = (PAGE, PAGE);
        loop {
            let body = DescribeGroup {
                group: group.as_str().to_owned(),
                after_member,
                most_members,
                after_partition,
                most_partitions,
            };
            let GroupAnswer::Description(answer) = self.ask(GroupRequest::Describe(body)).await? else {
                return Err(RequestError::Malformed.into());
            };
            let known = whole.get_or_insert_with(|| GroupDescription {
                summary: answer.summary.clone(),
                standbys: answer.standbys,
                retention: Duration::from_millis(answer.retention_ms),
                members: Vec::new(),
                partitions: Vec::new(),
                topics: BTreeMap::new(),
            });
            let has_more_members = answer.is_members_cut && !answer.members.is_empty();
            let has_more_partitions = answer.is_partitions_cut && !answer.partitions.is_empty();
            known.topics.extend(answer.topics.into_iter().map(|label| (label.topic, label.name)));
            known.members.extend(answer.members);
            known.partitions.extend(answer.partitions);
            most_members = if has_more_members { PAGE } else { 0 };
            most_partitions = if has_more_partitions { PAGE } else { 0 };
            after_member = known.members.last().map(|member| member.member);
            after_partition = known.partitions.last().map(|partition| (partition.topic, partition.partition));
            if !has_more_members && !has_more_partitions {
                return Ok(whole.expect("there was an answer"));
            }
        }
    }

    /// What a group has committed in a topic, by partition. One without a committed offset is left out; offsets that a
    /// transaction has staged and not committed are not in it. [`Self::describe`] has all topics, and the lag.
    ///
    /// # Errors
    /// A name breaks a rule, there is no such group or topic, or no answer.
    pub async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<PartitionIndex, Committed>, GroupError> {
        let group = GroupName::parse(group)?;
        let (id, partitions) = self.partitions(topic, &[]).await?;
        let partitions = partitions.into_iter().map(|index| PartitionId::new(TopicId(id), index));
        let found = fetch_committed(&self.handle, group.as_str(), partitions).await?;
        Ok(found.into_iter().map(|(id, committed)| (id.index, committed)).collect())
    }

    /// Puts the committed offsets of a topic's partitions, of all of them if none is named, to what a start position means
    /// now to its readers: the latest of those of committed records is the last stable offset. Makes the group if there is none. All or none are changed; returns what was put.
    ///
    /// # Errors
    /// A name breaks a rule, there is no such topic or partition, somebody has one of them, or there is no answer.
    pub async fn seek(
        &self,
        group: &str,
        topic: &str,
        partitions: &[PartitionIndex],
        to: StartAt,
        isolation: Isolation,
    ) -> Result<Vec<(PartitionIndex, Offset)>, GroupError> {
        let mut put = Vec::new();
        let (id, partitions) = self.partitions(topic, partitions).await?;
        for &partition in &partitions {
            let name = TopicName::parse(topic)?;
            let request = Request::FindOffset { topic: name, partition, start: to, isolation };
            let Answer::Offset { offset, .. } = ask(&self.handle, request).await? else {
                return Err(RequestError::Malformed.into());
            };
            put.push((partition, offset));
        }
        let resets = put.iter().map(|&(partition, offset)| OffsetReset {
            topic: id,
            partition: partition.0,
            offset: Some(offset.0),
            metadata: String::new(),
        });
        self.reset_offsets(group, true, resets.collect()).await?;
        Ok(put)
    }

    /// Forgets the committed offsets of a topic's partitions, of all of them if none is named, so that members begin by
    /// their reset policy. All or none are forgotten; returns which.
    ///
    /// # Errors
    /// As [`Self::seek`], or there is no such group.
    pub async fn reset(
        &self,
        group: &str,
        topic: &str,
        partitions: &[PartitionIndex],
    ) -> Result<Vec<PartitionIndex>, GroupError> {
        let (id, partitions) = self.partitions(topic, partitions).await?;
        let resets = partitions.iter().map(|partition| OffsetReset {
            topic: id,
            partition: partition.0,
            offset: None,
            metadata: String::new(),
        });
        self.reset_offsets(group, false, resets.collect()).await?;
        Ok(partitions)
    }

    async fn partitions(
        &self,
        topic: &str,
        named: &[PartitionIndex],
    ) -> Result<(u64, Vec<PartitionIndex>), GroupError> {
        let info = find_topic(&self.handle, &TopicName::parse(topic)?).await?;
        let partitions = match named {
            [] => (0..info.partitions()).map(PartitionIndex).collect(),
            named => named.to_vec(),
        };
        Ok((info.topic.0, partitions))
    }

    async fn reset_offsets(&self, group: &str, may_create: bool, resets: Vec<OffsetReset>) -> Result<(), GroupError> {
        let group = GroupName::parse(group)?.as_str().to_owned();
        self.ask(GroupRequest::ResetOffsets(ResetOffsets { group, may_create, resets })).await?;
        Ok(())
    }

    /// Changes a group's settings while its members go on; makes the group if there is none.
    ///
    /// # Errors
    /// The name breaks a rule, a setting is out of its bounds, or there is no answer.
    pub async fn alter(&self, group: &str, change: GroupChange) -> Result<(), GroupError> {
        let GroupChange { strategy, standbys, retention } = change;
        let body = AlterGroup {
            group: GroupName::parse(group)?.as_str().to_owned(),
            may_create: true,
            strategy: strategy.map(|strategy| strategy.name().to_owned()),
            standbys,
            retention_ms: retention.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        };
        self.ask(GroupRequest::Alter(body)).await?;
        Ok(())
    }

    /// Asks everything back from the members, and waits until nobody has anything, however long that takes. Members stay;
    /// nobody may join until [`Self::resume`].
    ///
    /// # Errors
    /// The name breaks a rule, there is no such group, or the connection is lost; the drain goes on then.
    pub async fn drain(&self, group: &str) -> Result<(), GroupError> {
        let group = GroupName::parse(group)?.as_str().to_owned();
        loop {
            match self.ask(GroupRequest::Drain(DrainGroup { group: group.clone() })).await {
                Err(RequestError::TimedOut { was_sent: true }) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// Assigns again after a drain.
    ///
    /// # Errors
    /// The name breaks a rule, there is no such group, or no answer.
    pub async fn resume(&self, group: &str) -> Result<(), GroupError> {
        let group = GroupName::parse(group)?.as_str().to_owned();
        self.ask(GroupRequest::Resume(ResumeGroup { group })).await?;
        Ok(())
    }

    /// Deletes a group without members, or a drained one, with its committed offsets.
    ///
    /// # Errors
    /// The name breaks a rule, there is no such group, it has members, or there is no answer.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let group = GroupName::parse(group)?.as_str().to_owned();
        self.ask(GroupRequest::Delete(DeleteGroup { group })).await?;
        Ok(())
    }

    /// Removes a static member that will not come back, so that others get its partitions at once.
    ///
    /// # Errors
    /// A name breaks a rule, there is no such group or member, or no answer.
    pub async fn remove_static(&self, group: &str, static_id: &str) -> Result<(), GroupError> {
        let group = GroupName::parse(group)?.as_str().to_owned();
        let static_id = StaticId::parse(static_id)?.as_str().to_owned();
        self.ask(GroupRequest::RemoveStaticMember(RemoveStaticMember { group, static_id })).await?;
        Ok(())
    }

    async fn ask(&self, request: GroupRequest) -> Result<GroupAnswer, RequestError> {
        match ask(&self.handle, Request::Group(request)).await? {
            Answer::Group(answer) => Ok(answer),
            _ => Err(RequestError::Malformed),
        }
    }
}
