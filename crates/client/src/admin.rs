//! Management of topics.

use std::sync::Arc;

use corelane_client_core::{Answer, Request, RequestError, TopicInfo};
use corelane_model::{CatalogVersion, Isolation, Offset, PartitionIndex, StartAt, TopicId, TopicName, TopicSettings};
use corelane_wire::PartitionDescription;
use tokio::sync::oneshot;

use crate::Error;
use crate::client::Handle;

/// Partitions that one question of [`Admin::describe_topic`] asks for.
const DESCRIBE_PARTITIONS: u32 = 512;

/// Manages topics; from [`crate::Client::admin`].
///
/// A request that only reads is repeated after a lost connection. One that changes something then fails with
/// [`RequestError::ConnectionLost`], because it may have been carried out.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use corelane::TopicSettings;
///
/// let client = corelane::connect("corelane://127.0.0.1:7420").await?;
/// client.admin().create_topic("inputs", 8, TopicSettings::default()).await?;
/// for topic in client.admin().list_topics().await?.topics {
///     println!("{} has {} partitions", topic.name, topic.partitions());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    handle: Arc<Handle>,
}

/// All topics at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicList {
    /// Version of the catalog that it was read from.
    pub catalog_version: CatalogVersion,
    /// How many shards the broker has.
    pub shards: u16,
    /// The topics, by name.
    pub topics: Vec<TopicInfo>,
    /// Whether topics are missing because there are more than an answer holds.
    pub is_cut: bool,
}

/// A topic in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub topic: TopicId,
    /// Its settings.
    pub settings: TopicSettings,
    /// How many partitions it has.
    pub partition_count: u32,
    /// Its partitions by index. Those whose shard did not answer in time are left out.
    pub partitions: Vec<PartitionDescription>,
}

/// What a start position means at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: Offset,
    /// Log start offset.
    pub log_start: Offset,
    /// Exclusive end of what can be read: the high watermark, or the last stable offset for readers of committed records.
    pub high_watermark: Offset,
}

impl Admin {
    pub(crate) const fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// Creates a topic; when this returns, every shard knows it.
    ///
    /// # Errors
    /// The name or a setting is out of bounds, the topic exists, or there is no answer.
    pub async fn create_topic(&self, name: &str, partitions: u32, settings: TopicSettings) -> Result<TopicId, Error> {
        let request = Request::CreateTopic { name: TopicName::parse(name)?, partitions, settings };
        match self.ask(request).await? {
            Answer::TopicCreated { topic, .. } => Ok(topic),
            _ => Err(RequestError::Malformed.into()),
        }
    }

    /// All topics.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn list_topics(&self) -> Result<TopicList, Error> {
        Ok(list(&self.handle, Vec::new()).await?)
    }

    /// One topic and its owners, in brief.
    ///
    /// # Errors
    /// There is no such topic, or no answer.
    pub async fn topic(&self, name: &str) -> Result<TopicInfo, Error> {
        Ok(find_topic(&self.handle, &TopicName::parse(name)?).await?)
    }

    /// A topic in full.
    ///
    /// # Errors
    /// There is no such topic, or no answer.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let name = TopicName::parse(name)?;
        let mut whole: Option<TopicDescription> = None;
        let mut from = 0;
        loop {
            let request =
                Request::DescribeTopic { name: name.clone(), from: PartitionIndex(from), most: DESCRIBE_PARTITIONS };
            let Answer::Topic { name, topic, settings, partition_count, partitions } = self.ask(request).await? else {
                return Err(RequestError::Malformed.into());
            };
            let last = partitions.last().map(|partition| partition.partition);
            let described = whole.get_or_insert_with(|| TopicDescription {
                name,
                topic,
                settings,
                partition_count,
                partitions: Vec::new(),
            });
            described.partitions.extend(partitions.into_iter().filter(|partition| from <= partition.partition));
            // An answer may be shorter than asked; one without any partition has no more to say about this range.
            from = last
                .filter(|&last| from <= last)
                .map_or_else(|| from.saturating_add(DESCRIBE_PARTITIONS), |last| last + 1);
            if partition_count <= from {
                return Ok(whole.expect("there was an answer"));
            }
        }
    }

    /// Changes a topic; what is `None` stays. Returns whether keys now go to other partitions than before, as they do
    /// when there are more partitions.
    ///
    /// # Errors
    /// There is no such topic, a setting is out of bounds, or there is no answer.
    pub async fn alter_topic(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: Option<TopicSettings>,
    ) -> Result<bool, Error> {
        let request = Request::AlterTopic { name: TopicName::parse(name)?, partitions, settings };
        match self.ask(request).await? {
            Answer::TopicAltered { keys_moved, .. } => Ok(keys_moved),
            _ => Err(RequestError::Malformed.into()),
        }
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// There is no such topic, or no answer.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        match self.ask(Request::DeleteTopic { name: TopicName::parse(name)? }).await? {
            Answer::TopicDeleted => Ok(()),
            _ => Err(RequestError::Malformed.into()),
        }
    }

    /// Raises the log start of a partition to `before`, or to everything that is durable. Returns the log start offset
    /// that now holds.
    ///
    /// # Errors
    /// There is no such partition, the offset is outside its log, or there is no answer.
    pub async fn truncate(
        &self,
        topic: &str,
        partition: PartitionIndex,
        before: Option<Offset>,
    ) -> Result<Offset, Error> {
        let request = Request::TruncatePartition { topic: TopicName::parse(topic)?, partition, before };
        match self.ask(request).await? {
            Answer::Truncated { log_start } => Ok(log_start),
            _ => Err(RequestError::Malformed.into()),
        }
    }

    /// Which offset a start position means at the moment.
    ///
    /// # Errors
    /// There is no such partition, or no answer.
    pub async fn find_offset(
        &self,
        topic: &str,
        partition: PartitionIndex,
        start: StartAt,
        isolation: Isolation,
    ) -> Result<FoundOffset, Error> {
        let request = Request::FindOffset { topic: TopicName::parse(topic)?, partition, start, isolation };
        match self.ask(request).await? {
            Answer::Offset { offset, log_start, high_watermark } => {
                Ok(FoundOffset { offset, log_start, high_watermark })
            }
            _ => Err(RequestError::Malformed.into()),
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, RequestError> {
        ask(&self.handle, request).await
    }
}

pub(crate) async fn ask(handle: &Handle, request: Request) -> Result<Answer, RequestError> {
    begin(handle, request).await.unwrap_or(Err(RequestError::Closed))
}

/// Asks, and leaves waiting for the answer to the caller.
pub(crate) fn begin(handle: &Handle, request: Request) -> oneshot::Receiver<Result<Answer, RequestError>> {
    let (sender, receiver) = oneshot::channel();
    handle.shared.act(|inner, now| {
        let operation = inner.core.request(now, request);
        inner.operations.insert(operation, sender);
    });
    receiver
}

async fn list(handle: &Handle, names: Vec<TopicName>) -> Result<TopicList, RequestError> {
    match ask(handle, Request::ListTopics { names }).await? {
        Answer::Topics { catalog_version, shards, topics, is_cut } => {
            Ok(TopicList { catalog_version, shards, topics, is_cut })
        }
        _ => Err(RequestError::Malformed),
    }
}

/// What the broker knows about one topic.
pub(crate) async fn find_topic(handle: &Handle, name: &TopicName) -> Result<TopicInfo, RequestError> {
    let list = list(handle, vec![name.clone()]).await?;
    let found = list.topics.into_iter().find(|topic| topic.name == *name);
    found.ok_or_else(|| RequestError::UnknownTopic { topic: name.clone() })
}
