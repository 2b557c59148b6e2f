//! How `consume` prints a record: kcat's format letters, or a JSON object a line.

use std::io::{self, Write};

/// A record as `consume` sees it.
#[derive(Clone, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) topic: &'a str,
    pub(crate) role: Role,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// As what somebody reads a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of a topic, or of a shared queue: there is nobody else's record.
    Reader,
    /// As the member of a group whose record it is.
    Owner,
    /// As a member that stands by.
    Standby,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Owner => "owner",
            Self::Standby => "standby",
        }
    }
}

/// A piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    KeyLength,
    Value,
    ValueLength,
    ValueLengthBinary,
    Timestamp,
    Headers,
    Role,
}

/// How records are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// A letter that means nothing.
    #[error(
        "%{0} is no format letter; there are %t topic, %p partition, %o offset, %k key, %K its length, %s value, %S its length, %R its length as four bytes, %T timestamp, %h headers, %r the reader's role, %% a percent sign"
    )]
    Letter(char),
    /// A percent sign at the end.
    #[error("the format ends with a lone %; write %% for a percent sign")]
    LonePercent,
    /// A backslash that begins nothing known.
    #[error("\\{0} is no escape; there are \\n \\r \\t \\0 \\\\ and \\xHH")]
    Escape(String),
}

impl std::str::FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next().ok_or(FormatError::LonePercent)? {
                    '%' => literal.push(b'%'),
                    letter => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut literal)));
                        }
                        pieces.push(piece(letter)?);
                    }
                },
                '\\' => literal.push(escape(&mut chars)?),
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }
}

const fn piece(letter: char) -> Result<Piece, FormatError> {
    Ok(match letter {
        't' => Piece::Topic,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        'k' => Piece::Key,
        'K' => Piece::KeyLength,
        's' => Piece::Value,
        'S' => Piece::ValueLength,
        'R' => Piece::ValueLengthBinary,
        'T' => Piece::Timestamp,
        'h' => Piece::Headers,
        'r' => Piece::Role,
        other => return Err(FormatError::Letter(other)),
    })
}

/// A text in which a backslash begins an escape, as bytes.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => bytes.push(escape(&mut chars)?),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, FormatError> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.take(2).collect();
            let is_whole = digits.len() == 2;
            u8::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| is_whole)
                .ok_or_else(|| FormatError::Escape(format!("x{digits}")))
        }
        other => Err(FormatError::Escape(other.map(String::from).unwrap_or_default())),
    }
}

impl Format {
    /// Prints one record.
    pub(crate) fn print(&self, out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => out.write_all(line.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", line.partition)?,
                Piece::Offset => write!(out, "{}", line.offset)?,
                Piece::Key => out.write_all(line.key.unwrap_or_default())?,
                Piece::KeyLength => length(out, line.key)?,
                Piece::Value => out.write_all(line.value.unwrap_or_default())?,
                Piece::ValueLength => length(out, line.value)?,
                Piece::ValueLengthBinary => {
                    // As kcat: big-endian, and -1 for a value that is not there.
                    let length = line.value.map_or(Ok(-1), |value| i32::try_from(value.len()));
                    out.write_all(&length.map_err(io::Error::other)?.to_be_bytes())?;
                }
                Piece::Timestamp => write!(out, "{}", line.timestamp)?,
                Piece::Headers => headers(out, line)?,
                Piece::Role => out.write_all(line.role.name().as_bytes())?,
            }
        }
        Ok(())
    }
}

/// -1 says that there is none, as kcat does.
fn length(out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes {
        Some(bytes) => write!(out, "{}", bytes.len()),
        None => out.write_all(b"-1"),
    }
}

fn headers(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    for (index, (name, value)) in line.headers.iter().enumerate() {
        if index != 0 {
            out.write_all(b",")?;
        }
        write!(out, "{name}=")?;
        out.write_all(value.unwrap_or(b"NULL"))?;
    }
    Ok(())
}

/// Prints a record as a JSON object on a line of its own. Bytes that are no UTF-8 stand in hexadecimal under a name that
/// ends in `_hex`.
pub(crate) fn print_json(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    let mut object = serde_json::Map::new();
    object.insert("topic".to_owned(), line.topic.into());
    object.insert("partition".to_owned(), line.partition.into());
    object.insert("offset".to_owned(), line.offset.into());
    object.insert("timestamp".to_owned(), line.timestamp.into());
    if line.role != Role::Reader {
        object.insert("role".to_owned(), line.role.name().into());
    }
    insert_bytes(&mut object, "key", line.key);
    insert_bytes(&mut object, "value", line.value);
    let headers = line.headers.iter().map(|(name, value)| {
        let mut header = serde_json::Map::new();
        header.insert("name".to_owned(), (*name).into());
        insert_bytes(&mut header, "value", *value);
        serde_json::Value::Object(header)
    });
    object.insert("headers".to_owned(), headers.collect());
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

fn insert_bytes(object: &mut serde_json::Map<String, serde_json::Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => drop(object.insert(name.to_owned(), serde_json::Value::Null)),
        Some(Ok(text)) => drop(object.insert(name.to_owned(), text.into())),
        Some(Err(_)) => drop(object.insert(format!("{name}_hex"), hex::encode(bytes.unwrap_or_default()).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            topic: "inputs",
            role: Role::Reader,
            partition: 3,
            offset: 42,
            timestamp: 1_700_000_000_000,
            key: Some(b"ada"),
            value: None,
            headers: vec![("a", Some(b"1")), ("b", None)],
        }
    }

    fn print(format: &str, line: &Line<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        format.parse::<Format>().unwrap().print(&mut out, line).unwrap();
        out
    }

    #[test]
    fn letters_mean_what_they_mean_to_kcat() {
        let found = print("%t [%p] at %o: %k(%K) = %s(%S) %T %h 100%%\\n\\t\\x41", &line());
        let right = "inputs [3] at 42: ada(3) = (-1) 1700000000000 a=1,b=NULL 100%\n\tA";
        assert_eq!(String::from_utf8(found).unwrap(), right);
        assert_eq!(print("%R", &line()), [255; 4]);
        assert_eq!(print("%R%s", &Line { value: Some(b"\xff\x00"), ..line() }), [0, 0, 0, 2, 255, 0]);
        assert_eq!(print("é", &line()), "é".as_bytes());
    }

    #[test]
    fn wrong_formats_say_what_would_be_right() {
        let error = |text: &str| text.parse::<Format>().unwrap_err().to_string();
        assert!(error("%y").contains("%t topic"));
        assert!(error("100%").contains("%%"));
        assert!(error("\\q").contains("\\n"));
        assert!(error("\\x4").contains("\\xHH"));
        assert!(error("\\").contains("\\\\"));
    }

    #[test]
    fn escapes_work_outside_of_formats_too() {
        assert_eq!(unescape("a\\t\\xff%s").unwrap(), b"a\t\xff%s");
        assert!(unescape("\\q").is_err());
    }

    #[test]
    fn json_tells_null_empty_and_binary_apart() {
        let print = |value| {
            let mut out = Vec::new();
            print_json(&mut out, &Line { value, ..line() }).unwrap();
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        assert_eq!(print(None)["value"], serde_json::Value::Null);
        assert_eq!(print(Some(b""))["value"], "");
        assert_eq!(print(Some(b"\xff"))["value_hex"], "ff");
        assert_eq!(print(None)["headers"][1]["name"], "b");
    }
}
