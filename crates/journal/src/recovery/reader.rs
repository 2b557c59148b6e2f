//! Reads a list of files from front to back, several reads ahead of whoever parses them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use corelane_model::limits::{JOURNAL_READ_BYTES, JOURNAL_READS_MAX};

use crate::effect::Effects;
use crate::{JournalDone, JournalIoId, JournalOp, JournalResult, RingSlot};

/// How far a piece is.
#[derive(Debug)]
enum PieceState {
    Waiting,
    Reading(JournalIoId),
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
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + u64::from(self.length)
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
                pieces.push_back(Piece { file, slot, start, length, state: PieceState::Waiting });
                start += u64::from(length);
            }
        }
        Self { pieces, unreadable: 0 }
    }

    /// Keeps the window of reads full.
    pub(super) fn issue(&mut self, effects: &mut Effects) {
        for piece in self.pieces.iter_mut().take(JOURNAL_READS_MAX) {
            if matches!(piece.state, PieceState::Waiting) {
                let op = JournalOp::Read { position: piece.start, length: piece.length };
                piece.state = PieceState::Reading(effects.push(piece.slot, op));
            }
        }
    }

    /// A read completed. What cannot be read counts as zeros: if it mattered, it is found to be damaged. Reads that are
    /// no longer wanted are ignored.
    pub(super) fn on_done(&mut self, id: JournalIoId, result: JournalResult) {
        let reading = |piece: &&mut Piece| matches!(piece.state, PieceState::Reading(asked) if asked == id);
        let Some(piece) = self.pieces.iter_mut().take(JOURNAL_READS_MAX).find(reading) else { return };
        let length = piece.length as usize;
        let bytes = match result {
            Ok(JournalDone::Read(bytes)) if bytes.len() == length => bytes,
            Ok(JournalDone::Read(bytes)) => {
                let mut whole = BytesMut::zeroed(length);
                let some = bytes.len().min(length);
                whole[..some].copy_from_slice(&bytes[..some]);
                whole.freeze()
            }
            Ok(_) | Err(_) => {
                self.unreadable += u64::from(piece.length);
                BytesMut::zeroed(length).freeze()
            }
        };
        piece.state = PieceState::Ready(bytes);
    }

    /// Bytes that could not be read.
    pub(super) const fn unreadable_bytes(&self) -> u64 {
        self.unreadable
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
