//! One entry: a head that says exactly where and when it was written, and a body of items.
//!
//! ```text
//! 0   magic "CLJE"         4
//! 4   version              2
//! 6   flags                2   see [`EntryFlags`]
//! 8   journal id          16   the data directory's
//! 24  shard                1
//! 25  zero                 1
//! 26  checkpoint part      2   which entry of its checkpoint, modulo 65,536
//! 28  items                4   how many the body holds
//! 32  file sequence        4
//! 36  byte in the file     4   a multiple of the block
//! 40  durable position     8   byte (4) and file sequence (4): all before was durable when this was submitted
//! 48  submitted            8   wall clock in milliseconds, for people
//! 56  oldest file needed   4   recovery begins with this file; earlier ones may be overwritten
//! 60  body bytes           4
//! 64  previous entry       4   head CRC of the entry before, in whatever file (1 where that is 0); 0: there is none
//! 68  body CRC-64/NVME     8
//! 76  head CRC-32C         4   of bytes 0 to 75
//! 80  body, then zeros up to the next block
//! ```

use bytes::{Buf, BufMut, Bytes};
use corelane_model::limits::{BLOCK_BYTES, JOURNAL_ENTRY_BYTES_MAX};
use corelane_model::{ShardId, WallMillis};

use crate::{EntryError, FileSequence, Item, ItemError, JournalPosition};

/// Bytes of an entry before its body.
pub const ENTRY_HEAD_BYTES: usize = 80;
/// The first four bytes of every entry, read as a little-endian number.
pub const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"CLJE");
/// The version of head and items that this program writes, and the only one that it reads.
pub const JOURNAL_VERSION: u16 = 1;

/// What an entry is beside the items that it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryFlags(pub u16);

impl EntryFlags {
    /// A checkpoint begins with it.
    pub const CHECKPOINT_FIRST: Self = Self(1);
    /// It carries a part of a checkpoint.
    pub const CHECKPOINT: Self = Self(2);
    /// The checkpoint ends with it.
    pub const CHECKPOINT_LAST: Self = Self(4);
    /// It carries nothing but its durable position, after which the journal was idle for a while.
    pub const MARK: Self = Self(8);
    /// The last entry of a clean shutdown.
    pub const CLEAN: Self = Self(16);
    const KNOWN: u16 = 31;

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Which journal an entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalId {
    /// The 128-bit id of the data directory.
    pub data: u128,
    /// The shard.
    pub shard: ShardId,
}

/// An entry's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// What the entry is.
    pub flags: EntryFlags,
    /// Whose it is.
    pub journal: JournalId,
    /// Which entry of its checkpoint it is.
    pub checkpoint_part: u16,
    /// Items in the body.
    pub items: u32,
    /// Where it lies.
    pub position: JournalPosition,
    /// Everything before was durable when the entry was submitted.
    pub durable: JournalPosition,
    /// When it was submitted.
    pub submitted: WallMillis,
    /// The file that recovery began with when it was submitted.
    pub oldest: FileSequence,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Head CRC of the entry before.
    pub previous_crc: u32,
    /// [`body_crc`] of the body.
    pub body_crc: u64,
}

