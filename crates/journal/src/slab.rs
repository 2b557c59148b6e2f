//! The entry that is being filled. Its memory is the cache: consumers are served from slices of it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use corelane_model::PartitionId;
use corelane_model::limits::BLOCK_BYTES;
use corelane_record::{SealedBatch, Stamp, stamp};

use crate::entry::{BODY_CRC, ENTRY_HEAD_BYTES, EntryFlags, EntryHead, padded};
use crate::item::{KIND_BATCH, put};
use crate::{Item, JournalPosition};

/// Memory is taken in pieces of this size once the first is full, so that a guess that was too low costs no copy.
const CHUNK_BYTES: usize = 256 << 10;
/// No more chunks than these are kept for the next entry.
const SPARES_MAX: usize = 4;
static ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(ZEROS.len() as u64 == BLOCK_BYTES);

/// Where a batch lies in an entry that is not closed yet; good for the [`ClosedEntry`] that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSlot {
    entry: u64,
    chunk: u32,
    start: u32,
    bytes: u32,
}

/// An entry on its way to disk: its batches can be served from now on, its memory is kept by the slices.
#[derive(Clone, Debug)]
pub struct ClosedEntry {
    entry: u64,
    chunks: Vec<Bytes>,
    position: JournalPosition,
    end: JournalPosition,
    memory_bytes: u64,
}

impl ClosedEntry {
    /// Where the entry begins: what keeps it from being recycled while [`crate::Journal::release`] has not passed it.
    #[must_use]
    pub const fn position(&self) -> JournalPosition {
        self.position
    }

    /// Its exclusive end: durable when [`crate::JournalOutput::Durable`] reaches it.
    #[must_use]
    pub const fn end(&self) -> JournalPosition {
        self.end
    }

    /// Memory that stays in use while any slice of the entry lives.
    #[must_use]
    pub const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The stamped batch of a slot. Panics when the slot is of another entry.
    #[must_use]
    pub fn batch(&self, slot: BatchSlot) -> Bytes {
        assert!(slot.entry == self.entry, "slot of entry {} used on entry {}", slot.entry, self.entry);
        let start = slot.start as usize;
        self.chunks[slot.chunk as usize].slice(start..start + slot.bytes as usize)
    }
}

/// The entry that this round's items go into.
#[derive(Debug)]
pub(crate) struct OpenEntry {
    entry: u64,
    chunks: Vec<BytesMut>,
    first_chunk_bytes: usize,
    /// Chunks that the last entry had.
    chunks_expected: usize,
    /// Memory for chunks to come, each byte of it touched: the kernel hands out and clears a page when it is first
    /// written to, a huge one in a millisecond or more, and no batch shall wait for that.
    spares: VecDeque<BytesMut>,
    bytes: u64,
    items: u32,
    checkpoint_bytes: u64,
    pub(crate) flags: EntryFlags,
}

impl OpenEntry {
    pub(crate) fn new() -> Self {
        Self {
            entry: 0,
            chunks: Vec::new(),
            first_chunk_bytes: 4096,
            chunks_expected: 1,
            spares: VecDeque::new(),
            bytes: ENTRY_HEAD_BYTES as u64,
            items: 0,
            checkpoint_bytes: 0,
            flags: EntryFlags::default(),
        }
    }

