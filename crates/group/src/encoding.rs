//! The records of a group as bytes (docs/formats/group.md).

use std::time::Duration;

use corelane_model::limits::{
    GROUP_CAPACITY_MAX, GROUP_CLIENT_BYTES_MAX, GROUP_HANDOVER_BYTES_MAX, GROUP_STANDBYS_MAX,
};
use corelane_model::{
    Generation, LeaderEpoch, MemberId, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, TopicId,
    TopicName, Transaction, WallMillis,
};

use crate::{
    CommittedOffset, DecodeError, Group, GroupName, Hold, Phase, Presence, ResetPolicy, Settings, StagedOffset,
    StaticId, Strategy, Subscription,
};

/// Format of keys and values that this build writes and reads.
pub const GROUP_FORMAT: u8 = 1;

const KIND_META: u8 = 1;
const KIND_MEMBER: u8 = 2;
const KIND_SLOT: u8 = 3;
const KIND_OFFSET: u8 = 4;
const KIND_HANDOVER: u8 = 5;
const KIND_STAGED: u8 = 6;

/// No group counts this far, so that counting on never overflows.
const COUNTERS_END: u64 = 1 << 62;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Meta,
    Member(MemberId),
    Slot(PartitionId),
    Offset(PartitionId),
    Handover(PartitionId),
    Staged(PartitionId),
}

/// The group itself.
#[derive(Clone, Debug)]
pub(crate) struct MetaRecord {
    pub(crate) generation: Generation,
    pub(crate) next_seat: u64,
    pub(crate) settings: Settings,
    pub(crate) is_open: bool,
    pub(crate) empty_since: Option<WallMillis>,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct MemberRecord {
    pub(crate) client: String,
    pub(crate) seat: u64,
    pub(crate) presence: Presence,
    pub(crate) capacity: u32,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) reset: ResetPolicy,
    pub(crate) static_id: Option<StaticId>,
    pub(crate) displaced: Option<MemberId>,
    pub(crate) subscription: Subscription,
}

/// Who has a partition. The deadline of one that is revoked is not in it.
#[derive(Clone, Debug)]
pub(crate) struct SlotRecord {
    pub(crate) hold: Hold,
    pub(crate) standbys: Vec<MemberId>,
}

pub(crate) fn encode_key(group: &GroupName, key: Key) -> Vec<u8> {
    let name = group.as_str().as_bytes();
    let mut out = Vec::with_capacity(3 + name.len() + 16);
    let kind = match key {
        Key::Meta => KIND_META,
        Key::Member(_) => KIND_MEMBER,
        Key::Slot(_) => KIND_SLOT,
        Key::Offset(_) => KIND_OFFSET,
        Key::Handover(_) => KIND_HANDOVER,
        Key::Staged(_) => KIND_STAGED,
    };
    out.extend_from_slice(&[GROUP_FORMAT, kind]);
    put_short(&mut out, name);
    match key {
        Key::Meta => {}
        Key::Member(member) => out.extend_from_slice(&member.0.to_le_bytes()),
        Key::Slot(partition) | Key::Offset(partition) | Key::Handover(partition) | Key::Staged(partition) => {
            out.extend_from_slice(&partition.topic.0.to_le_bytes());
            out.extend_from_slice(&partition.index.0.to_le_bytes());
        }
    }
    out
}

/// The group that a record belongs to, so that whoever reads a home partition can hand it to the right [`crate::Restore`].
///
/// # Errors
/// The bytes are no key of a group's record, or of another format.
pub fn group_of(key: &[u8]) -> Result<GroupName, DecodeError> {
    decode_key(key).map(|(name, _)| name)
}

pub(crate) fn decode_key(bytes: &[u8]) -> Result<(GroupName, Key), DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let kind = reader.u8()?;
    let at = reader.at;
    let name = GroupName::parse(reader.short_text()?)
        .map_err(|_| DecodeError::Malformed { at, what: "the name of a group" })?;
    let key = match kind {
        KIND_META => Key::Meta,
        KIND_MEMBER => Key::Member(reader.member()?),
        KIND_SLOT => Key::Slot(reader.partition()?),
        KIND_OFFSET => Key::Offset(reader.partition()?),
        KIND_HANDOVER => Key::Handover(reader.partition()?),
        KIND_STAGED => Key::Staged(reader.partition()?),
        kind => return Err(DecodeError::Kind { kind }),
    };
    reader.end()?;
    Ok((name, key))
}

