//! The payload: one archived struct of flat columns, and the checks that let it be read without further ones.

use std::ops::Range;

use corelane_model::limits::BATCH_VALUES_BYTES_MAX;
use rkyv::Archive;
use rkyv::rancor::Failure;

use crate::builder::end;
use crate::{BATCH_HEAD_BYTES, BatchError, BatchFlags, BatchHead, Compression, header};

/// Bit of a key end or value end that says that the key or value is null. Such an end equals the one before it.
pub(crate) const NULL: u32 = 1 << 31;
/// Bytes of the archived struct at the payload's end.
pub(crate) const ROOT_BYTES: usize = 32;
const _: () = assert!(size_of::<ArchivedColumns>() == ROOT_BYTES);
const _: () = assert!(BATCH_VALUES_BYTES_MAX < NULL);

/// The columns of a batch as rkyv archives them; [`write_behind_numbers`] writes the same bytes. The order of the fields is the
/// order of the bytes; the check of the archive relies on it.
#[derive(Debug, Archive)]
#[rkyv(archived = ArchivedColumns)]
#[cfg_attr(test, derive(rkyv::Serialize))]
#[cfg_attr(not(test), expect(dead_code, reason = "it only says what is archived"))]
struct Columns {
    /// All values one after another, perhaps compressed.
    values: Vec<u8>,
    /// One after another, each with one entry a record: value ends, then, as far as the flags announce them, key ends,
    /// header ends, how many milliseconds a timestamp is before the head's max timestamp, and how far an offset is behind
    /// the base offset.
    numbers: Vec<u32>,
    /// All keys one after another.
    keys: Vec<u8>,
    /// All headers one after another.
    headers: Vec<u8>,
}

/// Ends the archive of which `out` holds room for the head, the values, and the numbers from `numbers_at` on: keys, headers
/// and root. A batch of a single small record is made by the thousand, and the archive is four lengths and distances.
pub(crate) fn write_behind_numbers(out: &mut Vec<u8>, numbers_at: usize, keys: &[u8], headers: &[u8]) {
    let head = end(BATCH_HEAD_BYTES);
    let numbers_at = end(numbers_at);
    let keys_at = end(out.len());
    let headers_at = keys_at + end(keys.len());
    let root_at = headers_at + end(headers.len());
    out.extend_from_slice(keys);
    out.extend_from_slice(headers);
    let columns = [
        (head, numbers_at - head),
        (numbers_at, (keys_at - numbers_at) / 4),
        (keys_at, headers_at - keys_at),
        (headers_at, root_at - headers_at),
    ];
    let mut root = [0; ROOT_BYTES];
    let mut vector_at = root_at;
    for (field, (place, len)) in root.as_chunks_mut::<8>().0.iter_mut().zip(columns) {
        // How far it is back from the vector to its first element.
        field[..4].copy_from_slice(&(vector_at - place).wrapping_neg().to_le_bytes());
        field[4..].copy_from_slice(&len.to_le_bytes());
        vector_at += 8;
    }
    out.extend_from_slice(&root);
}

/// Where a checked payload has what: byte ranges of the whole batch, head included.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) values: Range<usize>,
    /// Bytes of the values after decompression.
    pub(crate) values_len: usize,
    pub(crate) value_ends: Range<usize>,
    pub(crate) key_ends: Option<Range<usize>>,
    pub(crate) keys: Range<usize>,
    pub(crate) header_ends: Option<Range<usize>>,
    pub(crate) headers: Range<usize>,
    pub(crate) timestamps: Option<Range<usize>>,
    pub(crate) offsets: Option<Range<usize>>,
}

/// Checks the payload of a batch whose head is `head`: checksum, archive, lengths and ends of all columns. Reads the
/// values once, for the checksum.
///
/// `batch` is exactly as long as the head says.
#[inline]
pub(crate) fn check(head: &BatchHead, batch: &[u8]) -> Result<Layout, BatchError> {
    let payload = &batch[BATCH_HEAD_BYTES..];
    let computed = crc_fast::crc32_iscsi(payload);
    if computed != head.payload_crc {
        return Err(BatchError::PayloadChecksum { stated: head.payload_crc, computed });
    }
    check_columns(head, batch, locate(head, batch)?)
}

/// Where the payload has what, as far as the archive and the lengths of its columns say.
#[inline]
pub(crate) fn locate(head: &BatchHead, batch: &[u8]) -> Result<Layout, BatchError> {
    let payload = &batch[BATCH_HEAD_BYTES..];
    let columns = rkyv::api::low::access::<ArchivedColumns, Failure>(payload).map_err(|_| BatchError::Archive)?;
    let numbers_len = columns.numbers.len();
    let column_bytes = columns.values.len() + numbers_len * 4 + columns.keys.len() + columns.headers.len();
    if column_bytes + ROOT_BYTES != payload.len() {
        return Err(BatchError::Archive);
    }
    // The archive is sound, in the order of the fields, and has not a byte to spare: that leaves one place for each.
    let values = BATCH_HEAD_BYTES..BATCH_HEAD_BYTES + columns.values.len();
    let numbers = values.end..values.end + numbers_len * 4;
    let keys = numbers.end..numbers.end + columns.keys.len();
    let headers = keys.end..keys.end + columns.headers.len();
    let mut cut = NumberColumns { head, rest: numbers };
    let layout = Layout {
        values_len: 0,
        value_ends: cut.take(),
        key_ends: cut.take_if(BatchFlags::KEYS),
        header_ends: cut.take_if(BatchFlags::HEADERS),
        timestamps: cut.take_if(BatchFlags::TIMESTAMPS),
        offsets: cut.take_if(BatchFlags::OFFSETS),
        values,
        keys,
        headers,
    };
    if !cut.rest.is_empty() || cut.rest.start != layout.keys.start {
        let needed = (cut.rest.start - layout.values.end) / 4;
        return Err(BatchError::ColumnLength { found: numbers_len, needed, count: head.record_count });
    }
    Ok(layout)
}

