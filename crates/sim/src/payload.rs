//! Values that say which record they are, and that nobody can change unnoticed.

use corelane_record::Record;

use crate::{Random, RecordId};

const HEAD_BYTES: usize = 12;
/// The header that says which record it is where there is no value.
pub(crate) const HEADER: &str = "record";

/// A value of about `length` bytes.
pub(crate) fn encode(record: RecordId, length: u64) -> Vec<u8> {
    let mut random = Random::new(u64::from(record.client) << 32 | u64::from(record.number));
    let mut value = Vec::with_capacity(HEAD_BYTES + usize::try_from(length).expect("a value fits") + 8);
    value.extend_from_slice(&record.client.to_le_bytes());
    value.extend_from_slice(&record.number.to_le_bytes());
    value.extend_from_slice(&[0; 4]);
    while (value.len() as u64) < length {
        value.extend_from_slice(&random.bits().to_le_bytes());
    }
    let crc = crc32c::crc32c(&value).to_le_bytes();
    value[8..12].copy_from_slice(&crc);
    value
}

/// Which record this is, by its value or, if that is null, by its header.
pub(crate) fn identify(record: &Record<'_>) -> Option<RecordId> {
    match record.value {
        Some(value) => decode(value),
        None => record.headers().find(|(name, _)| *name == HEADER).and_then(|(_, value)| decode(value?)),
    }
}

/// Which record a value is; `None` when it is not one of ours, unchanged.
pub(crate) fn decode(value: &[u8]) -> Option<RecordId> {
    let head = value.first_chunk::<HEAD_BYTES>()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let crc = crc32c::crc32c(&value[..8]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    let crc = crc32c::crc32c_append(crc, &value[HEAD_BYTES..]);
    (crc == number(8)).then(|| RecordId { client: number(0), number: number(4) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_their_record_and_show_changes() {
        let record = RecordId { client: 3, number: 70_000 };
        for length in [0, 12, 13, 500] {
            let mut value = encode(record, length);
            assert_eq!(decode(&value), Some(record));
            *value.last_mut().unwrap() ^= 1;
            assert_eq!(decode(&value), None);
        }
    }
}
