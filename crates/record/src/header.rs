//! Headers of a record: an ordered list of names and nullable values that keeps duplicates.
//!
//! Each header is: length of the name, the name in UTF-8, length of the value plus one (0 says null), the value. Lengths
//! are LEB128 without padding.

use corelane_model::limits::RECORD_HEADERS_MAX;

use crate::BatchError;

/// Bytes of the longest length: 32 bits in groups of seven.
const LENGTH_BYTES_MAX: usize = 5;

/// The headers of one record, in the order in which the producer gave them.
#[derive(Clone, Debug, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Over bytes that [`check`] has seen.
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value, rest) = take_header(self.rest)?;
        self.rest = rest;
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }
}

/// Bytes that a header takes.
pub(crate) fn encoded_bytes(name: &str, value: Option<&[u8]>) -> u64 {
    let value_len = value.map_or(0, |value| value.len() as u64);
    let stated = value.map_or(0, |_| value_len + 1);
    length_bytes(name.len() as u64) + name.len() as u64 + length_bytes(stated) + value_len
}

/// Appends a header. The caller has checked that the batch stays within its limit, hence lengths within 32 bits.
pub(crate) fn append(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    append_length(out, name.len());
    out.extend_from_slice(name.as_bytes());
    match value {
        None => out.push(0),
        Some(value) => {
            append_length(out, value.len() + 1);
            out.extend_from_slice(value);
        }
    }
}

/// Checks the headers of one record; `record` goes into the error.
pub(crate) fn check(mut bytes: &[u8], record: u32) -> Result<(), BatchError> {
    let mut count = 0;
    while !bytes.is_empty() {
        let Some((name, _, rest)) = take_header(bytes) else {
            return Err(BatchError::Headers { record });
        };
        if std::str::from_utf8(name).is_err() {
            return Err(BatchError::Headers { record });
        }
        count += 1;
        if RECORD_HEADERS_MAX < count {
            return Err(BatchError::HeaderCount { record, limit: RECORD_HEADERS_MAX });
        }
        bytes = rest;
    }
    Ok(())
}

/// A header as it lies there: name, value, and what follows.
type RawHeader<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

fn take_header(bytes: &[u8]) -> Option<RawHeader<'_>> {
    let (name_len, rest) = take_length(bytes)?;
    let (name, rest) = rest.split_at_checked(name_len)?;
    let (stated, rest) = take_length(rest)?;
    match stated.checked_sub(1) {
        None => Some((name, None, rest)),
        Some(value_len) => {
            let (value, rest) = rest.split_at_checked(value_len)?;
            Some((name, Some(value), rest))
        }
    }
}

/// A length and what follows it; `None` when it is cut off, longer than 32 bits, or padded.
fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let is_padded = byte == 0 && index != 0;
            let value = u32::try_from(value).ok().filter(|_| !is_padded)?;
            return Some((value as usize, &bytes[index + 1..]));
        }
    }
    None
}

fn append_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while 0x7f < rest {
        out.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("seven bits"));
}

const fn length_bytes(length: u64) -> u64 {
    let bits = 64 - (length | 1).leading_zeros() as u64;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_size_round_trip() {
        for length in [0, 1, 127, 128, 16_383, 16_384, (1 << 20) - 1, 1 << 21, u32::MAX as usize] {
            let mut out = Vec::new();
            append_length(&mut out, length);
            assert_eq!(out.len() as u64, length_bytes(length as u64), "length {length}");
            assert_eq!(take_length(&out), Some((length, &[][..])));
            assert_eq!(take_length(&out[..out.len() - 1]), None, "length {length} cut off");
        }
    }

    #[test]
    fn padded_and_oversized_lengths_are_refused() {
        assert_eq!(take_length(&[0x80, 0x00]), None);
        assert_eq!(take_length(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(take_length(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), None);
        assert_eq!(take_length(&[]), None);
    }

    #[test]
    fn order_duplicates_nulls_and_empties_are_kept() {
        let list = [("a", Some(&b"1"[..])), ("a", None), ("", Some(b"")), ("ключ", Some(b"2"))];
        let mut out = Vec::new();
        for (name, value) in list {
            let before = out.len() as u64;
            append(&mut out, name, value);
            assert_eq!(out.len() as u64 - before, encoded_bytes(name, value));
        }
        assert_eq!(check(&out, 0), Ok(()));
        assert!(Headers::new(&out).eq(list));
    }

    #[test]
    fn names_are_text_and_their_number_is_limited() {
        assert_eq!(check(&[1, 0xff, 0], 3), Err(BatchError::Headers { record: 3 }));
        assert_eq!(check(&[0, 0].repeat(RECORD_HEADERS_MAX), 3), Ok(()));
        let limit = RECORD_HEADERS_MAX;
        assert_eq!(check(&[0, 0].repeat(limit + 1), 3), Err(BatchError::HeaderCount { record: 3, limit }));
    }
}
