//! Changes and snapshots as bytes: a small head, then one checked rkyv archive (docs/formats/catalog.md).

mod first;

use corelane_model::limits::SHARDS_MAX;
use corelane_model::{CatalogVersion, Cleanup, ShardId, TopicClass, TopicId, TopicName, TopicSettings};
use rkyv::rancor::Error;

use crate::{ApplyError, Catalog, CatalogChange, CatalogError, DecodeError, Topic};

/// Format of changes and snapshots that this build writes.
pub const CATALOG_FORMAT: u16 = 2;
/// Oldest format of changes and snapshots that this build reads.
pub const CATALOG_FORMAT_MIN: u16 = 1;

const HEAD_BYTES: usize = 8;
const KIND_CHANGE: u16 = 1;
const KIND_SNAPSHOT: u16 = 2;

/// No catalog counts this far, so that counting on never overflows.
const COUNTERS_END: u64 = 1 << 62;

/// Bytes of a topic in a snapshot beside its name and its owners.
pub(crate) const TOPIC_BYTES: usize = size_of::<ArchivedTopicBytes>();
/// Bytes of a snapshot beside its topics.
pub(crate) const FRAME_BYTES: u64 = (HEAD_BYTES + size_of::<ArchivedSnapshotBytes>()) as u64;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct SettingsBytes {
    class: u8,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    segment_bytes: u64,
    cleanup: u8,
    tombstone_ms: u64,
    dedup_window_ms: Option<u64>,
    dedup_count: Option<u64>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct TopicBytes {
    topic: u64,
    name: String,
    settings: SettingsBytes,
    shards: Vec<u8>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct SnapshotBytes {
    version: u64,
    next_topic: u64,
    topics: Vec<TopicBytes>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum ChangeBytes {
    Created { version: u64, topic: TopicBytes },
    Altered { version: u64, topic: u64, settings: SettingsBytes, added: Vec<u8> },
    Deleted { version: u64, topic: u64 },
}

impl From<TopicSettings> for SettingsBytes {
    fn from(settings: TopicSettings) -> Self {
        Self {
            class: settings.class.to_number(),
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            segment_bytes: settings.segment_bytes,
            cleanup: settings.cleanup.to_number(),
            tombstone_ms: settings.tombstone_ms,
            dedup_window_ms: settings.dedup_window_ms,
            dedup_count: settings.dedup_count,
        }
    }
}

impl SettingsBytes {
    fn to_model(&self) -> Result<TopicSettings, DecodeError> {
        let class = TopicClass::from_number(self.class).ok_or(DecodeError::Class { class: self.class })?;
        let cleanup = Cleanup::from_number(self.cleanup).ok_or(DecodeError::Cleanup { cleanup: self.cleanup })?;
        Ok(TopicSettings {
            class,
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            segment_bytes: self.segment_bytes,
            cleanup,
            tombstone_ms: self.tombstone_ms,
            dedup_window_ms: self.dedup_window_ms,
            dedup_count: self.dedup_count,
        })
    }
}

fn owners_to_bytes(owners: &[ShardId]) -> Vec<u8> {
    owners.iter().map(|owner| owner.0).collect()
}

fn owners_of(bytes: &[u8]) -> Vec<ShardId> {
    bytes.iter().map(|&owner| ShardId(owner)).collect()
}

fn name_of(name: &str) -> Result<TopicName, DecodeError> {
    TopicName::parse_any(name).map_err(|error| ApplyError::Rule(CatalogError::Name(error)).into())
}

fn begin(kind: u16, shards: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    for number in [CATALOG_FORMAT, kind, shards, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// How many shards the catalog is spread over that a change or a snapshot belongs to.
///
/// # Errors
/// The bytes are of another format or too short, or name an impossible number.
pub fn shards_of(bytes: &[u8]) -> Result<u16, DecodeError> {
    split(bytes).map(|piece| piece.shards)
}

/// A change or a snapshot, its head read.
struct Piece<'a> {
    format: u16,
    kind: u16,
    shards: u16,
    body: &'a [u8],
}

fn split(bytes: &[u8]) -> Result<Piece<'_>, DecodeError> {
    let Some((head, body)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(DecodeError::Short { length: bytes.len() });
    };
    let format = u16::from_le_bytes([head[0], head[1]]);
    if !(CATALOG_FORMAT_MIN..=CATALOG_FORMAT).contains(&format) {
        return Err(DecodeError::Format { found: format, known: CATALOG_FORMAT });
    }
    let number = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (kind, shards, reserved) = (number(2), number(4), number(6));
    if shards == 0 || SHARDS_MAX < usize::from(shards) {
        return Err(DecodeError::Shards { shards, max: u16::try_from(SHARDS_MAX).expect("256 fits") });
    }
    if reserved != 0 {
        return Err(DecodeError::Malformed);
    }
    Ok(Piece { format, kind, shards, body })
}

fn piece(bytes: &[u8], expected: u16) -> Result<Piece<'_>, DecodeError> {
    let piece = split(bytes)?;
    let found = piece.kind;
    if found == expected { Ok(piece) } else { Err(DecodeError::Kind { found, expected }) }
}

fn unpack<T>(body: &[u8]) -> Result<T, DecodeError>
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<Error>>,
{
    rkyv::from_bytes::<T, Error>(body).map_err(|_| DecodeError::Malformed)
}

/// A change as bytes, of a catalog that is spread over so many shards.
#[must_use]
pub fn encode_change(change: &CatalogChange, shards: u16) -> Vec<u8> {
    let archive = match change {
        CatalogChange::Created { version, topic, name, settings, shards } => ChangeBytes::Created {
            version: version.0,
            topic: TopicBytes {
                topic: topic.0,
                name: name.as_str().to_owned(),
                settings: (*settings).into(),
                shards: owners_to_bytes(shards),
            },
        },
        CatalogChange::Altered { version, topic, settings, added } => ChangeBytes::Altered {
            version: version.0,
            topic: topic.0,
            settings: (*settings).into(),
            added: owners_to_bytes(added),
        },
        CatalogChange::Deleted { version, topic } => ChangeBytes::Deleted { version: version.0, topic: topic.0 },
    };
    rkyv::api::high::to_bytes_in::<_, Error>(&archive, begin(KIND_CHANGE, shards)).expect("it serialises to memory")
}

/// A change from bytes.
///
/// # Errors
/// The bytes are of another format, do not hold together, or name what cannot be.
pub fn decode_change(bytes: &[u8]) -> Result<CatalogChange, DecodeError> {
    let piece = piece(bytes, KIND_CHANGE)?;
    let archive = match piece.format {
        1 => unpack::<first::ChangeBytes>(piece.body)?.into(),
        _ => unpack::<ChangeBytes>(piece.body)?,
    };
    Ok(match archive {
        ChangeBytes::Created { version, topic } => CatalogChange::Created {
            version: CatalogVersion(version),
            topic: TopicId(topic.topic),
            name: name_of(&topic.name)?,
            settings: topic.settings.to_model()?,
            shards: owners_of(&topic.shards),
        },
        ChangeBytes::Altered { version, topic, settings, added } => CatalogChange::Altered {
            version: CatalogVersion(version),
            topic: TopicId(topic),
            settings: settings.to_model()?,
            added: owners_of(&added),
        },
        ChangeBytes::Deleted { version, topic } => {
            CatalogChange::Deleted { version: CatalogVersion(version), topic: TopicId(topic) }
        }
    })
}

/// A whole catalog as bytes, at most [`corelane_model::limits::CATALOG_BYTES_MAX`].
#[must_use]
pub fn encode_snapshot(catalog: &Catalog) -> Vec<u8> {
    let archive = SnapshotBytes {
        version: catalog.version().0,
        next_topic: catalog.next_topic().0,
        topics: catalog
            .topics()
            .map(|topic| TopicBytes {
                topic: topic.id.0,
                name: topic.name.as_str().to_owned(),
                settings: topic.settings.into(),
                shards: owners_to_bytes(&topic.shards),
            })
            .collect(),
    };
    rkyv::api::high::to_bytes_in::<_, Error>(&archive, begin(KIND_SNAPSHOT, catalog.shards()))
        .expect("it serialises to memory")
}

/// A whole catalog from bytes.
///
/// # Errors
/// The bytes are of another format, do not hold together, or what they say breaks a rule of the catalog.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Catalog, DecodeError> {
    let piece = piece(bytes, KIND_SNAPSHOT)?;
    let archive = match piece.format {
        1 => unpack::<first::SnapshotBytes>(piece.body)?.into(),
        _ => unpack::<SnapshotBytes>(piece.body)?,
    };
    for (what, value) in [("catalog version", archive.version), ("next topic id", archive.next_topic)] {
        if COUNTERS_END <= value {
            return Err(DecodeError::Counter { what, value });
        }
    }
    let next_topic = TopicId(archive.next_topic);
    let mut catalog = Catalog::begin(piece.shards, CatalogVersion(archive.version), next_topic);
    for topic in archive.topics {
        let id = TopicId(topic.topic);
        if next_topic <= id {
            return Err(ApplyError::TopicId { found: id, expected: next_topic }.into());
        }
        catalog.insert(Topic {
            id,
            name: name_of(&topic.name)?,
            settings: topic.settings.to_model()?,
            shards: owners_of(&topic.shards),
        })?;
    }
    Ok(catalog)
}