impl Group {
    /// The newest record of every key, as [`crate::Effect::Append`] wrote them or will: what compaction leaves, and what
    /// another shard needs to take the group over.
    pub fn records(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let meta = (self.phase != Phase::Deleted).then_some(Key::Meta);
        let members = self.members.keys().copied().map(Key::Member);
        let handovers = self.handovers.keys().copied().map(Key::Handover);
        let slots = self.slots.keys().copied().map(Key::Slot);
        let offsets = self.offsets.keys().copied().map(Key::Offset);
        let keys = meta.into_iter().chain(members).chain(handovers).chain(slots).chain(offsets);
        let keys = keys.chain(self.staged.keys().copied().map(Key::Staged));
        keys.map(|key| (encode_key(&self.name, key), self.encode_value(key).expect("what is listed is there")))
    }

    /// The value of a key as things are; `None` when there is nothing (any more).
    pub(crate) fn encode_value(&self, key: Key) -> Option<Vec<u8>> {
        let mut out = vec![GROUP_FORMAT];
        match key {
            Key::Meta if self.phase == Phase::Deleted => return None,
            Key::Meta => self.encode_meta(&mut out),
            Key::Member(member) => self.encode_member(&mut out, member)?,
            Key::Slot(partition) => self.encode_slot(&mut out, partition)?,
            Key::Offset(partition) => encode_offset(&mut out, self.offsets.get(&partition)?),
            Key::Handover(partition) => out.extend_from_slice(self.handovers.get(&partition)?),
            Key::Staged(partition) => encode_staged(&mut out, self.staged.get(&partition)?),
        }
        Some(out)
    }

    fn encode_meta(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.next_seat.to_le_bytes());
        let strategy = Strategy::ALL.iter().position(|&known| known == self.settings.strategy).expect("it is listed");
        out.push(u8::try_from(strategy).expect("there are six"));
        out.push(self.settings.standbys);
        let retention = u64::try_from(self.settings.retention.as_millis()).expect("it was checked");
        out.extend_from_slice(&retention.to_le_bytes());
        out.push(u8::from(self.phase != Phase::Open));
        out.push(u8::from(self.empty_since.is_some()));
        out.extend_from_slice(&self.empty_since.unwrap_or_default().0.to_le_bytes());
    }

    fn encode_member(&self, out: &mut Vec<u8>, id: MemberId) -> Option<()> {
        let member = self.members.get(&id)?;
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).expect("it was checked").to_le_bytes();
        out.extend_from_slice(&member.seat.to_le_bytes());
        out.push(u8::from(member.presence == Presence::Away));
        out.extend_from_slice(&member.capacity.to_le_bytes());
        out.extend_from_slice(&millis(member.session_timeout));
        out.extend_from_slice(&millis(member.rebalance_timeout));
        let (reset, time) = match member.reset {
            ResetPolicy::Earliest => (0, WallMillis(0)),
            ResetPolicy::Latest => (1, WallMillis(0)),
            ResetPolicy::Time(time) => (2, time),
            ResetPolicy::Error => (3, WallMillis(0)),
        };
        out.push(reset);
        out.extend_from_slice(&time.0.to_le_bytes());
        put_long(out, member.client.as_bytes());
        put_short(out, member.static_id.as_ref().map_or(&[], |id| id.as_str().as_bytes()));
        out.extend_from_slice(&member.displaced.unwrap_or_default().0.to_le_bytes());
        let subscription = self.subscriptions.subscription(member.subscription);
        out.push(u8::from(subscription.pattern.is_some()));
        put_long(out, subscription.pattern.as_deref().unwrap_or_default().as_bytes());
        out.extend_from_slice(&u16::try_from(subscription.topics.len()).expect("it was checked").to_le_bytes());
        for topic in &subscription.topics {
            put_short(out, topic.as_str().as_bytes());
        }
        Some(())
    }

    fn encode_slot(&self, out: &mut Vec<u8>, partition: PartitionId) -> Option<()> {
        let slot = self.slots.get(&partition)?;
        let (kind, revoked, next) = match slot.hold {
            Hold::Owned { .. } => (0, Generation(0), None),
            Hold::Revoking { revoked, next: None, .. } => (1, revoked, None),
            Hold::Revoking { revoked, next, .. } => (2, revoked, next),
        };
        out.push(kind);
        out.extend_from_slice(&slot.hold.owner().0.to_le_bytes());
        out.extend_from_slice(&slot.hold.since().0.to_le_bytes());
        out.extend_from_slice(&revoked.0.to_le_bytes());
        out.extend_from_slice(&next.unwrap_or_default().0.to_le_bytes());
        out.push(u8::try_from(slot.standbys.len()).expect("it was checked"));
        for standby in &slot.standbys {
            out.extend_from_slice(&standby.0.to_le_bytes());
        }
        Some(())
    }
}