/// Cuts the number column into its parts.
struct NumberColumns<'a> {
    head: &'a BatchHead,
    rest: Range<usize>,
}

impl NumberColumns<'_> {
    /// The next part, unchecked: the caller looks where the last one ended.
    fn take(&mut self) -> Range<usize> {
        let start = self.rest.start;
        self.rest.start = start + self.head.record_count as usize * 4;
        start..self.rest.start
    }

    fn take_if(&mut self, flag: BatchFlags) -> Option<Range<usize>> {
        self.head.flags.contains(flag).then(|| self.take())
    }
}

#[inline]
fn check_columns(head: &BatchHead, batch: &[u8], mut layout: Layout) -> Result<Layout, BatchError> {
    let is_compressed = head.compression() != Compression::None;
    let values_len = layout.values.len();
    let bad_values = BatchError::Ends { column: "value", len: values_len };
    let last = check_ends(numbers(batch, &layout.value_ends), NULL).ok_or(bad_values)?;
    if BATCH_VALUES_BYTES_MAX < last {
        return Err(BatchError::ValuesTooLarge { len: u64::from(last), limit: BATCH_VALUES_BYTES_MAX });
    }
    layout.values_len = last as usize;
    if !is_compressed && layout.values_len != values_len {
        return Err(bad_values);
    }
    match &layout.key_ends {
        Some(ends) => check_ends_meet(numbers(batch, ends), NULL, "key", layout.keys.len())?,
        None if layout.keys.is_empty() => {}
        None => return Err(BatchError::Unannounced { column: "key", len: layout.keys.len() }),
    }
    match &layout.header_ends {
        Some(ends) => check_headers(numbers(batch, ends), &batch[layout.headers.clone()])?,
        None if layout.headers.is_empty() => {}
        None => return Err(BatchError::Unannounced { column: "header", len: layout.headers.len() }),
    }
    if let Some(deltas) = &layout.timestamps {
        let (smallest, largest) = numbers(batch, deltas)
            .iter()
            .map(|&delta| u32::from_le_bytes(delta))
            .fold((u32::MAX, 0), |(smallest, largest), delta| (smallest.min(delta), largest.max(delta)));
        if smallest != 0 || head.max_timestamp.0.checked_sub(i64::from(largest)).is_none() {
            return Err(BatchError::Timestamps);
        }
    }
    if let Some(places) = &layout.offsets {
        check_offsets(numbers(batch, places), head.offset_span)?;
    }
    Ok(layout)
}

/// The first record has the base offset, each other one a higher offset than the one before, the last the last of the
/// span.
fn check_offsets(places: &[[u8; 4]], span: u32) -> Result<(), BatchError> {
    let mut next = 0_u64;
    let mut is_bad = places.first().is_none_or(|&first| first != [0; 4]);
    for &place in places {
        let place = u64::from(u32::from_le_bytes(place));
        is_bad |= place < next;
        next = place + 1;
    }
    if is_bad || next != u64::from(span) { Err(BatchError::Offsets { span }) } else { Ok(()) }
}

/// A part of the number column as it lies there.
fn numbers<'a>(batch: &'a [u8], range: &Range<usize>) -> &'a [[u8; 4]] {
    batch[range.clone()].as_chunks::<4>().0
}

/// The last of these ends, if none goes back and none stands over a null. Written without an exit in the loop, so that
/// it takes a few instructions a record.
fn check_ends(ends: &[[u8; 4]], null: u32) -> Option<u32> {
    let mut previous = 0;
    let mut is_bad = false;
    for &end in ends {
        let marked = u32::from_le_bytes(end);
        let end = marked & !null;
        let is_null = marked & null != 0;
        is_bad |= end < previous;
        is_bad |= is_null & (end != previous);
        previous = end;
    }
    (!is_bad).then_some(previous)
}

fn check_ends_meet(ends: &[[u8; 4]], null: u32, column: &'static str, len: usize) -> Result<(), BatchError> {
    let last = check_ends(ends, null);
    if last.is_some_and(|last| last as usize == len) { Ok(()) } else { Err(BatchError::Ends { column, len }) }
}

fn check_headers(ends: &[[u8; 4]], bytes: &[u8]) -> Result<(), BatchError> {
    check_ends_meet(ends, 0, "header", bytes.len())?;
    let mut start = 0;
    for (record, &end) in (0..).zip(ends) {
        let end = u32::from_le_bytes(end) as usize;
        header::check(&bytes[start..end], record)?;
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_rkyv_writes() {
        for (values, numbers, keys, headers) in [
            ("", 1, "", ""),
            ("v", 1, "", ""),
            ("values", 2, "key", ""),
            ("odd", 3, "", "h"),
            ("four", 8, "keys", "heads"),
        ] {
            let numbers: Vec<u32> = (0..numbers).map(|number| number | NULL).collect();
            let columns =
                Columns { values: values.into(), numbers: numbers.clone(), keys: keys.into(), headers: headers.into() };
            let mut out = vec![0; BATCH_HEAD_BYTES];
            out.extend_from_slice(values.as_bytes());
            let numbers_at = out.len();
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            write_behind_numbers(&mut out, numbers_at, keys.as_bytes(), headers.as_bytes());
            let archive = rkyv::api::high::to_bytes::<rkyv::rancor::Panic>(&columns);
            let Ok(archive) = archive;
            assert_eq!(out[BATCH_HEAD_BYTES..], archive[..], "{columns:?}");
        }
    }
}
