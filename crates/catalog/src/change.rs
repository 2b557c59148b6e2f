//! One step of the catalog.

use corelane_model::{CatalogVersion, ShardId, TopicId, TopicName, TopicSettings};

/// One step of the catalog, with everything that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogChange {
    /// A topic came.
    Created {
        /// The version that this change leads to.
        version: CatalogVersion,
        /// Its id.
        topic: TopicId,
        /// Its name.
        name: TopicName,
        /// Its settings.
        settings: TopicSettings,
        /// The owner of each partition.
        shards: Vec<ShardId>,
    },
    /// A topic changed.
    Altered {
        /// The version that this change leads to.
        version: CatalogVersion,
        /// The topic.
        topic: TopicId,
        /// Its settings from now on.
        settings: TopicSettings,
        /// The owners of the partitions that come to those it has.
        added: Vec<ShardId>,
    },
    /// A topic went.
    Deleted {
        /// The version that this change leads to.
        version: CatalogVersion,
        /// The topic.
        topic: TopicId,
    },
}

impl CatalogChange {
    /// The version that this change leads to.
    #[must_use]
    pub const fn version(&self) -> CatalogVersion {
        match self {
            Self::Created { version, .. } | Self::Altered { version, .. } | Self::Deleted { version, .. } => *version,
        }
    }

    /// The topic that it is about.
    #[must_use]
    pub const fn topic(&self) -> TopicId {
        match self {
            Self::Created { topic, .. } | Self::Altered { topic, .. } | Self::Deleted { topic, .. } => *topic,
        }
    }
}