fn encode_offset(out: &mut Vec<u8>, committed: &CommittedOffset) {
    out.extend_from_slice(&committed.offset.0.to_le_bytes());
    out.extend_from_slice(&committed.leader_epoch.0.to_le_bytes());
    out.extend_from_slice(&committed.at.0.to_le_bytes());
    put_long(out, committed.metadata.as_bytes());
}

/// Text of at most 255 bytes.
fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    out.push(u8::try_from(text.len()).expect("names are at most 249 bytes"));
    out.extend_from_slice(text);
}

/// Text of at most 65,535 bytes.
fn put_long(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u16::try_from(text.len()).expect("it was checked").to_le_bytes());
    out.extend_from_slice(text);
}

pub(crate) fn decode_meta(bytes: &[u8]) -> Result<MetaRecord, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let generation = Generation(reader.counter("generation")?);
    let next_seat = reader.counter("next seat")?;
    let strategy = *reader.choice("a strategy", Strategy::ALL)?;
    let standbys = reader.u8()?;
    let retention = Duration::from_millis(reader.u64()?);
    let is_open = *reader.choice("a phase", &[true, false])?;
    let is_empty = *reader.choice("a mark", &[false, true])?;
    let since = WallMillis(reader.u64()?.cast_signed());
    reader.end()?;
    let settings = Settings { strategy, standbys, retention };
    if settings.check().is_err() {
        return Err(DecodeError::Malformed { at: 17, what: "settings within their bounds" });
    }
    Ok(MetaRecord { generation, next_seat, settings, is_open, empty_since: is_empty.then_some(since) })
}

pub(crate) fn decode_member(bytes: &[u8]) -> Result<MemberRecord, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let seat = reader.counter("seat")?;
    let presence = *reader.choice("a presence", &[Presence::Present, Presence::Away])?;
    let capacity = reader.u32()?;
    if GROUP_CAPACITY_MAX < capacity {
        return Err(DecodeError::Limit { what: "capacity", found: capacity.into(), limit: GROUP_CAPACITY_MAX.into() });
    }
    let session_timeout = Duration::from_millis(reader.u32()?.into());
    let rebalance_timeout = Duration::from_millis(reader.u32()?.into());
    let policies = [ResetPolicy::Earliest, ResetPolicy::Latest, ResetPolicy::Time(WallMillis(0)), ResetPolicy::Error];
    let policy = *reader.choice("a reset policy", &policies)?;
    let time = WallMillis(reader.u64()?.cast_signed());
    let reset = if let ResetPolicy::Time(_) = policy { ResetPolicy::Time(time) } else { policy };
    let client = reader.long_text()?.to_owned();
    if GROUP_CLIENT_BYTES_MAX < client.len() {
        let (found, limit) = (client.len() as u64, GROUP_CLIENT_BYTES_MAX as u64);
        return Err(DecodeError::Limit { what: "length of the client's name", found, limit });
    }
    let at = reader.at;
    let malformed = |what| move |_| DecodeError::Malformed { at, what };
    let static_id = match reader.short_text()? {
        "" => None,
        text => Some(StaticId::parse(text).map_err(malformed("a static id"))?),
    };
    let displaced = Some(reader.member()?).filter(|&displaced| displaced != MemberId::default());
    let has_pattern = *reader.choice("a mark", &[false, true])?;
    let pattern = reader.long_text()?.to_owned();
    let mut subscription = Subscription { pattern: has_pattern.then_some(pattern), ..Subscription::default() };
    for _ in 0..reader.u16()? {
        let at = reader.at;
        let name = TopicName::parse(reader.short_text()?);
        subscription.topics.insert(name.map_err(|_| DecodeError::Malformed { at, what: "a topic's name" })?);
    }
    reader.end()?;
    if subscription.check().is_err() {
        return Err(DecodeError::Malformed { at: bytes.len(), what: "a subscription within its bounds" });
    }
    Ok(MemberRecord {
        client,
        seat,
        presence,
        capacity,
        session_timeout,
        rebalance_timeout,
        reset,
        static_id,
        displaced,
        subscription,
    })
}