impl EntryHead {
    /// Writes the head over the first [`ENTRY_HEAD_BYTES`] of `out` and returns its CRC.
    pub(crate) fn encode(&self, out: &mut [u8]) -> u32 {
        let mut at = &mut out[..ENTRY_HEAD_BYTES];
        at.put_u32_le(ENTRY_MAGIC);
        at.put_u16_le(JOURNAL_VERSION);
        at.put_u16_le(self.flags.0);
        at.put_u128_le(self.journal.data);
        at.put_u8(self.journal.shard.0);
        at.put_u8(0);
        at.put_u16_le(self.checkpoint_part);
        at.put_u32_le(self.items);
        at.put_u32_le(self.position.sequence().0);
        at.put_u32_le(self.position.byte());
        at.put_u64_le(self.durable.to_u64());
        at.put_i64_le(self.submitted.0);
        at.put_u32_le(self.oldest.0);
        at.put_u32_le(self.body_bytes);
        at.put_u32_le(self.previous_crc);
        at.put_u64_le(self.body_crc);
        let crc = crc32c::crc32c(&out[..ENTRY_HEAD_BYTES - 4]);
        out[ENTRY_HEAD_BYTES - 4..ENTRY_HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads a head that may belong to any journal and any place. What it says is what was once written.
    ///
    /// # Errors
    /// [`EntryError`] when there is no undamaged head of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() < ENTRY_HEAD_BYTES {
            return Err(EntryError::Truncated { found: bytes.len() as u64, needed: ENTRY_HEAD_BYTES as u64 });
        }
        let mut at = &bytes[..ENTRY_HEAD_BYTES];
        let magic = at.get_u32_le();
        if magic != ENTRY_MAGIC {
            return Err(EntryError::Magic { found: magic });
        }
        let found = head_crc(bytes);
        let computed = crc32c::crc32c(&bytes[..ENTRY_HEAD_BYTES - 4]);
        if found != computed {
            return Err(EntryError::HeadCrc { found, computed });
        }
        let version = at.get_u16_le();
        if version != JOURNAL_VERSION {
            return Err(EntryError::Version { found: version, known: JOURNAL_VERSION });
        }
        let flags = EntryFlags(at.get_u16_le());
        let data = at.get_u128_le();
        let shard = ShardId(at.get_u8());
        let zero = at.get_u8();
        if flags.0 & !EntryFlags::KNOWN != 0 || zero != 0 {
            return Err(EntryError::Flags { flags: flags.0 });
        }
        let checkpoint_part = at.get_u16_le();
        let items = at.get_u32_le();
        let sequence = FileSequence(at.get_u32_le());
        let position = JournalPosition::new(sequence, at.get_u32_le());
        let head = Self {
            flags,
            journal: JournalId { data, shard },
            checkpoint_part,
            items,
            position,
            durable: JournalPosition::from_u64(at.get_u64_le()),
            submitted: WallMillis(at.get_i64_le()),
            oldest: FileSequence(at.get_u32_le()),
            body_bytes: at.get_u32_le(),
            previous_crc: at.get_u32_le(),
            body_crc: at.get_u64_le(),
        };
        head.check()?;
        Ok(head)
    }

    /// A checksum protects against damage, not against a contradiction; nothing later has to ask again.
    fn check(&self) -> Result<(), EntryError> {
        if JOURNAL_ENTRY_BYTES_MAX < self.entry_bytes() {
            let limit = JOURNAL_ENTRY_BYTES_MAX - ENTRY_HEAD_BYTES as u64;
            return Err(EntryError::TooLarge { found: self.body_bytes, limit });
        }
        let byte = u64::from(self.position.byte());
        let is_placed = byte.is_multiple_of(BLOCK_BYTES)
            && byte + self.entry_bytes() <= u64::from(u32::MAX)
            && FileSequence::FIRST <= self.position.sequence()
            && self.position.sequence() <= FileSequence::LAST;
        let is_later = self.durable <= self.position && self.oldest <= self.position.sequence();
        if is_placed && is_later { Ok(()) } else { Err(EntryError::Contradiction { position: self.position }) }
    }

    /// Bytes of head, body and padding.
    #[must_use]
    pub const fn entry_bytes(&self) -> u64 {
        padded(ENTRY_HEAD_BYTES as u64 + self.body_bytes as u64)
    }

    /// Position of the byte after the entry's padding.
    #[must_use]
    pub fn end(&self) -> JournalPosition {
        self.position.advance(u32::try_from(self.entry_bytes()).expect("an entry is at most 4 MiB"))
    }
}

/// The checksum of a body: CRC-64/NVME.
///
/// Not CRC-32C: each batch's head ends with its own CRC-32C, and to a CRC of the same polynomial all stretches that end
/// with theirs look alike. A torn write that leaves the head of an older batch in the place of a new one would pass.
#[must_use]
pub fn body_crc(body: &[u8]) -> u64 {
    crc_fast::checksum(BODY_CRC, body)
}

