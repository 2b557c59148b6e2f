//! The records of a transactional id as bytes (docs/formats/transaction.md).

use std::collections::BTreeSet;
use std::time::Duration;

use corelane_model::limits::{TRANSACTION_PARTICIPANTS_MAX, TRANSACTION_TIMEOUT_MAX};
use corelane_model::{
    Decision, GroupName, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, TopicId, Transaction, TransactionalId,
    WallMillis,
};

use crate::additions::ADDITIONS_MAX;
use crate::{Coordinator, DecodeError, Participant, Phase};

/// Format of keys and values that this build writes and reads.
pub const TRANSACTION_FORMAT: u8 = 1;

const KIND_ID: u8 = 1;
const KIND_ADDITION: u8 = 2;

const PHASE_IDLE: u8 = 0;
const PHASE_OPEN: u8 = 1;
const PHASE_COMMIT: u8 = 2;
const PHASE_ABORT: u8 = 3;

const PARTICIPANT_PARTITION: u8 = 1;
const PARTICIPANT_GROUP: u8 = 2;

/// What a record says.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) timeout: Duration,
    pub(crate) touched: WallMillis,
    pub(crate) current: Option<Transaction>,
    pub(crate) last: Option<(Transaction, Decision)>,
    pub(crate) phase: PhaseRecord,
}

/// What was going on.
#[derive(Clone, Debug)]
pub(crate) enum PhaseRecord {
    Idle,
    Open { participants: BTreeSet<Participant> },
    Ending { decision: Decision, left: BTreeSet<Participant> },
}

/// Which of the records of a transactional id a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The id's own.
    Id,
    /// Participants that came later, by their number.
    Addition(u16),
}

pub(crate) fn encode_key(id: &TransactionalId) -> Vec<u8> {
    let mut out = vec![TRANSACTION_FORMAT, KIND_ID];
    put_short(&mut out, id.as_str());
    out
}

pub(crate) fn encode_addition_key(id: &TransactionalId, number: u16) -> Vec<u8> {
    let mut out = vec![TRANSACTION_FORMAT, KIND_ADDITION];
    put_short(&mut out, id.as_str());
    out.extend_from_slice(&number.to_le_bytes());
    out
}

/// The transactional id that a record belongs to, so that whoever reads a home partition can hand it to the right
/// [`crate::Restore`].
///
/// # Errors
/// The bytes are no key of a transactional id's record, or of another format.
pub fn id_of(key: &[u8]) -> Result<TransactionalId, DecodeError> {
    decode_key(key).map(|(id, _)| id)
}

pub(crate) fn decode_key(bytes: &[u8]) -> Result<(TransactionalId, Key), DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let kind = reader.u8()?;
    if kind != KIND_ID && kind != KIND_ADDITION {
        return Err(DecodeError::Kind { kind });
    }
    let at = reader.at;
    let id = TransactionalId::parse(reader.short_text()?)
        .map_err(|_| DecodeError::Malformed { at, what: "a transactional id" })?;
    let key = if kind == KIND_ID { Key::Id } else { Key::Addition(reader.addition()?) };
    reader.end()?;
    Ok((id, key))
}

impl Coordinator {
    /// The id's own record with everything in it: all that another shard needs to take the id over. `None` when there is nothing (any more).
    #[must_use]
    pub fn record(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.encode_value().map(|value| (encode_key(&self.id), value))
    }

    pub(crate) fn encode_value(&self) -> Option<Vec<u8>> {
        let (phase, participants) = match &self.phase {
            Phase::Forgotten => return None,
            Phase::Unused | Phase::Empty => (PHASE_IDLE, None),
            Phase::Open { participants, .. } => (PHASE_OPEN, Some(participants)),
            Phase::Ending { decision: Decision::Commit, left } => (PHASE_COMMIT, Some(left)),
            Phase::Ending { decision: Decision::Abort, left } => (PHASE_ABORT, Some(left)),
        };
        let mut out = vec![TRANSACTION_FORMAT];
        let timeout = u32::try_from(self.timeout.as_millis()).expect("it was checked");
        out.extend_from_slice(&timeout.to_le_bytes());
        out.extend_from_slice(&self.touched.0.to_le_bytes());
        put_transaction(&mut out, self.current);
        put_transaction(&mut out, self.last.map(|(last, _)| last));
        out.push(match self.last {
            None => 0,
            Some((_, Decision::Commit)) => 1,
            Some((_, Decision::Abort)) => 2,
        });
        out.push(phase);
        put_participants(&mut out, participants.unwrap_or(&BTreeSet::new()));
        Some(out)
    }
}

/// Participants that came to a transaction in one round.
pub(crate) fn encode_addition(transaction: Transaction, participants: &BTreeSet<Participant>) -> Vec<u8> {
    let mut out = vec![TRANSACTION_FORMAT];
    put_transaction(&mut out, Some(transaction));
    put_participants(&mut out, participants);
    out
}

