//! A queue's state as keyed records: docs/formats/queue.md.

use std::collections::BTreeMap;
use std::time::Duration;

use corelane_model::limits::{QUEUE_BACKOFF_STEPS_MAX, QUEUE_DELIVERIES_COUNTED_MAX, QUEUE_WINDOW_RECORDS};
use corelane_model::{
    Backoff, Dispatch, GroupName, Now, Offset, QueueSettings, StartAt, TopicId, TopicName, WallMillis,
};

use crate::done::DoneSet;
use crate::partition::{Failure, Partition};
use crate::{DecodeError, Queue, QueueName};

/// Version of keys and values.
pub const QUEUE_FORMAT: u8 = 1;

const KIND_SETTINGS: u8 = 16;
const KIND_PARTITION: u8 = 17;
const KIND_REDRIVE: u8 = 18;
/// Kinds of records of queues begin here; those below are consumer groups'.
const KINDS: std::ops::RangeInclusive<u8> = 16..=31;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Settings,
    Partition(u32),
    Redrive,
}

/// The settings, and where the queue began.
#[derive(Clone, Debug)]
pub(crate) struct SettingsRecord {
    pub(crate) settings: QueueSettings,
    pub(crate) start: StartAt,
    pub(crate) first_partitions: u32,
}

/// What is done and what has failed.
#[derive(Clone, Debug)]
pub(crate) struct PartitionRecord {
    pub(crate) done_end: u64,
    pub(crate) dead: u64,
    pub(crate) done: Vec<(u64, u64)>,
    pub(crate) failed: BTreeMap<u64, Failure>,
}

/// Whether a record of a home partition is a queue's, by its key.
#[must_use]
pub fn is_queue_key(key: &[u8]) -> bool {
    key.get(1).is_some_and(|kind| KINDS.contains(kind))
}

/// The queue that a record belongs to, so that whoever reads a home partition can hand it to the right [`crate::Restore`].
///
/// # Errors
/// The bytes are no key of a queue's record, or of another format.
pub fn queue_of(key: &[u8]) -> Result<QueueName, DecodeError> {
    decode_key(key).map(|(name, _)| name)
}

pub(crate) fn encode_key(name: &QueueName, key: Key) -> Vec<u8> {
    let group = name.group.as_str().as_bytes();
    let mut out = Vec::with_capacity(15 + group.len());
    let kind = match key {
        Key::Settings => KIND_SETTINGS,
        Key::Partition(_) => KIND_PARTITION,
        Key::Redrive => KIND_REDRIVE,
    };
    out.extend_from_slice(&[QUEUE_FORMAT, kind]);
    put_text(&mut out, group);
    out.extend_from_slice(&name.topic.0.to_le_bytes());
    if let Key::Partition(index) = key {
        out.extend_from_slice(&index.to_le_bytes());
    }
    out
}

pub(crate) fn decode_key(bytes: &[u8]) -> Result<(QueueName, Key), DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let kind = reader.u8()?;
    let at = reader.at;
    let group =
        GroupName::parse(reader.text()?).map_err(|_| DecodeError::Malformed { at, what: "the name of a group" })?;
    let topic = TopicId(u64::from_le_bytes(reader.array()?));
    let key = match kind {
        KIND_SETTINGS => Key::Settings,
        KIND_PARTITION => Key::Partition(u32::from_le_bytes(reader.array()?)),
        KIND_REDRIVE => Key::Redrive,
        kind => return Err(DecodeError::Kind { kind }),
    };
    reader.end()?;
    Ok((QueueName { group, topic }, key))
}

