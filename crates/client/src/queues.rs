//! Management of shared queues.

use std::sync::Arc;

use corelane_client_core::{Answer, QueueAnswer, QueueRequest, Request, RequestError};
use corelane_model::{GroupName, QueueWish, TopicName};
use corelane_wire::{
    AlterQueue, DeleteQueue, DescribeQueue, ListQueues, QueueChange, QueueMember, QueuePartition, QueueSummary,
};

use crate::admin::ask;
use crate::client::Handle;
use crate::{QueueError, RedriveSteps};

/// Lines that one question asks for.
const PAGE: u32 = 500;

/// Manages shared queues; from [`crate::Client::queues`].
///
/// A request that only reads is repeated after a lost connection. One that changes something then fails with
/// [`RequestError::ConnectionLost`], because it may have been carried out; saying it again is safe for all but redrive,
/// which may put back what has died since.
#[derive(Clone, Debug)]
pub struct Queues {
    handle: Arc<Handle>,
}

/// All queues at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueList {
    /// The queues, by group and topic id.
    pub queues: Vec<QueueSummary>,
    /// Shards that did not answer in time, so that their queues are missing.
    pub missing_shards: Vec<u8>,
}

/// A queue in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDescription {
    /// The queue in one line.
    pub summary: QueueSummary,
    /// How it is set; all but the dead-letter topic are there.
    pub settings: QueueWish,
    /// Its partitions, by index.
    pub partitions: Vec<QueuePartition>,
    /// Its members, by id.
    pub members: Vec<QueueMember>,
}

impl QueueDescription {
    /// Records that are not done, over all partitions.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(QueuePartition::lag).sum()
    }

    /// For how long the oldest of them has waited, in milliseconds, as far as the owners of partitions said in time.
    #[must_use]
    pub fn lag_ms(&self) -> Option<u64> {
        self.partitions.iter().filter_map(QueuePartition::lag_ms).max()
    }
}

impl Queues {
    pub(crate) const fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// All queues.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn list(&self) -> Result<QueueList, QueueError> {
        let mut list = QueueList { queues: Vec::new(), missing_shards: Vec::new() };
        loop {
            let last = list.queues.last().map(|queue| (queue.group.clone(), queue.topic_id));
            let request = ListQueues { after: last.unwrap_or_default(), most: PAGE };
            let QueueAnswer::Queues(answer) = self.ask(QueueRequest::List(request)).await? else {
                return Err(RequestError::Malformed.into());
            };
            let is_last = !answer.is_cut || answer.queues.is_empty();
            list.queues.extend(answer.queues);
            list.missing_shards.extend(answer.missing_shards);
            if is_last {
                list.missing_shards.sort_unstable();
                list.missing_shards.dedup();
                return Ok(list);
            }
        }
    }

    /// A queue in full.
    ///
    /// # Errors
    /// A name breaks a rule, there is no such queue, or no answer.
    pub async fn describe(&self, group: &str, topic: &str) -> Result<QueueDescription, QueueError> {
        let (group, topic) = names(group, topic)?;
        let mut whole: Option<QueueDescription> = None;
        loop {
            let (from_partition, after_member) = whole.as_ref().map_or((0, None), |known| {
                let from = known.partitions.last().map_or(0, |partition| partition.partition + 1);
                (from, known.members.last().map(|member| member.member))
            });
            let body = DescribeQueue {
                group: group.clone(),
                topic: topic.clone(),
                from_partition,
                most_partitions: PAGE,
                after_member,
                most_members: PAGE,
            };
            let QueueAnswer::Description(answer) = self.ask(QueueRequest::Describe(body)).await? else {
                return Err(RequestError::Malformed.into());
            };
            let settings = answer.settings.to_model().map_err(|_| RequestError::Malformed)?;
            let known = whole.get_or_insert_with(|| QueueDescription {
                summary: answer.summary.clone(),
                settings,
                partitions: Vec::new(),
                members: Vec::new(),
            });
            let is_grown = !answer.partitions.is_empty() || !answer.members.is_empty();
            known.partitions.extend(answer.partitions);
            known.members.extend(answer.members);
            let is_whole = known.partitions.len() >= answer.partition_count as usize && !answer.has_more_members;
            if is_whole || !is_grown {
                return Ok(whole.expect("there was an answer"));
            }
        }
    }

    /// Changes how a queue is set while its members go on; what is `None` stays.
    ///
    /// # Errors
    /// A name breaks a rule, a setting is out of its bounds, there is no such queue, or no answer.
    pub async fn alter(&self, group: &str, topic: &str, wish: &QueueWish) -> Result<(), QueueError> {
        let (group, topic) = names(group, topic)?;
        self.ask(QueueRequest::Alter(AlterQueue { group, topic, settings: QueueChange::from(wish) })).await?;
        Ok(())
    }

    /// Puts dead letters of a queue back into its topic, at most so many or all that there are now. Returns how many. As long as
    /// that takes, other than with [`Self::redrive_steps`], nothing is heard of it.
    ///
    /// # Errors
    /// As for [`RedriveSteps::next`]; what was put back before stays.
    pub async fn redrive(&self, group: &str, topic: &str, most: Option<u64>) -> Result<u64, QueueError> {
        let mut steps = self.redrive_steps(group, topic, most)?;
        while let Some(step) = steps.next().await {
            step?;
        }
        Ok(steps.records())
    }

    /// Puts dead letters of a queue back into its topic, step by step, at most so many or all that there are now.
    ///
    /// # Errors
    /// A name breaks a rule. Nothing was asked of the broker.
    pub fn redrive_steps(&self, group: &str, topic: &str, most: Option<u64>) -> Result<RedriveSteps, QueueError> {
        let (group, topic) = names(group, topic)?;
        Ok(RedriveSteps::new(self.clone(), group, topic, most))
    }

    /// Deletes a queue, not its topic; `is_forced` even when it has members, who are put out.
    ///
    /// # Errors
    /// A name breaks a rule, there is no such queue, it has members, or there is no answer.
    pub async fn delete(&self, group: &str, topic: &str, is_forced: bool) -> Result<(), QueueError> {
        let (group, topic) = names(group, topic)?;
        self.ask(QueueRequest::Delete(DeleteQueue { group, topic, topic_id: 0, is_forced })).await?;
        Ok(())
    }

    pub(crate) async fn ask(&self, request: QueueRequest) -> Result<QueueAnswer, RequestError> {
        match ask(&self.handle, Request::Queue(request)).await? {
            Answer::Queue(answer) => Ok(answer),
            _ => Err(RequestError::Malformed),
        }
    }
}

fn names(group: &str, topic: &str) -> Result<(String, String), QueueError> {
    Ok((GroupName::parse(group)?.as_str().to_owned(), TopicName::parse(topic)?.as_str().to_owned()))
}
