//! A recorded match as a CSV file, gzipped or not, with the columns `t_us,key,kind,size`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// One event of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct TraceEvent {
    /// Microseconds since the start of the recording.
    pub t_us: u64,
    /// Who the event belongs to.
    pub key: u32,
    /// What it is, in the game's own numbers.
    pub kind: u32,
    /// Its bytes.
    pub size: u32,
}

/// A recording, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The file's name, for reports.
    pub name: String,
    /// The events.
    pub events: Vec<TraceEvent>,
}

/// Events of one trace file.
pub const TRACE_EVENTS_MAX: usize = 10_000_000;
/// Bytes of one traced message.
pub const TRACE_SIZE_MAX: u32 = 512 << 10;
/// Length of a recording.
pub const TRACE_MICROS_MAX: u64 = 24 * 3600 * 1_000_000;

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be opened.
    #[error("trace {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Reading it failed.
    #[error("trace {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file ends before its gzip does.
    #[error("trace {path}: its gzip is cut off; copy or record it again")]
    CutOff {
        /// The file.
        path: PathBuf,
    },
    /// What begins like gzip is none.
    #[error("trace {path}: its gzip is damaged: {what}")]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// It holds something else than text.
    #[error(
        "trace {path}, line {line}: this is not CSV text; a trace is CSV, plain or gzipped, with the columns \
         \"t_us,key,kind,size\""
    )]
    NotText {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },
    /// The first line is not the header.
    #[error(
        "trace {path}: the first line has the columns {found:?}; a trace is CSV, plain or gzipped, with the columns \
         \"t_us,key,kind,size\""
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
    /// A line is not four whole numbers.
    #[error("trace {path}, line {line}: {what}; a line is four whole numbers: t_us,key,kind,size")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// Time goes back.
    #[error("trace {path}, line {line}: time goes back from {before} to {after} microseconds; sort the file by t_us")]
    TimeGoesBack {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// The line before.
        before: u64,
        /// This line.
        after: u64,
    },
    /// A number is over its limit.
    #[error("trace {path}, line {line}: {column} is {found}, over the limit of {limit}")]
    Limit {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Which number.
        column: &'static str,
        /// What it is.
        found: u64,
        /// What it may be.
        limit: u64,
    },
    /// There is a header and nothing else.
    #[error("trace {path} has no events")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Trace {
    /// Reads a trace file whole.
    ///
    /// # Errors
    /// It cannot be read, or is no trace; the text names the line and what would be right.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let fail = |source| TraceError::Open { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(fail)?);
        let is_gzip = file.fill_buf().map_err(fail)?.starts_with(&[0x1f, 0x8b]);
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        if is_gzip { Self::read(MultiGzDecoder::new(file), path, name) } else { Self::read(file, path, name) }
    }

    fn read(source: impl Read, path: &Path, name: String) -> Result<Self, TraceError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let line_error = |line, error| row_error(path, line, error);
        let header = reader.headers().map_err(|error| line_error(1, error))?.clone();
        if header.iter().ne(["t_us", "key", "kind", "size"]) {
            let found = header.iter().collect::<Vec<_>>().join(",").chars().take(80).collect();
            return Err(TraceError::Header { path: path.to_owned(), found });
        }
        let mut events: Vec<TraceEvent> = Vec::new();
        for (index, row) in reader.deserialize::<TraceEvent>().enumerate() {
            let line = index as u64 + 2;
            let event = row.map_err(|error| line_error(line, error))?;
            check_limits(path, line, &event, events.len())?;
            if let Some(last) = events.last()
                && event.t_us < last.t_us
            {
                return Err(TraceError::TimeGoesBack {
                    path: path.to_owned(),
                    line,
                    before: last.t_us,
                    after: event.t_us,
                });
            }
            events.push(event);
        }
        if events.is_empty() {
            return Err(TraceError::Empty { path: path.to_owned() });
        }
        Ok(Self { name, events })
    }

    /// Length of the recording in microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.events.last().map_or(0, |event| event.t_us)
    }

    /// The keys that occur, each once, in ascending order.
    #[must_use]
    pub fn keys(&self) -> Vec<u32> {
        let mut keys: Vec<u32> = self.events.iter().map(|event| event.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Why a row could not be read: the file as a whole, or the line.
fn row_error(path: &Path, line: u64, error: csv::Error) -> TraceError {
    use std::io::ErrorKind;

    let (path, what) = (path.to_owned(), error.to_string());
    match error.into_kind() {
        csv::ErrorKind::Io(source) => match source.kind() {
            ErrorKind::UnexpectedEof => TraceError::CutOff { path },
            ErrorKind::InvalidInput | ErrorKind::InvalidData => TraceError::Gzip { path, what: source.to_string() },
            _ => TraceError::Read { path, source },
        },
        csv::ErrorKind::Utf8 { .. } => TraceError::NotText { path, line },
        _ => TraceError::Line { path, line, what },
    }
}

fn check_limits(path: &Path, line: u64, event: &TraceEvent, before: usize) -> Result<(), TraceError> {
    let rows = [
        ("t_us", event.t_us, TRACE_MICROS_MAX),
        ("size", u64::from(event.size), u64::from(TRACE_SIZE_MAX)),
        ("the number of events", before as u64 + 1, TRACE_EVENTS_MAX as u64),
    ];
    match rows.into_iter().find(|(_, found, limit)| limit < found) {
        None => Ok(()),
        Some((column, found, limit)) => Err(TraceError::Limit { path: path.to_owned(), line, column, found, limit }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open(text: &[u8]) -> Result<Trace, TraceError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        Trace::open(file.path())
    }

    #[test]
    fn plain_and_gzipped_traces_are_the_same() {
        let text = b"t_us,key,kind,size\n0,1,55,59\n16666,3,56,38\n";
        let plain = open(text).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let zipped = open(&gzip.finish().unwrap()).unwrap();
        assert_eq!(plain.events, zipped.events);
        assert_eq!(plain.keys(), [1, 3]);
        assert_eq!(plain.micros(), 16_666);
    }

    #[test]
    fn a_file_that_is_cut_off_or_no_text_says_so() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for row in 0..1000 {
            gzip.write_all(if row == 0 { b"t_us,key,kind,size\n" } else { b"0,1,55,59\n" }).unwrap();
        }
        let whole = gzip.finish().unwrap();
        let cut = open(&whole[..whole.len() - 9]).unwrap_err();
        assert!(matches!(cut, TraceError::CutOff { .. }), "{cut}");
        let mut damaged = whole.clone();
        let tail = whole.len() - 6;
        damaged[tail] ^= 1;
        let damaged = open(&damaged).unwrap_err();
        assert!(matches!(damaged, TraceError::Gzip { .. }), "{damaged}");
        let binary = open(b"t_us,key,kind,size\n0,1,55,1\n\xff\xfe,1,2,3\n").unwrap_err();
        assert!(matches!(binary, TraceError::NotText { line: 3, .. }), "{binary}");
    }

    #[test]
    fn garbage_is_told_what_a_trace_is() {
        let said = |text: &[u8]| open(text).unwrap_err().to_string();
        assert!(said(b"\x00\xff\x13garbage").contains("t_us,key,kind,size"));
        assert!(said(b"a,b\n1,2\n").contains("a,b"));
        assert!(said(b"t_us,key,kind,size\n0,1,55,x\n").contains("line 2"));
        assert!(said(b"t_us,key,kind,size\n5,1,55,1\n4,1,55,1\n").contains("goes back from 5 to 4"));
        assert!(said(b"t_us,key,kind,size\n5,1,55,999999999\n").contains("over the limit"));
        assert!(said(b"t_us,key,kind,size\n").contains("no events"));
        assert!(said(&[0x1f, 0x8b, 0x08, 0, 1, 2, 3]).contains("trace"));
    }
}