impl Queue {
    /// The newest record of every key, as [`crate::Effect::Append`] wrote them or will: what compaction leaves, and what
    /// another shard needs to take the queue over.
    pub fn records(&self, now: Now) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let partitions = (0..self.partitions_len()).map(Key::Partition);
        let keys = [Key::Settings, Key::Redrive].into_iter().chain(partitions);
        keys.filter_map(move |key| Some((encode_key(&self.name, key), self.encode_value(now, key)?)))
    }

    /// The value of a key as things are; `None` when there is nothing (any more).
    pub(crate) fn encode_value(&self, now: Now, key: Key) -> Option<Vec<u8>> {
        if self.is_deleted {
            return None;
        }
        let mut out = vec![QUEUE_FORMAT];
        match key {
            Key::Settings => self.encode_settings(&mut out),
            Key::Partition(index) => {
                let partition = self.partitions.get(index as usize).filter(|partition| partition.is_started)?;
                encode_partition(now, partition, &mut out);
            }
            Key::Redrive if self.redrive.positions.is_empty() => return None,
            Key::Redrive => {
                out.extend_from_slice(&self.redrive.of.0.to_le_bytes());
                put_varint(&mut out, self.redrive.positions.len() as u64);
                for (&partition, &offset) in &self.redrive.positions {
                    put_varint(&mut out, partition.into());
                    put_varint(&mut out, offset);
                }
            }
        }
        Some(out)
    }

    fn encode_settings(&self, out: &mut Vec<u8>) {
        let settings = &self.settings;
        put_millis(out, settings.visibility);
        let dispatch = Dispatch::ALL.iter().position(|&known| known == settings.dispatch).expect("it is listed");
        out.push(u8::try_from(dispatch).expect("there are four"));
        out.push(u8::from(settings.order_per_key));
        put_varint(out, settings.delivery_limit.unwrap_or(0).into());
        match &settings.backoff {
            Backoff::Exponential { first, cap } => {
                out.push(0);
                put_millis(out, *first);
                put_millis(out, *cap);
            }
            Backoff::Steps(steps) => {
                out.push(u8::try_from(steps.len()).expect("it was checked"));
                steps.iter().for_each(|&step| put_millis(out, step));
            }
        }
        put_text(out, settings.dead_letter.as_ref().map_or(&[], |name| name.as_str().as_bytes()));
        let (kind, value) = match self.start {
            StartAt::Earliest => (0, 0),
            StartAt::Latest => (1, 0),
            StartAt::Offset(offset) => (2, offset.0),
            StartAt::Time(time) => (3, time.0.cast_unsigned()),
        };
        out.push(kind);
        out.extend_from_slice(&u64::to_le_bytes(value));
        put_varint(out, self.first_partitions.into());
    }
}

fn encode_partition(now: Now, partition: &Partition, out: &mut Vec<u8>) {
    put_varint(out, partition.done_end);
    put_varint(out, partition.dead);
    let window_end = partition.done_end + QUEUE_WINDOW_RECORDS;
    let ranges = || {
        let ranges = partition.done.ranges(partition.done_end).take_while(move |&(start, _)| start < window_end);
        ranges.map(move |(start, end)| (start, end.min(window_end)))
    };
    put_varint(out, ranges().count() as u64);
    let mut at = partition.done_end;
    for (start, end) in ranges() {
        put_varint(out, start - at);
        put_varint(out, end - start);
        at = end;
    }
    put_varint(out, partition.failed.len() as u64);
    if partition.failed.is_empty() {
        return;
    }
    let base = partition.failed.values().map(|failure| failure.first.0).min().expect("there is one");
    out.extend_from_slice(&base.to_le_bytes());
    out.extend_from_slice(&now.wall.0.to_le_bytes());
    let mut at = partition.done_end;
    for (&offset, failure) in &partition.failed {
        let is_done = offset < partition.done_end || partition.done.contains(offset);
        assert!(!is_done, "record {offset} of {} is done and has failed", partition.index);
        put_varint(out, offset - at);
        put_varint(out, u64::from(failure.deliveries) << 1 | u64::from(failure.is_dead));
        put_varint(out, WallMillis(failure.first.0).millis_since(WallMillis(base)));
        put_varint(out, failure.remaining_ms(now.wall));
        at = offset;
    }
}

fn put_millis(out: &mut Vec<u8>, duration: Duration) {
    put_varint(out, u64::try_from(duration.as_millis()).expect("it was checked"));
}

/// Text of at most 255 bytes.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(u8::try_from(text.len()).expect("names are at most 249 bytes"));
    out.extend_from_slice(text);
}

/// LEB128: seven bits a byte, low bits first.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while 0x7f < value {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
}

pub(crate) fn decode_settings(bytes: &[u8]) -> Result<SettingsRecord, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let visibility = reader.millis()?;
    let dispatch = *reader.choice("a dispatch", Dispatch::ALL)?;
    let order_per_key = *reader.choice("a mark", &[false, true])?;
    let delivery_limit = reader.varint_u32("a delivery limit")?;
    let backoff = match reader.u8()? {
        0 => Backoff::Exponential { first: reader.millis()?, cap: reader.millis()? },
        steps if usize::from(steps) <= QUEUE_BACKOFF_STEPS_MAX => {
            Backoff::Steps((0..steps).map(|_| reader.millis()).collect::<Result<_, _>>()?)
        }
        _ => return Err(reader.malformed("fewer steps of the back-off")),
    };
    let at = reader.at;
    let dead_letter = match reader.text()? {
        "" => None,
        name => Some(TopicName::parse(name).map_err(|_| DecodeError::Malformed { at, what: "a topic's name" })?),
    };
    let kind = reader.u8()?;
    let value = u64::from_le_bytes(reader.array()?);
    let start = match kind {
        0 => StartAt::Earliest,
        1 => StartAt::Latest,
        2 => StartAt::Offset(Offset(value)),
        3 => StartAt::Time(WallMillis(value.cast_signed())),
        _ => return Err(reader.malformed("a start position")),
    };
    let first_partitions = reader.varint_u32("a number of partitions")?;
    reader.end()?;
    let delivery_limit = (delivery_limit != 0).then_some(delivery_limit);
    let settings = QueueSettings { visibility, dispatch, order_per_key, delivery_limit, backoff, dead_letter };
    if settings.check().is_err() {
        return Err(DecodeError::Malformed { at: 1, what: "settings within their bounds" });
    }
    Ok(SettingsRecord { settings, start, first_partitions })
}