fn put_participants(out: &mut Vec<u8>, participants: &BTreeSet<Participant>) {
    let count = u16::try_from(participants.len()).expect("it was checked");
    out.extend_from_slice(&count.to_le_bytes());
    for participant in participants {
        match participant {
            Participant::Partition(partition) => {
                out.push(PARTICIPANT_PARTITION);
                out.extend_from_slice(&partition.topic.0.to_le_bytes());
                out.extend_from_slice(&partition.index.0.to_le_bytes());
            }
            Participant::Group(group) => {
                out.push(PARTICIPANT_GROUP);
                put_short(out, group.as_str());
            }
        }
    }
}

/// A transaction, or zeros.
fn put_transaction(out: &mut Vec<u8>, transaction: Option<Transaction>) {
    let Transaction { producer, epoch } = transaction.unwrap_or_default();
    out.extend_from_slice(&producer.0.to_le_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
}

fn put_short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("it was checked"));
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn decode_value(bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let timeout = Duration::from_millis(reader.u32()?.into());
    if TRANSACTION_TIMEOUT_MAX < timeout {
        return Err(DecodeError::Malformed { at: 1, what: "a time-out within its bounds" });
    }
    let touched = WallMillis(reader.u64()?.cast_signed());
    let current = reader.transaction()?;
    let last = reader.transaction()?;
    let at = reader.at;
    let last = match (last, reader.u8()?) {
        (None, 0) => None,
        (Some(last), 1) => Some((last, Decision::Commit)),
        (Some(last), 2) => Some((last, Decision::Abort)),
        _ => return Err(DecodeError::Malformed { at, what: "a decision about the last transaction" }),
    };
    let at = reader.at;
    let phase = reader.u8()?;
    let participants = reader.participants()?;
    reader.end()?;
    let is_sound = participants.is_empty() == (phase == PHASE_IDLE) && (phase == PHASE_IDLE || current.is_some());
    let phase = match phase {
        _ if !is_sound => return Err(DecodeError::Malformed { at, what: "a phase that fits its participants" }),
        PHASE_IDLE => PhaseRecord::Idle,
        PHASE_OPEN => PhaseRecord::Open { participants },
        PHASE_COMMIT => PhaseRecord::Ending { decision: Decision::Commit, left: participants },
        PHASE_ABORT => PhaseRecord::Ending { decision: Decision::Abort, left: participants },
        _ => return Err(DecodeError::Malformed { at, what: "a phase" }),
    };
    Ok(Record { timeout, touched, current, last, phase })
}

/// Reads what [`encode_addition`] wrote.
pub(crate) fn decode_addition(bytes: &[u8]) -> Result<(Transaction, BTreeSet<Participant>), DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let at = reader.at;
    let transaction = reader.transaction()?.ok_or(DecodeError::Malformed { at, what: "a transaction" })?;
    let at = reader.at;
    let participants = reader.participants()?;
    if participants.is_empty() {
        return Err(DecodeError::Malformed { at, what: "a participant" });
    }
    reader.end()?;
    Ok((transaction, participants))
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
            TRANSACTION_FORMAT => Ok(reader),
            found => Err(DecodeError::Format { found, known: TRANSACTION_FORMAT }),
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

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn short_text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u8()?;
        let error = self.malformed("text");
        std::str::from_utf8(self.take(length.into())?).map_err(|_| error)
    }

    fn addition(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            number if number < ADDITIONS_MAX => Ok(number),
            number => {
                Err(DecodeError::Limit { what: "additions", found: u64::from(number) + 1, limit: ADDITIONS_MAX.into() })
            }
        }
    }

    /// `None` for zeros.
    fn transaction(&mut self) -> Result<Option<Transaction>, DecodeError> {
        let at = self.at;
        let transaction = Transaction::new(ProducerId(self.u64()?), ProducerEpoch(self.u16()?));
        match transaction {
            Transaction { producer: ProducerId::NONE, epoch: ProducerEpoch(0) } => Ok(None),
            Transaction { producer: ProducerId::NONE, .. } => {
                Err(DecodeError::Malformed { at, what: "a producer with its epoch" })
            }
            transaction => Ok(Some(transaction)),
        }
    }

    fn participants(&mut self) -> Result<BTreeSet<Participant>, DecodeError> {
        let count = usize::from(self.u16()?);
        if TRANSACTION_PARTICIPANTS_MAX < count {
            let (found, limit) = (count as u64, TRANSACTION_PARTICIPANTS_MAX as u64);
            return Err(DecodeError::Limit { what: "partitions and groups", found, limit });
        }
        let mut participants = BTreeSet::new();
        for _ in 0..count {
            let at = self.at;
            let participant = match self.u8()? {
                PARTICIPANT_PARTITION => {
                    let topic = TopicId(self.u64()?);
                    Participant::Partition(PartitionId::new(topic, PartitionIndex(self.u32()?)))
                }
                PARTICIPANT_GROUP => {
                    let name = GroupName::parse(self.short_text()?);
                    Participant::Group(name.map_err(|_| DecodeError::Malformed { at, what: "the name of a group" })?)
                }
                _ => return Err(DecodeError::Malformed { at, what: "a partition or a group" }),
            };
            if participants.last().is_some_and(|last| participant <= *last) {
                return Err(DecodeError::Malformed { at, what: "participants in order, each once" });
            }
            participants.insert(participant);
        }
        Ok(participants)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("the end")) }
    }
}
