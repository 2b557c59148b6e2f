//! Batches without a last word.

use std::collections::VecDeque;

use corelane_client_core::{BatchKey, ProducerKey};

use crate::ticket::{BatchCell, Cells};

/// Batches of one page.
const PAGE_BATCHES: usize = 64;
/// Empty pages that are kept: the tick of a thousand partitions fills sixteen.
const SPARE_PAGES_MAX: usize = 32;

/// A batch without a last word.
#[derive(Debug)]
struct Unsettled {
    producer: ProducerKey,
    cell: BatchCell,
}

/// Batches whose keys follow each other.
#[derive(Debug)]
struct Page {
    batches: [Option<Unsettled>; PAGE_BATCHES],
    /// Those that are there.
    count: usize,
}

impl Page {
    const fn new() -> Self {
        Self { batches: [const { None }; PAGE_BATCHES], count: 0 }
    }
}

/// The cells of batches without a last word.
///
/// The machine counts its batches up and most are settled nearly in turn, so that a batch is found by its place. Of pages on
/// which nothing is left only the place stays, until all before it are empty, too.
#[derive(Debug, Default)]
pub(crate) struct UnsettledBatches {
    pages: VecDeque<Option<Box<Page>>>,
    /// The number of the first page.
    first: u64,
    #[expect(clippy::vec_box, reason = "a page goes from here to its place and back")]
    spare: Vec<Box<Page>>,
    cells: Cells,
}

/// The number of a batch's page and its place there.
const fn place(batch: BatchKey) -> (u64, usize) {
    const BATCHES: u64 = PAGE_BATCHES as u64;
    (batch.0 / BATCHES, (batch.0 % BATCHES) as usize)
}

impl UnsettledBatches {
    /// The cell of a batch into which a record was just put; its first record makes the cell.
    pub(crate) fn cell(&mut self, batch: BatchKey, producer: ProducerKey) -> &BatchCell {
        let (number, at) = place(batch);
        if self.pages.is_empty() {
            self.first = number;
        }
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let index = index.expect("batches are begun in the order of their keys");
        while self.pages.len() <= index {
            self.pages.push_back(None);
        }
        let page = self.pages[index].get_or_insert_with(|| self.spare.pop().unwrap_or_else(|| Box::new(Page::new())));
        let batch = &mut page.batches[at];
        if batch.is_none() {
            page.count += 1;
        }
        &batch.get_or_insert_with(|| Unsettled { producer, cell: self.cells.take() }).cell
    }

    /// The cell of a batch that has no last word yet.
    pub(crate) fn get(&self, batch: BatchKey) -> Option<&BatchCell> {
        let (number, at) = place(batch);
        let page = self.pages.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?.as_ref()?;
        page.batches[at].as_ref().map(|batch| &batch.cell)
    }

    /// Takes out the cell of a batch that gets its last word.
    pub(crate) fn settle(&mut self, batch: BatchKey) -> Option<BatchCell> {
        let (number, at) = place(batch);
        let slot = self.pages.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        let page = slot.as_mut()?;
        let settled = page.batches[at].take()?;
        page.count -= 1;
        if page.count == 0 {
            self.spare.extend(slot.take().filter(|_| self.spare.len() < SPARE_PAGES_MAX));
            while let Some(None) = self.pages.front() {
                self.pages.pop_front();
                self.first += 1;
            }
        }
        Some(settled.cell)
    }

    /// The cells of all batches, or of those of one producer.
    pub(crate) fn cells(&self, producer: Option<ProducerKey>) -> impl Iterator<Item = &BatchCell> {
        let batches = self.pages.iter().flatten().flat_map(|page| page.batches.iter().flatten());
        batches.filter(move |batch| producer.is_none_or(|producer| producer == batch.producer)).map(|batch| &batch.cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u64 = 1000;

    #[test]
    fn a_batch_is_found_until_it_is_settled() {
        let mut batches = UnsettledBatches::default();
        for round in 0..3 {
            let keys = round * KEYS..(round + 1) * KEYS;
            for key in keys.clone() {
                let producer = ProducerKey(u32::from(key % 10 == 0));
                let cell = batches.cell(BatchKey(key), producer).clone();
                assert!(batches.cell(BatchKey(key), producer).is(&cell), "the second record has the cell of the first");
                assert!(batches.get(BatchKey(key)).is_some_and(|found| found.is(&cell)));
            }
            assert_eq!(batches.cells(None).count() as u64, KEYS);
            assert_eq!(batches.cells(Some(ProducerKey(1))).count() as u64, KEYS / 10);
            assert!(batches.get(BatchKey(keys.end)).is_none());
            // In another order than they were begun in.
            for key in keys.clone().rev().step_by(2).chain(keys.clone().step_by(2)) {
                let cell = batches.get(BatchKey(key)).expect("it is not settled").clone();
                assert!(batches.settle(BatchKey(key)).is_some_and(|settled| settled.is(&cell)));
                assert!(batches.settle(BatchKey(key)).is_none() && batches.get(BatchKey(key)).is_none());
            }
            assert_eq!(batches.cells(None).count(), 0);
            assert!(batches.pages.is_empty() && batches.spare.len() <= SPARE_PAGES_MAX);
        }
    }

    #[test]
    fn one_that_waits_long_keeps_its_page_only() {
        let mut batches = UnsettledBatches::default();
        let waits = batches.cell(BatchKey(0), ProducerKey(0)).clone();
        for key in 1..100 * KEYS {
            batches.cell(BatchKey(key), ProducerKey(0));
            assert!(batches.settle(BatchKey(key)).is_some());
        }
        assert!(batches.pages.iter().flatten().count() <= 2);
        assert!(batches.settle(BatchKey(0)).is_some_and(|cell| cell.is(&waits)));
        assert!(batches.pages.len() <= 1);
    }
}