    /// Nothing asks for the entry to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.items == 0 && self.flags == EntryFlags::default()
    }

    /// Bytes of head and items so far, without padding.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many items it holds.
    pub(crate) const fn items(&self) -> u32 {
        self.items
    }

    /// Bytes of items so far.
    pub(crate) const fn item_bytes(&self) -> u64 {
        self.bytes - ENTRY_HEAD_BYTES as u64
    }

    /// Bytes of checkpoint items among them.
    pub(crate) const fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    pub(crate) fn add_batch(&mut self, partition: PartitionId, batch: &SealedBatch, patch: Stamp) -> BatchSlot {
        let bytes = batch.bytes();
        let chunk = self.chunk(Item::batch_bytes(bytes.len()));
        put(chunk, KIND_BATCH, partition, &[], bytes);
        let start = chunk.len() - bytes.len();
        stamp(&mut chunk[start..], patch);
        BatchSlot {
            entry: self.entry,
            chunk: u32::try_from(self.chunks.len() - 1).expect("an entry has few chunks"),
            start: u32::try_from(start).expect("an entry is at most 4 MiB"),
            bytes: u32::try_from(bytes.len()).expect("a batch is at most 1 MiB"),
        }
    }

    pub(crate) fn add_item(&mut self, item: &Item) {
        item.encode(self.chunk(item.encoded_bytes()));
    }

    pub(crate) fn add_checkpoint_item(&mut self, item: &Item) {
        self.checkpoint_bytes += item.encoded_bytes();
        self.add_item(item);
    }

    /// The chunk that takes an item of `bytes` whole, and counts the item.
    fn chunk(&mut self, bytes: u64) -> &mut BytesMut {
        self.bytes += bytes;
        self.items += 1;
        let bytes = usize::try_from(bytes).expect("an entry fits in memory");
        self.begin();
        let last = self.chunks.last().expect("begun");
        if last.capacity() - last.len() < bytes {
            let spare = self.spares.pop_front().filter(|spare| bytes <= spare.capacity());
            self.chunks.push(spare.unwrap_or_else(|| BytesMut::with_capacity(bytes.max(CHUNK_BYTES))));
        }
        self.chunks.last_mut().expect("begun")
    }

    fn begin(&mut self) {
        if self.chunks.is_empty() {
            let spare = self.spares.pop_front();
            let mut first = spare.unwrap_or_else(|| BytesMut::with_capacity(self.first_chunk_bytes));
            first.resize(ENTRY_HEAD_BYTES, 0);
            self.chunks.push(first);
        }
    }

    /// Takes and touches the memory that an entry like the last one needs. Only between two entries.
    pub(crate) fn rest(&mut self) {
        if !self.chunks.is_empty() {
            return;
        }
        while self.spares.len() < self.chunks_expected.min(SPARES_MAX) {
            let bytes = if self.spares.is_empty() { self.first_chunk_bytes } else { CHUNK_BYTES };
            let mut spare = BytesMut::with_capacity(bytes);
            spare.resize(bytes, 0);
            spare.clear();
            self.spares.push_back(spare);
        }
    }

    /// Completes `head` by what is known here, and hands back the pieces to write, the entry, and what the next entry
    /// has to name. That one is open then.
    pub(crate) fn close(&mut self, mut head: EntryHead) -> (Vec<Bytes>, ClosedEntry, u32) {
        self.begin();
        head.flags = self.flags;
        head.items = self.items;
        head.body_bytes = u32::try_from(self.bytes).expect("an entry is at most 4 MiB")
            - u32::try_from(ENTRY_HEAD_BYTES).expect("small");
        let mut body_crc = crc_fast::Digest::new(BODY_CRC);
        for (index, chunk) in self.chunks.iter().enumerate() {
            body_crc.update(&chunk[if index == 0 { ENTRY_HEAD_BYTES } else { 0 }..]);
        }
        head.body_crc = body_crc.finalize();
        let crc = head.encode(&mut self.chunks[0]).max(1);
        let memory_bytes = self.chunks.iter().map(|chunk| chunk.capacity() as u64).sum();
        let chunks: Vec<Bytes> = self.chunks.drain(..).map(BytesMut::freeze).collect();
        let mut pieces = chunks.clone();
        let padding = usize::try_from(padded(self.bytes) - self.bytes).expect("less than a block");
        if padding != 0 {
            pieces.push(Bytes::from_static(&ZEROS[..padding]));
        }
        let closed = ClosedEntry { entry: self.entry, chunks, position: head.position, end: head.end(), memory_bytes };
        // The next entry is expected to be like this one; half of the guess is forgotten each time it is too high.
        let used = usize::try_from(padded(self.bytes)).expect("an entry fits in memory");
        let guess = used.max(self.first_chunk_bytes / 2).clamp(4096, CHUNK_BYTES);
        let (entry, chunks_expected) = (self.entry + 1, closed.chunks.len());
        *self = Self { entry, first_chunk_bytes: guess, chunks_expected, ..Self::new() };
        (pieces, closed, crc)
    }
}

impl Item {
    /// Bytes that a batch of `bytes` takes in an entry.
    #[must_use]
    pub const fn batch_bytes(bytes: usize) -> u64 {
        (crate::ITEM_HEAD_BYTES + bytes) as u64
    }
}
