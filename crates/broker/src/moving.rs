//! The file `moving`: what the shards know beyond their segments, while the number of shards changes.
//!
//! All numbers are little-endian.
//!
//! ```text
//! 0          8              12        14
//! | CLMOVE01 | CRC-32C of   | shards  | for each shard ...
//! |          | the rest     | (u16)   |
//!
//! shard:      | producer ids until (u64) | has catalog (u8) | length (u32) | catalog | partitions (u32) | ...
//! partition:  | topic (u64) | index (u32) | length (u32) | state |
//! ```

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};
use corelane_model::limits::{PARTITIONS_MAX, SHARDS_MAX};
use corelane_model::{PartitionId, PartitionIndex, TopicId};
use corelane_shard::ShardExport;

use crate::data::{DataError, write_durably};

const MAGIC: &[u8; 8] = b"CLMOVE01";
const FILE: &str = "moving";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MovingError {
    /// The operating system refuses it.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Its bytes are not what was written.
    #[error("{} is damaged ({what}); without it the partitions cannot be assigned to shards: restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
}

/// Writes the exports, durably.
///
/// # Errors
/// The operating system refuses; an older file is still there.
pub(crate) fn write(data: &Path, exports: &[ShardExport]) -> Result<(), DataError> {
    write_durably(&data.join(FILE), &encode(exports))
}

/// Reads the exports.
///
/// # Errors
/// The operating system refuses, or the bytes are not what was written.
pub(crate) fn read(data: &Path) -> Result<Vec<ShardExport>, MovingError> {
    let path = data.join(FILE);
    let bytes = std::fs::read(&path).map_err(|error| DataError::Io { action: "read", path: path.clone(), error })?;
    decode(Bytes::from(bytes)).map_err(|what| MovingError::Damaged { path, what })
}

/// Removes the file; no error if it is not there.
///
/// # Errors
/// The operating system refuses.
pub(crate) fn remove(data: &Path) -> Result<(), DataError> {
    let path = data.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::Io { action: "remove", path, error })
        }
        _ => Ok(()),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("a partition's state and a catalog are below 4 GiB"));
    out.extend_from_slice(bytes);
}

fn encode(exports: &[ShardExport]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.put_u16_le(u16::try_from(exports.len()).expect("the number of shards fits"));
    for export in exports {
        rest.put_u64_le(export.producer_ids_until);
        rest.put_u8(u8::from(export.catalog.is_some()));
        put_bytes(&mut rest, export.catalog.as_deref().unwrap_or_default());
        rest.put_u32_le(u32::try_from(export.partitions.len()).expect("the number of partitions fits"));
        for (partition, state) in &export.partitions {
            rest.put_u64_le(partition.topic.0);
            rest.put_u32_le(partition.index.0);
            put_bytes(&mut rest, state);
        }
    }
    let mut out = Vec::with_capacity(rest.len() + 12);
    out.extend_from_slice(MAGIC);
    out.put_u32_le(crc32c::crc32c(&rest));
    out.extend_from_slice(&rest);
    out
}

const SHORT: &str = "it ends too early";

fn take_bytes(bytes: &mut Bytes) -> Result<Bytes, &'static str> {
    let length = bytes.try_get_u32_le().map_err(|_| SHORT)? as usize;
    if bytes.len() < length { Err(SHORT) } else { Ok(bytes.split_to(length)) }
}

fn decode(mut bytes: Bytes) -> Result<Vec<ShardExport>, &'static str> {
    if bytes.len() < MAGIC.len() || &bytes.split_to(MAGIC.len())[..] != MAGIC {
        return Err("it does not begin as it should");
    }
    let crc = bytes.try_get_u32_le().map_err(|_| SHORT)?;
    if crc32c::crc32c(&bytes) != crc {
        return Err("its checksum is wrong");
    }
    let shards = usize::from(bytes.try_get_u16_le().map_err(|_| SHORT)?);
    if SHARDS_MAX < shards {
        return Err("it has too many shards");
    }
    let mut exports = Vec::with_capacity(shards);
    for _ in 0..shards {
        exports.push(decode_shard(&mut bytes)?);
    }
    if bytes.is_empty() { Ok(exports) } else { Err("it ends too late") }
}

fn decode_shard(bytes: &mut Bytes) -> Result<ShardExport, &'static str> {
    let producer_ids_until = bytes.try_get_u64_le().map_err(|_| SHORT)?;
    let has_catalog = bytes.try_get_u8().map_err(|_| SHORT)? != 0;
    let catalog = take_bytes(bytes)?;
    let count = bytes.try_get_u32_le().map_err(|_| SHORT)?;
    if PARTITIONS_MAX < u64::from(count) {
        return Err("it has too many partitions");
    }
    let mut partitions = Vec::new();
    for _ in 0..count {
        let topic = TopicId(bytes.try_get_u64_le().map_err(|_| SHORT)?);
        let index = PartitionIndex(bytes.try_get_u32_le().map_err(|_| SHORT)?);
        partitions.push((PartitionId::new(topic, index), take_bytes(bytes)?));
    }
    Ok(ShardExport { catalog: has_catalog.then_some(catalog), partitions, producer_ids_until })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exports() -> impl Strategy<Value = Vec<ShardExport>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let partition = (any::<u64>(), any::<u32>(), bytes())
            .prop_map(|(topic, index, state)| (PartitionId::new(TopicId(topic), PartitionIndex(index)), state));
        let partitions = proptest::collection::vec(partition, 0..5);
        let shard = (proptest::option::of(bytes()), partitions, any::<u64>()).prop_map(
            |(catalog, partitions, producer_ids_until)| ShardExport { catalog, partitions, producer_ids_until },
        );
        proptest::collection::vec(shard, 0..4)
    }

    proptest! {
        #[test]
        fn exports_round_trip(exports in exports()) {
            prop_assert_eq!(decode(Bytes::from(encode(&exports))), Ok(exports));
        }

        #[test]
        fn any_change_is_noticed(exports in exports(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut bytes = encode(&exports);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(Bytes::from(bytes)).is_err());
        }

        #[test]
        fn garbage_is_an_error_also_with_a_right_checksum(rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = MAGIC.to_vec();
            bytes.put_u32_le(crc32c::crc32c(&rest));
            bytes.extend_from_slice(&rest);
            drop(decode(Bytes::from(bytes)));
        }
    }

    #[test]
    fn the_file_comes_and_goes() {
        let data = tempfile::tempdir().unwrap();
        assert!(read(data.path()).is_err());
        let exports = vec![ShardExport { producer_ids_until: 7, ..ShardExport::default() }];
        write(data.path(), &exports).unwrap();
        assert_eq!(read(data.path()).unwrap(), exports);
        remove(data.path()).unwrap();
        remove(data.path()).unwrap();
    }
}