/// The algorithm of [`body_crc`].
pub(crate) const BODY_CRC: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc64Nvme;

/// `bytes` rounded up to whole blocks.
pub(crate) const fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// What the next entry names when `bytes` begin with this one.
pub(crate) fn head_link(bytes: &[u8]) -> u32 {
    head_crc(bytes).max(1)
}

/// The CRC in the head that `bytes` begin with; 0 when there are too few bytes.
fn head_crc(bytes: &[u8]) -> u32 {
    bytes.get(ENTRY_HEAD_BYTES - 4..ENTRY_HEAD_BYTES).map_or(0, |mut crc| crc.get_u32_le())
}

/// Where an entry is looked for: what its head must agree with to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryContext {
    /// The journal that is read.
    pub journal: JournalId,
    /// The place that is read.
    pub position: JournalPosition,
    /// Bytes of the file from the place to its end.
    pub bytes_left: u64,
}

impl EntryContext {
    /// Reads the head that `bytes` begin with and checks that it belongs here.
    ///
    /// # Errors
    /// [`EntryError`] when it does not, or is no head at all.
    pub fn check(&self, bytes: &[u8]) -> Result<EntryHead, EntryError> {
        let head = EntryHead::parse(bytes)?;
        if head.journal != self.journal {
            return Err(EntryError::Foreign { id: head.journal.data, shard: head.journal.shard.0 });
        }
        if !self.is_here(head.position) {
            return Err(EntryError::Misplaced { found: head.position, expected: self.position });
        }
        if self.bytes_left < head.entry_bytes() {
            return Err(EntryError::Truncated { found: self.bytes_left, needed: head.entry_bytes() });
        }
        Ok(head)
    }

    fn is_here(&self, found: JournalPosition) -> bool {
        #[cfg(planted)]
        if corelane_model::planted::is_planted(corelane_model::planted::Bug::TrustRecycledBlock) {
            return found.byte() == self.position.byte();
        }
        found == self.position
    }
}

/// An entry whose checksums are right and that belongs where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// Its head.
    pub head: EntryHead,
    /// What the next entry names as the entry before it: the head's CRC, or 1 where that is 0.
    pub link: u32,
    body: Bytes,
}

impl EntryView {
    /// Checks the entry that `bytes` begin with. Never panics, whatever the bytes are, and allocates nothing.
    ///
    /// # Errors
    /// [`EntryError`] says what is wrong; [`EntryError::Truncated`] also when `bytes` end before the body does.
    pub fn parse(bytes: &Bytes, context: &EntryContext) -> Result<Self, EntryError> {
        let head = context.check(bytes)?;
        let end = ENTRY_HEAD_BYTES + head.body_bytes as usize;
        if bytes.len() < end {
            return Err(EntryError::Truncated { found: bytes.len() as u64, needed: end as u64 });
        }
        let body = bytes.slice(ENTRY_HEAD_BYTES..end);
        let computed = body_crc(&body);
        if computed != head.body_crc {
            return Err(EntryError::BodyCrc { found: head.body_crc, computed });
        }
        Ok(Self { head, link: head_link(bytes), body })
    }

    /// The items, in order. After an error nothing more comes.
    #[must_use]
    pub fn items(&self) -> Items {
        Items { body: self.body.clone(), at: 0, seen: 0, expected: self.head.items }
    }
}

/// The items of one entry; see [`EntryView::items`].
#[derive(Clone, Debug)]
pub struct Items {
    body: Bytes,
    at: usize,
    seen: u32,
    expected: u32,
}

impl Iterator for Items {
    type Item = Result<Item, ItemError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.body.len() {
            let (found, expected) = (self.seen, self.expected);
            self.seen = expected;
            return (found != expected).then_some(Err(ItemError::Count { found, expected }));
        }
        let result = Item::parse(&self.body, self.at);
        match &result {
            Ok((_, end)) => {
                self.at = *end;
                self.seen = self.seen.saturating_add(1);
            }
            Err(_) => {
                self.at = self.body.len();
                self.seen = self.expected;
            }
        }
        Some(result.map(|(item, _)| item))
    }
}
