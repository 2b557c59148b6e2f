//! Reads a list of files from front to back, several reads ahead of whoever parses them.
//!
//! One block that the disk refuses must not cost what lies around it: a read that fails is made again block by block.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use corelane_model::limits::{BLOCK_BYTES, JOURNAL_READ_BYTES, JOURNAL_READS_MAX};

use crate::effect::Effects;
use crate::{JournalDone, JournalIoId, JournalOp, JournalResult, RingSlot};

const BLOCK: u32 = 4096;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES && JOURNAL_READ_BYTES.is_multiple_of(BLOCK));
const BLOCKS: usize = (JOURNAL_READ_BYTES / BLOCK) as usize;

/// How far a piece is.
///
/// ```text
/// Waiting ──▶ Reading ──whole──▶ Ready
///                │                 ▲
///                ╰──refused──▶ ByBlocks: each block alone
/// ```
#[derive(Debug)]
enum PieceState {
    Waiting,
    Reading(JournalIoId),
    /// Blocks before `at` are at hand or known to be unreadable.
    ByBlocks {
        reading: Option<JournalIoId>,
        at: u32,
        bytes: BytesMut,
    },
    Ready(Bytes),
}

/// One read.
#[derive(Debug)]
struct Piece {
    file: usize,
    slot: RingSlot,
    start: u64,
    length: u32,
    state: PieceState,
    /// Its blocks that the disk refuses, when there are such.
    refused: Option<Box<[bool; BLOCKS]>>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + u64::from(self.length)
    }

    fn issue(&mut self, effects: &mut Effects) {
        match &mut self.state {
            PieceState::Waiting => {
                let op = JournalOp::Read { position: self.start, length: self.length };
                self.state = PieceState::Reading(effects.push(self.slot, op));
            }
            PieceState::ByBlocks { reading: reading @ None, at, .. } => {
                let op = JournalOp::Read { position: self.start + u64::from(*at), length: BLOCK };
                *reading = Some(effects.push(self.slot, op));
            }
            PieceState::Reading(_) | PieceState::ByBlocks { .. } | PieceState::Ready(_) => {}
        }
    }

    fn is_reading(&self, id: JournalIoId) -> bool {
        match &self.state {
            PieceState::Reading(asked) => *asked == id,
            PieceState::ByBlocks { reading, .. } => *reading == Some(id),
            PieceState::Waiting | PieceState::Ready(_) => false,
        }
    }

    /// Its read completed.
    fn on_done(&mut self, result: JournalResult) {
        let read = match result {
            Ok(JournalDone::Read(bytes)) => Some(bytes),
            Ok(_) | Err(_) => None,
        };
        let length = self.length as usize;
        match (&mut self.state, read) {
            (PieceState::Reading(_), Some(bytes)) if bytes.len() == length => self.state = PieceState::Ready(bytes),
            (PieceState::Reading(_), Some(bytes)) => {
                let mut whole = BytesMut::zeroed(length);
                let some = bytes.len().min(length);
                whole[..some].copy_from_slice(&bytes[..some]);
                self.state = PieceState::Ready(whole.freeze());
            }
            (PieceState::Reading(_), None) => {
                self.state = PieceState::ByBlocks { reading: None, at: 0, bytes: BytesMut::zeroed(length) };
            }
            (PieceState::ByBlocks { reading, at, bytes }, read) => {
                let start = *at as usize;
                match read {
                    Some(block) => {
                        let some = block.len().min(BLOCK as usize);
                        bytes[start..start + some].copy_from_slice(&block[..some]);
                    }
                    None => {
                        let refused = self.refused.get_or_insert_with(|| Box::new([false; BLOCKS]));
                        refused[start / BLOCK as usize] = true;
                    }
                }
                (*reading, *at) = (None, *at + BLOCK);
                if self.length <= *at {
                    self.state = PieceState::Ready(std::mem::take(bytes).freeze());
                }
            }
            (PieceState::Waiting | PieceState::Ready(_), _) => {}
        }
    }

    fn refused_blocks(&self) -> impl Iterator<Item = u64> {
        let blocks = self.refused.iter().flat_map(|refused| refused.iter().enumerate());
        blocks.filter(|(_, is_refused)| **is_refused).map(|(block, _)| self.start + (block as u64) * BLOCK_BYTES)
    }
}

