//! `produce` reads records from standard input, one a line.

use std::io::{self, BufRead};
use std::time::Duration;

use corelane::WallMillis;
use corelane_broker::quantity::Span;
use corelane_model::limits::{BATCH_BYTES_MAX, QUEUE_DELAY_MAX};
use corelane_model::queue::HEADER_DELIVER_AT;

use crate::command::consume::wall_clock;

/// Bytes of one line at most: what is longer fits into no record batch. Reading stops there, so that a file without line
/// ends does not fill the memory.
pub(crate) const LINE_BYTES_MAX: u64 = BATCH_BYTES_MAX as u64;

/// How lines become records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// The key of every record.
    pub(crate) key: Option<Vec<u8>>,
    /// What separates the key from the value within a line.
    pub(crate) separator: Option<Vec<u8>>,
    /// Whether an empty value is none at all.
    pub(crate) is_empty_null: bool,
}

/// A line as a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// Reading failed.
    #[error("cannot read standard input: {0}")]
    Read(#[from] io::Error),
    /// Over the limit.
    #[error("line {line} has more than {limit} bytes, which no record may have")]
    TooLong { line: u64, limit: u64 },
    /// A line without the separator.
    #[error("line {line} does not hold the key separator {separator:?}")]
    NoKey { line: u64, separator: String },
}

/// The lines of an input as records.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    shape: Shape,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) const fn new(input: R, shape: Shape) -> Self {
        Self { input, shape, number: 0 }
    }

    /// Number of the line that was read last, counted from 1.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// The next record, `None` at the end.
    pub(crate) fn read(&mut self) -> Result<Option<Parts>, InputError> {
        let mut line = Vec::new();
        // One more than may be, to tell a line that just fits from one that does not; and its end.
        let read = io::Read::take(&mut self.input, LINE_BYTES_MAX + 2).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if LINE_BYTES_MAX < line.len() as u64 {
            return Err(InputError::TooLong { line: self.number, limit: LINE_BYTES_MAX });
        }
        self.split(line).map(Some)
    }

    fn split(&self, line: Vec<u8>) -> Result<Parts, InputError> {
        let (key, value) = match &self.shape.separator {
            None => (self.shape.key.clone(), line),
            Some(separator) => {
                let at = line.windows(separator.len()).position(|window| window == separator.as_slice());
                let at = at.ok_or_else(|| InputError::NoKey {
                    line: self.number,
                    separator: String::from_utf8_lossy(separator).into_owned(),
                })?;
                (Some(line[..at].to_vec()), line[at + separator.len()..].to_vec())
            }
        };
        let is_null = value.is_empty() && self.shape.is_empty_null;
        Ok(Parts { key, value: (!is_null).then_some(value) })
    }
}

/// A header as `name=value`; `name` alone has no value. A delivery time has to be one that shared queues wait for.
pub(crate) fn header(text: &str) -> Result<(String, Option<Vec<u8>>), String> {
    header_at(wall_clock(), text)
}

fn header_at(now: WallMillis, text: &str) -> Result<(String, Option<Vec<u8>>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.as_bytes().to_vec())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("a header needs a name: write name=value".to_owned());
    }
    if name == HEADER_DELIVER_AT {
        let time = value.as_deref().and_then(|value| str::from_utf8(value).ok());
        let Some(time) = time.and_then(|time| time.parse().ok()) else {
            return Err(format!(
                "{HEADER_DELIVER_AT} is a time in milliseconds since 1970, such as 1767225600000; --delay 5s says it in other \
                 words"
            ));
        };
        let off = Span(Duration::from_millis(WallMillis(time).millis_since(now)));
        if Span(QUEUE_DELAY_MAX) < off {
            return Err(format!(
                "{HEADER_DELIVER_AT} of {time} is {off} from now, over the limit of {}; it counts milliseconds since 1970",
                Span(QUEUE_DELAY_MAX)
            ));
        }
    }
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and value.
    type Pair = (Option<String>, Option<String>);

    fn lines(text: &str, shape: Shape) -> Result<Vec<Pair>, InputError> {
        let mut lines = Lines::new(text.as_bytes(), shape);
        let mut found = Vec::new();
        let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
        while let Some(parts) = lines.read()? {
            found.push((text(parts.key), text(parts.value)));
        }
        Ok(found)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn one_record_a_line_with_or_without_an_end() {
        let found = lines("a\n\nb", Shape::default()).unwrap();
        assert_eq!(found, [(None, some("a")), (None, some("")), (None, some("b"))]);
        assert!(lines("", Shape::default()).unwrap().is_empty());
    }

    #[test]
    fn keys_come_from_the_option_or_the_line() {
        let fixed = Shape { key: Some(b"k".to_vec()), is_empty_null: true, ..Shape::default() };
        assert_eq!(lines("a\n\n", fixed).unwrap(), [(some("k"), some("a")), (some("k"), None)]);
        let split = Shape { separator: Some(b"::".to_vec()), ..Shape::default() };
        assert_eq!(lines("x::y::z\n", split.clone()).unwrap(), [(some("x"), some("y::z"))]);
        let error = lines("x::y\nz\n", split).unwrap_err();
        assert_eq!(error.to_string(), "line 2 does not hold the key separator \"::\"");
    }

    #[test]
    fn a_line_over_the_limit_is_refused_and_one_at_it_is_not() {
        let limit = usize::try_from(LINE_BYTES_MAX).unwrap();
        let fits = "x".repeat(limit) + "\nrest\n";
        assert_eq!(lines(&fits, Shape::default()).unwrap().len(), 2);
        let error = lines(&("x".repeat(limit + 1) + "\n"), Shape::default()).unwrap_err();
        assert!(matches!(error, InputError::TooLong { line: 1, .. }));
    }

    #[test]
    fn headers_have_a_name() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), Some(b"b=c".to_vec()))));
        assert_eq!(header("a"), Ok(("a".to_owned(), None)));
        assert!(header("=b").is_err());
    }

    #[test]
    fn a_delivery_time_that_nobody_would_look_at_is_refused() {
        assert!(header("corelane-deliver-at=1767225600000").is_ok());
        for wrong in ["corelane-deliver-at=tomorrow", "corelane-deliver-at=5s", "corelane-deliver-at"] {
            assert!(header(wrong).unwrap_err().contains("--delay 5s"), "{wrong}");
        }
    }
}
