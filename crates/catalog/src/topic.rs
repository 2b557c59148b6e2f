//! The catalog itself.

use std::collections::BTreeMap;

use corelane_model::limits::{CATALOG_BYTES_MAX, PARTITIONS_MAX, SHARDS_MAX, TOPIC_PARTITIONS_MAX, TOPICS_MAX};
use corelane_model::{
    CatalogVersion, NameError, PartitionId, PartitionIndex, ShardId, TopicId, TopicName, TopicSettings,
};

use crate::placement::Load;
use crate::{ApplyError, CatalogChange, CatalogError, check_settings};

/// A topic as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Its settings.
    pub settings: TopicSettings,
    /// The owner of each partition, by index.
    pub shards: Vec<ShardId>,
}

impl Topic {
    /// How many partitions it has.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.shards.len()).expect("a topic has at most 16,384 partitions")
    }

    /// Its partitions that a shard owns.
    pub fn partitions_of(&self, shard: ShardId) -> impl Iterator<Item = PartitionId> + '_ {
        (0_u32..)
            .zip(&self.shards)
            .filter(move |&(_, &owner)| owner == shard)
            .map(|(index, _)| PartitionId::new(self.id, PartitionIndex(index)))
    }
}

/// All topics. Equal on every shard that has applied the same changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    version: CatalogVersion,
    next_topic: TopicId,
    topics: BTreeMap<TopicId, Topic>,
    names: BTreeMap<TopicName, TopicId>,
    load: Load,
    bytes: u64,
}

/// Bytes that a topic takes in a snapshot, never estimated too low.
fn snapshot_bytes(name: &TopicName, partitions: usize) -> u64 {
    (crate::encoding::TOPIC_BYTES + name.as_str().len() + partitions) as u64
}