pub(crate) fn decode_partition(bytes: &[u8]) -> Result<PartitionRecord, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let done_end = reader.varint()?;
    let dead = reader.varint()?;
    let window_end = done_end.checked_add(QUEUE_WINDOW_RECORDS).ok_or_else(|| reader.malformed("an offset"))?;
    let mut done = Vec::new();
    let mut at = done_end;
    for _ in 0..reader.varint()? {
        let (gap, len) = (reader.varint()?, reader.varint()?);
        let start = at.checked_add(gap);
        let end = start.and_then(|start| start.checked_add(len)).filter(|&end| len != 0 && end <= window_end);
        let (Some(start), Some(end)) = (start, end) else { return Err(reader.malformed("a range in the window")) };
        done.push((start, end));
        at = end;
    }
    let mut failed = BTreeMap::new();
    let count = reader.varint()?;
    if count != 0 {
        let base = i64::from_le_bytes(reader.array()?);
        let written = i64::from_le_bytes(reader.array()?);
        let mut at = done_end;
        for place in 0..count {
            let gap = reader.varint()?;
            let offset = at.checked_add(gap).filter(|&offset| offset < window_end && (place == 0 || gap != 0));
            let Some(offset) = offset else { return Err(reader.malformed("an offset in the window")) };
            let marked = reader.varint()?;
            let deliveries =
                u16::try_from(marked >> 1).ok().filter(|&counted| u32::from(counted) <= QUEUE_DELIVERIES_COUNTED_MAX);
            let deliveries = deliveries.ok_or_else(|| reader.malformed("a number of deliveries"))?;
            let first = WallMillis(base.saturating_add_unsigned(reader.varint()?));
            let rest_ms = reader.varint()?;
            let not_before = WallMillis(written.saturating_add_unsigned(rest_ms));
            failed.insert(offset, Failure { deliveries, is_dead: marked & 1 == 1, first, not_before, rest_ms });
            at = offset;
        }
    }
    reader.end()?;
    if done.iter().any(|&(start, end)| failed.range(start..end).next().is_some()) {
        return Err(DecodeError::Malformed { at: bytes.len(), what: "failures of records that are not done" });
    }
    Ok(PartitionRecord { done_end, dead, done, failed })
}

/// The id of the dead-letter topic, and how far it was put back.
pub(crate) fn decode_redrive(bytes: &[u8]) -> Result<(TopicId, BTreeMap<u32, u64>), DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let of = TopicId(u64::from_le_bytes(reader.array()?));
    let mut positions = BTreeMap::new();
    for _ in 0..reader.varint()? {
        let partition = reader.varint_u32("a partition")?;
        positions.insert(partition, reader.varint()?);
    }
    reader.end()?;
    Ok((of, positions))
}

/// The done set of a record.
pub(crate) fn done_set(record: &PartitionRecord) -> DoneSet {
    let mut done = DoneSet::new(record.done_end);
    record.done.iter().flat_map(|&(start, end)| start..end).for_each(|offset| done.insert(offset));
    done
}

/// Takes fields off untrusted bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Behind the format, which must be ours.
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Self { bytes, at: 0 };
        match reader.u8()? {
            QUEUE_FORMAT => Ok(reader),
            found => Err(DecodeError::Format { found, known: QUEUE_FORMAT }),
        }
    }

    const fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { at: self.at, what }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let found = self.bytes.get(self.at..self.at + length).ok_or_else(|| self.malformed("more bytes"))?;
        self.at += length;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N).map(|bytes| bytes.try_into().expect("it has that length"))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let is_padded = byte == 0 && shift != 0;
            if bits << shift >> shift != bits || is_padded {
                return Err(self.malformed("a number within 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number within 64 bits"))
    }

    fn varint_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.malformed(what))
    }

    fn millis(&mut self) -> Result<Duration, DecodeError> {
        self.varint().map(Duration::from_millis)
    }

    fn choice<'c, T>(&mut self, what: &'static str, choices: &'c [T]) -> Result<&'c T, DecodeError> {
        let error = self.malformed(what);
        choices.get(usize::from(self.u8()?)).ok_or(error)
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u8()?;
        let error = self.malformed("text");
        std::str::from_utf8(self.take(length.into())?).map_err(|_| error)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("the end")) }
    }
}
