//! Runs: whole extents read together, checked one by one.

use bytes::Bytes;
use corelane_model::{Offset, PartitionId};

use super::{ReadKey, Reads, RunRead, SegmentView};
use crate::FileError;
use crate::cache::{CachedExtent, Run};
use crate::extent::{EXTENT_DISK_BYTES_MAX, ExtentHead};
use crate::index::{IndexEntry, Missing, SegmentIndex};

impl Reads {
    /// A run of extents from this entry on: up to the longest read, up to what is cached or on its way, up to damage.
    pub(super) fn start_run(&mut self, partition: PartitionId, view: SegmentView, place: usize, ahead: u8) -> ReadKey {
        let index = self.index(partition, view.base).expect("the entry came from an index");
        let first = index.entries()[place];
        let ends: Vec<(Offset, Offset, u64)> = index.entries()[place..]
            .iter()
            .take_while(|entry| !entry.is_damaged() && entry.position() + entry.disk_bytes() <= view.bytes)
            .map(|entry| (entry.base, entry.end, entry.position() + entry.disk_bytes() - first.position()))
            .take_while(|&(_, _, length)| length <= EXTENT_DISK_BYTES_MAX)
            .collect();
        let stop = self.next_known(partition, first.end);
        let ends: Vec<_> = ends
            .into_iter()
            .take_while(|&(base, _, _)| base == first.base || stop.is_none_or(|stop| base < stop))
            .collect();
        let &(_, end, length) = ends.last().expect("the first entry is readable and no longer than a read");
        let run = RunRead {
            segment: view.base,
            rewrite: view.rewrite,
            extents: ends.iter().map(|&(base, end, _)| (base, end)).collect(),
            end,
            position: first.position(),
            length: u32::try_from(length).expect("reads are bounded"),
            ahead,
            waiters: Vec::new(),
        };
        self.runs.insert((partition, first.base), run);
        ReadKey::Run(partition, first.base)
    }

    /// A run's bytes are here: checks each extent, answers who waits, and keeps what is sound.
    pub(super) fn on_run(
        &mut self,
        partition: PartitionId,
        run: RunRead,
        result: Result<Bytes, FileError>,
        log_start: Option<Offset>,
    ) {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => return self.fail_all(partition, run.waiters, &error, log_start),
        };
        let mut checked = self.check_run(partition, &run, bytes);
        for waiter in run.waiters {
            self.settle_waiter(partition, waiter, checked.as_mut(), log_start);
        }
        self.keep(partition, checked, log_start);
    }

    /// Puts what was read into the cache, unless retention was faster.
    pub(super) fn keep(&mut self, partition: PartitionId, run: Option<Run>, log_start: Option<Offset>) {
        if let (Some(run), Some(log_start)) = (run, log_start)
            && log_start <= run.base()
        {
            self.cache.insert(partition, run);
        }
    }

    /// The extents of the run up to the first damage, which the index is told.
    fn check_run(&mut self, partition: PartitionId, run: &RunRead, bytes: Bytes) -> Option<Run> {
        let held = bytes.len() as u64;
        let mut rest = bytes;
        let mut position = run.position;
        let mut extents = Vec::new();
        for &(base, end) in &run.extents {
            let extent = ExtentHead::parse(&rest).and_then(|head| Ok((head, head.payload(&rest)?)));
            // A sound extent that is another one than was written here: the disk lost the last write. Taken for the one that
            // was asked for it would leave its readers without an answer.
            let is_expected = |head: &ExtentHead| {
                head.partition == partition && head.position == position && (head.base, head.end) == (base, end)
            };
            match extent {
                Ok((head, payload)) if is_expected(&head) => {
                    extents.push(CachedExtent::new(head.base, head.end, payload));
                    position += head.disk_bytes();
                    rest = rest.slice(usize::try_from(head.disk_bytes()).expect("fits memory").min(rest.len())..);
                }
                _ => {
                    self.stats.failures_total += 1;
                    self.mark_damaged(partition, run.segment, position);
                    break;
                }
            }
        }
        (!extents.is_empty()).then_some(Run { extents, bytes: held, ahead: run.ahead, has_holes: 0 < run.rewrite })
    }

    pub(super) fn mark_damaged(&mut self, partition: PartitionId, segment: Offset, position: u64) {
        let mark = |index: &mut SegmentIndex| {
            if let Ok(place) = index.entries().binary_search_by_key(&position, IndexEntry::position) {
                index.mark_damaged(place);
            }
        };
        match self.scans.get_mut(&(partition, segment)) {
            Some(scan) => mark(scan.index_mut()),
            None => self.indexes.change(partition, segment, Missing::Ignore, mark),
        }
    }
}