impl Catalog {
    /// The catalog of a new broker: no topic, version 0, topic ids from 1. Panics if there is no shard, or more than 256.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        assert!(0 < shards && usize::from(shards) <= SHARDS_MAX, "{shards} shards");
        Self {
            version: CatalogVersion(0),
            next_topic: TopicId(1),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            load: Load::new(shards),
            bytes: 0,
        }
    }

    pub(crate) fn begin(shards: u16, version: CatalogVersion, next_topic: TopicId) -> Self {
        Self { version, next_topic, ..Self::new(shards) }
    }

    /// Grows by one with every change.
    #[must_use]
    pub const fn version(&self) -> CatalogVersion {
        self.version
    }

    /// The id that the next topic will get: an id below it that is not in the catalog belonged to a deleted topic, one
    /// at or above it may belong to a topic that this catalog has not heard of yet.
    #[must_use]
    pub const fn next_topic(&self) -> TopicId {
        self.next_topic
    }

    /// How many shards the partitions are spread over.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.load.shards()
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// The topic of that name, be it one of the broker's own.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Topic> {
        let id = self.names.get(&TopicName::parse_any(name).ok()?)?;
        self.topics.get(id)
    }

    /// All topics by id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.topics.values()
    }

    /// All topics by name.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// How many partitions a shard owns.
    #[must_use]
    pub fn partitions_owned_by(&self, shard: ShardId) -> u64 {
        self.load.owns(shard)
    }

    /// What creating a topic would change.
    ///
    /// # Errors
    /// The name, a setting or a limit stands against it.
    pub fn plan_create(
        &self,
        name: &str,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<CatalogChange, CatalogError> {
        self.plan_create_named(TopicName::parse(name)?, partitions, settings)
    }

    /// What creating one of the broker's own topics would change; its name begins with `__`.
    ///
    /// # Errors
    /// As [`Catalog::plan_create`].
    pub fn plan_create_internal(
        &self,
        name: &str,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<CatalogChange, CatalogError> {
        let name = TopicName::parse_any(name)?;
        assert!(name.is_internal(), "{name} is not a name of the broker's own");
        self.plan_create_named(name, partitions, settings)
    }

    fn plan_create_named(
        &self,
        name: TopicName,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<CatalogChange, CatalogError> {
        if self.names.contains_key(&name) {
            return Err(CatalogError::Exists { name: name.as_str().to_owned() });
        }
        check_partitions(partitions)?;
        check_settings(&settings)?;
        self.check_limits(1, partitions, snapshot_bytes(&name, partitions as usize))?;
        Ok(CatalogChange::Created {
            version: self.next_version(),
            topic: self.next_topic,
            name,
            settings,
            shards: self.load.place(&[], partitions),
        })
    }

    /// A topic that users may change.
    fn find_of_users(&self, name: &str) -> Result<&Topic, CatalogError> {
        let topic = self.find(name).ok_or_else(|| CatalogError::Unknown { name: name.to_owned() })?;
        if topic.name.is_internal() { Err(NameError::Internal.into()) } else { Ok(topic) }
    }

    /// What altering a topic would change; what is `None` stays.
    ///
    /// # Errors
    /// There is no such topic, a setting or a limit stands against it, the class would change, or partitions would go.
    pub fn plan_alter(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: Option<TopicSettings>,
    ) -> Result<CatalogChange, CatalogError> {
        let topic = self.find_of_users(name)?;
        let settings = settings.unwrap_or(topic.settings);
        if settings.class != topic.settings.class {
            return Err(CatalogError::ClassChange);
        }
        check_settings(&settings)?;
        let today = topic.partition_count();
        let wanted = partitions.unwrap_or(today);
        if wanted < today {
            return Err(CatalogError::FewerPartitions { name: name.to_owned(), today, wanted });
        }
        check_partitions(wanted)?;
        self.check_limits(0, wanted - today, u64::from(wanted - today))?;
        let added = self.load.place(&topic.shards, wanted - today);
        Ok(CatalogChange::Altered { version: self.next_version(), topic: topic.id, settings, added })
    }

    /// What deleting a topic would change.
    ///
    /// # Errors
    /// There is no such topic.
    pub fn plan_delete(&self, name: &str) -> Result<CatalogChange, CatalogError> {
        let topic = self.find_of_users(name)?;
        Ok(CatalogChange::Deleted { version: self.next_version(), topic: topic.id })
    }

    /// Makes a change that was planned on an equal catalog.
    ///
    /// # Errors
    /// It does not follow this catalog or breaks a rule; the catalog is then as it was.
    pub fn apply(&mut self, change: &CatalogChange) -> Result<(), ApplyError> {
        if change.version() != self.next_version() {
            return Err(ApplyError::Version { found: change.version(), known: self.version });
        }
        match change {
            CatalogChange::Created { topic, name, settings, shards, .. } => {
                if *topic != self.next_topic {
                    return Err(ApplyError::TopicId { found: *topic, expected: self.next_topic });
                }
                self.insert(Topic { id: *topic, name: name.clone(), settings: *settings, shards: shards.clone() })?;
                self.next_topic = TopicId(topic.0 + 1);
            }
            CatalogChange::Altered { topic, settings, added, .. } => self.alter(*topic, *settings, added)?,
            CatalogChange::Deleted { topic, .. } => {
                let gone = self.topics.remove(topic).ok_or(ApplyError::NoTopic { topic: *topic })?;
                self.names.remove(&gone.name);
                self.load.remove(&gone.shards);
                self.bytes -= snapshot_bytes(&gone.name, gone.shards.len());
            }
        }
        self.version = change.version();
        self.check();
        Ok(())
    }

    /// The same topics spread anew over another number of shards, one version later: for a restart with other cores.
    #[must_use]
    pub fn reassign(&self, shards: u16) -> Self {
        let mut spread = Self::begin(shards, self.next_version(), self.next_topic);
        for topic in self.topics.values() {
            let owners = spread.load.place(&[], topic.partition_count());
            spread.insert(Topic { shards: owners, ..topic.clone() }).expect("the same topics keep the same rules");
        }
        spread
    }

    /// Adds a topic from a change or a snapshot, where anything may be wrong.
    pub(crate) fn insert(&mut self, topic: Topic) -> Result<(), ApplyError> {
        let partitions = u32::try_from(topic.shards.len()).unwrap_or(u32::MAX);
        check_partitions(partitions)?;
        check_settings(&topic.settings)?;
        self.check_owners(&topic.shards)?;
        let bytes = snapshot_bytes(&topic.name, topic.shards.len());
        self.check_limits(1, partitions, bytes)?;
        if self.names.contains_key(&topic.name) || self.topics.contains_key(&topic.id) {
            return Err(CatalogError::Exists { name: topic.name.as_str().to_owned() }.into());
        }
        self.load.add(&topic.shards);
        self.bytes += bytes;
        self.names.insert(topic.name.clone(), topic.id);
        self.topics.insert(topic.id, topic);
        Ok(())
    }

    fn alter(&mut self, id: TopicId, settings: TopicSettings, added: &[ShardId]) -> Result<(), ApplyError> {
        let topic = self.topics.get(&id).ok_or(ApplyError::NoTopic { topic: id })?;
        if settings.class != topic.settings.class {
            return Err(CatalogError::ClassChange.into());
        }
        check_settings(&settings)?;
        self.check_owners(added)?;
        let count = u32::try_from(added.len()).unwrap_or(u32::MAX);
        check_partitions(topic.partition_count().saturating_add(count))?;
        self.check_limits(0, count, u64::from(count))?;
        self.load.add(added);
        self.bytes += u64::from(count);
        let topic = self.topics.get_mut(&id).expect("it was there above");
        topic.settings = settings;
        topic.shards.extend_from_slice(added);
        Ok(())
    }

    fn check_owners(&self, owners: &[ShardId]) -> Result<(), ApplyError> {
        let shards = self.shards();
        match owners.iter().find(|owner| shards <= u16::from(owner.0)) {
            Some(owner) => Err(ApplyError::NoShard { shard: owner.0, shards }),
            None => Ok(()),
        }
    }

    fn check_limits(&self, topics: usize, partitions: u32, bytes: u64) -> Result<(), CatalogError> {
        let within = |what, would, limit| {
            if would <= limit { Ok(()) } else { Err(CatalogError::Limit { what, would, limit }) }
        };
        within("topics", (self.topics.len() + topics) as u64, TOPICS_MAX as u64)?;
        within("partitions", self.load.partitions() + u64::from(partitions), PARTITIONS_MAX)?;
        within("bytes of catalog", self.bytes + bytes, CATALOG_BYTES_MAX - crate::encoding::FRAME_BYTES)
    }

    const fn next_version(&self) -> CatalogVersion {
        CatalogVersion(self.version.0 + 1)
    }

    /// What holds between any two changes, as far as it is cheap to say.
    fn check(&self) {
        assert_eq!(self.topics.len(), self.names.len(), "every topic has one name");
        let last = self.topics.last_key_value().map_or(TopicId(0), |(id, _)| *id);
        assert!(last < self.next_topic, "topic {last} is not below the next id {}", self.next_topic);
    }
}

fn check_partitions(partitions: u32) -> Result<(), CatalogError> {
    if 0 < partitions && partitions <= TOPIC_PARTITIONS_MAX {
        return Ok(());
    }
    Err(CatalogError::OutOfBounds {
        setting: "number of partitions",
        value: u64::from(partitions),
        min: 1,
        max: u64::from(TOPIC_PARTITIONS_MAX),
    })
}
