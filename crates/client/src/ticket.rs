//! Tickets: what became of a record.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use corelane_client_core::{DeliveryError, Placement, Sent};
use corelane_model::{Offset, PartitionIndex, TopicClass, WallMillis};

/// Where a record lies, and since when that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: PartitionIndex,
    /// Its offset.
    pub offset: Offset,
    /// When the broker took it.
    pub append_timestamp: WallMillis,
    /// When this client learned of it.
    pub known_at: Instant,
}

/// Tasks to wake, once what they wait for can be read.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    /// Adds a task. One that waits for many batches in turn is woken once for all that are told together.
    pub(crate) fn add(&mut self, waker: Waker) {
        if !self.0.last().is_some_and(|last| last.will_wake(&waker)) {
            self.0.push(waker);
        }
    }

    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// Cells that are made together: a cell by itself costs the heap more than what is told in it costs, at the tick of many
/// partitions. A ticket that is kept holds on to all of them.
const BLOCK_CELLS: usize = 8;

#[derive(Debug, Default)]
struct Block([Mutex<CellState>; BLOCK_CELLS]);

/// What is known about a batch, shared by the tickets of its records.
#[derive(Clone, Debug, Default)]
pub(crate) struct BatchCell {
    block: Arc<Block>,
    /// Its place in the block.
    at: u8,
}

/// Gives out cells that nobody has yet.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    next: BatchCell,
}

impl Cells {
    pub(crate) fn take(&mut self) -> BatchCell {
        let at = self.next.at + 1;
        let next = if usize::from(at) < BLOCK_CELLS {
            BatchCell { block: Arc::clone(&self.next.block), at }
        } else {
            BatchCell::default()
        };
        std::mem::replace(&mut self.next, next)
    }
}

#[derive(Debug, Default)]
struct CellState {
    received: Option<(Placement, Instant)>,
    end: Option<Result<End, DeliveryError>>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    placement: Placement,
    known_at: Instant,
    is_stored: bool,
}

impl BatchCell {
    fn lock(&self) -> MutexGuard<'_, CellState> {
        self.block.0[usize::from(self.at)].lock().expect("no panic while it is held")
    }

    /// The batch was received; who is to be woken goes to `wakers`.
    pub(crate) fn on_received(&self, placement: Placement, now: Instant, wakers: &mut Wakers) {
        self.change(wakers, |state| state.received = Some((placement, now)));
    }

    /// The batch was delivered; who is to be woken goes to `wakers`.
    pub(crate) fn on_delivered(&self, placement: Placement, is_stored: bool, now: Instant, wakers: &mut Wakers) {
        self.change(wakers, |state| state.end = Some(Ok(End { placement, known_at: now, is_stored })));
    }

    /// The batch was not delivered; who is to be woken goes to `wakers`.
    pub(crate) fn on_failed(&self, error: DeliveryError, wakers: &mut Wakers) {
        self.change(wakers, |state| state.end = Some(Err(error)));
    }

    fn change(&self, wakers: &mut Wakers, change: impl FnOnce(&mut CellState)) {
        let mut state = self.lock();
        change(&mut state);
        while let Some(waker) = state.wakers.pop() {
            wakers.add(waker);
        }
    }

    /// Polls what `read` looks for; wakes the task when anything changes.
    fn poll<T>(&self, context: &mut Context<'_>, read: impl FnOnce(&CellState) -> Option<T>) -> Poll<T> {
        let mut state = self.lock();
        if let Some(found) = read(&state) {
            return Poll::Ready(found);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Whether both are the same.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.block, &other.block) && self.at == other.at
    }

    /// Waits for the last word.
    pub(crate) async fn ended(&self) {
        poll_fn(|context| self.poll(context, |state| state.end.as_ref().map(|_| ()))).await;
    }
}