/// The pieces that are not consumed yet; the first [`JOURNAL_READS_MAX`] are being read or at hand.
#[derive(Debug)]
pub(super) struct Reader {
    pieces: VecDeque<Piece>,
    unreadable: u64,
}

impl Reader {
    /// Reads these files, each with its length, in this order.
    pub(super) fn new(files: impl Iterator<Item = (RingSlot, u64)>) -> Self {
        let mut pieces = VecDeque::new();
        for (file, (slot, bytes)) in files.enumerate() {
            let mut start = 0;
            while start < bytes {
                let length = u32::try_from((bytes - start).min(u64::from(JOURNAL_READ_BYTES))).expect("at most 1 MiB");
                let state = PieceState::Waiting;
                pieces.push_back(Piece { file, slot, start, length, state, refused: None });
                start += u64::from(length);
            }
        }
        Self { pieces, unreadable: 0 }
    }

    /// Keeps the window of reads full.
    pub(super) fn issue(&mut self, effects: &mut Effects) {
        self.pieces.iter_mut().take(JOURNAL_READS_MAX).for_each(|piece| piece.issue(effects));
    }

    /// A read completed. What cannot be read counts as zeros, and [`Self::is_unreadable`] says so. Reads that are no longer
    /// wanted are ignored.
    pub(super) fn on_done(&mut self, id: JournalIoId, result: JournalResult) {
        let Some(piece) = self.pieces.iter_mut().take(JOURNAL_READS_MAX).find(|piece| piece.is_reading(id)) else {
            return;
        };
        piece.on_done(result);
        if let PieceState::Ready(_) = piece.state {
            self.unreadable += piece.refused_blocks().count() as u64 * BLOCK_BYTES;
        }
    }

    /// Bytes that could not be read.
    pub(super) const fn unreadable_bytes(&self) -> u64 {
        self.unreadable
    }

    /// Whether the disk refuses one of the `length` bytes from `at`, which are not consumed yet.
    pub(super) fn is_unreadable(&self, file: usize, at: u64, length: u64) -> bool {
        let pieces = self.pieces.iter().filter(|piece| piece.file == file);
        pieces.flat_map(Piece::refused_blocks).any(|block| block < at + length && at < block + BLOCK_BYTES)
    }

    /// Nothing before this place is needed any more.
    pub(super) fn skip_to(&mut self, file: usize, at: u64) {
        while self.pieces.front().is_some_and(|piece| piece.file < file || (piece.file == file && piece.end() <= at)) {
            self.pieces.pop_front();
        }
    }

    /// `length` bytes of a file from `at`, which lies in the first piece; `None` while they are on their way. Without a
    /// copy when one read brought them all.
    pub(super) fn get(&self, file: usize, at: u64, length: usize) -> Option<Bytes> {
        let first = self.pieces.front().expect("the reader was not asked beyond its files");
        assert!(first.file == file && first.start <= at && at < first.end(), "read of {file} at {at} is not next");
        let PieceState::Ready(bytes) = &first.state else { return None };
        let start = usize::try_from(at - first.start).expect("a piece fits in memory");
        if start + length <= bytes.len() {
            return Some(bytes.slice(start..start + length));
        }
        let mut whole = BytesMut::with_capacity(length);
        whole.extend_from_slice(&bytes[start..]);
        for piece in self.pieces.iter().skip(1) {
            let missing = length - whole.len();
            if missing == 0 {
                break;
            }
            assert!(piece.file == file, "read of {file} at {at} goes beyond the file");
            let PieceState::Ready(bytes) = &piece.state else { return None };
            whole.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        }
        assert!(whole.len() == length, "read of {file} at {at} goes beyond the files");
        Some(whole.freeze())
    }

    /// The end of the last block that the disk refused in what is at hand of the file; 0 when it refused none.
    pub(super) fn refused_end(&self, file: usize) -> u64 {
        let pieces = self.pieces.iter().filter(|piece| piece.file == file);
        pieces.flat_map(Piece::refused_blocks).max().map_or(0, |block| block + BLOCK_BYTES)
    }

    /// Takes the first piece when it is at hand: file, position and bytes.
    pub(super) fn pop(&mut self) -> Option<(usize, u64, Bytes)> {
        let PieceState::Ready(bytes) = &self.pieces.front()?.state else { return None };
        let bytes = bytes.clone();
        let piece = self.pieces.pop_front().expect("there is a first");
        Some((piece.file, piece.start, bytes))
    }

    /// Everything was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}
