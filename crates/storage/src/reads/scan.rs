//! Scans: hopping over the heads of a segment's extents to learn where they are.
//!
//! A scan that goes ahead of a sequential reader reads whole extents and keeps them, so that nothing is read twice;
//! one that looks for something farther on reads heads only, unless extents are so small that many fit one read.

use bytes::Bytes;
use corelane_model::limits::BLOCK_BYTES;
use corelane_model::{Offset, PartitionId};

use super::{ReadKey, ReadOrder, Reads, SegmentView, Waiter};
use crate::FileError;
use crate::cache::{CachedExtent, Run};
use crate::extent::{EXTENT_DISK_BYTES_MAX, EXTENT_HEAD_BYTES, ExtentHead};
use crate::index::{IndexEntry, Missing, SegmentIndex};

/// So many extents at least have to fit the longest read for a scan of heads to use it.
const HEADS_PER_READ_MIN: u64 = 4;

/// A scan on its way. It owns the segment's index meanwhile, so that none of its progress can be dropped.
#[derive(Debug)]
pub(super) struct Scan {
    index: SegmentIndex,
    view: SegmentView,
    /// Whole extents are wanted, from the first one that is not known.
    is_sequential: bool,
    ahead: u8,
    pub(super) waiters: Vec<Waiter>,
}

impl Scan {
    pub(super) const fn index(&self) -> &SegmentIndex {
        &self.index
    }

    pub(super) const fn index_mut(&mut self) -> &mut SegmentIndex {
        &mut self.index
    }

    pub(super) const fn rewrite(&self) -> u32 {
        self.view.rewrite
    }

    pub(super) const fn with_ahead(mut self, ahead: u8) -> Self {
        self.ahead = ahead;
        self
    }

    /// Position and length of its read.
    pub(super) fn next_read(&self) -> (u64, u32) {
        let position = self.index.next_position();
        let is_dense = |entry: &IndexEntry| entry.disk_bytes() * HEADS_PER_READ_MIN <= EXTENT_DISK_BYTES_MAX;
        let is_long =
            self.is_sequential || self.index.is_probing() || self.index.entries().last().is_some_and(is_dense);
        let length = if is_long { EXTENT_DISK_BYTES_MAX } else { BLOCK_BYTES };
        let length = length.min(self.view.bytes - position);
        (position, u32::try_from(length).expect("reads are bounded"))
    }

    /// Takes in the heads of what was read when `asked` bytes were wanted; returns the extents that are whole and sound if they were wanted.
    fn take(&mut self, partition: PartitionId, asked: u32, bytes: &Bytes) -> Vec<CachedExtent> {
        let start = self.index.next_position();
        let mut extents: Vec<CachedExtent> = Vec::new();
        let mut at = 0_usize;
        while at + EXTENT_HEAD_BYTES <= bytes.len() {
            let position = start + at as u64;
            let rest = bytes.slice(at..);
            let Some(head) = self.parse(partition, position, &rest) else {
                at += BLOCK;
                continue;
            };
            if self.index.scanned_bytes() < position {
                self.index.push_damage(position, head.base);
            }
            self.index.push(&head);
            let length = usize::try_from(head.disk_bytes()).expect("an extent fits memory");
            if self.is_sequential && at + length <= bytes.len() {
                match head.payload(&rest) {
                    Ok(payload) => extents.push(CachedExtent::new(head.base, head.end, payload)),
                    Err(_) => {
                        self.index.mark_damaged(self.index.entries().len() - 1);
                    }
                }
            }
            at += length;
        }
        let reached = (start + at as u64).min(self.view.bytes);
        if self.index.scanned_bytes() < reached {
            self.index.probe_from(reached);
        }
        // Fewer bytes than asked: the file ends before its settled end, and with it the hope for what is missing.
        let is_short = (bytes.len() as u64) < u64::from(asked);
        if self.index.scanned_bytes() < self.view.bytes && (is_short || reached == self.view.bytes) {
            self.index.push_damage(self.view.bytes, self.view.end);
        }
        extents
    }

    /// The head of the extent that begins here, if it is one that can follow what is known.
    fn parse(&self, partition: PartitionId, position: u64, bytes: &[u8]) -> Option<ExtentHead> {
        let head = ExtentHead::parse(bytes).ok()?;
        let is_ours = head.partition == partition
            && head.position == position
            && self.index.scanned_end() <= head.base
            && head.end <= self.view.end
            && position + head.disk_bytes() <= self.view.bytes;
        is_ours.then_some(head)
    }
}

const BLOCK: usize = 4096;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);

impl Reads {
    /// Makes sure that a scan of the segment is on its way, and says under which key.
    pub(super) fn want_scan(&mut self, partition: PartitionId, view: SegmentView, from: Option<Offset>) -> ReadKey {
        let key = ReadKey::Scan(partition, view.base);
        if self.scans.contains_key(&(partition, view.base)) {
            if let Some(place) = self.ahead.iter().position(|&waiting| waiting == key) {
                self.ahead.remove(place);
                self.wanted.push_back(key);
            }
            return key;
        }
        let scan = self.begin_scan(partition, view, from);
        let ahead = self.next_ahead(partition, scan.index.scanned_end(), from == Some(view.base));
        self.scans.insert((partition, view.base), scan.with_ahead(ahead));
        self.wanted.push_back(key);
        key
    }

    /// A scan that goes on where the index ends.
    pub(super) fn begin_scan(&mut self, partition: PartitionId, view: SegmentView, from: Option<Offset>) -> Scan {
        let index = self.indexes.take(partition, view.base).unwrap_or_else(|| SegmentIndex::new(view.base));
        assert!(index.next_position() < view.bytes, "nothing is left to scan in {view:?}");
        let is_sequential = from == Some(index.scanned_end());
        Scan { index, view, is_sequential, ahead: 0, waiters: Vec::new() }
    }

    pub(super) fn on_scan(
        &mut self,
        order: &ReadOrder,
        mut scan: Scan,
        result: Result<Bytes, FileError>,
        log_start: Option<Offset>,
    ) {
        let taken = result.map(|bytes| {
            let held = bytes.len() as u64;
            let extents = scan.take(order.partition, order.length, &bytes);
            let has_holes = scan.view.has_holes();
            (!extents.is_empty()).then_some(Run { extents, bytes: held, ahead: scan.ahead, has_holes })
        });
        let partition = order.partition;
        let Scan { index, view, waiters, .. } = scan;
        if log_start.is_some_and(|log_start| log_start < view.end) {
            self.indexes.change(partition, view.base, Missing::Make, |kept| *kept = index);
        }
        match taken {
            Ok(mut run) => {
                for waiter in waiters {
                    self.settle_waiter(partition, waiter, run.as_mut(), log_start);
                }
                self.keep(partition, run, log_start);
            }
            Err(error) => self.fail_all(partition, waiters, &error, log_start),
        }
    }
}