pub(crate) fn decode_slot(bytes: &[u8]) -> Result<SlotRecord, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let kind = *reader.choice("a kind of hold", &[0u8, 1, 2])?;
    let owner = reader.member()?;
    let since = Generation(reader.counter("generation")?);
    let revoked = Generation(reader.counter("generation")?);
    let next = reader.member()?;
    let hold = if kind == 0 {
        Hold::Owned { owner, since }
    } else {
        if revoked <= since {
            return Err(DecodeError::Malformed { at: 26, what: "a generation after the one that assigned it" });
        }
        Hold::Revoking { owner, since, revoked, next: (kind == 2).then_some(next), deadline: Default::default() }
    };
    let count = usize::from(reader.u8()?);
    if GROUP_STANDBYS_MAX < count {
        return Err(DecodeError::Limit { what: "standbys", found: count as u64, limit: GROUP_STANDBYS_MAX as u64 });
    }
    let standbys = (0..count).map(|_| reader.member()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(SlotRecord { hold, standbys })
}

pub(crate) fn decode_offset(bytes: &[u8]) -> Result<CommittedOffset, DecodeError> {
    Reader::new(bytes)?.offset()
}

fn encode_staged(out: &mut Vec<u8>, staged: &StagedOffset) {
    out.extend_from_slice(&staged.transaction.producer.0.to_le_bytes());
    out.extend_from_slice(&staged.transaction.epoch.0.to_le_bytes());
    out.extend_from_slice(&staged.member.0.to_le_bytes());
    out.extend_from_slice(&staged.since.0.to_le_bytes());
    encode_offset(out, &staged.committed);
}

pub(crate) fn decode_staged(bytes: &[u8]) -> Result<StagedOffset, DecodeError> {
    let mut reader = Reader::new(bytes)?;
    let at = reader.at;
    let transaction = Transaction::new(ProducerId(reader.u64()?), ProducerEpoch(reader.u16()?));
    if transaction.producer == ProducerId::NONE {
        return Err(DecodeError::Malformed { at, what: "a producer" });
    }
    let member = reader.member()?;
    let since = Generation(reader.counter("generation")?);
    let committed = reader.offset()?;
    Ok(StagedOffset { transaction, member, since, committed })
}

pub(crate) fn decode_handover(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let reader = Reader::new(bytes)?;
    let blob = &bytes[reader.at..];
    if GROUP_HANDOVER_BYTES_MAX < blob.len() {
        let (found, limit) = (blob.len() as u64, GROUP_HANDOVER_BYTES_MAX as u64);
        return Err(DecodeError::Limit { what: "bytes handed over", found, limit });
    }
    Ok(blob)
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
            GROUP_FORMAT => Ok(reader),
            found => Err(DecodeError::Format { found, known: GROUP_FORMAT }),
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

    fn counter(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let found = self.u64()?;
        if COUNTERS_END <= found {
            return Err(DecodeError::Limit { what, found, limit: COUNTERS_END });
        }
        Ok(found)
    }

    fn member(&mut self) -> Result<MemberId, DecodeError> {
        self.array().map(u128::from_le_bytes).map(MemberId)
    }

    fn partition(&mut self) -> Result<PartitionId, DecodeError> {
        Ok(PartitionId::new(TopicId(self.u64()?), PartitionIndex(self.u32()?)))
    }

    /// A committed offset, which is all that is left.
    fn offset(&mut self) -> Result<CommittedOffset, DecodeError> {
        let offset = Offset(self.u64()?);
        let leader_epoch = LeaderEpoch(self.u32()?);
        let at = WallMillis(self.u64()?.cast_signed());
        let metadata = self.long_text()?.to_owned();
        self.end()?;
        Ok(CommittedOffset { offset, leader_epoch, at, metadata })
    }

    fn choice<'c, T>(&mut self, what: &'static str, choices: &'c [T]) -> Result<&'c T, DecodeError> {
        let error = self.malformed(what);
        choices.get(usize::from(self.u8()?)).ok_or(error)
    }

    fn short_text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u8()?;
        self.text(length.into())
    }

    fn long_text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u16()?;
        self.text(length.into())
    }

    fn text(&mut self, length: usize) -> Result<&'a str, DecodeError> {
        let error = self.malformed("text");
        std::str::from_utf8(self.take(length)?).map_err(|_| error)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.malformed("the end")) }
    }
}