/// A promise about one record. It may be dropped at any time; the record is delivered all the same.
///
/// Awaiting it from several tasks, and more than once, is fine.
#[derive(Clone, Debug)]
pub struct Ticket {
    cell: BatchCell,
    class: TopicClass,
    index: u32,
    partition: PartitionIndex,
}

impl Ticket {
    pub(crate) const fn new(cell: BatchCell, class: TopicClass, sent: Sent) -> Self {
        Self { cell, class, index: sent.index, partition: sent.partition }
    }

    /// The record's partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionIndex {
        self.partition
    }

    /// Waits until the partition's owner has the record in memory: it survives the loss of the connection, but not of the
    /// broker. When the producer asks for `stored`, the broker tells both together, or this one after half a millisecond.
    ///
    /// # Errors
    /// The record is not delivered; see [`DeliveryError`].
    pub async fn received(&self) -> Result<Delivered, DeliveryError> {
        poll_fn(|context| self.cell.poll(context, |state| self.read_received(state))).await
    }

    /// Waits until the record is on disk: it survives a crash. On a memory topic this means the same as
    /// [`Self::received`].
    ///
    /// # Errors
    /// The record is not delivered; [`DeliveryError::NotAsked`] when its producer only asked for `received`.
    pub async fn stored(&self) -> Result<Delivered, DeliveryError> {
        poll_fn(|context| self.cell.poll(context, |state| self.read_stored(state))).await
    }

    /// What [`Self::received`] would give, if it is known already.
    #[must_use]
    pub fn try_received(&self) -> Option<Result<Delivered, DeliveryError>> {
        self.read_received(&self.cell.lock())
    }

    /// What [`Self::stored`] would give, if it is known already.
    #[must_use]
    pub fn try_stored(&self) -> Option<Result<Delivered, DeliveryError>> {
        self.read_stored(&self.cell.lock())
    }

    fn read_received(&self, state: &CellState) -> Option<Result<Delivered, DeliveryError>> {
        match (state.received, &state.end) {
            (Some((placement, known_at)), _) => Some(Ok(self.delivered(placement, known_at))),
            (None, Some(Ok(end))) => Some(Ok(self.delivered(end.placement, end.known_at))),
            (None, Some(Err(error))) => Some(Err(error.clone())),
            (None, None) => None,
        }
    }

    fn read_stored(&self, state: &CellState) -> Option<Result<Delivered, DeliveryError>> {
        match state.end.as_ref()? {
            Ok(end) if end.is_stored || !self.class.is_durable() => {
                Some(Ok(self.delivered(end.placement, end.known_at)))
            }
            Ok(_) => Some(Err(DeliveryError::NotAsked)),
            Err(error) => Some(Err(error.clone())),
        }
    }

    fn delivered(&self, placement: Placement, known_at: Instant) -> Delivered {
        Delivered {
            partition: self.partition,
            offset: placement.base_offset.advance(u64::from(self.index)),
            append_timestamp: placement.append_timestamp,
            known_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_for_several_batches_is_woken_once() {
        let (task, mut cells) = (Arc::new(Count::default()), Cells::default());
        let waker = Waker::from(Arc::clone(&task));
        let batches: Vec<BatchCell> = (0..2 * BLOCK_CELLS).map(|_| cells.take()).collect();
        for cell in &batches {
            let read = cell.poll(&mut Context::from_waker(&waker), |state| state.end.as_ref().map(|_| ()));
            assert!(read.is_pending());
        }
        let (told, untold) = batches.split_at(BLOCK_CELLS + 1);
        let mut wakers = Wakers::default();
        told.iter().for_each(|cell| cell.on_failed(DeliveryError::Closed, &mut wakers));
        assert_eq!(task.0.load(Ordering::Relaxed), 0, "nobody is woken before everything can be read");
        wakers.wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert!(told.iter().all(|cell| cell.lock().end.is_some()));
        assert!(untold.iter().all(|cell| cell.lock().end.is_none()), "cells of a block are told apart");
    }
}
