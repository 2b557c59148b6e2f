//! Format 1, which is still read: settings without cleanup and without deduplication.

use corelane_model::TopicSettings;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct SettingsBytes {
    class: u8,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    segment_bytes: u64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct TopicBytes {
    topic: u64,
    name: String,
    settings: SettingsBytes,
    shards: Vec<u8>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct SnapshotBytes {
    version: u64,
    next_topic: u64,
    topics: Vec<TopicBytes>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) enum ChangeBytes {
    Created { version: u64, topic: TopicBytes },
    Altered { version: u64, topic: u64, settings: SettingsBytes, added: Vec<u8> },
    Deleted { version: u64, topic: u64 },
}

impl From<SettingsBytes> for super::SettingsBytes {
    fn from(old: SettingsBytes) -> Self {
        let SettingsBytes { class, retention_ms, retention_bytes, segment_bytes } = old;
        Self { class, retention_ms, retention_bytes, segment_bytes, ..TopicSettings::default().into() }
    }
}

impl From<TopicBytes> for super::TopicBytes {
    fn from(old: TopicBytes) -> Self {
        Self { topic: old.topic, name: old.name, settings: old.settings.into(), shards: old.shards }
    }
}

impl From<SnapshotBytes> for super::SnapshotBytes {
    fn from(old: SnapshotBytes) -> Self {
        let topics = old.topics.into_iter().map(Into::into).collect();
        Self { version: old.version, next_topic: old.next_topic, topics }
    }
}

impl From<ChangeBytes> for super::ChangeBytes {
    fn from(old: ChangeBytes) -> Self {
        match old {
            ChangeBytes::Created { version, topic } => Self::Created { version, topic: topic.into() },
            ChangeBytes::Altered { version, topic, settings, added } => {
                Self::Altered { version, topic, settings: settings.into(), added }
            }
            ChangeBytes::Deleted { version, topic } => Self::Deleted { version, topic },
        }
    }
}
